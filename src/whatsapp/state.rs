//! Durable state of one account as the engine sees it: a keyed store it reads, and batches it asks to be written.
//!
//! The engine never writes by itself. It collects [`Write`]s into a [`Batch`], hands the batch out as
//! `Output::Persist`, and every output behind it waits until the batch is durable. Until the session thread reports
//! a batch durable, its values live in the engine's overlay, so that the engine always reads its own writes.

use std::collections::HashMap;

use super::{
    jid::Jid,
    model::{Event, MessageRecord, MessageStatus},
};

/// The kinds of state. The number is the on-disk form: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Key `self`: who we are (keys, JIDs, account signature, counters, flags).
    Credentials = 1,
    /// Key = decimal id: one-time prekey.
    PreKey = 2,
    /// Key = decimal id: signed prekey, the current one and those still accepted.
    SignedPreKey = 3,
    /// Key = Signal address `user[_1|_128|_129].device`: session record.
    Session = 4,
    /// Key = Signal address: the peer's identity key, 32 bytes.
    Identity = 5,
    /// Key = `group::address`: sender key record.
    SenderKey = 6,
    /// Key = group JID: the devices that hold our current sender key.
    SenderKeyDevices = 7,
    /// Key = PN user: its LID user.
    LidOfPn = 8,
    /// Key = LID user: its PN user.
    PnOfLid = 9,
    /// Key = user JID: known devices.
    DeviceList = 10,
    /// Key = group JID: metadata.
    Group = 11,
    /// Key = user JID (LID preferred): trusted-contact token.
    TcToken = 12,
    /// Key = key id, hex: app-state sync key. Cannot be fetched again without the phone.
    AppStateKey = 13,
    /// Key = user JID: push name.
    PushName = 14,
    /// Key = chat JID: per-chat settings (ephemeral timer, …).
    Chat = 15,
    /// Key = `<sender>/<message id>`: how often we asked for, or answered, a resend. Key = `missing/<message id>`: our
    /// phone is going to be asked for it.
    RetryCount = 16,
    /// Key = file name: what an auth folder taken over from another program says beyond rows of ours. Never read by the
    /// engine; goes back into the folder.
    Foreign = 17,
}

impl Table {
    /// All tables, for storage code that walks a whole account.
    pub const ALL: [Self; 17] = [
        Self::Credentials,
        Self::PreKey,
        Self::SignedPreKey,
        Self::Session,
        Self::Identity,
        Self::SenderKey,
        Self::SenderKeyDevices,
        Self::LidOfPn,
        Self::PnOfLid,
        Self::DeviceList,
        Self::Group,
        Self::TcToken,
        Self::AppStateKey,
        Self::PushName,
        Self::Chat,
        Self::RetryCount,
        Self::Foreign,
    ];
}

/// One change of durable state.
#[derive(Debug, Clone)]
pub enum Write {
    /// Sets a value.
    Put(Table, String, Vec<u8>),
    /// Removes a value.
    Delete(Table, String),
    /// Removes every value of a table (a new pairing starts from nothing).
    Clear(Table),
    /// Adds a message to the history. A message with the same (chat, id, sender) is left as it is.
    Message(Box<MessageRecord>),
    /// A message we sent made progress; never moves a status backwards.
    Status {
        /// The chat.
        chat: Jid,
        /// Message id.
        id: String,
        /// New status.
        status: MessageStatus,
        /// Who acknowledged, in a group.
        participant: Option<Jid>,
        /// Unix seconds.
        timestamp: u64,
        /// Why it failed, when it did.
        error: Option<String>,
    },
    /// Something the outside is to be told, durable with the rest of the batch and numbered in this order.
    Event(Box<Event>),
}

/// Writes that become durable together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Number given by the engine, increasing; reported back by `Engine::handle_persisted`.
    pub number: u64,
    /// The changes, in order.
    pub writes: Vec<Write>,
}

/// Reading failed: the local store is damaged or unreachable. The session stops; nothing is guessed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the local store could not be read: {0}")]
pub struct ReadError(pub String);

/// Sight of committed state of one account.
pub trait StateRead {
    /// One value.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read. Absence is `Ok(None)`.
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, ReadError>;

    /// All keys of a table that start with `prefix`, in ascending order.
    ///
    /// # Errors
    /// As for [`StateRead::get`].
    fn keys(&self, table: Table, prefix: &str) -> Result<Vec<String>, ReadError>;

    /// A message of the history by chat and id; with `sender` when given.
    ///
    /// # Errors
    /// As for [`StateRead::get`].
    fn message(&self, chat: &Jid, id: &str, sender: Option<&Jid>)
    -> Result<Option<MessageRecord>, ReadError>;

    /// Messages of ours that the server has not answered (status `Pending`), oldest first.
    ///
    /// # Errors
    /// As for [`StateRead::get`].
    fn pending_messages(&self) -> Result<Vec<MessageRecord>, ReadError>;
}

/// Room the overlay keeps while it is empty, in entries.
const OVERLAY_KEPT: usize = 32;

/// What a pending write says about one key.
#[derive(Debug, Clone)]
struct Pending {
    batch: u64,
    value: Option<Vec<u8>>,
}

/// The engine's side: the batch being collected and the overlay of writes that are not known to be durable.
#[derive(Debug, Default)]
pub struct StateWriter {
    next_batch: u64,
    current: Vec<Write>,
    overlay: HashMap<(Table, String), Pending>,
    cleared: HashMap<Table, u64>,
    messages: HashMap<String, (u64, MessageRecord)>,
}

