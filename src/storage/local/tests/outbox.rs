//! The outbox: what is not delivered stays, within its bounds; watchers hear of what is durable.

use super::*;
use crate::storage::local::{Burial, EventWatch, Logged, OutboxCursor, ReplayFilter};

fn at(session: SessionKey, cursor: u64) -> OutboxCursor {
    OutboxCursor { session, cursor, sent: cursor }
}

fn many(store: &LocalStore, key: SessionKey, thousands: usize) {
    for _ in 0..thousands {
        write(store, key, (0..1000).map(|_| event("62811")).collect()).unwrap();
    }
}

fn letter(store: &LocalStore, key: SessionKey, seq: u64) -> Burial {
    let event = store.events(key, seq - 1, 1).unwrap().remove(0);
    Burial { event, status: 422, reason: "no".into(), attempts: 1 }
}

#[test]
fn events_that_are_not_delivered_outlive_the_usual_length_and_age_of_the_log() {
    let (dir, store) = open();
    let (key, other) = (session(&store, "a"), session(&store, "b"));
    store.open_outbox().unwrap();
    many(&store, key, 12);
    many(&store, other, 12);
    store.advance_outbox(vec![at(other, 12_000)]).unwrap();
    many(&store, other, 1);
    assert_eq!(store.event_span(key).unwrap(), Some((1, 12_000)));
    assert!(store.event_span(other).unwrap().unwrap().0 > 2_000);
    drop(store);
    let conn = schema::open_writer(dir.path()).unwrap();
    let ten_days_ago = "strftime('%s', 'now') * 1000 - 10 * 86400000";
    conn.execute(&format!("UPDATE events SET created_ms = {ten_days_ago}"), []).unwrap();
    drop(conn);
    let store = LocalStore::open(dir.path()).unwrap();
    while matches!(store.call(Op::Tidy).unwrap(), Outcome::More(true)) {}
    assert_eq!(store.event_span(key).unwrap(), Some((1, 12_000)));
    assert_eq!(store.event_span(other).unwrap(), Some((12_001, 13_000)));
    drop(store);
    let conn = schema::open_writer(dir.path()).unwrap();
    conn.execute("UPDATE events SET created_ms = 1", []).unwrap();
    drop(conn);
    let store = LocalStore::open(dir.path()).unwrap();
    while matches!(store.call(Op::Tidy).unwrap(), Outcome::More(true)) {}
    assert_eq!(store.event_span(key).unwrap(), Some((12_000, 12_000)));
}

#[test]
fn places_begin_where_delivery_begins_and_survive_a_restart() {
    let (dir, store) = open();
    let old = session(&store, "old");
    write(&store, old, vec![event("62811"), event("62812")]).unwrap();
    let rows = store.open_outbox().unwrap();
    assert_eq!((rows[0].at.cursor, rows[0].last_seq), (2, 2));
    let new = session(&store, "new");
    write(&store, new, vec![event("62811"), event("62812"), event("62813")]).unwrap();
    store.advance_outbox(vec![at(new, 1)]).unwrap();
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    let rows = store.open_outbox().unwrap();
    assert_eq!((rows[1].at, rows[1].last_seq), (at(new, 1), 3));
    // Never backwards.
    store.advance_outbox(vec![at(new, 0)]).unwrap();
    let page = store.outbox_page(new, 1, 10).unwrap().unwrap();
    assert_eq!(page.session_id, "new");
    assert_eq!(page.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
    store.delete_session(new).unwrap();
    assert_eq!(store.outbox_page(new, 0, 10).unwrap(), None);
    assert_eq!(store.open_outbox().unwrap().len(), 1);
    store.close_outbox().unwrap();
    let third = session(&store, "third");
    many(&store, third, 11);
    assert!(store.event_span(third).unwrap().unwrap().0 > 1);
}

#[test]
fn refused_events_are_listed_replayed_and_forgotten_once_delivered() {
    let (_dir, store) = open();
    let (a, b) = (session(&store, "a"), session(&store, "b"));
    store.open_outbox().unwrap();
    for key in [a, b] {
        write(&store, key, vec![event("62811"), event("62812")]).unwrap();
        for seq in [1, 2] {
            let letter = letter(&store, key, seq);
            store.bury(at(key, seq), letter.clone()).unwrap();
            store.bury(at(key, seq), letter).unwrap();
        }
    }
    let (letters, total) = store.dead_letters(Some(a), 0, 1).unwrap();
    assert_eq!((letters.len(), total, letters[0].session_id.as_str()), (1, 2, "a"));
    assert_eq!(store.dead_letters(None, letters[0].key, 10).unwrap().0.len(), 3);
    let one = ReplayFilter { session: Some(b), event_ids: Some(vec![letters[0].event.event_id.clone()]) };
    assert_eq!(store.replay_dead_letters(one).unwrap(), (vec![], 0));
    let one = ReplayFilter { session: None, event_ids: Some(vec![letters[0].event.event_id.clone()]) };
    assert_eq!(store.replay_dead_letters(one).unwrap(), (vec![a], 1));
    let page = store.outbox_page(a, 2, 10).unwrap().unwrap();
    assert_eq!((page.replays.len(), page.replays[0].event.seq, page.events.len()), (1, 1, 0));
    store.settle_replay(page.replays[0].key, Some((400, "still no".into()))).unwrap();
    let letter = store.dead_letters(Some(a), 0, 1).unwrap().0.remove(0);
    assert_eq!((letter.status, letter.attempts, letter.replay), (400, 2, false));
    let all = ReplayFilter { session: Some(a), event_ids: None };
    assert_eq!(store.replay_dead_letters(all).unwrap().1, 2);
    store.settle_replay(letter.key, None).unwrap();
    assert_eq!(store.dead_letters(Some(a), 0, 9).unwrap().1, 1);
    store.delete_session(a).unwrap();
    assert_eq!(store.dead_letters(None, 0, 9).unwrap().1, 2);
}

#[derive(Default)]
struct Watch {
    seen: Mutex<(Vec<Logged>, usize, Vec<SessionKey>)>,
}

impl EventWatch for Watch {
    fn logged(&self, events: &[Logged]) -> bool {
        self.seen.lock().unwrap().0.extend_from_slice(events);
        true
    }

    fn readable(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.1 = seen.0.len();
    }

    fn deleted(&self, session: SessionKey) {
        self.seen.lock().unwrap().2.push(session);
    }
}

#[test]
fn a_watcher_hears_of_every_durable_event_once_and_when_it_can_be_read() {
    let (_dir, store) = open();
    let watch = Arc::new(Watch::default());
    store.watch_events(Arc::clone(&watch) as Arc<dyn EventWatch>);
    let key = session(&store, "a");
    write(&store, key, vec![event("62811"), put("k", b"v")]).unwrap();
    assert_eq!(write(&store, SessionKey(999), vec![event("62811")]), Err(StoreError::NoSession));
    let told = Some(("session-status", "{}".to_owned()));
    let (acks, listener) = Acks::new();
    store.report(key, 1, None, told, &listener).unwrap();
    acks.wait(1);
    store.delete_session(key).unwrap();
    let seen = watch.seen.lock().unwrap();
    let expected: Vec<_> = [(1, "identity-changed"), (2, "session-status")]
        .map(|(seq, kind)| Logged { session: key, seq, kind })
        .into();
    assert_eq!(*seen, (expected, 2, vec![key]));
}
