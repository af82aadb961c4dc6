//! One contract for every object store: in memory, in a folder, in MinIO and in Ceph's radosgw; plain and encrypted.
//!
//! The contract is the documentation of `ObjectStore`. What only an S3 server can show (wrong keys, broken answers, a
//! server that is down) is in `object_s3.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand_core::{OsRng, RngCore as _};
use whatsapp_worker::storage::{
    object::{
        Condition, Conditions, NewObject, ObjectStore, directory::DirectoryStore, encrypted::EncryptedStore,
        memory::MemoryObjects, s3::S3Store, self_test,
    },
    seal::{KeyRing, OVERHEAD, SealKey},
};

/// A store under test, and a place of its own in it.
struct Subject {
    store: Arc<dyn ObjectStore>,
    /// `sessions/<random>/`: what is below is encrypted where the store encrypts.
    folder: String,
    /// What encryption adds to the size of an object.
    overhead: usize,
    _dir: Option<tempfile::TempDir>,
}

impl Subject {
    fn new(store: Arc<dyn ObjectStore>, is_encrypted: bool, dir: Option<tempfile::TempDir>) -> Self {
        let folder = format!("sessions/{:016x}/", OsRng.next_u64());
        if !is_encrypted {
            return Self { store, folder, overhead: 0, _dir: dir };
        }
        let ring = KeyRing::new(SealKey::parse(&"5e".repeat(32)), Vec::new());
        Self { store: Arc::new(EncryptedStore::new(store, ring)), folder, overhead: OVERHEAD, _dir: dir }
    }

    fn memory(is_encrypted: bool) -> Self {
        Self::new(Arc::new(MemoryObjects::default()), is_encrypted, None)
    }

    fn directory(is_encrypted: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(&dir.path().join("objects")).unwrap();
        Self::new(Arc::new(store), is_encrypted, Some(dir))
    }

    fn minio(is_encrypted: bool) -> Self {
        let config = common::objects::minio().config("contract");
        Self::new(Arc::new(S3Store::open(&config).unwrap()), is_encrypted, None)
    }

