//! A worker beside a simulated WhatsApp, with one session that is linked.

use std::sync::Arc;

use serde_json::{Value, json};
use whatsapp_worker::{
    api::ApiSettings,
    config::Config,
    sandbox::{Sandbox, SandboxOptions},
    session::SessionSettings,
};

use super::{Ask, Worker, exchange, start};

/// Fields drop in this order.
pub struct Linked {
    pub worker: Worker,
    pub sandbox: Sandbox,
}

pub const ALICE: &str = "6281200000001";
pub const BOB: &str = "6281200000002";

pub fn linked(change: impl FnOnce(&mut ApiSettings)) -> Linked {
    let sandbox = Sandbox::start(SandboxOptions::default()).unwrap();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, &sandbox.ca_pem).unwrap();
    let (config, _) = Config::from_env([]).unwrap();
    let settings = SessionSettings {
        url: sandbox.whatsapp_url.clone(),
        noise_root: sandbox.noise_root,
        ca_file: Some(ca_file),
        proxy: None,
        version: config.whatsapp.version,
        device_name: "Test".to_owned(),
        max_sessions: 5,
    };
    let mut api = ApiSettings::from(&config);
    change(&mut api);
    let linked = Linked { worker: start(dir, settings, api), sandbox };
    linked.control("POST", "/phones", &json!({"phone": ALICE, "name": "Alice"}));
    linked.control("POST", "/phones", &json!({"phone": BOB, "name": "Bob"}));
    linked.worker.create("a");
    let data = linked.worker.ask("POST", "/session/a/connect", Ask::default()).data();
    assert_eq!(data["status"], "qr_required", "{data}");
    let url = data["qrCode"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,") && url.len() <= 2000, "{url}");
    let qr = String::from_utf8(linked.worker.get("/session/a/qr?format=raw").body).unwrap();
    let png = linked.worker.get("/session/a/qr");
    assert_eq!((png.header("Content-Type"), &png.body[1..4]), (Some("image/png"), &b"PNG"[..]));
    linked.control("POST", &format!("/phones/{ALICE}/scan"), &json!({ "qr": qr }));
    let data = linked.worker.ask("POST", "/session/a/connect", Ask::default()).data();
    assert_eq!((&data["status"], &data["phoneNumber"]), (&json!("connected"), &json!(format!("+{ALICE}"))));
    linked
}

impl Linked {
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let address = self.sandbox.control_url.strip_prefix("http://").unwrap().parse().unwrap();
        let text = body.to_string();
        let ask = Ask { body: (method == "POST").then_some(text.as_str()), headers: &[] };
        exchange(address, method, path, &ask).data()
    }

    /// What Bob's phone has, once it has at least `count`.
    pub fn bob_has(&self, count: usize) -> Vec<String> {
        let path = format!("/phones/{BOB}/messages?wait=10&after={}", count.saturating_sub(1));
        self.control("GET", &path, &Value::Null);
        let all = self.control("GET", &format!("/phones/{BOB}/messages"), &Value::Null);
        all["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["text"].as_str().unwrap().to_owned())
            .collect()
    }
}

pub fn text(message: &str) -> String {
    json!({"to": format!("+{BOB}"), "type": "text", "message": message}).to_string()
}
