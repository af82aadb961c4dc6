//! What is remembered per chat: disappearing messages, and the namespace a refusal taught us.

use prost::Message;

use crate::whatsapp::{
    engine::{Engine, EngineError},
    jid::Jid,
    messages::{content::Ephemeral, namespace::Namespace},
    state::{StateRead, Table},
};

/// Stored form, table `Chat`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ChatRecord {
    /// Seconds until messages disappear; 0 = never.
    #[prost(uint32, tag = "1")]
    expiration_s: u32,
    /// When that was set, Unix seconds.
    #[prost(int64, tag = "2")]
    expiration_set_s: i64,
    /// 1 = PN, 2 = LID, else as the account's state says.
    #[prost(uint32, tag = "3")]
    namespace: u32,
}

impl ChatRecord {
    /// The disappearing-messages setting.
    pub(super) fn ephemeral(&self) -> Ephemeral {
        Ephemeral { expiration_s: self.expiration_s, set_at_s: self.expiration_set_s }
    }

    /// The namespace that worked after a refusal.
    pub(super) fn namespace(&self) -> Option<Namespace> {
        match self.namespace {
            1 => Some(Namespace::Pn),
            2 => Some(Namespace::Lid),
            _ => None,
        }
    }
}

impl Engine {
    /// What is remembered of a chat, by the name history uses.
    pub(super) fn chat_record(
        &mut self,
        store: &dyn StateRead,
        chat: &Jid,
    ) -> Result<ChatRecord, EngineError> {
        if let Some(record) = self.messages.chats.get(chat) {
            return Ok(*record);
        }
        let raw = self.state.get(store, Table::Chat, &chat.to_string())?;
        let record = raw.and_then(|raw| ChatRecord::decode(raw.as_slice()).ok()).unwrap_or_default();
        self.messages.chats.insert(chat.clone(), record);
        Ok(record)
    }

    /// The chat's timer, unless a newer one is known.
    pub(super) fn set_ephemeral(
        &mut self,
        store: &dyn StateRead,
        chat: &Jid,
        ephemeral: Ephemeral,
    ) -> Result<(), EngineError> {
        let mut record = self.chat_record(store, chat)?;
        if ephemeral == record.ephemeral() || ephemeral.set_at_s < record.expiration_set_s {
            return Ok(());
        }
        record.expiration_s = ephemeral.expiration_s;
        record.expiration_set_s = ephemeral.set_at_s;
        self.put_chat_record(chat, record);
        Ok(())
    }

    /// This namespace worked after the other one was refused.
    pub(super) fn set_chat_namespace(
        &mut self,
        store: &dyn StateRead,
        chat: &Jid,
        namespace: Namespace,
    ) -> Result<(), EngineError> {
        let mut record = self.chat_record(store, chat)?;
        if record.namespace() != Some(namespace) {
            record.namespace = match namespace {
                Namespace::Pn => 1,
                Namespace::Lid => 2,
            };
            self.put_chat_record(chat, record);
        }
        Ok(())
    }

    fn put_chat_record(&mut self, chat: &Jid, record: ChatRecord) {
        self.state.put(Table::Chat, chat.to_string(), record.encode_to_vec());
        self.messages.chats.insert(chat.clone(), record);
    }
}
