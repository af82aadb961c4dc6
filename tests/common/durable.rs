//! Object stores that several workers share, and workers on them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{eventually, sandbox::Sandbox, worker::Worker};

/// Seconds a lease lives in these tests.
pub const LEASE_S: u64 = 4;

/// A folder of objects that workers share.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A worker of this name on it.
    pub fn worker(&self, sandbox: &Sandbox, name: &str) -> Worker {
        self.worker_with(sandbox, name, &[])
    }

    pub fn worker_with(&self, sandbox: &Sandbox, name: &str, settings: &[(&str, &str)]) -> Worker {
        let ttl = LEASE_S.to_string();
        let dir = self.dir.path().to_str().unwrap();
        let own = [("WORKER_ID", name), ("STORAGE_DIR", dir), ("STORAGE_LEASE_TTL", &ttl)];
        Worker::start_with(sandbox, &[&own[..], settings].concat())
    }

    pub fn session(&self, id: &str) -> PathBuf {
        self.path().join("sessions").join(id)
    }

    pub fn lease(&self, id: &str) -> Value {
        serde_json::from_slice(&fs::read(self.session(id).join("lease.json")).unwrap()).unwrap()
    }

    /// Every record of the session's days, by message id, and how many there are.
    pub fn records(&self, id: &str) -> (BTreeMap<String, Value>, usize) {
        let (mut records, mut count) = (BTreeMap::new(), 0);
        for file in files(&self.session(id).join("messages")) {
            let part: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            count += part.len();
            records
                .extend(part.into_iter().map(|record| (record["id"].as_str().unwrap().to_owned(), record)));
        }
        (records, count)
    }
}

/// Files of a folder and of folders in it.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect()
}

/// A figure of `GET /metrics`.
pub fn metric(worker: &Worker, name: &str) -> f64 {
    let (_, text) = worker.ask("GET", "/metrics", None);
    let text = text.as_str().unwrap().to_owned();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| {
            panic!("no metric {name}:\n{text}");
        });
    line.parse().unwrap()
}

/// Waits until the object store has everything.
pub fn await_uploaded(worker: &Worker) {
    eventually("everything is uploaded", || {
        (metric(worker, "whatsapp_worker_storage_pending_changes") == 0.0).then_some(())
    });
}

/// Connects a session on a worker as soon as it may; how long that took. Never by a QR.
pub fn take_over(worker: &Worker, session: &str) -> Duration {
    let begun = Instant::now();
    worker.post("/session/create", &json!({ "sessionId": session, "userId": "tester" }));
    eventually(&format!("{session} is connected without a QR"), || {
        let (status, answer) = worker.ask("POST", &format!("/session/{session}/connect"), Some(&json!({})));
        let state = &answer["data"]["status"];
        assert_ne!(state, "qr_required", "{answer}");
        if status == 409 {
            assert_eq!(answer["code"], "SESSION_HELD_ELSEWHERE", "{answer}");
        }
        (state == "connected").then_some(())
    });
    begun.elapsed()
}

/// Texts go both ways between a session and a phone, and arrive.
pub fn chat_both_ways(sandbox: &Sandbox, worker: &Worker, session: &str, own: &str, peer: &str, round: &str) {
    let (out, back) = (format!("{round}: from {session}"), format!("{round}: to {session}"));
    worker.send(session, peer, &out);
    sandbox.send(peer, own, &back);
    eventually(&format!("{out:?} arrives"), || sandbox.received(peer).contains(&out).then_some(()));
    eventually(&format!("{back:?} arrives"), || {
        worker.received(session, &super::worker::chat(peer)).contains(&back).then_some(())
    });
}
