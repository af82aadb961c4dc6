//! What a session shows to the outside: its status with everything around it, and the number of its last event.
//! Written by the session's thread, read by anybody, with a way to wait for changes.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::SessionStatus;
use crate::storage::local::SessionRow;

/// A QR that waits to be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qr {
    /// The text to draw.
    pub text: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// A session at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Public id.
    pub id: String,
    /// Owner.
    pub user_id: String,
    /// Display name given by the owner.
    pub name: Option<String>,
    /// What it is doing.
    pub status: SessionStatus,
    /// `+` and digits; known once paired.
    pub phone_number: Option<String>,
    /// LID user; known once paired.
    pub lid: Option<String>,
    /// WhatsApp display name.
    pub push_name: Option<String>,
    /// The QR to show, while one waits.
    pub qr: Option<Qr>,
    /// `WebAuthn` request options, while a passkey step waits.
    pub passkey_options: Option<String>,
    /// Why, when the status needs words.
    pub error: Option<String>,
    /// The offline queue of this connection is drained.
    pub ready: bool,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds of the last change of status.
    pub updated_ms: u64,
    /// Unix milliseconds of the last login or message, in or out.
    pub last_activity_ms: Option<u64>,
    /// Unix milliseconds of the current login.
    pub connected_since_ms: Option<u64>,
    /// It was connected and is not: since when (Unix milliseconds), and why.
    pub away: Option<(u64, String)>,
}

/// A change of status.
#[derive(Debug)]
pub(super) struct Change {
    /// The session afterwards.
    pub(super) shown: SessionSnapshot,
    /// It is back: since when it was away (Unix milliseconds), and why.
    pub(super) gap: Option<(u64, String)>,
}

/// A number of prekeys that no server has.
const UNKNOWN: u32 = u32::MAX;

/// The board of one session.
pub(super) struct Board {
    snapshot: Mutex<SessionSnapshot>,
    changed: Condvar,
    /// Unix milliseconds; 0 = never. Apart from the snapshot, because every message moves it.
    last_activity_ms: AtomicU64,
    /// Messages that are accepted and not answered.
    pending: AtomicU32,
    /// Prekeys the server has left; [`UNKNOWN`] before it said so.
    prekeys: AtomicU32,
    log: Mutex<Log>,
    logged: Condvar,
}

#[derive(Default)]
struct Log {
    last_seq: u64,
    waiting: u32,
}

impl Board {
    pub(super) fn new(row: &SessionRow) -> Self {
        let snapshot = SessionSnapshot {
            id: row.id.clone(),
            user_id: row.user_id.clone(),
            name: row.name.clone(),
            status: SessionStatus::at_rest(&row.status),
            phone_number: row.phone.as_ref().map(|phone| format!("+{phone}")),
            lid: row.lid.clone(),
            push_name: row.push_name.clone(),
            qr: None,
            passkey_options: None,
            error: row.error.clone(),
            ready: false,
            created_ms: row.created_ms,
            updated_ms: row.updated_ms,
            last_activity_ms: None,
            connected_since_ms: None,
            away: row.away.clone().or_else(|| cut_short(row)),
        };
        Self {
            snapshot: Mutex::new(snapshot),
            changed: Condvar::new(),
            last_activity_ms: AtomicU64::new(row.last_activity_ms.unwrap_or(0)),
            pending: AtomicU32::new(0),
            prekeys: AtomicU32::new(UNKNOWN),
            log: Mutex::default(),
            logged: Condvar::new(),
        }
    }

    pub(super) fn snapshot(&self) -> SessionSnapshot {
        self.with_activity(self.lock().clone())
    }

    pub(super) fn status(&self) -> SessionStatus {
        self.lock().status
    }

    /// The only place where a status changes. What belonged to the old status goes, `edit` adds what belongs to the
    /// new one. `None` when nothing is different afterwards, or when the move is not in the table.
    pub(super) fn become_status(
        &self,
        status: SessionStatus,
        now_ms: u64,
        edit: impl FnOnce(&mut SessionSnapshot),
    ) -> Option<Change> {
        let mut shown = self.lock();
        if !shown.status.may_become(status) {
            let (from, to) = (shown.status.as_str(), status.as_str());
            log::error!("session {}: {from} cannot become {to}; this is a bug", shown.id);
            return None;
        }
        let before = shown.clone();
        shown.status = status;
        shown.qr = None;
        shown.passkey_options = None;
        shown.error = None;
        if status != SessionStatus::Connected {
            shown.ready = false;
            shown.connected_since_ms = None;
        }
        if status == SessionStatus::LoggedOut {
            shown.phone_number = None;
            shown.lid = None;
            shown.push_name = None;
        }
        edit(&mut shown);
        if *shown == before {
            return None;
        }
        let gap = match (before.status, status) {
            (_, SessionStatus::Connected) => shown.away.take(),
            // Whoever links next is somebody else.
            (_, SessionStatus::LoggedOut) => {
                shown.away = None;
                None
            }
            (SessionStatus::Connected, _) => {
                let reason = shown.error.clone().unwrap_or_else(|| why_away(status).to_owned());
                shown.away = Some((now_ms, reason));
                None
            }
            _ => None,
        };
        shown.updated_ms = now_ms;
        self.changed.notify_all();
        Some(Change { shown: self.with_activity(shown.clone()), gap })
    }

