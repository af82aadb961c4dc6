//! The `/api` routes as the public backend uses them: its paths, headers and bodies, and what it reads in answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod api_support;
mod common;

use std::time::Duration;

use api_support::{
    Ask, Got, Worker,
    linked::{ALICE, BOB, Linked, linked},
    worker,
};
use common::eventually;
use serde_json::{Value, json};

/// What its HTTP client sends with every request, with and without a body.
const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "application/json"),
    ("Accept", "application/json, text/plain, */*"),
    ("User-Agent", "axios/1.10.0"),
    ("Accept-Encoding", "gzip, compress, deflate, br"),
    ("Connection", "keep-alive, close"),
];

/// Its database knows these and no other.
const WORDS: [&str; 6] = ["INIT", "QR_REQUIRED", "CONNECTED", "DISCONNECTED", "RECONNECTING", "ERROR"];

/// Asks as it does: its base URL may end in a slash, so that the path begins with two.
fn call(worker: &Worker, method: &str, path: &str, body: Option<&Value>) -> Got {
    let text = body.map(Value::to_string);
    // A POST without data carries `Content-Length: 0`.
    let text = text.as_deref().or((method == "POST").then_some(""));
    worker.ask(method, &format!("/{path}"), Ask { headers: HEADERS, body: text })
}

/// A success: the fields it reads stand at the top and in `data`.
fn read(got: &Got) -> Value {
    let json = got.json();
    assert!((200..300).contains(&got.status) && json["success"] == true, "{got:?}");
    for (name, value) in json["data"].as_object().expect("data") {
        if name != "error" {
            assert_eq!(&json[name], value, "{name} is repeated at the top: {json}");
        }
    }
    if let Some(status) =
        json["status"].as_str().filter(|word| word.chars().all(|c| c.is_uppercase() || c == '_'))
    {
        assert!(WORDS.contains(&status), "{json}");
    }
    json
}

fn to_bob(message: &str) -> Value {
    json!({ "to": format!("{BOB}@s.whatsapp.net"), "type": "text", "message": message })
}

fn send(worker: &Worker, body: &Value) -> Got {
    call(worker, "POST", "/api/a/send", Some(body))
}

#[test]
fn a_session_is_started_scanned_watched_and_removed() {
    let Linked { worker, sandbox } = linked(|_| {});
    let linked = Linked { worker, sandbox };
    let start = json!({ "sessionId": "u1-shop-1700000000000", "userId": "u1", "sessionName": "Shop" });
    let got = call(&linked.worker, "POST", "/api/sessions/start", Some(&start));
    assert_eq!(got.status, 201);
    let json = read(&got);
    assert_eq!((&json["status"], &json["sessionId"]), (&json!("QR_REQUIRED"), &start["sessionId"]));
    let qr = json["qrCode"].as_str().unwrap();
    assert!(qr.len() <= 2000 && !qr.starts_with("data:"), "the raw text: {qr}");
    let path = "/api/sessions/u1-shop-1700000000000";
    let json = read(&call(&linked.worker, "GET", &format!("{path}/status"), None));
    assert_eq!((&json["status"], &json["qrCode"]), (&json!("QR_REQUIRED"), &json!(qr)));
    linked.control("POST", &format!("/phones/{BOB}/scan"), &json!({ "qr": qr }));

    let got = call(&linked.worker, "POST", "/api/sessions/start", Some(&start));
    assert_eq!(got.status, 200, "it is there already");
    let json = read(&got);
    assert_eq!((&json["status"], &json["phoneNumber"]), (&json!("CONNECTED"), &json!(format!("+{BOB}"))));
    assert!(json.get("qrCode").is_none(), "{json}");
    let json = read(&call(&linked.worker, "GET", &format!("{path}/status"), None));
    assert_eq!((&json["status"], &json["phoneNumber"]), (&json!("CONNECTED"), &json!(format!("+{BOB}"))));
    assert!(json["lastActivity"].is_string(), "{json}");
    let json = read(&call(&linked.worker, "GET", "/api/sessions", None));
    assert_eq!((&json["total"], &json["sessions"][1]["status"]), (&json!(2), &json!("CONNECTED")));

    let json = read(&call(&linked.worker, "POST", &format!("{path}/restart"), None));
    assert_eq!(json["status"], "CONNECTED", "{json}");
    let json = read(&call(&linked.worker, "POST", &format!("{path}/disconnect"), None));
    assert_eq!(json["status"], "DISCONNECTED", "{json}");
    let json = read(&call(&linked.worker, "POST", &format!("{path}/logout"), None));
    assert_eq!(json["status"], "DISCONNECTED", "logged out: {json}");
    let got = call(&linked.worker, "DELETE", path, None);
    assert_eq!((got.status, got.json()["success"].clone()), (200, json!(true)));
    assert_eq!(call(&linked.worker, "GET", &format!("{path}/status"), None).refusal().1, "SESSION_NOT_FOUND");
}

