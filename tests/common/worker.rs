//! The worker as a process, and a client of its API.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};

use super::{Process, await_texts, eventually, exchange, sandbox::Sandbox};

/// `whatsapp-worker` beside a [`Sandbox`]. Its state stays when it is stopped and started again.
pub struct Worker {
    /// `http://127.0.0.1:<port>`; another one after each start.
    pub api: String,
    pub state_dir: PathBuf,
    command: Command,
    process: Process,
    dir: tempfile::TempDir,
    starts: usize,
}

impl Worker {
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, &[])
    }

    /// With further settings.
    pub fn start_with(sandbox: &Sandbox, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let mut command = Command::new(env!("CARGO_BIN_EXE_whatsapp-worker"));
        command
            .env("STATE_DIR", &state_dir)
            .env("WORKER_PORT", "0")
            .env("WHATSAPP_URL", &sandbox.whatsapp_url)
            .env("WHATSAPP_NOISE_ROOT_KEY", &sandbox.noise_root)
            .env("WHATSAPP_CA_FILE", &sandbox.ca_file)
            .env("RUST_LOG", "info")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Process::start(&mut command, &dir.path().join("worker-1.log"));
        let mut worker = Self { api: String::new(), state_dir, command, process, dir, starts: 1 };
        worker.await_address();
        worker
    }

    fn await_address(&mut self) {
        self.api = eventually("the worker says where it listens", || {
            let log = self.process.log();
            if let Some(status) = self.process.child.try_wait().unwrap() {
                panic!("the worker ended ({status}):\n{log}");
            }
            let (_, rest) = log.split_once(" listens on ")?;
            // In JSON a quote follows.
            let (line, _) = rest.split_once('\n')?;
            Some(line.split('"').next().unwrap_or_default().trim().to_owned())
        });
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again with the same settings and state.
    pub fn start_again(&mut self) {
        self.starts += 1;
        let log_file = self.dir.path().join(format!("worker-{}.log", self.starts));
        self.process = Process::start(&mut self.command, &log_file);
        self.await_address();
    }

    /// The same with other settings.
    pub fn start_again_with(&mut self, settings: &[(&str, String)]) {
        self.command.envs(settings.iter().map(|(name, value)| (name, value)));
        self.start_again();
    }

    /// Runs a subcommand with the settings of this worker: exit code, standard output and error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run_with(&[], arguments)
    }

    /// The same with other settings.
    pub fn run_with(&self, settings: &[(&str, String)], arguments: &[&str]) -> (i32, String, String) {
        let own = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = Command::new(self.command.get_program());
        let output = command.args(arguments).envs(own).envs(settings.iter().cloned()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// What this run of the worker has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Status and JSON of an answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        exchange(method, &format!("{}{path}", self.api), body).unwrap()
    }

    /// `data` of an answer that must be a success.
    pub fn get(&self, path: &str) -> Value {
        let (status, json) = self.ask("GET", path, None);
        assert_eq!((status, &json["success"]), (200, &json!(true)), "GET {path}: {json}");
        json["data"].clone()
    }

    /// `data` of an answer that must be a success.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, json) = self.ask("POST", path, Some(body));
        assert_eq!((status / 100, &json["success"]), (2, &json!(true)), "POST {path}: {status} {json}");
        json["data"].clone()
    }

    pub fn create(&self, session: &str) {
        let data = self.post("/session/create", &json!({ "sessionId": session, "userId": "tester" }));
        assert_eq!(data["status"], "disconnected", "{data}");
    }

    /// Makes a session and has the phone scan its QR.
    pub fn link(&self, sandbox: &Sandbox, session: &str, phone: &str) {
        self.create(session);
        let data = self.post(&format!("/session/{session}/connect"), &json!({}));
        assert_eq!(data["status"], "qr_required", "{data}");
        let (status, qr) = self.ask("GET", &format!("/session/{session}/qr?format=raw"), None);
        assert_eq!(status, 200, "{qr}");
        sandbox.post(&format!("/phones/{phone}/scan"), &json!({ "qr": qr }));
        self.await_status(session, "connected");
        assert_eq!(self.get(&format!("/session/{session}/status"))["phoneNumber"], format!("+{phone}"));
    }

    pub fn status(&self, session: &str) -> String {
        self.get(&format!("/session/{session}/status"))["status"].as_str().unwrap().to_owned()
    }

    pub fn await_status(&self, session: &str, status: &str) {
        eventually(&format!("session {session} is {status}"), || {
            (self.status(session) == status).then_some(())
        });
    }

    /// Waits for a login behind the first `told` events.
    pub fn await_login(&self, session: &str, told: usize) {
        eventually(&format!("session {session} logs in again"), || {
            let events = self.events(session);
            let new = events[told..].iter().filter(|event| event["type"] == "session-status");
            new.into_iter().any(|event| event["data"]["status"] == "connected").then_some(())
        });
    }

    /// Sends a text and gives its id once the server has it.
    pub fn send(&self, session: &str, to: &str, text: &str) -> String {
        let body = json!({ "to": to, "type": "text", "message": text });
        let data = self.post(&format!("/session/{session}/send"), &body);
        assert_eq!(data["status"], "sent", "{data}");
        data["messageId"].as_str().unwrap().to_owned()
    }

    /// The whole history, newest first.
    pub fn history(&self, session: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let page = self.get(&format!("/session/{session}/messages?limit=500&offset={}", all.len()));
            let part = page["messages"].as_array().unwrap();
            all.extend(part.iter().cloned());
            if part.is_empty() || page["pagination"]["total"] == all.len() {
                return all;
            }
        }
    }

    /// Texts of a chat that others wrote, oldest first. `chat`: as the history names it.
    pub fn received(&self, session: &str, chat: &str) -> Vec<String> {
        let history = self.history(session);
        let theirs = history.iter().rev().filter(|message| {
            message["fromMe"] == false && message["chat"] == chat && message["type"] == "text"
        });
        theirs.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until others wrote exactly these texts in a chat, in this order.
    pub fn await_received(&self, session: &str, chat: &str, expected: &[String]) {
        let place = format!("in the history of session {session}");
        await_texts(&place, expected, || self.received(session, chat));
        let told: Vec<String> = self
            .events(session)
            .iter()
            .filter(|event| event["type"] == "message" && event["data"]["fromMe"] == false)
            .filter(|event| event["data"]["chat"] == chat)
            .map(|event| event["data"]["content"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(told, expected, "in the events of session {session}");
    }

    /// All events of a session; their numbers must have no gaps.
    pub fn events(&self, session: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let page = self.get(&format!("/session/{session}/events?limit=1000&after={}", all.len()));
            let part = page["events"].as_array().unwrap();
            if part.is_empty() {
                return all;
            }
            all.extend(part.iter().cloned());
            assert_eq!(all.last().unwrap()["seq"], all.len(), "a gap in the events of {session}");
        }
    }
}

/// The history's name of a chat with a phone number.
pub fn chat(number: &str) -> String {
    format!("{number}@s.whatsapp.net")
}
