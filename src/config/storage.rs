//! Where objects are kept, and how they are encrypted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::raw::Raw;
use crate::storage::seal::{KeyRing, SealKey};

/// The durable home.
#[derive(Clone)]
pub struct StorageConfig {
    /// Where objects are.
    pub objects: ObjectsAt,
    /// What encrypts them; empty when nothing does.
    pub keys: KeyRing,
    /// Who shares them, and what is kept.
    pub sync: SyncConfig,
}

/// How sessions are kept in the durable home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncConfig {
    /// Other workers may use the same objects.
    pub shared: bool,
    /// Promised by a setting: no other worker does.
    pub single_worker: bool,
    /// A session that nobody renews is free after this time.
    pub lease_ttl: Duration,
    /// Days of messages kept; 0 keeps all.
    pub message_days: u32,
    /// Days of media kept; 0 keeps all.
    pub media_days: u32,
}

/// Where objects are.
#[derive(Clone)]
pub enum ObjectsAt {
    /// In this folder.
    Directory(PathBuf),
    /// In a bucket.
    S3(S3Config),
}

/// A bucket.
#[derive(Clone)]
pub struct S3Config {
    /// `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// What signatures name.
    pub region: String,
    /// Made when it is missing.
    pub bucket: String,
    /// Who we are.
    pub access_key: String,
    /// What proves it.
    pub secret_key: Secret,
    /// PEM file with the only certificates trusted; the built-in roots when there is none.
    pub ca_file: Option<PathBuf>,
}

/// A text that is never shown and does not stay in memory.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Takes a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(super) fn storage(raw: &mut Raw, state_dir: &Path) -> StorageConfig {
    let objects = match raw.text("MINIO_ENDPOINT") {
        Some(endpoint) => ObjectsAt::S3(s3(raw, &endpoint)),
        None => {
            for name in ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_BUCKET_NAME", "MINIO_CA_FILE"] {
                if raw.is_set(name) {
                    raw.problem(name, "is set, but MINIO_ENDPOINT is not");
                }
            }
            let dir = raw.text("STORAGE_DIR").map(PathBuf::from);
            ObjectsAt::Directory(dir.unwrap_or_else(|| state_dir.join("objects")))
        }
    };
    if raw.is_set("STORAGE_DIR") && matches!(objects, ObjectsAt::S3(_)) {
        raw.problem("STORAGE_DIR", "is set, but so is MINIO_ENDPOINT");
    }
    let single_worker = raw.flag("STORAGE_SINGLE_WORKER").unwrap_or(false);
    let is_private = matches!(objects, ObjectsAt::Directory(_)) && !raw.is_set("STORAGE_DIR");
    let sync = SyncConfig {
        shared: !single_worker && !is_private,
        // The state directory has a lock of its own.
        single_worker: single_worker || is_private,
        lease_ttl: Duration::from_secs(raw.number("STORAGE_LEASE_TTL", 45, 3..=3600)),
        message_days: raw.number("RETENTION_MESSAGE_DAYS", 0, 0..=36_500),
        media_days: raw.number("RETENTION_MEDIA_DAYS", 0, 0..=36_500),
    };
    StorageConfig { objects, keys: keys(raw), sync }
}

fn s3(raw: &mut Raw, endpoint: &str) -> S3Config {
    let use_ssl = raw.flag("MINIO_USE_SSL");
    let bucket = raw.text("MINIO_BUCKET_NAME").unwrap_or_else(|| "whatsapp-sessions".to_owned());
    if !is_bucket_name(&bucket) {
        raw.problem(
            "MINIO_BUCKET_NAME",
            "must be 3 to 63 of a-z 0-9 - . with a letter or digit at both ends",
        );
    }
    let region = raw.text("MINIO_REGION").unwrap_or_else(|| "us-east-1".to_owned());
    if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        raw.problem("MINIO_REGION", "must be letters, digits and hyphens, like us-east-1");
    }
    let access_key = raw.text("MINIO_ACCESS_KEY").unwrap_or_else(|| {
        raw.problem("MINIO_ACCESS_KEY", "is needed because MINIO_ENDPOINT is set");
        String::new()
    });
    let secret_key = raw.secret("MINIO_SECRET_KEY");
    if secret_key.is_none() && !raw.is_set("MINIO_SECRET_KEY") && !raw.is_set("MINIO_SECRET_KEY_FILE") {
        raw.problem("MINIO_SECRET_KEY", "(or MINIO_SECRET_KEY_FILE) is needed because MINIO_ENDPOINT is set");
    }
    let ca_file = raw.text("MINIO_CA_FILE").map(PathBuf::from);
    if ca_file.as_ref().is_some_and(|path| !path.is_file()) {
        raw.problem("MINIO_CA_FILE", "is not a file that can be read");
    }
    S3Config {
        endpoint: address(raw, endpoint, use_ssl),
        region,
        bucket,
        access_key,
        secret_key: Secret::new(secret_key.unwrap_or_default()),
        ca_file,
    }
}

/// `host:port` or a URL without a path, to a URL.
fn address(raw: &mut Raw, endpoint: &str, use_ssl: Option<bool>) -> String {
    let (scheme, authority) =
        endpoint.split_once("://").map_or((None, endpoint), |(scheme, rest)| (Some(scheme), rest));
    let is_https = match (scheme, use_ssl) {
        (None, use_ssl) => use_ssl.unwrap_or(false),
        (Some("https"), None | Some(true)) => true,
        (Some("http"), None | Some(false)) => false,
        (Some("http" | "https"), Some(_)) => {
            raw.problem("MINIO_USE_SSL", "contradicts the scheme of MINIO_ENDPOINT");
            false
        }
        (Some(_), _) => {
            raw.problem("MINIO_ENDPOINT", "must be host:port, or a URL with http or https");
            false
        }
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let url = format!("{}://{authority}", if is_https { "https" } else { "http" });
    let is_plain = !authority.contains(['/', '?', '#', '@']) && !authority.contains(char::is_whitespace);
    if !is_plain || url::Url::parse(&url).is_err() {
        raw.problem("MINIO_ENDPOINT", "must be host:port, or a URL without a path");
    }
    url
}

/// S3's rules for bucket names, those that servers agree on.
fn is_bucket_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        && is_end(bytes.first())
        && is_end(bytes.last())
        && !name.contains("..")
}

