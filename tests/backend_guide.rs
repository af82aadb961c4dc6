//! The worker and a backend of the written guide: in order, restarted, away, wrong, silent.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::time::{Duration, Instant};

use common::{
    backend::{
        TOKEN,
        guide::{GuideBackend, REGISTER, STATUS, WORKER_ID},
        server::Trouble,
    },
    eventually,
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::{Value, json};

const ALICE: &str = "6281200000071";
const CAROL: &str = "4915100000072";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    sandbox
}

fn start(settings: &[(&str, &str)]) -> (Sandbox, GuideBackend, Worker) {
    let (sandbox, backend) = (sandbox(), GuideBackend::start());
    let worker = backend.worker(&sandbox, settings);
    backend.await_registration();
    (sandbox, backend, worker)
}

/// A text each way, whatever happens to the backend.
fn chats_on(sandbox: &Sandbox, worker: &Worker, round: &str) {
    common::durable::chat_both_ways(sandbox, worker, "alice", ALICE, CAROL, round);
}

#[test]
fn the_worker_registers_beats_and_tells_statuses_as_the_guide_has_them() {
    let (sandbox, backend, worker) = start(&[]);
    let registration = backend.registration().unwrap();
    assert_eq!(registration["endpoint"], json!(backend.endpoint()));
    assert_eq!(registration["maxSessions"], 50);
    let beat = backend.await_heartbeats(1);
    assert_eq!((&beat["status"], &beat["sessionCount"]), (&json!("online"), &json!(0)), "{beat}");

    worker.link(&sandbox, "alice", ALICE);
    chats_on(&sandbox, &worker, "hello");
    let last = backend.await_word("alice", "connected");
    assert_eq!(last["phoneNumber"], json!(format!("+{ALICE}")));
    let words = backend.words("alice");
    let qr = words.iter().position(|word| word == "qr_required").expect("a QR was told");
    assert!(backend.statuses("alice")[qr]["qrCode"].is_string(), "{words:?}");
    let times: Vec<jiff::Timestamp> = backend
        .statuses("alice")
        .iter()
        .map(|body| body["timestamp"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let beat = backend.await_heartbeats(2);
    assert_eq!(beat["sessionCount"], 1, "{beat}");
    assert!(beat["messageCount"].as_u64() >= Some(2), "{beat}");
    backend.assert_nothing_refused();
}

#[test]
fn the_qr_that_is_told_is_the_one_to_scan() {
    let (sandbox, backend, worker) = start(&[]);
    worker.create("alice");
    let answer = worker.post("/session/alice/connect", &json!({}));
    let told = backend.await_word("alice", "qr_required");
    assert_eq!(told["qrCode"], answer["qrCode"], "the answer and the webhook show the same picture");
    let (_, qr) = worker.ask("GET", "/session/alice/qr?format=raw", None);
    sandbox.post(&format!("/phones/{ALICE}/scan"), &json!({ "qr": qr }));
    backend.await_word("alice", "connected");
    backend.assert_nothing_refused();
}

#[test]
fn a_worker_that_is_there_before_its_backend_works_and_tells_everything_later() {
    let (sandbox, backend) = (sandbox(), GuideBackend::absent());
    let worker = backend.worker(&sandbox, &[]);
    worker.link(&sandbox, "alice", ALICE);
    chats_on(&sandbox, &worker, "alone");
    backend.server.open();
    backend.await_registration();
    backend.await_word("alice", "connected");
    assert_eq!(backend.server.requests(REGISTER).len(), 1, "one registration is enough");
    let first = backend.server.requests("").into_iter().next().unwrap();
    assert!(first.is("POST", REGISTER), "the registration comes first: {first:?}");
    backend.assert_nothing_refused();
}

#[test]
fn a_backend_that_forgot_the_worker_gets_it_back_with_its_sessions() {
    let (sandbox, backend, worker) = start(&[]);
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    backend.server.close();
    backend.forget_everything();
    chats_on(&sandbox, &worker, "while it restarts");
    backend.server.open();
    backend.await_registration();
    backend.await_word("alice", "connected");
    backend.assert_nothing_refused();
}

#[test]
fn a_restarted_worker_tells_where_its_sessions_are() {
    let (sandbox, backend, mut worker) = start(&[]);
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    for kill in [false, true] {
        if kill {
            worker.kill();
        } else {
            assert_eq!(worker.stop().code(), Some(0), "{}", worker.log());
        }
        backend.forget_everything();
        worker.start_again();
        backend.await_registration();
        backend.await_word("alice", "connected");
        assert!(!backend.words("alice").contains(&"qr_required".to_owned()), "no new QR");
    }
    backend.assert_nothing_refused();
}

#[test]
fn a_stopping_worker_says_that_it_drains_and_does_not_unregister() {
    let (sandbox, backend, mut worker) = start(&[]);
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    assert_eq!(worker.stop().code(), Some(0), "{}", worker.log());
    let beats = backend.heartbeats();
    assert_eq!(beats.last().unwrap().json()["status"], "draining", "the last one before the end");
    let others = backend.server.requests("/api/v1/workers");
    let others: Vec<_> = others.iter().filter(|one| one.method == "DELETE").collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(backend.registration().is_some());
    backend.assert_nothing_refused();
}

#[test]
fn a_deleted_session_is_told_and_then_never_mentioned_again() {
    let (sandbox, backend, worker) = start(&[]);
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    assert_eq!(worker.ask("DELETE", "/session/alice", None).0, 200);
    let beat = backend.await_heartbeats(3);
    assert_eq!(beat["sessionCount"], 0, "{beat}");
    let words = backend.words("alice");
    assert!(
        matches!(words.last().unwrap().as_str(), "disconnected" | "logged_out"),
        "the end is told: {words:?}"
    );
    backend.forget_everything();
    backend.await_registration();
    backend.await_heartbeats(2);
    assert!(backend.words("alice").is_empty(), "it is not among what is told again");
    backend.assert_nothing_refused();
}

#[test]
fn heartbeats_keep_their_pace_while_webhooks_hang() {
    let (sandbox, backend, worker) = start(&[]);
    backend.server.trouble("/api/webhooks/", Trouble::Hang);
    worker.link(&sandbox, "alice", ALICE);
    eventually("a webhook hangs", || (!backend.server.requests(STATUS).is_empty()).then_some(()));
    let before = backend.heartbeats().len();
    backend.await_heartbeats(5);
    let beats = backend.heartbeats();
    for pair in beats[before..].windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause < Duration::from_millis(2500), "{pause:?} between two heartbeats");
    }
    chats_on(&sandbox, &worker, "while webhooks hang");
    backend.server.heal();
    backend.await_word("alice", "connected");
    backend.assert_nothing_refused();
}

