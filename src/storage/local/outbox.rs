//! What the delivery of events keeps here: per session how far it has come, and the events a receiver refused.
//!
//! The event log itself is the queue. A session has a row in `outbox` while events are delivered anywhere; pruning of
//! the log stops at its cursor, up to the bounds in `apply` and `ops`. Nothing here knows HTTP or the backend.

use rusqlite::params;

use super::{
    LocalStore, SessionKey, StoreError, StoredEvent,
    apply::{Applier, Outcome, Result},
    job::Op,
    reader::Reader,
    records,
};

/// Refused events kept per session; older ones go first.
const DEAD_LETTERS_KEPT: i64 = 1_000;

/// How far the delivery of a session's events has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxCursor {
    /// Whose.
    pub session: SessionKey,
    /// Everything up to this event needs no delivery any more.
    pub cursor: u64,
    /// The last event that was handed over, accepted or refused; those between it and the cursor were not wanted.
    pub sent: u64,
}

/// A session's place in the outbox at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxRow {
    /// How far it has come.
    pub at: OutboxCursor,
    /// Number of the newest event.
    pub last_seq: u64,
    /// Number of the newest `session-status` behind the cursor; 0 when there is none.
    pub last_status: u64,
    /// Refused events are to be delivered again.
    pub replay: bool,
}

/// What is next for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxPage {
    /// Public id of the session.
    pub session_id: String,
    /// Refused events that are to be delivered again, oldest first.
    pub replays: Vec<DeadLetter>,
    /// Events behind the cursor, in order.
    pub events: Vec<StoredEvent>,
}

/// An event a receiver refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Internal number; grows with each burial.
    pub key: i64,
    /// Public id of the session.
    pub session_id: String,
    /// The event.
    pub event: StoredEvent,
    /// Unix milliseconds of the refusal.
    pub failed_ms: u64,
    /// HTTP status of the refusal.
    pub status: u16,
    /// What the receiver said.
    pub reason: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Waits to be delivered again.
    pub replay: bool,
}

/// An event on its way to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burial {
    /// The event.
    pub event: StoredEvent,
    /// HTTP status of the refusal.
    pub status: u16,
    /// What the receiver said.
    pub reason: String,
    /// Attempts, the refused one included.
    pub attempts: u32,
}

/// Which dead letters are to be delivered again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Only of this session.
    pub session: Option<SessionKey>,
    /// Only these events.
    pub event_ids: Option<Vec<String>>,
}

/// An event that is durable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Whose.
    pub session: SessionKey,
    /// Its number.
    pub seq: u64,
    /// Its kind.
    pub kind: &'static str,
}

/// Hears of events on the store thread. Must not block.
pub trait EventWatch: Send + Sync {
    /// These are durable. `true` asks that they become readable at once instead of within the next 100 ms.
    fn logged(&self, events: &[Logged]) -> bool;

    /// Everything told so far can be read.
    fn readable(&self);

    /// The session and its events are gone.
    fn deleted(&self, session: SessionKey);
}

/// Work of the store thread for the outbox.
#[derive(Debug, Clone)]
pub(super) enum OutboxOp {
    Open,
    Close,
    Advance(Vec<OutboxCursor>),
    Bury { at: OutboxCursor, letter: Box<Burial> },
    Replay(ReplayFilter),
    Settle { key: i64, refusal: Option<(u16, String)> },
}

impl LocalStore {
    /// Events are delivered from now on: each session has a place in the outbox, new ones from their first event,
    /// those there already from now on. All places.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable or read.
    pub fn open_outbox(&self) -> std::result::Result<Vec<OutboxRow>, StoreError> {
        self.outbox_op(OutboxOp::Open)?;
        self.reader()?.outbox_rows()
    }