fn keys(raw: &mut Raw) -> KeyRing {
    let current =
        raw.secret("STORAGE_ENCRYPTION_KEY").and_then(|text| key(raw, "STORAGE_ENCRYPTION_KEY", &text));
    let old = raw.secret("STORAGE_ENCRYPTION_OLD_KEYS").unwrap_or_default();
    let old = old
        .split([',', ' ', '\n'])
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .filter_map(|text| key(raw, "STORAGE_ENCRYPTION_OLD_KEYS", text))
        .collect();
    KeyRing::new(current, old)
}

fn key(raw: &mut Raw, name: &str, text: &str) -> Option<SealKey> {
    let key = SealKey::parse(text);
    if key.is_none() {
        raw.problem(name, "must be 64 hex digits or 32 bytes in base64 (openssl rand -hex 32)");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigProblems};
    use super::*;

    fn storage(vars: &[(&str, &str)]) -> Result<StorageConfig, ConfigProblems> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_env(vars).map(|(config, _)| config.storage)
    }

    fn s3(vars: &[(&str, &str)]) -> Result<S3Config, ConfigProblems> {
        let keys = [("MINIO_ACCESS_KEY", "minioadmin"), ("MINIO_SECRET_KEY", "minioadmin")];
        match storage(&[vars, &keys].concat())?.objects {
            ObjectsAt::S3(config) => Ok(config),
            ObjectsAt::Directory(_) => panic!("no bucket"),
        }
    }

    fn problem(vars: &[(&str, &str)]) -> String {
        storage(vars).err().unwrap().to_string()
    }

    #[test]
    fn nothing_set_is_a_folder_in_the_state_directory_without_encryption() {
        let config = storage(&[("STATE_DIR", "/s")]).unwrap();
        assert!(matches!(config.objects, ObjectsAt::Directory(path) if path == Path::new("/s/objects")));
        assert!(!config.keys.seals());
    }

    #[test]
    fn the_endpoint_is_host_and_port_or_a_url() {
        let url = |endpoint, ssl| {
            s3(&[("MINIO_ENDPOINT", endpoint), ("MINIO_USE_SSL", ssl)]).map(|config| config.endpoint)
        };
        assert_eq!(url("localhost:9000", "").unwrap(), "http://localhost:9000");
        assert_eq!(url("localhost:9000", "true").unwrap(), "https://localhost:9000");
        assert_eq!(url("https://s3.example.com/", "").unwrap(), "https://s3.example.com");
        assert_eq!(url("[::1]:9000", "false").unwrap(), "http://[::1]:9000");
        for (bad, ssl) in
            [("https://a", "false"), ("ftp://a", ""), ("a:9000/bucket", ""), ("a:x", ""), ("u@a", "")]
        {
            assert!(url(bad, ssl).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_the_guides() {
        let config = s3(&[("MINIO_ENDPOINT", "localhost:9000")]).unwrap();
        assert_eq!((config.bucket.as_str(), config.region.as_str()), ("whatsapp-sessions", "us-east-1"));
    }

    #[test]
    fn problems_name_their_setting() {
        let problems = problem(&[
            ("MINIO_ENDPOINT", "localhost:9000"),
            ("MINIO_BUCKET_NAME", "Not_A_Bucket"),
            ("MINIO_REGION", "us east"),
            ("MINIO_CA_FILE", "/does/not/exist"),
            ("MINIO_USE_SSL", "maybe"),
            ("STORAGE_ENCRYPTION_KEY", "t0p-s3cret"),
        ]);
        let names = [
            "MINIO_ACCESS_KEY",
            "MINIO_SECRET_KEY",
            "MINIO_BUCKET_NAME",
            "MINIO_REGION",
            "MINIO_CA_FILE",
            "MINIO_USE_SSL",
            "STORAGE_ENCRYPTION_KEY",
        ];
        for name in names {
            assert!(problems.contains(name), "{name}: {problems}");
        }
        assert!(!problems.contains("s3cret"), "{problems}");
        assert!(problem(&[("MINIO_ACCESS_KEY", "x")]).contains("MINIO_ENDPOINT"));
    }

    #[test]
    fn keys_come_in_hex_base64_lists_and_files() {
        let (a, b) = ("0a".repeat(32), "CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws=");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, format!("{a}\n")).unwrap();
        let file = file.to_str().unwrap();
        let config = storage(&[
            ("STORAGE_ENCRYPTION_KEY_FILE", file),
            ("STORAGE_ENCRYPTION_OLD_KEYS", &format!("{b}, {a}")),
        ])
        .unwrap();
        assert_eq!(config.keys.current_id(), SealKey::parse(&a).map(|key| key.id()));
        let by_b = KeyRing::new(SealKey::parse(b), Vec::new()).seal("x", b"content");
        assert_eq!(config.keys.open("x", by_b).unwrap().0, b"content");
        assert!(problem(&[("STORAGE_ENCRYPTION_OLD_KEYS", &format!("{a},xyz"))]).contains("OLD_KEYS"));
    }
}
