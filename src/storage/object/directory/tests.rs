use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use super::*;

fn store() -> (tempfile::TempDir, DirectoryStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(&dir.path().join("objects")).unwrap();
    (dir, store)
}

#[test]
fn an_object_is_a_file_of_its_owner_under_its_key() {
    let (dir, store) = store();
    store.put("sessions/a/lease.json", b"{}", "application/json").unwrap();
    let path = dir.path().join("objects/sessions/a/lease.json");
    assert_eq!(fs::read(&path).unwrap(), b"{}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn folders_go_with_their_last_object_and_the_root_stays() {
    let (dir, store) = store();
    store.put("sessions/a/x", b"1", "text/plain").unwrap();
    store.put("sessions/b", b"2", "text/plain").unwrap();
    store.delete("sessions/a/x").unwrap();
    assert!(!dir.path().join("objects/sessions/a").exists());
    assert!(dir.path().join("objects/sessions/b").exists());
    store.delete("sessions/b").unwrap();
    assert!(!dir.path().join("objects/sessions").exists());
    assert!(store.list("").unwrap().is_empty());
}

#[test]
fn nothing_is_left_in_the_temporary_folder_whether_a_write_succeeds_or_not() {
    let (dir, store) = store();
    store.put("a", b"1", "text/plain").unwrap();
    assert_eq!(store.put_if("a", b"2", &Condition::Absent).unwrap(), None);
    assert!(store.put("a/b", b"3", "text/plain").is_err());
    assert_eq!(fs::read_dir(dir.path().join("objects/.tmp")).unwrap().count(), 0);
}

#[test]
fn a_writer_that_died_is_swept_away_later_and_a_living_one_is_not() {
    let (dir, _store) = store();
    let root = dir.path().join("objects");
    let (old, new) = (root.join(".tmp/old"), root.join(".tmp/new"));
    File::create(&new).unwrap();
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    File::create(&old).unwrap().set_times(FileTimes::new().set_modified(two_hours_ago)).unwrap();
    DirectoryStore::open(&root).unwrap();
    assert!(new.exists() && !old.exists());
}

#[test]
fn keys_cannot_leave_the_folder_and_prefixes_neither() {
    let (dir, store) = store();
    fs::write(dir.path().join("secret"), "x").unwrap();
    assert!(store.get("../secret").is_err());
    assert!(store.put("a/../../secret", b"y", "text/plain").is_err());
    assert!(store.delete("../secret").is_err());
    assert!(store.list("../").unwrap().is_empty());
    assert!(store.list("a/../../").unwrap().is_empty());
    assert!(store.list(".").unwrap().is_empty(), "the store's own files are no objects");
}

#[test]
fn a_link_in_the_folder_is_not_listed() {
    let (dir, store) = store();
    fs::create_dir(dir.path().join("objects/sessions")).unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("objects/sessions/root")).unwrap();
    assert!(store.list("sessions/").unwrap().is_empty());
}

#[test]
fn a_folder_is_no_object_and_an_object_is_no_folder() {
    let (_dir, store) = store();
    store.put("a/b", b"1", "text/plain").unwrap();
    assert!(store.get("a").unwrap().is_none());
    store.delete("a").unwrap();
    store.delete("a/b/c").unwrap();
    assert!(store.get("a/b/c").unwrap().is_none());
    let error = store.put("a/b/c", b"2", "text/plain").unwrap_err();
    assert!(error.to_string().contains("folder of another key"), "{error}");
    assert!(store.put("a", b"2", "text/plain").is_err());
}

#[test]
fn the_same_bytes_written_again_are_another_version() {
    let (_dir, store) = store();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        assert!(seen.insert(store.put("a", b"same", "text/plain").unwrap()));
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_told_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = DirectoryStore::open(&dir.path().join("file/objects")).err().unwrap();
    assert!(error.to_string().contains("file/objects"), "{error}");
}

#[test]
#[ignore = "mounts a small tmpfs: `tests/run --step mounts` runs it"]
fn a_full_disk_is_told_and_what_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mount =
        |command: &mut std::process::Command| assert!(command.status().unwrap().success(), "needs root");
    mount(
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()),
    );
    let store = DirectoryStore::open(&dir.path().join("objects")).unwrap();
    let version = store.put("sessions/a/creds.json", &[1; 300_000], "application/json").unwrap();
    for _ in 0..3 {
        let error = store.put("sessions/a/creds.json", &[2; 900_000], "application/json").unwrap_err();
        assert!(matches!(error, ObjectError::Full { .. }) && error.is_transient(), "{error}");
    }
    let kept = store.get("sessions/a/creds.json").unwrap().unwrap();
    assert_eq!((kept.bytes, &kept.version), (vec![1; 300_000], &version));
    // What the failures wrote is gone: there is room for something smaller.
    store.put_if("sessions/a/creds.json", &[3; 500_000], &Condition::Is(version)).unwrap().unwrap();
    drop(store);
    mount(std::process::Command::new("umount").arg("-l").arg(dir.path()));
}
