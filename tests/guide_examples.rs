//! The worker examples in the guide's section "Testing", executed as they are written there; only the port is another.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::process::Command;

use common::{sandbox::Sandbox, worker::Worker};
use serde_json::{Value, json};

const ALICE: &str = "6281200000081";
/// The guide's example writes to this number.
const RECIPIENT: &str = "6281234567890";

const HEALTH: &str = "curl http://localhost:8001/health";
const CREATE: &str = r#"curl -X POST http://localhost:8001/session/create \
  -H "Content-Type: application/json" \
  -d '{"sessionId":"test-session","userId":"user123"}'"#;
const SEND: &str = r#"curl -X POST http://localhost:8001/session/test-session/send \
  -H "Content-Type: application/json" \
  -d '{"to":"6281234567890@s.whatsapp.net","type":"text","message":"Hello!"}'"#;

/// Runs an example against the worker and gives what it prints.
fn run(worker: &Worker, example: &str) -> Value {
    let port = worker.api.rsplit(':').next().unwrap();
    let line = example.replace("localhost:8001", &format!("localhost:{port}"));
    let output = Command::new("timeout").args(["30", "bash", "-c", &line]).output().expect("bash runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_guides_own_examples_work_as_written() {
    let sandbox = Sandbox::start();
    sandbox.add_phone(ALICE);
    sandbox.add_phone(RECIPIENT);
    let worker = Worker::start(&sandbox);

    let health = run(&worker, HEALTH);
    let data = health["data"].as_object().expect("data");
    let names: Vec<&String> = data.keys().collect();
    assert_eq!(
        names,
        ["cpuUsage", "maxSessions", "memoryUsage", "sessionCount", "status", "uptime"],
        "exactly the guide's fields"
    );
    assert_eq!((&health["success"], &health["data"]["status"]), (&json!(true), &json!("online")));

    let expected = json!({
        "success": true,
        "data": {
            "sessionId": "test-session",
            "status": "disconnected",
            "message": "Session created successfully",
        },
    });
    assert_eq!(run(&worker, CREATE), expected);
    let again = run(&worker, CREATE);
    assert_eq!(
        (&again["success"], &again["data"]["status"]),
        (&json!(true), &json!("disconnected")),
        "{again}"
    );

    let refused = run(&worker, SEND);
    assert_eq!((&refused["success"], &refused["code"]), (&json!(false), &json!("SESSION_NOT_CONNECTED")));
    worker.post("/session/test-session/connect", &json!({}));
    let (_, qr) = worker.ask("GET", "/session/test-session/qr?format=raw", None);
    sandbox.post(&format!("/phones/{ALICE}/scan"), &json!({ "qr": qr }));
    worker.await_status("test-session", "connected");
    let sent = run(&worker, SEND);
    let names: Vec<&String> = sent["data"].as_object().expect("data").keys().collect();
    assert_eq!(names, ["messageId", "status", "timestamp"], "{sent}");
    assert_eq!(sent["data"]["status"], "sent");
    sandbox.await_received(RECIPIENT, &["Hello!".to_owned()]);
    sandbox.assert_no_violations();
}
