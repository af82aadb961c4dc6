//! Questions to the database. Read-only connections wait in a channel; a question takes one and gives it back.

use std::{path::Path, sync::Arc};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::{Connection, OptionalExtension, Params, Row, params, params_from_iter, types::Value};

use super::{
    IdempotencyRecord, MessageFilter, MessagePage, SessionKey, SessionRow, StoreError, StoredEvent,
    StoredMessage, StoredReceipt, apply::SORT_BITS, records, schema, sealing,
};
use crate::{
    storage::seal::KeyRing,
    whatsapp::{jid::Jid, model::MessageRecord},
};

/// Connections for reading: more than cores only helps slow disks.
const READERS: usize = 4;

/// The connections nobody uses at the moment.
pub(super) struct Readers {
    keys: Arc<KeyRing>,
    free: Receiver<Connection>,
    back: Sender<Connection>,
}

/// A connection on loan.
pub(super) struct Reader<'a> {
    readers: &'a Readers,
    conn: Option<Connection>,
}

impl Readers {
    pub(super) fn open(dir: &Path, keys: Arc<KeyRing>) -> Result<Self, StoreError> {
        let (back, free) = crossbeam_channel::bounded(READERS);
        for _ in 0..READERS {
            back.try_send(schema::open_reader(dir)?).map_err(|_| StoreError::Stopped)?;
        }
        Ok(Self { keys, free, back })
    }

    /// Waits for a free connection: every question is short.
    pub(super) fn take(&self) -> Result<Reader<'_>, StoreError> {
        let conn = self.free.recv().map_err(|_| StoreError::Stopped)?;
        Ok(Reader { readers: self, conn: Some(conn) })
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            // A snapshot ends with its reader.
            if !conn.is_autocommit()
                && let Err(error) = conn.execute_batch("ROLLBACK")
            {
                log::error!("a snapshot was not closed: {error}");
            }
            // The channel has room for every connection there is.
            drop(self.readers.back.try_send(conn));
        }
    }
}

