//! What the store promises, tried on real files.

mod crash;
mod disk;
mod history;
mod log;
mod objects;
mod outbox;
mod power;
mod queue;
mod sealing;

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use super::*;
use crate::whatsapp::{
    jid::Jid,
    model::{Event, MessageRecord, MessageStatus},
    state::{Batch, StateRead, Table, Write},
};

type Ack = (u64, Result<Option<u64>, StoreError>);

/// Collects what the store thread says.
#[derive(Default)]
struct Acks {
    seen: Mutex<Vec<Ack>>,
    changed: Condvar,
}

impl Acks {
    fn new() -> (Arc<Self>, Arc<dyn CommitListener>) {
        let acks = Arc::new(Self::default());
        (Arc::clone(&acks), acks)
    }

    /// Waits for `count` answers; all that came.
    fn wait(&self, count: usize) -> Vec<Ack> {
        self.wait_for(count);
        self.seen.lock().unwrap().clone()
    }

    fn wait_for(&self, count: usize) {
        let seen = self.seen.lock().unwrap();
        let (seen, timeout) = self
            .changed
            .wait_timeout_while(seen, Duration::from_secs(60), |seen| seen.len() < count)
            .unwrap();
        assert!(!timeout.timed_out(), "{} of {count} answers came", seen.len());
    }
}

impl CommitListener for Acks {
    fn committed(&self, number: u64, last_seq: Result<Option<u64>, StoreError>) {
        self.seen.lock().unwrap().push((number, last_seq));
        self.changed.notify_all();
    }

    fn readable(&self, _number: u64) {}

    fn reported(&self, number: u64, last_seq: Result<Option<u64>, StoreError>) {
        self.committed(number, last_seq);
    }
}

fn open() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    (dir, store)
}

fn session(store: &LocalStore, id: &str) -> SessionKey {
    store.create_session(id, "user-1", None).unwrap().unwrap().key
}

/// Applies writes and waits for them.
fn write(store: &LocalStore, session: SessionKey, writes: Vec<Write>) -> Result<Option<u64>, StoreError> {
    let (acks, listener) = Acks::new();
    store.submit(session, Batch { number: 7, writes }, &listener).unwrap();
    let (number, result) = acks.wait(1).remove(0);
    assert_eq!(number, 7);
    readable(store);
    result
}

/// A [`SessionStore`] sees everything durable afterwards.
fn readable(store: &LocalStore) {
    // Fails while the disk is full; then nothing becomes readable.
    drop(store.call(Op::Commit));
}

fn message(chat: &str, id: &str, timestamp: u64) -> MessageRecord {
    MessageRecord {
        id: id.into(),
        chat: Jid::pn(chat.to_owned()),
        sender: Jid::pn(chat.to_owned()),
        from_me: false,
        kind: "text".into(),
        content: format!("text of {id}"),
        push_name: None,
        target_id: None,
        timestamp,
        status: MessageStatus::Delivered,
        raw: vec![1, 2, 3],
    }
}

fn put(key: &str, value: &[u8]) -> Write {
    Write::Put(Table::Session, key.into(), value.into())
}

fn event(user: &str) -> Write {
    Write::Event(Box::new(Event::IdentityChanged { user: Jid::pn(user.to_owned()) }))
}

#[test]
fn state_is_read_back_deleted_and_cleared_per_session() {
    let (_dir, store) = open();
    let (a, b) = (session(&store, "a"), session(&store, "b"));
    write(&store, a, vec![put("62811.0", b"1"), put("62811.1", b"2"), put("62812.0", b"3")]).unwrap();
    write(&store, b, vec![put("62811.0", b"other")]).unwrap();
    let state = SessionStore::new(store.clone(), a);
    assert_eq!(state.get(Table::Session, "62811.1").unwrap().unwrap(), b"2");
    assert_eq!(state.get(Table::Identity, "62811.1").unwrap(), None);
    assert_eq!(state.keys(Table::Session, "62811.").unwrap(), ["62811.0", "62811.1"]);
    assert_eq!(state.keys(Table::Session, "").unwrap().len(), 3);
    write(&store, a, vec![put("62811.0", b"new"), Write::Delete(Table::Session, "62811.1".into())]).unwrap();
    assert_eq!(state.get(Table::Session, "62811.0").unwrap().unwrap(), b"new");
    assert_eq!(state.keys(Table::Session, "62811.").unwrap(), ["62811.0"]);
    write(&store, a, vec![Write::Clear(Table::Session)]).unwrap();
    assert!(state.keys(Table::Session, "").unwrap().is_empty());
    let other = SessionStore::new(store, b);
    assert_eq!(other.get(Table::Session, "62811.0").unwrap().unwrap(), b"other");
}

