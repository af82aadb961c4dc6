//! The real program on a disk that gets full: 507 with a clear error, nothing accepted is lost, and it recovers.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{fs, path::Path, process::Command};

use common::{durable::await_uploaded, eventually, sandbox::Sandbox, worker::Worker};
use serde_json::json;

const ALICE: &str = "6281200000091";
const CAROL: &str = "4915100000093";

#[test]
#[ignore = "mounts a small tmpfs: `tests/run --step mounts` runs it"]
fn a_full_disk_is_answered_with_507_and_the_worker_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path());
    let sandbox = Sandbox::start();
    for phone in [ALICE, CAROL] {
        sandbox.add_phone(phone);
    }
    let state = dir.path().join("state");
    let objects = tempfile::tempdir().unwrap();
    let settings =
        [("STATE_DIR", state.to_str().unwrap()), ("STORAGE_DIR", objects.path().to_str().unwrap())];
    let mut worker = Worker::start_with(&sandbox, &settings);
    worker.link(&sandbox, "alice", ALICE);
    let ballast = dir.path().join("ballast");
    fill(&ballast);
    let mut accepted = Vec::new();
    let text = "x".repeat(20_000);
    let refused = loop {
        let text = format!("{} {text}", accepted.len());
        let body = json!({ "to": CAROL, "type": "text", "message": text });
        match worker.ask("POST", "/session/alice/send", Some(&body)) {
            (200 | 202, _) => accepted.push(text),
            (507, answer) => break answer,
            // The session that met the full disk first starts anew.
            (409 | 503, _) => {}
            (status, answer) => panic!("{status} {answer}"),
        }
        assert!(accepted.len() < 5_000, "the disk never got full");
    };
    assert_eq!(refused["code"], "DISK_FULL", "{refused}");
    assert_eq!(worker.ask("GET", "/health", None).0, 200);
    assert_eq!(worker.ask("GET", "/ready", None).0, 507);
    fs::remove_file(&ballast).unwrap();
    eventually("the worker takes work again", || (worker.ask("GET", "/ready", None).0 == 200).then_some(()));
    worker.await_status("alice", "connected");
    worker.send("alice", CAROL, "there is room");
    await_uploaded(&worker);
    worker.kill();
    worker.start_again();
    worker.await_status("alice", "connected");
    let got = sandbox.received(CAROL);
    let missing: Vec<_> = accepted.iter().filter(|text| !got.contains(text)).map(|text| &text[..8]).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let history = worker.history("alice");
    assert!(accepted.iter().all(|text| history.iter().any(|message| message["content"] == text.as_str())));
    sandbox.assert_no_violations();
    worker.kill();
    drop(mount);
}

/// Takes all room but a little.
fn fill(file: &Path) {
    let mut size = 60 << 20;
    fs::write(file, []).unwrap();
    let mut content = Vec::new();
    while size > 64 << 10 {
        content.resize(content.len() + size, 0u8);
        if fs::write(file, &content).is_err() {
            content.truncate(content.len() - size);
            fs::write(file, &content).unwrap();
            size /= 2;
        }
    }
}

struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(dir: &'a Path) -> Self {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(dir).status();
        assert!(status.unwrap().success(), "mounting a tmpfs needs root");
        Self(dir)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}
