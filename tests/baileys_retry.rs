//! Lost and spoiled Signal sessions between our session and the real Baileys client: retry receipts bring every text
//! after all, once, in both directions.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{
    baileys::Baileys,
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::json;

const OURS: &str = "6281200000041";
const THEIRS: &str = "4915100000042";

struct Pair {
    sandbox: Sandbox,
    worker: Worker,
    baileys: Baileys,
    to_us: String,
    at_us: Vec<String>,
    at_baileys: Vec<String>,
}

/// Two that have talked already.
fn acquainted() -> Pair {
    let sandbox = Sandbox::start();
    sandbox.add_phone(OURS);
    sandbox.add_phone(THEIRS);
    let worker = Worker::start(&sandbox);
    worker.link(&sandbox, "ours", OURS);
    let baileys = Baileys::start(&sandbox);
    baileys.link(&sandbox, "theirs", THEIRS);
    let to_us = sandbox.lid(OURS);
    let mut pair = Pair { sandbox, worker, baileys, to_us, at_us: Vec::new(), at_baileys: Vec::new() };
    pair.we_write("hello");
    pair.they_write("hello yourself");
    pair.we_write("now we know each other");
    pair
}

impl Pair {
    fn we_write(&mut self, text: &str) {
        self.worker.send("ours", THEIRS, text);
        self.at_baileys.push(text.to_owned());
        self.baileys.await_received("theirs", None, &self.at_baileys);
    }

    fn they_write(&mut self, text: &str) {
        self.baileys.send("theirs", &self.to_us, text);
        self.at_us.push(text.to_owned());
        self.worker.await_received("ours", &chat(THEIRS), &self.at_us);
    }

    /// Our account in both namespaces, as Baileys names its session files.
    fn our_users(&self) -> serde_json::Value {
        json!({ "users": [OURS, self.to_us.trim_end_matches("@lid")] })
    }

    fn both_write(&mut self, when: &str) {
        for round in 1..=3 {
            self.we_write(&format!("ours {when} {round}"));
            self.they_write(&format!("theirs {when} {round}"));
        }
        // Baileys itself uses message keys twice when it sends while it answers a retry.
        self.sandbox.assert_no_violations_of(OURS);
    }
}

#[test]
fn a_session_lost_by_baileys_is_made_anew() {
    let mut pair = acquainted();
    let lost = pair.baileys.ask("theirs", "forgetSessions", &pair.our_users());
    assert!(lost["forgotten"].as_u64() >= Some(1), "{lost}");
    pair.we_write("into the void");
    assert!(!pair.baileys.events("theirs", "undecryptable").is_empty(), "it could not be opened at first");
    pair.both_write("after Baileys forgot");
}

#[test]
fn a_session_spoiled_by_baileys_is_made_anew() {
    let mut pair = acquainted();
    pair.baileys.stop("theirs");
    // Its files are read again when it starts.
    let broken = pair.baileys.ask("theirs", "breakSessions", &pair.our_users());
    assert!(broken["broken"].as_u64() >= Some(1), "{broken}");
    pair.baileys.connect("theirs");
    pair.they_write("nonsense at first");
    let events = pair.worker.events("ours");
    assert!(events.iter().any(|event| event["type"] == "message-undecryptable"), "{events:#?}");
    pair.both_write("after Baileys spoiled it");
}

#[test]
fn a_session_lost_by_us_is_made_anew() {
    let mut pair = acquainted();
    pair.worker.stop();
    let store = rusqlite::Connection::open(pair.worker.state_dir.join("worker.db")).unwrap();
    let lost = store.execute("DELETE FROM state WHERE tbl = ?1", [SESSIONS_TABLE]).unwrap();
    assert!(lost > 0, "no Signal sessions in the store");
    drop(store);
    pair.worker.start_again();
    pair.worker.await_status("ours", "connected");
    pair.they_write("into our void");
    let events = pair.worker.events("ours");
    assert!(events.iter().any(|event| event["type"] == "message-undecryptable"), "{events:#?}");
    pair.both_write("after we forgot");
}

#[test]
fn a_phone_that_lost_its_sessions_gets_every_text() {
    let pair = acquainted();
    pair.sandbox.post(&format!("/phones/{THEIRS}/forget-sessions"), &json!({}));
    pair.worker.send("ours", THEIRS, "to a restored phone");
    let mut expected = pair.at_baileys.clone();
    expected.push("to a restored phone".to_owned());
    pair.sandbox.await_received(THEIRS, &expected);
    pair.sandbox.assert_no_violations();
}

/// `Table::Session` in the store.
const SESSIONS_TABLE: i64 = 4;
