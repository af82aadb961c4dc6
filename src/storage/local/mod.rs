//! The local store: one SQLite file (WAL) under the state directory.
//!
//! One thread writes. It takes whatever waits in its queue, applies it, makes it durable with one sync of a small
//! journal file and tells everybody; SQLite commits many such groups together (`writer`, `journal`). Readers have
//! connections of their own. Never a thing to administer: the schema migrates itself, a crash is repaired at start.
//!
//! Files: `worker.db` with SQLite's `-wal` and `-shm`, `worker.journal`, `worker.lock`. A backup of a running worker
//! needs the first and the journal; of a stopped one `worker.db` is everything.

mod apply;
mod custody;
mod job;
mod journal;
mod marks;
mod ops;
mod outbox;
mod parts;
mod reader;
mod records;
mod schema;
mod sealing;
mod session_store;
mod stats;
mod upload;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;

pub use custody::LeaseRow;
pub use marks::DirtyMark;
pub use outbox::{Burial, DeadLetter, EventWatch, Logged, OutboxCursor, OutboxPage, OutboxRow, ReplayFilter};
pub use records::{
    Answer, Claim, IdempotencyRecord, MessageFilter, MessagePage, SessionKey, SessionPatch, SessionRow,
    StatusTimes, StoreError, StoredEvent, StoredMessage, StoredReceipt,
};
pub use session_store::SessionStore;
pub use upload::{Changed, DayPart, Snapshot};

use self::{
    apply::Outcome,
    job::{Job, Op},
    reader::{Reader, Readers},
    writer::{Shared, Writer},
};
use crate::{
    storage::seal::KeyRing,
    whatsapp::{jid::Jid, state::Batch},
};

/// The store. Cheap to clone; the last clone dropped stops the store thread after its queue is written.
#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken out to end the store thread.
    queue: Option<Sender<Job>>,
    dir: PathBuf,
    readers: Readers,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Last field: given back when the thread has closed the file.
    _lock: schema::DirectoryLock,
}

/// Told by the store thread what became of what a session submitted. Must not block.
pub trait CommitListener: Send + Sync {
    /// The batch with this number is durable, or failed as a whole. `last_seq` is the number of its last event.
    /// A [`SessionStore`] may not see it yet.
    fn committed(&self, number: u64, last_seq: Result<Option<u64>, StoreError>);

    /// A [`SessionStore`] sees everything up to the batch with this number.
    fn readable(&self, number: u64);

    /// The same for [`LocalStore::report`].
    fn reported(&self, number: u64, last_seq: Result<Option<u64>, StoreError>);
}