#[test]
fn equal_sends_in_a_row_are_one_message_and_one_answer() {
    let linked = linked(|_| {});
    let body = to_bob("three attempts");
    let first = send(&linked.worker, &body);
    let json = read(&first);
    assert_eq!(
        (first.status, &json["status"], &json["type"]),
        (200, &json!("sent"), &json!("TEXT")),
        "{json}"
    );
    assert_eq!((&json["to"], &json["message"]), (&body["to"], &body["message"]));
    let id = json["messageId"].clone();
    for _ in 0..2 {
        let again = send(&linked.worker, &body);
        assert_eq!((again.status, &again.body), (200, &first.body));
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    }
    assert_ne!(read(&send(&linked.worker, &to_bob("another")))["messageId"], id);
    assert_eq!(linked.bob_has(2), ["three attempts", "another"]);
    // The guide's own route does not remember bodies.
    for _ in 0..2 {
        assert_eq!(linked.worker.post("/session/a/send", &to_bob("guide").to_string()).status, 200);
    }
    assert_eq!(linked.bob_has(4)[2..], ["guide", "guide"]);
}

#[test]
fn an_attempt_that_comes_while_the_first_is_under_way_waits_for_its_answer() {
    let linked = linked(|_| {});
    linked.control("POST", &format!("/phones/{ALICE}/faults"), &json!({ "fault": "delay", "ms": 1500 }));
    let body = to_bob("slow");
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| send(&linked.worker, &body));
        let second = scope.spawn(|| send(&linked.worker, &body));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
    assert_eq!(first.body, second.body);
    assert_eq!(linked.bob_has(1), ["slow"]);
}

#[test]
fn types_that_this_version_lacks_are_refused_with_what_it_has() {
    let linked = linked(|_| {});
    let bob = format!("{BOB}@s.whatsapp.net");
    let url = "http://127.0.0.1/x";
    for body in [
        json!({ "to": bob, "type": "image", "mediaUrl": url, "caption": "c" }),
        json!({ "to": bob, "type": "document", "mediaUrl": url, "filename": "f.pdf" }),
        json!({ "to": bob, "type": "audio", "mediaUrl": url }),
        json!({ "to": bob, "type": "video", "mediaUrl": url }),
        json!({ "to": bob, "type": "location", "location": { "latitude": 1.5, "longitude": 2 } }),
        json!({ "to": bob, "type": "contact", "contact": { "name": "N", "phone": "+62 (812) 1" } }),
        json!({ "to": bob, "type": "typing_start" }),
        json!({ "to": bob, "type": "typing_stop" }),
        json!({ "to": bob, "type": "link", "link": { "url": url } }),
        json!({ "to": bob, "type": "poll", "poll": { "question": "?", "options": ["a", "b"], "multipleAnswers": false } }),
        json!({ "to": bob, "type": "nonsense" }),
    ] {
        let got = send(&linked.worker, &body);
        assert_eq!(got.refusal(), (400, "NOT_SUPPORTED".into(), "type".into()), "{body}");
        let json = got.json();
        let kind = body["type"].as_str().unwrap();
        assert!(json["error"].as_str().unwrap().contains(kind), "{json}");
        assert_eq!(
            (&json["details"]["type"], &json["details"]["supported"]),
            (&body["type"], &json!(["text", "seen"]))
        );
    }
    assert_eq!(linked.control("GET", &format!("/phones/{BOB}/messages"), &Value::Null)["total"], 0);
}

