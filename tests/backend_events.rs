//! Events on their way to the backend: which, in which order, how signed, and that none is lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use common::{
    backend::{
        guide::{GuideBackend, STATUS},
        server::Trouble,
        signature,
    },
    eventually,
    sandbox::Sandbox,
    texts,
    worker::{Worker, chat},
};
use serde_json::{Value, json};

const ALICE: &str = "6281200000101";
const CAROL: &str = "4915100000102";
const MESSAGE: &str = "/api/webhooks/message";
const SECRET: &str = "the-secret-of-this-year";
const OLD_SECRET: &str = "the-secret-of-last-year";

fn start(kinds: &[&str], settings: &[(&str, &str)]) -> (Sandbox, GuideBackend, Worker) {
    let (sandbox, backend) = (Sandbox::start(), GuideBackend::start());
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    backend.take_kinds(kinds);
    let worker = backend.worker(&sandbox, settings);
    backend.await_registration();
    worker.link(&sandbox, "alice", ALICE);
    (sandbox, backend, worker)
}

/// Each event once, in the order of the first delivery; those that came again are left out.
fn distinct(events: &[Value]) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    events.iter().filter(|event| seen.insert(event["eventId"].to_string())).cloned().collect()
}

fn contents(events: &[Value], from_me: bool) -> Vec<String> {
    let of = events.iter().filter(|event| event["data"]["fromMe"] == from_me);
    of.map(|event| event["data"]["content"].as_str().unwrap().to_owned()).collect()
}

/// Waits until that many messages of others were taken; gives all, without repetitions.
fn await_messages(backend: &GuideBackend, count: usize) -> Vec<Value> {
    eventually("the messages arrive at the backend", || {
        let events = distinct(&backend.events("alice", "message"));
        (contents(&events, false).len() >= count).then_some(events)
    })
}

