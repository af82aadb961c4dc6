//! Sessions that move: a killed worker, a release, a drain, an ordinary stop, a lost disk, damaged objects.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{fs, time::Duration};

use common::{
    durable::{Home, await_uploaded, chat_both_ways, files, take_over},
    eventually,
    sandbox::Sandbox,
    worker::Worker,
};
use serde_json::json;

const ALICE: &str = "6281200000061";
const BOB: &str = "6281200000062";
const CAROL: &str = "4915100000063";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    for phone in [ALICE, BOB, CAROL] {
        sandbox.add_phone(phone);
    }
    sandbox
}

/// A worker with a session that has chatted, everything uploaded.
fn settled(sandbox: &Sandbox, home: &Home, name: &str, sessions: &[(&str, &str)]) -> Worker {
    let worker = home.worker(sandbox, name);
    for (session, phone) in sessions {
        worker.link(sandbox, session, phone);
        chat_both_ways(sandbox, &worker, session, phone, CAROL, "first");
    }
    await_uploaded(&worker);
    worker
}

#[test]
fn a_killed_workers_session_is_served_by_another_and_the_first_keeps_off() {
    let (sandbox, home) = (sandbox(), Home::new());
    let mut a = settled(&sandbox, &home, "a", &[("alice", ALICE)]);
    let told = a.history("alice").len();
    let b = home.worker(&sandbox, "b");
    b.create("alice");
    let (status, answer) = b.ask("POST", "/session/alice/connect", Some(&json!({})));
    assert_eq!((status, &answer["code"]), (409, &json!("SESSION_HELD_ELSEWHERE")), "{answer}");
    assert_eq!(answer["details"]["workerId"], "a", "{answer}");
    assert!(answer["details"]["expiresAt"].is_string(), "{answer}");
    let (status, answer) = b.ask("DELETE", "/session/alice", None);
    assert_eq!((status, &answer["code"]), (409, &json!("SESSION_HELD_ELSEWHERE")), "{answer}");
    chat_both_ways(&sandbox, &a, "alice", ALICE, CAROL, "undisturbed");
    await_uploaded(&a);

    a.kill();
    let took = take_over(&b, "alice");
    assert!(took < Duration::from_secs(60), "{took:?}");
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "second");
    assert_eq!(b.history("alice").len(), told + 4, "the history came along");

    a.start_again();
    eventually("the first worker knows that it lost the session", || {
        let session = a.get("/session/alice/status");
        (session["status"] == "error" && session["error"].as_str()?.contains("worker b")).then_some(())
    });
    assert_eq!(b.status("alice"), "connected");
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "third");
    assert_eq!(home.lease("alice")["workerId"], "b");
    sandbox.assert_no_violations();
}

#[test]
fn a_worker_that_was_away_longer_than_its_lease_stops_and_writes_nothing() {
    let (sandbox, home) = (sandbox(), Home::new());
    let a = settled(&sandbox, &home, "a", &[("alice", ALICE)]);
    let pid = rustix::process::Pid::from_raw(i32::try_from(a.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let b = home.worker(&sandbox, "b");
    take_over(&b, "alice");
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "second");
    await_uploaded(&b);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    eventually("the first worker stops its session", || (a.status("alice") == "error").then_some(()));
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "third");
    await_uploaded(&b);
    assert_eq!(home.lease("alice")["workerId"], "b");
    let (records, _) = home.records("alice");
    assert_eq!(records.len(), b.history("alice").len(), "nobody else wrote the history");
    sandbox.assert_no_violations();
}

#[test]
fn a_released_session_goes_on_elsewhere_at_once_and_comes_back() {
    let (sandbox, home) = (sandbox(), Home::new());
    let a = settled(&sandbox, &home, "a", &[("alice", ALICE)]);
    a.post("/session/alice/release", &json!({}));
    assert_eq!(home.lease("alice")["state"], "released");
    let b = home.worker(&sandbox, "b");
    take_over(&b, "alice");
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "second");
    b.post("/session/alice/release", &json!({}));
    take_over(&a, "alice");
    chat_both_ways(&sandbox, &a, "alice", ALICE, CAROL, "third");
    assert_eq!(a.history("alice").len(), 6, "no message is missing or twice");
    sandbox.assert_no_violations();
}