impl StateWriter {
    /// Reads a value: own writes first, then the store.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read.
    pub fn get(&self, store: &dyn StateRead, table: Table, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        // The overlay is empty most of the time; skip building the owned key then.
        if !self.overlay.is_empty()
            && let Some(pending) = self.overlay.get(&(table, key.to_owned()))
        {
            return Ok(pending.value.clone());
        }
        if self.cleared.contains_key(&table) {
            return Ok(None);
        }
        store.get(table, key)
    }

    /// All keys of a table with a prefix: own writes laid over the store.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read.
    pub fn keys(&self, store: &dyn StateRead, table: Table, prefix: &str) -> Result<Vec<String>, ReadError> {
        let mut keys =
            if self.cleared.contains_key(&table) { Vec::new() } else { store.keys(table, prefix)? };
        for ((pending_table, key), pending) in &self.overlay {
            if *pending_table != table || !key.starts_with(prefix) {
                continue;
            }
            keys.retain(|known| known != key);
            if pending.value.is_some() {
                keys.push(key.clone());
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// A message of the history, own writes first.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read.
    pub fn message(
        &self,
        store: &dyn StateRead,
        chat: &Jid,
        id: &str,
        sender: Option<&Jid>,
    ) -> Result<Option<MessageRecord>, ReadError> {
        if let Some((_, record)) = self.messages.get(id)
            && record.chat == *chat
            && sender.is_none_or(|sender| record.sender.same_user(sender))
        {
            return Ok(Some(record.clone()));
        }
        store.message(chat, id, sender)
    }

    /// Sets a value in the current batch.
    pub fn put(&mut self, table: Table, key: impl Into<String>, value: Vec<u8>) {
        let key = key.into();
        self.note(table, &key, Some(value.clone()));
        self.current.push(Write::Put(table, key, value));
    }

    /// Removes a value in the current batch.
    pub fn delete(&mut self, table: Table, key: impl Into<String>) {
        let key = key.into();
        self.note(table, &key, None);
        self.current.push(Write::Delete(table, key));
    }

    /// Empties a table in the current batch.
    pub fn clear(&mut self, table: Table) {
        self.overlay.retain(|(pending, _), _| *pending != table);
        self.cleared.insert(table, self.next_batch);
        self.current.push(Write::Clear(table));
    }

    /// Adds a message to the history in the current batch.
    pub fn add_message(&mut self, record: MessageRecord) {
        self.messages.insert(record.id.clone(), (self.next_batch, record.clone()));
        self.current.push(Write::Message(Box::new(record)));
    }

    /// Adds any other write (status, event) to the current batch.
    pub fn push(&mut self, write: Write) {
        self.current.push(write);
    }

    /// Whether the current batch holds anything.
    #[must_use]
    pub fn has_writes(&self) -> bool {
        !self.current.is_empty()
    }

    /// Closes the current batch; `None` when there is nothing to write.
    pub fn take_batch(&mut self) -> Option<Batch> {
        if self.current.is_empty() {
            return None;
        }
        let batch = Batch { number: self.next_batch, writes: std::mem::take(&mut self.current) };
        self.next_batch += 1;
        Some(batch)
    }

    /// Batches up to and including `number` are durable: the store answers for them from now on.
    pub fn persisted(&mut self, number: u64) {
        self.overlay.retain(|_, pending| pending.batch > number);
        self.cleared.retain(|_, batch| *batch > number);
        self.messages.retain(|_, (batch, _)| *batch > number);
        // An upload of prekeys makes hundreds of entries; an idle session must not keep room for them.
        if self.overlay.is_empty() && self.overlay.capacity() > OVERLAY_KEPT {
            self.overlay = HashMap::new();
        }
        if self.messages.is_empty() && self.messages.capacity() > OVERLAY_KEPT {
            self.messages = HashMap::new();
        }
    }

    /// Forgets the current batch and everything that is not known to be durable. For a session that stops because
    /// its store failed: batches already handed out are written or lost before it starts again.
    pub fn discard(&mut self) {
        *self = Self { next_batch: self.next_batch, ..Self::default() };
    }

    fn note(&mut self, table: Table, key: &str, value: Option<Vec<u8>>) {
        self.overlay.insert((table, key.to_owned()), Pending { batch: self.next_batch, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::testing::MemoryStore;

    #[test]
    fn own_writes_are_seen_until_the_store_has_them_and_cost_nothing_afterwards() {
        let mut store = MemoryStore::default();
        store.put(Table::PreKey, "7", vec![7]);
        let mut state = StateWriter::default();
        state.clear(Table::PreKey);
        for id in 100..300u32 {
            state.put(Table::PreKey, id.to_string(), vec![1]);
        }
        state.delete(Table::PreKey, "100");
        assert_eq!(state.get(&store, Table::PreKey, "7").unwrap(), None);
        assert_eq!(state.get(&store, Table::PreKey, "100").unwrap(), None);
        assert_eq!(state.get(&store, Table::PreKey, "101").unwrap(), Some(vec![1]));
        assert_eq!(state.keys(&store, Table::PreKey, "").unwrap().len(), 199);
        let batch = state.take_batch().unwrap();
        let number = batch.number;
        store.apply(batch);
        state.persisted(number);
        assert_eq!(state.keys(&store, Table::PreKey, "").unwrap().len(), 199);
        assert!(state.overlay.capacity() <= OVERLAY_KEPT);
    }

    #[test]
    fn discarded_writes_are_gone_and_batch_numbers_go_on() {
        let store = MemoryStore::default();
        let mut state = StateWriter::default();
        state.put(Table::PushName, "a", vec![1]);
        let first = state.take_batch().unwrap().number;
        state.put(Table::PushName, "b", vec![1]);
        state.discard();
        assert!(state.take_batch().is_none());
        assert_eq!(state.get(&store, Table::PushName, "b").unwrap(), None);
        state.put(Table::PushName, "c", vec![1]);
        assert!(state.take_batch().unwrap().number > first);
    }
}
