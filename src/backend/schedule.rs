//! Whose turn it is: the order of all deliveries, pauses and limits included. Pure: time is handed in, nothing is
//! sent or read here, so that a day of outage is a test of milliseconds.
//!
//! Each session has a lane: how far its events are delivered, and how far they can be read. One event of a session
//! is under way at a time, so its order holds whatever fails. A session whose event fails rests for a growing pause;
//! when the backend fails for everybody, all lanes wait behind one circuit and one event is tried at a time,
//! each time of another session. Nothing goes out before the backend knows this worker.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    budget::Budget,
    choose::{SESSION_STATUS, View},
    circuit::{Circuit, pause},
};
use crate::storage::local::{Logged, OutboxCursor, OutboxRow, SessionKey};

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Deliver the next event of a session, then [`Schedule::end`].
    Turn(Turn),
    /// Store how far the lanes have come.
    Store(Vec<OutboxCursor>),
    /// Nothing before that, unless something is told.
    Wait(Option<Duration>),
}

/// Leave to send one event of a session.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) session: SessionKey,
    /// Everything up to here is settled.
    pub(super) cursor: u64,
    pub(super) view: View,
    /// Number of the event that failed before, and how often.
    pub(super) tried: (u64, u32),
}

/// What came of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// Everything up to here is settled now.
    pub(super) cursor: u64,
    /// Refused events wait to be sent again.
    pub(super) replays: bool,
    /// The session was started again: the backend wants to hear of it.
    pub(super) unmuted: bool,
    /// When the event that was looked at last was logged, Unix milliseconds.
    pub(super) logged_ms: Option<u64>,
    pub(super) outcome: Outcome,
}

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was nothing to send, as far as was looked.
    Nothing,
    /// The backend has the event of this number, or refused it for good.
    Settled { seq: u64 },
    /// The backend does not know the kind; events of it are passed over from now on.
    UnknownKind { kind: &'static str, seq: u64 },
    /// The backend does not know the session.
    UnknownSession { seq: u64 },
    /// The backend could not be asked, or could not do it; again later.
    Failed { seq: u64, retry_after: Option<Duration> },
    /// The backend asks to slow down.
    TooFast { seq: u64, retry_after: Option<Duration> },
    /// Our own store failed; again later.
    StoreFailed,
    /// The session is gone.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Everything is delivered.
    Idle,
    Ready,
    Resting(Duration),
    /// A sender has it.
    Busy,
}

#[derive(Debug)]
struct Lane {
    cursor: u64,
    sent: u64,
    /// The newest event that is durable, and the newest that can be read.
    logged: u64,
    readable: u64,
    last_status: u64,
    replay: bool,
    is_muted: bool,
    place: Place,
    /// Failures in a row.
    failures: u32,
    tried: (u64, u32),
    /// Since when something waits, Unix milliseconds.
    waiting_since_ms: Option<u64>,
}

impl Lane {
    fn has_work(&self) -> bool {
        self.replay || self.cursor < self.readable
    }
}

/// Figures for whoever watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Events behind the cursors.
    pub(super) events: u64,
    /// When the oldest of them was logged, Unix milliseconds.
    pub(super) oldest_ms: Option<u64>,
    pub(super) is_circuit_open: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    lanes: HashMap<SessionKey, Lane>,
    ready: VecDeque<SessionKey>,
    resting: BTreeSet<(Duration, SessionKey)>,
    /// Lanes with events that cannot be read yet.
    unread: Vec<SessionKey>,
    wanted: BTreeSet<&'static str>,
    /// `wanted` without what the backend does not know.
    kinds: Arc<BTreeSet<&'static str>>,
    coalesce: bool,
    budget: Option<Budget>,
    circuit: Circuit,
    /// The backend asked to slow down until then.
    hold: Duration,
    /// The backend knows this worker.
    is_registered: bool,
    /// Lanes whose cursor moved, and when that is stored.
    moved: BTreeSet<SessionKey>,
    store_at: Option<Duration>,
    random: u64,
}

