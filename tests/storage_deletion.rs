//! `DELETE /session/{id}`: every object of exactly this id, also when the worker dies in the middle.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{fs, time::Duration};

use common::{
    durable::{Home, await_uploaded, chat_both_ways, files},
    eventually,
    sandbox::Sandbox,
};
use serde_json::json;

const ALICE: &str = "6281200000071";
const BOB: &str = "6281200000072";
const CAROL: &str = "4915100000073";

#[test]
fn a_deletion_removes_every_object_of_exactly_this_id_and_frees_it() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    for phone in [ALICE, BOB, CAROL] {
        sandbox.add_phone(phone);
    }
    let worker = home.worker(&sandbox, "a");
    for (session, phone) in [("user1", ALICE), ("user1-x", BOB)] {
        worker.link(&sandbox, session, phone);
        chat_both_ways(&sandbox, &worker, session, phone, CAROL, "first");
    }
    await_uploaded(&worker);
    for id in ["user1", "user1-x"] {
        let media = home.path().join("media").join(id).join("images");
        fs::create_dir_all(&media).unwrap();
        fs::write(media.join("A.jpg"), b"x").unwrap();
    }
    let other = files(&home.session("user1-x")).len();
    let (status, answer) = worker.ask("DELETE", "/session/user1", None);
    assert_eq!((status, &answer["unlinked"]), (200, &json!(true)), "{answer}");
    assert_eq!(files(&home.session("user1")), Vec::<std::path::PathBuf>::new());
    assert_eq!(files(&home.path().join("media/user1")), Vec::<std::path::PathBuf>::new());
    assert!(files(&home.session("user1-x")).len() >= other);
    assert_eq!(files(&home.path().join("media/user1-x")).len(), 1);
    assert_eq!(worker.ask("DELETE", "/session/user1", None).0, 404, "it is gone");
    chat_both_ways(&sandbox, &worker, "user1-x", BOB, CAROL, "second");
    worker.create("user1");
    let connected = worker.post("/session/user1/connect", &json!({}));
    assert_eq!(connected["status"], "qr_required", "nothing of the old session is left");
}

#[test]
fn a_deletion_that_a_crash_interrupted_is_finished_by_the_next_start() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    for phone in [ALICE, CAROL] {
        sandbox.add_phone(phone);
    }
    let mut worker = home.worker(&sandbox, "a");
    worker.link(&sandbox, "user1", ALICE);
    chat_both_ways(&sandbox, &worker, "user1", ALICE, CAROL, "first");
    await_uploaded(&worker);
    worker.stop();
    // What a crash right behind the tombstone leaves: all objects, and a lease that says they go. With the disk, the
    // worker lost the proof that the tombstone is its own: it has to wait until that expires.
    let mut lease = home.lease("user1");
    lease["state"] = json!("deleting");
    lease["expiresAt"] = json!((jiff::Timestamp::now() + Duration::from_secs(4)).to_string());
    fs::write(home.session("user1").join("lease.json"), lease.to_string()).unwrap();
    fs::remove_dir_all(&worker.state_dir).unwrap();
    worker.start_again();
    eventually("the objects are gone", || files(&home.session("user1")).is_empty().then_some(()));
    assert_eq!(worker.ask("GET", "/session/user1/status", None).0, 404);
}

#[test]
fn a_deletion_while_the_object_store_is_away_is_finished_when_it_is_back() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    for phone in [ALICE, CAROL] {
        sandbox.add_phone(phone);
    }
    let mut worker = home.worker_with(&sandbox, "a", &[("STORAGE_SINGLE_WORKER", "true")]);
    worker.link(&sandbox, "user1", ALICE);
    await_uploaded(&worker);
    // A file in the place of the folder: nothing below it can be reached.
    let (sessions, aside) = (home.path().join("sessions"), home.path().join("aside"));
    fs::rename(&sessions, &aside).unwrap();
    fs::write(&sessions, b"not a folder").unwrap();
    let (status, answer) = worker.ask("DELETE", "/session/user1", None);
    assert_eq!(status, 200, "{answer}");
    let body = json!({ "sessionId": "user1", "userId": "tester" });
    let (status, answer) = worker.ask("POST", "/session/create", Some(&body));
    assert_eq!((status, &answer["code"]), (409, &json!("SESSION_DELETING")), "{answer}");
    worker.kill();
    fs::remove_file(&sessions).unwrap();
    fs::rename(&aside, &sessions).unwrap();
    worker.start_again();
    eventually("the objects are gone", || files(&home.session("user1")).is_empty().then_some(()));
    eventually("the id is free", || {
        (worker.ask("POST", "/session/create", Some(&body)).0 == 200).then_some(())
    });
}
