//! What the store thread counts about its work.

use rustix::fs::statvfs;

use super::{LocalStore, StoreError};
use crate::metrics::{Counter, Histogram};

/// Plain atomics; written by the store thread alone.
#[derive(Default)]
pub(crate) struct StoreStats {
    /// Pieces of work made durable.
    pub(crate) jobs: Counter,
    /// From taking a group of them out of the queue to the end of its sync.
    pub(crate) group_took: Histogram,
    /// Commits of SQLite.
    pub(crate) commit_took: Histogram,
    /// Groups and commits that failed for want of space.
    pub(crate) full: Counter,
    /// And for another fault of the disk or the file.
    pub(crate) broken: Counter,
}

impl StoreStats {
    /// A group or a commit failed.
    pub(super) fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Full => self.full.increment(),
            _ => self.broken.increment(),
        }
    }
}

impl LocalStore {
    /// What was counted so far.
    pub(crate) fn stats(&self) -> &StoreStats {
        &self.inner.shared.stats
    }

    /// Bytes free for us and bytes in all on the disk of the store; `None` where that cannot be told.
    pub(crate) fn disk_bytes(&self) -> Option<(u64, u64)> {
        let disk = statvfs(&self.inner.dir).ok()?;
        Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }

    /// Pieces of work that wait for the store thread.
    pub(crate) fn queue_depth(&self) -> usize {
        self.inner.queue.as_ref().map_or(0, crossbeam_channel::Sender::len)
    }
}
