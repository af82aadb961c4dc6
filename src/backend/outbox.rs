//! Delivery of events: a few threads that take turns from the schedule, read the event log, send, and note how far
//! they have come. Sessions and the store thread never wait for them; they only say what is new.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    choose::{Choice, Pick, SESSION_STATUS, View, choose},
    client::{Client, Request},
    dialect,
    schedule::{Backlog, Outcome, Report, Schedule, Step, Turn},
    signature,
    verdict::{Verdict, judge},
};
use crate::{
    config::{Dialect, Secret},
    metrics::Counter,
    storage::{
        events::KINDS,
        local::{
            Burial, DeadLetter, EventWatch, LocalStore, Logged, OutboxCursor, SessionKey, StoreError,
            StoredEvent,
        },
    },
};

/// Events read at a time.
const PAGE: u32 = 16;
/// When a whole page had nothing to send, more of it is read at a time.
const LONG_PAGE: u32 = 512;
/// Readers of the log wait this long at most for the store, so that a lone message is delivered at once and a flood
/// of them does not cost a commit each.
const COMMIT_SPACING: Duration = Duration::from_millis(20);

/// What happened to events, counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) delivered: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
    pub(super) slowed_down: Counter,
    pub(super) superseded: Counter,
    pub(super) unknown_session: Counter,
    pub(super) unknown_kind: Counter,
    /// Dropped from the log before the backend took them.
    pub(super) given_up: Counter,
}

/// What the senders need besides the schedule.
pub(super) struct OutboxSettings {
    pub(super) dialect: Dialect,
    pub(super) signing: Vec<Secret>,
    pub(super) client: Client,
}

/// Told by a sender.
pub(super) trait Listener: Send + Sync {
    /// The backend does not know this session.
    fn unknown_session(&self, session_id: &str);

    /// Whether this worker holds the session, and so speaks for it.
    fn is_ours(&self, session: SessionKey) -> bool;

    /// The time has come at which a session is to be told of again.
    fn tell_again(&self, session: SessionKey);
}

/// See the module.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// There may be work.
    changed: Condvar,
    /// A turn is over.
    settled: Condvar,
    pub(super) store: LocalStore,
    settings: OutboxSettings,
    /// The name the backend knows this worker by.
    worker_id: RwLock<String>,
    pub(super) counts: Counts,
    begun: Instant,
}

struct State {
    schedule: Schedule,
    is_stopping: bool,
    /// The log was asked to become readable at this moment.
    asked_at: Duration,
    /// Sessions to be told of again, and when.
    again: Vec<(Duration, SessionKey)>,
    /// The trouble that was logged last.
    trouble: Option<String>,
}

/// What a thread does next.
enum Work {
    Step(Step),
    Again(SessionKey),
}