fn assert_rising(events: &[Value]) {
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

#[test]
fn messages_and_their_progress_are_told_as_the_event_log_has_them() {
    let kinds = ["message", "message-status"];
    let (sandbox, backend, worker) = start(&kinds, &[("BACKEND_EVENTS", "message, message-status")]);
    let id = worker.send("alice", CAROL, "Hello Carol!");
    sandbox.send(CAROL, ALICE, "Hello Alice!");
    let messages = await_messages(&backend, 1);
    assert_eq!(contents(&messages, false), ["Hello Alice!"]);
    assert_eq!(messages.last().unwrap()["data"]["chat"], json!(chat(CAROL)));
    let progress = eventually("the progress of the sent one arrives", || {
        let events = backend.events("alice", "message-status");
        let words: Vec<Value> = events.iter().filter(|one| one["data"]["id"] == id).cloned().collect();
        words.iter().any(|one| one["data"]["status"] == "delivered").then_some(words)
    });
    let words: Vec<&Value> = progress.iter().map(|one| &one["data"]["status"]).collect();
    assert_eq!(words, ["sent", "delivered"]);

    let log = worker.events("alice");
    let told: Vec<Value> = kinds.iter().flat_map(|kind| backend.events("alice", kind)).collect();
    for event in &told {
        let number = usize::try_from(event["seq"].as_u64().unwrap()).unwrap();
        let logged = &log[number - 1];
        for name in ["eventId", "seq", "type", "timestamp", "data"] {
            assert_eq!(event[name], logged[name], "{name} of the same event");
        }
    }
    let wanted = log.iter().filter(|event| kinds.contains(&event["type"].as_str().unwrap())).count();
    assert_eq!(told.len(), wanted, "each once, since nothing went wrong");
    backend.assert_nothing_refused();
}

#[test]
fn with_all_events_the_numbers_have_no_gaps() {
    let kinds =
        ["message", "message-status", "paired", "login", "ready", "qr", "session-gap", "group-changed"];
    let (sandbox, backend, worker) = start(&kinds, &[("BACKEND_EVENTS", "all")]);
    for text in texts("text", 5) {
        sandbox.send(CAROL, ALICE, &text);
    }
    await_messages(&backend, 5);
    let numbers: BTreeSet<u64> = backend
        .server
        .requests("/api/webhooks/")
        .iter()
        .map(|one| one.header("X-Webhook-Seq").unwrap().parse().unwrap())
        .collect();
    let log = worker.events("alice");
    let missing: Vec<&Value> = log[..usize::try_from(*numbers.last().unwrap()).unwrap()]
        .iter()
        .filter(|event| !numbers.contains(&event["seq"].as_u64().unwrap()))
        .filter(|event| event["type"] != "qr" && event["data"]["status"] != "qr_required")
        .collect();
    assert!(missing.is_empty(), "not told: {missing:#?}");
    backend.assert_nothing_refused();
}

#[test]
fn a_backend_that_does_not_know_a_kind_is_not_asked_again_until_it_registers_the_worker() {
    let (sandbox, backend, worker) = start(&[], &[("BACKEND_EVENTS", "message")]);
    for text in texts("unwanted", 5) {
        sandbox.send(CAROL, ALICE, &text);
        worker.send("alice", CAROL, &text);
    }
    eventually("it was asked", || (!backend.server.requests(MESSAGE).is_empty()).then_some(()));
    worker.post("/session/alice/disconnect", &json!({}));
    backend.await_word("alice", "disconnected");
    assert_eq!(backend.server.requests(MESSAGE).len(), 1, "one 404 is enough");
    let said = worker.log().lines().filter(|line| line.contains("message") && line.contains("404")).count();
    assert!(said <= 1, "one line of log: {}", worker.log());

    backend.take_kinds(&["message"]);
    backend.forget_everything();
    backend.await_registration();
    worker.post("/session/alice/connect", &json!({}));
    sandbox.send(CAROL, ALICE, "wanted");
    let events = await_messages(&backend, 1);
    assert_eq!(contents(&events, false), ["wanted"]);
    backend.assert_nothing_refused();
}

#[test]
fn webhooks_are_signed_with_the_secret_and_during_a_change_with_both() {
    let (sandbox, backend, mut worker) =
        start(&["message"], &[("BACKEND_EVENTS", "message"), ("WEBHOOK_SECRET", OLD_SECRET)]);
    backend.await_word("alice", "connected");
    for webhook in backend.server.requests("/api/webhooks/") {
        let (is_good, seconds) = signature::check(&webhook, OLD_SECRET);
        assert!(is_good && seconds <= 5, "{webhook:?}");
        assert!(!signature::check(&webhook, SECRET).0);
    }
    worker.stop();
    let told = backend.server.requests("/api/webhooks/").len();
    worker.start_again_with(&[
        ("WEBHOOK_SECRET", SECRET.to_owned()),
        ("WEBHOOK_SECRET_OLD", OLD_SECRET.to_owned()),
    ]);
    sandbox.send(CAROL, ALICE, "signed twice ✓");
    await_messages(&backend, 1);
    for webhook in &backend.server.requests("/api/webhooks/")[told..] {
        assert_eq!(signature::count(webhook), 2);
        assert!(signature::check(webhook, SECRET).0 && signature::check(webhook, OLD_SECRET).0);
    }
    for request in backend.heartbeats() {
        assert!(request.header("X-Webhook-Signature").is_none(), "a heartbeat is no webhook");
    }
    backend.assert_nothing_refused();
}

#[test]
fn what_is_refused_for_good_is_listed_and_sent_again_on_demand() {
    let (sandbox, backend, worker) = start(&["message"], &[("BACKEND_EVENTS", "message")]);
    backend.await_word("alice", "connected");
    backend.server.trouble_times(MESSAGE, 2, Trouble::Status(422));
    for text in ["refused 1", "refused 2", "taken"] {
        sandbox.send(CAROL, ALICE, text);
    }
    let events = await_messages(&backend, 1);
    assert_eq!(contents(&events, false), ["taken"], "what is refused holds up nothing");

    let failed = worker.get("/webhooks/failed");
    assert_eq!(failed["total"], 2, "{failed}");
    let letters = failed["failed"].as_array().unwrap();
    assert_eq!(
        letters.iter().map(|one| &one["data"]["content"]).collect::<Vec<_>>(),
        ["refused 1", "refused 2"]
    );
    assert_eq!((&letters[0]["status"], &letters[0]["sessionId"]), (&json!(422), &json!("alice")));
    assert_eq!(worker.get("/webhooks/failed?sessionId=alice&limit=1")["failed"].as_array().unwrap().len(), 1);
    let after = letters[0]["number"].as_i64().unwrap();
    assert_eq!(
        worker.get(&format!("/webhooks/failed?after={after}"))["failed"][0]["data"]["content"],
        "refused 2"
    );

    let one = worker.post("/webhooks/replay", &json!({ "eventIds": [letters[1]["eventId"]] }));
    assert_eq!(one["replaying"], 1, "{one}");
    assert_eq!(contents(&await_messages(&backend, 2), false), ["taken", "refused 2"]);
    let all = worker.post("/webhooks/replay", &json!({ "sessionId": "alice" }));
    assert_eq!(all["replaying"], 1, "{all}");
    let events = await_messages(&backend, 3);
    assert_eq!(contents(&events, false), ["taken", "refused 2", "refused 1"]);
    assert_eq!(events[2]["eventId"], letters[0]["eventId"], "the same event as before");
    eventually("nothing is left", || (worker.get("/webhooks/failed")["total"] == 0).then_some(()));
    let (status, body) = worker.ask("POST", "/webhooks/replay", Some(&json!({ "sessionId": "nobody" })));
    assert_eq!(status, 404, "{body}");
}

#[test]
fn after_an_outage_everything_arrives_in_order() {
    let (sandbox, backend, worker) = start(&["message"], &[("BACKEND_EVENTS", "message")]);
    backend.await_word("alice", "connected");
    let expected = texts("during the outage", 60);
    for (number, text) in expected.iter().enumerate() {
        match number {
            10 => backend.server.close(),
            30 => {
                worker.post("/session/alice/disconnect", &json!({}));
                worker.post("/session/alice/connect", &json!({}));
                worker.await_status("alice", "connected");
            }
            _ => {}
        }
        sandbox.send(CAROL, ALICE, text);
    }
    worker.await_received("alice", &chat(CAROL), &expected);
    backend.server.open();
    backend.server.trouble_times(MESSAGE, 1, Trouble::Status(503));
    backend.server.trouble_times(MESSAGE, 1, Trouble::NoAnswer);
    backend.server.trouble_times(MESSAGE, 1, Trouble::HalfAnswer);
    let events = await_messages(&backend, expected.len());
    assert_eq!(contents(&events, false), expected);
    assert_rising(&events);
    backend.await_word("alice", "connected");
    backend.assert_nothing_refused();
}

#[test]
fn a_thousand_messages_over_killed_workers_arrive_in_order_and_none_is_missing() {
    const COUNT: usize = 1000;
    const KILLS: usize = 4;
    let (sandbox, backend, mut worker) = start(&["message"], &[("BACKEND_EVENTS", "message")]);
    backend.await_word("alice", "connected");
    sandbox
        .post("/blast", &json!({ "from": [CAROL], "to": [ALICE], "count": COUNT, "rate": 400, "text": "m" }));
    for kill in 1..=KILLS {
        eventually("some were delivered", || {
            (distinct(&backend.events("alice", "message")).len() >= kill * COUNT / 6).then_some(())
        });
        // Not all of them: received, and perhaps not yet told.
        worker.kill();
        worker.start_again();
    }
    let events = await_messages(&backend, COUNT);
    assert_rising(&events);
    let arrived = contents(&events, false);
    assert_eq!(arrived.len(), COUNT);
    assert_eq!(arrived, sandbox_order(&sandbox), "in the order they were written");
    let deliveries = backend.events("alice", "message");
    for event in &events {
        let times = deliveries.iter().filter(|one| one["eventId"] == event["eventId"]).collect::<Vec<_>>();
        assert!(times.iter().all(|one| *one == event), "what comes again is the same: {times:#?}");
        assert!(times.len() <= 1 + KILLS, "once more with each kill at most: {times:#?}");
    }
    backend.assert_nothing_refused();
    sandbox.assert_no_violations();
}

/// What Carol wrote, oldest first.
fn sandbox_order(sandbox: &Sandbox) -> Vec<String> {
    let all = sandbox.messages(CAROL);
    let own = all.iter().filter(|message| message["fromMe"] == true);
    own.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_webhook_whose_answer_is_lost_comes_again_with_the_same_id() {
    let (sandbox, backend, _worker) = start(&["message"], &[("BACKEND_EVENTS", "message")]);
    backend.await_word("alice", "connected");
    backend.server.trouble_times(MESSAGE, 1, Trouble::NoAnswer);
    sandbox.send(CAROL, ALICE, "twice");
    let events = eventually("it comes again", || {
        Some(backend.events("alice", "message")).filter(|events| events.len() == 2)
    });
    assert_eq!(events[0], events[1]);
    let attempts: Vec<_> = backend.server.requests(MESSAGE);
    assert_eq!(attempts[1].header("X-Webhook-Attempt"), Some("2"));
    backend.assert_nothing_refused();
}

#[test]
fn one_session_that_is_refused_does_not_hold_up_another() {
    let (sandbox, backend, worker) = start(&["message"], &[("BACKEND_EVENTS", "message")]);
    sandbox.add_phone("6281200000103");
    worker.link(&sandbox, "bob", "6281200000103");
    backend.await_word("bob", "connected");
    backend.server.trouble_times(MESSAGE, 1, Trouble::Hang);
    sandbox.send(CAROL, ALICE, "hangs");
    eventually("a webhook hangs", || (!backend.server.requests(MESSAGE).is_empty()).then_some(()));
    sandbox.send(CAROL, "6281200000103", "passes");
    let events = eventually("the other one passes", || {
        Some(backend.events("bob", "message")).filter(|events| !events.is_empty())
    });
    assert_eq!(contents(&events, false), ["passes"]);
    assert!(backend.events("alice", "message").is_empty(), "while the first still hangs");
    assert_eq!(contents(&await_messages(&backend, 1), false), ["hangs"], "and comes in the end");
    backend.assert_nothing_refused();
}

#[test]
fn events_of_a_time_without_a_backend_are_not_told_to_one_later() {
    let (sandbox, backend, mut worker) = start(&["message"], &[("BACKEND_EVENTS", "message")]);
    backend.await_word("alice", "connected");
    worker.stop();
    worker.start_again_with(&[("BACKEND_URL", String::new())]);
    worker.await_status("alice", "connected");
    sandbox.send(CAROL, ALICE, "nobody is told");
    worker.await_received("alice", &chat(CAROL), &["nobody is told".to_owned()]);
    let told = backend.server.requests(STATUS).len();
    worker.stop();
    worker.start_again_with(&[("BACKEND_URL", backend.server.url())]);
    eventually("it is told where the session is", || {
        (backend.server.requests(STATUS).len() > told).then_some(())
    });
    sandbox.send(CAROL, ALICE, "told");
    assert_eq!(contents(&await_messages(&backend, 1), false), ["told"]);
}

#[test]
fn a_session_that_was_away_says_from_when_to_when() {
    let kinds = ["session-gap", "message"];
    let (sandbox, backend, worker) = start(&kinds, &[("BACKEND_EVENTS", "session-gap,message")]);
    let told = worker.events("alice").len();
    sandbox.fault(ALICE, &json!({ "fault": "drop" }));
    sandbox.send(CAROL, ALICE, "while it is away");
    worker.await_login("alice", told);
    let gap = eventually("the gap is told", || backend.events("alice", "session-gap").pop());
    let time = |name: &str| gap["data"][name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("from") <= time("to"), "{gap}");
    assert!(gap["data"]["reason"].is_string(), "{gap}");
    assert_eq!(contents(&await_messages(&backend, 1), false), ["while it is away"]);
    backend.assert_nothing_refused();
}

/// Where Debian puts the library that gives a program another clock.
fn faketime() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.is_file()).expect("libfaketime is missing: run `tests/run --setup`")
}

