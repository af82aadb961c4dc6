//! What the store thread does to the database: one function per kind of work, inside an open transaction.
//!
//! What every batch of a session needs again and again (its event counter, its chat numbers) is remembered in
//! [`Known`], so that a message costs its inserts and nothing else. After a rollback all of it is forgotten.

use std::{cell::RefCell, collections::HashMap};

use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter, types::Value};

use super::{
    Claim, Logged, SessionKey, SessionPatch, SessionRow, StoreError,
    journal::{Journal, Redo},
    marks::{self, DirtyMark, Marks},
    parts::{self, CurrentPart, PartCount, PartKey},
    records, sealing,
};
use crate::{
    storage::{events, seal::KeyRing},
    whatsapp::{
        jid::Jid,
        model::{MessageRecord, MessageStatus},
        state::{Batch, Write},
    },
};

/// Events kept per session: the newest ones, and none older than [`super::ops::EVENTS_KEPT_MS`] (the last one always
/// stays, it carries the count).
const EVENTS_KEPT: i64 = 10_000;
/// Events kept per session that are still to be delivered, whatever their age up to
/// [`super::ops::UNDELIVERED_KEPT_MS`]: almost three days of two messages a second.
const UNDELIVERED_KEPT: i64 = 500_000;
/// Old events are cut off each time this many new ones came.
const PRUNE_EVERY: i64 = 256;
/// Chat numbers remembered over all sessions, about 100 bytes each.
const CHATS_KNOWN: usize = 20_000;
/// Bits of the sort key below the second.
pub(super) const SORT_BITS: u32 = 20;

/// Result of one piece of work.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Seq(Option<u64>),
    Session(Option<SessionRow>),
    Claim(Claim),
    /// Whether rows are left to delete.
    More(bool),
    /// Sessions with refused events to deliver again, and how many were marked.
    Replaying(Vec<SessionKey>, usize),
    /// The marks of a session, and the group of the journal that has everything they are about.
    Marks {
        group: u64,
        marks: Vec<DirtyMark>,
    },
}

/// What is known of sessions without asking the database.
#[derive(Default)]
pub(super) struct Known {
    sessions: HashMap<i64, KnownSession>,
    chats: usize,
    /// Counts that are written once per transaction.
    session_counts: HashMap<i64, SessionCount>,
    chat_counts: HashMap<i64, i64>,
    pub(super) part_counts: HashMap<PartKey, PartCount>,
    /// Something was marked dirty since the last commit.
    pub(super) marked: bool,
}

#[derive(Default)]
pub(super) struct KnownSession {
    last_seq: i64,
    /// Last second a message was filed under, and the last sort key given out in it.
    last_second: i64,
    last_sort: i64,
    chats: HashMap<String, i64>,
    /// The open part of the days that were written to last.
    pub(super) days: Vec<CurrentPart>,
    pub(super) marks: Marks,
}

#[derive(Default)]
struct SessionCount {
    messages: i64,
    activity_ms: i64,
}

impl Known {
    pub(super) fn known_session(&mut self, session: i64) -> Option<&mut KnownSession> {
        self.sessions.get_mut(&session)
    }

    fn count(&mut self, session: i64, chat: i64, now_ms: i64) {
        let count = self.session_counts.entry(session).or_default();
        count.messages += 1;
        count.activity_ms = now_ms;
        *self.chat_counts.entry(chat).or_default() += 1;
    }
}

/// A connection with an open transaction, the time, and what is known.
pub(super) struct Applier<'c> {
    pub(super) conn: &'c Connection,
    pub(super) known: &'c mut Known,
    pub(super) journal: RefCell<&'c mut Journal>,
    /// Events written, for those who watch.
    pub(super) logged: Vec<Logged>,
    pub(super) now_ms: i64,
    /// What encrypts the engine's state.
    pub(super) keys: &'c KeyRing,
}

/// Counted when it adds a row, also when it is executed again from the journal.
const ADD_MESSAGE: &str =
    "INSERT INTO messages (session, sort, chat, id, sender, from_me, kind, content, push_name,
         target_id, timestamp_s, status, raw, part)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
     ON CONFLICT (session, id, chat, sender) DO NOTHING";
