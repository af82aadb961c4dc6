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
    ) -> Option<SessionSnapshot> {
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
        shown.updated_ms = now_ms;
        self.changed.notify_all();
        Some(self.with_activity(shown.clone()))
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