impl Schedule {
    /// `wanted`: kinds to send besides [`SESSION_STATUS`]. `budget`: limits, with which superseded statuses are left
    /// out, too.
    pub(super) fn new(wanted: &BTreeSet<&'static str>, budget: Option<Budget>, seed: u64) -> Self {
        let mut wanted = wanted.clone();
        wanted.insert(SESSION_STATUS);
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            resting: BTreeSet::new(),
            unread: Vec::new(),
            kinds: Arc::new(wanted.clone()),
            wanted,
            coalesce: budget.is_some(),
            budget,
            circuit: Circuit::Closed { failures: 0 },
            hold: Duration::ZERO,
            is_registered: false,
            moved: BTreeSet::new(),
            store_at: None,
            random: seed | 1,
        }
    }

    /// A session's place at the start.
    pub(super) fn load(&mut self, row: &OutboxRow) {
        let OutboxCursor { session, cursor, sent } = row.at;
        let lane = self.lane(session, cursor);
        // It may have been heard of already; the row knows more.
        lane.cursor = cursor;
        lane.sent = sent;
        lane.logged = lane.logged.max(row.last_seq);
        lane.readable = lane.readable.max(row.last_seq);
        lane.last_status = lane.last_status.max(row.last_status);
        lane.replay = row.replay;
        self.make_ready(session);
    }

    /// Events are durable.
    pub(super) fn logged(&mut self, events: &[Logged], now: Duration, unix_ms: u64) {
        for event in events {
            let is_wanted = self.kinds.contains(event.kind);
            let lane = self.lane(event.session, event.seq.saturating_sub(1));
            let is_caught_up = lane.place == Place::Idle && lane.cursor == lane.logged;
            lane.logged = lane.logged.max(event.seq);
            if event.kind == SESSION_STATUS {
                lane.last_status = lane.last_status.max(event.seq);
            }
            if is_caught_up && !is_wanted {
                // Nothing to send, so nothing to read.
                lane.cursor = lane.logged;
                lane.readable = lane.logged;
                self.moved(event.session, now, STORE_IDLE);
                continue;
            }
            lane.waiting_since_ms.get_or_insert(unix_ms);
            self.unread.push(event.session);
        }
    }

    /// Whether an event of this kind goes out.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }

    /// Everything logged so far can be read. Whether there is work now.
    pub(super) fn readable(&mut self) -> bool {
        let unread = std::mem::take(&mut self.unread);
        let has_work = !unread.is_empty();
        for session in unread {
            if let Some(lane) = self.lanes.get_mut(&session) {
                lane.readable = lane.logged;
                self.make_ready(session);
            }
        }
        has_work
    }

    /// The session is gone.
    pub(super) fn deleted(&mut self, session: SessionKey) {
        if let Some(Lane { place: Place::Resting(at), .. }) = self.lanes.remove(&session) {
            self.resting.remove(&(at, session));
        }
        self.moved.remove(&session);
    }

    /// Refused events of these sessions are to be sent again.
    pub(super) fn replay(&mut self, sessions: &[SessionKey]) {
        for session in sessions {
            if let Some(lane) = self.lanes.get_mut(session) {
                lane.replay = true;
                self.make_ready(*session);
            }
        }
    }

    /// The backend is told of this session again, even if it did not know it before.
    pub(super) fn unmute(&mut self, session: SessionKey) {
        if let Some(lane) = self.lanes.get_mut(&session) {
            lane.is_muted = false;
        }
    }

    /// The backend knows this worker now: what it did not know before, it may know now.
    pub(super) fn registered(&mut self, now: Duration) {
        self.is_registered = true;
        self.kinds = Arc::new(self.wanted.clone());
        self.lanes.values_mut().for_each(|lane| lane.is_muted = false);
        self.circuit.hopeful(now);
    }

    /// The backend does not know this worker any more.
    pub(super) fn unregistered(&mut self) {
        self.is_registered = false;
    }

    /// The backend answers again.
    pub(super) fn hopeful(&mut self, now: Duration) {
        self.circuit.hopeful(now);
    }

    /// A request that is no webhook went out.
    pub(super) fn count_request(&mut self, now: Duration) {
        if let Some(budget) = &mut self.budget {
            budget.count(now);
        }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Duration) -> Step {
        if let Some(at) = self.store_at
            && at <= now
        {
            return Step::Store(self.take_moved());
        }
        self.wake_rested(now);
        let wait = match self.try_turn(now) {
            Ok(turn) => return Step::Turn(turn),
            Err(wait) => wait,
        };
        Step::Wait(wait.into_iter().chain(self.store_at).min())
    }

    /// Cursors that are not stored yet.
    pub(super) fn take_moved(&mut self) -> Vec<OutboxCursor> {
        self.store_at = None;
        let moved = std::mem::take(&mut self.moved);
        let at = |session: SessionKey| {
            let lane = self.lanes.get(&session)?;
            Some(OutboxCursor { session, cursor: lane.cursor, sent: lane.sent })
        };
        moved.into_iter().filter_map(at).collect()
    }

    /// A turn, or when there may be one.
    fn try_turn(&mut self, now: Duration) -> Result<Turn, Option<Duration>> {
        if !self.is_registered {
            return Err(None);
        }
        if self.hold > now {
            return Err(Some(self.hold));
        }
        self.circuit.admits(now)?;
        let rested = self.resting.first().map(|(at, _)| *at);
        let session = match self.take_ready() {
            Some(session) => session,
            // To try the backend, any session will do.
            None if self.circuit.is_open() => match self.resting.pop_first() {
                Some((_, session)) => session,
                None => return Err(None),
            },
            None => return Err(rested),
        };
        if let Some(budget) = &mut self.budget
            && let Err(until) = budget.take(now)
        {
            self.ready.push_front(session);
            return Err(Some(until));
        }
        self.circuit.begin();
        let (kinds, coalesce) = (Arc::clone(&self.kinds), self.coalesce);
        let lane = self.lanes.get_mut(&session).expect("ready and resting lanes exist");
        lane.place = Place::Busy;
        // Asked for again meanwhile, it is set again.
        lane.replay = false;
        let view =
            View { kinds, last_status: lane.last_status, is_muted: lane.is_muted, coalesce, is_ours: true };
        Ok(Turn { session, cursor: lane.cursor, view, tried: lane.tried })
    }

    /// A turn is over.
    pub(super) fn end(&mut self, now: Duration, session: SessionKey, report: &Report) {
        self.account(now, &report.outcome);
        let jitter = self.jitter();
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        lane.replay |= report.replays;
        lane.is_muted &= !report.unmuted;
        lane.waiting_since_ms = report.logged_ms.or(lane.waiting_since_ms);
        let before = lane.cursor;
        lane.cursor = lane.cursor.max(report.cursor);
        let mut pause_until = None;
        match &report.outcome {
            Outcome::Nothing => {}
            Outcome::Settled { seq } | Outcome::UnknownKind { seq, .. } | Outcome::UnknownSession { seq } => {
                lane.sent = lane.sent.max(*seq);
                lane.failures = 0;
                lane.tried = (0, 0);
                lane.is_muted |= matches!(report.outcome, Outcome::UnknownSession { .. });
            }
            Outcome::Failed { seq, .. } | Outcome::TooFast { seq, .. } => {
                lane.tried = if lane.tried.0 == *seq { (*seq, lane.tried.1 + 1) } else { (*seq, 1) };
                if matches!(report.outcome, Outcome::Failed { .. }) {
                    lane.failures = lane.failures.saturating_add(1);
                    pause_until = Some(now + pause(lane.failures, jitter));
                }
            }
            Outcome::StoreFailed => {
                // Not even looked at.
                lane.replay = true;
                pause_until = Some(now + STORE_PAUSE);
            }
            Outcome::Gone => return self.deleted(session),
        }
        let has_moved = lane.cursor > before;
        lane.place = Place::Idle;
        if let Some(at) = pause_until {
            lane.place = Place::Resting(at);
            self.resting.insert((at, session));
        }
        if has_moved {
            self.moved(session, now, STORE_DELIVERED);
        }
        self.make_ready(session);
    }

    /// What a turn means for everybody.
    fn account(&mut self, now: Duration, outcome: &Outcome) {
        match outcome {
            Outcome::Nothing | Outcome::StoreFailed | Outcome::Gone => {
                self.circuit.never_mind();
                if let Some(budget) = &mut self.budget {
                    budget.give_back();
                }
            }
            Outcome::Settled { .. } | Outcome::UnknownSession { .. } => self.succeeded(),
            Outcome::UnknownKind { kind, .. } => {
                self.succeeded();
                Arc::make_mut(&mut self.kinds).remove(kind);
            }
            Outcome::Failed { retry_after, .. } => {
                let jitter = self.jitter();
                self.circuit.failed(now, *retry_after, jitter);
            }
            Outcome::TooFast { retry_after, .. } => {
                self.circuit.never_mind();
                let patience = retry_after.unwrap_or(SLOW_DOWN).clamp(Duration::from_secs(1), LONGEST_HOLD);
                self.hold = now + patience;
            }
        }
    }

    fn succeeded(&mut self) {
        if self.circuit.succeeded() {
            // They rest because the backend was away.
            for (_, session) in std::mem::take(&mut self.resting) {
                if let Some(lane) = self.lanes.get_mut(&session) {
                    lane.place = Place::Idle;
                    self.make_ready(session);
                }
            }
        }
    }

    /// Figures now.
    pub(super) fn backlog(&self) -> Backlog {
        let behind = self.lanes.values().filter(|lane| lane.cursor < lane.logged);
        let (events, oldest_ms) = behind.fold((0, None), |(events, oldest), lane| {
            let since = lane.waiting_since_ms.into_iter().chain(oldest).min();
            (events + lane.logged - lane.cursor, since)
        });
        Backlog { events, oldest_ms, is_circuit_open: self.circuit.is_open() }
    }

    /// Nothing is left that could be sent now.
    pub(super) fn is_flushed(&self, now: Duration) -> bool {
        let is_stuck = !self.is_registered || self.circuit.is_open() || self.hold > now;
        let mut places = self.lanes.values().map(|lane| lane.place);
        if is_stuck {
            return !places.any(|place| place == Place::Busy);
        }
        self.unread.is_empty() && !places.any(|place| matches!(place, Place::Busy | Place::Ready))
    }

    fn lane(&mut self, session: SessionKey, cursor: u64) -> &mut Lane {
        self.lanes.entry(session).or_insert(Lane {
            cursor,
            sent: 0,
            logged: cursor,
            readable: cursor,
            last_status: 0,
            replay: false,
            is_muted: false,
            place: Place::Idle,
            failures: 0,
            tried: (0, 0),
            waiting_since_ms: None,
        })
    }

    /// Queues an idle lane that has work.
    fn make_ready(&mut self, session: SessionKey) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        if !lane.has_work() && lane.cursor == lane.logged {
            lane.waiting_since_ms = None;
        }
        if lane.place == Place::Idle && lane.has_work() {
            lane.place = Place::Ready;
            self.ready.push_back(session);
        }
    }

    fn wake_rested(&mut self, now: Duration) {
        while let Some((at, session)) = self.resting.first().copied()
            && at <= now
        {
            self.resting.remove(&(at, session));
            if let Some(lane) = self.lanes.get_mut(&session) {
                lane.place = Place::Idle;
                self.make_ready(session);
            }
        }
    }

    /// The next ready lane; those of deleted sessions are still in the queue.
    fn take_ready(&mut self) -> Option<SessionKey> {
        while let Some(session) = self.ready.pop_front() {
            if self.lanes.get(&session).is_some_and(|lane| lane.place == Place::Ready) {
                return Some(session);
            }
        }
        None
    }

    fn moved(&mut self, session: SessionKey, now: Duration, within: Duration) {
        self.moved.insert(session);
        let at = now + within;
        self.store_at = Some(self.store_at.map_or(at, |due| due.min(at)));
    }

    /// 0 to 1; xorshift, only to spread pauses.
    fn jitter(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 40).unwrap_or(0)) / f64::from(1u32 << 24)
    }
}

/// A crash repeats what was delivered in this time.
const STORE_DELIVERED: Duration = Duration::from_millis(250);
/// Where nothing was sent, nothing is repeated; only the log is cleaned up a little later.
const STORE_IDLE: Duration = Duration::from_secs(5);
/// After trouble with our own store.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// When the backend asks to slow down and does not say for how long.
const SLOW_DOWN: Duration = Duration::from_secs(10);
/// When it says so for longer, it is asked earlier all the same.
const LONGEST_HOLD: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests;
