//! Encryption at rest round any store: what lies under `sessions/`, `media/` and `quarantine/` is sealed on its way
//! in.
//!
//! Not sealed: `sessions/<id>/lease.json`, which holds names of workers and times, so that a worker with a wrong key
//! still sees that a session is taken and by whom; and everything else (`temp/`). Names are not sealed either.
//!
//! Reading accepts plain objects, so encryption can be switched on over a bucket in use; [`EncryptedStore::rotate`]
//! then seals what is left. A sealed object is an error without its key, with encryption switched off too: callers
//! never see ciphertext. One that was tampered with is [`ObjectError::Damaged`]. The sizes in listings are those of the stored objects, [`OVERHEAD`] more than their content.

use std::sync::Arc;

use super::{Condition, NewObject, Object, ObjectError, ObjectInfo, ObjectStore, Place, Version, shown};
use crate::storage::seal::{KeyId, KeyRing, SealError, Sealing};

#[cfg(doc)]
use crate::storage::seal::OVERHEAD;

/// A store whose secrets are sealed.
pub struct EncryptedStore {
    inner: Arc<dyn ObjectStore>,
    keys: KeyRing,
}

/// What [`EncryptedStore::rotate`] did.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Objects written anew.
    pub rewritten: usize,
    /// Objects that were as they should be.
    pub current: usize,
    /// Objects that cannot be read or written: key as in [`shown`], and why.
    pub failed: Vec<(String, ObjectError)>,
}

impl EncryptedStore {
    /// Seals with the ring's current key, if it has one.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, keys: KeyRing) -> Self {
        Self { inner, keys }
    }

    /// Which key seals.
    #[must_use]
    pub fn current_id(&self) -> Option<KeyId> {
        self.keys.current_id()
    }

    /// Brings every object under the current key, or back to plain when there is none. Safe while sessions run: each
    /// object is replaced on the condition that it is still the one that was read. What somebody replaces meanwhile is
    /// looked at again. An object that fails does not stop the others. `seen` is called after each object with how many
    /// were looked at, and how many there are.
    ///
    /// # Errors
    /// [`ObjectError`] when the objects cannot be listed.
    pub fn rotate(&self, mut seen: impl FnMut(usize, usize)) -> Result<Rotation, ObjectError> {
        let mut keys: Vec<String> = Vec::new();
        for prefix in SEALED {
            keys.extend(self.inner.list(prefix)?.into_iter().map(|info| info.key));
        }
        keys.retain(|key| is_sealed(key));
        let mut rotation = Rotation::default();
        for (index, key) in keys.iter().enumerate() {
            match self.rotate_one(key) {
                Ok(true) => rotation.rewritten += 1,
                Ok(false) => rotation.current += 1,
                Err(error) => rotation.failed.push((shown(key), error)),
            }
            seen(index + 1, keys.len());
        }
        Ok(rotation)
    }

    /// Whether there was something to do.
    fn rotate_one(&self, key: &str) -> Result<bool, ObjectError> {
        let wanted = self.keys.current_id().map_or(Sealing::Plain, Sealing::Under);
        for _ in 0..ROTATE_ATTEMPTS {
            let Some(stored) = self.inner.get(key)? else { return Ok(false) };
            let (bytes, sealing) = self.opened(key, stored.bytes)?;
            if sealing == wanted {
                return Ok(false);
            }
            let sealed = self.keys.seal(key, &bytes);
            if self.inner.put_if(key, &sealed, &Condition::Is(stored.version))?.is_some() {
                return Ok(true);
            }
        }
        // Whoever writes it that often writes it under the current key, or has another one.
        let problem = "it changes faster than it can be rewritten; do all workers have the same current key?";
        Err(ObjectError::Other { place: self.inner.place(), problem: problem.to_owned() })
    }

    fn opened(&self, key: &str, stored: Vec<u8>) -> Result<(Vec<u8>, Sealing), ObjectError> {
        self.keys.open(key, stored).map_err(|error| match error {
            SealError::UnknownKey(_) => ObjectError::Sealed { key: shown(key), source: error },
            SealError::Forged(_) | SealError::BadHeader => {
                ObjectError::Damaged { key: shown(key), problem: error.to_string() }
            }
        })
    }

    fn seals(&self, key: &str) -> bool {
        self.keys.seals() && is_sealed(key)
    }
}

impl ObjectStore for EncryptedStore {
    fn get(&self, key: &str) -> Result<Option<Object>, ObjectError> {
        let Some(stored) = self.inner.get(key)? else { return Ok(None) };
        if !is_sealed(key) {
            return Ok(Some(stored));
        }
        let (bytes, _) = self.opened(key, stored.bytes)?;
        Ok(Some(Object { bytes, version: stored.version }))
    }

    fn put(&self, key: &str, bytes: &[u8], content_type: &str) -> Result<Version, ObjectError> {
        if self.seals(key) {
            self.inner.put(key, &self.keys.seal(key, bytes), SEALED_CONTENT_TYPE)
        } else {
            self.inner.put(key, bytes, content_type)
        }
    }

    fn put_all(&self, objects: &[NewObject]) -> (usize, Result<(), ObjectError>) {
        if !self.keys.seals() {
            return self.inner.put_all(objects);
        }
        let seal = |object: &NewObject| {
            if !self.seals(&object.key) {
                return object.clone();
            }
            let bytes = self.keys.seal(&object.key, &object.bytes);
            NewObject { key: object.key.clone(), bytes, content_type: SEALED_CONTENT_TYPE }
        };
        self.inner.put_all(&objects.iter().map(seal).collect::<Vec<_>>())
    }

    fn put_if(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Option<Version>, ObjectError> {
        if self.seals(key) {
            self.inner.put_if(key, &self.keys.seal(key, bytes), condition)
        } else {
            self.inner.put_if(key, bytes, condition)
        }
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.inner.delete(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        self.inner.list(prefix)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        self.inner.folders(prefix)
    }

    fn place(&self) -> Place {
        self.inner.place()
    }
}

fn is_sealed(key: &str) -> bool {
    let is_lease = key
        .strip_prefix("sessions/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, name)| name == "lease.json");
    SEALED.iter().any(|prefix| key.starts_with(prefix)) && !is_lease
}

const SEALED: [&str; 3] = ["sessions/", "media/", "quarantine/"];
const SEALED_CONTENT_TYPE: &str = "application/octet-stream";
/// Between reading and replacing an object lie milliseconds, between two writes of the same one seconds.
const ROTATE_ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests;
