//! The sandbox's control API over HTTP: phones without any client.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use whatsapp_worker::sandbox::{Sandbox, SandboxOptions};

const ANNA: &str = "4915100000001";
const BERT: &str = "4915100000002";

struct Control {
    sandbox: Sandbox,
    agent: ureq::Agent,
}

impl Control {
    fn start() -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { sandbox: Sandbox::start(SandboxOptions::default()).unwrap(), agent }
    }

    fn with_phones() -> Self {
        let control = Self::start();
        for phone in [ANNA, BERT] {
            control.post("/phones", &json!({ "phone": phone }));
        }
        control
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let mut answer = self.agent.get(format!("{}{path}", self.sandbox.control_url)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn try_post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.sandbox.control_url));
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_post(path, &body.to_string());
        assert_eq!(status, 200, "{path}: {answer}");
        answer["data"].clone()
    }
}

#[test]
fn phones_chat_over_the_control_api() {
    let control = Control::with_phones();
    control.post(&format!("/phones/{ANNA}/send"), &json!({ "to": BERT, "text": "hello" }));
    let (_, got) = control.get(&format!("/phones/{BERT}/messages?wait=10"));
    assert_eq!(got["data"]["messages"][0]["text"], "hello");
    let group = control.post(
        "/groups",
        &json!({ "creator": ANNA, "subject": "Two", "participants": [BERT], "addressingMode": "pn" }),
    );
    control.post(&format!("/phones/{BERT}/send"), &json!({ "to": group["group"], "text": "to all" }));
    let (_, got) = control.get(&format!("/phones/{ANNA}/messages?after=1&wait=10"));
    assert_eq!(got["data"]["messages"][0]["chat"], group["group"]);
    control.post(&format!("/phones/{BERT}/read"), &json!({ "chat": ANNA }));
    let (_, violations) = control.get("/violations");
    assert_eq!(violations["data"]["total"], 0);
}

#[test]
fn errors_name_the_field() {
    let control = Control::with_phones();
    let cases = [
        ("/phones", r#"{"phone":"12"}"#, 400, "phone"),
        ("/phones", r#"{"phone":"4915100000001"}"#, 409, ""),
        ("/phones", r#"{"lidMigrated":"yes"}"#, 400, "lidMigrated"),
        ("/phones", r#"{"phoen":"4915100000003"}"#, 400, "body"),
        ("/phones", "not json", 400, "body"),
        ("/phones/bulk", r"{}", 400, "count"),
        ("/phones/4915100000001/scan", r#"{"qr":"nonsense"}"#, 400, "qr"),
        ("/phones/4915100000001/pair-code", r#"{"code":"ABCD"}"#, 400, "code"),
        ("/phones/4915100000001/pair-code", r#"{"code":"ABCD-EFGH"}"#, 409, ""),
        ("/phones/4915100000001/send", r#"{"to":"4915100000009","text":"x"}"#, 400, "to"),
        ("/phones/4915100000009/send", r#"{"to":"4915100000001","text":"x"}"#, 404, "phone"),
        ("/phones/4915100000001/faults", r#"{"fault":"drop"}"#, 400, "device"),
        ("/groups", r#"{"creator":"4915100000001","subject":"","participants":[]}"#, 400, "subject"),
        ("/options", r#"{"chain":"rusty"}"#, 400, "chain"),
    ];
    for (path, body, status, field) in cases {
        let (got, answer) = control.try_post(path, body);
        assert_eq!((got, answer["success"].as_bool()), (status, Some(false)), "{path} {body}: {answer}");
        assert_eq!(answer["details"]["field"].as_str().unwrap_or_default(), field, "{path} {body}");
    }
    assert_eq!(control.get("/nowhere").0, 404);
}

#[test]
fn many_phones_send_many_messages() {
    let control = Control::start();
    let phones = control.post("/phones/bulk", &json!({ "count": 4 }));
    let numbers: Vec<&str> =
        phones.as_array().unwrap().iter().map(|phone| phone["phone"].as_str().unwrap()).collect();
    let order = json!({ "from": numbers[..2], "to": numbers[2..], "count": 100 });
    control.post("/blast", &order);
    let deadline = Instant::now() + Duration::from_secs(60);
    while control.get("/blast").1["data"]["sent"] != 100 {
        assert!(Instant::now() < deadline, "the blast does not end");
        // Waits for the last message rather than for time to pass.
        control.get(&format!("/phones/{}/messages?after=49&wait=1", numbers[3]));
    }
    let (_, got) = control.get(&format!("/phones/{}/messages?after=49&wait=10", numbers[3]));
    assert_eq!(got["data"]["total"], 50);
}

#[test]
fn a_stopped_sandbox_listens_no_more() {
    let Control { sandbox, .. } = Control::start();
    let address = sandbox.control_url.trim_start_matches("http://").to_owned();
    assert!(TcpStream::connect(&address).is_ok());
    sandbox.stop();
    assert!(TcpStream::connect(&address).is_err());
}