    fn radosgw(is_encrypted: bool) -> Self {
        let config = common::objects::radosgw().config("contract");
        Self::new(Arc::new(S3Store::open(&config).unwrap()), is_encrypted, None)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    fn put(&self, name: &str, content: &[u8]) {
        self.store.put(&self.key(name), content, "application/octet-stream").unwrap();
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.store.get(&self.key(name)).unwrap().map(|object| object.bytes)
    }

    /// Names below the folder of this test.
    fn names(&self, prefix: &str) -> Vec<String> {
        let listed = self.store.list(&self.key(prefix)).unwrap();
        listed.into_iter().map(|info| info.key.strip_prefix(&self.folder).unwrap().to_owned()).collect()
    }
}

fn an_object_is_what_was_written_last(subject: &Subject) {
    let (store, key) = (&subject.store, subject.key("creds.json"));
    assert!(store.get(&key).unwrap().is_none());
    let first = store.put(&key, b"{\"a\":1}", "application/json").unwrap();
    let read = store.get(&key).unwrap().unwrap();
    assert_eq!((read.bytes.as_slice(), &read.version), (b"{\"a\":1}".as_slice(), &first));
    let second = store.put(&key, b"\0\xff\r\n", "application/octet-stream").unwrap();
    assert_ne!(first, second);
    assert_eq!(subject.get("creds.json").unwrap(), b"\0\xff\r\n");
    store.put(&key, b"", "text/plain").unwrap();
    assert_eq!(subject.get("creds.json").unwrap(), b"");
    store.delete(&key).unwrap();
    assert!(store.get(&key).unwrap().is_none());
    store.delete(&key).unwrap();
    store.delete(&subject.key("never/was")).unwrap();
    assert!(subject.names("").is_empty());
}

fn a_conditional_write_happens_when_its_condition_holds(subject: &Subject) {
    let (store, key) = (&subject.store, subject.key("lease"));
    let put_if = |content: &[u8], condition| store.put_if(&key, content, &condition).unwrap();
    let first = put_if(b"1", Condition::Absent).expect("there is none");
    assert_eq!(put_if(b"2", Condition::Absent), None);
    assert_eq!(subject.get("lease").unwrap(), b"1");
    let second = put_if(b"3", Condition::Is(first.clone())).expect("it is the one");
    assert_eq!(store.get(&key).unwrap().unwrap().version, second);
    assert_eq!(put_if(b"4", Condition::Is(first.clone())), None);
    assert_eq!(subject.get("lease").unwrap(), b"3");
    let third = store.put(&key, b"5", "text/plain").unwrap();
    assert_eq!(put_if(b"6", Condition::Is(second)), None);
    assert!(put_if(b"7", Condition::Is(third.clone())).is_some());
    store.delete(&key).unwrap();
    assert_eq!(put_if(b"8", Condition::Is(third)), None);
    assert_eq!(store.put_if(&subject.key("missing"), b"9", &Condition::Is(first)).unwrap(), None);
    assert!(subject.names("").is_empty());
    assert!(put_if(b"10", Condition::Absent).is_some());
}

fn every_name_that_a_key_may_have_comes_back_as_it_is(subject: &Subject) {
    let long = "n".repeat(255);
    let deep = format!("{0}/{0}/{1}", "d".repeat(200), "e".repeat(200));
    let names = [
        "session-4915100000001.0.json",
        "a b",
        " leading",
        "trailing ",
        "two  blanks",
        "plus+plus",
        "100%",
        "%2F",
        "%20",
        "a%2Fb",
        "at@s.whatsapp.net",
        "ümläut",
        "日本語",
        "😀",
        "q?x=1&y=2",
        "#hash",
        "semi;colon:comma,",
        "(paren)[brack]{brace}",
        "*!$'",
        "\"quoted\"",
        "<tag>&amp;",
        "back\\slash",
        "pipe|caret^tick`",
        "tilde~under_dash-dot.",
        ".hidden",
        "...",
        "=",
        "UPPER",
        "upper",
        "sender-key-120363000000000001@g.us--4915100000001--0.json",
        &long,
        &deep,
    ];
    let mut written = BTreeSet::new();
    for name in names {
        let content = format!("content of {name}");
        subject.put(name, content.as_bytes());
        assert_eq!(subject.get(name).as_deref(), Some(content.as_bytes()), "{name}");
        written.insert(name.to_owned());
        // Alone, by its own name as the prefix.
        assert!(subject.names(name).contains(&name.to_owned()), "{name}");
    }
    assert_eq!(subject.names(""), written.into_iter().collect::<Vec<_>>());
    for name in names {
        subject.store.delete(&subject.key(name)).unwrap();
        assert_eq!(subject.get(name), None, "{name}");
    }
    assert!(subject.names("").is_empty());
}

fn a_key_that_is_none_is_refused(subject: &Subject) {
    let store = &subject.store;
    for key in ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\nb"] {
        assert!(store.get(key).is_err(), "{key:?}");
        assert!(store.put(key, b"", "text/plain").is_err(), "{key:?}");
        assert!(store.put_if(key, b"", &Condition::Absent).is_err(), "{key:?}");
        assert!(store.delete(key).is_err(), "{key:?}");
    }
}

fn a_prefix_may_end_anywhere_and_lists_in_byte_order(subject: &Subject) {
    for name in ["user1-x/a", "user1/b", "user1/a/deep", "user10/a", "user2", "User1/a"] {
        subject.put(name, name.as_bytes());
    }
    assert_eq!(subject.names(""), ["User1/a", "user1-x/a", "user1/a/deep", "user1/b", "user10/a", "user2"]);
    assert_eq!(subject.names("user1/"), ["user1/a/deep", "user1/b"]);
    assert_eq!(subject.names("user1"), ["user1-x/a", "user1/a/deep", "user1/b", "user10/a"]);
    assert_eq!(subject.names("user2"), ["user2"]);
    assert!(subject.names("user3").is_empty() && subject.names("user2/").is_empty());
    let folders = |name: &str| subject.store.folders(&format!("{}{name}", subject.folder)).unwrap();
    assert_eq!(folders(""), ["User1", "user1", "user1-x", "user10"]);
    assert_eq!(folders("user1/"), ["a"]);
    assert!(folders("user3/").is_empty());
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for info in subject.store.list(&subject.folder).unwrap() {
        let name = info.key.strip_prefix(&subject.folder).unwrap();
        assert_eq!(info.size, (name.len() + subject.overhead) as u64, "{name}");
        assert!(info.modified_ms.abs_diff(now) < 300_000, "{} at {now}", info.modified_ms);
        assert_eq!(info.version, subject.store.get(&info.key).unwrap().unwrap().version, "{name}");
    }
}

