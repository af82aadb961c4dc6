//! What an upload reads: the marks of a session, and everything they mean, all as of one moment.

use crossbeam_channel::Receiver;
use rusqlite::params;

use super::{
    LeaseRow, LocalStore, SessionKey, SessionRow, StoreError, StoredMessage,
    apply::Outcome,
    job::Op,
    marks::{self, DirtyMark},
    parts::PartKey,
    reader::Reader,
    records,
};
use crate::whatsapp::{
    jid::Jid,
    model::MessageRecord,
    state::{ReadError, StateRead, Table},
};

/// What a mark means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed<'a> {
    /// A row of state, there or gone.
    State(Table, &'a str),
    /// The session's own row.
    Session,
    /// A part of a day of history, there or gone.
    Part(DayPart),
}

/// A part of a day of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DayPart {
    /// Days since 1970, UTC.
    pub day: i64,
    /// From 1.
    pub part: i64,
}

impl DirtyMark {
    /// What it means; `None` for a mark of a version to come.
    #[must_use]
    pub fn changed(&self) -> Option<Changed<'_>> {
        match self.kind {
            marks::SESSION => Some(Changed::Session),
            marks::DAY => PartKey::parse(0, &self.key)
                .map(|PartKey { day, part, .. }| Changed::Part(DayPart { day, part })),
            kind => Table::ALL
                .into_iter()
                .find(|table| *table as u8 == kind)
                .map(|table| Changed::State(table, &self.key)),
        }
    }
}

/// A session at one moment. Holds one of few read connections: not for long.
pub struct Snapshot<'a> {
    reader: Reader<'a>,
    session: SessionKey,
    marks: Vec<DirtyMark>,
}

/// The first step of an upload: what is to be read, and what the reader must be able to see.
pub(super) struct Begun {
    group: u64,
    marks: Vec<DirtyMark>,
}

impl LocalStore {
    /// Sessions with marks, and since when (Unix milliseconds), as of SQLite's last commit.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn dirty_sessions(&self) -> Result<Vec<(SessionKey, u64)>, StoreError> {
        self.inner.readers.take()?.dirty_sessions()
    }

    /// Number of marks, as of SQLite's last commit.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn dirty_count(&self) -> Result<u64, StoreError> {
        self.inner.readers.take()?.dirty_count()
    }

    /// Something arrives here after marks were committed.
    #[must_use]
    pub fn dirty_signal(&self) -> Receiver<()> {
        self.inner.shared.marked.1.clone()
    }

    /// A session with everything durable now; changes from now on leave marks of their own.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read, or has work that it cannot show yet.
    pub fn begin_upload(&self, session: SessionKey) -> Result<Snapshot<'_>, StoreError> {
        let begun = self.collect_marks(session)?;
        self.snapshot(session, begun)
    }

    pub(super) fn collect_marks(&self, session: SessionKey) -> Result<Begun, StoreError> {
        match self.call(Op::BeginUpload { session })? {
            Outcome::Marks { group, marks } => Ok(Begun { group, marks }),
            _ => Err(StoreError::Stopped),
        }
    }

    pub(super) fn snapshot(&self, session: SessionKey, begun: Begun) -> Result<Snapshot<'_>, StoreError> {
        let Begun { group, marks } = begun;
        let reader = self.inner.readers.take()?;
        reader.begin()?;
        let snapshot = Snapshot { reader, session, marks };
        if snapshot.reader.applied()? < group {
            return Err(self.health().unwrap_or(StoreError::Io("the store is behind its journal".into())));
        }
        Ok(snapshot)
    }

    /// Takes away the marks that did not change since [`LocalStore::begin_upload`], which was at `begun_ms`.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable; the uploads happen again then.
    pub fn uploaded(
        &self,
        session: SessionKey,
        marks: Vec<DirtyMark>,
        begun_ms: u64,
    ) -> Result<(), StoreError> {
        self.call(Op::Uploaded { session, marks, begun_ms }).map(drop)
    }

    /// The lease a session's rows belong to.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn lease(&self, session: SessionKey) -> Result<Option<LeaseRow>, StoreError> {
        self.reader()?.lease(session)
    }

    /// Ids of deleted sessions whose objects are not known to be gone.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn removals(&self) -> Result<Vec<String>, StoreError> {
        self.reader()?.removals()
    }

    /// Parts of days that are in the object store and not here yet.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn reserved_parts(&self, session: SessionKey) -> Result<Vec<DayPart>, StoreError> {
        let sql = "SELECT day, part FROM day_parts WHERE session = ?1 AND bytes < 0 ORDER BY day, part";
        let reader = self.reader()?;
        reader.many(sql, params![session.0], |row| Ok(DayPart { day: row.get(0)?, part: row.get(1)? }))
    }

    /// Whether there is anything of an account under this id.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn has_state(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM sessions JOIN state ON state.session = sessions.key WHERE id = ?1 LIMIT 1";
        Ok(self.reader()?.one(sql, params![id], |_| Ok(()))?.is_some())
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.reader()?.one("SELECT value FROM meta WHERE key = ?1", params![key], |row| row.get(0))
    }
}

