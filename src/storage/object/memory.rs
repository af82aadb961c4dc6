//! Objects in memory: the contract without a disk or a network, for tests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Condition, Object, ObjectError, ObjectInfo, ObjectStore, Place, Version, check_key};

/// Objects that are gone with the process. [`MemoryObjects::set_fault`] makes every call fail.
#[derive(Default)]
pub struct MemoryObjects {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Stored>,
    writes: u64,
    fault: Option<fn(Place) -> ObjectError>,
}

struct Stored {
    bytes: Vec<u8>,
    version: Version,
    modified_ms: u64,
}

impl MemoryObjects {
    /// From now on every call fails with this error; `None` repairs the store.
    pub fn set_fault(&self, fault: Option<fn(Place) -> ObjectError>) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> Result<MutexGuard<'_, Inner>, ObjectError> {
        let inner = self.lock();
        match inner.fault {
            Some(fault) => Err(fault(self.place())),
            None => Ok(inner),
        }
    }
}

impl Inner {
    fn insert(&mut self, key: &str, bytes: &[u8]) -> Version {
        self.writes += 1;
        let version = Version::new(format!("memory-{}", self.writes));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let stored = Stored { bytes: bytes.to_vec(), version: version.clone(), modified_ms };
        self.objects.insert(key.to_owned(), stored);
        version
    }
}

impl ObjectStore for MemoryObjects {
    fn get(&self, key: &str) -> Result<Option<Object>, ObjectError> {
        check_key(key)?;
        let inner = self.working()?;
        let stored = inner.objects.get(key);
        Ok(stored.map(|stored| Object { bytes: stored.bytes.clone(), version: stored.version.clone() }))
    }

    fn put(&self, key: &str, bytes: &[u8], _content_type: &str) -> Result<Version, ObjectError> {
        check_key(key)?;
        Ok(self.working()?.insert(key, bytes))
    }

    fn put_if(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Option<Version>, ObjectError> {
        check_key(key)?;
        let mut inner = self.working()?;
        let is_met = match (condition, inner.objects.get(key)) {
            (Condition::Absent, None) => true,
            (Condition::Is(version), Some(stored)) => stored.version == *version,
            (Condition::Absent, Some(_)) | (Condition::Is(_), None) => false,
        };
        Ok(is_met.then(|| inner.insert(key, bytes)))
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        check_key(key)?;
        self.working()?.objects.remove(key);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let inner = self.working()?;
        let from_prefix = inner.objects.range(prefix.to_owned()..);
        let info = |(key, stored): (&String, &Stored)| ObjectInfo {
            key: key.clone(),
            size: stored.bytes.len() as u64,
            modified_ms: stored.modified_ms,
            version: stored.version.clone(),
        };
        Ok(from_prefix.take_while(|(key, _)| key.starts_with(prefix)).map(info).collect())
    }

    fn place(&self) -> Place {
        Place("in memory".to_owned())
    }
}
