//! Workers on one store in memory, on real local stores.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    storage::{
        baileys::{self, Freshness},
        local::{CommitListener, LeaseRow, SessionPatch, SessionStore},
        object::{Place, memory::MemoryObjects},
    },
    whatsapp::{
        jid::Jid,
        model::{MessageRecord, MessageStatus},
        rows::Credentials,
        state::{Batch, StateRead as _, Table, Write},
    },
};

struct Worker {
    sync: ObjectSync,
    local: LocalStore,
    settings: SyncSettings,
    _dir: tempfile::TempDir,
}

impl Worker {
    fn new(store: &Arc<MemoryObjects>, name: &str) -> Self {
        Self::with(store, name, |_| {})
    }

    fn with(store: &Arc<MemoryObjects>, name: &str, edit: impl FnOnce(&mut SyncSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalStore::open(dir.path()).unwrap();
        let mut settings = SyncSettings {
            worker_id: name.to_owned(),
            shared: true,
            proven: false,
            single_worker: false,
            lease_ttl: Duration::from_secs(60),
            delay: Duration::from_millis(20),
            spacing: Duration::from_millis(20),
            threads: 2,
            message_days: 0,
            media_days: 0,
        };
        edit(&mut settings);
        let sync =
            ObjectSync::start(Arc::<MemoryObjects>::clone(store), local.clone(), settings.clone()).unwrap();
        Self { sync, local, settings, _dir: dir }
    }

    /// The threads end and start again on the same state directory, which forgets what `forgets` takes away.
    fn restart(&mut self, store: &Arc<MemoryObjects>, forgets: impl FnOnce(&LocalStore)) {
        self.sync.stop();
        forgets(&self.local);
        let store = Arc::<MemoryObjects>::clone(store);
        self.sync = ObjectSync::start(store, self.local.clone(), self.settings.clone()).unwrap();
    }

    fn has_account(&self, session: SessionKey) -> bool {
        let state = SessionStore::new(self.local.clone(), session);
        state.get(Table::Credentials, Credentials::KEY).unwrap().is_some()
    }

    /// The Signal sessions as they are stored.
    fn ratchets(&self, session: SessionKey) -> Vec<Option<Vec<u8>>> {
        let state = SessionStore::new(self.local.clone(), session);
        let keys = state.keys(Table::Session, "").unwrap();
        keys.iter().map(|key| state.get(Table::Session, key).unwrap()).collect()
    }

    fn session(&self, id: &str) -> SessionKey {
        self.local.create_session(id, "user-1", None).unwrap().unwrap().key
    }

    fn write(&self, session: SessionKey, messages: impl IntoIterator<Item = (String, u64)>) {
        let writes =
            messages.into_iter().map(|(id, at)| Write::Message(Box::new(message(&id, at)))).collect();
        let listener: Arc<dyn CommitListener> = Arc::new(Deaf);
        self.local.submit(session, Batch { number: 1, writes }, &listener).unwrap();
        // Waits behind it.
        self.local.update_session(session, SessionPatch::default()).unwrap();
    }

    fn flush(&self) {
        assert_eq!(self.sync.flush(soon()), 0);
    }

    fn total(&self, session: SessionKey) -> u64 {
        let filter = crate::storage::local::MessageFilter {
            chat: None,
            before: None,
            after: None,
            limit: 1,
            offset: 0,
        };
        self.local.messages(session, &filter).unwrap().total
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.sync.stop();
    }
}

struct Deaf;

impl CommitListener for Deaf {
    fn committed(&self, _: u64, result: Result<Option<u64>, StoreError>) {
        result.unwrap();
    }
    fn readable(&self, _: u64) {}
    fn reported(&self, _: u64, _: Result<Option<u64>, StoreError>) {}
}

fn message(id: &str, timestamp: u64) -> MessageRecord {
    MessageRecord {
        id: id.to_owned(),
        chat: Jid::pn("6281200000002"),
        sender: Jid::pn("6281200000002"),
        from_me: false,
        kind: "text".to_owned(),
        content: format!("text of {id}"),
        push_name: None,
        target_id: None,
        timestamp,
        status: MessageStatus::Delivered,
        raw: vec![7; 300],
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = soon();
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

fn keys(store: &MemoryObjects, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|object| object.key).collect()
}

fn down(place: Place) -> ObjectError {
    ObjectError::Timeout { place, wait: "a test" }
}

#[test]
fn of_two_workers_one_has_a_session_and_what_it_releases_the_other_goes_on_with() {
    let store = Arc::new(MemoryObjects::default());
    let (a, b) = (Worker::new(&store, "a"), Worker::new(&store, "b"));
    let (at_a, at_b) = (a.session("s"), b.session("s"));
    a.sync.acquire("s", at_a).unwrap();
    let Err(CustodyError::Held { worker, expires_ms }) = b.sync.acquire("s", at_b) else {
        panic!("not held")
    };
    assert!(worker == "a" && expires_ms > now_ms());
    a.write(at_a, (0..5).map(|number| (format!("M{number}"), 1_700_000_000)));
    a.sync.release(at_a, false, soon()).unwrap();
    assert!(!a.sync.holds(at_a));
    b.sync.acquire("s", at_b).unwrap();
    assert_eq!(b.total(at_b), 5);
    assert!(matches!(a.sync.acquire("s", at_a), Err(CustodyError::Held { .. })));
    let generation = |worker: &Worker, key| worker.local.lease(key).unwrap().unwrap().generation;
    assert!(generation(&b, at_b) > generation(&a, at_a));
}

#[test]
fn an_expired_lease_is_taken_and_the_old_holder_stops_and_writes_nothing() {
    let store = Arc::new(MemoryObjects::default());
    // Renewed so rarely that it is expired when the other one asks.
    let a = Worker::with(&store, "a", |settings| settings.lease_ttl = Duration::from_millis(1));
    let at_a = a.session("s");
    let lost = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&lost);
    a.sync.on_lost(move |key, worker| {
        assert_eq!((key, worker), (at_a, "b"));
        told.fetch_add(1, Ordering::SeqCst);
    });
    a.sync.acquire("s", at_a).unwrap();
    let b = Worker::new(&store, "b");
    let at_b = b.session("s");
    eventually("the lease expires", || b.sync.acquire("s", at_b).is_ok());
    b.flush();
    let before = keys(&store, "sessions/s/");
    a.write(at_a, [("LATE".to_owned(), 1_700_000_000)]);
    eventually("the old holder is told", || lost.load(Ordering::SeqCst) == 1);
    assert!(!a.sync.holds(at_a));
    assert_eq!(keys(&store, "sessions/s/"), before);
}

#[test]
fn without_the_store_only_what_is_surely_ours_goes_on() {
    let store = Arc::new(MemoryObjects::default());
    let shared = Worker::new(&store, "a");
    let single = Worker::with(&store, "b", |settings| settings.single_worker = true);
    let (at_shared, at_single) = (shared.session("s"), single.session("t"));
    store.set_fault(Some(down));
    assert!(matches!(shared.sync.acquire("s", at_shared), Err(CustodyError::Unreachable(_))));
    single.sync.acquire("t", at_single).unwrap();
    single.write(at_single, [("M1".to_owned(), 1_700_000_000)]);
    assert!(single.sync.flush(Instant::now()) > 0);
    store.set_fault(None);
    eventually("the lease is asked for and everything uploaded", || {
        keys(&store, "sessions/t/")
            == [
                "sessions/t/lease.json",
                "sessions/t/messages/2023-11-14.json",
                "sessions/t/session-data.json",
            ]
    });
    eventually("the store is tried again", || shared.sync.acquire("s", at_shared).is_ok());
}

#[test]
fn one_more_message_costs_one_bounded_object_however_long_the_day_is() {
    let store = Arc::new(MemoryObjects::default());
    let a = Worker::new(&store, "a");
    let key = a.session("s");
    a.sync.acquire("s", key).unwrap();
    a.write(key, (0..10_050).map(|number| (format!("M{number}"), 1_700_000_000)));
    a.flush();
    assert_eq!(keys(&store, "sessions/s/messages/").len(), 51);
    let before = a.sync.stats();
    a.write(key, [("ONE MORE".to_owned(), 1_700_000_000)]);
    a.flush();
    let after = a.sync.stats();
    assert_eq!(after.uploads - before.uploads, 1);
    assert!(after.bytes - before.bytes < 200_000, "{} bytes", after.bytes - before.bytes);
    let bytes = store.get("sessions/s/messages/2023-11-14.51.json").unwrap().unwrap().bytes;
    assert!(String::from_utf8(bytes).unwrap().contains("ONE MORE"));
}

#[test]
fn old_messages_media_and_temporary_objects_are_swept_and_young_ones_stay() {
    let store = Arc::new(MemoryObjects::default());
    let a = Worker::with(&store, "a", |settings| settings.message_days = 30);
    let key = a.session("s");
    a.sync.acquire("s", key).unwrap();
    let now_s = now_ms() / 1000;
    a.write(key, [("OLD".to_owned(), now_s - 40 * 86_400), ("NEW".to_owned(), now_s)]);
    a.flush();
    store.put("sessions/s/messages/2020-01-01.json", b"[]", "application/json").unwrap();
    store.put("temp/uploads/x", b"x", "text/plain").unwrap();
    assert_eq!(keys(&store, "sessions/s/messages/").len(), 3);
    a.sync.sweep_once().unwrap();
    a.flush();
    assert_eq!(keys(&store, "sessions/s/messages/").len(), 1);
    assert_eq!(a.total(key), 1);
    assert_eq!(keys(&store, "temp/"), ["temp/uploads/x"], "too young");
}

#[test]
fn a_namesake_waits_for_the_lease_of_a_lost_disk_and_then_gets_everything() {
    let store = Arc::new(MemoryObjects::default());
    let a = Worker::with(&store, "a", |settings| settings.lease_ttl = Duration::from_millis(300));
    let key = a.session("s");
    a.sync.acquire("s", key).unwrap();
    a.write(key, [("M1".to_owned(), 1_700_000_000)]);
    a.flush();
    // Gone without a word: threads, disk and all.
    a.sync.stop();
    let again = Worker::new(&store, "a");
    let found = again.sync.returning(|_| false).unwrap();
    assert_eq!(found.iter().map(|session| session.id.as_str()).collect::<Vec<_>>(), ["s"]);
    let key = again.session("s");
    eventually("the lease expires", || match again.sync.acquire("s", key) {
        Ok(()) => true,
        Err(CustodyError::HeldByNamesake { worker, .. }) => {
            assert_eq!(worker, "a");
            false
        }
        Err(error) => panic!("{error}"),
    });
    assert_eq!(again.total(key), 1);
}

#[test]
fn what_is_no_lease_and_no_history_is_put_aside() {
    let store = Arc::new(MemoryObjects::default());
    store.put("sessions/s/lease.json", b"{\"worker", "application/json").unwrap();
    store.put("sessions/s/messages/2023-11-14.json", b"[{\"id\":", "application/json").unwrap();
    let a = Worker::new(&store, "a");
    let key = a.session("s");
    a.sync.acquire("s", key).unwrap();
    assert_eq!(keys(&store, "quarantine/sessions/s/").len(), 2);
    assert_eq!(a.sync.stats().quarantined, 2);
    a.write(key, [("M1".to_owned(), 1_700_000_000)]);
    a.flush();
    let part = "sessions/s/messages/2023-11-14.2.json";
    assert!(store.get(part).unwrap().is_some(), "the damaged part is left alone");
}

/// An account made by a real client.
fn account() -> Vec<Write> {
    let text = include_str!("../../../tests/vectors/baileys_auth/seven_lid.json");
    let made: serde_json::Value = serde_json::from_str(text).unwrap();
    let files = made["files"].as_object().unwrap().iter();
    let files = files.map(|(name, text)| (name.clone(), text.as_str().unwrap().as_bytes().to_vec()));
    baileys::load(files, Freshness::Clean).unwrap().writes
}

#[test]
fn an_end_between_the_lease_and_the_note_of_it_does_not_send_the_account_back_to_the_bucket() {
    let store = Arc::new(MemoryObjects::default());
    let mut a = Worker::new(&store, "a");
    let key = a.session("s");
    let mut ratchets = Vec::new();
    for generation in 1..4 {
        a.sync.acquire("s", key).unwrap();
        assert_eq!(a.local.lease(key).unwrap(), Some(LeaseRow { generation, complete: true }));
        if generation == 1 {
            a.local.adopt_state(key, account(), false).unwrap();
            ratchets = a.ratchets(key);
        }
        assert!(a.has_account(key) && !ratchets.is_empty());
        assert_eq!(a.ratchets(key), ratchets, "the newest state is here: chains go on");
        assert!(
            store.get("sessions/s/auth_info_baileys/creds.json").unwrap().is_none(),
            "nothing was uploaded"
        );
        // As if the process had ended before: once and again.
        a.restart(&store, |local| local.set_lease(key, None).unwrap());
    }
}

#[test]
fn an_account_that_was_never_uploaded_outlives_a_damaged_lease() {
    let store = Arc::new(MemoryObjects::default());
    let mut a = Worker::new(&store, "a");
    let key = a.session("s");
    a.sync.acquire("s", key).unwrap();
    a.local.adopt_state(key, account(), false).unwrap();
    store.put("sessions/s/lease.json", b"{", "application/json").unwrap();
    a.restart(&store, |_| {});
    a.sync.acquire("s", key).unwrap();
    assert!(a.has_account(key));
    a.flush();
    assert!(store.get("sessions/s/auth_info_baileys/creds.json").unwrap().is_some(), "and is uploaded");
}

#[test]
fn a_deletion_leaves_nothing_and_no_worker_loads_what_is_half_gone() {
    let store = Arc::new(MemoryObjects::default());
    let (a, b) = (Worker::new(&store, "a"), Worker::new(&store, "b"));
    let key = a.session("s");
    a.sync.acquire("s", key).unwrap();
    a.flush();
    for object in ["media/s/images/1.jpg", "sessions/s-x/lease.json", "media/s-x/images/1.jpg"] {
        store.put(object, b"x", "text/plain").unwrap();
    }
    a.local.delete_session_and_objects(key).unwrap();
    a.sync.remove("s", Some(key)).unwrap();
    assert_eq!(keys(&store, ""), ["media/s-x/images/1.jpg", "sessions/s-x/lease.json"]);
    assert!(a.local.removals().unwrap().is_empty());
    let tombstone = lease::Lease {
        state: lease::State::Deleting,
        ..lease::Lease::held(&a.sync.inner.holder, 3, now_ms() + 60_000)
    };
    lease::write(&*store, "t", &tombstone, None).unwrap();
    let at_b = b.session("t");
    assert_eq!(b.sync.acquire("t", at_b), Err(CustodyError::Deleting));
}
