//! Which parts of a session the object store lacks: rows of `dirty`, written in the transaction of the change.
//!
//! A mark is a row of state (by table and key), the session's own row, or a part of a day of history. What is marked
//! already costs a look into a set and nothing else. An upload first has the marks read and the set forgotten, in one
//! step, so that every change from then on leaves a new trace; then it reads what they mean, and at its end takes the
//! marks away that did not change meanwhile. (Marks read any later, with the data, would not do: a change between the
//! two steps leaves its trace there, and a second change of the same thing behind them leaves none.)

use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::{
    SessionKey,
    apply::{Applier, Outcome, Result},
    parts::PartKey,
    records,
};

/// The session's own row.
pub(super) const SESSION: u8 = 32;
/// A part of a day; the key is `<days since 1970>.<part>`.
pub(super) const DAY: u8 = 33;

/// Marks remembered per session; beyond that a change writes its mark again.
const REMEMBERED: usize = 256;

const MARK: &str = "INSERT INTO dirty (session, kind, key, round, since_ms) VALUES (?1, ?2, ?3, 1, ?4)
     ON CONFLICT DO UPDATE SET round = round + 1";

/// Marks that are in the database for certain.
#[derive(Default)]
pub(super) struct Marks {
    keys: HashMap<u8, HashSet<Box<str>>>,
    count: usize,
}

/// Something that was changed since its last upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyMark {
    pub(super) kind: u8,
    pub(super) key: String,
    pub(super) round: i64,
    /// Unix milliseconds of the first change.
    pub since_ms: u64,
}

impl Marks {
    fn has(&self, kind: u8, key: &str) -> bool {
        self.keys.get(&kind).is_some_and(|keys| keys.contains(key))
    }

    fn remember(&mut self, kind: u8, key: &str) {
        if self.count < REMEMBERED {
            self.count += 1;
            self.keys.entry(kind).or_default().insert(key.into());
        }
    }
}

impl Applier<'_> {
    /// Notes that the object store lacks this.
    pub(super) fn mark(&mut self, session: i64, kind: u8, key: &str) -> Result<()> {
        if self.session(session)?.marks.has(kind, key) {
            return Ok(());
        }
        self.run(MARK, params![session, kind, key, self.now_ms])?;
        self.known.marked = true;
        self.session(session)?.marks.remember(kind, key);
        Ok(())
    }

    /// Notes the same of every row of a table.
    pub(super) fn mark_table(&mut self, session: i64, table: u8) -> Result<()> {
        self.run(
            "INSERT INTO dirty SELECT session, tbl, key, 1, ?3 FROM state WHERE session = ?1 AND tbl = ?2
             ON CONFLICT DO UPDATE SET round = round + 1",
            params![session, table, self.now_ms],
        )?;
        self.known.marked = true;
        Ok(())
    }

    /// Notes the same of all state of a session.
    pub(super) fn mark_state(&mut self, session: i64) -> Result<()> {
        self.run(
            "INSERT INTO dirty SELECT session, tbl, key, 1, ?2 FROM state WHERE session = ?1
             ON CONFLICT DO UPDATE SET round = round + 1",
            params![session, self.now_ms],
        )?;
        self.known.marked = true;
        Ok(())
    }

    /// Notes that a message of ours changed.
    pub(super) fn mark_part_of(&mut self, session: i64, id: &str, chat: i64) -> Result<()> {
        let found: Option<(i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT sort, part FROM messages INDEXED BY messages_id
                 WHERE session = ?1 AND id = ?2 AND chat = ?3 AND from_me = 1",
            )?
            .query_row(params![session, id, chat], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((sort, part)) => {
                let key = PartKey { session, day: PartKey::day_of(sort), part };
                self.mark(session, DAY, &key.to_string())
            }
            None => Ok(()),
        }
    }

    /// The session's marks, oldest first; from now on every change leaves a new trace. With them the number of the
    /// journal's group that has everything before.
    pub(super) fn begin_upload(&mut self, SessionKey(session): SessionKey) -> Result<Outcome> {
        self.session(session)?.marks = Marks::default();
        let sql = "SELECT kind, key, round, since_ms FROM dirty WHERE session = ?1 ORDER BY since_ms";
        let marks = self
            .conn
            .prepare_cached(sql)?
            .query_map([session], |row| {
                Ok(DirtyMark {
                    kind: row.get(0)?,
                    key: row.get(1)?,
                    round: row.get(2)?,
                    since_ms: records::unsigned(row.get(3)?),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Outcome::Marks { group: self.journal.borrow().next_number(), marks })
    }

    /// Takes away the marks that did not change since they were read.
    pub(super) fn uploaded(
        &mut self,
        SessionKey(session): SessionKey,
        marks: &[DirtyMark],
        begun_ms: u64,
    ) -> Result<Outcome> {
        for DirtyMark { kind, key, round, .. } in marks {
            let gone = self.run(
                "DELETE FROM dirty WHERE session = ?1 AND kind = ?2 AND key = ?3 AND round = ?4",
                params![session, kind, key, round],
            )?;
            if gone == 0 {
                self.run(
                    "UPDATE dirty SET since_ms = max(since_ms, ?4)
                     WHERE session = ?1 AND kind = ?2 AND key = ?3",
                    params![session, kind, key, records::int(begun_ms)],
                )?;
            }
        }
        Ok(Outcome::Done)
    }
}
