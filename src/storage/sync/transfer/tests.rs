//! Folders of real Baileys clients (`tests/vectors/baileys_auth`) come into sessions and leave them.

use std::path::Path;

use serde_json::Value;

use super::{
    super::{
        layout,
        lease::{Found, Lease, State},
        millis, now_ms,
    },
    *,
};
use crate::storage::{
    baileys::{Folder, is_known},
    object::memory::MemoryObjects,
};

fn folder(name: &str) -> Folder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/baileys_auth").join(name);
    let vector: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let files = vector["files"].as_object().unwrap().iter();
    let mut folder: Folder =
        files.map(|(name, text)| (name.clone(), text.as_str().unwrap().as_bytes().to_vec())).collect();
    folder.insert("notes.txt".to_owned(), b"\0not ours".to_vec());
    folder
}

fn write(dir: &Path, folder: &Folder) -> Place {
    std::fs::create_dir_all(dir).unwrap();
    folder.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).unwrap());
    Place::Folder(dir.to_owned())
}

fn put(store: &MemoryObjects, prefix: &str, folder: &Folder) {
    for (name, bytes) in folder {
        store.put(&format!("{prefix}{name}"), bytes, "").unwrap();
    }
}

fn objects(store: &MemoryObjects, prefix: &str) -> Folder {
    let keys = store.list(prefix).unwrap().into_iter().map(|object| object.key);
    let read =
        |key: String| (key.strip_prefix(prefix).unwrap().to_owned(), store.get(&key).unwrap().unwrap().bytes);
    keys.map(read).collect()
}

fn transfer(store: &MemoryObjects, dry_run: bool) -> Transfer<'_> {
    Transfer::new(store, "worker (test)", "1", dry_run)
}

fn lease_of(store: &MemoryObjects, id: &str) -> Lease {
    match lease::read(store, id).unwrap() {
        Found::Lease(lease, _) => lease,
        Found::None | Found::Damaged(..) => panic!("no lease"),
    }
}

/// A lease of another worker.
fn put_lease(store: &MemoryObjects, id: &str, state: State, clean: bool, expires_ms: u64) {
    let holder = Holder { worker_id: "b".to_owned(), instance: "2".to_owned() };
    let creds = store.get(&format!("{}creds.json", layout::auth(id))).unwrap();
    let creds = creds.map(|creds| creds.version.as_str().to_owned());
    let lease = Lease { state, clean, creds, ..Lease::held(&holder, 7, expires_ms) };
    store.put(&layout::lease(id), &lease.encode(), "").unwrap();
}

#[test]
fn an_import_copies_every_file_and_leaves_a_session_that_anybody_may_take() {
    let (store, dir) = (MemoryObjects::default(), tempfile::tempdir().unwrap());
    let left = folder("seven_lid.json");
    let source = write(&dir.path().join("auth_info_baileys"), &left);
    let dry = transfer(&store, true).import(&source, "a", Some("user")).unwrap();
    assert!(objects(&store, "").is_empty(), "a dry run writes nothing");
    // The folder above is as good.
    let source = Place::Folder(dir.path().to_owned());
    let summary = transfer(&store, false).import(&source, "a", Some("user")).unwrap();
    assert_eq!(summary, dry);
    assert_eq!((summary.phone.as_str(), summary.found["session"]), ("+6281200000050", 5));
    assert_eq!((summary.kept.as_slice(), summary.refused.len()), (&["notes.txt".to_owned()][..], 0));
    assert_eq!(objects(&store, &layout::auth("a")), left);
    let data: Value = serde_json::from_slice(&store.get(&layout::data("a")).unwrap().unwrap().bytes).unwrap();
    assert_eq!((&data["userId"], &data["phoneNumber"]), (&"user".into(), &"+6281200000050".into()));
    let lease = lease_of(&store, "a");
    assert_eq!((lease.state, lease.clean, lease.returns), (State::Released, false, false));
}

