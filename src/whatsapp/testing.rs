//! In-memory store for tests and simulations: what the session thread and the local store do for an engine,
//! without a thread or a file. Knows nothing of the protocol; it applies batches and answers reads.

use std::collections::BTreeMap;

use super::{
    jid::Jid,
    model::{Event, MessageRecord, MessageStatus},
    state::{Batch, ReadError, StateRead, Table, Write},
};

/// Durable state of one account in memory. A clone is a snapshot, e.g. to restart an engine from an older moment.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    values: BTreeMap<(Table, String), Vec<u8>>,
    messages: Vec<MessageRecord>,
    events: Vec<Event>,
}

impl MemoryStore {
    /// Makes a batch durable: every write in order.
    pub fn apply(&mut self, batch: Batch) {
        for write in batch.writes {
            self.write(write);
        }
    }

    /// The messages of the history, in order of arrival.
    #[must_use]
    pub fn messages(&self) -> &[MessageRecord] {
        &self.messages
    }

    /// The durable events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Sets a value behind the engine's back, to put a store into a certain condition.
    pub fn put(&mut self, table: Table, key: impl Into<String>, value: Vec<u8>) {
        self.values.insert((table, key.into()), value);
    }

    /// Empties a table behind the engine's back.
    pub fn clear(&mut self, table: Table) {
        self.values.retain(|(other, _), _| *other != table);
    }

    /// How many values a table has.
    #[must_use]
    pub fn count(&self, table: Table) -> usize {
        self.range(table, "").count()
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Put(table, key, value) => {
                self.values.insert((table, key), value);
            }
            Write::Delete(table, key) => {
                self.values.remove(&(table, key));
            }
            Write::Clear(table) => self.clear(table),
            Write::Message(record) => self.add_message(*record),
            Write::Status { chat, id, status, .. } => self.set_status(&chat, &id, status),
            Write::Event(event) => self.events.push(*event),
        }
    }

    fn add_message(&mut self, record: MessageRecord) {
        let known = self
            .messages
            .iter()
            .any(|other| other.id == record.id && other.chat == record.chat && other.sender == record.sender);
        if !known {
            self.messages.push(record);
        }
    }

    fn set_status(&mut self, chat: &Jid, id: &str, status: MessageStatus) {
        let ours = self.messages.iter_mut().filter(|record| record.id == id && record.chat == *chat);
        for record in ours {
            if status > record.status || record.status == MessageStatus::Failed {
                record.status = status;
            }
        }
    }

    fn range<'a>(&'a self, table: Table, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.values
            .range((table, prefix.to_owned())..)
            .map(|((other, key), _)| (*other, key.as_str()))
            .take_while(move |(other, key)| *other == table && key.starts_with(prefix))
            .map(|(_, key)| key)
    }
}

impl StateRead for MemoryStore {
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.values.get(&(table, key.to_owned())).cloned())
    }

    fn keys(&self, table: Table, prefix: &str) -> Result<Vec<String>, ReadError> {
        Ok(self.range(table, prefix).map(str::to_owned).collect())
    }

    fn message(
        &self,
        chat: &Jid,
        id: &str,
        sender: Option<&Jid>,
    ) -> Result<Option<MessageRecord>, ReadError> {
        let found = self.messages.iter().find(|record| {
            record.id == id
                && record.chat == *chat
                && sender.is_none_or(|sender| record.sender.same_user(sender))
        });
        Ok(found.cloned())
    }

    fn pending_messages(&self) -> Result<Vec<MessageRecord>, ReadError> {
        let pending = self.messages.iter().filter(|record| record.status == MessageStatus::Pending);
        Ok(pending.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_applied_in_order_and_keys_are_listed_by_prefix() {
        let mut store = MemoryStore::default();
        store.put(Table::Identity, "left over", vec![9]);
        store.apply(Batch {
            number: 0,
            writes: vec![
                Write::Clear(Table::Identity),
                Write::Put(Table::Session, "1.0".into(), vec![1]),
                Write::Put(Table::Session, "1.2".into(), vec![2]),
                Write::Put(Table::Session, "2.0".into(), vec![3]),
                Write::Delete(Table::Session, "1.0".into()),
            ],
        });
        assert_eq!(store.keys(Table::Session, "1.").unwrap(), ["1.2"]);
        assert_eq!(store.keys(Table::Session, "").unwrap(), ["1.2", "2.0"]);
        assert_eq!(store.get(Table::Session, "2.0").unwrap(), Some(vec![3]));
        assert_eq!(store.count(Table::Identity), 0);
    }
}
