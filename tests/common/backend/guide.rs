//! A backend as the integration guide describes it, and as strict as its text can be read: its three calls with exactly
//! the fields of its samples, lower-case words, the bearer token. What it was not told about is answered 404.
//!
//! | call | what it wants |
//! |---|---|
//! | `POST /api/v1/workers/register` | `workerId`, `endpoint`, `maxSessions`, `description` |
//! | `PUT /api/v1/workers/{id}/heartbeat` | a registered id; `status`, `sessionCount`, `cpuUsage`, `memoryUsage`, `uptime`, `messageCount` |
//! | `POST /api/webhooks/session-status` | `sessionId`, `status`, `timestamp`, `phoneNumber` or `qrCode` where there is one |
//!
//! Beyond the guide it can be told to take further kinds of webhooks, in the envelope that the worker documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};

use super::{
    TOKEN,
    rules::{self, Checks, Wrong},
    server::{Answer, Request, Server, Trouble, locked},
};
use crate::common::{eventually, sandbox::Sandbox, worker::Worker};

/// The backend. Ends with the value.
pub struct GuideBackend {
    pub server: Server,
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Registration by worker id.
    workers: BTreeMap<String, Value>,
    kinds: BTreeSet<String>,
    /// Bodies of webhooks that were taken, oldest first.
    taken: Vec<Value>,
    refused: Vec<String>,
}

pub const REGISTER: &str = "/api/v1/workers/register";
pub const STATUS: &str = "/api/webhooks/session-status";
pub const WORKER_ID: &str = "worker-001";

/// The words of the guide, and of the worker's documentation for what the guide has no word for.
const STATUS_WORDS: [&str; 8] = [
    "disconnected",
    "connecting",
    "qr_required",
    "connected",
    "reconnecting",
    "passkey_required",
    "logged_out",
    "error",
];

impl GuideBackend {
    pub fn start() -> Self {
        let backend = Self::absent();
        backend.server.open();
        backend
    }