#[test]
fn a_read_mark_reaches_the_author_from_both_routes() {
    let linked = linked(|_| {});
    let manage = |id: &Value| {
        let jid = format!("{BOB}@s.whatsapp.net");
        json!({
            "action": "read", "messageId": id, "phone": jid, "jid": jid,
            "messageKey": { "remoteJid": jid, "fromMe": false, "id": id },
        })
    };
    let seen = |id: &Value| json!({ "to": format!("{BOB}@s.whatsapp.net"), "type": "seen", "messageId": id });
    for route in ["send", "manage"] {
        linked.control("POST", &format!("/phones/{BOB}/send"), &json!({ "to": ALICE, "text": route }));
        let message = eventually("the message is in the history", || {
            let page = linked.worker.get("/session/a/messages?limit=1").data();
            Some(page["messages"][0].clone()).filter(|message| message["content"] == route)
        });
        let id = &message["id"];
        let (path, body) = match route {
            "send" => ("/api/a/send", seen(id)),
            _ => ("/api/message/a/manage", manage(id)),
        };
        let got = call(&linked.worker, "POST", path, Some(&body));
        let json = read(&got);
        assert_eq!((&json["messageId"], got.header("X-Unknown-Fields")), (id, None), "{json}");
        eventually("Bob's phone knows", || {
            let all = linked.control("GET", &format!("/phones/{BOB}/messages"), &Value::Null);
            let read =
                all["messages"].as_array()?.iter().any(|one| &one["id"] == id && one["status"] == "read");
            read.then_some(())
        });
    }
    assert_eq!(linked.control("GET", "/violations", &Value::Null)["total"], 0);
}

#[test]
fn a_read_mark_in_a_group_finds_the_author_in_the_history() {
    let linked = linked(|_| {});
    let body = json!({ "creator": BOB, "subject": "Friends", "participants": [ALICE] });
    let group = linked.control("POST", "/groups", &body)["group"].as_str().unwrap().to_owned();
    linked.control("POST", &format!("/phones/{BOB}/send"), &json!({ "to": group, "text": "Hi all" }));
    let message = eventually("the message is in the history", || {
        let page = linked.worker.get("/session/a/messages?limit=1").data();
        Some(page["messages"][0].clone()).filter(|message| message["content"] == "Hi all")
    });
    let seen = |id: &Value| json!({ "to": group, "type": "seen", "messageId": id });
    read(&send(&linked.worker, &seen(&message["id"])));
    eventually("Bob's phone knows", || {
        let all = linked.control("GET", &format!("/phones/{BOB}/messages"), &Value::Null);
        (all["messages"][0]["status"] == "read").then_some(())
    });
    let unknown = send(&linked.worker, &seen(&json!("3EB0FFFFFFFFFFFFFFFFFF")));
    assert_eq!(unknown.refusal(), (404, "MESSAGE_NOT_FOUND".into(), "messageId".into()));
    assert_eq!(linked.control("GET", "/violations", &Value::Null)["total"], 0);
}

#[test]
fn actions_that_this_version_lacks_are_refused_with_what_it_has() {
    let worker = worker(|_| {});
    worker.create("a");
    let jid = format!("{BOB}@s.whatsapp.net");
    for body in [
        json!({ "action": "delete", "messageId": "A", "phone": jid, "forEveryone": false }),
        json!({ "action": "unsend", "messageId": "A", "phone": jid }),
        json!({ "action": "reaction", "messageId": "A", "phone": jid, "emoji": "👍" }),
        json!({ "action": "edit", "messageId": "A", "phone": jid, "newText": "B" }),
        json!({ "action": "star", "messageId": "A", "phone": jid }),
        json!({ "action": "unstar", "messageId": "A", "phone": jid }),
        json!({ "action": "nonsense" }),
    ] {
        let got = call(&worker, "POST", "/api/message/a/manage", Some(&body));
        assert_eq!(got.refusal(), (400, "NOT_SUPPORTED".into(), "action".into()), "{body}");
        assert_eq!(got.json()["details"]["supported"], json!(["read"]));
    }
}

