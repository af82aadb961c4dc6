//! Kills at random instants, and an object store that is away, slow or wrong: nothing acknowledged is lost or doubled.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    await_texts,
    durable::{Home, await_uploaded, chat_both_ways, metric, take_over},
    eventually, exchange,
    objects::{
        OwnMinio,
        careless::{Careless, Carelessness},
    },
    proxy::{Fault, FaultProxy, Plan},
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use serde_json::json;

const ALICE: &str = "6281200000081";
const CAROL: &str = "4915100000083";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    for phone in [ALICE, CAROL] {
        sandbox.add_phone(phone);
    }
    sandbox
}

/// `KILLS` and `SEED` make it longer, or repeat one run.
#[test]
fn two_hundred_kills_at_random_instants_lose_double_and_reuse_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (kills, seed) = (number("KILLS").unwrap_or(200), number("SEED").unwrap_or(1));
    println!("SEED={seed} KILLS={kills}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (sandbox, home) = (sandbox(), Home::new());
    let mut worker = home.worker(&sandbox, "a");
    worker.link(&sandbox, "alice", ALICE);
    let group = sandbox.create_group(CAROL, &[ALICE]);
    let stop = AtomicBool::new(false);
    let api = Mutex::new(worker.api.clone());
    let (accepted, written) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_all(&api, &group, &stop));
        let writing = scope.spawn(|| write_all(&sandbox, &stop));
        for _ in 0..kills {
            // From the first moments of a start to the middle of traffic.
            std::thread::sleep(Duration::from_millis(random.next_u64() % 900));
            worker.kill();
            worker.start_again();
            api.lock().unwrap().clone_from(&worker.api);
        }
        worker.await_status("alice", "connected");
        let before = sandbox.received(CAROL).len();
        eventually("traffic goes on after the last kill", || {
            (sandbox.received(CAROL).len() > before + 5).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), writing.join().unwrap())
    });
    assert!(accepted.len() > usize::try_from(kills).unwrap() / 4, "only {} were accepted", accepted.len());
    worker.send("alice", CAROL, "the end");
    let missing = || -> Vec<String> {
        let there: std::collections::BTreeSet<String> = sandbox.received(CAROL).into_iter().collect();
        accepted.iter().filter(|text| !there.contains(*text)).cloned().collect()
    };
    eventually("nothing accepted is missing", || missing().is_empty().then_some(()));
    let mut seen = BTreeMap::<String, usize>::new();
    for text in sandbox.received(CAROL) {
        *seen.entry(text).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "at the phone more than once: {twice:?}");
    await_texts("in the history", &written, || worker.received("alice", &chat(CAROL)));
    await_uploaded(&worker);
    let history = worker.history("alice").len();
    let (records, count) = home.records("alice");
    assert_eq!((records.len(), count), (history, history), "the bucket has each message once");
    sandbox.assert_no_violations();
}

/// Sends texts one after the other, to Carol and to the group in turns, by whichever worker there is; those that were
/// accepted.
fn send_all(api: &Mutex<String>, group: &str, stop: &AtomicBool) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("text {number}");
        let to = if number % 2 == 0 { group } else { CAROL };
        let body = json!({ "to": to, "type": "text", "message": text });
        let url = format!("{}/session/alice/send", api.lock().unwrap());
        match exchange("POST", &url, Some(&body)) {
            Ok((200 | 202, _)) => {
                accepted.push(text);
                std::thread::sleep(Duration::from_millis(2));
            }
            // Starting, or gone: not accepted, so not to be looked for.
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    accepted
}

fn write_all(sandbox: &Sandbox, stop: &AtomicBool) -> Vec<String> {
    let mut written = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("Carol's {}", written.len());
        sandbox.send(CAROL, ALICE, &text);
        written.push(text);
        std::thread::sleep(Duration::from_millis(20));
    }
    written
}

/// A worker whose bucket is behind a proxy that harms.
struct Harmed {
    minio: OwnMinio,
    proxy: FaultProxy,
}

impl Harmed {
    fn new() -> Self {
        let minio = OwnMinio::start();
        let proxy = FaultProxy::start(minio.server.address);
        Self { minio, proxy }
    }

    fn worker(&self, sandbox: &Sandbox) -> Worker {
        self.worker_named(sandbox, "a")
    }