    /// The offline queue of this connection is drained.
    pub(super) fn ready(&self) {
        let mut shown = self.lock();
        shown.ready = shown.status == SessionStatus::Connected;
        self.changed.notify_all();
    }

    /// A message went or came, or the session logged in.
    pub(super) fn active(&self, now_ms: u64) {
        self.last_activity_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How many messages wait for the server, and how many prekeys it has.
    pub(super) fn measured(&self, pending: usize, prekeys: Option<u32>) {
        self.pending.store(u32::try_from(pending).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.prekeys.store(prekeys.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// The same; prekeys only of a session that is connected.
    pub(super) fn measures(&self) -> (u32, Option<u32>) {
        let prekeys = Some(self.prekeys.load(Ordering::Relaxed));
        let is_connected = self.status() == SessionStatus::Connected;
        (self.pending.load(Ordering::Relaxed), prekeys.filter(|left| is_connected && *left != UNKNOWN))
    }

    /// Waits until `done` holds or the time is over.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        done: impl Fn(&SessionSnapshot) -> bool,
    ) -> SessionSnapshot {
        let (snapshot, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |snapshot| !done(snapshot))
            .unwrap_or_else(PoisonError::into_inner);
        self.with_activity(snapshot.clone())
    }

    /// The store has this event.
    pub(super) fn logged(&self, seq: Option<u64>) {
        let Some(seq) = seq else { return };
        let mut log = self.lock_log();
        log.last_seq = log.last_seq.max(seq);
        if log.waiting > 0 {
            self.logged.notify_all();
        }
    }

    /// Waits until an event above `after` is stored.
    pub(super) fn wait_event(&self, after: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut log = self.lock_log();
        log.waiting += 1;
        while log.last_seq <= after {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            log = self.logged.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        log.waiting -= 1;
        log.last_seq > after
    }

    fn with_activity(&self, mut snapshot: SessionSnapshot) -> SessionSnapshot {
        let at = self.last_activity_ms.load(Ordering::Relaxed);
        snapshot.last_activity_ms = (at > 0).then_some(at);
        snapshot
    }

    fn lock(&self) -> MutexGuard<'_, SessionSnapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that was connected when its worker ended without a word: away since it was last known to be there.
fn cut_short(row: &SessionRow) -> Option<(u64, String)> {
    let was_connected = row.status == SessionStatus::Connected.as_str();
    let last_seen_ms = row.updated_ms.max(row.last_activity_ms.unwrap_or(0));
    was_connected.then(|| (last_seen_ms, "the worker was restarted".to_owned()))
}

/// Where nobody said more.
fn why_away(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Disconnected => "it was disconnected",
        _ => "the connection was renewed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::local::SessionKey;

    fn row(status: &str, away: Option<(u64, String)>) -> SessionRow {
        SessionRow {
            key: SessionKey(1),
            id: "a".into(),
            user_id: "u".into(),
            name: None,
            status: status.into(),
            phone: None,
            lid: None,
            push_name: None,
            wanted: true,
            error: None,
            created_ms: 1,
            updated_ms: 100,
            last_activity_ms: Some(250),
            away,
        }
    }

    fn gap(board: &Board, status: SessionStatus, now_ms: u64, error: Option<&str>) -> Option<(u64, String)> {
        let error = error.map(str::to_owned);
        board.become_status(status, now_ms, |shown| shown.error = error).and_then(|change| change.gap)
    }

    #[test]
    fn a_session_that_comes_back_knows_since_when_it_was_away_and_why() {
        use SessionStatus::{Connected, Connecting, Reconnecting};
        let board = Board::new(&row("disconnected", None));
        assert_eq!(gap(&board, Connecting, 1, None), None);
        assert_eq!(gap(&board, Connected, 2, None), None, "it was never there before");
        assert_eq!(gap(&board, Reconnecting, 10, Some("broken pipe")), None);
        assert_eq!(gap(&board, Reconnecting, 20, Some("still broken")), None);
        assert_eq!(gap(&board, Connected, 30, None), Some((10, "broken pipe".into())));
        assert_eq!(board.snapshot().away, None);
    }

    #[test]
    fn an_absence_lasts_over_restarts_and_crashes_of_the_worker_and_ends_with_the_link() {
        use SessionStatus::{Connected, Connecting, LoggedOut};
        let crashed = Board::new(&row("connected", None));
        gap(&crashed, Connecting, 300, None);
        assert_eq!(gap(&crashed, Connected, 400, None), Some((250, "the worker was restarted".into())));
        let stopped = Board::new(&row("connecting", Some((70, "the worker was stopped".into()))));
        gap(&stopped, Connecting, 300, None);
        assert_eq!(gap(&stopped, Connected, 400, None), Some((70, "the worker was stopped".into())));
        let unlinked = Board::new(&row("connected", None));
        gap(&unlinked, LoggedOut, 300, None);
        gap(&unlinked, Connecting, 400, None);
        assert_eq!(gap(&unlinked, Connected, 500, None), None, "whoever links next is somebody else");
    }
}
