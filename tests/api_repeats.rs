//! The same send again, over a killed and restarted worker: one WhatsApp message, and the truth about it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{thread, time::Duration};

use common::{eventually, sandbox::Sandbox, worker::Worker};
use serde_json::{Value, json};

const ALICE: &str = "6281200000061";
const BOB: &str = "6281200000062";

fn start() -> (Sandbox, Worker) {
    let sandbox = Sandbox::start();
    sandbox.add_phone(ALICE);
    sandbox.add_phone(BOB);
    let worker = Worker::start(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    (sandbox, worker)
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build().into()
}

/// One attempt of a caller that gives up after `patience`; `None` when it got no answer.
fn attempt(url: &str, key: Option<&str>, body: &Value, patience: Duration) -> Option<(u16, Value)> {
    let mut request = agent(patience).post(url);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let mut response = request.send_json(body).ok()?;
    let json = serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()?;
    Some((response.status().as_u16(), json))
}

fn text(message: &str) -> Value {
    json!({ "to": format!("{BOB}@s.whatsapp.net"), "type": "text", "message": message })
}

/// A send that gets no ack, and a worker killed while it waits.
fn interrupted(sandbox: &Sandbox, worker: &mut Worker, path: &str, key: Option<&str>, body: &Value) {
    // So that the next message needs nothing from the service before it is on the wire.
    worker.send("alice", BOB, "before");
    sandbox.fault(ALICE, &json!({ "fault": "freeze" }));
    let url = format!("{}{path}", worker.api);
    let message = body["message"].clone();
    thread::scope(|scope| {
        let first = scope.spawn(|| attempt(&url, key, body, Duration::from_secs(30)));
        eventually("the message is accepted", || {
            let newest = worker.history("alice").first()?.clone();
            (newest["content"] == message && newest["status"] == "pending").then_some(())
        });
        worker.kill();
        assert_eq!(first.join().unwrap(), None, "a killed worker answers nothing");
    });
}

#[test]
fn three_attempts_without_a_key_over_a_killed_worker_are_one_message_and_one_answer() {
    let (sandbox, mut worker) = start();
    let body = text("please, once");
    interrupted(&sandbox, &mut worker, "/api/alice/send", None, &body);
    worker.start_again();
    let url = format!("{}/api/alice/send", worker.api);
    let (status, second) = attempt(&url, None, &body, Duration::from_secs(30)).expect("an answer");
    assert_eq!((status, &second["data"]["status"]), (200, &json!("sent")), "{second}");
    let third = attempt(&url, None, &body, Duration::from_secs(30)).expect("an answer");
    assert_eq!(third, (200, second.clone()));
    // Once more, over a stop in order.
    assert_eq!(worker.stop().code(), Some(0), "{}", worker.log());
    worker.start_again();
    let url = format!("{}/api/alice/send", worker.api);
    assert_eq!(attempt(&url, None, &body, Duration::from_secs(30)), Some((200, second.clone())));

    sandbox.await_received(BOB, &["before".to_owned(), "please, once".to_owned()]);
    assert_eq!(sandbox.messages(BOB)[1]["id"], second["data"]["messageId"]);
    assert_eq!(worker.history("alice").len(), 2);
    worker.send("alice", BOB, "after");
    sandbox.await_received(BOB, &["before", "please, once", "after"].map(str::to_owned));
    sandbox.assert_no_violations();
}

#[test]
fn a_repeated_send_whose_message_has_failed_says_so() {
    let (sandbox, mut worker) = start();
    let body = text("refused");
    interrupted(&sandbox, &mut worker, "/session/alice/send", Some("order-1"), &body);
    sandbox.post(&format!("/phones/{ALICE}/unlink"), &json!({}));
    worker.start_again();
    worker.await_status("alice", "logged_out");
    let id = worker.history("alice")[0]["id"].as_str().unwrap().to_owned();
    eventually("the message has failed", || {
        let message = worker.get(&format!("/session/alice/messages/{id}"));
        (message["status"] == "failed").then_some(())
    });
    let url = format!("{}/session/alice/send", worker.api);
    let (status, json) = attempt(&url, Some("order-1"), &body, Duration::from_secs(30)).expect("an answer");
    assert_eq!((status, &json["code"]), (422, &json!("MESSAGE_FAILED")), "{json}");
    assert_eq!(json["details"]["messageId"], json!(id));
    let again = attempt(&url, Some("order-1"), &body, Duration::from_secs(30)).expect("an answer");
    assert_eq!(again, (status, json));
    assert_eq!(sandbox.received(BOB), ["before"]);
}

#[test]
fn a_pending_answer_is_followed_by_the_true_one() {
    let (sandbox, worker) = start();
    worker.send("alice", BOB, "before");
    sandbox.fault(ALICE, &json!({ "fault": "freeze" }));
    let (url, body) = (format!("{}/session/alice/send", worker.api), text("slow"));
    let (status, json) = attempt(&url, Some("order-2"), &body, Duration::from_secs(30)).expect("an answer");
    assert_eq!((status, &json["data"]["status"]), (202, &json!("pending")), "{json}");
    let id = json["data"]["messageId"].clone();
    sandbox.fault(ALICE, &json!({ "fault": "drop" }));
    let (status, json) = attempt(&url, Some("order-2"), &body, Duration::from_secs(30)).expect("an answer");
    assert_eq!(
        (status, &json["data"]["status"], &json["data"]["messageId"]),
        (200, &json!("sent"), &id),
        "{json}"
    );
    sandbox.await_received(BOB, &["before".to_owned(), "slow".to_owned()]);
    let progress = worker.get(&format!("/session/alice/messages/{}", id.as_str().unwrap()));
    let steps: Vec<&Value> =
        progress["history"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
    assert_eq!(steps[..2], [&json!("pending"), &json!("sent")], "{progress}");
}
