//! Trouble from outside: kills, cut and silent connections, the server's own words. What was acknowledged stays.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use common::{
    eventually, exchange,
    sandbox::Sandbox,
    texts,
    worker::{Worker, chat},
};
use serde_json::json;

const ALICE: &str = "6281200000051";
const BOB: &str = "6281200000052";
const CAROL: &str = "4915100000053";

fn start(sessions: &[(&str, &str)]) -> (Sandbox, Worker) {
    let sandbox = Sandbox::start();
    for phone in [ALICE, BOB, CAROL] {
        sandbox.add_phone(phone);
    }
    let worker = Worker::start(&sandbox);
    for (session, phone) in sessions {
        worker.link(&sandbox, session, phone);
    }
    (sandbox, worker)
}

#[test]
fn a_worker_killed_in_the_middle_of_traffic_loses_and_repeats_nothing() {
    let (sandbox, mut worker) = start(&[("alice", ALICE)]);
    let mut accepted = Vec::new();
    let mut from_carol = Vec::new();
    for round in 1..=3 {
        let stop = AtomicBool::new(false);
        let api = worker.api.clone();
        let new = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send_until_dead(&api, &format!("round {round}")));
            let writing = scope.spawn(|| {
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let text = format!("Carol's {round}.{}", sent.len());
                    sandbox.send(CAROL, ALICE, &text);
                    sent.push(text);
                }
                sent
            });
            let wanted = sandbox.received(CAROL).len() + 20;
            eventually("texts are on their way", || (sandbox.received(CAROL).len() >= wanted).then_some(()));
            worker.kill();
            stop.store(true, Ordering::Relaxed);
            from_carol.extend(writing.join().unwrap());
            sending.join().unwrap()
        });
        assert!(new.len() >= 10, "only {} were accepted", new.len());
        accepted.extend(new);
        worker.start_again();
        worker.await_status("alice", "connected");
    }
    worker.send("alice", CAROL, "the end");
    eventually("the last text arrives", || {
        sandbox.received(CAROL).contains(&"the end".to_owned()).then_some(())
    });
    let missing = || {
        let at_carol = sandbox.received(CAROL);
        accepted.iter().filter(|text| !at_carol.contains(text)).cloned().collect::<Vec<_>>()
    };
    eventually(&format!("no accepted text is missing: {:?}", missing()), || {
        missing().is_empty().then_some(())
    });
    let mut seen = BTreeMap::<String, usize>::new();
    for text in sandbox.received(CAROL) {
        *seen.entry(text).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "at the phone more than once: {twice:?}");
    worker.await_received("alice", &chat(CAROL), &from_carol);
    sandbox.assert_no_violations();
}

/// Sends texts as fast as they are answered, until nobody answers. Gives those that were answered with 2xx.
fn send_until_dead(api: &str, prefix: &str) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 1.. {
        let text = format!("{prefix} text {number}");
        let body = json!({ "to": CAROL, "type": "text", "message": text });
        match exchange("POST", &format!("{api}/session/alice/send"), Some(&body)) {
            Ok((200 | 202, _)) => accepted.push(text),
            Ok((status, json)) => panic!("{status} {json}"),
            Err(_) => break,
        }
    }
    accepted
}

#[test]
fn cut_and_ended_connections_are_made_again_and_nothing_is_missed() {
    let (sandbox, worker) = start(&[("alice", ALICE), ("bob", BOB)]);
    let faults = [
        json!({ "fault": "drop" }),
        json!({ "fault": "stream-error", "code": 503 }),
        json!({ "fault": "stream-error", "code": 515 }),
    ];
    let mut expected = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let told = worker.events("alice").len();
        sandbox.fault(ALICE, fault);
        let text = format!("after fault {number}");
        sandbox.send(CAROL, ALICE, &text);
        expected.push(text);
        worker.await_login("alice", told);
        worker.await_received("alice", &chat(CAROL), &expected);
        worker.send("alice", CAROL, &format!("answer {number}"));
        assert_eq!(worker.status("bob"), "connected");
    }
    let answers: Vec<String> = (0..faults.len()).map(|number| format!("answer {number}")).collect();
    sandbox.await_received(CAROL, &answers);
    sandbox.assert_no_violations();
}

#[test]
fn a_silent_connection_is_noticed_and_made_again() {
    let (sandbox, worker) = start(&[("alice", ALICE)]);
    let told = worker.events("alice").len();
    sandbox.fault(ALICE, &json!({ "fault": "freeze" }));
    sandbox.send(CAROL, ALICE, "is anybody there?");
    let body = json!({ "to": CAROL, "type": "text", "message": "into the silence" });
    let (status, answer) = worker.ask("POST", "/session/alice/send", Some(&body));
    assert!(matches!(status, 200 | 202), "{status} {answer}");
    worker.await_login("alice", told);
    worker.await_received("alice", &chat(CAROL), &["is anybody there?".to_owned()]);
    sandbox.await_received(CAROL, &["into the silence".to_owned()]);
}

#[test]
fn what_ends_one_session_leaves_the_others_connected() {
    let (sandbox, mut worker) = start(&[("alice", ALICE), ("bob", BOB)]);
    sandbox.fault(ALICE, &json!({ "fault": "replaced" }));
    worker.await_status("alice", "error");
    let error = worker.get("/session/alice/status")["error"].clone();
    assert!(error.as_str().is_some_and(|text| text.contains("elsewhere")), "{error}");
    worker.stop();
    worker.start_again();
    worker.await_status("bob", "connected");
    assert_eq!(worker.status("alice"), "error", "who was replaced does not come back by itself");

    assert_eq!(worker.post("/session/alice/connect", &json!({}))["status"], "connected");
    sandbox.post(&format!("/phones/{ALICE}/unlink"), &json!({}));
    worker.await_status("alice", "logged_out");
    let body = json!({ "to": CAROL, "type": "text", "message": "from nobody" });
    let (status, answer) = worker.ask("POST", "/session/alice/send", Some(&body));
    assert_eq!(status, 409, "{answer}");

    assert_eq!(worker.status("bob"), "connected");
    for text in texts("still here", 3) {
        worker.send("bob", CAROL, &text);
    }
    sandbox.await_received(CAROL, &texts("still here", 3));
    sandbox.assert_no_violations();
}
