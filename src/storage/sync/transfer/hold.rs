//! The lease of a session that is moved.

use std::time::{Duration, Instant};

use super::{
    super::{
        lease::{self, Found, Holder, Lease, State},
        millis, now_ms,
    },
    TransferError,
};
use crate::storage::object::{ObjectStore, Version};

/// A lease that is held by the one who moves the session.
pub(super) struct Hold<'a> {
    store: &'a dyn ObjectStore,
    id: &'a str,
    holder: &'a Holder,
    generation: u64,
    version: Version,
    written: Instant,
}

/// Whether a lease that was found may be taken.
pub(super) fn check_free(found: &Found) -> Result<(), TransferError> {
    match found {
        Found::Lease(lease, _) if lease.state == State::Deleting => Err(TransferError::Deleting),
        Found::Lease(lease, _) if lease.state == State::Held && lease.expires_ms() > now_ms() => {
            Err(TransferError::Held { worker: lease.worker_id.clone(), expires_ms: lease.expires_ms() })
        }
        Found::None | Found::Damaged(..) | Found::Lease(..) => Ok(()),
    }
}

impl<'a> Hold<'a> {
    /// Takes the lease over the one that was found.
    pub(super) fn take(
        store: &'a dyn ObjectStore,
        id: &'a str,
        holder: &'a Holder,
        found: &Found,
    ) -> Result<Self, TransferError> {
        check_free(found)?;
        let (generation, over) = match found {
            Found::None => (0, None),
            Found::Damaged(_, version) => (0, Some(version)),
            Found::Lease(lease, version) => (lease.generation, Some(version)),
        };
        let generation = generation + 1;
        let lease = Lease::held(holder, generation, now_ms() + millis(LIFE));
        let version = lease::write(store, id, &lease, over)?.ok_or(TransferError::Lost)?;
        Ok(Self { store, id, holder, generation, version, written: Instant::now() })
    }

    /// Renews the lease when it is time.
    pub(super) fn keep(&mut self) -> Result<(), TransferError> {
        if self.written.elapsed() < LIFE / 3 {
            return Ok(());
        }
        self.write(State::Held, now_ms() + millis(LIFE))
    }

    /// Gives it back, as a session whose newest state may be elsewhere.
    pub(super) fn release(mut self) -> Result<(), TransferError> {
        self.write(State::Released, now_ms())
    }

    fn write(&mut self, state: State, expires_ms: u64) -> Result<(), TransferError> {
        let lease = Lease { state, ..Lease::held(self.holder, self.generation, expires_ms) };
        let written = lease::write(self.store, self.id, &lease, Some(&self.version))?;
        self.version = written.ok_or(TransferError::Lost)?;
        self.written = Instant::now();
        Ok(())
    }
}

/// Of the lease without being renewed: what others wait when the move is interrupted.
const LIFE: Duration = Duration::from_secs(60);