#[test]
fn a_session_id_is_given_once_and_its_row_can_be_changed() {
    let (_dir, store) = open();
    let row = store.create_session("a", "user-1", Some("Shop")).unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.wanted, row.name.as_deref()), ("disconnected", false, Some("Shop")));
    assert_eq!(store.create_session("a", "user-2", None).unwrap(), None);
    let patch = SessionPatch {
        status: Some("connected"),
        phone: Some(Some("6281200000001".into())),
        wanted: Some(true),
        ..SessionPatch::default()
    };
    store.update_session(row.key, patch).unwrap();
    store
        .update_session(row.key, SessionPatch { error: Some(Some("why".into())), ..Default::default() })
        .unwrap();
    let row = store.sessions().unwrap().remove(0);
    assert_eq!((row.status.as_str(), row.wanted, row.name.as_deref()), ("connected", true, Some("Shop")));
    assert_eq!((row.phone.as_deref(), row.error.as_deref()), (Some("6281200000001"), Some("why")));
    store.update_session(row.key, SessionPatch { error: Some(None), ..Default::default() }).unwrap();
    assert_eq!(store.sessions().unwrap().remove(0).error, None);
}

#[test]
fn deleting_a_session_removes_every_row_of_it_and_of_no_other() {
    let (dir, store) = open();
    let (a, b) = (session(&store, "a"), session(&store, "ab"));
    for key in [a, b] {
        let mut writes: Vec<_> = (0..3000).map(|n| put(&format!("{n}.0"), b"x")).collect();
        writes.push(Write::Message(Box::new(message("6281200000001", "M1", 5))));
        writes.push(event("6281200000002"));
        write(&store, key, writes).unwrap();
        store.claim_idempotency(key, "k", [0; 32], "M2").unwrap();
    }
    store.delete_session(a).unwrap();
    assert_eq!(store.sessions().unwrap().len(), 1);
    assert_eq!(write(&store, a, vec![put("late", b"x")]), Err(StoreError::NoSession));
    let again = session(&store, "a");
    assert_ne!(again, a);
    drop(store);
    let conn = schema::open_reader(dir.path()).unwrap();
    for table in ["state", "messages", "events", "idempotency", "chats"] {
        let count = |key: SessionKey| -> i64 {
            conn.query_row(&format!("SELECT count(*) FROM {table} WHERE session = ?1"), [key.0], |row| {
                row.get(0)
            })
            .unwrap()
        };
        assert_eq!(count(a), 0, "{table}");
        assert!(count(b) > 0, "{table}");
    }
}

#[test]
fn a_deletion_that_was_interrupted_goes_on_at_the_next_start() {
    let (dir, store) = open();
    let key = session(&store, "a");
    write(&store, key, vec![put("1.0", b"x")]).unwrap();
    store.call(Op::MarkDeleted { session: key, objects: false }).unwrap();
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    assert!(store.sessions().unwrap().is_empty());
    drop(store);
    let conn = schema::open_reader(dir.path()).unwrap();
    let left: i64 = conn
        .query_row("SELECT (SELECT count(*) FROM state) + (SELECT count(*) FROM sessions)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn the_first_claim_of_an_idempotency_key_wins_and_its_answer_survives_a_restart() {
    let (dir, store) = open();
    let key = session(&store, "a");
    let claims: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u8)
            .map(|n| {
                let store = store.clone();
                scope.spawn(move || store.claim_idempotency(key, "k1", [n; 32], &format!("M{n}")).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::New).count(), 1);
    let answer = Answer { status: 200, body: b"{}".to_vec() };
    store.answer_idempotency(key, "k1", answer.clone()).unwrap();
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    let record = store.idempotency(key, "k1").unwrap().unwrap();
    assert_eq!(record.answer, Some(answer));
    assert_eq!(store.claim_idempotency(key, "k1", [9; 32], "M9").unwrap(), Claim::Existing(record));
    assert_eq!(store.claim_idempotency(key, "k2", [9; 32], "M9").unwrap(), Claim::New);
    store.release_idempotency(key, "k2").unwrap();
    assert_eq!(store.idempotency(key, "k2").unwrap(), None);
}
