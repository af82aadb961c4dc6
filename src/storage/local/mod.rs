//! The local store: one SQLite file (WAL, `synchronous=FULL`) under the state directory.
//!
//! One thread writes. It takes whatever waits in its queue, applies it in one transaction, commits once and tells
//! everybody: the cost of a sync to disk is shared by all sessions. Readers have connections of their own.
//! It is a cache and a journal, never a thing to administer: the schema migrates itself.

mod records;
mod session_store;

use std::{path::Path, sync::Arc};

pub use records::{
    Answer, Claim, IdempotencyRecord, MessageFilter, MessagePage, SessionKey, SessionPatch, SessionRow,
    StatusTimes, StoreError, StoredEvent, StoredMessage,
};
pub use session_store::SessionStore;

use crate::whatsapp::state::Batch;

/// The store. Cheap to clone; the last clone dropped stops the store thread after its queue is written.
#[derive(Clone)]
pub struct LocalStore {}

/// Told by the store thread what became of a submitted batch. Must not block.
pub trait CommitListener: Send + Sync {
    /// The batch with this number is durable (or failed as a whole). `last_seq` is the number of its last event.
    fn committed(&self, number: u64, result: Result<Option<u64>, StoreError>);
}

impl LocalStore {
    /// Opens or creates the store in `dir`, takes the directory's lock and migrates the schema.
    ///
    /// # Errors
    /// [`StoreError`] with one clear line: locked by another worker, damaged file, newer schema, no permission.
    pub fn open(_dir: &Path) -> Result<Self, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Queues a batch of engine writes. Batches of one session become durable in the order of submission.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when the store thread is gone; everything else reaches the listener.
    pub fn submit(
        &self,
        _session: SessionKey,
        _batch: Batch,
        _listener: &Arc<dyn CommitListener>,
    ) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// Adds a session row; `None` when the id is taken.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn create_session(
        &self,
        _id: &str,
        _user_id: &str,
        _name: Option<&str>,
    ) -> Result<Option<SessionRow>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Claims an idempotency key. The first claim of a key wins; later ones see the record of the first.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn claim_idempotency(
        &self,
        _session: SessionKey,
        _key: &str,
        _request_hash: [u8; 32],
        _message_id: &str,
    ) -> Result<Claim, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Stores the answer under a claimed key.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn answer_idempotency(
        &self,
        _session: SessionKey,
        _key: &str,
        _answer: Answer,
    ) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// Gives a claimed key back: the request failed before anything left, so it may be tried again.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn release_idempotency(&self, _session: SessionKey, _key: &str) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// A page of message history, newest first, with the number of all messages that match.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn messages(&self, _session: SessionKey, _filter: &MessageFilter) -> Result<MessagePage, StoreError> {
        Err(StoreError::Stopped)
    }

    /// One message by id, the newest when several chats have it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn message(&self, _session: SessionKey, _id: &str) -> Result<Option<StoredMessage>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Events of a session with a number above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn events(
        &self,
        _session: SessionKey,
        _after: u64,
        _limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Number of stored messages of all sessions.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn message_count(&self) -> Result<u64, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Whether the last commit worked; the reason when it did not.
    #[must_use]
    pub fn health(&self) -> Option<StoreError> {
        None
    }
}
