//! What the uploads and leases are doing, for metrics and for people.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{ObjectSync, now_ms};

/// A count.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) uploads: Count,
    pub(super) failures: Count,
    pub(super) bytes: Count,
    pub(super) lost: Count,
    pub(super) quarantined: Count,
}

/// All of it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Changes the object store lacks.
    pub lag: u64,
    /// Milliseconds since the first of them; 0 when there is none.
    pub oldest_ms: u64,
    /// Objects written.
    pub uploads: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Sessions whose lease is held.
    pub leases: u64,
    /// Sessions that other workers took.
    pub lost: u64,
    /// Objects that could not be read.
    pub quarantined: u64,
    /// What is wrong with the object store, while it is left alone.
    pub error: Option<String>,
}

impl ObjectSync {
    /// Whether the object store fails at the moment. Asks nobody.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        self.inner.circuit.error().is_some()
    }

    /// A snapshot. Asks the local store two short questions.
    #[must_use]
    pub fn stats(&self) -> SyncStats {
        let counts = &self.inner.counts;
        let held: Vec<_> = self.held().keys().copied().collect();
        let sessions = self.inner.local.dirty_sessions().unwrap_or_default();
        let oldest = sessions.iter().filter(|(key, _)| held.contains(key)).map(|(_, since)| *since).min();
        SyncStats {
            lag: self.inner.local.dirty_count().unwrap_or(0),
            oldest_ms: oldest.map_or(0, |since| now_ms().saturating_sub(since)),
            uploads: counts.uploads.value(),
            failures: counts.failures.value(),
            bytes: counts.bytes.value(),
            leases: held.len() as u64,
            lost: counts.lost.value(),
            quarantined: counts.quarantined.value(),
            error: self.inner.circuit.error(),
        }
    }
}