impl Outbox {
    /// Takes up delivery where it stood.
    pub(super) fn open(
        store: &LocalStore,
        schedule: Schedule,
        settings: OutboxSettings,
        worker_id: String,
    ) -> Result<Arc<Self>, StoreError> {
        let state = State {
            schedule,
            is_stopping: false,
            asked_at: Duration::ZERO,
            again: Vec::new(),
            trouble: None,
        };
        let outbox = Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            settled: Condvar::new(),
            store: store.clone(),
            settings,
            worker_id: RwLock::new(worker_id),
            counts: Counts::default(),
            begun: Instant::now(),
        });
        // First the watch: what is logged from now on is heard of, or is in the rows.
        store.watch_events(Arc::new(Watch(Arc::downgrade(&outbox))));
        for row in store.open_outbox()? {
            outbox.lock().schedule.load(&row);
        }
        Ok(outbox)
    }

    /// The loop of one sender, until [`Outbox::stop`].
    pub(super) fn work(&self, listener: &dyn Listener) {
        while let Some(work) = self.next() {
            match work {
                Work::Step(Step::Turn(turn)) => {
                    let report = catch_unwind(AssertUnwindSafe(|| self.turn(&turn, listener)));
                    let report = report.unwrap_or_else(|_| {
                        log::error!("a delivery panicked; this is a bug, please report it");
                        Report { outcome: Outcome::StoreFailed, ..nothing(turn.cursor) }
                    });
                    self.end(turn.session, &report);
                }
                Work::Step(Step::Store(cursors)) => self.note(cursors),
                Work::Step(Step::Wait(_)) => {}
                Work::Again(session) => listener.tell_again(session),
            }
        }
    }

    /// The backend knows this worker, by this name.
    pub(super) fn registered(&self, worker_id: &str) {
        worker_id.clone_into(&mut self.worker_id.write().unwrap_or_else(PoisonError::into_inner));
        let now = self.now();
        self.lock().schedule.registered(now);
        self.changed.notify_all();
    }

    /// The backend does not know this worker any more.
    pub(super) fn unregistered(&self) {
        self.lock().schedule.unregistered();
    }

    /// The backend answers again.
    pub(super) fn hopeful(&self) {
        let now = self.now();
        self.lock().schedule.hopeful(now);
        self.changed.notify_all();
    }

    /// A request that is no webhook went out.
    pub(super) fn count_request(&self) {
        let now = self.now();
        self.lock().schedule.count_request(now);
    }

    /// Refused events of these sessions are sent again.
    pub(super) fn replay(&self, sessions: &[SessionKey]) {
        self.lock().schedule.replay(sessions);
        self.changed.notify_all();
    }

    /// The session is told of again after this time, even if the backend did not know it.
    pub(super) fn tell_again_after(&self, session: SessionKey, wait: Duration) {
        let at = self.now() + wait;
        let mut state = self.lock();
        state.schedule.unmute(session);
        state.again.retain(|(_, known)| *known != session);
        state.again.push((at, session));
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn backlog(&self) -> Backlog {
        self.lock().schedule.backlog()
    }

    /// Waits until everything that can be delivered is, at most this long.
    pub(super) fn flush(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        while !state.schedule.is_flushed(self.now()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the senders after the events they have in hand; what they have delivered is noted.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        let moved = state.schedule.take_moved();
        drop(state);
        self.changed.notify_all();
        self.note(moved);
    }

    /// Waits for work; `None` when there is none any more.
    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.is_stopping {
                return None;
            }
            let now = self.now();
            if let Some(at) = state.again.iter().position(|(due, _)| *due <= now) {
                return Some(Work::Again(state.again.swap_remove(at).1));
            }
            let until = match state.schedule.next(now) {
                Step::Wait(until) => until,
                step => {
                    // While this one is busy, another one looks after what comes next.
                    self.changed.notify_one();
                    return Some(Work::Step(step));
                }
            };
            let until = until.into_iter().chain(state.again.iter().map(|(due, _)| *due)).min();
            let wait = until.map_or(LONGEST_WAIT, |at| at.saturating_sub(now)).min(LONGEST_WAIT);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self, session: SessionKey, report: &Report) {
        let now = self.now();
        let mut state = self.lock();
        if let Outcome::UnknownKind { kind, .. } = report.outcome
            && state.schedule.wants(kind)
        {
            log::info!(
                "the backend has no route for {kind} events: none are sent until the next registration"
            );
        }
        state.schedule.end(now, session, report);
        if matches!(report.outcome, Outcome::Settled { .. })
            && let Some(trouble) = state.trouble.take()
        {
            log::info!("the backend takes webhooks again (it was: {trouble})");
        }
        let is_stopping = state.is_stopping;
        let moved = if is_stopping { state.schedule.take_moved() } else { Vec::new() };
        drop(state);
        self.note(moved);
        self.settled.notify_all();
    }

    /// One event of a session, from the log to the backend.
    fn turn(&self, turn: &Turn, listener: &dyn Listener) -> Report {
        let mut cursor = turn.cursor;
        let (mut superseded, mut unmuted) = (0, false);
        let mut limit = PAGE;
        let view = View { is_ours: listener.is_ours(turn.session), ..turn.view.clone() };
        loop {
            let page = match self.store.outbox_page(turn.session, cursor, limit) {
                Ok(Some(page)) => page,
                Ok(None) => return Report { outcome: Outcome::Gone, ..nothing(cursor) },
                Err(error) => {
                    log::warn!("the event log cannot be read: {error}");
                    return Report { outcome: Outcome::StoreFailed, ..nothing(turn.cursor) };
                }
            };
            self.note_lost(&page.session_id, cursor, &page.events);
            let Choice { skipped_to, superseded: left_out, unmuted: started, pick } =
                choose(&page, cursor, &view);
            superseded += left_out;
            unmuted |= started;
            cursor = skipped_to;
            let is_more = page.events.len() >= limit as usize;
            let Some(pick) = pick else {
                if is_more {
                    limit = LONG_PAGE;
                    continue;
                }
                self.counts.superseded.add(superseded);
                return Report { unmuted, ..nothing(cursor) };
            };
            self.counts.superseded.add(superseded);
            let worker_id = self.worker_id.read().unwrap_or_else(PoisonError::into_inner).clone();
            let event = pick.event();
            let request = dialect::webhook(self.settings.dialect, &worker_id, &page.session_id, event);
            let Some(request) = request else {
                // Nothing in this dialect says it.
                return self.pass_over(turn, cursor, unmuted, &pick);
            };
            let outcome = self.deliver(turn, &page.session_id, &pick, request, listener);
            let is_over =
                !matches!(outcome, Outcome::Failed { .. } | Outcome::TooFast { .. } | Outcome::StoreFailed);
            let cursor = match &pick {
                Pick::Event(event) if is_over => event.seq,
                _ => cursor,
            };
            let replays = !page.replays.is_empty();
            return Report { cursor, replays, unmuted, logged_ms: Some(event.created_ms), outcome };
        }
    }

    /// The log has bounds; whoever is away for longer is told what is missing.
    fn note_lost(&self, session_id: &str, cursor: u64, events: &[StoredEvent]) {
        let Some(first) = events.first().filter(|first| first.seq > cursor + 1) else { return };
        let lost = first.seq - cursor - 1;
        self.counts.given_up.add(lost);
        log::error!(
            session = session_id;
            "{lost} events were dropped before the backend took them: it was away for longer than they are kept"
        );
    }

    fn pass_over(&self, turn: &Turn, cursor: u64, unmuted: bool, pick: &Pick<'_>) -> Report {
        let cursor = match pick {
            Pick::Event(event) => event.seq,
            Pick::Replay(letter) => {
                if let Err(error) = self.store.settle_replay(letter.key, None) {
                    log::warn!("an event that cannot be sent stays among the refused ones: {error}");
                    return Report { outcome: Outcome::StoreFailed, ..nothing(turn.cursor) };
                }
                cursor
            }
        };
        Report { unmuted, replays: matches!(pick, Pick::Replay(_)), ..nothing(cursor) }
    }

    fn deliver(
        &self,
        turn: &Turn,
        session_id: &str,
        pick: &Pick<'_>,
        mut request: Request,
        listener: &dyn Listener,
    ) -> Outcome {
        let event = pick.event();
        let seq = event.seq;
        let before = if turn.tried.0 == seq { turn.tried.1 } else { 0 };
        let attempt = match pick {
            Pick::Event(_) => before + 1,
            Pick::Replay(letter) => letter.attempts + before + 1,
        };
        request.headers.push(("X-Webhook-Event-Id", event.event_id.clone()));
        request.headers.push(("X-Webhook-Seq", seq.to_string()));
        request.headers.push(("X-Webhook-Attempt", attempt.to_string()));
        let body = request.body.as_deref().unwrap_or_default().as_bytes();
        let signature = signature::header(&self.settings.signing, unix_ms() / 1000, body);
        request.headers.extend(signature.map(|signature| (signature::HEADER, signature)));
        let answer = self.settings.client.send(&request);
        match judge(self.settings.dialect, &event.kind, &answer) {
            Verdict::Delivered => {
                self.counts.delivered.increment();
                self.settle(pick, seq, None)
            }
            Verdict::Refused { status, reason } => {
                self.counts.refused.increment();
                let kind = &event.kind;
                // Its words may repeat what a person wrote.
                log::warn!(session = session_id; "the backend refused a {kind} event for good ({status}); GET /webhooks/failed has its words");
                log::debug!(session = session_id; "refused: {reason}");
                match pick {
                    Pick::Replay(_) => self.settle(pick, seq, Some((status, reason))),
                    Pick::Event(event) => {
                        let at = OutboxCursor { session: turn.session, cursor: seq, sent: seq };
                        let letter = Burial { event: (*event).clone(), status, reason, attempts: attempt };
                        self.stored(self.store.bury(at, letter), seq)
                    }
                }
            }
            Verdict::UnknownSession => {
                self.counts.unknown_session.increment();
                log::info!(session = session_id; "the backend does not know this session: nothing more about it until it is started again");
                listener.unknown_session(session_id);
                match self.settle(pick, seq, None) {
                    Outcome::Settled { seq } => Outcome::UnknownSession { seq },
                    other => other,
                }
            }
            Verdict::UnknownKind => {
                self.counts.unknown_kind.increment();
                let kind = KINDS.into_iter().find(|kind| *kind == event.kind);
                match (kind, self.settle(pick, seq, None)) {
                    (Some(kind), Outcome::Settled { seq }) => Outcome::UnknownKind { kind, seq },
                    (_, outcome) => outcome,
                }
            }
            Verdict::TooFast { retry_after } => {
                self.counts.slowed_down.increment();
                Outcome::TooFast { seq, retry_after }
            }
            Verdict::Outage { retry_after, problem } => {
                self.counts.failed.increment();
                log::debug!(session = session_id; "a webhook failed, attempt {attempt}: {problem}");
                self.in_trouble(problem);
                Outcome::Failed { seq, retry_after }
            }
        }
    }

    /// Says once what keeps webhooks from going out.
    fn in_trouble(&self, problem: String) {
        let mut state = self.lock();
        if state.trouble.is_none() {
            log::warn!("the backend does not take webhooks, they wait: {problem}");
            state.trouble = Some(problem);
        }
    }

    /// An event is over; one that was refused before leaves the dead letters, or stays there.
    fn settle(&self, pick: &Pick<'_>, seq: u64, refusal: Option<(u16, String)>) -> Outcome {
        match pick {
            Pick::Event(_) => Outcome::Settled { seq },
            Pick::Replay(DeadLetter { key, .. }) => self.stored(self.store.settle_replay(*key, refusal), seq),
        }
    }

    fn stored(&self, result: Result<(), StoreError>, seq: u64) -> Outcome {
        match result {
            Ok(()) => Outcome::Settled { seq },
            Err(error) => {
                log::warn!("what became of an event cannot be stored; it is sent again: {error}");
                Outcome::StoreFailed
            }
        }
    }

    /// Stores how far delivery has come.
    fn note(&self, cursors: Vec<OutboxCursor>) {
        if !cursors.is_empty()
            && let Err(error) = self.store.advance_outbox(cursors)
        {
            log::debug!("how far delivery has come is not stored: {error}");
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's way to the outbox; it must not keep the store alive.
struct Watch(Weak<Outbox>);

impl EventWatch for Watch {
    fn logged(&self, events: &[Logged]) -> bool {
        self.0.upgrade().is_some_and(|outbox| outbox.logged(events))
    }

    fn readable(&self) {
        if let Some(outbox) = self.0.upgrade()
            && outbox.lock().schedule.readable()
        {
            outbox.changed.notify_one();
        }
    }

    fn deleted(&self, session: SessionKey) {
        if let Some(outbox) = self.0.upgrade() {
            outbox.lock().schedule.deleted(session);
        }
    }
}

impl Outbox {
    fn logged(&self, events: &[Logged]) -> bool {
        let now = self.now();
        let mut state = self.lock();
        state.schedule.logged(events, now, unix_ms());
        let is_wanted = events.iter().any(|event| state.schedule.wants(event.kind));
        // A status is worth a commit of its own: people wait for a QR.
        let is_status = events.iter().any(|event| event.kind == SESSION_STATUS);
        let is_due = is_status || is_wanted && now.saturating_sub(state.asked_at) >= COMMIT_SPACING;
        if is_due {
            state.asked_at = now;
        }
        is_due
    }
}

/// A turn that came to nothing.
fn nothing(cursor: u64) -> Report {
    Report { cursor, replays: false, unmuted: false, logged_ms: None, outcome: Outcome::Nothing }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A sender that waits for nothing looks around this often.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
