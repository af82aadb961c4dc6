//! An object store that a worker uses and a test looks into: a folder, or a bucket in real MinIO.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use whatsapp_worker::storage::object::{ObjectStore, directory::DirectoryStore, s3::S3Store};

use super::{durable::LEASE_S, objects, sandbox::Sandbox, worker::Worker};

/// Files of an auth folder by name.
pub type Folder = BTreeMap<String, Vec<u8>>;

/// See the module.
pub struct Bucket {
    pub store: Arc<dyn ObjectStore>,
    /// What a worker must be told to use it.
    pub settings: Vec<(&'static str, String)>,
    _dir: Option<tempfile::TempDir>,
}

impl Bucket {
    pub fn directory() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("objects");
        let store = Arc::new(DirectoryStore::open(&root).unwrap());
        let settings = vec![("STORAGE_DIR", root.to_str().unwrap().to_owned())];
        Self { store, settings, _dir: Some(dir) }
    }

    /// A new bucket.
    pub fn minio() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("bucket-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = objects::minio().config(&name);
        let settings = vec![
            ("MINIO_ENDPOINT", config.endpoint.clone()),
            ("MINIO_BUCKET_NAME", name),
            ("MINIO_ACCESS_KEY", config.access_key.clone()),
            ("MINIO_SECRET_KEY", config.secret_key.as_str().to_owned()),
        ];
        Self { store: Arc::new(S3Store::open(&config).unwrap()), settings, _dir: None }
    }

    /// Workers encrypt what they write.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.settings.push(("STORAGE_ENCRYPTION_KEY", "5e".repeat(32)));
        self
    }

    /// A worker of this name on it.
    pub fn worker(&self, sandbox: &Sandbox, name: &str) -> Worker {
        let ttl = LEASE_S.to_string();
        let own = [("WORKER_ID", name), ("STORAGE_LEASE_TTL", &ttl)];
        let settings = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        Worker::start_with(sandbox, &own.into_iter().chain(settings).collect::<Vec<_>>())
    }

    /// Objects below a prefix by the rest of their keys.
    pub fn folder(&self, prefix: &str) -> Folder {
        let objects = self.store.list(prefix).unwrap();
        let read = |key: &str| self.store.get(key).unwrap().map(|object| object.bytes);
        let named = |key: &str| Some((key.strip_prefix(prefix)?.to_owned(), read(key)?));
        objects.iter().filter_map(|object| named(&object.key)).collect()
    }

    pub fn put_folder(&self, prefix: &str, folder: &Folder) {
        for (name, bytes) in folder {
            self.store.put(&format!("{prefix}{name}"), bytes, "application/json").unwrap();
        }
    }
}

/// Objects of a session's account.
pub fn auth(session: &str) -> String {
    format!("sessions/{session}/auth_info_baileys/")
}

/// Highest message number that any sending chain or sender key of ours in a folder stands at. Far above what was sent
/// while numbers are reserved ahead.
pub fn highest_sending_counter(folder: &Folder) -> u64 {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let mut highest = 0;
    for (name, bytes) in folder {
        if name.starts_with("session-") {
            let record = json(bytes);
            let sessions = record["_sessions"].as_object().unwrap().values();
            let chains = sessions.flat_map(|session| session["_chains"].as_object().unwrap().values());
            let ours = chains.filter(|chain| chain["chainType"] == 1);
            let counters = ours.map(|chain| chain["chainKey"]["counter"].as_i64().unwrap());
            highest = counters.filter_map(|counter| u64::try_from(counter).ok()).fold(highest, u64::max);
        } else if name.starts_with("sender-key-") && !name.starts_with("sender-key-memory-") {
            let inner = STANDARD.decode(json(bytes)["data"].as_str().unwrap()).unwrap();
            for key in json(&inner).as_array().unwrap() {
                let is_ours =
                    key["senderSigningKey"]["private"]["data"].as_array().is_some_and(|d| !d.is_empty());
                let iteration = key["senderChainKey"]["iteration"].as_u64().unwrap();
                highest = highest.max(if is_ours { iteration } else { 0 });
            }
        }
    }
    highest
}

pub fn read_folder(dir: &Path) -> Folder {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let file =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(file).collect()
}

pub fn write_folder(dir: &Path, folder: &Folder) {
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in folder {
        fs::write(dir.join(name), bytes).unwrap();
    }
}
