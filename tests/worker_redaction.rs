//! What the log says of people and what they write: above debug level nothing, and never the text. And that its JSON
//! form is what it promises to be.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{
    backend::{TOKEN, guide::GuideBackend, server::Trouble},
    eventually,
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::{Value, json};

const ALICE: &str = "6281200000061";
const BOB: &str = "6281200000063";
const CAROL: &str = "4915100000062";
const SECRET_KEY: &str = "secret-that-signs-webhooks";
/// Texts and keys.
const SECRETS: [&str; 5] =
    ["walrus at midnight", "penguin at noon", "herring for everyone", TOKEN, SECRET_KEY];

/// Linking by QR and by code, texts both ways, a group, a cut connection, a retry, a restart, and a backend that is told
/// of all of it and fails in between; gives the log and what must not be in it.
fn whole_chat(level: &str, format: &str) -> (String, Vec<String>) {
    let sandbox = Sandbox::start();
    for phone in [ALICE, BOB, CAROL] {
        sandbox.add_phone(phone);
    }
    let backend = GuideBackend::start();
    backend.take_kinds(&["message", "message-status"]);
    backend.server.trouble_times("/api/webhooks/", 2, Trouble::Html);
    let own = [("BACKEND_EVENTS", "all"), ("WEBHOOK_SECRET", SECRET_KEY)];
    let settings = [&own[..], &[("RUST_LOG", level), ("LOG_FORMAT", format)]].concat();
    let mut worker = backend.worker(&sandbox, &settings);
    worker.link(&sandbox, "alice", ALICE);
    link_by_code(&sandbox, &worker, "bob", BOB);
    worker.send("alice", CAROL, SECRETS[0]);
    sandbox.send(CAROL, ALICE, SECRETS[1]);
    let mut expected = vec![SECRETS[1].to_owned()];
    worker.await_received("alice", &chat(CAROL), &expected);
    let group = sandbox.create_group(CAROL, &[ALICE]);
    sandbox.send(CAROL, &group, SECRETS[2]);
    worker.await_received("alice", &group, &[SECRETS[2].to_owned()]);
    worker.send("alice", &group, SECRETS[2]);
    sandbox.post(&format!("/phones/{CAROL}/forget-sessions"), &json!({}));
    worker.send("alice", CAROL, SECRETS[0]);
    sandbox.await_received(CAROL, &[SECRETS[0], SECRETS[2], SECRETS[0]].map(str::to_owned));
    let (status, _) = worker.ask(
        "POST",
        "/session/alice/send",
        Some(&json!({ "to": "4915100009999", "type": "text", "message": SECRETS[0] })),
    );
    assert_eq!(status, 422, "not on WhatsApp");
    backend.server.trouble_times("/api/webhooks/", 1, Trouble::Status(422));
    backend.server.trouble_times("/api/webhooks/", 1, Trouble::NoAnswer);
    worker.send("alice", CAROL, SECRETS[0]);
    eventually("the backend meets the chat", || {
        backend.events("alice", "message").iter().any(|one| one["data"]["chat"] == chat(CAROL)).then_some(())
    });
    let told = worker.events("alice").len();
    sandbox.fault(ALICE, &json!({ "fault": "drop" }));
    worker.await_login("alice", told);
    sandbox.send(CAROL, ALICE, SECRETS[1]);
    expected.push(SECRETS[1].to_owned());
    worker.await_received("alice", &chat(CAROL), &expected);
    let mut log = worker.log();
    worker.stop();
    worker.start_again();
    worker.await_status("alice", "connected");
    sandbox.post(&format!("/phones/{ALICE}/unlink"), &json!({}));
    worker.await_status("alice", "logged_out");
    log += &worker.log();

    let lids = [ALICE, BOB, CAROL].map(|phone| sandbox.lid(phone).trim_end_matches("@lid").to_owned());
    let group = group.trim_end_matches("@g.us").to_owned();
    let people = [ALICE, BOB, CAROL, "4915100009999", "s.whatsapp.net"].map(str::to_owned);
    (log, people.into_iter().chain(lids).chain([group]).collect())
}

fn link_by_code(sandbox: &Sandbox, worker: &Worker, session: &str, phone: &str) {
    worker.create(session);
    worker.post(&format!("/session/{session}/connect"), &json!({}));
    let code = worker.post(&format!("/session/{session}/pair-code"), &json!({ "phoneNumber": phone }))["pairingCode"].clone();
    sandbox.post(&format!("/phones/{phone}/pair-code"), &json!({ "code": code }));
    worker.await_status(session, "connected");
}

fn lines_with<'a>(log: &'a str, words: &[impl AsRef<str>]) -> Vec<&'a str> {
    log.lines().filter(|line| words.iter().any(|word| line.contains(word.as_ref()))).collect()
}

#[test]
fn an_ordinary_log_names_nobody_and_quotes_nothing() {
    let (log, people) = whole_chat("info", "text");
    assert!(log.contains("session alice: connected"), "a log that says something:\n{log}");
    let told = lines_with(&log, &people);
    assert!(told.is_empty(), "{told:#?}");
    let quoted = lines_with(&log, &SECRETS);
    assert!(quoted.is_empty(), "{quoted:#?}");
}

#[test]
fn a_debug_log_quotes_nothing_and_names_people_only_at_debug_level() {
    let (log, people) = whole_chat("debug", "text");
    assert!(log.contains(" DEBUG "), "a debug log:\n{log}");
    let quoted = lines_with(&log, &SECRETS);
    assert!(quoted.is_empty(), "{quoted:#?}");
    let told = lines_with(&log, &people);
    let above: Vec<_> = told.iter().filter(|line| !line.contains(" DEBUG ")).collect();
    assert!(above.is_empty(), "{above:#?}");
}

#[test]
fn each_line_of_a_json_log_is_an_object_that_names_its_session() {
    let (log, people) = whole_chat("debug", "json");
    let mut of_alice = 0;
    for line in log.lines() {
        let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text =
            |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{name} is text: {line}")).to_owned();
        let (level, message, target) = (text("level"), text("message"), text("target"));
        assert!(["error", "warn", "info", "debug"].contains(&level.as_str()), "{line}");
        text("time").parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{error}: {line}"));
        if message.contains("session alice") || target.starts_with("whatsapp_worker::whatsapp") {
            assert!(matches!(json["session"].as_str(), Some("alice" | "bob")), "{line}");
        }
        of_alice += usize::from(json["session"] == "alice");
        assert!(!SECRETS.iter().any(|secret| line.contains(secret)), "{line}");
        assert!(level == "debug" || !people.iter().any(|one| line.contains(one)), "{line}");
    }
    assert!(of_alice > 10, "{of_alice} lines of the session");
}
