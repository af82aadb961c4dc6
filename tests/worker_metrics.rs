//! `GET /metrics` of a worker that links, chats, fails, is cut off and comes back: each number moves as it should, and
//! Prometheus' own parser takes the text. And: the alert rules and the dashboard speak only of numbers that there are.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::collections::BTreeSet;

use common::{
    eventually,
    metrics::{Metrics, await_value, promtool},
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::json;

const ALICE: &str = "6281200000071";
const CAROL: &str = "4915100000072";

/// `Table::Session` in the local store.
const SESSIONS_TABLE: i64 = 4;

fn linked() -> (Sandbox, Worker) {
    let sandbox = Sandbox::start();
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    let worker = Worker::start(&sandbox);
    worker.link(&sandbox, "alice", ALICE);
    (sandbox, worker)
}

/// # Panics
/// When a sample has not the expected value.
fn assert_values(metrics: &Metrics, expected: &[(&str, f64)]) {
    for (sample, value) in expected {
        let found = metrics.value(sample);
        assert!((found - value).abs() < f64::EPSILON, "{sample} is {found}, not {value}:\n{}", metrics.text);
    }
}

#[test]
fn a_whole_chat_is_counted_and_the_text_is_what_prometheus_reads() {
    let (sandbox, worker) = linked();
    worker.send("alice", CAROL, "one");
    worker.send("alice", CAROL, "two");
    sandbox.send(CAROL, ALICE, "three");
    worker.await_received("alice", &chat(CAROL), &["three".to_owned()]);
    let group = sandbox.create_group(CAROL, &[ALICE]);
    sandbox.send(CAROL, &group, "four");
    worker.await_received("alice", &group, &["four".to_owned()]);
    let nobody = json!({ "to": "4915100009999", "type": "text", "message": "five" });
    assert_eq!(worker.ask("POST", "/session/alice/send", Some(&nobody)).0, 422);

    let metrics = await_value(&worker, "whatsapp_worker_prekeys_lowest", 100.0);
    promtool(&["check", "metrics"], &metrics.text);
    let expected = [
        ("whatsapp_worker_sessions{status=\"connected\"}", 1.0),
        ("whatsapp_worker_sessions{status=\"disconnected\"}", 0.0),
        ("whatsapp_worker_reconnects_total{reason=\"restart\"}", 1.0),
        ("whatsapp_worker_logins_total", 1.0),
        ("whatsapp_worker_sends_accepted_total", 3.0),
        ("whatsapp_worker_sends_total{outcome=\"sent\"}", 2.0),
        ("whatsapp_worker_sends_total{outcome=\"no_recipient\"}", 1.0),
        ("whatsapp_worker_sends_queued_total", 0.0),
        ("whatsapp_worker_sends_pending", 0.0),
        ("whatsapp_worker_send_duration_seconds_count", 2.0),
        ("whatsapp_worker_ack_duration_seconds_count", 2.0),
        ("whatsapp_worker_messages_received_total{from=\"direct\"}", 1.0),
        ("whatsapp_worker_messages_received_total{from=\"group\"}", 1.0),
        ("whatsapp_worker_prekeys_low_sessions", 0.0),
        ("whatsapp_worker_store_up", 1.0),
        ("whatsapp_worker_store_failures_total{reason=\"disk_full\"}", 0.0),
        ("whatsapp_worker_storage_up", 1.0),
        ("whatsapp_worker_threads{kind=\"session\"}", 1.0),
        ("whatsapp_worker_http_requests_total{route=\"/session/{id}/send\",code=\"422\"}", 1.0),
    ];
    assert_values(&metrics, &expected);
    let at_least = [
        ("whatsapp_worker_store_jobs_total", 10.0),
        ("whatsapp_worker_store_group_duration_seconds_count", 5.0),
        ("whatsapp_worker_store_commit_duration_seconds_count", 1.0),
        ("whatsapp_worker_state_disk_free_bytes", 1.0),
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_open_fds", 5.0),
    ];
    for (sample, least) in at_least {
        assert!(metrics.value(sample) >= least, "{sample}:\n{}", metrics.text);
    }
    let waited = metrics.value("whatsapp_worker_send_duration_seconds_sum");
    let acked = metrics.value("whatsapp_worker_ack_duration_seconds_sum");
    assert!(acked > 0.0 && acked <= waited && waited < 60.0, "{acked} on the wire, {waited} in all");
    let told = [ALICE, CAROL, "alice", "demo"].into_iter().find(|word| metrics.text.contains(word));
    assert_eq!(told, None, "no number and no session is a label:\n{}", metrics.text);
}

#[test]
fn resends_and_failures_to_decrypt_are_counted_on_both_sides() {
    let (sandbox, mut worker) = linked();
    worker.send("alice", CAROL, "before");
    sandbox.post(&format!("/phones/{CAROL}/forget-sessions"), &json!({}));
    worker.send("alice", CAROL, "again");
    sandbox.await_received(CAROL, &["before", "again"].map(str::to_owned));
    let metrics = await_value(&worker, "whatsapp_worker_resends_total", 1.0);
    let asked = metrics.value("whatsapp_worker_retry_receipts_total{direction=\"in\"}");
    assert!(asked >= metrics.value("whatsapp_worker_resends_total"), "{asked} asked for:\n{}", metrics.text);

    sandbox.send(CAROL, ALICE, "hello");
    worker.await_received("alice", &chat(CAROL), &["hello".to_owned()]);
    worker.stop();
    let store = rusqlite::Connection::open(worker.state_dir.join("worker.db")).unwrap();
    assert!(store.execute("DELETE FROM state WHERE tbl = ?1", [SESSIONS_TABLE]).unwrap() > 0);
    drop(store);
    worker.start_again();
    worker.await_status("alice", "connected");
    sandbox.send(CAROL, ALICE, "after the loss");
    worker.await_received("alice", &chat(CAROL), &["hello", "after the loss"].map(str::to_owned));
    let received = "whatsapp_worker_messages_received_total{from=\"direct\"}";
    let metrics = await_value(&worker, received, 1.0);
    let failed = metrics.value("whatsapp_worker_decrypt_failures_total{reason=\"no_session\"}");
    assert!(failed >= 1.0, "{}", metrics.text);
    let expected = [(received, 1.0), ("whatsapp_worker_retry_receipts_total{direction=\"out\"}", failed)];
    assert_values(&metrics, &expected);
}

#[test]
fn lost_connections_are_counted_by_reason_and_what_waits_for_a_new_one_is_seen() {
    let (sandbox, worker) = linked();
    worker.send("alice", CAROL, "first");
    sandbox.fault(ALICE, &json!({ "fault": "drop" }));
    let socket = "whatsapp_worker_reconnects_total{reason=\"socket\"}";
    await_value(&worker, socket, 1.0);
    await_value(&worker, "whatsapp_worker_logins_total", 2.0);
    sandbox.fault(ALICE, &json!({ "fault": "failure", "reason": 503 }));
    eventually("the session notices", || (worker.status("alice") == "reconnecting").then_some(()));
    worker.send("alice", CAROL, "while away");
    await_value(&worker, "whatsapp_worker_logins_total", 3.0);
    let metrics = await_value(&worker, "whatsapp_worker_sends_total{outcome=\"sent\"}", 2.0);
    let expected = [
        ("whatsapp_worker_reconnects_total{reason=\"server\"}", 1.0),
        ("whatsapp_worker_sends_queued_total", 1.0),
        ("whatsapp_worker_session_ends_total{reason=\"logged_out\"}", 0.0),
    ];
    assert_values(&metrics, &expected);
    sandbox.post(&format!("/phones/{ALICE}/unlink"), &json!({}));
    let metrics = await_value(&worker, "whatsapp_worker_sessions{status=\"logged_out\"}", 1.0);
    assert_values(&metrics, &[("whatsapp_worker_session_ends_total{reason=\"logged_out\"}", 1.0)]);
}

#[test]
fn a_pool_of_prekeys_that_runs_low_is_seen_filling_up_again() {
    let (sandbox, worker) = linked();
    let lowest = "whatsapp_worker_prekeys_lowest";
    let before = await_value(&worker, lowest, 100.0).value(lowest);
    sandbox.fault(ALICE, &json!({ "fault": "low-prekeys", "count": 5 }));
    let after = await_value(&worker, lowest, before + 1.0);
    assert!(after.value(lowest) > before, "filled to {}", after.value(lowest));
}

/// Names of metrics in an expression or a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    words
        .filter(|word| word.starts_with("whatsapp_worker_") || word.starts_with("process_"))
        .map(|word| {
            let series = ["_bucket", "_sum", "_count"];
            let base = series
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix).filter(|_| word.contains("_duration_seconds_")));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn alert_rules_and_dashboard_speak_of_numbers_that_the_worker_has() {
    let sandbox = Sandbox::start();
    // Nobody is there, but the numbers of the link to it are.
    let worker = Worker::start_with(&sandbox, &[("BACKEND_URL", "http://127.0.0.1:9")]);
    worker.create("alice");
    let metrics = Metrics::of(&worker);
    promtool(&["check", "metrics"], &metrics.text);
    let known = metrics.families();
    for path in ["packaging/prometheus/alerts.yml", "packaging/grafana/whatsapp-worker.json"] {
        let text =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let used = names(&text);
        assert!(used.len() >= 10, "{path} speaks of {used:?}");
        let unknown: Vec<&String> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{path} speaks of {unknown:?}; there are {known:#?}");
    }
}

#[test]
fn alert_rules_are_valid_and_fire_when_they_should() {
    promtool(&["check", "rules", "packaging/prometheus/alerts.yml"], "");
    promtool(&["test", "rules", "tests/prometheus/alerts.yml"], "");
}