impl Reader<'_> {
    pub(super) fn state(
        &self,
        session: SessionKey,
        table: u8,
        key: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT value FROM state WHERE session = ?1 AND tbl = ?2 AND key = ?3";
        let stored = self.one(sql, params![session.0, table, key], |row| row.get(0))?;
        let open = |stored| self.readers.keys.open(&sealing::name(session.0, table, key), stored);
        let opened = stored.map(open).transpose().map_err(StoreError::Sealed)?;
        Ok(opened.map(|(value, _)| value))
    }

    pub(super) fn state_keys(
        &self,
        session: SessionKey,
        table: u8,
        prefix: &str,
    ) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT key FROM state WHERE session = ?1 AND tbl = ?2
                   AND key >= ?3 AND key < ?3 || char(1114111) ORDER BY key";
        self.many(sql, params![session.0, table, prefix], |row| row.get(0))
    }

    pub(super) fn history(
        &self,
        session: SessionKey,
        chat: &Jid,
        id: &str,
        sender: Option<&Jid>,
    ) -> Result<Option<MessageRecord>, StoreError> {
        let sql = format!(
            "SELECT {} FROM chats JOIN messages INDEXED BY messages_id ON messages.session = chats.session
                 AND messages.chat = chats.key
             WHERE chats.session = ?1 AND chats.jid = ?2 AND messages.id = ?3
                 AND (?4 IS NULL OR sender = ?4) ORDER BY sort DESC LIMIT 1",
            records::MESSAGE_COLUMNS
        );
        let sender = sender.map(|sender| sender.to_user().to_string());
        let found =
            self.one(&sql, params![session.0, chat.to_string(), id, sender], records::stored_message)?;
        Ok(found.map(|message| message.record))
    }

    /// Messages of ours without the server's answer, oldest first.
    pub(super) fn pending(&self, session: SessionKey) -> Result<Vec<MessageRecord>, StoreError> {
        let sql = format!(
            "SELECT {} FROM messages INDEXED BY messages_pending JOIN chats ON chats.key = messages.chat
             WHERE messages.session = ?1 AND messages.status = 1 AND from_me = 1 ORDER BY sort",
            records::MESSAGE_COLUMNS
        );
        let found = self.many(&sql, params![session.0], records::stored_message)?;
        Ok(found.into_iter().map(|message| message.record).collect())
    }

    pub(super) fn message(&self, session: SessionKey, id: &str) -> Result<Option<StoredMessage>, StoreError> {
        let sql = format!(
            "SELECT {} FROM messages INDEXED BY messages_id JOIN chats ON chats.key = messages.chat
             WHERE messages.session = ?1 AND messages.id = ?2 ORDER BY sort DESC LIMIT 1",
            records::MESSAGE_COLUMNS
        );
        self.one(&sql, params![session.0, id], records::stored_message)
    }

    /// One message with the receipts of a group's members; the newest when several chats have the id.
    pub(super) fn message_progress(
        &self,
        session: SessionKey,
        id: &str,
        chat: Option<&Jid>,
    ) -> Result<Option<(StoredMessage, Vec<StoredReceipt>)>, StoreError> {
        // One snapshot, so that the receipts belong to the status.
        let tx = self.conn().unchecked_transaction().map_err(|error| records::store_error(&error))?;
        let sql = format!(
            "SELECT {} FROM messages INDEXED BY messages_id JOIN chats ON chats.key = messages.chat
             WHERE messages.session = ?1 AND messages.id = ?2 AND (?3 IS NULL OR chats.jid = ?3)
             ORDER BY sort DESC LIMIT 1",
            records::MESSAGE_COLUMNS
        );
        let chat = chat.map(Jid::to_string);
        let Some(message) = self.one(&sql, params![session.0, id, chat], records::stored_message)? else {
            return Ok(None);
        };
        let sql = "SELECT participant, receipts.status, receipts.timestamp_s
                   FROM messages INDEXED BY messages_id JOIN chats ON chats.key = messages.chat
                   JOIN receipts ON receipts.session = messages.session AND receipts.sort = messages.sort
                   WHERE messages.session = ?1 AND messages.id = ?2 AND chats.jid = ?3 AND from_me = 1
                   ORDER BY participant, receipts.status";
        let chat = message.record.chat.to_string();
        let receipts = self.many(sql, params![session.0, id, chat], records::stored_receipt)?;
        drop(tx);
        Ok(Some((message, receipts)))
    }

    pub(super) fn messages(
        &self,
        session: SessionKey,
        filter: &MessageFilter,
    ) -> Result<MessagePage, StoreError> {
        // One snapshot, so that the total belongs to the page.
        let tx = self.conn().unchecked_transaction().map_err(|error| records::store_error(&error))?;
        let Some(span) = self.span(session, filter)? else {
            return Ok(MessagePage { messages: Vec::new(), total: 0 });
        };
        let total = self.total(session, filter, &span)?;
        let sql = format!(
            "SELECT {} FROM messages JOIN chats ON chats.key = messages.chat WHERE {}
             ORDER BY sort DESC LIMIT ? OFFSET ?",
            records::MESSAGE_COLUMNS,
            span.condition
        );
        let page = [Value::from(i64::from(filter.limit)), Value::from(records::int(filter.offset))];
        let values = params_from_iter(span.values.into_iter().chain(page));
        let messages = self.many(&sql, values, records::stored_message)?;
        drop(tx);
        Ok(MessagePage { messages, total })
    }

    pub(super) fn events(
        &self,
        session: SessionKey,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = "SELECT events.seq, sessions.uid, kind, payload, events.created_ms
                   FROM sessions JOIN events ON events.session = sessions.key
                   WHERE sessions.key = ?1 AND events.seq > ?2 ORDER BY events.seq LIMIT ?3";
        self.many(sql, params![session.0, records::int(after), limit], |row| {
            let seq: i64 = row.get(0)?;
            let uid: String = row.get(1)?;
            Ok(StoredEvent {
                seq: records::unsigned(seq),
                event_id: format!("{uid}-{seq}"),
                kind: row.get(2)?,
                payload: row.get(3)?,
                created_ms: records::unsigned(row.get(4)?),
            })
        })
    }

    /// Numbers of the oldest and newest kept event; `None` when there is none.
    pub(super) fn event_span(&self, session: SessionKey) -> Result<Option<(u64, u64)>, StoreError> {
        let sql = "SELECT min(seq), max(seq) FROM events WHERE session = ?1";
        let span = self.one(sql, params![session.0], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?))
        })?;
        Ok(span.flatten().map(|(first, last)| (records::unsigned(first), records::unsigned(last))))
    }

    pub(super) fn idempotency(
        &self,
        session: SessionKey,
        key: &str,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.one(records::IDEMPOTENCY_QUERY, params![session.0, key], records::idempotency_record)
    }

    pub(super) fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let sql = format!("SELECT {} FROM sessions WHERE deleting = 0 ORDER BY id", records::SESSION_COLUMNS);
        self.many(&sql, [], records::session_row)
    }

    pub(super) fn deleting(&self) -> Result<Vec<SessionKey>, StoreError> {
        self.many("SELECT key FROM sessions WHERE deleting = 1", [], |row| row.get(0).map(SessionKey))
    }

    pub(super) fn message_count(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(messages), 0) FROM sessions WHERE deleting = 0";
        let count = self.one(sql, [], |row| row.get(0))?;
        Ok(count.map_or(0, records::unsigned))
    }

    /// From the first question on, this reader sees one moment.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        self.conn().execute_batch("BEGIN").map_err(|error| records::store_error(&error))
    }

    /// `None` when the chat has no messages.
    fn span(&self, session: SessionKey, filter: &MessageFilter) -> Result<Option<Span>, StoreError> {
        let mut span = Span { condition: String::new(), values: Vec::new(), chat: None };
        if let Some(chat) = &filter.chat {
            let sql = "SELECT key FROM chats WHERE session = ?1 AND jid = ?2";
            let Some(key) = self.one(sql, params![session.0, chat.to_string()], |row| row.get(0))? else {
                return Ok(None);
            };
            span.chat = Some(key);
            span.and("messages.chat = ?", key);
        } else {
            span.and("messages.session = ?", session.0);
        }
        if let Some(before) = filter.before {
            span.and("sort < ?", second(before) << SORT_BITS);
        }
        if let Some(after) = filter.after {
            span.and("sort >= ?", (second(after) + 1) << SORT_BITS);
        }
        Ok(Some(span))
    }

    fn total(&self, session: SessionKey, filter: &MessageFilter, span: &Span) -> Result<u64, StoreError> {
        let bounded = filter.before.is_some() || filter.after.is_some();
        let total = match span.chat {
            _ if bounded => {
                let sql = format!("SELECT count(*) FROM messages WHERE {}", span.condition);
                self.one(&sql, params_from_iter(span.values.clone()), |row| row.get(0))?
            }
            // Counted as they came: no walk through the history.
            Some(chat) => self.one("SELECT messages FROM chats WHERE key = ?1", [chat], |row| row.get(0))?,
            None => {
                self.one("SELECT messages FROM sessions WHERE key = ?1", [session.0], |row| row.get(0))?
            }
        };
        Ok(total.map_or(0, records::unsigned))
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let found =
            self.conn().prepare_cached(sql).and_then(|mut sql| sql.query_row(params, read).optional());
        found.map_err(|error| records::store_error(&error))
    }

    pub(super) fn many<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let found =
            self.conn().prepare_cached(sql).and_then(|mut sql| sql.query_map(params, read)?.collect());
        found.map_err(|error| records::store_error(&error))
    }

    fn conn(&self) -> &Connection {
        self.conn.as_ref().expect("the connection is only taken out on drop")
    }
}

/// Which rows of `messages` a filter means.
struct Span {
    condition: String,
    values: Vec<Value>,
    chat: Option<i64>,
}

impl Span {
    fn and(&mut self, condition: &str, value: i64) {
        if !self.condition.is_empty() {
            self.condition.push_str(" AND ");
        }
        self.condition.push_str(condition);
        self.values.push(value.into());
    }
}

/// Bounded so that the shift into a sort key cannot overflow.
fn second(unix_s: u64) -> i64 {
    records::int(unix_s).min((i64::MAX >> SORT_BITS) - 1)
}