    /// Not there yet.
    pub fn absent() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let serving = Arc::clone(&state);
        let server = Server::closed(Box::new(move |request| locked(&serving).answer(request)));
        Self { server, port: super::own_port(), state }
    }

    /// A worker that is told of this backend, beats every second, and listens where it says.
    pub fn worker(&self, sandbox: &Sandbox, settings: &[(&str, &str)]) -> Worker {
        let (port, url) = (self.port.to_string(), self.server.url());
        let endpoint = self.endpoint();
        let own = [
            ("BACKEND_URL", url.as_str()),
            ("WORKER_ID", WORKER_ID),
            ("WORKER_PORT", &port),
            ("WORKER_BIND", "127.0.0.1"),
            ("WORKER_ENDPOINT", &endpoint),
            ("WORKER_AUTH_TOKEN", TOKEN),
            ("HEARTBEAT_INTERVAL", "1"),
        ];
        Worker::start_with(sandbox, &[&own[..], settings].concat())
    }

    /// Where the worker says that it listens.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// As after a restart without a database: no worker is known, no webhook was taken.
    pub fn forget_everything(&self) {
        let mut state = self.state();
        state.workers.clear();
        state.taken.clear();
    }

    /// Takes these kinds of webhooks from now on.
    pub fn take_kinds(&self, kinds: &[&str]) {
        self.state().kinds.extend(kinds.iter().map(|kind| (*kind).to_owned()));
    }

    /// The registration of the worker, when it is registered.
    pub fn registration(&self) -> Option<Value> {
        self.state().workers.get(WORKER_ID).cloned()
    }

    pub fn await_registration(&self) -> Value {
        eventually("the worker registers", || self.registration())
    }

    pub fn heartbeats(&self) -> Vec<Request> {
        self.server.requests("/heartbeat")
    }

    /// Waits for that many heartbeats from now on; gives the last one's body.
    pub fn await_heartbeats(&self, count: usize) -> Value {
        let told = self.heartbeats().len();
        eventually("heartbeats come", || {
            let beats = self.heartbeats();
            (beats.len() >= told + count).then(|| beats.last().expect("there are some").json())
        })
    }

    /// Statuses of a session that were taken, oldest first; repeated ones too.
    pub fn statuses(&self, session: &str) -> Vec<Value> {
        let state = self.state();
        let is_one = |body: &&Value| body["sessionId"] == session && body.get("type").is_none();
        state.taken.iter().filter(is_one).cloned().collect()
    }

    /// Only the words of [`GuideBackend::statuses`].
    pub fn words(&self, session: &str) -> Vec<String> {
        let statuses = self.statuses(session);
        statuses.iter().map(|body| body["status"].as_str().expect("checked").to_owned()).collect()
    }

    /// Waits until the newest status of a session that arrived is this one.
    pub fn await_word(&self, session: &str, word: &str) -> Value {
        eventually(&format!("the backend hears that {session} is {word}"), || {
            self.statuses(session).pop().filter(|body| body["status"] == word)
        })
    }

    /// Webhooks of one of the further kinds that were taken for a session, oldest first; repeated ones too.
    pub fn events(&self, session: &str, kind: &str) -> Vec<Value> {
        let state = self.state();
        let is_one = |body: &&Value| body["sessionId"] == session && body["type"] == kind;
        state.taken.iter().filter(is_one).cloned().collect()
    }

    /// # Panics
    /// When something the worker sent was against the text.
    pub fn assert_nothing_refused(&self) {
        let state = self.state();
        assert!(state.refused.is_empty(), "{:#?}", state.refused);
    }

    /// Puts the trouble on everything, waits until it was met that many times, and ends it.
    pub fn trouble_until_met(&self, path: &str, trouble: Trouble, times: usize) {
        let met = self.server.requests(path).len();
        self.server.trouble(path, trouble);
        eventually("the worker meets the trouble", || {
            (self.server.requests(path).len() >= met + times).then_some(())
        });
        self.server.heal();
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if request.header("Authorization") != Some(&format!("Bearer {TOKEN}")) {
            return self.refuse(request, 401, "the token is wrong");
        }
        let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("POST", ["api", "v1", "workers", "register"]) => self.register(request),
            ("PUT", ["api", "v1", "workers", id, "heartbeat"]) => self.heartbeat(request, id),
            ("POST", ["api", "webhooks", "session-status"]) => self.session_status(request),
            ("POST", ["api", "webhooks", kind]) if self.kinds.contains(*kind) => self.event(request, kind),
            ("POST", ["api", "webhooks", _]) => Answer::error(404, "Not found"),
            _ => self.refuse(request, 404, "the guide has no such route"),
        }
    }

    fn refuse(&mut self, request: &Request, status: u16, why: &str) -> Answer {
        let body = String::from_utf8_lossy(&request.body);
        self.refused.push(format!("{status} {why}: {} {} {body}", request.method, request.path));
        Answer::error(status, why)
    }

    /// The body as an object that passes the checks; what is wrong is refused with 400.
    fn checked(&mut self, request: &Request, check: impl FnOnce(&mut Checks<'_>)) -> Result<Value, Answer> {
        if request.header("Content-Type") != Some("application/json") {
            return Err(self.refuse(request, 400, "the guide's Content-Type is application/json"));
        }
        let body = request.json();
        let wrong: Vec<Wrong> = match body.as_object() {
            None => return Err(self.refuse(request, 400, "no JSON object")),
            Some(object) => {
                let mut checks = Checks::of(object);
                check(&mut checks);
                checks.wrong()
            }
        };
        if wrong.is_empty() { Ok(body) } else { Err(self.refuse(request, 400, &format!("{wrong:?}"))) }
    }

    fn register(&mut self, request: &Request) -> Answer {
        let checked = self.checked(request, |checks| {
            checks
                .required("workerId", rules::text(1..=100), "must be a string")
                .required("endpoint", rules::endpoint, "must be a URL")
                .required("maxSessions", rules::whole(1..=5000), "must be a number")
                .required("description", rules::text(1..=500), "must be a string")
                .nothing_but(&["workerId", "endpoint", "maxSessions", "description"]);
        });
        match checked {
            Ok(body) => {
                let id = body["workerId"].as_str().expect("checked").to_owned();
                let data = json!({ "workerId": id, "status": "online" });
                self.workers.insert(id, body);
                Answer::json(201, &json!({ "success": true, "data": data }))
            }
            Err(answer) => answer,
        }
    }

    fn heartbeat(&mut self, request: &Request, id: &str) -> Answer {
        let fields = ["status", "sessionCount", "cpuUsage", "memoryUsage", "uptime", "messageCount"];
        let checked = self.checked(request, |checks| {
            checks
                .required("status", rules::one_of(["online", "draining", "degraded"]), "must be a known word")
                .required("sessionCount", rules::whole(0..=5000), "must be a number")
                .required("cpuUsage", rules::percent, "must be a percentage")
                .required("memoryUsage", rules::percent, "must be a percentage")
                .required("uptime", rules::whole(0..=u64::MAX), "must be whole seconds")
                .required("messageCount", rules::whole(0..=u64::MAX), "must be a number")
                .nothing_but(&fields);
        });
        match checked {
            Ok(_) if self.workers.contains_key(id) => Answer::json(200, &json!({ "success": true })),
            Ok(_) => Answer::error(404, "Worker not found"),
            Err(answer) => answer,
        }
    }

    fn session_status(&mut self, request: &Request) -> Answer {
        let qr = |value: &Value| {
            value.as_str().is_some_and(|text| text.starts_with("data:image/png;base64,") && text.len() < 8192)
        };
        let checked = self.checked(request, |checks| {
            checks
                .required("sessionId", rules::name(1..=100), "must be a session id")
                .required("status", rules::one_of(STATUS_WORDS), "must be a known word")
                .required("timestamp", rules::time, "must be a time")
                .optional("phoneNumber", rules::phone, "must be a phone number")
                .optional("qrCode", qr, "must be a picture as data URL")
                .nothing_but(&["sessionId", "status", "phoneNumber", "qrCode", "timestamp"]);
        });
        match checked {
            Ok(body) if body.get("qrCode").is_some() && body["status"] != "qr_required" => {
                self.refuse(request, 400, "a QR where none is required")
            }
            Ok(body) => self.take(body),
            Err(answer) => answer,
        }
    }

    /// One of the kinds beyond the guide.
    fn event(&mut self, request: &Request, kind: &str) -> Answer {
        let fields = ["eventId", "seq", "type", "sessionId", "workerId", "timestamp", "data"];
        let checked = self.checked(request, |checks| {
            checks
                .required("eventId", rules::text(1..=100), "must be a string")
                .required("seq", rules::whole(1..=u64::MAX), "must be a number")
                .required("type", |value| value == kind, "must be the kind in the path")
                .required("sessionId", rules::name(1..=100), "must be a session id")
                .required("workerId", |value| value == WORKER_ID, "must be the worker's id")
                .required("timestamp", rules::time, "must be a time")
                .required("data", Value::is_object, "must be an object")
                .nothing_but(&fields);
        });
        match checked {
            Ok(body) => {
                let (id, seq) = (body["eventId"].as_str(), body["seq"].to_string());
                if request.header("X-Webhook-Event-Id") != id || request.header("X-Webhook-Seq") != Some(&seq)
                {
                    return self.refuse(request, 400, "the headers name another event");
                }
                self.take(body)
            }
            Err(answer) => answer,
        }
    }

    fn take(&mut self, body: Value) -> Answer {
        self.taken.push(body);
        Answer::json(200, &json!({ "success": true }))
    }
}