const PUT_STATE: &str = "INSERT INTO state (session, tbl, key, value) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET value = excluded.value";
/// What [`ADD_MESSAGE`] of every version begins with; an older one had no part.
const ADDS_MESSAGE: &str = "INSERT INTO messages ";

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Why a piece of work failed: the database, or the work itself.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Work(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Work(StoreError::Io(error.to_string()))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sqlite(error) => records::store_error(&error),
            Failure::Work(error) => error,
        }
    }
}

impl Applier<'_> {
    /// Applies an engine's batch; the number of its last event, if it had one.
    pub(super) fn batch(&mut self, session: SessionKey, batch: &Batch) -> Result<Option<u64>> {
        let SessionKey(session) = session;
        self.session(session)?;
        let mut last_seq = None;
        for write in &batch.writes {
            match write {
                Write::Put(table, key, value) => {
                    self.mark(session, *table as u8, key)?;
                    self.put_state(session, *table as u8, key, value)?;
                }
                Write::Delete(table, key) => {
                    self.mark(session, *table as u8, key)?;
                    self.run(
                        "DELETE FROM state WHERE session = ?1 AND tbl = ?2 AND key = ?3",
                        params![session, *table as u8, key],
                    )?;
                }
                Write::Clear(table) => {
                    self.mark_table(session, *table as u8)?;
                    self.run(
                        "DELETE FROM state WHERE session = ?1 AND tbl = ?2",
                        params![session, *table as u8],
                    )?;
                }
                Write::Message(record) => self.message(session, record)?,
                Write::Status { chat, id, status, participant, timestamp, error } => {
                    let change =
                        StatusChange { id, status: *status, timestamp: *timestamp, error: error.as_deref() };
                    self.status(session, chat, participant.as_ref(), &change)?;
                }
                Write::Event(event) => {
                    let (kind, payload) = events::encode(event);
                    last_seq = Some(self.event(session, kind, &payload)?);
                }
            }
        }
        Ok(last_seq)
    }

    /// Writes a value of the engine's state, sealed where there is a key.
    pub(super) fn put_state(
        &self,
        session: i64,
        table: u8,
        key: &str,
        value: &[u8],
    ) -> rusqlite::Result<usize> {
        let sealed;
        let stored = if self.keys.seals() {
            sealed = self.keys.seal(&sealing::name(session, table, key), value);
            &sealed[..]
        } else {
            value
        };
        self.run(PUT_STATE, params![session, table, key, stored])
    }

    /// A change of the session's row with the event that tells of it.
    pub(super) fn report(
        &mut self,
        session: SessionKey,
        patch: Option<&SessionPatch>,
        event: Option<&(&'static str, String)>,
    ) -> Result<Option<u64>> {
        self.session(session.0)?;
        if let Some(patch) = patch {
            self.update(session.0, patch)?;
        }
        event.map(|(kind, payload)| self.event(session.0, kind, payload)).transpose()
    }

    /// Writes the counts that were collected and what of the journal is in here; last thing before the commit.
    pub(super) fn seal(&mut self) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES ('journal', ?1)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute([self.journal.borrow().number().to_string()])?;
        for (session, count) in std::mem::take(&mut self.known.session_counts) {
            self.conn
                .prepare_cached(
                    "UPDATE sessions SET messages = messages + ?2,
                     last_activity_ms = max(coalesce(last_activity_ms, 0), ?3) WHERE key = ?1",
                )?
                .execute(params![session, count.messages, count.activity_ms])?;
        }
        parts::seal_parts(self.conn, self.known)?;
        for (chat, count) in std::mem::take(&mut self.known.chat_counts) {
            self.conn
                .prepare_cached("UPDATE chats SET messages = messages + ?2 WHERE key = ?1")?
                .execute(params![chat, count])?;
        }
        Ok(())
    }

    /// Executes a statement that changes something, and notes it for the journal.
    pub(super) fn run(&self, sql: &'static str, params: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        let changed = self.conn.prepare_cached(sql)?.execute(params)?;
        if changed > 0 {
            self.journal.borrow_mut().add(sql, params)?;
        }
        Ok(changed)
    }

    /// Makes sure that the session exists and its counters are known.
    pub(super) fn session(&mut self, session: i64) -> Result<&mut KnownSession> {
        if self.known.chats > CHATS_KNOWN {
            self.known.sessions.clear();
            self.known.chats = 0;
        }
        match self.known.sessions.entry(session) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let last_seq = self
                    .conn
                    .prepare_cached(
                        "SELECT coalesce((SELECT max(seq) FROM events WHERE session = ?1), 0)
                         FROM sessions WHERE key = ?1 AND deleting = 0",
                    )?
                    .query_row([session], |row| row.get(0))
                    .optional()?
                    .ok_or(Failure::Work(StoreError::NoSession))?;
                Ok(entry.insert(KnownSession { last_seq, ..KnownSession::default() }))
            }
        }
    }

    fn message(&mut self, session: i64, record: &MessageRecord) -> Result<()> {
        let part = self.open_part(session, records::int(record.timestamp))?;
        if self.add_message(session, record, part)? {
            self.mark(session, marks::DAY, &part.to_string())?;
        }
        Ok(())
    }

    /// Adds a message to a part of its day; `false` when the history has it.
    pub(super) fn add_message(
        &mut self,
        session: i64,
        record: &MessageRecord,
        PartKey { day, part, .. }: PartKey,
    ) -> Result<bool> {
        let chat = self.chat(session, &record.chat.to_string())?;
        let sort = self.sort_key(session, records::int(record.timestamp))?;
        let added = self.run(
            ADD_MESSAGE,
            params![
                session,
                sort,
                chat,
                record.id,
                record.sender.to_string(),
                record.from_me,
                record.kind,
                record.content,
                record.push_name,
                record.target_id,
                records::int(record.timestamp),
                record.status as u8,
                record.raw,
                part
            ],
        )?;
        if added > 0 {
            self.known.count(session, chat, self.now_ms);
            let bytes = records::length(&record.raw) + records::length(&record.content);
            self.known.file(PartKey { session, day, part }, sort, bytes);
        }
        Ok(added > 0)
    }

    /// The chat's number; a chat seen for the first time gets one.
    pub(super) fn chat(&mut self, session: i64, jid: &str) -> Result<i64> {
        if let Some(chat) = self.session(session)?.chats.get(jid) {
            return Ok(*chat);
        }
        let chat = match self.known_chat(session, jid)? {
            Some(chat) => chat,
            None => {
                self.run("INSERT INTO chats (session, jid) VALUES (?1, ?2)", params![session, jid])?;
                self.conn.last_insert_rowid()
            }
        };
        self.known.chats += 1;
        self.session(session)?.chats.insert(jid.to_owned(), chat);
        Ok(chat)
    }

    fn known_chat(&mut self, session: i64, jid: &str) -> Result<Option<i64>> {
        if let Some(chat) = self.session(session)?.chats.get(jid) {
            return Ok(Some(*chat));
        }
        Ok(self
            .conn
            .prepare_cached("SELECT key FROM chats WHERE session = ?1 AND jid = ?2")?
            .query_row(params![session, jid], |row| row.get(0))
            .optional()?)
    }

    /// The next free sort key within a second: behind every message filed under it before.
    fn sort_key(&mut self, session: i64, timestamp_s: i64) -> Result<i64> {
        let second = timestamp_s.clamp(0, i64::MAX >> (SORT_BITS + 1));
        let known = self.session(session)?;
        if known.last_second == second && known.last_sort > 0 {
            known.last_sort += 1;
            return Ok(known.last_sort);
        }
        let first = second << SORT_BITS;
        let last: Option<i64> = self
            .conn
            .prepare_cached("SELECT max(sort) FROM messages WHERE session = ?1 AND sort BETWEEN ?2 AND ?3")?
            .query_row(params![session, first, first + (1 << SORT_BITS) - 1], |row| row.get(0))?;
        let sort = last.map_or(first + 1, |last| last + 1);
        let known = self.session(session)?;
        known.last_second = second;
        known.last_sort = sort;
        Ok(sort)
    }

    fn status(
        &mut self,
        session: i64,
        chat: &Jid,
        participant: Option<&Jid>,
        change: &StatusChange<'_>,
    ) -> Result<()> {
        let Some(chat) = self.known_chat(session, &chat.to_string())? else { return Ok(()) };
        let at = records::int(change.timestamp);
        // The index is named: without statistics SQLite would walk the whole session instead.
        // A failure counts only while nothing better is known, and any real progress ends it.
        let changed = self.run(
            "UPDATE messages INDEXED BY messages_id SET
                 status = CASE WHEN ?4 = 6 THEN iif(status <= 2, 6, status)
                               WHEN status = 6 THEN ?4 ELSE max(status, ?4) END,
                 sent_s = iif(?4 = 2, coalesce(sent_s, ?5), sent_s),
                 delivered_s = iif(?4 = 3, coalesce(delivered_s, ?5), delivered_s),
                 read_s = iif(?4 = 4, coalesce(read_s, ?5), read_s),
                 played_s = iif(?4 = 5, coalesce(played_s, ?5), played_s),
                 failed_s = iif(?4 = 6 AND status <= 2, ?5, failed_s),
                 error = CASE WHEN ?4 <> 6 THEN NULL WHEN status <= 2 THEN ?6 ELSE error END
             WHERE session = ?1 AND id = ?2 AND chat = ?3 AND from_me = 1",
            params![session, change.id, chat, change.status as u8, at, change.error],
        )?;
        if changed > 0 {
            self.mark_part_of(session, change.id, chat)?;
        }
        if let Some(participant) = participant {
            self.run(
                "INSERT INTO receipts (session, sort, participant, status, timestamp_s)
                 SELECT session, sort, ?4, ?5, ?6 FROM messages INDEXED BY messages_id
                 WHERE session = ?1 AND id = ?2 AND chat = ?3 AND from_me = 1
                 ON CONFLICT DO NOTHING",
                params![session, change.id, chat, participant.to_string(), change.status as u8, at],
            )?;
        }
        Ok(())
    }

    fn event(&mut self, session: i64, kind: &'static str, payload: &str) -> Result<u64> {
        let known = self.session(session)?;
        known.last_seq += 1;
        let seq = known.last_seq;
        self.run(
            "INSERT INTO events (session, seq, kind, created_ms, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![session, seq, kind, self.now_ms, payload],
        )?;
        if seq % PRUNE_EVERY == 0 {
            // Undelivered ones stay longer.
            self.run(
                "DELETE FROM events WHERE session = ?1 AND seq <= max(?3,
                     min(?2, coalesce((SELECT cursor FROM outbox WHERE session = ?1), ?2)))",
                params![session, seq - EVENTS_KEPT, seq - UNDELIVERED_KEPT],
            )?;
        }
        let seq = records::unsigned(seq);
        self.logged.push(Logged { session: SessionKey(session), seq, kind });
        Ok(seq)
    }

    pub(super) fn forget(&mut self, session: i64) {
        self.known.sessions.remove(&session);
        self.known.session_counts.remove(&session);
    }
}

/// Executes a statement of the journal again.
pub(super) fn redo(
    conn: &Connection,
    known: &mut Known,
    now_ms: i64,
    redo: &Redo<'_>,
) -> rusqlite::Result<()> {
    if redo.sql == parts::SETTLE {
        return parts::seal_parts(conn, known);
    }
    let changed = conn.prepare_cached(redo.sql)?.execute(params_from_iter(&redo.values))?;
    if changed > 0
        && redo.sql.starts_with(ADDS_MESSAGE)
        && let [Value::Integer(session), Value::Integer(sort), Value::Integer(chat), rest @ ..] =
            &redo.values[..]
    {
        known.count(*session, *chat, now_ms);
        if let [.., Value::Text(content), _, _, _, _, Value::Blob(raw), Value::Integer(part)] = rest {
            let key = PartKey { session: *session, day: PartKey::day_of(*sort), part: *part };
            known.file(key, *sort, records::length(raw) + records::length(content));
        }
    }
    Ok(())
}

struct StatusChange<'a> {
    id: &'a str,
    status: MessageStatus,
    timestamp: u64,
    error: Option<&'a str>,
}
