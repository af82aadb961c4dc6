//! The event log: numbers without gaps, stable ids, bounded length.

use super::*;

#[test]
fn event_numbers_have_no_gap_over_restarts_and_failed_batches() {
    let (dir, mut store) = open();
    let key = session(&store, "a");
    let mut ids = Vec::new();
    for round in 0..4u64 {
        assert_eq!(write(&store, key, vec![event("62811"), event("62812")]), Ok(Some(round * 2 + 2)));
        assert_eq!(write(&store, SessionKey(999), vec![event("62811")]), Err(StoreError::NoSession));
        ids = store.events(key, 0, 100).unwrap();
        drop(store);
        store = LocalStore::open(dir.path()).unwrap();
    }
    let again = store.events(key, 0, 100).unwrap();
    assert_eq!(ids, again);
    assert_eq!(again.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!(store.events(key, 6, 1).unwrap(), again[6..7]);
    let other = session(&store, "b");
    assert_eq!(write(&store, other, vec![event("62811")]), Ok(Some(1)));
    assert_ne!(store.events(other, 0, 1).unwrap()[0].event_id, again[0].event_id);
}

#[test]
fn a_report_changes_the_row_and_the_log_together_and_in_order_with_batches() {
    let (_dir, store) = open();
    let key = session(&store, "a");
    let (acks, listener) = Acks::new();
    store.submit(key, Batch { number: 0, writes: vec![event("62811")] }, &listener).unwrap();
    let patch = SessionPatch { status: Some("connected"), ..SessionPatch::default() };
    let told = Some(("session-status", "{\"status\":\"connected\"}".to_owned()));
    store.report(key, 1, Some(patch), told, &listener).unwrap();
    store.submit(key, Batch { number: 2, writes: vec![event("62812")] }, &listener).unwrap();
    let expected: Vec<_> = (0..3).map(|number| (number, Ok(Some(number + 1)))).collect();
    assert_eq!(acks.wait(3), expected);
    let kinds: Vec<_> = store.events(key, 0, 9).unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["identity-changed", "session-status", "identity-changed"]);
    assert_eq!(store.sessions().unwrap()[0].status, "connected");
}

#[test]
fn a_long_log_loses_its_oldest_events_and_no_number_comes_twice() {
    let (dir, store) = open();
    let key = session(&store, "a");
    for _ in 0..11 {
        write(&store, key, (0..1000).map(|_| event("62811")).collect()).unwrap();
    }
    let (first, last) = store.event_span(key).unwrap().unwrap();
    assert_eq!(last, 11_000);
    assert!((10_000..=10_256).contains(&(last - first + 1)), "{first}..{last}");
    drop(store);
    // Everything is old now: all but the last go, and the count goes on.
    let conn = schema::open_writer(dir.path()).unwrap();
    conn.execute("UPDATE events SET created_ms = 1", []).unwrap();
    drop(conn);
    let store = LocalStore::open(dir.path()).unwrap();
    while matches!(store.call(Op::Tidy).unwrap(), Outcome::More(true)) {}
    assert_eq!(store.event_span(key).unwrap(), Some((11_000, 11_000)));
    assert_eq!(write(&store, key, vec![event("62811")]), Ok(Some(11_001)));
}
