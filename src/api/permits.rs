//! A bound on how many handler threads wait for people at one time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::respond::ApiError;

/// So many may wait.
pub(super) struct Permits {
    left: AtomicUsize,
}

/// One of them does, until this is dropped.
pub(super) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { left: AtomicUsize::new(count) }
    }

    /// A permit, at once.
    ///
    /// # Errors
    /// 503 when all are taken; nothing was started.
    pub(super) fn take(&self) -> Result<Permit<'_>, ApiError> {
        self.left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
            .map(|_| Permit(self))
            .map_err(|_| {
                ApiError::unavailable(
                    "OVERLOADED",
                    "too many requests wait at this moment; nothing was started",
                    1,
                )
            })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_come_back() {
        let permits = Permits::new(1);
        let taken = permits.take().unwrap();
        assert_eq!(permits.take().err().unwrap().status, 503);
        drop(taken);
        assert!(permits.take().is_ok());
    }
}
