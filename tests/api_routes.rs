//! The REST contract over a real HTTP server, registry and store: the guide's seven routes, ours, and bad input.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod api_support;

use std::time::{Duration, Instant};

use api_support::{Ask, exchange, worker};
use serde_json::json;
use whatsapp_worker::config::ApiAuth;

#[test]
fn health_is_the_guides_and_open_to_everybody() {
    let worker = worker(|api| {
        api.auth = ApiAuth::Required;
        api.token = Some("secret-token".to_owned());
    });
    worker.registry.create("a", "u", None).unwrap();
    let got = worker.get("/health");
    assert_eq!((got.status, got.header("Content-Type")), (200, Some("application/json")));
    let data = got.data();
    let mut names: Vec<&String> = data.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["cpuUsage", "maxSessions", "memoryUsage", "sessionCount", "status", "uptime"]);
    assert_eq!(
        (&data["status"], &data["sessionCount"], &data["maxSessions"]),
        (&json!("online"), &json!(1), &json!(50))
    );
    assert!(data["uptime"].is_u64(), "whole seconds");
    let memory = data["memoryUsage"].as_f64().unwrap();
    assert!(memory > 0.0 && memory <= 100.0, "{memory}");
    assert!((0.0..=100.0).contains(&data["cpuUsage"].as_f64().unwrap()));
}

