//! Where the answer to a command waits for its one caller.
//!
//! A lock and a condition, not a channel: a channel's receiver spins before it sleeps, and here it always sleeps.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::whatsapp::model::Reply;

/// Room for one answer.
#[derive(Default)]
pub(super) struct ReplySlot {
    reply: Mutex<Option<Reply>>,
    came: Condvar,
}

impl ReplySlot {
    pub(super) fn put(&self, reply: Reply) {
        *self.reply.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
        self.came.notify_one();
    }
}

/// The answer to a command, when it comes. Dropping it does not take the command back.
pub struct PendingReply(pub(super) Arc<ReplySlot>);

impl PendingReply {
    /// The answer; `None` when the time is over (ask again to go on waiting).
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<Reply> {
        let reply = self.0.reply.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.came.wait_timeout_while(reply, timeout, |reply| reply.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}