fn a_listing_is_whole_however_long(subject: &Subject) {
    let names: Vec<String> = (0..1100).map(|number| format!("list/pre-key-{number:04} +.json")).collect();
    in_parallel(8, |thread| {
        for name in names.iter().skip(thread).step_by(8) {
            subject.put(name, b"{}");
        }
    });
    subject.put("list.json", b"{}");
    assert_eq!(subject.names("list/"), names);
}

fn of_many_who_want_the_same_one_gets_it(subject: &Subject) {
    for round in 0..5 {
        let key = subject.key(&format!("race-{round}"));
        let mut holder = None;
        for condition in [None, Some(())] {
            let condition = match (condition, holder.take()) {
                (Some(()), Some(version)) => Condition::Is(version),
                _ => Condition::Absent,
            };
            let winners = in_parallel(8, |thread| {
                let content = format!("{thread} {condition:?}");
                subject.store.put_if(&key, content.as_bytes(), &condition).unwrap().map(|won| (content, won))
            });
            let winners: Vec<_> = winners.into_iter().flatten().collect();
            let [(content, version)] = winners.as_slice() else {
                panic!("{round} {condition:?}: {winners:?}")
            };
            let stayed = subject.store.get(&key).unwrap().unwrap();
            assert_eq!((stayed.bytes.as_slice(), &stayed.version), (content.as_bytes(), version));
            holder = Some(version.clone());
        }
    }
}

fn no_update_is_lost_when_everybody_reads_and_writes_on_condition(subject: &Subject) {
    let key = subject.key("counter");
    subject.put("counter", b"0 nobody");
    in_parallel(8, |thread| {
        for _ in 0..10 {
            loop {
                let now = subject.store.get(&key).unwrap().unwrap();
                let text = String::from_utf8(now.bytes).unwrap();
                let value: u64 = text.split(' ').next().unwrap().parse().unwrap();
                let next = format!("{} {thread}", value + 1);
                if subject.store.put_if(&key, next.as_bytes(), &Condition::Is(now.version)).unwrap().is_some()
                {
                    break;
                }
            }
        }
    });
    assert!(subject.get("counter").unwrap().starts_with(b"80 "));
}