    fn worker_named(&self, sandbox: &Sandbox, name: &str) -> Worker {
        let config = self.minio.server.config_at(self.proxy.address, "sessions-of-tests");
        let settings = [
            ("WORKER_ID", name),
            ("MINIO_ENDPOINT", &config.endpoint),
            ("MINIO_BUCKET_NAME", &config.bucket),
            ("MINIO_ACCESS_KEY", &config.access_key),
            ("MINIO_SECRET_KEY", config.secret_key.as_str()),
            ("STORAGE_LEASE_TTL", "4"),
        ];
        Worker::start_with(sandbox, &settings)
    }
}

#[test]
fn two_workers_on_one_bucket_hand_a_killed_ones_session_over() {
    let (sandbox, harmed) = (sandbox(), Harmed::new());
    let mut a = harmed.worker_named(&sandbox, "a");
    a.link(&sandbox, "alice", ALICE);
    chat_both_ways(&sandbox, &a, "alice", ALICE, CAROL, "first");
    await_uploaded(&a);
    let b = harmed.worker_named(&sandbox, "b");
    b.create("alice");
    let (status, answer) = b.ask("POST", "/session/alice/connect", Some(&json!({})));
    assert_eq!((status, &answer["details"]["workerId"]), (409, &json!("a")), "{answer}");
    a.kill();
    let took = take_over(&b, "alice");
    assert!(took < Duration::from_secs(60), "{took:?}");
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "second");
    assert_eq!(b.history("alice").len(), 4);
    a.start_again();
    eventually("the first worker keeps off", || (a.status("alice") == "error").then_some(()));
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "third");
    b.post("/session/alice/release", &json!({}));
    take_over(&a, "alice");
    chat_both_ways(&sandbox, &a, "alice", ALICE, CAROL, "fourth");
    sandbox.assert_no_violations();
}

#[test]
fn a_bucket_that_ignores_conditions_is_not_shared() {
    let careless = Careless::start(Carelessness::Ignores);
    let config = careless.server.config("sessions-of-tests");
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("WORKER_PORT", "0"),
        ("MINIO_ENDPOINT", &config.endpoint),
        ("MINIO_ACCESS_KEY", &config.access_key),
        ("MINIO_SECRET_KEY", config.secret_key.as_str()),
    ];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_whatsapp-worker"))
        .envs(settings)
        .env("STATE_DIR", dir.path().join("state"))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{log}");
    assert!(log.contains("ignores conditional writes") && log.contains("STORAGE_SINGLE_WORKER"), "{log}");
    let sandbox = sandbox();
    let alone = [&settings[1..], &[("STORAGE_SINGLE_WORKER", "true")]].concat();
    let worker = Worker::start_with(&sandbox, &alone);
    worker.link(&sandbox, "alice", ALICE);
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "alone");
    await_uploaded(&worker);
}

