//! `whatsapp-worker import` and `export` as a person uses them: beside workers, and when they refuse.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{fs, path::Path};

use common::{
    buckets::{Bucket, Folder, highest_sending_counter, read_folder, write_folder},
    durable::{Home, await_uploaded, chat_both_ways, files, take_over},
    eventually,
    sandbox::Sandbox,
    worker::Worker,
};
use serde_json::{Value, json};

const ALICE: &str = "6281200000101";
const CAROL: &str = "4915100000103";

/// The report of a run.
fn report(worker: &Worker, arguments: &[&str]) -> (i32, Value) {
    let (code, said, log) = worker.run(&[arguments, &["--json"]].concat());
    let json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said:?} {log}"));
    (code, json)
}

fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = files(dir)
        .into_iter()
        .filter(|file| !file.ends_with("lock"))
        .map(|file| (file.display().to_string(), fs::read(&file).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn an_exported_session_is_left_alone_until_somebody_connects_it_again() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    let mut worker = home.worker(&sandbox, "a");
    worker.link(&sandbox, "alice", ALICE);
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "first");
    await_uploaded(&worker);
    let auth = home.session("alice").join("auth_info_baileys");
    assert!(
        highest_sending_counter(&read_folder(&auth)) >= 60,
        "numbers are reserved while the session runs"
    );
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("alice");
    let export = ["export", "alice", dir.to_str().unwrap()];
    let (code, refused) = report(&worker, &export);
    assert_eq!((code, &refused["verdict"]), (2, &json!("unusable")), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("a worker is running"), "{refused}");
    let other = home.worker_with(&sandbox, "b", &[]);
    let mut stopped = home.worker_with(&sandbox, "c", &[]);
    stopped.stop();
    let (code, refused) = report(&stopped, &export);
    assert_eq!(code, 2, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("worker a holds the session"), "{refused}");
    drop(other);

    assert!(worker.stop().success());
    assert!(highest_sending_counter(&read_folder(&auth)) < 20, "an end in order leaves the folder exact");
    let before = snapshot(home.path());
    let (code, planned) = report(&worker, &[&export[..], &["--dry-run"]].concat());
    assert_eq!((code, &planned["verdict"], dir.exists()), (0, &json!("ok"), false), "{planned}");
    assert_eq!(snapshot(home.path()), before, "a dry run writes nothing");
    let (code, said, _) = worker.run(&export);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("account  +{ALICE} of session alice")), "{said}");
    let exported = read_folder(&dir);
    assert_eq!(planned["files"], exported.len());
    assert_eq!(exported, read_folder(&auth), "byte by byte");
    let (code, refused) = report(&worker, &export);
    assert_eq!(code, 2, "old files do not mix with new ones: {refused}");

    worker.start_again();
    eventually("the worker leaves the session alone", || {
        let session = worker.get("/session/alice/status");
        (session["status"] == "error" && session["error"].as_str()?.contains("gave it away")).then_some(())
    });
    take_over(&worker, "alice");
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "second");
    assert!(worker.stop().success());
    // A folder with a damaged file comes back all the same; the damage is told.
    let mut folder: Folder = exported;
    let session = folder.keys().find(|name| name.starts_with("session-")).unwrap().clone();
    folder.insert(session.clone(), b"{".to_vec());
    let damaged = out.path().join("damaged");
    write_folder(&damaged, &folder);
    let import = ["import", damaged.to_str().unwrap(), "--session", "alice"];
    let (code, partial) = report(&worker, &import);
    assert_eq!((code, &partial["verdict"]), (1, &json!("partial")), "{partial}");
    assert_eq!(partial["refused"][0]["file"], session.as_str(), "{partial}");
    worker.start_again();
    take_over(&worker, "alice");
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "third");
    sandbox.assert_no_violations();
}

#[test]
fn a_flat_session_of_an_older_worker_is_found_without_being_imported() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    let mut worker = home.worker(&sandbox, "a");
    worker.link(&sandbox, "alice", ALICE);
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "first");
    assert!(worker.stop().success());
    let account = read_folder(&home.session("alice").join("auth_info_baileys"));
    fs::remove_dir_all(home.session("alice")).unwrap();
    write_folder(&home.session("alice"), &account);
    let other = home.worker(&sandbox, "b");
    take_over(&other, "alice");
    chat_both_ways(&sandbox, &other, "alice", ALICE, CAROL, "second");
    for (name, bytes) in account {
        assert_eq!(fs::read(home.session("alice").join(&name)).unwrap(), bytes, "{name} was touched");
    }
    sandbox.assert_no_violations();
}

#[test]
fn a_folder_is_imported_into_a_bucket_that_is_not_there_yet() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    let mut old = home.worker(&sandbox, "old");
    old.link(&sandbox, "alice", ALICE);
    chat_both_ways(&sandbox, &old, "alice", ALICE, CAROL, "first");
    old.post("/session/alice/release", &json!({}));
    old.stop();
    let folder = home.session("alice").join("auth_info_baileys");
    let bucket = Bucket::minio();
    let mut settings = bucket.settings.clone();
    settings.push(("STORAGE_DIR", String::new()));
    let import = ["import", folder.to_str().unwrap(), "--session", "alice", "--user", "tester"];
    let (code, said, log) = old.run_with(&settings, &[&import[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{said}{log}");
    assert!(bucket.store.list("").is_err(), "a dry run makes no bucket");
    let (code, said, log) = old.run_with(&settings, &import);
    assert_eq!(code, 0, "{said}{log}");
    let new = bucket.worker(&sandbox, "new");
    take_over(&new, "alice");
    chat_both_ways(&sandbox, &new, "alice", ALICE, CAROL, "second");
    sandbox.assert_no_violations();
}