fn a_reader_never_sees_a_part(subject: &Subject) {
    let contents = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    subject.put("object", &contents[0]);
    let done = std::sync::atomic::AtomicBool::new(false);
    in_parallel(4, |thread| {
        if thread == 0 {
            for round in 0..40 {
                subject.put("object", &contents[round % 2]);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let seen = subject.get("object").expect("it is always there");
            assert!(contents.contains(&seen), "{} bytes of {:?}", seen.len(), seen.first());
        }
    });
}

fn large_objects_go_in_and_out(subject: &Subject) {
    let mut content = vec![0; 20 << 20];
    OsRng.fill_bytes(&mut content);
    subject.put("video.mp4", &content);
    assert!(subject.get("video.mp4").unwrap() == content, "the content differs");
    let listed = subject.store.list(&subject.key("video.mp4")).unwrap();
    assert_eq!(listed[0].size, (content.len() + subject.overhead) as u64);
}

fn many_objects_are_written_at_once(subject: &Subject) {
    subject.put("a/3", b"an older one");
    let object = |number: usize| NewObject {
        key: subject.key(&format!("{}/{number}", ["a", "b/c"][number % 2])),
        bytes: format!("content {number}").into_bytes(),
        content_type: "text/plain",
    };
    let objects: Vec<NewObject> = (0..40).map(object).collect();
    let (written, result) = subject.store.put_all(&objects);
    assert_eq!((written, result.is_ok()), (objects.len(), true));
    for NewObject { key, bytes, .. } in &objects {
        assert_eq!(subject.store.get(key).unwrap().unwrap().bytes, *bytes);
    }
    assert_eq!(subject.names("").len(), objects.len() + 1);
    assert_eq!(subject.get("a/3").unwrap(), b"an older one");
    // Written again, with one in it that cannot be: what is counted is there.
    let mut objects: Vec<NewObject> =
        objects.into_iter().map(|object| NewObject { bytes: b"second".to_vec(), ..object }).collect();
    objects[30].key = "../a".to_owned();
    let (written, result) = subject.store.put_all(&objects);
    assert!(result.is_err() && written <= 30, "{written}");
    for object in &objects[..written] {
        assert_eq!(subject.store.get(&object.key).unwrap().unwrap().bytes, b"second");
    }
}

fn many_threads_work_side_by_side(subject: &Subject) {
    in_parallel(8, |thread| {
        for round in 0..10 {
            let name = format!("thread-{thread}/{round}");
            subject.put(&name, name.as_bytes());
            assert_eq!(subject.get(&name).unwrap(), name.as_bytes());
            assert_eq!(subject.names(&name), [name.as_str()]);
            if round % 2 == 0 {
                subject.store.delete(&subject.key(&name)).unwrap();
            }
        }
    });
    assert_eq!(subject.names("").len(), 40);
}

fn it_passes_its_self_test_and_nothing_is_left(subject: &Subject) {
    assert_eq!(self_test(&*subject.store).unwrap(), Conditions::Enforced);
    // Another test of this process may be trying the same bucket now.
    let is_empty = || subject.store.list("temp/self-test/").unwrap().is_empty().then_some(());
    common::eventually("the self-test has swept", is_empty);
}

/// Runs `work` on that many threads that begin at once; their results in order.
fn in_parallel<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (work, start) = (&work, &Barrier::new(threads));
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A module per store with a test per clause of the contract.
macro_rules! contract {
    ($($module:ident: $store:ident($is_encrypted:literal);)*) => {
        $(contract!(@ $module, $store, $is_encrypted,
            an_object_is_what_was_written_last,
            a_conditional_write_happens_when_its_condition_holds,
            every_name_that_a_key_may_have_comes_back_as_it_is,
            a_key_that_is_none_is_refused,
            a_prefix_may_end_anywhere_and_lists_in_byte_order,
            a_listing_is_whole_however_long,
            of_many_who_want_the_same_one_gets_it,
            no_update_is_lost_when_everybody_reads_and_writes_on_condition,
            a_reader_never_sees_a_part,
            large_objects_go_in_and_out,
            many_objects_are_written_at_once,
            many_threads_work_side_by_side,
            it_passes_its_self_test_and_nothing_is_left);)*
    };
    (@ $module:ident, $store:ident, $is_encrypted:literal, $($clause:ident),*) => {
        mod $module {
            $(#[test]
            fn $clause() {
                super::$clause(&super::Subject::$store($is_encrypted));
            })*
        }
    };
}

contract! {
    memory: memory(false);
    memory_encrypted: memory(true);
    directory: directory(false);
    directory_encrypted: directory(true);
    minio: minio(false);
    minio_encrypted: minio(true);
    radosgw: radosgw(false);
    radosgw_encrypted: radosgw(true);
}

#[test]
fn two_openings_of_one_folder_share_conditions_as_two_processes_do() {
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<_> = (0..8).map(|_| DirectoryStore::open(dir.path()).unwrap()).collect();
    for round in 0..20 {
        let key = format!("sessions/{round}/lease.json");
        let wins = in_parallel(8, |thread| {
            stores[thread].put_if(&key, format!("{thread}").as_bytes(), &Condition::Absent).unwrap().is_some()
        });
        assert_eq!(wins.iter().filter(|won| **won).count(), 1, "{wins:?}");
    }
}

#[test]
fn a_self_test_is_quick() {
    let subject = Subject::directory(false);
    let start = std::time::Instant::now();
    self_test(&*subject.store).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
