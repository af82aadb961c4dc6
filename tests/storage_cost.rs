//! What keeping things costs. Measurements, run by hand in release mode:
//!
//! ```text
//! cargo test --release --test storage_cost -- --ignored --nocapture --test-threads 1
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints, and fails like a test")]

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use whatsapp_worker::{
    storage::{
        local::{CommitListener, LocalStore, SessionKey, StoreError},
        object::directory::DirectoryStore,
        sync::{ObjectSync, SyncSettings},
    },
    whatsapp::{
        jid::Jid,
        model::{MessageRecord, MessageStatus},
        state::{Batch, Write},
    },
};

const DAY: u64 = 1_700_000_000;

struct Bench {
    local: LocalStore,
    sync: ObjectSync,
    sessions: Vec<SessionKey>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(sessions: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (local, sync) = open(dir.path());
        let create = |number| local.create_session(&format!("s{number}"), "u", None).unwrap().unwrap();
        let sessions: Vec<SessionKey> = (0..sessions).map(|number| create(number).key).collect();
        for (number, key) in sessions.iter().enumerate() {
            sync.acquire(&format!("s{number}"), *key).unwrap();
        }
        Self { local, sync, sessions, _dir: dir }
    }

    /// Stores messages, a few per session under way; waits until they are durable.
    fn store(&self, first: u64, count: u64) {
        let acks = Arc::new(Acks::default());
        let listener: Arc<dyn CommitListener> = Arc::<Acks>::clone(&acks);
        let window = 8 * self.sessions.len() as u64;
        for number in first..first + count {
            acks.wait(number.saturating_sub(first).saturating_sub(window));
            let session = self.sessions[usize::try_from(number).unwrap() % self.sessions.len()];
            let writes = vec![Write::Message(Box::new(message(number)))];
            self.local.submit(session, Batch { number, writes }, &listener).unwrap();
        }
        acks.wait(count);
    }

    fn flush(&self) -> Duration {
        let begun = Instant::now();
        assert_eq!(self.sync.flush(begun + Duration::from_secs(120)), 0);
        begun.elapsed()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.sync.stop();
    }
}

fn open(dir: &Path) -> (LocalStore, ObjectSync) {
    let local = LocalStore::open(dir).unwrap();
    let store = Arc::new(DirectoryStore::open(&dir.join("objects")).unwrap());
    let settings = SyncSettings {
        worker_id: "bench".to_owned(),
        shared: false,
        proven: true,
        single_worker: true,
        lease_ttl: Duration::from_secs(45),
        delay: Duration::from_millis(1500),
        spacing: Duration::from_secs(3),
        threads: 4,
        message_days: 0,
        media_days: 0,
    };
    let sync = ObjectSync::start(store, local.clone(), settings).unwrap();
    (local, sync)
}

#[derive(Default)]
struct Acks {
    count: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Acks {
    fn wait(&self, count: u64) {
        let lock = self.lock.lock().unwrap();
        drop(self.changed.wait_while(lock, |()| self.count.load(Ordering::SeqCst) < count).unwrap());
    }
}

impl CommitListener for Acks {
    fn committed(&self, _: u64, result: Result<Option<u64>, StoreError>) {
        result.unwrap();
        self.count.fetch_add(1, Ordering::SeqCst);
        drop(self.lock.lock().unwrap());
        self.changed.notify_all();
    }
    fn readable(&self, _: u64) {}
    fn reported(&self, _: u64, _: Result<Option<u64>, StoreError>) {}
}

fn message(number: u64) -> MessageRecord {
    MessageRecord {
        id: format!("3EB0{number:016X}"),
        chat: Jid::pn("6281200000002"),
        sender: Jid::pn("6281200000002"),
        from_me: false,
        kind: "text".to_owned(),
        content: "A text of a usual length, as people write them.".to_owned(),
        push_name: None,
        target_id: None,
        timestamp: DAY + number % 50_000,
        status: MessageStatus::Delivered,
        raw: vec![7; 120],
    }
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn measure(what: &str, bench: &Bench, first: u64, count: u64) -> Duration {
    let (begun, cpu_before, before) = (Instant::now(), cpu(), bench.sync.stats());
    bench.store(first, count);
    let stored = begun.elapsed();
    let late = bench.flush();
    let (cpu, after) = (cpu().saturating_sub(cpu_before), bench.sync.stats());
    println!(
        "{what}: {:.0} messages/s stored, {:.1} us CPU per message with uploads, {} objects, {} KiB, flushed in {late:?}",
        count as f64 / stored.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count as f64,
        after.uploads - before.uploads,
        (after.bytes - before.bytes) / 1024,
    );
    cpu
}

#[test]
#[ignore = "a measurement"]
fn messages_stored_per_second_with_1_10_and_100_sessions() {
    for sessions in [1, 10, 100] {
        let bench = Bench::new(sessions);
        measure(&format!("{sessions} sessions"), &bench, 0, 20_000);
    }
}

#[test]
#[ignore = "a measurement"]
fn a_message_costs_the_same_with_100_000_in_the_day_before_it() {
    let bench = Bench::new(1);
    let early = measure("an empty day", &bench, 0, 5_000);
    bench.store(5_000, 95_000);
    bench.flush();
    let late = measure("100,000 in the day", &bench, 100_000, 5_000);
    assert!(late < early * 2 + Duration::from_millis(50), "{early:?} became {late:?}");
}

#[test]
#[ignore = "a measurement"]
fn a_start_takes_the_leases_of_1_000_stored_sessions() {
    let bench = Bench::new(1_000);
    bench.flush();
    for key in &bench.sessions {
        bench.sync.release(*key, true, Instant::now() + Duration::from_secs(60)).unwrap();
    }
    let begun = Instant::now();
    for (number, key) in bench.sessions.iter().enumerate() {
        bench.sync.acquire(&format!("s{number}"), *key).unwrap();
    }
    println!("1,000 leases one after the other: {:?}", begun.elapsed());
}