impl LocalStore {
    /// Opens or creates the store in `dir`, takes the directory's lock and migrates the schema.
    ///
    /// # Errors
    /// [`StoreError`] with one clear line: locked by another worker, damaged file, newer schema, no permission.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_keys(dir, KeyRing::default())
    }

    /// As [`LocalStore::open`], with what encrypts the engine's state. State under another key is rewritten first.
    ///
    /// # Errors
    /// As [`LocalStore::open`]; [`StoreError::Sealed`] when state is under a key that the ring does not have.
    pub fn open_with_keys(dir: &Path, keys: KeyRing) -> Result<Self, StoreError> {
        let keys = Arc::new(keys);
        let lock = schema::lock(dir)?;
        let conn = schema::open_writer(dir)?;
        let shared = Arc::new(Shared::default());
        let (queue, jobs) = crossbeam_channel::bounded(job::QUEUE);
        let writer = Writer::open(conn, dir, Arc::clone(&shared), Arc::clone(&keys))?;
        let readers = Readers::open(dir, keys)?;
        let thread = Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&jobs))
            .map_err(|error| StoreError::Io(format!("no thread for the store: {error}")))?;
        let store = Self {
            inner: Arc::new(Inner {
                queue: Some(queue),
                dir: dir.to_owned(),
                readers,
                shared,
                thread: Some(thread),
                _lock: lock,
            }),
        };
        store.finish_deletions()?;
        Ok(store)
    }

    /// Queues a batch of engine writes. Batches of one session become durable in the order of submission.
    /// Waits while the queue is full.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when the store thread is gone; everything else reaches the listener.
    pub fn submit(
        &self,
        session: SessionKey,
        batch: Batch,
        listener: &Arc<dyn CommitListener>,
    ) -> Result<(), StoreError> {
        self.send(Job::Batch { session, batch, listener: Arc::clone(listener) })
    }

    /// Queues a change of the session's row, an event of its log, or both together, behind everything submitted.
    /// The listener hears of it under `number`.
    ///
    /// # Errors
    /// As for [`LocalStore::submit`].
    pub fn report(
        &self,
        session: SessionKey,
        number: u64,
        patch: Option<SessionPatch>,
        event: Option<(&'static str, String)>,
        listener: &Arc<dyn CommitListener>,
    ) -> Result<(), StoreError> {
        let patch = patch.map(Box::new);
        self.send(Job::Report { session, number, patch, event, listener: Arc::clone(listener) })
    }

    /// Adds a session row; `None` when the id is taken.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn create_session(
        &self,
        id: &str,
        user_id: &str,
        name: Option<&str>,
    ) -> Result<Option<SessionRow>, StoreError> {
        let op = Op::Create { id: id.into(), user_id: user_id.into(), name: name.map(Into::into) };
        match self.call(op)? {
            Outcome::Session(row) => Ok(row),
            _ => Ok(None),
        }
    }

    /// Changes a session row and waits until that is durable, and everything submitted before it is settled.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn update_session(&self, session: SessionKey, patch: SessionPatch) -> Result<(), StoreError> {
        self.call(Op::Update { session, patch: Box::new(patch), event: None }).map(drop)
    }

    /// As [`LocalStore::update_session`], together with the event that tells of it; the number of the event.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn tell(
        &self,
        session: SessionKey,
        patch: SessionPatch,
        event: (&'static str, String),
    ) -> Result<Option<u64>, StoreError> {
        match self.call(Op::Update { session, patch: Box::new(patch), event: Some(event) })? {
            Outcome::Seq(seq) => Ok(seq),
            _ => Ok(None),
        }
    }

    /// Removes the engine's state of a session: keys, ratchets, everything but history and events.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn forget_state(&self, session: SessionKey) -> Result<(), StoreError> {
        self.call(Op::Forget { session }).map(drop)
    }

    /// Removes every row of a session. Its id is free at once; a deletion that is interrupted goes on at the next
    /// [`LocalStore::open`].
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn delete_session(&self, session: SessionKey) -> Result<(), StoreError> {
        self.call(Op::MarkDeleted { session, objects: false })?;
        self.delete_rows(session)
    }

    /// As [`LocalStore::delete_session`]; the id stays taken, and is listed by [`LocalStore::removals`], until
    /// [`LocalStore::removed`] says that the objects of the session are gone, too.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn delete_session_and_objects(&self, session: SessionKey) -> Result<(), StoreError> {
        self.call(Op::MarkDeleted { session, objects: true })?;
        self.delete_rows(session)
    }

    /// Claims an idempotency key. The first claim of a key wins; later ones see the record of the first.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn claim_idempotency(
        &self,
        session: SessionKey,
        key: &str,
        request_hash: [u8; 32],
        message_id: &str,
    ) -> Result<Claim, StoreError> {
        let op = Op::Claim { session, key: key.into(), request_hash, message_id: message_id.into() };
        match self.call(op)? {
            Outcome::Claim(claim) => Ok(claim),
            _ => Err(StoreError::Stopped),
        }
    }

    /// Stores the answer under a claimed key.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn answer_idempotency(
        &self,
        session: SessionKey,
        key: &str,
        answer: Answer,
    ) -> Result<(), StoreError> {
        self.call(Op::Answer { session, key: key.into(), answer }).map(drop)
    }

    /// Forgets a key, answered or not: the request failed before anything left and may be tried again, or its answer
    /// is too old for the caller.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn release_idempotency(&self, session: SessionKey, key: &str) -> Result<(), StoreError> {
        self.call(Op::Release { session, key: key.into() }).map(drop)
    }

    /// What is remembered under an idempotency key.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn idempotency(
        &self,
        session: SessionKey,
        key: &str,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.reader()?.idempotency(session, key)
    }

    /// A page of message history, newest first, with the number of all messages that match.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn messages(&self, session: SessionKey, filter: &MessageFilter) -> Result<MessagePage, StoreError> {
        self.reader()?.messages(session, filter)
    }

    /// One message by id, the newest when several chats have it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn message(&self, session: SessionKey, id: &str) -> Result<Option<StoredMessage>, StoreError> {
        self.reader()?.message(session, id)
    }

    /// One message by id with what the members of its group did with it; of `chat`, or the newest of all chats.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn message_progress(
        &self,
        session: SessionKey,
        id: &str,
        chat: Option<&Jid>,
    ) -> Result<Option<(StoredMessage, Vec<StoredReceipt>)>, StoreError> {
        self.reader()?.message_progress(session, id, chat)
    }

    /// Events of a session with a number above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn events(
        &self,
        session: SessionKey,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.reader()?.events(session, after, limit)
    }

    /// Numbers of the oldest and the newest event that are kept; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn event_span(&self, session: SessionKey) -> Result<Option<(u64, u64)>, StoreError> {
        self.reader()?.event_span(session)
    }

    /// All sessions, by id.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        self.reader()?.sessions()
    }

    /// Number of stored messages of all sessions.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn message_count(&self) -> Result<u64, StoreError> {
        self.reader()?.message_count()
    }

    /// Who hears of events from now on. Only the first call counts.
    pub fn watch_events(&self, watch: Arc<dyn EventWatch>) {
        if self.inner.shared.watch.set(watch).is_err() {
            log::error!("the event log is watched already; this is a bug");
        }
    }

    /// Why writes are refused at the moment; `None` when all is well. The store tries again by itself.
    #[must_use]
    pub fn health(&self) -> Option<StoreError> {
        self.inner.shared.health.error()
    }

    /// Whether the store thread answers in time, be it with an error: it is alive then.
    #[must_use]
    pub fn answers_within(&self, wait: Duration) -> bool {
        let Some(queue) = self.inner.queue.as_ref() else { return false };
        let until = Instant::now() + wait;
        let (answer, outcome) = crossbeam_channel::bounded(1);
        let asked = queue.send_deadline(Job::Call { op: Op::Commit, answer }, until);
        asked.is_ok() && outcome.recv_deadline(until).is_ok()
    }

    fn finish_deletions(&self) -> Result<(), StoreError> {
        let left = self.reader()?.deleting()?;
        left.into_iter().try_for_each(|session| self.delete_rows(session))
    }

    fn delete_rows(&self, session: SessionKey) -> Result<(), StoreError> {
        while matches!(self.call(Op::DeleteSome { session })?, Outcome::More(true)) {}
        Ok(())
    }

    /// Waits until a [`SessionStore`] sees everything that is durable now.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.reader().map(drop)
    }

    /// A connection that sees everything that is durable now.
    fn reader(&self) -> Result<Reader<'_>, StoreError> {
        if self.inner.shared.uncommitted.load(Ordering::SeqCst) {
            self.call(Op::Commit)?;
        }
        self.inner.readers.take()
    }

    fn call(&self, op: Op) -> Result<Outcome, StoreError> {
        let (answer, outcome) = crossbeam_channel::bounded(1);
        self.send(Job::Call { op, answer })?;
        outcome.recv().map_err(|_| StoreError::Stopped)?
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let queue = self.inner.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.send(job).map_err(|_| StoreError::Stopped)
    }
}

/// Whether a worker uses the state directory now. Changes nothing.
///
/// # Errors
/// When the lock file cannot be opened.
pub fn is_locked(dir: &Path) -> std::io::Result<bool> {
    schema::is_locked(dir)
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the store thread panicked");
        }
    }
}

#[cfg(test)]
mod tests;