#[test]
fn a_session_lives_as_the_guide_tells() {
    let worker = worker(|_| {});
    let body = r#"{"sessionId":"user123-personal","userId":"user123","sessionName":"Personal WhatsApp"}"#;
    let made = worker.post("/session/create", body);
    assert_eq!(made.status, 200);
    assert_eq!(
        made.json(),
        json!({"success": true, "data": {
            "sessionId": "user123-personal", "status": "disconnected", "message": "Session created successfully"
        }})
    );
    let again = worker.post("/session/create", body);
    assert_eq!((again.status, again.data()["status"].clone()), (200, json!("disconnected")));
    let other = worker.post("/session/create", r#"{"sessionId":"user123-personal","userId":"else"}"#);
    assert_eq!(other.refusal(), (409, "SESSION_OF_OTHER_USER".into(), "sessionId".into()));

    let status = worker.get("/session/user123-personal/status").data();
    assert_eq!(
        (&status["sessionId"], &status["status"]),
        (&json!("user123-personal"), &json!("disconnected"))
    );
    assert_eq!(status["sessionName"], "Personal WhatsApp");
    assert!(status.get("phoneNumber").is_none(), "not known yet: {status}");

    let messages = worker.get("/session/user123-personal/messages?limit=50&offset=0");
    let wanted = json!({"success": true, "data": {
        "messages": [], "pagination": {"total": 0, "limit": 50, "offset": 0}
    }});
    assert_eq!(messages.json(), wanted);

    let listed = worker.get("/sessions").data();
    assert_eq!((&listed["total"], &listed["sessions"][0]["userId"]), (&json!(1), &json!("user123")));
    assert_eq!(worker.get("/sessions?userId=nobody").data()["total"], 0);

    let deleted = worker.ask("DELETE", "/session/user123-personal", Ask::default());
    let deleted = deleted.json();
    assert_eq!(
        (&deleted["success"], &deleted["message"]),
        (&json!(true), &json!("Session deleted successfully"))
    );
    assert_eq!(worker.get("/session/user123-personal/status").refusal().0, 404);
}

#[test]
fn deleting_one_session_leaves_those_whose_names_begin_alike() {
    let worker = worker(|_| {});
    ["user1", "user1-x", "user10"].iter().for_each(|id| worker.create(id));
    assert_eq!(worker.ask("DELETE", "/session/user1", Ask::default()).status, 200);
    assert_eq!(worker.get("/sessions").data()["total"], 2);
}

#[test]
fn a_connect_that_reaches_nobody_says_connecting_and_can_be_taken_back() {
    let worker = worker(|_| {});
    worker.create("a");
    let begun = Instant::now();
    let data = worker.ask("POST", "/session/a/connect", Ask::default()).data();
    assert!(matches!(data["status"].as_str(), Some("connecting" | "reconnecting")), "{data}");
    assert!(data.get("qrCode").is_none(), "{data}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let send = worker.post("/session/a/send", r#"{"to":"6281200000001","type":"text","message":"hi"}"#);
    assert_eq!(send.refusal().0, 409, "nothing was sent: {send:?}");
    assert_eq!(worker.get("/session/a/qr").refusal().1, "NO_QR");
    let data = worker.post("/session/a/disconnect", "").data();
    assert_eq!(data["status"], "disconnected");
}

#[test]
fn every_bad_field_is_400_and_named() {
    let worker = worker(|_| {});
    worker.create("a");
    let long = "x".repeat(101);
    let text = |length: usize| {
        json!({"to": "6281200000001", "type": "text", "message": "x".repeat(length)}).to_string()
    };
    for (path, body, field) in [
        ("/session/create", "{}", "sessionId"),
        ("/session/create", r#"{"sessionId":"a"}"#, "userId"),
        ("/session/create", r#"{"sessionId":7,"userId":"u"}"#, "sessionId"),
        ("/session/create", r#"{"sessionId":"a b","userId":"u"}"#, "sessionId"),
        ("/session/create", r#"{"sessionId":"../etc","userId":"u"}"#, "sessionId"),
        ("/session/create", r#"{"sessionId":"","userId":"u"}"#, "sessionId"),
        ("/session/create", &format!(r#"{{"sessionId":"{long}","userId":"u"}}"#), "sessionId"),
        ("/session/create", r#"{"sessionId":"b","userId":""}"#, "userId"),
        ("/session/create", r#"{"sessionId":"b","userId":"u","sessionName":["x"]}"#, "sessionName"),
        ("/session/create", "{", "body"),
        ("/session/create", "[]", "body"),
        ("/session/create", "\u{1}\u{2}", "body"),
        ("/session/create", r#"{"sessionId":"b","userId":"u"#, "body"),
        ("/session/a/send", "{}", "to"),
        ("/session/a/send", r#"{"to":"not a number","type":"text","message":"x"}"#, "to"),
        ("/session/a/send", r#"{"to":["6281200000001"],"type":"text","message":"x"}"#, "to"),
        ("/session/a/send", r#"{"to":"6281200000001","message":"x"}"#, "type"),
        ("/session/a/send", r#"{"to":"6281200000001","type":"image","message":"x"}"#, "type"),
        ("/session/a/send", r#"{"to":"6281200000001","type":"text"}"#, "message"),
        ("/session/a/send", r#"{"to":"6281200000001","type":"text","message":""}"#, "message"),
        ("/session/a/send", &text(65_537), "message"),
        ("/session/a/pair-code", "{}", "phoneNumber"),
        ("/session/a/pair-code", r#"{"phoneNumber":"0812000000"}"#, "phoneNumber"),
        ("/session/a/pair-code", r#"{"phoneNumber":"6281200000001","x":1}"#, "x"),
        ("/session/a/logout", r#"{"force":true}"#, "force"),
    ] {
        let (status, _, named) = worker.post(path, body).refusal();
        assert_eq!((status, named.as_str()), (400, field), "{path} {body:.80}");
    }
    for (query, field) in [
        ("messages?limit=0", "limit"),
        ("messages?limit=501", "limit"),
        ("messages?limit=x", "limit"),
        ("messages?offset=-1", "offset"),
        ("messages?before=tomorrow", "before"),
        ("messages?after=", "after"),
        ("messages?chat=nobody", "chat"),
        ("messages?page=1", "page"),
        ("events?after=x", "after"),
        ("events?wait=61", "wait"),
        ("qr?format=gif", "format"),
    ] {
        let (status, _, named) = worker.get(&format!("/session/a/{query}")).refusal();
        assert_eq!((status, named.as_str()), (400, field), "{query}");
    }
}

#[test]
fn a_message_of_the_greatest_length_is_read_whole() {
    let worker = worker(|_| {});
    worker.create("a");
    // Three bytes each, escaped to six in JSON: the longest body a text can need.
    let message = "\\u20ac".repeat(65_535 / 3);
    let body = format!(r#"{{"to":"6281200000001","type":"text","message":"{message}"}}"#);
    assert_eq!(worker.post("/session/a/send", &body).refusal().1, "SESSION_NOT_CONNECTED");
}

#[test]
fn bodies_that_are_too_large_or_not_json_are_refused() {
    let worker = worker(|_| {});
    let huge = format!(r#"{{"sessionId":"{}"}}"#, "x".repeat(10 << 20));
    assert_eq!(
        worker.post("/session/create", &huge).refusal(),
        (413, "BODY_TOO_LARGE".into(), "body".into())
    );
    let form =
        Ask { body: Some("sessionId=a"), headers: &[("Content-Type", "application/x-www-form-urlencoded")] };
    let (status, _, field) = worker.ask("POST", "/session/create", form).refusal();
    assert_eq!((status, field.as_str()), (415, "Content-Type"));
    let twice = Ask {
        body: Some("{}"),
        headers: &[("Content-Type", "application/json"), ("Content-Type", "application/json")],
    };
    assert_eq!(worker.ask("POST", "/session/create", twice).refusal().0, 400);
}

#[test]
fn unknown_routes_are_404_and_wrong_methods_405_with_the_right_ones() {
    let worker = worker(|_| {});
    worker.create("a");
    for path in ["/", "/nothing", "/session", "/session/a/b", "/session/a/status/x", "/api/v2"] {
        assert_eq!(worker.get(path).refusal().0, 404, "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("GET", "/session/create", "POST, DELETE, OPTIONS"),
        ("GET", "/session/a", "DELETE, OPTIONS"),
        ("PUT", "/session/a/send", "POST, OPTIONS"),
        ("DELETE", "/session/a/status", "GET, HEAD, OPTIONS"),
        ("BREW", "/sessions", "GET, HEAD, OPTIONS"),
    ] {
        let got = worker.ask(method, path, Ask::default());
        assert_eq!((got.status, got.header("Allow")), (405, Some(allow)), "{method} {path}");
        assert_eq!(got.refusal().1, "METHOD_NOT_ALLOWED");
    }
    assert_eq!(worker.get("//health").status, 200, "a base URL with a slash at its end is forgiven");
}

#[test]
fn ids_cannot_leave_their_place() {
    let worker = worker(|_| {});
    worker.create("a");
    for id in ["..%2f..%2fetc%2fpasswd", "..%2F", "%00", "a%2fb", "%ff"] {
        assert_eq!(worker.get(&format!("/session/{id}/status")).refusal().0, 400, "{id}");
    }
    for id in ["..", "a.b", "a%20b", "%2e%2e", "a'--", &"x".repeat(101)] {
        let (status, _, field) = worker.get(&format!("/session/{id}/status")).refusal();
        assert_eq!((status, field.as_str()), (400, "sessionId"), "{id}");
    }
    assert_eq!(worker.get("/session/unknown/status").refusal().1, "SESSION_NOT_FOUND");
    assert_eq!(worker.ask("DELETE", "/session/unknown", Ask::default()).refusal().0, 404);
}

#[test]
fn the_worker_takes_no_more_sessions_than_it_may() {
    let worker = worker(|_| {});
    (0..5).for_each(|number| worker.create(&format!("s{number}")));
    let got = worker.post("/session/create", r#"{"sessionId":"s5","userId":"u"}"#);
    assert_eq!((got.status, got.header("Retry-After")), (503, Some("60")));
    assert_eq!(got.refusal().1, "WORKER_FULL");
}

#[test]
fn unknown_fields_are_ignored_but_named_on_the_guides_routes() {
    let worker = worker(|_| {});
    let got = worker.post("/session/create", r#"{"sessionId":"a","userId":"u","sesionName":"typo","zz":1}"#);
    assert_eq!((got.status, got.header("X-Unknown-Fields")), (200, Some("sesionName, zz")));
}

#[test]
fn tokens_are_asked_for_before_anything_else() {
    let worker = worker(|api| {
        api.auth = ApiAuth::Required;
        api.token = Some("secret-token".to_owned());
    });
    for (method, path) in
        [("GET", "/sessions"), ("POST", "/session/create"), ("GET", "/nothing"), ("GET", "/ready")]
    {
        let got = worker.ask(method, path, Ask::default());
        assert_eq!((got.status, got.header("WWW-Authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(got.refusal().1, "UNAUTHORIZED");
    }
    let with = |token| Ask { headers: token, body: None };
    assert_eq!(worker.ask("GET", "/sessions", with(&[("Authorization", "Bearer secret-token")])).status, 200);
    assert_eq!(worker.ask("GET", "/sessions", with(&[("Authorization", "Bearer secret-tokem")])).status, 401);
}

#[test]
fn without_a_token_only_direct_local_requests_are_answered() {
    let worker = worker(|_| {});
    assert_eq!(worker.get("/sessions").status, 200);
    for headers in [[("X-Forwarded-For", "192.0.2.1")], [("Origin", "https://evil.example")]] {
        assert_eq!(
            worker.ask("GET", "/sessions", Ask { headers: &headers, body: None }).refusal().1,
            "FORBIDDEN_ORIGIN"
        );
    }
}

#[test]
fn events_come_in_order_and_a_long_poll_ends_with_the_first_new_one() {
    let worker = worker(|_| {});
    worker.create("a");
    worker.ask("POST", "/session/a/connect", Ask::default());
    let data = worker.get("/session/a/events?wait=5").data();
    let events = data["events"].as_array().unwrap();
    assert_eq!(events[0]["seq"], 1, "{data}");
    assert_eq!(events[0]["type"], "session-status");
    assert!(events[0]["data"].is_object() && events[0]["eventId"].is_string(), "{data}");
    let last = data["lastSeq"].as_u64().unwrap();
    let address = worker.http.local_addr();
    let path = format!("/session/a/events?after={last}&wait=30");
    let poll = std::thread::spawn(move || {
        let begun = Instant::now();
        (exchange(address, "GET", &path, &Ask::default()).data(), begun.elapsed())
    });
    worker.post("/session/a/disconnect", "");
    let (data, took) = poll.join().unwrap();
    assert_eq!(data["events"][0]["seq"], last + 1, "{data}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let nothing = worker.get("/session/a/events?after=1000000").data();
    assert_eq!((&nothing["events"], &nothing["lastSeq"]), (&json!([]), &json!(1_000_000)));
}

#[test]
fn long_polls_never_take_more_than_half_of_the_threads() {
    let worker = worker(|api| api.threads = 10);
    worker.create("a");
    let address = worker.http.local_addr();
    let polls: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                exchange(address, "GET", "/session/a/events?after=1000&wait=3", &Ask::default()).status
            })
        })
        .collect();
    assert_eq!(worker.get("/health").status, 200);
    let mut statuses: Vec<u16> = polls.into_iter().map(|poll| poll.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 503]);
}

#[test]
fn a_stopping_worker_is_not_ready_and_ends_long_polls() {
    let worker = worker(|_| {});
    worker.create("a");
    assert_eq!(worker.get("/ready").data()["ready"], true);
    let address = worker.http.local_addr();
    let poll = std::thread::spawn(move || {
        exchange(address, "GET", "/session/a/events?after=1000&wait=60", &Ask::default()).status
    });
    worker.api.begin_stop();
    let got = worker.get("/ready");
    assert_eq!((got.status, got.header("Retry-After")), (503, Some("5")));
    assert_eq!(poll.join().unwrap(), 200);
}
