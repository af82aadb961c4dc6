//! Whole objects under keys: the durable home of everything, on disk or in a bucket.
//!
//! [`ObjectStore`] is five verbs, blocking. [`directory::DirectoryStore`] keeps one file per key, [`s3::S3Store`] talks
//! to a bucket, [`memory::MemoryObjects`] keeps nothing and is for tests; [`encrypted::EncryptedStore`] goes round any
//! of them. What a caller may rely on is written at the trait; the same tests (`tests/object_contract.rs`) hold every
//! implementation to it. [`open`] makes the one that the settings ask for, [`self_test()`] tries it.
//!
//! A key is `/`-separated names (`sessions/<id>/lease.json`), see [`check_key`]. Nothing here knows what is in an
//! object, who owns it or when it is written.

pub mod directory;
pub mod encrypted;
pub mod error;
pub mod memory;
pub mod s3;
mod self_test;

use std::sync::Arc;

use crate::config::{ObjectsAt, StorageConfig};

pub use error::{ObjectError, Place};
pub use self_test::{Conditions, self_test};

/// Where objects live.
///
/// - **Whole objects.** A reader sees an old object or a new one, never a part, also when the writer or the machine
///   dies. What `put` and `put_if` acknowledged is durable.
/// - **Read your writes.** What was acknowledged is in every later `get` and `list`.
/// - **Conditions are atomic**, between threads, processes and machines, unless the store ignores them:
///   [`self_test()`] finds out.
/// - **A key is no folder.** With an object `a` there is none `a/b`: stores answer that with an error or allow it, and
///   callers do not try.
///
/// Calls block, for as long as the deadlines of the implementation say; each may be made from many threads at once.
pub trait ObjectStore: Send + Sync {
    /// The object, or `None` when there is none.
    ///
    /// # Errors
    /// [`ObjectError`]; a body that is shorter than announced is one, never a short object.
    fn get(&self, key: &str) -> Result<Option<Object>, ObjectError>;

    /// Writes the object, whatever was there.
    ///
    /// # Errors
    /// [`ObjectError`]; then it may have been written all the same.
    fn put(&self, key: &str, bytes: &[u8], content_type: &str) -> Result<Version, ObjectError>;

    /// Writes several objects, whatever was there. How many of them, from the first on, are written for certain: all
    /// without an error. Where a store can make many durable together, much cheaper than one by one.
    fn put_all(&self, objects: &[NewObject]) -> (usize, Result<(), ObjectError>) {
        put_one_by_one(self, objects)
    }

    /// Writes the object when the condition holds; `None` when it does not. Its type is told by its name. Contents must
    /// differ between writers, for a version says which content it is, not who wrote it: name the writer in them.
    ///
    /// # Errors
    /// [`ObjectError`]; then it may have been written all the same: read it again to know.
    fn put_if(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Option<Version>, ObjectError>;

    /// Removes the object; that there is none is fine.
    ///
    /// # Errors
    /// [`ObjectError`]; then it may have been removed all the same.
    fn delete(&self, key: &str) -> Result<(), ObjectError>;

    /// Every object whose key begins with `prefix`, in byte order of the keys. The prefix may end in the middle of a
    /// name; the empty one lists everything.
    ///
    /// # Errors
    /// [`ObjectError`]
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError>;

    /// The names directly below `prefix` (which ends with a slash) that have something below themselves, in order.
    ///
    /// # Errors
    /// [`ObjectError`]
    fn folders(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let objects = self.list(prefix)?;
        let names = objects.iter().filter_map(|object| object.key.strip_prefix(prefix)?.split_once('/'));
        let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Where this is, for log lines and errors. No secrets.
    fn place(&self) -> Place;
}

/// The store that the settings ask for. Sends nothing yet: a worker starts while its store is down.
///
/// # Errors
/// [`ObjectError`] when the folder cannot be used or the address is none.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn ObjectStore>, ObjectError> {
    Ok(Arc::new(open_encrypted(config)?))
}

/// As [`open`], for who needs to know the encryption too.
///
/// # Errors
/// As [`open`].
pub fn open_encrypted(config: &StorageConfig) -> Result<encrypted::EncryptedStore, ObjectError> {
    let store: Arc<dyn ObjectStore> = match &config.objects {
        ObjectsAt::Directory(root) => Arc::new(directory::DirectoryStore::open(root)?),
        ObjectsAt::S3(config) => Arc::new(s3::S3Store::open(config)?),
    };
    Ok(encrypted::EncryptedStore::new(store, config.keys.clone()))
}

/// An object to write.
#[derive(Clone, PartialEq, Eq)]
pub struct NewObject {
    /// Where.
    pub key: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub content_type: &'static str,
}

/// [`ObjectStore::put_all`] of a store that makes each object durable for itself.
fn put_one_by_one<S: ObjectStore + ?Sized>(
    store: &S,
    objects: &[NewObject],
) -> (usize, Result<(), ObjectError>) {
    for (written, NewObject { key, bytes, content_type }) in objects.iter().enumerate() {
        if let Err(error) = store.put(key, bytes, content_type) {
            return (written, Err(error));
        }
    }
    (objects.len(), Ok(()))
}

/// An object as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Of exactly these bytes.
    pub version: Version,
}

/// Says which content an object has: another content, another version. Opaque; an S3 store's ETag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// From the text the store gave.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text the store gave.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// When [`ObjectStore::put_if`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no object.
    Absent,
    /// The object is there and is this one.
    Is(Version),
}

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Length of its content in bytes.
    pub size: u64,
    /// When it was written, milliseconds since 1970.
    pub modified_ms: u64,
    /// Which content it has.
    pub version: Version,
}

/// Checks a key: 1 to 1024 bytes, names between single slashes, no name `.` or `..`, no control characters, and the
/// first name does not begin with a dot (those are the store's own).
///
/// # Errors
/// [`ObjectError::BadKey`]
pub fn check_key(key: &str) -> Result<(), ObjectError> {
    let problem = if key.is_empty() || key.len() > MAX_KEY_BYTES {
        "must have 1 to 1024 bytes"
    } else if key.starts_with('.') {
        "must not begin with a dot"
    } else if key.chars().any(char::is_control) {
        "must not have control characters"
    } else if key.split('/').any(|name| matches!(name, "" | "." | "..")) {
        "must be names between single slashes, none of them `.` or `..`"
    } else {
        return Ok(());
    };
    Err(ObjectError::BadKey { key: shown(key), problem })
}

/// A key as logs and errors may show it: without its last name, which may hold a phone number.
#[must_use]
pub fn shown(key: &str) -> String {
    match key.rsplit_once('/') {
        Some((folder, _)) => format!("{}/…", folder.escape_default()),
        None => "…".to_owned(),
    }
}

/// S3's limit.
const MAX_KEY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_between_slashes() {
        let good = ["a", "sessions/u 1/auth_info_baileys/session-4915.0.json", "ü/%2F+@:~", "a/.b", "a/..."];
        for good in good {
            assert!(check_key(good).is_ok(), "{good}");
        }
        let long = "x".repeat(1025);
        for bad in ["", "/a", "a/", "a//b", "a/../b", "..", ".", "a/.", ".lock", "a\nb", "a\0", &long] {
            assert!(matches!(check_key(bad), Err(ObjectError::BadKey { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_shown_key_hides_its_last_name() {
        assert_eq!(
            shown("sessions/a/auth_info_baileys/session-4915.0.json"),
            "sessions/a/auth_info_baileys/…"
        );
        assert_eq!(shown("lease"), "…");
        assert!(!shown("a\n/b").contains('\n'));
    }
}