#[test]
fn what_cannot_work_is_4xx_at_once_so_that_it_is_not_repeated() {
    let worker = worker(|_| {});
    worker.create("a");
    for (method, path, body, status, word) in [
        ("POST", "/api/a/send", Some(to_bob("x")), 409, "SESSION_NOT_CONNECTED"),
        ("POST", "/api/nobody/send", Some(to_bob("x")), 404, "SESSION_NOT_FOUND"),
        (
            "POST",
            "/api/a/send",
            Some(json!({ "to": "x", "type": "text", "message": "x" })),
            400,
            "INVALID_FIELD",
        ),
        ("POST", "/api/a/send", Some(json!({ "to": BOB, "type": "text" })), 400, "INVALID_FIELD"),
        ("POST", "/api/a/send", None, 400, "INVALID_FIELD"),
        (
            "POST",
            "/api/sessions/start",
            Some(json!({ "sessionId": "a", "userId": "other" })),
            409,
            "SESSION_OF_OTHER_USER",
        ),
        (
            "POST",
            "/api/sessions/start",
            Some(json!({ "sessionId": "a b", "userId": "u" })),
            400,
            "INVALID_FIELD",
        ),
        ("GET", "/api/sessions/nobody/status", None, 404, "SESSION_NOT_FOUND"),
        ("DELETE", "/api/sessions/nobody", None, 404, "SESSION_NOT_FOUND"),
        ("POST", "/api/sessions/nobody/restart", None, 404, "SESSION_NOT_FOUND"),
        ("POST", "/api/sessions/nobody/disconnect", None, 404, "SESSION_NOT_FOUND"),
        ("POST", "/api/sessions/nobody/logout", None, 404, "SESSION_NOT_FOUND"),
        ("GET", "/api/sessions/start", None, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/messages/a/stats", None, 404, "ROUTE_NOT_FOUND"),
        (
            "POST",
            "/api/message/a/manage",
            Some(json!({ "action": "read", "messageId": "A", "phone": BOB })),
            409,
            "SESSION_NOT_CONNECTED",
        ),
    ] {
        let got = call(&worker, method, path, body.as_ref());
        let (given, code, _) = got.refusal();
        assert_eq!((given, code.as_str()), (status, word), "{method} {path}: {got:?}");
        assert!(got.json()["error"].is_string(), "an object would be shown as [object Object]");
    }
}

#[test]
fn fields_nobody_knows_are_named_and_ignored() {
    let worker = worker(|api| api.connect_wait = Duration::from_millis(10));
    let start = json!({ "sessionId": "a", "userId": "u", "sessionNmae": "typo" });
    let got = call(&worker, "POST", "/api/sessions/start", Some(&start));
    assert_eq!((got.status, got.header("X-Unknown-Fields")), (201, Some("sessionNmae")), "{got:?}");
    assert_eq!(read(&got)["status"], "RECONNECTING", "on the way, and never the INIT that sticks");
    for path in ["/api/sessions/a/disconnect", "/api/sessions/a/restart", "/api/sessions/a/logout"] {
        let got = call(&worker, "POST", path, Some(&json!({ "reason": "none" })));
        assert_eq!((got.status, got.header("X-Unknown-Fields")), (200, Some("reason")), "{path}");
    }
}

#[test]
fn the_family_asks_for_the_token_too() {
    let worker = worker(|api| {
        api.auth = whatsapp_worker::config::ApiAuth::Required;
        api.token = Some("secret-token".to_owned());
    });
    assert_eq!(call(&worker, "GET", "/api/sessions", None).refusal().1, "UNAUTHORIZED");
    let headers = [("Authorization", "Bearer secret-token"), ("Content-Type", "application/json")];
    let got = worker.ask("GET", "//api/sessions", Ask { headers: &headers, body: None });
    assert_eq!(read(&got)["total"], 0);
}
