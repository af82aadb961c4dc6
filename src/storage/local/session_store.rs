//! Sight of one session's durable state, for its engine.

use super::{LocalStore, SessionKey, StoreError, reader::Reader};
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
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(|reader| reader.state(self.session, table as u8, key))
    }

    fn keys(&self, table: Table, prefix: &str) -> Result<Vec<String>, ReadError> {
        self.read(|reader| reader.state_keys(self.session, table as u8, prefix))
    }

    fn message(
        &self,
        chat: &Jid,
        id: &str,
        sender: Option<&Jid>,
    ) -> Result<Option<MessageRecord>, ReadError> {
        self.read(|reader| reader.history(self.session, chat, id, sender))
    }

    fn pending_messages(&self) -> Result<Vec<MessageRecord>, ReadError> {
        self.read(|reader| reader.pending(self.session))
    }
}

impl SessionStore {
    fn read<T>(&self, question: impl FnOnce(&Reader<'_>) -> Result<T, StoreError>) -> Result<T, ReadError> {
        let answer = self.store.inner.readers.take().and_then(|reader| question(&reader));
        answer.map_err(|error| ReadError(error.to_string()))
    }
}