#[test]
fn an_import_over_the_same_account_replaces_it_and_over_another_is_refused() {
    let (store, dir) = (MemoryObjects::default(), tempfile::tempdir().unwrap());
    put(&store, &layout::auth("a"), &folder("six_pn.json"));
    store.put(&format!("{}pre-key-9999.json", layout::auth("a")), b"{}", "").unwrap();
    store.put(&format!("{}mine.txt", layout::auth("a")), b"mine", "").unwrap();
    put_lease(&store, "a", State::Released, true, 0);
    let source = write(&dir.path().join("other"), &folder("seven_lid.json"));
    let other = transfer(&store, false).import(&source, "a", None);
    assert!(matches!(other, Err(TransferError::OtherAccount { .. })), "{other:?}");
    let mut left = folder("six_pn.json");
    left.remove("session-6281200000082.0.json");
    let source = write(&dir.path().join("same"), &left);
    let summary = transfer(&store, false).import(&source, "a", None).unwrap();
    assert!(summary.changes.iter().any(|change| change.starts_with("2 files")), "{:?}", summary.changes);
    left.insert("mine.txt".to_owned(), b"mine".to_vec());
    assert_eq!(objects(&store, &layout::auth("a")), left);
    assert_eq!(lease_of(&store, "a").generation, 8, "the last owner sees that it is not the last any more");
}

#[test]
fn damaged_files_are_named_and_a_folder_without_an_account_is_refused() {
    let (store, dir) = (MemoryObjects::default(), tempfile::tempdir().unwrap());
    let mut left = folder("seven_pn.json");
    left.insert("session-100000000000005_1.1.json".to_owned(), Vec::new());
    let source = write(&dir.path().join("damaged"), &left);
    let summary = transfer(&store, false).import(&source, "a", None).unwrap();
    let (name, reason) = &summary.refused[0];
    assert_eq!((name.as_str(), reason.as_str()), ("session-100000000000005_1.1.json", "it is empty"));
    assert!(store.get(&layout::data("a")).unwrap().is_none(), "nobody said whose it is");
    left.insert("creds.json".to_owned(), b"{\"noiseKey\":".to_vec());
    let source = write(&dir.path().join("lost"), &left);
    let lost = transfer(&store, false).import(&source, "b", None);
    assert!(matches!(lost, Err(TransferError::NoAccount(_))), "{lost:?}");
    let nothing = transfer(&store, false).import(&Place::Folder(dir.path().join("no")), "b", None);
    assert!(matches!(nothing, Err(TransferError::Missing(_))), "{nothing:?}");
    assert!(objects(&store, &layout::session("b")).is_empty());
}