/// The trouble on everything, then on webhooks alone; afterwards all is as it should be.
fn survives(trouble: &Trouble) {
    let (sandbox, backend, worker) = start(&[]);
    worker.create("alice");
    backend.trouble_until_met("/api/", trouble.clone(), 4);
    worker.post("/session/alice/connect", &json!({}));
    backend.await_word("alice", "qr_required");

    let met = backend.server.requests(STATUS).len();
    backend.server.trouble(STATUS, trouble.clone());
    let (_, qr) = worker.ask("GET", "/session/alice/qr?format=raw", None);
    sandbox.post(&format!("/phones/{ALICE}/scan"), &json!({ "qr": qr }));
    worker.await_status("alice", "connected");
    chats_on(&sandbox, &worker, "in trouble");
    eventually("webhooks meet the trouble", || (backend.server.requests(STATUS).len() > met).then_some(()));
    backend.server.heal();
    // What the backend refused for good waits until a person looks at it.
    worker.post("/webhooks/replay", &json!({}));
    backend.await_word("alice", "connected");
    backend.await_registration();
    assert_eq!(backend.await_heartbeats(1)["status"], "online");
    let words = backend.words("alice");
    let after_qr = words.iter().skip_while(|word| *word != "connected");
    assert!(after_qr.into_iter().all(|word| word == "connected"), "nothing old comes late: {words:?}");
    backend.assert_nothing_refused();
}

#[test]
fn refusals_of_the_token_are_survived() {
    survives(&Trouble::Status(401));
}

#[test]
fn answers_of_404_are_survived() {
    survives(&Trouble::Status(404));
}

#[test]
fn answers_of_409_are_survived() {
    survives(&Trouble::Status(409));
}

#[test]
fn answers_of_429_are_survived() {
    survives(&Trouble::TooMany(1));
}

#[test]
fn answers_of_500_are_survived() {
    survives(&Trouble::Status(500));
}

#[test]
fn half_answers_are_survived() {
    survives(&Trouble::HalfAnswer);
}

#[test]
fn connections_that_end_without_an_answer_are_survived() {
    survives(&Trouble::NoAnswer);
}

#[test]
fn silence_is_survived() {
    survives(&Trouble::Hang);
}

#[test]
fn slow_answers_are_survived() {
    survives(&Trouble::Slow(Duration::from_millis(700)));
}

