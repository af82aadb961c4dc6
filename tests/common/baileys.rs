//! Real Baileys clients: `tests/peers/baileys/peer.mjs` under node, spoken to over its standard input.

use std::{
    cell::Cell,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{Lines, Process, await_texts, eventually, sandbox::Sandbox};

/// Which Baileys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 6.7.24.
    Six,
    /// 7.0.0-rc14.
    Seven,
}

impl Release {
    /// Folder it is installed in.
    fn home(self) -> PathBuf {
        let name = match self {
            Self::Six => "tests/peers/baileys6",
            Self::Seven => "tests/peers/baileys",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }
}

/// A node process that holds any number of Baileys clients.
pub struct Baileys {
    process: Process,
    lines: Lines,
    next_id: Cell<u64>,
    dir: tempfile::TempDir,
    url: String,
    ca_file: PathBuf,
}

impl Baileys {
    /// # Panics
    /// When node or Baileys are not installed; the message names the command that installs them.
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_release(sandbox, Release::Seven)
    }

    /// # Panics
    /// As [`Baileys::start`].
    pub fn start_release(sandbox: &Sandbox, release: Release) -> Self {
        let package = release.home().join("node_modules/@whiskeysockets/baileys");
        let node = node().unwrap_or_else(|| panic!("node 20 or newer is missing: run `tests/run --setup`"));
        let installed = package.join("package.json").is_file();
        assert!(installed, "Baileys is not installed: run `tests/run --setup`");
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(node);
        command
            .arg(Release::Seven.home().join("peer.mjs"))
            .env("BAILEYS_PACKAGE", package.join("lib/index.js"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if release == Release::Six {
            command.env("BAILEYS_LATENCY_MS", "5");
        }
        let mut process = Process::start(&mut command, &dir.path().join("baileys.log"));
        let lines = process.lines();
        let (url, ca_file) = (sandbox.whatsapp_url.clone(), sandbox.ca_file.clone());
        let baileys = Self { process, lines, next_id: Cell::new(1), dir, url, ca_file };
        eventually("Baileys is loaded", || {
            baileys.seen(0).iter().any(|line| line["event"] == "hello").then_some(())
        });
        baileys
    }

    /// Lines from this position on.
    fn seen(&self, from: usize) -> Vec<Value> {
        let lines = self.lines.lock();
        lines[from..].iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many lines there are: what is awaited from here on is new.
    pub fn mark(&self) -> usize {
        self.lines.lock().len()
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// What Baileys says went wrong.
    pub fn try_ask(&self, peer: &str, action: &str, options: &Value) -> Result<Value, String> {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let from = self.mark();
        let mut line = json!({ "id": id, "peer": peer, "do": action });
        for (name, value) in options.as_object().into_iter().flatten() {
            line[name] = value.clone();
        }
        let mut input = self.process.child.stdin.as_ref().expect("standard input is piped");
        writeln!(input, "{line}").expect("node runs");
        let answer = eventually(&format!("Baileys answers {action}"), || {
            self.seen(from).into_iter().find(|answer| answer["id"] == id && answer.get("event").is_none())
        });
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].clone()),
        }
    }

    pub fn ask(&self, peer: &str, action: &str, options: &Value) -> Value {
        self.try_ask(peer, action, options)
            .unwrap_or_else(|error| panic!("Baileys {peer} {action} {options}: {error}"))
    }

    /// Waits for an event of a client behind a [`Baileys::mark`].
    pub fn await_event(&self, from: usize, peer: &str, event: &str) -> Value {
        eventually(&format!("Baileys {peer} says {event}"), || {
            self.seen(from).into_iter().find(|line| line["peer"] == peer && line["event"] == event)
        })
    }

    /// All events of one kind so far.
    pub fn events(&self, peer: &str, event: &str) -> Vec<Value> {
        let lines = self.seen(0);
        lines.into_iter().filter(|line| line["peer"] == peer && line["event"] == event).collect()
    }

    /// Folder of a client's auth state.
    pub fn auth_dir(&self, peer: &str) -> PathBuf {
        self.dir.path().join(peer)
    }

    /// Starts a client with the state it had before, if any, and does not wait.
    pub fn launch(&self, peer: &str) {
        let options = json!({ "url": self.url, "caFile": self.ca_file, "authDir": self.auth_dir(peer) });
        self.ask(peer, "start", &options);
    }

    /// Starts a client that is linked already and waits until it is logged in.
    pub fn connect(&self, peer: &str) {
        let from = self.mark();
        self.launch(peer);
        self.await_event(from, peer, "open");
    }

    /// Links a new client: the phone scans its QR.
    pub fn link(&self, sandbox: &Sandbox, peer: &str, phone: &str) {
        let from = self.mark();
        self.launch(peer);
        let qr = self.await_event(from, peer, "qr")["qr"].clone();
        sandbox.post(&format!("/phones/{phone}/scan"), &json!({ "qr": qr }));
        self.await_event(from, peer, "open");
    }

    /// Links a new client: the code it shows is typed on the phone.
    pub fn link_by_code(&self, sandbox: &Sandbox, peer: &str, phone: &str) {
        let from = self.mark();
        self.launch(peer);
        // Only then is the connection far enough.
        self.await_event(from, peer, "qr");
        let code = self.ask(peer, "pairCode", &json!({ "phone": phone }))["code"].clone();
        sandbox.post(&format!("/phones/{phone}/pair-code"), &json!({ "code": code }));
        self.await_event(from, peer, "open");
    }

    pub fn stop(&self, peer: &str) {
        self.ask(peer, "stop", &json!({}));
    }

    /// Sends a text and gives its id once the server has it.
    pub fn send(&self, peer: &str, to: &str, text: &str) -> String {
        let sent = self.ask(peer, "sendText", &json!({ "to": to, "text": text, "acked": true }));
        sent["id"].as_str().unwrap().to_owned()
    }

    /// Texts a client got from others, in the order they arrived; of one group, or of all 1:1 chats.
    pub fn received(&self, peer: &str, group: Option<&str>) -> Vec<String> {
        let messages = self.events(peer, "message");
        let theirs = messages.iter().filter(|message| {
            let chat = message["chat"].as_str().unwrap();
            message["fromMe"] == false && group.map_or(!chat.ends_with("@g.us"), |group| chat == group)
        });
        theirs.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until a client got exactly these texts from others, in this order.
    pub fn await_received(&self, peer: &str, group: Option<&str>, expected: &[String]) {
        await_texts(&format!("at Baileys {peer}"), expected, || self.received(peer, group));
    }

    /// # Panics
    /// When a client could not decrypt a message, or Baileys itself failed.
    pub fn assert_no_trouble(&self) {
        let lines = self.seen(0);
        let trouble: Vec<&Value> = lines
            .iter()
            .filter(|line| line["event"] == "fault" || line["event"] == "undecryptable")
            .collect();
        assert!(trouble.is_empty(), "{trouble:#?}");
    }
}

/// Node 20 or newer: from `PATH`, or the one `tests/run --setup` installs.
pub fn node() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node/node_modules");
    let own =
        std::fs::read_dir(tools).into_iter().flatten().flatten().map(|entry| entry.path().join("bin/node"));
    std::iter::once(PathBuf::from("node")).chain(own).find(|node| {
        let output = Command::new(node).args(["-p", "process.versions.node.split('.')[0]"]).output();
        let major =
            output.ok().and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok());
        major.is_some_and(|major| major >= 20)
    })
}