#[test]
fn a_flat_session_is_found_with_and_without_its_folder() {
    let store = MemoryObjects::default();
    put(&store, "sessions/old/", &folder("six_lid.json"));
    store.put("sessions/old/session-data.json", br#"{"userId":"u"}"#, "").unwrap();
    store.put("sessions/old/messages/2024-01-15.json", b"[]", "").unwrap();
    let source = Place::parse("store:sessions/old");
    let summary = transfer(&store, false).import(&source, "old", Some("u")).unwrap();
    assert_eq!(summary.files, folder("six_lid.json").len());
    assert_eq!(objects(&store, &layout::auth("old")), folder("six_lid.json"));
    let stranger = transfer(&store, false).import(&source, "old", Some("somebody else"));
    assert!(matches!(stranger, Err(TransferError::OtherUser)), "{stranger:?}");
    let again =
        transfer(&store, false).import(&Place::parse("store:sessions/old/auth_info_baileys"), "old", None);
    assert!(matches!(again, Err(TransferError::SamePlace)), "{again:?}");
}

#[test]
fn nobody_moves_a_session_that_a_worker_holds_or_deletes() {
    let (store, dir) = (MemoryObjects::default(), tempfile::tempdir().unwrap());
    let source = write(&dir.path().join("left"), &folder("six_pn.json"));
    put(&store, &layout::auth("a"), &folder("six_pn.json"));
    let target = Place::Folder(dir.path().join("out"));
    let soon = now_ms() + millis(std::time::Duration::from_secs(60));
    for dry_run in [true, false] {
        let transfer = transfer(&store, dry_run);
        put_lease(&store, "a", State::Held, false, soon);
        let held = transfer.export("a", &target, Release::Seven).unwrap_err();
        assert!(held.to_string().contains("worker b holds the session"), "{held}");
        assert!(matches!(transfer.import(&source, "a", None), Err(TransferError::Held { .. })));
        put_lease(&store, "a", State::Deleting, false, soon);
        assert!(matches!(transfer.export("a", &target, Release::Seven), Err(TransferError::Deleting)));
    }
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_session_released_in_order_is_exported_as_it_is() {
    let (store, dir) = (MemoryObjects::default(), tempfile::tempdir().unwrap());
    let account = folder("seven_lid.json");
    put(&store, &layout::auth("a"), &account);
    put_lease(&store, "a", State::Released, true, 0);
    let out = dir.path().join("new/out");
    let target = Place::Folder(out.clone());
    let dry = transfer(&store, true).export("a", &target, Release::Seven).unwrap();
    assert!(!out.exists() && lease_of(&store, "a").clean);
    let summary = transfer(&store, false).export("a", &target, Release::Seven).unwrap();
    assert_eq!((&summary, summary.files), (&dry, account.len()));
    let read = |dir: &Path| -> Folder {
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
    };
    assert_eq!(read(&out), account);
    let lease = lease_of(&store, "a");
    assert_eq!((lease.state, lease.clean, lease.generation), (State::Released, false, 8));
    // From now on somebody else may have gone on: the next export starts with new keys.
    let second = Place::Folder(dir.path().join("second"));
    let summary = transfer(&store, false).export("a", &second, Release::Seven).unwrap();
    assert!(summary.changes[0].contains("did not release"), "{:?}", summary.changes);
    let full = transfer(&store, false).export("a", &second, Release::Seven);
    assert!(matches!(full, Err(TransferError::NotEmpty(_))), "{full:?}");
}

#[test]
fn a_session_whose_owner_vanished_is_exported_without_anything_to_send_on() {
    let store = MemoryObjects::default();
    put(&store, &layout::auth("a"), &folder("seven_pn.json"));
    put_lease(&store, "a", State::Held, false, now_ms() - 1);
    let target = Place::parse("store:given/a");
    let summary = transfer(&store, false).export("a", &target, Release::Seven).unwrap();
    let given = objects(&store, "given/a/");
    assert_eq!(given.len(), summary.files);
    assert_eq!(given["notes.txt"], b"\0not ours");
    for (name, bytes) in &given {
        assert!(!name.starts_with("sender-key-memory-"), "{name}");
        if name.starts_with("session-") {
            let record: Value = serde_json::from_slice(bytes).unwrap();
            let states = record["_sessions"].as_object().unwrap();
            assert!(states.values().all(|state| state["indexInfo"]["closed"] != -1), "{name}");
        }
    }
    let own = "sender-key-120363000000000018@g.us--6281200000060--1.json";
    assert!(folder("seven_pn.json").contains_key(own) && !given.contains_key(own));
    // For Baileys 6: no name with a sign for the server.
    let target = Place::parse("store:given/six");
    transfer(&store, false).export("a", &target, Release::Six).unwrap();
    let given = objects(&store, "given/six/");
    assert!(given.keys().all(|name| !is_known(name) || !name.contains("_1.")), "{:?}", given.keys());
    assert!(
        !given.keys().any(|name| name.starts_with("session-")),
        "nothing can be sent on: {:?}",
        given.keys()
    );
    // After an end in order, what is open stays so.
    put_lease(&store, "a", State::Released, true, 0);
    let target = Place::parse("store:given/in order");
    let summary = transfer(&store, false).export("a", &target, Release::Six).unwrap();
    assert!(summary.changes.iter().any(|change| change.contains("names of Baileys 6")));
    let given = objects(&store, "given/in order/");
    assert!(given.contains_key("session-6281200000061.1.json"), "{:?}", given.keys());
}