    /// Events are delivered nowhere: nothing is kept for it any more.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn close_outbox(&self) -> std::result::Result<(), StoreError> {
        self.outbox_op(OutboxOp::Close).map(drop)
    }

    /// What is next for a session, at most `limit` events and refused ones each; `None` when it is gone. Sees what is
    /// readable without asking for more.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn outbox_page(
        &self,
        session: SessionKey,
        cursor: u64,
        limit: u32,
    ) -> std::result::Result<Option<OutboxPage>, StoreError> {
        let reader = self.inner.readers.take()?;
        let Some(session_id) = reader.session_id(session)? else { return Ok(None) };
        let replays = reader.replays(session, limit)?;
        Ok(Some(OutboxPage { session_id, replays, events: reader.events(session, cursor, limit)? }))
    }

    /// Notes how far delivery has come; durable soon.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when the store thread is gone.
    pub fn advance_outbox(&self, cursors: Vec<OutboxCursor>) -> std::result::Result<(), StoreError> {
        let (answer, _) = crossbeam_channel::bounded(1);
        let op = Op::Outbox(Box::new(OutboxOp::Advance(cursors)));
        self.send(super::job::Job::Call { op, answer })
    }

    /// Puts a refused event to the dead letters and moves the cursor behind it.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn bury(&self, at: OutboxCursor, letter: Burial) -> std::result::Result<(), StoreError> {
        self.outbox_op(OutboxOp::Bury { at, letter: Box::new(letter) }).map(drop)
    }

    /// Refused events with a number above `after`, oldest first, and how many there are in all.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn dead_letters(
        &self,
        session: Option<SessionKey>,
        after: i64,
        limit: u32,
    ) -> std::result::Result<(Vec<DeadLetter>, u64), StoreError> {
        let reader = self.reader()?;
        Ok((reader.dead_letters(session, after, limit)?, reader.dead_letter_count(session)?))
    }

    /// Marks refused events for another delivery. The sessions that have some, and how many in all.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn replay_dead_letters(
        &self,
        filter: ReplayFilter,
    ) -> std::result::Result<(Vec<SessionKey>, usize), StoreError> {
        match self.outbox_op(OutboxOp::Replay(filter))? {
            Outcome::Replaying(sessions, count) => Ok((sessions, count)),
            _ => Ok((Vec::new(), 0)),
        }
    }

    /// A refused event was delivered again, or refused again.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub fn settle_replay(
        &self,
        key: i64,
        refusal: Option<(u16, String)>,
    ) -> std::result::Result<(), StoreError> {
        self.outbox_op(OutboxOp::Settle { key, refusal }).map(drop)
    }

    fn outbox_op(&self, op: OutboxOp) -> std::result::Result<Outcome, StoreError> {
        self.call(Op::Outbox(Box::new(op)))
    }
}

impl Applier<'_> {
    pub(super) fn outbox(&mut self, op: &OutboxOp) -> Result<Outcome> {
        match op {
            OutboxOp::Open => self.open_outbox()?,
            OutboxOp::Close => {
                self.run("DELETE FROM meta WHERE key = 'outbox'", &[])?;
                self.run("DELETE FROM outbox", &[])?;
            }
            OutboxOp::Advance(cursors) => cursors.iter().try_for_each(|at| self.advance(*at))?,
            OutboxOp::Bury { at, letter } => self.bury(*at, letter)?,
            OutboxOp::Replay(filter) => return self.replay(filter),
            OutboxOp::Settle { key, refusal: None } => {
                self.run("DELETE FROM dead_letters WHERE key = ?1", params![key])?;
            }
            OutboxOp::Settle { key, refusal: Some((status, reason)) } => {
                self.run(
                    "UPDATE dead_letters SET replay = 0, attempts = attempts + 1, failed_ms = ?2, status = ?3,
                         reason = ?4 WHERE key = ?1",
                    params![key, self.now_ms, status, reason],
                )?;
            }
        }
        Ok(Outcome::Done)
    }

    /// A new session's place, while events are delivered.
    pub(super) fn add_to_outbox(&self, session: i64) -> rusqlite::Result<usize> {
        self.run(
            "INSERT INTO outbox (session, cursor, sent) SELECT ?1, 0, 0
             WHERE EXISTS (SELECT 1 FROM meta WHERE key = 'outbox')",
            params![session],
        )
    }

    fn open_outbox(&self) -> rusqlite::Result<()> {
        self.run("INSERT INTO meta (key, value) VALUES ('outbox', '1') ON CONFLICT DO NOTHING", &[])?;
        self.run(
            "INSERT INTO outbox (session, cursor, sent)
             SELECT key, (SELECT coalesce(max(seq), 0) FROM events WHERE session = key), 0 FROM sessions
             WHERE deleting = 0 ON CONFLICT DO NOTHING",
            &[],
        )?;
        Ok(())
    }

    fn advance(&self, at: OutboxCursor) -> rusqlite::Result<()> {
        self.run(
            "UPDATE outbox SET cursor = max(cursor, ?2), sent = max(sent, ?3) WHERE session = ?1",
            params![at.session.0, records::int(at.cursor), records::int(at.sent)],
        )?;
        Ok(())
    }

    fn bury(&mut self, at: OutboxCursor, letter: &Burial) -> Result<()> {
        self.session(at.session.0)?;
        self.advance(at)?;
        let event = &letter.event;
        self.run(
            "INSERT INTO dead_letters (session, seq, event_id, kind, payload, created_ms, failed_ms, status, reason,
                 attempts, replay)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0) ON CONFLICT (session, seq) DO NOTHING",
            params![
                at.session.0,
                records::int(event.seq),
                event.event_id,
                event.kind,
                event.payload,
                records::int(event.created_ms),
                self.now_ms,
                letter.status,
                letter.reason,
                letter.attempts
            ],
        )?;
        self.run(
            "DELETE FROM dead_letters WHERE session = ?1 AND key <=
                 (SELECT key FROM dead_letters WHERE session = ?1 ORDER BY key DESC LIMIT 1 OFFSET ?2)",
            params![at.session.0, DEAD_LETTERS_KEPT],
        )?;
        Ok(())
    }

    fn replay(&self, filter: &ReplayFilter) -> Result<Outcome> {
        let session = filter.session.map(|session| session.0);
        let mut marked = 0;
        match &filter.event_ids {
            None => {
                marked += self.run(
                    "UPDATE dead_letters SET replay = 1 WHERE replay = 0 AND (?1 IS NULL OR session = ?1)",
                    params![session],
                )?;
            }
            Some(ids) => {
                for id in ids {
                    marked += self.run(
                        "UPDATE dead_letters SET replay = 1
                         WHERE replay = 0 AND event_id = ?2 AND (?1 IS NULL OR session = ?1)",
                        params![session, id],
                    )?;
                }
            }
        }
        let sessions = self
            .conn
            .prepare_cached("SELECT DISTINCT session FROM dead_letters WHERE replay = 1")?
            .query_map([], |row| row.get(0).map(SessionKey))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Outcome::Replaying(sessions, marked))
    }
}

