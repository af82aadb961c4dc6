//! The worker and the public backend: its order of calls, its validators, its limits, its way with answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::time::Duration;

use common::{
    backend::{
        TOKEN,
        server::Trouble,
        whatsam::{
            NORMAL_ID, OWN_ID, WhatsamBackend,
            customer::{CallError, USER},
        },
    },
    eventually,
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::{Value, json};

const ALICE: &str = "6281200000091";
const BOB: &str = "6281200000092";
const CAROL: &str = "4915100000093";
const STATUS: &str = "/api/webhooks/session-status";
const SESSION: &str = "b7f1c1de-shop-1700000000000";

fn start(settings: &[(&str, &str)]) -> (Sandbox, WhatsamBackend, Worker) {
    let (sandbox, backend) = (Sandbox::start(), WhatsamBackend::start());
    for phone in [ALICE, BOB, CAROL] {
        sandbox.add_phone(phone);
    }
    let worker = backend.worker(&sandbox, settings);
    backend.await_registration(1);
    (sandbox, backend, worker)
}

/// A customer creates a session, connects it, and scans the QR that the backend shows.
fn connect(sandbox: &Sandbox, backend: &WhatsamBackend, session: &str, phone: &str) {
    backend.create_session(session);
    backend.connect(session).unwrap();
    let qr = eventually("the backend has a QR", || backend.session(session).qr_code);
    sandbox.post(&format!("/phones/{phone}/scan"), &json!({ "qr": qr }));
    backend.await_status(session, "CONNECTED");
}

#[test]
fn a_customers_session_lives_from_its_start_to_its_recovery() {
    let (sandbox, backend, mut worker) = start(&[]);
    connect(&sandbox, &backend, SESSION, ALICE);
    let row = backend.session(SESSION);
    assert_eq!(row.worker_id.as_deref(), Some(NORMAL_ID), "the id as the backend made it");
    assert_eq!(row.phone_number, Some(format!("+{ALICE}")));
    let (status, body) = backend.send_text(SESSION, CAROL, "Hello Carol!").unwrap();
    assert_eq!((status, &body["data"]["status"]), (200, &json!("sent")), "{body}");
    sandbox.await_received(CAROL, &["Hello Carol!".to_owned()]);

    assert_eq!(worker.stop().code(), Some(0), "{}", worker.log());
    assert!(
        backend.server.requests("/unregister").is_empty(),
        "a worker that unregisters loses its sessions"
    );
    worker.start_again();
    backend.await_registration(2);
    let recovery = eventually("the recovery is reported", || backend.tables().recoveries.first().cloned());
    let results = json!([{ "sessionId": SESSION, "status": "SUCCESS" }]);
    for name in ["sessionId", "status"] {
        assert_eq!(recovery["recoveryResults"][0][name], results[0][name], "{recovery}");
    }
    assert_eq!(
        (&recovery["totalSessions"], &recovery["successfulRecoveries"], &recovery["failedRecoveries"]),
        (&json!(1), &json!(1), &json!(0))
    );
    backend.await_status(SESSION, "CONNECTED");
    assert_eq!(worker.status(SESSION), "connected");
    // A heartbeat that left before the session was back may arrive after everything else.
    eventually("the backend lets its customer send", || {
        match backend.send_text(SESSION, CAROL, "Hello again!") {
            Err(CallError::Conflict(_)) => None,
            sent => Some(sent.unwrap()),
        }
    });
    sandbox.await_received(CAROL, &["Hello Carol!".to_owned(), "Hello again!".to_owned()]);
    backend.assert_nothing_refused();
    sandbox.assert_no_violations();
}

#[test]
fn the_registration_says_everything_and_health_answers_while_it_waits() {
    let (_sandbox, backend, _worker) = start(&[]);
    let registrations = backend.server.requests("/api/workers/register");
    let body = registrations[0].json();
    assert_eq!(body["workerId"], OWN_ID);
    assert_eq!(body["endpoint"], json!(backend.endpoint()), "without a slash at its end");
    for name in ["maxSessions", "version", "environment"] {
        assert!(body.get(name).is_some(), "what is left out is reset: {body}");
    }
    assert_eq!(registrations[0].header("Authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    assert_eq!(registrations[0].answered, Some(201), "503 when nobody answered /health");
    eventually("heartbeats come under the normal id", || {
        let beats = backend.server.requests("/heartbeat");
        beats.iter().all(|one| one.path.contains(NORMAL_ID)).then_some(()).filter(|()| beats.len() > 2)
    });
    backend.assert_nothing_refused();
}

#[test]
fn no_session_makes_a_heartbeat_fail_whatever_its_state() {
    let (sandbox, backend, worker) = start(&[]);
    worker.create("a-new-one");
    worker.create("a-waiting-one");
    worker.post("/session/a-waiting-one/connect", &json!({}));
    worker.link(&sandbox, "a-lost-one", ALICE);
    worker.link(&sandbox, "a-good-one", BOB);
    sandbox.post(&format!("/phones/{ALICE}/unlink"), &json!({}));
    worker.await_status("a-lost-one", "logged_out");
    let beat = eventually("a heartbeat has all of them", || {
        let beat = backend.server.requests("/heartbeat").last()?.json();
        let is_lost = |one: &Value| one["sessionId"] == "a-lost-one" && one["status"] == "DISCONNECTED";
        let sessions = beat["sessions"].as_array()?;
        (sessions.len() == 4 && sessions.iter().any(is_lost)).then_some(beat)
    });
    assert!(!beat.to_string().contains("null"), "{beat}");
    backend.assert_nothing_refused();
    let beats = backend.server.requests("/heartbeat");
    assert!(beats.iter().all(|one| one.answered.is_none_or(|status| status == 200)));
}

#[test]
fn a_session_the_backend_does_not_know_is_mentioned_once_and_when_it_is_started() {
    let (sandbox, backend, worker) = start(&[]);
    worker.post("/session/create", &json!({ "sessionId": "stranger", "userId": USER }));
    worker.post("/session/stranger/connect", &json!({}));
    let (_, qr) = worker.ask("GET", "/session/stranger/qr?format=raw", None);
    sandbox.post(&format!("/phones/{ALICE}/scan"), &json!({ "qr": qr }));
    worker.await_status("stranger", "connected");
    worker.post("/session/stranger/disconnect", &json!({}));
    worker.post("/session/stranger/connect", &json!({}));
    worker.await_status("stranger", "connected");
    let beats = backend.server.requests("/heartbeat").len();
    eventually("time passes", || (backend.server.requests("/heartbeat").len() > beats + 3).then_some(()));
    let mentions = backend.server.requests(STATUS).len();
    assert!((1..=3).contains(&mentions), "{mentions} mentions: one, and one with each of two starts");
    // A customer of the backend gets it: now there is something to tell.
    backend.create_session("stranger");
    backend.connect("stranger").unwrap();
    backend.await_status("stranger", "CONNECTED");
    backend.assert_nothing_refused();
}

#[test]
fn what_the_backend_overwrites_with_a_slow_answer_is_told_again() {
    let (sandbox, backend, worker) = start(&[]);
    connect(&sandbox, &backend, SESSION, ALICE);
    backend.restart(SESSION).unwrap();
    // As it does when it reads an answer after the webhook.
    backend.tables().sessions.get_mut(SESSION).unwrap().status = "QR_REQUIRED".to_owned();
    backend.await_status(SESSION, "CONNECTED");
    assert_eq!(worker.status(SESSION), "connected");
    backend.assert_nothing_refused();
}

#[test]
fn a_heartbeat_that_arrives_after_a_newer_webhook_is_followed_by_another() {
    let (sandbox, backend, mut worker) = start(&[("HEARTBEAT_INTERVAL", "300")]);
    connect(&sandbox, &backend, SESSION, ALICE);
    worker.stop();
    let (release, held) = crossbeam_channel::bounded(0);
    backend.server.trouble_times("/heartbeat", 1, Trouble::Held(held));
    let beats = backend.server.requests("/heartbeat").len();
    worker.start_again();
    eventually("a heartbeat is under way", || backend.server.requests("/heartbeat").get(beats).map(|_| ()));
    worker.await_status(SESSION, "connected");
    let told = backend.tables().statuses.len();
    sandbox.post(&format!("/phones/{ALICE}/unlink"), &json!({}));
    eventually("a webhook tells that the session is lost", || {
        backend.tables().statuses[told..].iter().any(|(_, word)| word == "DISCONNECTED").then_some(())
    });
    drop(release);
    eventually("the old heartbeat undoes that", || {
        backend.server.requests("/heartbeat")[beats].answered.filter(|status| *status == 200)
    });
    eventually("the next one puts it right, long before it would be due", || {
        let beats = backend.server.requests("/heartbeat").split_off(beats + 1);
        beats.iter().any(|beat| beat.answered == Some(200)).then_some(())
    });
    backend.await_status(SESSION, "DISCONNECTED");
    backend.assert_nothing_refused();
}

#[test]
fn a_backend_that_restarts_with_an_empty_table_is_told_everything_again() {
    let (sandbox, backend, _worker) = start(&[]);
    connect(&sandbox, &backend, SESSION, ALICE);
    backend.server.close();
    {
        let mut tables = backend.tables();
        tables.workers.clear();
        let row = tables.sessions.get_mut(SESSION).unwrap();
        (row.worker_id, row.status) = (None, "DISCONNECTED".to_owned());
    }
    backend.server.open();
    backend.await_registration(1);
    let row = backend.await_status(SESSION, "CONNECTED");
    assert_eq!(row.worker_id.as_deref(), Some(NORMAL_ID), "one status with the worker's id brings it back");
    backend.assert_nothing_refused();
}

#[test]
fn an_endpoint_that_belongs_to_another_worker_is_a_refusal_that_ends_when_it_is_free() {
    let sandbox = Sandbox::start();
    let backend = WhatsamBackend::start();
    let other = common::backend::whatsam::WorkerRow {
        endpoint: backend.endpoint(),
        status: "ONLINE".to_owned(),
        max_sessions: 1,
        registrations: 1,
    };
    backend.tables().workers.insert("another".to_owned(), other);
    let worker = backend.worker(&sandbox, &[]);
    eventually("the worker is refused and says so", || {
        let log = worker.log();
        log.lines().any(|line| line.contains(" WARN ") && line.contains("409")).then_some(())
    });
    backend.tables().workers.clear();
    backend.await_registration(1);
}

#[test]
fn three_attempts_of_the_backend_over_a_restarted_worker_are_one_message() {
    let (sandbox, backend, mut worker) = start(&[]);
    connect(&sandbox, &backend, SESSION, ALICE);
    backend.send_text(SESSION, CAROL, "first").unwrap();
    sandbox.fault(ALICE, &json!({ "fault": "freeze" }));
    let reply = std::thread::scope(|scope| {
        let sending = scope.spawn(|| backend.send_text(SESSION, CAROL, "please, once"));
        eventually("the message is accepted", || {
            let newest = worker.history(SESSION).first()?.clone();
            (newest["content"] == "please, once").then_some(())
        });
        worker.kill();
        worker.start_again();
        sending.join().unwrap()
    });
    let (status, first) = reply.expect("one of three attempts");
    assert_eq!((status, &first["data"]["status"]), (200, &json!("sent")), "{first}");
    let (_, again) = backend.send_text(SESSION, CAROL, "please, once").unwrap();
    assert_eq!(again, first, "the same answer");
    sandbox.await_received(CAROL, &["first".to_owned(), "please, once".to_owned()]);
    assert_eq!(sandbox.messages(CAROL)[1]["id"], first["data"]["messageId"]);
}

#[test]
fn what_cannot_work_reaches_the_customer_after_one_attempt() {
    let (_sandbox, backend, _worker) = start(&[]);
    let refused = backend.call(
        "POST",
        "/api/nobody/send",
        Some(&json!({ "to": format!("{CAROL}@s.whatsapp.net"), "type": "text", "message": "x" })),
    );
    match refused {
        Err(CallError::Failed(Some((404, body)))) => assert!(body["error"].is_string(), "{body}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn its_limit_of_webhooks_is_kept_and_the_last_status_of_each_session_arrives() {
    let (sandbox, backend, worker) = start(&[]);
    let phones: Vec<String> = (0..12).map(|number| format!("62813000000{number:02}")).collect();
    for phone in &phones {
        sandbox.add_phone(phone);
        let session = format!("s-{phone}");
        backend.create_session(&session);
        backend.connect(&session).unwrap();
        let (_, qr) = worker.ask("GET", &format!("/session/{session}/qr?format=raw"), None);
        sandbox.post(&format!("/phones/{phone}/scan"), &json!({ "qr": qr }));
    }
    for round in 0..4 {
        for phone in &phones {
            worker.await_status(&format!("s-{phone}"), "connected");
            if round < 3 {
                worker.post(&format!("/session/s-{phone}/restart"), &json!({}));
            }
        }
    }
    for phone in &phones {
        backend.await_status(&format!("s-{phone}"), "CONNECTED");
    }
    for phone in &phones[..6] {
        worker.post(&format!("/session/s-{phone}/disconnect"), &json!({}));
    }
    for phone in &phones[..6] {
        backend.await_status(&format!("s-{phone}"), "DISCONNECTED");
    }
    let times: Vec<_> = backend.server.requests("/api/webhooks/").iter().map(|one| one.at).collect();
    for first in &times {
        let minute =
            times.iter().filter(|at| *at >= first && **at - *first < Duration::from_secs(60)).count();
        assert!(minute <= 60, "{minute} webhooks within a minute");
    }
    backend.assert_nothing_refused();
}

#[test]
fn progress_of_messages_is_told_in_its_words_until_it_says_that_nobody_wants_it() {
    let (sandbox, backend, worker) = start(&[("BACKEND_EVENTS", "message-status")]);
    connect(&sandbox, &backend, SESSION, ALICE);
    for number in 0..3 {
        backend.send_text(SESSION, CAROL, &format!("text {number}")).unwrap();
    }
    let told = eventually("it is tried", || backend.server.requests("/api/webhooks/message-status").pop());
    assert_eq!(told.json()["sessionId"], SESSION);
    worker.post(&format!("/session/{SESSION}/disconnect"), &json!({}));
    backend.await_status(SESSION, "DISCONNECTED");
    assert_eq!(
        backend.server.requests("/api/webhooks/message-status").len(),
        1,
        "it has no messages and says 404: that is the end of it"
    );
    backend.assert_nothing_refused();
}

#[test]
fn its_trouble_is_survived() {
    let (sandbox, backend, worker) = start(&[]);
    connect(&sandbox, &backend, SESSION, ALICE);
    let troubles = [
        Trouble::Status(500),
        Trouble::TooMany(1),
        Trouble::Html,
        Trouble::HalfAnswer,
        Trouble::NoAnswer,
        Trouble::Status(401),
    ];
    for (number, trouble) in troubles.into_iter().enumerate() {
        let met = backend.server.requests("").len();
        backend.server.trouble("/api/", trouble.clone());
        eventually("it is met", || (backend.server.requests("").len() > met + 1).then_some(()));
        let text = format!("text {number}");
        let sent = worker.send(SESSION, CAROL, &text);
        assert!(!sent.is_empty());
        backend.server.heal();
        backend.disconnect(SESSION).unwrap();
        let told = backend.tables().statuses.len();
        backend.connect(SESSION).unwrap();
        eventually("the backend is told of the new connection", || {
            let told = backend.tables().statuses[told..].to_vec();
            (told.last()?.1 == "CONNECTED").then_some(())
        });
        assert!(worker.received(SESSION, &chat(CAROL)).is_empty());
    }
    backend.assert_nothing_refused();
}

#[test]
fn a_registration_that_somebody_else_answers_is_tried_again() {
    for trouble in [Trouble::Html, Trouble::WrongJson, Trouble::HalfAnswer] {
        let (sandbox, backend) = (Sandbox::start(), WhatsamBackend::start());
        backend.server.trouble_times("/register", 2, trouble);
        let worker = backend.worker(&sandbox, &[]);
        backend.await_registration(1);
        eventually("heartbeats come under the normal id", || {
            let beats = backend.server.requests("/heartbeat");
            beats.last().filter(|one| one.path.contains(NORMAL_ID) && one.answered == Some(200)).map(|_| ())
        });
        assert_eq!(worker.get("/health")["status"], "online");
        backend.assert_nothing_refused();
    }
}

#[test]
fn a_session_that_is_lost_is_reported_as_lost() {
    let (sandbox, backend, mut worker) = start(&[]);
    connect(&sandbox, &backend, SESSION, ALICE);
    connect(&sandbox, &backend, "another", BOB);
    worker.stop();
    sandbox.post(&format!("/phones/{BOB}/unlink"), &json!({}));
    let lost = common::backend::whatsam::SessionRow {
        worker_id: Some(NORMAL_ID.to_owned()),
        status: "CONNECTED".to_owned(),
        ..Default::default()
    };
    backend.tables().sessions.insert("never-seen".to_owned(), lost);
    worker.start_again();
    let report = eventually("the recovery is reported", || backend.tables().recoveries.first().cloned());
    let of = |session: &str| {
        let results = report["recoveryResults"].as_array().unwrap();
        let found = results.iter().find(|one| one["sessionId"] == session);
        found.unwrap_or_else(|| panic!("{session}: {report}"))["status"].clone()
    };
    assert_eq!((of(SESSION), of("never-seen")), (json!("SUCCESS"), json!("FAILED")), "{report}");
    assert_ne!(of("another"), "SUCCESS", "its phone unlinked it: {report}");
    backend.await_status("another", "DISCONNECTED");
    assert_eq!(backend.session("never-seen").status, "ERROR");
    backend.assert_nothing_refused();
}