#[test]
fn an_object_store_that_is_away_for_long_costs_nothing_but_lag() {
    let (sandbox, harmed) = (sandbox(), Harmed::new());
    let mut worker = harmed.worker(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    await_uploaded(&worker);
    harmed.proxy.set_plan(Plan::Always(Fault::ResetBefore));
    let begun = Instant::now();
    let mut texts = Vec::new();
    // Longer than a lease lives.
    while begun.elapsed() < Duration::from_secs(8) {
        let text = format!("in the dark {}", texts.len());
        worker.send("alice", CAROL, &text);
        texts.push(text);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(metric(&worker, "whatsapp_worker_storage_pending_changes") > 0.0);
    assert_eq!(metric(&worker, "whatsapp_worker_storage_up"), 0.0);
    assert_eq!(worker.status("alice"), "connected");
    sandbox.await_received(CAROL, &texts);
    harmed.proxy.set_plan(Plan::Always(Fault::Pass));
    await_uploaded(&worker);
    assert_eq!(metric(&worker, "whatsapp_worker_storage_up"), 1.0);
    // Everything is there: a lost disk loses nothing.
    worker.kill();
    fs::remove_dir_all(&worker.state_dir).unwrap();
    worker.start_again();
    eventually("alice comes back", || {
        let (status, answer) = worker.ask("GET", "/session/alice/status", None);
        (status == 200 && answer["data"]["status"] == "connected").then_some(())
    });
    eventually("the whole history is back", || (worker.history("alice").len() == texts.len()).then_some(()));
    sandbox.assert_no_violations();
}

#[test]
fn an_object_store_that_stands_still_holds_up_no_session_and_no_write() {
    let (sandbox, harmed) = (sandbox(), Harmed::new());
    let worker = harmed.worker(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    await_uploaded(&worker);
    harmed.proxy.set_plan(Plan::Always(Fault::Stall));
    let (mut ours, mut theirs, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
    let begun = Instant::now();
    // Long enough for all upload threads and the renewal of the lease to hang.
    while begun.elapsed() < Duration::from_secs(6) {
        let text = format!("unhurried {}", ours.len());
        let sent = Instant::now();
        worker.send("alice", CAROL, &text);
        slowest = slowest.max(sent.elapsed());
        ours.push(text);
        theirs.push(format!("Carol's {}", theirs.len()));
        sandbox.send(CAROL, ALICE, theirs.last().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    // A transfer that stands still is given up after 20 s: whoever waited for one would take that long.
    assert!(slowest < Duration::from_secs(4), "a send took {slowest:?}");
    assert!(ours.len() > 20, "only {} texts were sent", ours.len());
    assert!(metric(&worker, "whatsapp_worker_storage_pending_changes") > 0.0, "nothing stood still");
    sandbox.await_received(CAROL, &ours);
    worker.await_received("alice", &chat(CAROL), &theirs);
    harmed.proxy.set_plan(Plan::Always(Fault::Pass));
    await_uploaded(&worker);
    assert_eq!(worker.status("alice"), "connected");
    sandbox.assert_no_violations();
}

#[test]
fn under_load_the_object_store_is_never_far_behind() {
    let (sandbox, harmed) = (sandbox(), Harmed::new());
    let worker = harmed.worker(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    await_uploaded(&worker);
    let stop = AtomicBool::new(false);
    let api = Mutex::new(worker.api.clone());
    let (sent, lag) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_all(&api, CAROL, &stop));
        let measuring = scope.spawn(|| {
            let (begun, mut lag) = (Instant::now(), 0.0f64);
            while begun.elapsed() < Duration::from_secs(8) {
                lag = lag.max(metric(&worker, "whatsapp_worker_storage_oldest_change_seconds"));
                std::thread::sleep(Duration::from_millis(100));
            }
            lag
        });
        let lag = measuring.join();
        stop.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), lag.unwrap())
    });
    assert!(sent.len() > 100, "only {} were sent", sent.len());
    // An upload begins 1.5 s after a change and at most every 3 s; the rest is for a busy machine.
    assert!(lag > 0.0 && lag < 12.0, "{lag} s behind");
    await_uploaded(&worker);
    sandbox.assert_no_violations();
}

#[test]
fn an_object_store_that_fails_by_chance_gets_everything_in_the_end() {
    let (sandbox, harmed) = (sandbox(), Harmed::new());
    let mut worker = harmed.worker(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    let faults = [
        Fault::Refuse(503),
        Fault::Fail(500),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncate,
        Fault::Delay(Duration::from_millis(300)),
    ];
    harmed.proxy.set_plan(Plan::seeded(7, 30, &faults));
    let mut texts = Vec::new();
    for number in 0..60 {
        let text = format!("by chance {number}");
        worker.send("alice", CAROL, &text);
        texts.push(text);
        std::thread::sleep(Duration::from_millis(100));
    }
    await_uploaded(&worker);
    assert!(harmed.proxy.faults() > 0, "the proxy harmed nothing");
    assert_eq!(worker.status("alice"), "connected", "an error is no lost lease");
    harmed.proxy.set_plan(Plan::Always(Fault::Pass));
    worker.kill();
    fs::remove_dir_all(&worker.state_dir).unwrap();
    worker.start_again();
    eventually("alice comes back", || {
        let (status, answer) = worker.ask("GET", "/session/alice/status", None);
        (status == 200 && answer["data"]["status"] == "connected").then_some(())
    });
    eventually("the whole history is back", || (worker.history("alice").len() == texts.len()).then_some(()));
    sandbox.await_received(CAROL, &texts);
    sandbox.assert_no_violations();
}
