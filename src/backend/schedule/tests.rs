//! Days of delivery on a virtual clock: a log per session, a backend that is a function, and the schedule between.

use std::collections::BTreeMap;

use super::*;
use crate::{
    backend::choose::{Pick, choose},
    storage::local::{OutboxPage, StoredEvent},
};

/// What the backend does with an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Takes,
    Refuses,
    Fails,
    TooFast(u64),
    NoSuchKind,
    NoSuchSession,
}

type Backend = Box<dyn FnMut(Duration, SessionKey, &StoredEvent) -> Reply>;

struct World {
    schedule: Schedule,
    now: Duration,
    logs: BTreeMap<SessionKey, Vec<StoredEvent>>,
    stored: BTreeMap<SessionKey, u64>,
    backend: Backend,
    /// What it took, in order.
    taken: Vec<(SessionKey, u64)>,
    buried: Vec<(SessionKey, u64)>,
    /// When it was asked.
    asked: Vec<Duration>,
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const A: SessionKey = SessionKey(1);
const B: SessionKey = SessionKey(2);

impl World {
    fn new(
        budget: Option<Budget>,
        backend: impl FnMut(Duration, SessionKey, &StoredEvent) -> Reply + 'static,
    ) -> Self {
        let mut schedule = Schedule::new(&BTreeSet::from(["message", "message-status"]), budget, 7);
        schedule.registered(Duration::ZERO);
        Self {
            schedule,
            now: Duration::ZERO,
            logs: BTreeMap::new(),
            stored: BTreeMap::new(),
            backend: Box::new(backend),
            taken: Vec::new(),
            buried: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn log(&mut self, session: SessionKey, kind: &'static str, payload: &str) {
        let log = self.logs.entry(session).or_default();
        let seq = log.len() as u64 + 1;
        let unix_ms = u64::try_from(self.now.as_millis()).unwrap();
        log.push(StoredEvent {
            seq,
            event_id: format!("{}-{seq}", session.0),
            kind: kind.to_owned(),
            payload: payload.to_owned(),
            created_ms: unix_ms,
        });
        self.schedule.logged(&[Logged { session, seq, kind }], self.now, unix_ms);
        self.schedule.readable();
    }

    fn message(&mut self, session: SessionKey) {
        self.log(session, "message", "{}");
    }

    fn status(&mut self, session: SessionKey, word: &str) {
        self.log(session, SESSION_STATUS, &format!(r#"{{"status":"{word}"}}"#));
    }

    /// Lets time pass until then; everything that is due happens.
    fn run(&mut self, until: Duration) {
        loop {
            match self.schedule.next(self.now) {
                Step::Turn(turn) => {
                    let report = self.turn(&turn);
                    self.schedule.end(self.now, turn.session, &report);
                }
                Step::Store(cursors) => {
                    self.stored.extend(cursors.iter().map(|at| (at.session, at.cursor)));
                }
                Step::Wait(Some(at)) if at <= until => {
                    assert!(at > self.now, "no waiting for the past");
                    self.now = at;
                }
                Step::Wait(_) => return self.now = until,
            }
        }
    }

    fn turn(&mut self, turn: &Turn) -> Report {
        let log = &self.logs[&turn.session];
        let behind = usize::try_from(turn.cursor).unwrap();
        let events = log.iter().skip(behind).take(16).cloned().collect();
        let page = OutboxPage { session_id: turn.session.0.to_string(), replays: Vec::new(), events };
        let choice = choose(&page, turn.cursor, &turn.view);
        let mut report = Report {
            cursor: choice.skipped_to,
            replays: false,
            unmuted: choice.unmuted,
            logged_ms: None,
            outcome: Outcome::Nothing,
        };
        let Some(Pick::Event(event)) = choice.pick else { return report };
        self.asked.push(self.now);
        let (seq, at) = (event.seq, (turn.session, event.seq));
        let kind = *turn.view.kinds.iter().find(|kind| **kind == event.kind).unwrap();
        report.outcome = match (self.backend)(self.now, turn.session, event) {
            Reply::Takes => {
                self.taken.push(at);
                Outcome::Settled { seq }
            }
            Reply::Refuses => {
                self.buried.push(at);
                Outcome::Settled { seq }
            }
            Reply::Fails => Outcome::Failed { seq, retry_after: None },
            Reply::TooFast(wait) => Outcome::TooFast { seq, retry_after: Some(s(wait)) },
            Reply::NoSuchKind => Outcome::UnknownKind { kind, seq },
            Reply::NoSuchSession => Outcome::UnknownSession { seq },
        };
        if !matches!(report.outcome, Outcome::Failed { .. } | Outcome::TooFast { .. }) {
            report.cursor = seq;
        }
        report
    }

    fn taken_of(&self, session: SessionKey) -> Vec<u64> {
        self.taken.iter().filter(|(of, _)| *of == session).map(|(_, seq)| *seq).collect()
    }
}

#[test]
fn a_day_of_outage_loses_nothing_keeps_the_order_and_costs_few_attempts() {
    const SESSIONS: i64 = 50;
    let day = s(24 * 3600);
    let mut world = World::new(None, move |now, _, _| if now < day { Reply::Fails } else { Reply::Takes });
    // One message a minute in each session, all day.
    for minute in 0..24 * 60 {
        (1..=SESSIONS).for_each(|session| world.message(SessionKey(session)));
        world.run(s((minute + 1) * 60));
    }
    let attempts = world.asked.len();
    assert!(attempts < 450, "{attempts} attempts in a day, for 72,000 events");
    assert!(world.asked.windows(2).all(|pair| pair[1] - pair[0] < s(400)), "it is asked now and then");
    let backlog = world.schedule.backlog();
    assert_eq!((backlog.events, backlog.is_circuit_open, backlog.oldest_ms), (72_000, true, Some(0)));
    // It is back: the next attempt finds it, and everything follows.
    world.run(day + s(400));
    for session in (1..=SESSIONS).map(SessionKey) {
        assert_eq!(world.taken_of(session), (1..=1440).collect::<Vec<_>>());
    }
    assert_eq!(world.schedule.backlog(), Backlog::default());
    assert_eq!(world.stored[&A], 1440, "how far it came is stored");
}

#[test]
fn a_heartbeat_that_is_answered_again_ends_the_wait_at_once() {
    let mut world = World::new(None, |now, _, _| if now < s(3000) { Reply::Fails } else { Reply::Takes });
    world.message(A);
    world.run(s(3001));
    assert!(world.taken.is_empty());
    world.schedule.hopeful(world.now);
    world.run(s(3001));
    assert_eq!(world.taken, [(A, 1)]);
}

#[test]
fn one_session_whose_event_always_fails_holds_up_no_other() {
    let mut world = World::new(None, |_, session, _| if session == A { Reply::Fails } else { Reply::Takes });
    world.message(A);
    for minute in 0..600 {
        world.message(B);
        world.run(s((minute + 1) * 60));
    }
    assert_eq!(world.taken_of(B).len(), 600);
    assert!(world.taken_of(A).is_empty());
    let of_a = world.asked.len() - 600;
    assert!((100..250).contains(&of_a), "every five minutes or so: {of_a}");
}

#[test]
fn when_every_session_fails_in_turn_one_is_asked_at_a_time_and_never_the_same_again() {
    let mut world = World::new(None, |_, _, _| Reply::Fails);
    let asked = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = std::rc::Rc::clone(&asked);
    world.backend = Box::new(move |_, session, _| {
        seen.borrow_mut().push(session);
        Reply::Fails
    });
    (1..=100).for_each(|session| world.message(SessionKey(session)));
    world.run(s(3600));
    let asked = asked.borrow();
    assert!(asked.len() < 40, "{}", asked.len());
    let different: BTreeSet<_> = asked.iter().collect();
    assert_eq!(different.len(), asked.len());
}

#[test]
fn nothing_goes_out_before_the_backend_knows_us_and_while_it_does_not() {
    let mut world = World::new(None, |_, _, _| Reply::Takes);
    world.schedule.unregistered();
    world.message(A);
    world.run(s(10));
    assert!(world.asked.is_empty());
    world.schedule.registered(world.now);
    world.run(s(10));
    assert_eq!(world.taken, [(A, 1)]);
}

#[test]
fn a_kind_the_backend_does_not_know_is_left_out_until_the_next_registration() {
    let mut world = World::new(
        None,
        |_, _, event| {
            if event.kind == "message" { Reply::NoSuchKind } else { Reply::Takes }
        },
    );
    (0..3).for_each(|_| world.message(A));
    world.status(A, "connected");
    world.run(s(1));
    (0..3).for_each(|_| world.message(A));
    world.run(s(2));
    assert_eq!((world.asked.len(), world.taken.clone()), (2, vec![(A, 4)]));
    assert_eq!(world.schedule.backlog().events, 0, "the others are passed over");
    world.schedule.registered(world.now);
    world.message(A);
    world.run(s(3));
    assert_eq!(world.asked.len(), 3);
}

#[test]
fn a_refused_event_is_put_aside_and_the_next_ones_follow() {
    let mut world =
        World::new(None, |_, _, event| if event.seq == 2 { Reply::Refuses } else { Reply::Takes });
    (0..3).for_each(|_| world.message(A));
    world.run(s(1));
    assert_eq!((world.buried.clone(), world.taken_of(A)), (vec![(A, 2)], vec![1, 3]));
    assert_eq!(world.asked.len(), 3);
}

#[test]
fn a_backend_that_asks_to_slow_down_is_left_alone_for_that_long() {
    let mut world = World::new(None, |now, _, _| if now < s(5) { Reply::TooFast(30) } else { Reply::Takes });
    (1..=10).for_each(|session| world.message(SessionKey(session)));
    world.run(s(29));
    assert_eq!(world.asked.len(), 1);
    world.run(s(31));
    assert_eq!(world.taken.len(), 10);
}

#[test]
fn with_few_requests_only_what_still_counts_is_told_and_the_last_status_always_is() {
    let mut world = World::new(Some(Budget::whatsam()), |_, _, _| Reply::Takes);
    // 100 sessions that change their status every second for two minutes.
    for second in 0..120 {
        for session in (1..=100).map(SessionKey) {
            world.status(session, if second % 2 == 0 { "reconnecting" } else { "connected" });
        }
        world.run(s(second + 1));
    }
    world.run(s(600));
    for (at, first) in world.asked.iter().enumerate() {
        let in_minute = world.asked[at..].iter().take_while(|time| **time < *first + s(60)).count();
        assert!(in_minute <= 60, "{in_minute}");
    }
    for session in (1..=100).map(SessionKey) {
        assert_eq!(world.taken_of(session).last(), Some(&120), "the last status is told");
    }
    assert!(world.asked.len() < 400, "superseded ones are not: {}", world.asked.len());
}

#[test]
fn a_session_the_backend_deleted_is_silent_until_it_is_started_again_or_told_of_on_purpose() {
    let mut world =
        World::new(
            Some(Budget::whatsam()),
            |now, _, _| {
                if now < s(100) { Reply::NoSuchSession } else { Reply::Takes }
            },
        );
    world.status(A, "connected");
    world.run(s(1));
    for word in ["reconnecting", "connected"] {
        world.status(A, word);
        world.run(s(2));
    }
    assert_eq!(world.asked.len(), 1);
    world.status(A, "connecting");
    world.run(s(3));
    assert_eq!(world.asked.len(), 2);
    world.run(s(100));
    world.status(A, "connected");
    world.run(s(101));
    assert!(world.taken.is_empty());
    world.schedule.unmute(A);
    world.status(A, "connected");
    world.run(s(102));
    assert_eq!(world.taken.len(), 1);
}

#[test]
fn places_of_a_former_run_are_taken_up_and_nothing_delivered_is_sent_again() {
    let mut world = World::new(None, |_, _, _| Reply::Takes);
    (0..5).for_each(|_| world.message(A));
    world.run(s(1));
    let cursor = world.stored[&A];
    let mut next = World::new(None, |_, _, _| Reply::Takes);
    next.logs = world.logs;
    next.logs.get_mut(&A).unwrap().push(StoredEvent {
        seq: 6,
        event_id: "1-6".into(),
        kind: "message".into(),
        payload: "{}".into(),
        created_ms: 0,
    });
    next.schedule.load(&OutboxRow {
        at: OutboxCursor { session: A, cursor, sent: cursor },
        last_seq: 6,
        last_status: 0,
        replay: false,
    });
    next.run(s(1));
    assert_eq!(next.taken, [(A, 6)]);
    next.schedule.deleted(A);
    assert_eq!(next.schedule.backlog(), Backlog::default());
}

#[test]
fn unwanted_events_cost_no_turn_and_do_not_keep_the_log_from_being_cleaned_up() {
    let mut world = World::new(None, |_, _, _| Reply::Takes);
    world.status(A, "connected");
    (0..50).for_each(|_| world.log(A, "login", "{}"));
    world.run(s(10));
    (0..50).for_each(|_| world.log(A, "login", "{}"));
    assert!(matches!(world.schedule.next(world.now), Step::Wait(_)));
    world.run(s(20));
    assert_eq!((world.stored[&A], world.asked.len()), (101, 1));
}

#[test]
fn a_flush_waits_for_what_can_be_delivered_and_for_nothing_else() {
    let mut world = World::new(None, |now, _, _| if now < s(1) { Reply::Takes } else { Reply::Fails });
    assert!(world.schedule.is_flushed(world.now));
    world.message(A);
    assert!(!world.schedule.is_flushed(world.now));
    world.run(s(1));
    assert!(world.schedule.is_flushed(world.now));
    world.message(A);
    world.run(s(20));
    assert!(world.schedule.is_flushed(world.now), "a backend that is away is not waited for");
}
