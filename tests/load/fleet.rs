//! Our side: one worker with many sessions, driven over REST.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    client::Client,
    common::{eventually, sandbox::Sandbox, worker::Worker},
    cost::Cost,
};

pub struct Fleet<'a> {
    sandbox: &'a Sandbox,
    worker: Worker,
    /// Accounts of the sessions linked so far; session `s<n>` belongs to the n-th.
    phones: Vec<String>,
}

/// Phones without a linked device, who talk with the first sessions of either side.
pub type Partners = Vec<String>;

impl<'a> Fleet<'a> {
    pub fn new(sandbox: &'a Sandbox, max_sessions: usize) -> Self {
        let worker = Worker::start_with(
            sandbox,
            &[
                ("WORKER_MAX_SESSIONS", &max_sessions.to_string()),
                ("RUST_LOG", "warn,whatsapp_worker::worker=info"),
            ],
        );
        Self { sandbox, worker, phones: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.worker.pid()
    }

    /// Links further sessions until there are `count`.
    pub fn link(&mut self, count: usize) -> Cost {
        let first = self.phones.len();
        self.phones.extend(new_phones(self.sandbox, count - first));
        let started = Cost::of(self.pid());
        thread::scope(|scope| {
            for lane in 0..LANES {
                let this = &*self;
                scope.spawn(move || this.link_some((first + lane..count).step_by(LANES)));
            }
        });
        let wall = started.wall();
        started.until_quiet(wall, count - first)
    }

    fn link_some(&self, numbers: impl Iterator<Item = usize>) {
        let mut api = Client::new(&self.worker.api);
        let mut control = Client::new(&self.sandbox.control_url);
        for number in numbers {
            let session = format!("s{number}");
            api.post("/session/create", &json!({ "sessionId": session, "userId": "load" }));
            let connect = format!("/session/{session}/connect");
            assert_eq!(api.post(&connect, &json!({}))["status"], "qr_required");
            let (status, qr) = api.exchange("GET", &format!("/session/{session}/qr?format=raw"), "");
            assert_eq!(status, 200, "{qr}");
            control.post(&format!("/phones/{}/scan", self.phones[number]), &json!({ "qr": qr }));
            assert_eq!(api.post(&connect, &json!({}))["status"], "connected");
        }
    }

    /// Waits until the object store has everything.
    pub fn upload(&self) {
        let mut api = Client::new(&self.worker.api);
        seldom("everything is uploaded", UPLOADING, || {
            let (_, text) = api.exchange("GET", "/metrics", "");
            let left =
                text.lines().find_map(|line| line.strip_prefix("whatsapp_worker_storage_pending_changes "));
            left.expect("the metric") == "0"
        });
    }

    /// Stops the worker and starts it again; costs from its start to the last login.
    pub fn restart(&mut self) -> Cost {
        self.worker.stop();
        let start = Instant::now();
        self.worker.start_again();
        let mut api = Client::new(&self.worker.api);
        let mut missing = self.phones.len();
        seldom("all sessions are connected again", COMING_BACK, || {
            while missing > 0 {
                let status = api.get(&format!("/session/s{}/status", missing - 1));
                if status["status"] != "connected" {
                    return false;
                }
                missing -= 1;
            }
            true
        });
        let wall = start.elapsed();
        Cost::since_start(self.pid()).until_quiet(wall, self.phones.len())
    }

    /// Makes phones to talk with, and lets each session and its partner know each other.
    pub fn partners(&self, count: usize) -> Partners {
        let partners = new_phones(self.sandbox, count);
        let mut api = Client::new(&self.worker.api);
        for (number, partner) in partners.iter().enumerate() {
            send_text(&mut api, number, partner, "hello");
            self.sandbox.send(partner, &self.phones[number], "hello");
        }
        partners
    }

    /// `count` texts over REST, session `n` to partner `n`, `window` callers per session. Each waits for its answer,
    /// which comes with the server's ack.
    pub fn send(&self, partners: &Partners, count: usize, window: usize) -> Cost {
        let each = count / (partners.len() * window);
        let started = Cost::of(self.pid());
        thread::scope(|scope| {
            for (number, partner) in partners.iter().enumerate() {
                for lane in 0..window {
                    scope.spawn(move || {
                        let mut api = Client::new(&self.worker.api);
                        for message in 0..each {
                            send_text(&mut api, number, partner, &format!("text {message} of lane {lane}"));
                        }
                    });
                }
            }
        });
        let wall = started.wall();
        started.until_quiet(wall, each * partners.len() * window)
    }

    /// `count` texts from the partners' phones; done when the history has them.
    pub fn receive(&self, partners: &Partners, count: usize) -> Cost {
        let mut api = Client::new(&self.worker.api);
        let mut total = || -> u64 {
            let totals = (0..partners.len()).map(|number| {
                let page = api.get(&format!("/session/s{number}/messages?limit=1"));
                page["pagination"]["total"].as_u64().expect("a total")
            });
            totals.sum()
        };
        let before = total();
        let started = Cost::of(self.pid());
        blast(self.sandbox, partners, &self.phones[..partners.len()], count);
        let wall = started.wall();
        let cost = started.until_quiet(wall, count);
        assert_eq!(total() - before, count as u64, "every message is in the history");
        cost
    }
}

impl Fleet<'_> {
    /// # Panics
    /// When one of our sessions broke a rule of the protocol. Baileys does (it leaves the service's pings unanswered).
    pub fn assert_no_violations(&self) {
        let found = self.sandbox.get("/violations");
        let all = found["violations"].as_array().expect("a list");
        let is_ours = |violation: &&Value| self.phones.iter().any(|ours| violation["phone"] == ours.as_str());
        let ours: Vec<_> = all.iter().filter(is_ours).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}

fn send_text(api: &mut Client, session: usize, to: &str, text: &str) {
    let body = json!({ "to": to, "type": "text", "message": text });
    let data = api.post(&format!("/session/s{session}/send"), &body);
    assert_eq!(data["status"], "sent", "{data}");
}

/// Lets phones write as fast as they can, and waits until they are done.
pub fn blast(sandbox: &Sandbox, from: &Partners, to: &[String], count: usize) {
    sandbox.post("/blast", &json!({ "from": from, "to": to, "count": count }));
    eventually("the phones are done", || {
        thread::sleep(Duration::from_millis(100));
        let status = sandbox.get("/blast");
        assert_eq!(status["failed"], 0, "{status}");
        (status["running"] == false).then_some(())
    });
}

/// Makes accounts with their phones.
pub fn new_phones(sandbox: &Sandbox, count: usize) -> Vec<String> {
    let made = sandbox.post("/phones/bulk", &json!({ "count": count }));
    let phones = made.as_array().expect("a list").iter();
    phones.map(|phone| phone["phone"].as_str().expect("a number").to_owned()).collect()
}

/// As `eventually`, asking four times a second: answering costs the worker that is measured.
fn seldom(what: &str, patience: Duration, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !ask() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(250));
    }
}

/// What a thousand new sessions have to be uploaded in.
const UPLOADING: Duration = Duration::from_secs(600);
/// How long stored sessions may take to be connected again.
const COMING_BACK: Duration = Duration::from_secs(300);
/// Sessions linked at the same time.
const LANES: usize = 4;
