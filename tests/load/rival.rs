//! Baileys doing the same: one node process, its auth state in memory, nothing durable, no REST.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    common::{Lines, Process, baileys::node, eventually, sandbox::Sandbox},
    cost::Cost,
    fleet::{Partners, blast, new_phones},
};

pub struct Rival<'a> {
    sandbox: &'a Sandbox,
    process: Process,
    lines: Lines,
    /// Accounts of the clients; client `b<n>` belongs to the n-th.
    phones: Vec<String>,
    next_id: u64,
    _dir: tempfile::TempDir,
}

impl<'a> Rival<'a> {
    pub fn start(sandbox: &'a Sandbox) -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/baileys");
        let dir = tempfile::tempdir().expect("a folder");
        let node = node().expect("node 20 or newer: run `tests/run --setup`");
        let mut command = Command::new(node);
        command.arg(home.join("peer.mjs")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, &dir.path().join("baileys.log"));
        let lines = process.lines();
        let mut rival = Self { sandbox, process, lines, phones: Vec::new(), next_id: 1, _dir: dir };
        rival.find("Baileys is loaded", |line| line["event"] == "hello");
        rival
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Waits for a line and takes all lines up to it away.
    fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let mut lines = self.lines.lock();
            let mut parsed = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let at = parsed.position(|line| is_it(&line))?;
            let found = lines.drain(..=at).next_back()?;
            serde_json::from_str(&found).ok()
        })
    }

    fn give(&mut self, peer: usize, action: &str, options: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({ "id": id, "peer": format!("b{peer}"), "do": action });
        for (name, value) in options.as_object().into_iter().flatten() {
            line[name] = value.clone();
        }
        let mut input = self.process.child.stdin.as_ref().expect("standard input is piped");
        writeln!(input, "{line}").expect("node runs");
        id
    }

    fn answer(&mut self, id: u64) -> Value {
        let answer = self.find("Baileys answers", |line| line["id"] == id && line.get("event").is_none());
        assert!(answer.get("error").is_none(), "{answer}");
        answer["ok"].clone()
    }

    fn launch(&mut self, peer: usize) {
        let options = json!({
            "url": self.sandbox.whatsapp_url, "caFile": self.sandbox.ca_file, "quiet": true,
        });
        let id = self.give(peer, "start", &options);
        self.answer(id);
    }

    fn await_open(&mut self, peer: usize) {
        let name = format!("b{peer}");
        self.find("Baileys is logged in", |line| line["peer"] == name.as_str() && line["event"] == "open");
    }

    /// Links further clients until there are `count`, one after the other.
    pub fn link(&mut self, count: usize) -> Cost {
        let first = self.phones.len();
        self.phones.extend(new_phones(self.sandbox, count - first));
        let started = Cost::of(self.pid());
        for peer in first..count {
            self.launch(peer);
            let qr = self.find("Baileys shows a QR", |line| line["event"] == "qr")["qr"].clone();
            self.sandbox.post(&format!("/phones/{}/scan", self.phones[peer]), &json!({ "qr": qr }));
            self.await_open(peer);
        }
        let wall = started.wall();
        started.until_quiet(wall, count - first)
    }

    /// Closes every connection and connects again.
    pub fn log_in_again(&mut self) -> Cost {
        for peer in 0..self.phones.len() {
            let id = self.give(peer, "stop", &json!({}));
            self.answer(id);
        }
        let started = Cost::of(self.pid());
        for peer in 0..self.phones.len() {
            self.launch(peer);
            self.await_open(peer);
        }
        let wall = started.wall();
        started.until_quiet(wall, self.phones.len())
    }

    /// `count` texts, client `n` to partner `n`, each awaited until its ack.
    pub fn send(&mut self, partners: &Partners, count: usize, window: usize) -> Cost {
        let talkers = partners.len().min(self.phones.len());
        // Who was written to may answer, and the clock runs only once they know each other.
        for (partner, phone) in partners.iter().zip(&self.phones) {
            self.sandbox.send(partner, phone, "hello");
        }
        eventually("the greetings arrive", || (self.received(talkers) == talkers as u64).then_some(()));
        // Baileys does not find the LID by itself, and these accounts must use it.
        let addresses: Vec<String> = partners.iter().map(|partner| self.sandbox.lid(partner)).collect();
        for (peer, address) in addresses.iter().enumerate().take(talkers) {
            let id = self.give(peer, "sendText", &json!({ "to": address, "text": "hello", "acked": true }));
            self.answer(id);
        }
        let each = count / talkers;
        let started = Cost::of(self.pid());
        let given: Vec<u64> = (0..talkers)
            .map(|peer| {
                let options =
                    json!({ "to": addresses[peer], "count": each, "text": "text", "window": window });
                self.give(peer, "blast", &options)
            })
            .collect();
        let mut open = given;
        while !open.is_empty() {
            let answer = self.find("Baileys sent everything", |line| {
                line["id"].as_u64().is_some_and(|id| open.contains(&id)) && line.get("event").is_none()
            });
            assert!(answer.get("error").is_none(), "{answer}");
            open.retain(|id| answer["id"] != *id);
        }
        let wall = started.wall();
        started.until_quiet(wall, each * talkers)
    }

    /// `count` texts from the partners' phones, after [`Rival::send`].
    pub fn receive(&mut self, partners: &Partners, count: usize) -> Cost {
        let talkers = partners.len().min(self.phones.len());
        let phones = self.phones[..talkers].to_vec();
        let before = self.received(talkers);
        let started = Cost::of(self.pid());
        blast(self.sandbox, &partners[..talkers].to_vec(), &phones, count);
        eventually("Baileys has received everything", || {
            thread::sleep(Duration::from_millis(200));
            (self.received(talkers) == before + count as u64).then_some(())
        });
        let wall = started.wall();
        started.until_quiet(wall, count)
    }

    fn received(&mut self, talkers: usize) -> u64 {
        (0..talkers)
            .map(|peer| {
                let id = self.give(peer, "info", &json!({}));
                self.answer(id)["received"].as_u64().unwrap_or_default()
            })
            .sum()
    }
}