impl Reader<'_> {
    fn session_id(&self, session: SessionKey) -> std::result::Result<Option<String>, StoreError> {
        self.one("SELECT id FROM sessions WHERE key = ?1 AND deleting = 0", [session.0], |row| row.get(0))
    }

    fn outbox_rows(&self) -> std::result::Result<Vec<OutboxRow>, StoreError> {
        let sql = "SELECT session, cursor, sent,
                       (SELECT coalesce(max(seq), 0) FROM events WHERE events.session = outbox.session),
                       EXISTS (SELECT 1 FROM dead_letters
                               WHERE dead_letters.session = outbox.session AND replay = 1),
                       coalesce((SELECT seq FROM events WHERE events.session = outbox.session
                               AND seq > cursor AND kind = 'session-status' ORDER BY seq DESC LIMIT 1), 0)
                   FROM outbox";
        self.many(sql, [], |row| {
            Ok(OutboxRow {
                at: OutboxCursor {
                    session: SessionKey(row.get(0)?),
                    cursor: records::unsigned(row.get(1)?),
                    sent: records::unsigned(row.get(2)?),
                },
                last_seq: records::unsigned(row.get(3)?),
                replay: row.get(4)?,
                last_status: records::unsigned(row.get(5)?),
            })
        })
    }

    fn replays(&self, session: SessionKey, limit: u32) -> std::result::Result<Vec<DeadLetter>, StoreError> {
        let sql = format!("{LETTERS} WHERE session = ?1 AND replay = 1 ORDER BY seq LIMIT ?2");
        self.many(&sql, params![session.0, limit], dead_letter)
    }

    fn dead_letters(
        &self,
        session: Option<SessionKey>,
        after: i64,
        limit: u32,
    ) -> std::result::Result<Vec<DeadLetter>, StoreError> {
        let sql = format!(
            "{LETTERS} WHERE dead_letters.key > ?2 AND (?1 IS NULL OR session = ?1)
             ORDER BY dead_letters.key LIMIT ?3"
        );
        self.many(&sql, params![session.map(|session| session.0), after, limit], dead_letter)
    }

    fn dead_letter_count(&self, session: Option<SessionKey>) -> std::result::Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM dead_letters WHERE ?1 IS NULL OR session = ?1";
        let count = self.one(sql, params![session.map(|session| session.0)], |row| row.get(0))?;
        Ok(count.map_or(0, records::unsigned))
    }
}

const LETTERS: &str =
    "SELECT dead_letters.key, id, seq, event_id, kind, payload, dead_letters.created_ms, failed_ms,
         dead_letters.status, reason, attempts, replay
     FROM dead_letters JOIN sessions ON sessions.key = dead_letters.session";

fn dead_letter(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        key: row.get(0)?,
        session_id: row.get(1)?,
        event: StoredEvent {
            seq: records::unsigned(row.get(2)?),
            event_id: row.get(3)?,
            kind: row.get(4)?,
            payload: row.get(5)?,
            created_ms: records::unsigned(row.get(6)?),
        },
        failed_ms: records::unsigned(row.get(7)?),
        status: row.get(8)?,
        reason: row.get(9)?,
        attempts: row.get(10)?,
        replay: row.get(11)?,
    })
}
