//! What the log says of people and what they write: above debug level nothing, and never the text.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::json;

const ALICE: &str = "6281200000061";
const CAROL: &str = "4915100000062";
const SECRETS: [&str; 3] = ["walrus at midnight", "penguin at noon", "herring for everyone"];

/// Linking, texts both ways, a group, a cut connection, a retry, a restart; gives the log and what must not be in it.
fn whole_chat(level: &str) -> (String, Vec<String>) {
    let sandbox = Sandbox::start();
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    let mut worker = Worker::start_with(&sandbox, &[("RUST_LOG", level)]);
    worker.link(&sandbox, "alice", ALICE);
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

    let lids = [ALICE, CAROL].map(|phone| sandbox.lid(phone).trim_end_matches("@lid").to_owned());
    let group = group.trim_end_matches("@g.us").to_owned();
    let people = [ALICE, CAROL, "4915100009999", "s.whatsapp.net"].map(str::to_owned);
    (log, people.into_iter().chain(lids).chain([group]).collect())
}

fn lines_with<'a>(log: &'a str, words: &[impl AsRef<str>]) -> Vec<&'a str> {
    log.lines().filter(|line| words.iter().any(|word| line.contains(word.as_ref()))).collect()
}

#[test]
fn an_ordinary_log_names_nobody_and_quotes_nothing() {
    let (log, people) = whole_chat("info");
    assert!(log.contains("session alice: connected"), "a log that says something:\n{log}");
    let told = lines_with(&log, &people);
    assert!(told.is_empty(), "{told:#?}");
    let quoted = lines_with(&log, &SECRETS);
    assert!(quoted.is_empty(), "{quoted:#?}");
}

#[test]
fn a_debug_log_quotes_nothing_and_names_people_only_at_debug_level() {
    let (log, people) = whole_chat("debug");
    assert!(log.contains(" DEBUG "), "a debug log:\n{log}");
    let quoted = lines_with(&log, &SECRETS);
    assert!(quoted.is_empty(), "{quoted:#?}");
    let told = lines_with(&log, &people);
    let above: Vec<_> = told.iter().filter(|line| !line.contains(" DEBUG ")).collect();
    assert!(above.is_empty(), "{above:#?}");
}
