//! Ownership and take-over: which lease a session's rows belong to, state and history that come from the object
//! store, deletion of what is too old.

use std::collections::BTreeSet;

use rand_core::{OsRng, RngCore};
use rusqlite::params;

use super::{
    DayPart, LocalStore, SessionKey, StoreError, StoredMessage,
    apply::{Applier, Outcome, Result},
    job::Op,
    marks::{self, Marks},
    ops::ROWS_AT_ONCE,
    parts::PartKey,
    records,
};
use crate::whatsapp::state::Write;

/// What this state directory knows of a session's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRow {
    /// Generation under which the rows were written.
    pub generation: u64,
    /// The history of the bucket is here, too.
    pub complete: bool,
}

impl LocalStore {
    /// Remembers the lease of a session; `None` when it was given away: the rows may be outdated from then on.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn set_lease(
        &self,
        session: SessionKey,
        lease: Option<LeaseRow>,
    ) -> std::result::Result<(), StoreError> {
        self.call(Op::Lease { session, lease }).map(drop)
    }

    /// Replaces a session's state by what came from the object store. `mark`: the store gets it again, because it is
    /// not what was read.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn adopt_state(
        &self,
        session: SessionKey,
        state: Vec<Write>,
        mark: bool,
    ) -> std::result::Result<(), StoreError> {
        self.call(Op::Adopt { session, state, mark }).map(drop)
    }

    /// Takes all messages of a session out of their parts: the object store's parts are filed first, then
    /// [`LocalStore::refile_messages`] files what it did not have.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn unfile_messages(&self, session: SessionKey) -> std::result::Result<(), StoreError> {
        self.call(Op::Unfile { session }).map(drop)
    }

    /// Adds a part of a day as the object store has it.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn file_part(
        &self,
        session: SessionKey,
        part: DayPart,
        messages: Vec<StoredMessage>,
    ) -> std::result::Result<(), StoreError> {
        self.call(Op::FilePart { session, part, messages }).map(drop)
    }

    /// Files messages that are in no part.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn refile_messages(&self, session: SessionKey) -> std::result::Result<(), StoreError> {
        while matches!(self.call(Op::Refile { session })?, Outcome::More(true)) {}
        Ok(())
    }

    /// Removes messages of a session from before this moment (Unix seconds).
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn expire_messages(&self, session: SessionKey, before_s: u64) -> std::result::Result<(), StoreError> {
        let before_s = records::int(before_s);
        while matches!(self.call(Op::Expire { session, before_s })?, Outcome::More(true)) {}
        Ok(())
    }

    /// Names of parts of days in the object store that are not here yet: nothing is filed under them until
    /// [`LocalStore::file_part`].
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn reserve_parts(
        &self,
        session: SessionKey,
        parts: Vec<DayPart>,
    ) -> std::result::Result<(), StoreError> {
        self.call(Op::Reserve { session, parts }).map(drop)
    }

    /// Names this state directory for ever, at random.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn instance(&self) -> std::result::Result<String, StoreError> {
        if let Some(instance) = self.meta(INSTANCE)? {
            return Ok(instance);
        }
        let mut bytes = [0u8; 8];
        OsRng.fill_bytes(&mut bytes);
        let instance = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.call(Op::Meta { key: INSTANCE, value: instance.clone() })?;
        Ok(instance)
    }

    /// Says which object store this one belongs to: a name that stays the same as long as the store does. When it is
    /// another one than last time, or the first one, everything of every session is marked as lacking there; then the
    /// answer is `true`.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn set_home(&self, home: &str) -> std::result::Result<bool, StoreError> {
        if self.meta(HOME)?.as_deref() == Some(home) {
            return Ok(false);
        }
        self.call(Op::Moved { home: home.into() })?;
        Ok(!self.sessions()?.is_empty())
    }

    /// Until when every lease of this worker was known to be its own, Unix milliseconds.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn alive_until_ms(&self) -> std::result::Result<u64, StoreError> {
        Ok(self.meta(ALIVE_UNTIL)?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Remembers what [`LocalStore::alive_until_ms`] tells.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn set_alive_until_ms(&self, unix_ms: u64) -> std::result::Result<(), StoreError> {
        self.call(Op::Meta { key: ALIVE_UNTIL, value: unix_ms.to_string() }).map(drop)
    }

    /// The objects of a deleted session are gone.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn removed(&self, id: &str) -> std::result::Result<(), StoreError> {
        self.call(Op::Removed { id: id.into() }).map(drop)
    }
}

