//! Work of the store thread that is not an engine's batch: session rows, idempotency keys, deletions, clean-up.

use rand_core::{OsRng, RngCore};
use rusqlite::params;

use super::{
    Claim, IdempotencyRecord, SessionPatch,
    apply::{Applier, Outcome, Result},
    job::Op,
    marks,
    parts::PartKey,
    records,
};

/// Events older than seven days are dropped.
pub(super) const EVENTS_KEPT_MS: i64 = 7 * 24 * 3_600_000;
/// Those still to be delivered, and refused ones, are dropped after thirty days.
pub(super) const UNDELIVERED_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// An idempotency key is remembered for a day.
pub(super) const IDEMPOTENCY_KEPT_MS: i64 = 24 * 3_600_000;
/// Rows removed in one transaction, so that nobody waits long behind a deletion or a clean-up.
pub(super) const ROWS_AT_ONCE: i64 = 2_000;

impl Applier<'_> {
    /// Anything that is not an engine's batch.
    pub(super) fn op(&mut self, op: &Op) -> Result<Outcome> {
        match op {
            Op::Create { id, user_id, name } => self.create(id, user_id, name.as_deref()),
            Op::Claim { session, key, request_hash, message_id } => {
                self.claim(session.0, key, request_hash, message_id)
            }
            Op::Answer { session, key, answer } => {
                self.run(
                    "UPDATE idempotency SET status = ?3, body = ?4 WHERE session = ?1 AND key = ?2",
                    params![session.0, key, answer.status, answer.body],
                )?;
                Ok(Outcome::Done)
            }
            Op::Release { session, key } => {
                self.run("DELETE FROM idempotency WHERE session = ?1 AND key = ?2", params![session.0, key])?;
                Ok(Outcome::Done)
            }
            Op::Update { session, patch, event } => {
                self.report(*session, Some(patch), event.as_ref()).map(Outcome::Seq)
            }
            Op::Forget { session } => {
                self.mark_state(session.0)?;
                self.run("DELETE FROM state WHERE session = ?1", params![session.0])?;
                Ok(Outcome::Done)
            }
            Op::MarkDeleted { session, objects } => self.mark_deleted(session.0, *objects),
            Op::DeleteSome { session } => self.delete_some(session.0),
            Op::BeginUpload { session } => self.begin_upload(*session),
            Op::Uploaded { session, marks, begun_ms } => self.uploaded(*session, marks, *begun_ms),
            Op::Lease { session, lease } => self.lease(session.0, *lease),
            Op::Removed { id } => {
                self.run("DELETE FROM removals WHERE id = ?1", params![id])?;
                Ok(Outcome::Done)
            }
            Op::Adopt { session, state, mark } => self.adopt(session.0, state, *mark),
            Op::Unfile { session } => self.unfile(session.0),
            Op::FilePart { session, part, messages } => {
                self.file_part(PartKey { session: session.0, day: part.day, part: part.part }, messages)
            }
            Op::Refile { session } => self.refile(session.0),
            Op::Reserve { session, parts } => self.reserve(session.0, parts),
            Op::Meta { key, value } => self.meta(key, value),
            Op::Moved { home } => self.moved(home),
            Op::Expire { session, before_s } => self.expire(session.0, *before_s),
            Op::Tidy => self.tidy(),
            Op::Outbox(op) => self.outbox(op),
            Op::Commit => Ok(Outcome::Done),
            Op::Probe => {
                self.run(
                    "INSERT INTO meta (key, value) VALUES ('probe', ?1)
                     ON CONFLICT DO UPDATE SET value = excluded.value",
                    params![self.now_ms.to_string()],
                )?;
                Ok(Outcome::Done)
            }
        }
    }

    fn create(&mut self, id: &str, user_id: &str, name: Option<&str>) -> Result<Outcome> {
        let mut uid = [0u8; 8];
        OsRng.fill_bytes(&mut uid);
        let uid = uid.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let added = self.run(
            "INSERT INTO sessions (id, uid, user_id, name, status, wanted, created_ms, updated_ms)
             SELECT ?1, ?2, ?3, ?4, 'disconnected', 0, ?5, ?5 WHERE ?1 NOT IN (SELECT id FROM removals)
             ON CONFLICT (id) DO NOTHING",
            params![id, uid, user_id, name, self.now_ms],
        )?;
        let sql = format!("SELECT {} FROM sessions WHERE key = ?1", records::SESSION_COLUMNS);
        let key = self.conn.last_insert_rowid();
        let row = match added {
            0 => None,
            _ => {
                self.add_to_outbox(key)?;
                Some(self.conn.query_row(&sql, [key], records::session_row)?)
            }
        };
        if let Some(row) = &row {
            self.mark(row.key.0, marks::SESSION, "")?;
        }
        Ok(Outcome::Session(row))
    }

    pub(super) fn update(&mut self, session: i64, patch: &SessionPatch) -> Result<()> {
        // Asked for only to wait for what is in front of it.
        if *patch == SessionPatch::default() {
            return Ok(());
        }
        // Of no interest to whoever has the session next.
        let is_local = *patch == SessionPatch { away: patch.away.clone(), ..SessionPatch::default() };
        if !is_local {
            self.mark(session, marks::SESSION, "")?;
        }
        let text = |value: &Option<Option<String>>| value.clone().flatten();
        let away = patch.away.as_ref().and_then(Option::as_ref);
        self.run(
            "UPDATE sessions SET updated_ms = ?2, status = coalesce(?3, status),
                 phone = iif(?4, ?5, phone), lid = iif(?6, ?7, lid), push_name = iif(?8, ?9, push_name),
                 wanted = coalesce(?10, wanted), error = iif(?11, ?12, error),
                 last_activity_ms = iif(?13 IS NULL, last_activity_ms, max(coalesce(last_activity_ms, 0), ?13)),
                 away_ms = iif(?14, ?15, away_ms), away_reason = iif(?14, ?16, away_reason)
             WHERE key = ?1",
            params![
                session,
                self.now_ms,
                patch.status,
                patch.phone.is_some(),
                text(&patch.phone),
                patch.lid.is_some(),
                text(&patch.lid),
                patch.push_name.is_some(),
                text(&patch.push_name),
                patch.wanted,
                patch.error.is_some(),
                text(&patch.error),
                patch.last_activity_ms.map(records::int),
                patch.away.is_some(),
                away.map(|(since_ms, _)| records::int(*since_ms)),
                away.map(|(_, reason)| reason)
            ],
        )?;
        Ok(())
    }

    fn claim(
        &mut self,
        session: i64,
        key: &str,
        request_hash: &[u8; 32],
        message_id: &str,
    ) -> Result<Outcome> {
        self.session(session)?;
        let params = params![session, key, request_hash, message_id, self.now_ms];
        let expired = self.now_ms - IDEMPOTENCY_KEPT_MS;
        self.run(
            "DELETE FROM idempotency WHERE session = ?1 AND key = ?2 AND created_ms < ?3",
            params![session, key, expired],
        )?;
        let added = self.run(
            "INSERT INTO idempotency (session, key, request_hash, message_id, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            params,
        )?;
        if added > 0 {
            return Ok(Outcome::Claim(Claim::New));
        }
        let record: IdempotencyRecord = self
            .conn
            .prepare_cached(records::IDEMPOTENCY_QUERY)?
            .query_row(params![session, key], records::idempotency_record)?;
        Ok(Outcome::Claim(Claim::Existing(record)))
    }

    /// Frees the public id at once; the rows follow piece by piece, and at the next start if we die here.
    fn mark_deleted(&mut self, session: i64, objects: bool) -> Result<Outcome> {
        if objects {
            self.run(
                "INSERT INTO removals SELECT id, ?2 FROM sessions WHERE key = ?1 AND deleting = 0
                 ON CONFLICT DO NOTHING",
                params![session, self.now_ms],
            )?;
        }
        self.run(
            "UPDATE sessions SET deleting = 1, wanted = 0, id = '#deleted-' || key
             WHERE key = ?1 AND deleting = 0",
            params![session],
        )?;
        self.forget(session);
        Ok(Outcome::Done)
    }

    fn delete_some(&mut self, session: i64) -> Result<Outcome> {
        const PIECES: [&str; 10] = [
            "DELETE FROM dirty WHERE session = ?1 AND (kind, key) IN
                 (SELECT kind, key FROM dirty WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM day_parts WHERE session = ?1 AND (day, part) IN
                 (SELECT day, part FROM day_parts WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM state WHERE session = ?1 AND (tbl, key) IN
                 (SELECT tbl, key FROM state WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM events WHERE session = ?1 AND seq IN
                 (SELECT seq FROM events WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM receipts WHERE session = ?1 AND sort IN
                 (SELECT sort FROM receipts WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM messages WHERE session = ?1 AND sort IN
                 (SELECT sort FROM messages WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM idempotency WHERE session = ?1 AND key IN
                 (SELECT key FROM idempotency WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM chats WHERE session = ?1 AND key IN
                 (SELECT key FROM chats WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM dead_letters WHERE session = ?1 AND key IN
                 (SELECT key FROM dead_letters WHERE session = ?1 LIMIT ?2)",
            "DELETE FROM outbox WHERE session = ?1 AND ?2 > 0",
        ];
        for piece in PIECES {
            if self.run(piece, params![session, ROWS_AT_ONCE])? > 0 {
                return Ok(Outcome::More(true));
            }
        }
        self.run("DELETE FROM leases WHERE session = ?1", params![session])?;
        self.run("DELETE FROM sessions WHERE key = ?1 AND deleting = 1", params![session])?;
        Ok(Outcome::More(false))
    }

    /// Drops expired idempotency keys and events past their age, a bounded number at a time.
    fn tidy(&mut self) -> Result<Outcome> {
        let keys = self.run(
            "DELETE FROM idempotency WHERE (session, key) IN
                 (SELECT session, key FROM idempotency WHERE created_ms < ?1 LIMIT ?2)",
            params![self.now_ms - IDEMPOTENCY_KEPT_MS, ROWS_AT_ONCE],
        )?;
        self.run(
            "DELETE FROM dead_letters WHERE failed_ms < ?1",
            params![self.now_ms - UNDELIVERED_KEPT_MS],
        )?;
        let sessions = self
            .conn
            .prepare_cached("SELECT key FROM sessions")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        let mut events = 0;
        for session in sessions {
            events += self.tidy_events(session)?;
        }
        let full = usize::try_from(ROWS_AT_ONCE).unwrap_or(usize::MAX);
        Ok(Outcome::More(keys >= full || events >= full))
    }

    /// Events of a session get older with smaller numbers, so the walk ends at the first young one. The last one
    /// stays whatever its age; those still to be delivered stay longer.
    fn tidy_events(&self, session: i64) -> rusqlite::Result<usize> {
        let delivered = self.run(
            "DELETE FROM events WHERE session = ?1 AND seq IN
                 (SELECT seq FROM events WHERE session = ?1 AND seq < coalesce(
                      (SELECT seq FROM events WHERE session = ?1 AND created_ms >= ?2 ORDER BY seq LIMIT 1),
                      (SELECT max(seq) FROM events WHERE session = ?1))
                  AND seq <= coalesce((SELECT cursor FROM outbox WHERE session = ?1), seq) LIMIT ?3)",
            params![session, self.now_ms - EVENTS_KEPT_MS, ROWS_AT_ONCE],
        )?;
        let given_up = self.run(
            "DELETE FROM events WHERE session = ?1 AND seq IN
                 (SELECT seq FROM events WHERE session = ?1 AND seq < coalesce(
                      (SELECT seq FROM events WHERE session = ?1 AND created_ms >= ?2 ORDER BY seq LIMIT 1),
                      (SELECT max(seq) FROM events WHERE session = ?1)) LIMIT ?3)",
            params![session, self.now_ms - UNDELIVERED_KEPT_MS, ROWS_AT_ONCE],
        )?;
        Ok(delivered + given_up)
    }
}
