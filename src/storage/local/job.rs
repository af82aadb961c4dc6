//! What the store thread is asked to do, and what of it must be readable at once.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::{
    Answer, CommitListener, DayPart, LeaseRow, SessionKey, SessionPatch, StoreError, StoredMessage,
    apply::Outcome, marks::DirtyMark, outbox::OutboxOp,
};
use crate::whatsapp::state::{Batch, Write};

/// Work that may wait before submitters have to.
pub(super) const QUEUE: usize = 1024;

/// Work with an answer for the caller.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Create {
        id: String,
        user_id: String,
        name: Option<String>,
    },
    Update {
        session: SessionKey,
        patch: Box<SessionPatch>,
        event: Option<(&'static str, String)>,
    },
    Claim {
        session: SessionKey,
        key: String,
        request_hash: [u8; 32],
        message_id: String,
    },
    Answer {
        session: SessionKey,
        key: String,
        answer: Answer,
    },
    Release {
        session: SessionKey,
        key: String,
    },
    Forget {
        session: SessionKey,
    },
    MarkDeleted {
        session: SessionKey,
        /// Objects of the session are to be removed, too.
        objects: bool,
    },
    DeleteSome {
        session: SessionKey,
    },
    Outbox(Box<OutboxOp>),
    BeginUpload {
        session: SessionKey,
    },
    Uploaded {
        session: SessionKey,
        marks: Vec<DirtyMark>,
        begun_ms: u64,
    },
    Lease {
        session: SessionKey,
        lease: Option<LeaseRow>,
    },
    Removed {
        id: String,
    },
    Adopt {
        session: SessionKey,
        state: Vec<Write>,
        mark: bool,
    },
    Unfile {
        session: SessionKey,
    },
    FilePart {
        session: SessionKey,
        part: DayPart,
        messages: Vec<StoredMessage>,
    },
    Refile {
        session: SessionKey,
    },
    Reserve {
        session: SessionKey,
        parts: Vec<DayPart>,
    },
    Meta {
        key: &'static str,
        value: String,
    },
    /// The object store is another one than before.
    Moved {
        home: String,
    },
    Expire {
        session: SessionKey,
        before_s: i64,
    },
    /// What is durable can be read afterwards.
    Commit,
    Tidy,
    Probe,
}

/// What waits in the queue.
pub(super) enum Job {
    /// Writes of an engine.
    Batch { session: SessionKey, batch: Batch, listener: Arc<dyn CommitListener> },
    /// A session's row changed, or the outside is to be told something, or both.
    Report {
        session: SessionKey,
        number: u64,
        patch: Option<Box<SessionPatch>>,
        event: Option<(&'static str, String)>,
        listener: Arc<dyn CommitListener>,
    },
    /// Somebody waits for the answer.
    Call { op: Op, answer: Sender<Result<Outcome, StoreError>> },
}

impl Job {
    /// Whether others may look at the outcome in the database at once.
    pub(super) fn wants_commit(&self) -> bool {
        match self {
            Self::Batch { .. } | Self::Report { .. } => false,
            Self::Call { op: Op::Outbox(op), .. } => !matches!(**op, OutboxOp::Advance(_)),
            Self::Call { op, .. } => !matches!(
                op,
                Op::Claim { .. }
                    | Op::Answer { .. }
                    | Op::Release { .. }
                    | Op::Uploaded { .. }
                    | Op::Lease { .. }
            ),
        }
    }
}