#[test]
fn a_drain_gives_every_session_away_and_takes_nothing_new() {
    let (sandbox, home) = (sandbox(), Home::new());
    let a = settled(&sandbox, &home, "a", &[("alice", ALICE), ("bob", BOB)]);
    let report = a.post("/drain", &json!({}));
    assert_eq!((&report["drained"], &report["failed"]), (&json!(2), &json!(0)), "{report}");
    assert_eq!(
        report["sessions"][0],
        json!({ "sessionId": "alice", "released": true, "pendingMessages": 0 })
    );
    let (status, answer) = a.ask("POST", "/session/alice/connect", Some(&json!({})));
    assert_eq!(status, 503, "{answer}");
    assert_eq!(a.ask("GET", "/ready", None).0, 503);
    let b = home.worker(&sandbox, "b");
    for (session, phone) in [("alice", ALICE), ("bob", BOB)] {
        take_over(&b, session);
        chat_both_ways(&sandbox, &b, session, phone, CAROL, "second");
    }
    sandbox.assert_no_violations();
}

#[test]
fn a_stopped_worker_leaves_its_sessions_to_others_and_takes_back_what_nobody_took() {
    let (sandbox, home) = (sandbox(), Home::new());
    let mut a = settled(&sandbox, &home, "a", &[("alice", ALICE), ("bob", BOB)]);
    a.stop();
    assert_eq!(home.lease("alice")["state"], "released");
    let b = home.worker(&sandbox, "b");
    take_over(&b, "alice");
    a.start_again();
    a.await_status("bob", "connected");
    eventually("the first worker leaves alice alone", || (a.status("alice") == "error").then_some(()));
    chat_both_ways(&sandbox, &b, "alice", ALICE, CAROL, "second");
    chat_both_ways(&sandbox, &a, "bob", BOB, CAROL, "second");
    sandbox.assert_no_violations();
}

#[test]
fn a_lost_disk_is_recovered_from_the_objects_alone() {
    let (sandbox, home) = (sandbox(), Home::new());
    let mut a = settled(&sandbox, &home, "a", &[("alice", ALICE), ("bob", BOB)]);
    a.kill();
    fs::remove_dir_all(&a.state_dir).unwrap();
    a.start_again();
    for (session, phone) in [("alice", ALICE), ("bob", BOB)] {
        eventually(&format!("{session} comes back by itself"), || {
            let (status, answer) = a.ask("GET", &format!("/session/{session}/status"), None);
            (status == 200 && answer["data"]["status"] == "connected").then_some(())
        });
        assert_eq!(a.history(session).len(), 2);
        chat_both_ways(&sandbox, &a, session, phone, CAROL, "second");
    }
    let (sent, got) = (a.history("alice").len(), home.records("alice"));
    await_uploaded(&a);
    assert_eq!(sent, 4, "{got:?}");
    // In order this time: everything goes on where it was.
    a.stop();
    fs::remove_dir_all(&a.state_dir).unwrap();
    a.start_again();
    eventually("alice comes back again", || {
        let (status, answer) = a.ask("GET", "/session/alice/status", None);
        (status == 200 && answer["data"]["status"] == "connected").then_some(())
    });
    chat_both_ways(&sandbox, &a, "alice", ALICE, CAROL, "third");
    assert_eq!(a.history("alice").len(), 6);
    sandbox.assert_no_violations();
}

#[test]
fn damaged_objects_are_put_aside_and_other_sessions_go_on() {
    let (sandbox, home) = (sandbox(), Home::new());
    let mut a = settled(&sandbox, &home, "a", &[("alice", ALICE), ("bob", BOB)]);
    a.kill();
    fs::remove_dir_all(&a.state_dir).unwrap();
    let damage = |file: &std::path::Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    damage(&files(&home.session("alice").join("messages"))[0]);
    damage(&home.session("bob").join("auth_info_baileys/creds.json"));
    a.start_again();
    eventually("alice comes back", || {
        let (status, answer) = a.ask("GET", "/session/alice/status", None);
        (status == 200 && answer["data"]["status"] == "connected").then_some(())
    });
    chat_both_ways(&sandbox, &a, "alice", ALICE, CAROL, "second");
    eventually("bob says what is wrong", || {
        let (status, answer) = a.ask("GET", "/session/bob/status", None);
        let session = &answer["data"];
        (status == 200 && session["status"] == "error" && session["error"].as_str()?.contains("damaged"))
            .then_some(())
    });
    let put_aside = |id: &str| files(&home.path().join("quarantine/sessions").join(id)).len();
    assert!(put_aside("alice") >= 1 && put_aside("bob") >= 1);
    assert!(a.log().contains("quarantine"), "a person is told");
    assert_eq!(a.ask("POST", "/session/bob/connect", Some(&json!({}))).0, 409, "never a fresh identity");
    sandbox.assert_no_violations();
}
