//! The sandbox in a process of its own, and its control API.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{Process, await_texts, eventually, exchange};

/// `whatsapp-worker --sandbox-service`.
pub struct Sandbox {
    pub whatsapp_url: String,
    pub noise_root: String,
    pub ca_file: PathBuf,
    pub control_url: String,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl Sandbox {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_whatsapp-worker"));
        command.arg("--sandbox-service").env("SANDBOX_PORT", "0").stdout(Stdio::piped());
        let mut process = Process::start(&mut command, &dir.path().join("sandbox.log"));
        let lines = process.lines();
        let first = eventually("the sandbox says where it is", || lines.lock().first().cloned());
        let info: Value = serde_json::from_str(&first).unwrap();
        let text = |name: &str| info[name].as_str().unwrap().to_owned();
        let ca_file = dir.path().join("ca.pem");
        fs::write(&ca_file, text("caPem")).unwrap();
        Self {
            whatsapp_url: text("whatsappUrl"),
            noise_root: text("noiseRootKey"),
            ca_file,
            control_url: text("controlUrl"),
            _process: process,
            _dir: dir,
        }
    }

    /// Asks the control API and gives the `data` of its answer.
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.control_url);
        let (status, json) = exchange(method, &url, Some(body)).unwrap();
        assert_eq!((status, &json["success"]), (200, &json!(true)), "{method} {path}: {json}");
        json["data"].clone()
    }

    pub fn get(&self, path: &str) -> Value {
        self.control("GET", path, &Value::Null)
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.control("POST", path, body)
    }

    pub fn add_phone(&self, number: &str) {
        self.post("/phones", &json!({ "phone": number, "name": format!("Phone {number}") }));
    }

    pub fn send(&self, from: &str, to: &str, text: &str) {
        self.post(&format!("/phones/{from}/send"), &json!({ "to": to, "text": text }));
    }

    pub fn fault(&self, phone: &str, fault: &Value) {
        self.post(&format!("/phones/{phone}/faults"), fault);
    }

    /// LID of a phone's account, `…@lid`.
    pub fn lid(&self, phone: &str) -> String {
        let lid = self.get(&format!("/phones/{phone}"))["lid"].clone();
        format!("{}@lid", lid.as_str().unwrap())
    }

    /// Makes a group in the name of a phone and gives its JID.
    pub fn create_group(&self, creator: &str, participants: &[&str]) -> String {
        let body = json!({ "creator": creator, "subject": "Friends", "participants": participants });
        self.post("/groups", &body)["group"].as_str().unwrap().to_owned()
    }

    /// Everything a phone sent and received, oldest first.
    pub fn messages(&self, phone: &str) -> Vec<Value> {
        self.get(&format!("/phones/{phone}/messages"))["messages"].as_array().unwrap().clone()
    }

    /// Texts a phone got from others, in the order they arrived.
    pub fn received(&self, phone: &str) -> Vec<String> {
        let messages = self.messages(phone);
        let others = messages.iter().filter(|message| message["fromMe"] == false);
        others.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until a phone got exactly these texts from others, in this order.
    pub fn await_received(&self, phone: &str, expected: &[String]) {
        await_texts(&format!("at the phone {phone}"), expected, || self.received(phone));
    }

    /// # Panics
    /// When a client broke a rule of the protocol.
    pub fn assert_no_violations(&self) {
        let found = self.get("/violations");
        assert_eq!(found["total"], 0, "{found:#}");
    }

    /// # Panics
    /// When the clients of this account broke a rule of the protocol.
    pub fn assert_no_violations_of(&self, phone: &str) {
        let found = self.get("/violations");
        let all = found["violations"].as_array().unwrap();
        let theirs: Vec<&Value> = all.iter().filter(|violation| violation["phone"] == phone).collect();
        assert!(theirs.is_empty(), "{theirs:#?}");
    }
}
