//! What its customers do, and what becomes of it: the calls to the worker, with its retries, its timeout, its headers,
//! and what it reads in the answers.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{NORMAL_ID, SessionRow, WhatsamBackend};
use crate::common::backend::TOKEN;

/// The one customer.
pub const USER: &str = "b7f1c1de-0000-4000-8000-000000000001";

/// Status and body of an answer to the backend.
pub type Reply = (u16, Value);

/// How the backend sees a failed call.
#[derive(Debug)]
pub enum CallError {
    /// Every attempt failed; what the last one said, if anything.
    Failed(Option<Reply>),
    /// The backend itself refuses.
    Conflict(&'static str),
}

impl WhatsamBackend {
    /// `POST /api/sessions`: nothing reaches the worker.
    pub fn create_session(&self, id: &str) {
        let row = SessionRow { status: "DISCONNECTED".to_owned(), ..SessionRow::default() };
        self.tables().sessions.insert(id.to_owned(), row);
    }

    /// `POST /api/sessions/:id/connect`, for the worker that is there.
    pub fn connect(&self, id: &str) -> Result<Reply, CallError> {
        let before = self.session(id);
        if matches!(before.status.as_str(), "CONNECTED" | "INIT") {
            return Err(CallError::Conflict("the session is connected or on the way"));
        }
        self.update(id, |row| {
            (row.worker_id, row.status) = (Some(NORMAL_ID.to_owned()), "INIT".to_owned());
        });
        let body = json!({ "sessionId": id, "userId": USER, "sessionName": id });
        let reply = self.call("POST", "/api/sessions/start", Some(&body));
        match &reply {
            Ok((_, body)) => self.read_start(id, body),
            Err(_) => self.update(id, |row| {
                (row.worker_id, row.status) = (None, "DISCONNECTED".to_owned());
            }),
        }
        reply
    }

    /// `POST /api/sessions/:id/restart`.
    pub fn restart(&self, id: &str) -> Result<Reply, CallError> {
        let reply = self.call("POST", &format!("/api/sessions/{id}/restart"), None)?;
        self.read_start(id, &reply.1);
        Ok(reply)
    }

    /// What it reads of a start or a restart: the top level, and its own idea of what is missing there.
    fn read_start(&self, id: &str, body: &Value) {
        self.update(id, |row| {
            row.status = body["status"].as_str().unwrap_or("QR_REQUIRED").to_ascii_uppercase();
            row.qr_code = body["qrCode"].as_str().map(str::to_owned);
        });
    }

    /// `POST /api/sessions/:id/disconnect`: whatever the worker says, the session is nobody's.
    pub fn disconnect(&self, id: &str) -> Result<Reply, CallError> {
        let reply = self.call("POST", &format!("/api/sessions/{id}/disconnect"), None);
        self.update(id, |row| {
            (row.worker_id, row.status, row.qr_code) = (None, "DISCONNECTED".to_owned(), None);
        });
        reply
    }

    /// `DELETE /api/sessions/:id`: whatever the worker says, the row goes.
    pub fn delete_session(&self, id: &str) -> Result<Reply, CallError> {
        let reply = self.call("DELETE", &format!("/api/sessions/{id}"), None);
        self.tables().sessions.remove(id);
        reply
    }

    /// `POST /api/sendText`.
    pub fn send_text(&self, id: &str, to: &str, message: &str) -> Result<Reply, CallError> {
        if self.session(id).status != "CONNECTED" {
            return Err(CallError::Conflict("the session is not connected"));
        }
        let body = json!({ "to": format!("{to}@s.whatsapp.net"), "type": "text", "message": message });
        self.call("POST", &format!("/api/{id}/send"), Some(&body))
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut SessionRow)) {
        change(self.tables().sessions.get_mut(id).expect("the session is known"));
    }

    /// A call to the worker: three attempts on 5xx, timeouts and broken connections, never on 4xx.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, CallError> {
        let url = format!("{}{path}", self.endpoint());
        let mut last = None;
        for pause in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)] {
            thread::sleep(pause);
            last = attempt(method, &url, body);
            match &last {
                Some((200..300, _)) => return Ok(last.expect("it is there")),
                Some((400..500, _)) => break,
                _ => {}
            }
        }
        Err(CallError::Failed(last))
    }
}

/// One attempt; `None` when there was no whole answer in 30 seconds.
fn attempt(method: &str, url: &str, body: Option<&Value>) -> Option<Reply> {
    let text = body.map(Value::to_string).unwrap_or_default();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("Authorization", format!("Bearer {TOKEN}"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/plain, */*")
        .header("User-Agent", "axios/1.10.0");
    let agent = agent(Duration::from_secs(30));
    let answer = match method {
        "GET" | "DELETE" => agent.run(request.body(()).expect("a request")),
        _ => agent.run(request.body(text).expect("a request")),
    };
    let mut answer = answer.ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// Whether the worker's `/health` says 200 and something, within 5 seconds, asked once and without a token.
pub(super) fn is_healthy(endpoint: &str) -> bool {
    let agent = agent(Duration::from_secs(5));
    let asked =
        agent.get(format!("{endpoint}/health")).header("User-Agent", "WhatsApp-Gateway-Backend/1.0").call();
    asked.is_ok_and(|mut answer| {
        answer.status() == 200 && answer.body_mut().read_to_string().is_ok_and(|body| !body.is_empty())
    })
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build().into()
}
