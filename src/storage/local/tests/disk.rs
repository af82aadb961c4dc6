//! A disk that is full.

use std::{path::Path, process::Command};

use super::*;

#[test]
#[ignore = "mounts a small tmpfs: `tests/run --step mounts` runs it"]
fn a_full_disk_refuses_work_loses_nothing_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path());
    let store = LocalStore::open(&dir.path().join("state")).unwrap();
    let key = session(&store, "a");
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0u8; 1 << 20]).unwrap();
    let mut kept = 0u32;
    let error = loop {
        match write(&store, key, vec![put(&kept.to_string(), &[9; 20_000]), event("62811")]) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1000, "the disk never got full");
    };
    assert_eq!(error, StoreError::Full);
    assert_eq!(store.health(), Some(StoreError::Full));
    std::fs::remove_file(&ballast).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.health().is_some() {
        assert!(std::time::Instant::now() < deadline, "the store did not recover");
        std::thread::yield_now();
    }
    let state = SessionStore::new(store.clone(), key);
    assert_eq!(write(&store, key, vec![event("62811")]), Ok(Some(u64::from(kept) + 1)));
    assert_eq!(state.keys(Table::Session, "").unwrap().len(), kept as usize);
    drop((state, store));
    drop(mount);
}

struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(dir: &'a Path) -> Self {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir).status();
        assert!(status.unwrap().success(), "mounting a tmpfs needs root");
        Self(dir)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}
