//! Secrets in the files of the local store.

use std::{fs, path::Path};

use super::*;
use crate::storage::seal::{KeyRing, SealError, SealKey};

const SECRET: &[u8] = b"the private half of a noise key";

fn key(digit: char) -> SealKey {
    SealKey::parse(&digit.to_string().repeat(64)).unwrap()
}

fn ring(current: Option<char>, old: &[char]) -> KeyRing {
    KeyRing::new(current.map(key), old.iter().copied().map(key).collect())
}

fn open_with(dir: &Path, keys: KeyRing) -> Result<LocalStore, StoreError> {
    LocalStore::open_with_keys(dir, keys)
}

/// Names of files that have the secret in plain.
fn files_with_secret(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let has_it = |path: &std::path::PathBuf| {
        fs::read(path).unwrap().windows(SECRET.len()).any(|window| window == SECRET)
    };
    files.filter(has_it).map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn secret_of(store: &LocalStore) -> Option<Vec<u8>> {
    let session = store.sessions().unwrap()[0].key;
    SessionStore::new(store.clone(), session).get(Table::Session, "noise").unwrap()
}

/// A store with a session and its secret; many other values around it.
fn fill(dir: &Path, keys: KeyRing) -> LocalStore {
    let store = open_with(dir, keys).unwrap();
    let session = session(&store, "a");
    let others = (0..500).map(|number| put(&format!("other-{number}"), &[7; 300]));
    write(&store, session, others.chain([put("noise", SECRET)]).collect()).unwrap();
    store
}

#[test]
fn with_a_key_no_file_ever_has_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let store = fill(dir.path(), ring(Some('1'), &[]));
    assert_eq!(files_with_secret(dir.path()), [""; 0]);
    assert_eq!(secret_of(&store).as_deref(), Some(SECRET));
    drop(store);
    assert_eq!(files_with_secret(dir.path()), [""; 0]);
    let again = open_with(dir.path(), ring(Some('1'), &[])).unwrap();
    assert_eq!(secret_of(&again).as_deref(), Some(SECRET));
}

#[test]
fn without_a_key_it_is_there_so_the_search_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = fill(dir.path(), KeyRing::default());
    let in_use = files_with_secret(dir.path());
    drop(store);
    for found in [in_use, files_with_secret(dir.path())] {
        assert!(found.contains(&"worker.journal".to_owned()), "{found:?}");
        assert!(found.iter().any(|file| file.starts_with("worker.db")), "{found:?}");
    }
}

#[test]
fn the_first_start_with_a_key_leaves_nothing_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), KeyRing::default()));
    let store = open_with(dir.path(), ring(Some('1'), &[])).unwrap();
    assert_eq!(files_with_secret(dir.path()), [""; 0]);
    assert_eq!(secret_of(&store).as_deref(), Some(SECRET));
    // Goes on working, journal included.
    let session = store.sessions().unwrap()[0].key;
    write(&store, session, vec![put("noise", b"another")]).unwrap();
    assert_eq!(secret_of(&store).as_deref(), Some(&b"another"[..]));
}

#[test]
fn another_key_takes_over_and_no_key_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), ring(Some('1'), &[])));
    assert_eq!(secret_of(&open_with(dir.path(), ring(Some('2'), &['1'])).unwrap()).as_deref(), Some(SECRET));
    assert_eq!(secret_of(&open_with(dir.path(), ring(Some('2'), &[])).unwrap()).as_deref(), Some(SECRET));
    assert_eq!(secret_of(&open_with(dir.path(), ring(None, &['2'])).unwrap()).as_deref(), Some(SECRET));
    assert_eq!(secret_of(&open_with(dir.path(), KeyRing::default()).unwrap()).as_deref(), Some(SECRET));
}

#[test]
fn a_missing_key_is_named_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), ring(Some('1'), &[])));
    for keys in [KeyRing::default(), ring(Some('2'), &['3'])] {
        let error = open_with(dir.path(), keys).err().unwrap();
        assert_eq!(error, StoreError::Sealed(SealError::UnknownKey(key('1').id())));
        assert!(error.to_string().contains(&key('1').id().to_string()), "{error}");
    }
    assert_eq!(secret_of(&open_with(dir.path(), ring(Some('1'), &[])).unwrap()).as_deref(), Some(SECRET));
}

#[test]
fn a_value_copied_to_another_row_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), ring(Some('1'), &[])));
    let conn = rusqlite::Connection::open(dir.path().join("worker.db")).unwrap();
    conn.execute(
        "UPDATE state SET value = (SELECT value FROM state WHERE key = 'other-1') WHERE key = 'noise'",
        [],
    )
    .unwrap();
    drop(conn);
    let store = open_with(dir.path(), ring(Some('1'), &[])).unwrap();
    let session = store.sessions().unwrap()[0].key;
    assert!(SessionStore::new(store, session).get(Table::Session, "noise").is_err());
}
