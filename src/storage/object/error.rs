//! What can be wrong with an object store, each in one line that says what to do.

use std::{fmt, io};

use crate::storage::seal::SealError;

/// Where a store is: its URL and bucket, or its folder. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call to an object store failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The host name has no address.
    #[error("object store {place}: the host name has no address; check MINIO_ENDPOINT and DNS")]
    Resolve {
        /// Which store.
        place: Place,
    },
    /// No connection.
    #[error(
        "object store {place}: no connection ({source}); check MINIO_ENDPOINT and that the store is running"
    )]
    Unreachable {
        /// Which store.
        place: Place,
        /// Why.
        source: io::Error,
    },
    /// The certificate, or TLS itself.
    #[error(
        "object store {place}: TLS failed ({problem}); check MINIO_USE_SSL, and MINIO_CA_FILE for a private authority"
    )]
    Tls {
        /// Which store.
        place: Place,
        /// In the words of the TLS library.
        problem: String,
    },
    /// No answer in time.
    #[error(
        "object store {place}: too slow: {wait} took longer than its deadline; the store or the way to it is overloaded"
    )]
    Timeout {
        /// Which store.
        place: Place,
        /// What was waited for.
        wait: &'static str,
    },
    /// The connection or the answer ended too early.
    #[error(
        "object store {place}: the answer broke off ({problem}); look at the network and proxies between"
    )]
    Broken {
        /// Which store.
        place: Place,
        /// What was seen.
        problem: String,
    },
    /// The store says that it cannot, now.
    #[error(
        "object store {place}: not able to work now (HTTP {status} {code}); look at the store's own logs"
    )]
    Unavailable {
        /// Which store.
        place: Place,
        /// HTTP status.
        status: u16,
        /// The store's own word.
        code: String,
    },
    /// Key or secret are wrong.
    #[error(
        "object store {place}: key refused ({code}); check MINIO_ACCESS_KEY, MINIO_SECRET_KEY and MINIO_REGION"
    )]
    Credentials {
        /// Which store.
        place: Place,
        /// The store's own word.
        code: String,
    },
    /// The key may not do this.
    #[error(
        "object store {place}: access denied ({code}); reading, writing, listing and deleting must be allowed"
    )]
    Denied {
        /// Which store.
        place: Place,
        /// The store's own word.
        code: String,
    },
    /// There is no such bucket, or it cannot be made.
    #[error("object store {place}: no bucket ({problem}); create it or check MINIO_BUCKET_NAME")]
    NoBucket {
        /// Which store.
        place: Place,
        /// What was seen.
        problem: String,
    },
    /// Our clock and the store's differ too much for signatures.
    #[error("object store {place}: the clocks differ{}; set this machine's clock or the store's (NTP)", skew(*.seconds))]
    ClockSkew {
        /// Which store.
        place: Place,
        /// Ours minus the store's, when the store told its time.
        seconds: Option<i64>,
    },
    /// No space, or over a quota.
    #[error("object store {place}: full ({problem}); free space or raise the quota")]
    Full {
        /// Which store.
        place: Place,
        /// What was seen.
        problem: String,
    },
    /// What was read is not what was written.
    #[error("object {key} is damaged: {problem}; restore it from a backup or delete it")]
    Damaged {
        /// Which object, as [`shown`](super::shown).
        key: String,
        /// What was seen.
        problem: String,
    },
    /// It is encrypted with a key that we do not have.
    #[error("object {key}: {source}")]
    Sealed {
        /// Which object, as [`shown`](super::shown).
        key: String,
        /// Why.
        source: SealError,
    },
    /// Not a key.
    #[error("object key {key} {problem}")]
    BadKey {
        /// Which, as [`shown`](super::shown).
        key: String,
        /// What it must be.
        problem: &'static str,
    },
    /// Something else.
    #[error("object store {place}: {problem}")]
    Other {
        /// Which store.
        place: Place,
        /// What was seen.
        problem: String,
    },
}

impl ObjectError {
    /// Whether the same call may succeed later although nobody changed a setting: the caller keeps what it wanted to
    /// write and tries again, for as long as it takes.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Unavailable { .. }
            | Self::ClockSkew { .. }
            | Self::Full { .. } => true,
            Self::Tls { .. }
            | Self::Credentials { .. }
            | Self::Denied { .. }
            | Self::NoBucket { .. }
            | Self::Damaged { .. }
            | Self::Sealed { .. }
            | Self::BadKey { .. }
            | Self::Other { .. } => false,
        }
    }
}

fn skew(seconds: Option<i64>) -> String {
    match seconds {
        Some(seconds) if seconds >= 0 => format!(" (ours is {seconds} s ahead)"),
        Some(seconds) => format!(" (ours is {} s behind)", seconds.unsigned_abs()),
        None => String::new(),
    }
}