impl Applier<'_> {
    pub(super) fn meta(&self, key: &str, value: &str) -> Result<Outcome> {
        self.run(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            params![key, value],
        )?;
        Ok(Outcome::Done)
    }

    pub(super) fn moved(&mut self, home: &str) -> Result<Outcome> {
        self.settle_parts()?;
        self.run(
            "INSERT INTO dirty SELECT session, tbl, key, 1, ?1 FROM state WHERE true
             ON CONFLICT DO UPDATE SET round = round + 1",
            params![self.now_ms],
        )?;
        self.run(
            "INSERT INTO dirty SELECT key, ?2, '', 1, ?1 FROM sessions WHERE true
             ON CONFLICT DO UPDATE SET round = round + 1",
            params![self.now_ms, marks::SESSION],
        )?;
        // Not those whose messages are only in the object store before.
        self.run(
            "INSERT INTO dirty SELECT session, ?2, day || '.' || part, 1, ?1 FROM day_parts WHERE bytes >= 0
             ON CONFLICT DO UPDATE SET round = round + 1",
            params![self.now_ms, marks::DAY],
        )?;
        self.known.marked = true;
        self.meta(HOME, home)
    }

    pub(super) fn reserve(&mut self, session: i64, parts: &[DayPart]) -> Result<Outcome> {
        self.settle_parts()?;
        for DayPart { day, part } in parts {
            let (first, end) = PartKey::sorts_of(*day);
            self.run(
                "INSERT INTO day_parts (session, day, part, messages, bytes, first_sort, last_sort)
                 VALUES (?1, ?2, ?3, 1000000, -1, ?4, ?5) ON CONFLICT DO NOTHING",
                params![session, day, part, first, end],
            )?;
        }
        self.session(session)?.days.clear();
        Ok(Outcome::Done)
    }

    pub(super) fn lease(&self, session: i64, lease: Option<LeaseRow>) -> Result<Outcome> {
        match lease {
            Some(lease) => self.run(
                "INSERT INTO leases (session, generation, complete) SELECT key, ?2, ?3 FROM sessions
                 WHERE key = ?1 AND deleting = 0
                 ON CONFLICT DO UPDATE SET generation = excluded.generation, complete = excluded.complete",
                params![session, records::int(lease.generation), lease.complete],
            )?,
            None => self.run("DELETE FROM leases WHERE session = ?1", params![session])?,
        };
        Ok(Outcome::Done)
    }

    pub(super) fn adopt(&mut self, session: i64, state: &[Write], mark: bool) -> Result<Outcome> {
        self.session(session)?;
        if mark {
            self.mark_state(session)?;
        }
        self.session(session)?.marks = Marks::default();
        self.run("DELETE FROM state WHERE session = ?1", params![session])?;
        for write in state {
            if let Write::Put(table, key, value) = write {
                self.put_state(session, *table as u8, key, value)?;
            }
        }
        if mark {
            self.mark_state(session)?;
        } else {
            self.run("DELETE FROM dirty WHERE session = ?1 AND kind < ?2", params![session, marks::SESSION])?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn unfile(&mut self, session: i64) -> Result<Outcome> {
        self.settle_parts()?;
        self.run("UPDATE messages SET part = 0 WHERE session = ?1", params![session])?;
        self.run("DELETE FROM day_parts WHERE session = ?1", params![session])?;
        self.run("DELETE FROM dirty WHERE session = ?1 AND kind = ?2", params![session, marks::DAY])?;
        let known = self.session(session)?;
        known.days.clear();
        known.marks = Marks::default();
        Ok(Outcome::Done)
    }

    pub(super) fn file_part(&mut self, key: PartKey, messages: &[StoredMessage]) -> Result<Outcome> {
        let session = key.session;
        self.settle_parts()?;
        for StoredMessage { record, times, error } in messages {
            self.add_message(session, record, key)?;
            let chat = self.chat(session, &record.chat.to_string())?;
            let seconds = |at: Option<u64>| at.map(records::int);
            // What is here already keeps the better status; a failure counts only against nothing better.
            self.run(
                "UPDATE messages INDEXED BY messages_id SET part = ?5,
                     status = CASE WHEN status = ?6 THEN status WHEN ?6 = 6 THEN iif(status <= 2, 6, status)
                                   WHEN status = 6 THEN ?6 ELSE max(status, ?6) END,
                     sent_s = coalesce(sent_s, ?7), delivered_s = coalesce(delivered_s, ?8),
                     read_s = coalesce(read_s, ?9), played_s = coalesce(played_s, ?10),
                     error = coalesce(error, ?11), failed_s = coalesce(failed_s, ?12)
                 WHERE session = ?1 AND id = ?2 AND chat = ?3 AND sender = ?4",
                params![
                    session,
                    record.id,
                    chat,
                    record.sender.to_string(),
                    key.part,
                    record.status as u8,
                    seconds(times.sent_s),
                    seconds(times.delivered_s),
                    seconds(times.read_s),
                    seconds(times.played_s),
                    error,
                    seconds(times.failed_s)
                ],
            )?;
        }
        self.settle_parts()?;
        self.count_part(key)?;
        self.session(session)?.days.clear();
        Ok(Outcome::Done)
    }

    /// Files some of the messages that are in no part.
    pub(super) fn refile(&mut self, session: i64) -> Result<Outcome> {
        let unfiled: Vec<(i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT sort, length(raw) + length(content) FROM messages WHERE session = ?1 AND part = 0
                 ORDER BY sort LIMIT ?2",
            )?
            .query_map(params![session, ROWS_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut parts = BTreeSet::new();
        for (sort, bytes) in &unfiled {
            let key = self.open_part(session, PartKey::second_of(*sort))?;
            self.run(
                "UPDATE messages SET part = ?3 WHERE session = ?1 AND sort = ?2",
                params![session, sort, key.part],
            )?;
            self.known.file(key, *sort, *bytes);
            self.mark(session, marks::DAY, &key.to_string())?;
            parts.insert(key);
        }
        self.settle_parts()?;
        // A replay of the journal counts only what is added, so these are counted by statements.
        parts.into_iter().try_for_each(|key| self.count_part(key))?;
        Ok(Outcome::More(i64::try_from(unfiled.len()).is_ok_and(|count| count >= ROWS_AT_ONCE)))
    }

    /// Removes some messages from before this moment; counts follow.
    pub(super) fn expire(&mut self, session: i64, before_s: i64) -> Result<Outcome> {
        self.settle_parts()?;
        let (day_start, _) = PartKey::sorts_of(PartKey::day_of_second(before_s));
        let last: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT max(sort) FROM (SELECT sort FROM messages WHERE session = ?1 AND sort < ?2
                     ORDER BY sort LIMIT ?3)",
            )?
            .query_row(params![session, day_start, ROWS_AT_ONCE], |row| row.get(0))?;
        let Some(last) = last else { return Ok(Outcome::More(false)) };
        const STEPS: [&str; 6] = [
            "UPDATE chats SET messages = messages - (SELECT count(*) FROM messages AS gone
                 WHERE gone.chat = chats.key AND gone.session = ?1 AND gone.sort <= ?2)
             WHERE session = ?1 AND key IN
                 (SELECT chat FROM messages WHERE messages.session = ?1 AND sort <= ?2)",
            "UPDATE sessions SET messages = messages -
                 (SELECT count(*) FROM messages AS gone WHERE gone.session = ?1 AND gone.sort <= ?2)
             WHERE key = ?1",
            "INSERT INTO dirty SELECT session, 33, day || '.' || part, 1, ?3 FROM day_parts
             WHERE session = ?1 AND first_sort <= ?2 ON CONFLICT DO UPDATE SET round = round + 1",
            "DELETE FROM day_parts WHERE session = ?1 AND last_sort <= ?2",
            "DELETE FROM receipts WHERE session = ?1 AND sort <= ?2",
            "DELETE FROM messages WHERE session = ?1 AND sort <= ?2",
        ];
        for step in STEPS {
            match step.contains("?3") {
                true => self.run(step, params![session, last, self.now_ms])?,
                false => self.run(step, params![session, last])?,
            };
        }
        self.known.marked = true;
        self.session(session)?.days.clear();
        Ok(Outcome::More(true))
    }
}

const INSTANCE: &str = "instance";
const HOME: &str = "home";
const ALIVE_UNTIL: &str = "alive_until_ms";
