//! The whole way from outside: the program as a process, sessions over REST, phones in the sandbox.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{
    exchange,
    sandbox::Sandbox,
    texts,
    worker::{Worker, chat},
};
use serde_json::json;

const ALICE: &str = "6281200000011";
const BOB: &str = "6281200000012";
const CAROL: &str = "4915100000013";

fn two_sessions_and_a_phone() -> (Sandbox, Worker) {
    let sandbox = Sandbox::start();
    for phone in [ALICE, BOB, CAROL] {
        sandbox.add_phone(phone);
    }
    let worker = Worker::start(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    worker.link(&sandbox, "bob", BOB);
    (sandbox, worker)
}

#[test]
fn sessions_chat_with_a_phone_and_with_each_other() {
    let (sandbox, worker) = two_sessions_and_a_phone();
    let id = worker.send("alice", CAROL, "Hello Carol!");
    sandbox.await_received(CAROL, &["Hello Carol!".to_owned()]);
    assert_eq!(sandbox.messages(CAROL)[0]["id"], id);
    sandbox.send(CAROL, ALICE, "Hello Alice!");
    worker.await_received("alice", &chat(CAROL), &["Hello Alice!".to_owned()]);

    let (from_alice, from_bob) = (texts("from Alice", 10), texts("from Bob", 10));
    for (alice, bob) in from_alice.iter().zip(&from_bob) {
        worker.send("alice", BOB, alice);
        worker.send("bob", ALICE, bob);
    }
    worker.await_received("bob", &chat(ALICE), &from_alice);
    worker.await_received("alice", &chat(BOB), &from_bob);

    // The phones of the two accounts have all of it as well.
    sandbox.await_received(BOB, &from_alice);
    let history = worker.get(&format!("/session/alice/messages?chat={CAROL}"));
    assert_eq!(history["pagination"]["total"], 2, "{history}");
    assert_eq!(history["messages"][1]["id"], id, "newest first: {history}");
    common::eventually("Carol's phone received the text", || {
        let status = &worker.history("alice").pop()?["status"];
        (status == "delivered").then_some(())
    });

    let (status, json) = worker.ask("DELETE", "/session/bob", None);
    assert_eq!((status, &json["success"]), (200, &json!(true)), "{json}");
    assert_eq!(worker.ask("GET", "/session/bob/status", None).0, 404);
    common::eventually("Bob's phone lost its device", || {
        let devices = sandbox.get(&format!("/phones/{BOB}"))["devices"].as_array()?.len();
        (devices == 0).then_some(())
    });
    assert_eq!(worker.status("alice"), "connected");
    sandbox.assert_no_violations();
}

#[test]
fn a_restarted_worker_connects_its_sessions_without_a_new_qr() {
    let (sandbox, mut worker) = two_sessions_and_a_phone();
    worker.send("alice", BOB, "before");
    worker.await_received("bob", &chat(ALICE), &["before".to_owned()]);
    let told = worker.events("alice").len();

    assert_eq!(worker.stop().code(), Some(0), "{}", worker.log());
    sandbox.send(CAROL, ALICE, "while stopped");
    worker.start_again();
    worker.await_status("alice", "connected");
    worker.await_status("bob", "connected");
    worker.await_received("alice", &chat(CAROL), &["while stopped".to_owned()]);

    worker.kill();
    sandbox.send(CAROL, ALICE, "while dead");
    worker.start_again();
    worker.await_status("alice", "connected");
    worker.await_status("bob", "connected");
    worker.await_received("alice", &chat(CAROL), &["while stopped".to_owned(), "while dead".to_owned()]);
    worker.send("alice", BOB, "after");
    worker.await_received("bob", &chat(ALICE), &["before".to_owned(), "after".to_owned()]);

    let events = worker.events("alice");
    let qr = events[told..].iter().filter(|event| event["type"] == "qr").count();
    assert_eq!(qr, 0, "{events:#?}");
    sandbox.assert_no_violations();
}

#[test]
fn two_workers_cannot_share_a_state_folder() {
    let sandbox = Sandbox::start();
    let worker = Worker::start(&sandbox);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_whatsapp-worker"))
        .env("STATE_DIR", &worker.state_dir)
        .env("WORKER_PORT", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (status, health) = exchange("GET", &format!("{}/health", worker.api), None).unwrap();
    assert_eq!((status, &health["data"]["status"]), (200, &json!("online")));
}