impl Snapshot<'_> {
    /// The session's marks, oldest first. What they mean may be newer than they are.
    #[must_use]
    pub fn marks(&self) -> &[DirtyMark] {
        &self.marks
    }

    /// The session's own row; `None` when it is being deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn row(&self) -> Result<Option<SessionRow>, StoreError> {
        self.reader.session(self.session)
    }

    /// Messages of a part of a day, oldest first. Empty when there is no such part.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn part(&self, DayPart { day, part }: DayPart) -> Result<Vec<StoredMessage>, StoreError> {
        self.reader.part(PartKey { session: self.session.0, day, part })
    }
}

impl StateRead for Snapshot<'_> {
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.state(self.session, table as u8, key).map_err(read_error)
    }

    fn keys(&self, table: Table, prefix: &str) -> Result<Vec<String>, ReadError> {
        self.reader.state_keys(self.session, table as u8, prefix).map_err(read_error)
    }

    fn message(
        &self,
        chat: &Jid,
        id: &str,
        sender: Option<&Jid>,
    ) -> Result<Option<MessageRecord>, ReadError> {
        self.reader.history(self.session, chat, id, sender).map_err(read_error)
    }

    fn pending_messages(&self) -> Result<Vec<MessageRecord>, ReadError> {
        self.reader.pending(self.session).map_err(read_error)
    }
}

fn read_error(error: StoreError) -> ReadError {
    ReadError(error.to_string())
}

impl Reader<'_> {
    fn dirty_sessions(&self) -> Result<Vec<(SessionKey, u64)>, StoreError> {
        // One step per session, however many marks each has.
        let sql = "WITH RECURSIVE marked (session) AS (
                       SELECT min(session) FROM dirty UNION ALL
                       SELECT (SELECT min(session) FROM dirty WHERE session > marked.session) FROM marked
                       WHERE marked.session IS NOT NULL)
                   SELECT session, (SELECT min(since_ms) FROM dirty WHERE dirty.session = marked.session)
                   FROM marked WHERE session IS NOT NULL";
        self.many(sql, [], |row| Ok((SessionKey(row.get(0)?), records::unsigned(row.get(1)?))))
    }

    fn dirty_count(&self) -> Result<u64, StoreError> {
        let count = self.one("SELECT count(*) FROM dirty", [], |row| row.get(0))?;
        Ok(count.map_or(0, records::unsigned))
    }

    fn session(&self, session: SessionKey) -> Result<Option<SessionRow>, StoreError> {
        let sql =
            format!("SELECT {} FROM sessions WHERE key = ?1 AND deleting = 0", records::SESSION_COLUMNS);
        self.one(&sql, params![session.0], records::session_row)
    }

    fn part(&self, key: PartKey) -> Result<Vec<StoredMessage>, StoreError> {
        let sql = "SELECT first_sort, last_sort FROM day_parts WHERE session = ?1 AND day = ?2 AND part = ?3";
        let span: Option<(i64, i64)> =
            self.one(sql, params![key.session, key.day, key.part], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some((first, last)) = span else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT {} FROM messages JOIN chats ON chats.key = messages.chat
             WHERE messages.session = ?1 AND sort BETWEEN ?2 AND ?3 AND part = ?4 ORDER BY sort",
            records::MESSAGE_COLUMNS
        );
        self.many(&sql, params![key.session, first, last, key.part], records::stored_message)
    }

    fn lease(&self, session: SessionKey) -> Result<Option<LeaseRow>, StoreError> {
        let sql = "SELECT generation, complete FROM leases WHERE session = ?1";
        self.one(sql, params![session.0], |row| {
            Ok(LeaseRow { generation: records::unsigned(row.get(0)?), complete: row.get(1)? })
        })
    }

    fn removals(&self) -> Result<Vec<String>, StoreError> {
        self.many("SELECT id FROM removals ORDER BY since_ms", [], |row| row.get(0))
    }

    /// Number of the last group of the journal that can be seen.
    fn applied(&self) -> Result<u64, StoreError> {
        let found: Option<String> =
            self.one("SELECT value FROM meta WHERE key = 'journal'", [], |row| row.get(0))?;
        Ok(found.and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}