#[test]
fn what_happens_before_and_after_a_day_without_the_backend_arrives_in_order() {
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set_clock = |offset: &str| fs::write(clock.path(), format!("{offset}\n")).unwrap();
    set_clock("+0");
    let (library, file) = (faketime(), clock.path().to_str().unwrap().to_owned());
    let settings = [
        ("BACKEND_EVENTS", "message"),
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        // Threads wait by the kernel's own monotonic clock; `backend::schedule` is tested by a virtual one.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let (sandbox, backend, worker) = start(&["message"], &settings);
    backend.await_word("alice", "connected");
    backend.server.close();
    let expected = texts("a day of", 24);
    for (hour, text) in expected.iter().enumerate() {
        set_clock(&format!("+{hour}h"));
        sandbox.send(CAROL, ALICE, text);
        worker.await_received("alice", &chat(CAROL), &expected[..=hour]);
    }
    let (first, last) = (worker.events("alice")[0].clone(), worker.events("alice").pop().unwrap());
    let time = |event: &Value| event["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&last).duration_since(time(&first)).as_hours() >= 22, "{first} {last}");
    backend.server.open();
    let events = await_messages(&backend, expected.len());
    assert_eq!(contents(&events, false), expected);
    assert_rising(&events);
    backend.assert_nothing_refused();
}

/// The code of a block of the README.
fn readme_block(language: &str) -> &'static str {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once(&format!("\n```{language}\n")).expect("there is such a block");
    rest.split_once("\n```").expect("it ends").0
}

#[test]
fn the_receivers_in_the_readme_accept_what_is_signed_and_nothing_else() {
    let (_sandbox, backend, _worker) = start(&[], &[("WEBHOOK_SECRET", SECRET)]);
    backend.await_word("alice", "connected");
    let webhook = backend.server.requests(STATUS).pop().unwrap();
    let header = webhook.header("X-Webhook-Signature").unwrap();
    let body = String::from_utf8(webhook.body.clone()).unwrap();
    let python = format!(
        "{}\nimport sys\nprint(is_genuine(sys.argv[1], sys.argv[2].encode(), sys.argv[3]))",
        readme_block("python")
    );
    let js = format!(
        "{}\nconst [h, b, s] = process.argv.slice(1); console.log(isGenuine(h, Buffer.from(b), s))",
        readme_block("js")
    );
    let node = common::baileys::node().expect("node is missing: run `tests/run --setup`");
    for (program, flag, code) in [(PathBuf::from("python3"), "-c", &python), (node, "-e", &js)] {
        for (body, secret, expected) in
            [(body.as_str(), SECRET, "true"), ("{}", SECRET, "false"), (&body, OLD_SECRET, "false")]
        {
            let output = Command::new(&program).args([flag, code, header, body, secret]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).trim().to_lowercase();
            assert_eq!(said, expected, "{}: {output:?}", program.display());
        }
    }
}
