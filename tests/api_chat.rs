//! Linking and sending through the REST API, with a simulated WhatsApp behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod api_support;

use std::time::{Duration, Instant};

use api_support::{
    Ask, Worker,
    linked::{ALICE, BOB, Linked, linked, text},
};
use serde_json::json;

#[test]
fn a_text_is_sent_after_the_servers_ack_and_shown_in_the_history() {
    let linked = linked(|_| {});
    let got = linked.worker.post("/session/a/send", &text("Hello World!"));
    assert_eq!(got.status, 200, "{got:?}");
    let data = got.data();
    let mut names: Vec<&String> = data.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["messageId", "status", "timestamp"]);
    assert_eq!(data["status"], "sent");
    assert!(data["timestamp"].as_str().unwrap().ends_with('Z'), "{data}");
    assert_eq!(linked.bob_has(1), ["Hello World!"]);

    linked.control("POST", &format!("/phones/{BOB}/send"), &json!({"to": ALICE, "text": "Hello Alice!"}));
    let deadline = Instant::now() + Duration::from_secs(10);
    let messages = loop {
        let data = linked.worker.get("/session/a/messages").data();
        if data["pagination"]["total"] == 2 {
            break data["messages"].clone();
        }
        assert!(Instant::now() < deadline, "{data}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let (alice, bob) = (format!("{ALICE}@s.whatsapp.net"), format!("{BOB}@s.whatsapp.net"));
    assert_eq!((&messages[0]["from"], &messages[0]["to"]), (&json!(bob), &json!(alice)), "{messages}");
    assert_eq!((&messages[0]["content"], &messages[0]["type"]), (&json!("Hello Alice!"), &json!("text")));
    assert_eq!((&messages[1]["from"], &messages[1]["to"]), (&json!(alice), &json!(bob)), "{messages}");
    assert_eq!(messages[1]["id"], data["messageId"]);
    let filtered = linked.worker.get(&format!("/session/a/messages?chat={BOB}&limit=1&offset=1")).data();
    assert_eq!(
        (filtered["pagination"]["total"].clone(), filtered["messages"][0].clone()),
        (json!(2), messages[1].clone())
    );
    assert_eq!(
        linked.worker.get("/session/a/messages?before=2001-01-01T00:00:00Z").data()["pagination"]["total"],
        0
    );
}

#[test]
fn the_same_idempotency_key_is_one_message_and_one_answer() {
    let linked = linked(|_| {});
    let send = |key: &str, body: &str| {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        linked.worker.ask("POST", "/session/a/send", Ask { headers: &headers, body: Some(body) })
    };
    let body = text("once");
    let (first, second) = std::thread::scope(|scope| {
        let racing = scope.spawn(|| send("key-1", &body));
        (send("key-1", &body), racing.join().unwrap())
    });
    assert_eq!((first.status, &first.body), (200, &second.body), "{first:?} {second:?}");
    let third = send("key-1", &body);
    assert_eq!((&third.body, third.header("Idempotency-Replayed")), (&first.body, Some("true")));
    let other = send("key-1", &text("something else"));
    assert_eq!(other.refusal(), (422, "IDEMPOTENCY_KEY_REUSED".into(), "Idempotency-Key".into()));
    assert_eq!(send("key-2", &body).status, 200);
    assert_eq!(linked.bob_has(2), ["once", "once"]);
}

#[test]
fn a_failed_send_gives_its_idempotency_key_back() {
    let linked = linked(|_| {});
    linked.worker.post("/session/a/disconnect", "");
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let body = text("later");
    let send = || linked.worker.ask("POST", "/session/a/send", Ask { headers: &headers, body: Some(&body) });
    assert_eq!(send().refusal().1, "SESSION_NOT_CONNECTED");
    assert_eq!(linked.worker.ask("POST", "/session/a/connect", Ask::default()).data()["status"], "connected");
    assert_eq!(send().status, 200);
    assert_eq!(linked.bob_has(1), ["later"]);
}

#[test]
fn within_the_window_the_same_body_is_one_message() {
    let linked = linked(|api| api.send_dedupe_window = Duration::from_secs(100));
    let (first, second) = (
        linked.worker.post("/session/a/send", &text("blind retry")),
        linked.worker.post("/session/a/send", &text("blind retry")),
    );
    assert_eq!((first.status, &first.body), (200, &second.body));
    assert_eq!(linked.worker.post("/session/a/send", &text("another")).status, 200);
    assert_eq!(linked.bob_has(2), ["blind retry", "another"]);
}

#[test]
fn a_number_without_whatsapp_is_422_naming_to() {
    let linked = linked(|_| {});
    let body = r#"{"to":"6281299999999","type":"text","message":"hello?"}"#;
    let refusal = linked.worker.post("/session/a/send", body).refusal();
    assert_eq!(refusal, (422, "RECIPIENT_NOT_ON_WHATSAPP".into(), "to".into()));
}

#[test]
fn a_pairing_code_links_as_well() {
    let linked = linked(|_| {});
    linked.worker.create("b");
    let body = json!({ "phoneNumber": format!("+{BOB}") }).to_string();
    let data = linked.worker.post("/session/b/pair-code", &body).data();
    let code = data["pairingCode"].as_str().unwrap();
    assert_eq!(code.len(), 9, "XXXX-XXXX: {data}");
    linked.control("POST", &format!("/phones/{BOB}/pair-code"), &json!({ "code": code }));
    assert_eq!(linked.worker.ask("POST", "/session/b/connect", Ask::default()).data()["status"], "connected");
    assert_eq!(linked.worker.post("/session/b/pair-code", &body).refusal().1, "WRONG_STATE");
    let data = linked.worker.post("/session/b/logout", "").data();
    assert_eq!(data["status"], "logged_out");
    let data = linked.worker.ask("POST", "/session/b/restart", Ask::default()).data();
    assert_eq!(data["status"], "qr_required", "linked anew");
}

#[test]
fn a_restarted_worker_is_connected_again_without_a_qr_and_remembers_answers() {
    let Linked { worker, sandbox } = linked(|_| {});
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "over-a-restart")];
    let body = text("only once");
    let send =
        |worker: &Worker| worker.ask("POST", "/session/a/send", Ask { headers: &headers, body: Some(&body) });
    let first = send(&worker);
    assert_eq!(first.status, 200, "{first:?}");
    let linked = Linked { worker: worker.restarted(), sandbox };
    let data = linked.worker.ask("POST", "/session/a/connect", Ask::default()).data();
    assert_eq!(data["status"], "connected", "{data}");
    assert_eq!(send(&linked.worker).body, first.body);
    assert_eq!(linked.worker.post("/session/a/send", &text("after")).status, 200);
    assert_eq!(linked.bob_has(2), ["only once", "after"]);
    assert_eq!(linked.worker.get("/session/a/messages").data()["pagination"]["total"], 2);
}
