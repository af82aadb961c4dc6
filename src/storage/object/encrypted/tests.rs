use super::*;
use crate::storage::{
    object::memory::MemoryObjects,
    seal::{OVERHEAD, SealError, SealKey},
};

fn key(digit: char) -> SealKey {
    SealKey::parse(&digit.to_string().repeat(64)).unwrap()
}

fn ring(current: Option<char>, old: &[char]) -> KeyRing {
    KeyRing::new(current.map(key), old.iter().copied().map(key).collect())
}

fn pair(keys: KeyRing) -> (Arc<MemoryObjects>, EncryptedStore) {
    let inner = Arc::new(MemoryObjects::default());
    (Arc::clone(&inner), EncryptedStore::new(inner, keys))
}

const CREDS: &str = "sessions/u1/auth_info_baileys/creds.json";
const LEASE: &str = "sessions/u1/lease.json";

#[test]
fn secrets_are_sealed_and_the_lease_and_temporary_objects_are_not() {
    let (inner, store) = pair(ring(Some('1'), &[]));
    for key in [CREDS, "media/u1/images/A.jpg", "sessions/u1/messages/lease.json", "quarantine/sessions/u1/x"]
    {
        store.put(key, b"noise", "application/json").unwrap();
        let stored = inner.get(key).unwrap().unwrap().bytes;
        assert_eq!(stored.len(), 5 + OVERHEAD, "{key}");
        assert_eq!(store.get(key).unwrap().unwrap().bytes, b"noise", "{key}");
    }
    for key in [LEASE, "temp/uploads/x"] {
        store.put_if(key, b"worker", &Condition::Absent).unwrap().unwrap();
        assert_eq!(inner.get(key).unwrap().unwrap().bytes, b"worker", "{key}");
    }
}

#[test]
fn versions_of_sealed_objects_serve_conditions() {
    let (_, store) = pair(ring(Some('1'), &[]));
    let first = store.put_if(CREDS, b"1", &Condition::Absent).unwrap().unwrap();
    assert_eq!(store.get(CREDS).unwrap().unwrap().version, first);
    let second = store.put_if(CREDS, b"2", &Condition::Is(first.clone())).unwrap().unwrap();
    assert_eq!(store.put_if(CREDS, b"3", &Condition::Is(first)).unwrap(), None);
    assert_eq!(store.list("sessions/").unwrap()[0].version, second);
}

#[test]
fn a_missing_key_is_named_by_its_id_and_ciphertext_is_never_handed_out() {
    let (inner, store) = pair(ring(Some('1'), &[]));
    store.put(CREDS, b"noise", "application/json").unwrap();
    for keys in [ring(Some('2'), &['3']), KeyRing::default()] {
        let other = EncryptedStore::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, keys);
        let error = other.get(CREDS).err().unwrap();
        assert!(error.to_string().contains(&key('1').id().to_string()), "{error}");
        assert!(matches!(error, ObjectError::Sealed { source: SealError::UnknownKey(_), .. }));
        assert!(!error.to_string().contains("creds.json"), "{error}");
    }
}

#[test]
fn an_object_copied_to_another_key_does_not_open() {
    let (inner, store) = pair(ring(Some('1'), &[]));
    store.put(CREDS, b"noise", "application/json").unwrap();
    let stolen = inner.get(CREDS).unwrap().unwrap().bytes;
    inner.put("sessions/u2/auth_info_baileys/creds.json", &stolen, "application/json").unwrap();
    let error = store.get("sessions/u2/auth_info_baileys/creds.json").err().unwrap();
    assert!(matches!(error, ObjectError::Damaged { .. }), "{error}");
}

#[test]
fn rotating_brings_plain_and_old_objects_under_the_current_key_and_back() {
    let (inner, old) = pair(ring(Some('1'), &[]));
    old.put(CREDS, b"old", "application/json").unwrap();
    old.put(LEASE, b"lease", "application/json").unwrap();
    inner.put("media/u1/images/A.jpg", b"plain", "image/jpeg").unwrap();
    inner.put("temp/x", b"temp", "text/plain").unwrap();
    let over = |keys| EncryptedStore::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, keys);

    let new = over(ring(Some('2'), &['1']));
    let mut steps = Vec::new();
    let rotation = new.rotate(|done, all| steps.push((done, all))).unwrap();
    assert_eq!((rotation.rewritten, rotation.current, rotation.failed.len()), (2, 0, 0));
    assert_eq!(steps, [(1, 2), (2, 2)]);
    let only_new = over(ring(Some('2'), &[]));
    assert_eq!(only_new.get(CREDS).unwrap().unwrap().bytes, b"old");
    assert_eq!(only_new.get("media/u1/images/A.jpg").unwrap().unwrap().bytes, b"plain");
    let again = only_new.rotate(|_, _| {}).unwrap();
    assert_eq!((again.rewritten, again.current), (0, 2));

    let off = over(ring(None, &['2']));
    assert_eq!(off.rotate(|_, _| {}).unwrap().rewritten, 2);
    assert_eq!(inner.get(CREDS).unwrap().unwrap().bytes, b"old");
    assert_eq!(inner.get("temp/x").unwrap().unwrap().bytes, b"temp");
}

#[test]
fn an_object_that_does_not_open_does_not_stop_the_rotation_of_the_others() {
    let (inner, lost) = pair(ring(Some('9'), &[]));
    lost.put(CREDS, b"lost", "application/json").unwrap();
    inner.put("sessions/u2/session-data.json", b"{}", "application/json").unwrap();
    let store = EncryptedStore::new(inner, ring(Some('2'), &[]));
    let rotation = store.rotate(|_, _| {}).unwrap();
    assert_eq!((rotation.rewritten, rotation.failed.len()), (1, 1));
    assert!(rotation.failed[0].1.to_string().contains(&key('9').id().to_string()));
}

#[test]
fn what_a_session_writes_during_a_rotation_is_kept() {
    /// Writes the object between the rotation's read and its write.
    struct Busy(Arc<MemoryObjects>, std::sync::atomic::AtomicUsize);
    impl ObjectStore for Busy {
        fn get(&self, key: &str) -> Result<Option<Object>, ObjectError> {
            let object = self.0.get(key);
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                self.0.put(key, b"newer", "application/json")?;
            }
            object
        }
        fn put(&self, key: &str, bytes: &[u8], content_type: &str) -> Result<Version, ObjectError> {
            self.0.put(key, bytes, content_type)
        }
        fn put_if(&self, key: &str, bytes: &[u8], on: &Condition) -> Result<Option<Version>, ObjectError> {
            self.0.put_if(key, bytes, on)
        }
        fn delete(&self, key: &str) -> Result<(), ObjectError> {
            self.0.delete(key)
        }
        fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
            self.0.list(prefix)
        }
        fn place(&self) -> Place {
            self.0.place()
        }
    }
    let inner = Arc::new(MemoryObjects::default());
    inner.put(CREDS, b"older", "application/json").unwrap();
    let busy = Arc::new(Busy(Arc::clone(&inner), 0.into()));
    let store = EncryptedStore::new(busy, ring(Some('1'), &[]));
    assert_eq!(store.rotate(|_, _| {}).unwrap().rewritten, 1);
    assert_eq!(store.get(CREDS).unwrap().unwrap().bytes, b"newer");
    assert_ne!(inner.get(CREDS).unwrap().unwrap().bytes, b"newer");
}
