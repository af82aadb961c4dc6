//! Sight of one session's durable state, for its engine.

use super::{LocalStore, SessionKey};
use crate::whatsapp::{
    jid::Jid,
    model::MessageRecord,
    state::{ReadError, StateRead, Table},
};

/// One session's committed state.
#[derive(Clone)]
pub struct SessionStore {
    store: LocalStore,
    session: SessionKey,
}

impl SessionStore {
    /// The state of `session`.
    #[must_use]
    pub fn new(store: LocalStore, session: SessionKey) -> Self {
        Self { store, session }
    }
}

impl StateRead for SessionStore {
    fn get(&self, _table: Table, _key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let _ = (&self.store, self.session);
        Ok(None)
    }

    fn keys(&self, _table: Table, _prefix: &str) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }

    fn message(
        &self,
        _chat: &Jid,
        _id: &str,
        _sender: Option<&Jid>,
    ) -> Result<Option<MessageRecord>, ReadError> {
        Ok(None)
    }
}