/// Whoever answers 200 has taken the webhook, whatever page it shows; what counts is that nothing breaks.
#[test]
fn answers_that_are_no_json_are_survived() {
    for trouble in [Trouble::Html, Trouble::WrongJson] {
        let (sandbox, backend) = (sandbox(), GuideBackend::start());
        backend.server.trouble("/api/", trouble);
        let worker = backend.worker(&sandbox, &[]);
        worker.link(&sandbox, "alice", ALICE);
        chats_on(&sandbox, &worker, "nonsense");
        eventually("the worker meets it", || (backend.heartbeats().len() > 2).then_some(()));
        backend.server.heal();
        backend.await_registration();
        assert_eq!(worker.ask("POST", "/session/alice/disconnect", None).0, 200);
        backend.await_word("alice", "disconnected");
        backend.assert_nothing_refused();
    }
}

#[test]
fn retry_after_is_kept_to() {
    let (sandbox, backend, worker) = start(&[]);
    backend.server.trouble_times(STATUS, 1, Trouble::TooMany(3));
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    let webhooks = backend.server.requests(STATUS);
    let pause = webhooks[1].at - webhooks[0].at;
    assert!(pause >= Duration::from_secs(3), "{pause:?} after `Retry-After: 3`");
    assert!(pause < Duration::from_secs(10), "{pause:?} after `Retry-After: 3`");
}

#[test]
fn each_webhook_carries_its_id_number_and_attempt() {
    let (sandbox, backend, worker) = start(&[]);
    backend.server.trouble_times(STATUS, 1, Trouble::Status(500));
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    let webhooks = backend.server.requests(STATUS);
    let header = |index: usize, name: &str| webhooks[index].header(name).expect(name).to_owned();
    assert_eq!(header(0, "X-Webhook-Event-Id"), header(1, "X-Webhook-Event-Id"), "the same once more");
    assert_eq!((header(0, "X-Webhook-Attempt"), header(1, "X-Webhook-Attempt")), ("1".into(), "2".into()));
    assert_eq!(webhooks[0].body, webhooks[1].body);
    let numbers: Vec<u64> =
        webhooks.iter().map(|one| one.header("X-Webhook-Seq").unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(webhooks[0].header("X-Webhook-Signature").is_none(), "there is no secret");
    for webhook in &webhooks {
        assert_eq!(webhook.header("Authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    }
}

#[test]
fn of_the_qrs_of_an_outage_only_the_last_is_told() {
    let (_sandbox, backend, worker) = start(&[]);
    worker.create("alice");
    backend.server.close();
    let mut last = Value::Null;
    for _ in 0..3 {
        last = worker.post("/session/alice/connect", &json!({}));
        assert_eq!(last["status"], "qr_required", "{last}");
        worker.post("/session/alice/disconnect", &json!({}));
    }
    let answer = worker.post("/session/alice/connect", &json!({}));
    assert_ne!(answer["qrCode"], last["qrCode"]);
    backend.server.open();
    let told = backend.await_word("alice", "qr_required");
    assert_eq!(told["qrCode"], answer["qrCode"]);
    let with_qr = backend.statuses("alice").iter().filter(|body| body.get("qrCode").is_some()).count();
    assert_eq!(with_qr, 1, "{:?}", backend.words("alice"));
    backend.assert_nothing_refused();
}

#[test]
fn an_outage_disturbs_no_session_and_costs_a_dead_backend_few_calls() {
    let (sandbox, backend, worker) = start(&[]);
    worker.link(&sandbox, "alice", ALICE);
    backend.await_word("alice", "connected");
    backend.server.trouble("/api/webhooks/", Trouble::Status(503));
    let begun = Instant::now();
    let calls = backend.server.requests(STATUS).len();
    for round in 0..8 {
        worker.post("/session/alice/disconnect", &json!({}));
        worker.post("/session/alice/connect", &json!({}));
        worker.await_status("alice", "connected");
        chats_on(&sandbox, &worker, &format!("round {round}"));
    }
    let (calls, seconds) = (backend.server.requests(STATUS).len() - calls, begun.elapsed().as_secs());
    let most = usize::try_from(seconds).unwrap() + 8;
    assert!(calls <= most, "{calls} calls to a dead backend in {seconds} s");
    worker.post("/session/alice/disconnect", &json!({}));
    backend.server.heal();
    backend.await_word("alice", "disconnected");
    let history = worker.received("alice", &chat(CAROL));
    assert_eq!(history.len(), 8);
    backend.assert_nothing_refused();
}

#[test]
fn a_worker_without_a_backend_asks_nobody() {
    let (sandbox, backend) = (sandbox(), GuideBackend::start());
    let worker = Worker::start(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    assert!(backend.server.requests("").is_empty());
    let health = worker.get("/health");
    assert_eq!(health["status"], "online", "{WORKER_ID} is no name of it: {health}");
}
