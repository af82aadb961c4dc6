//! The public backend, rebuilt from what is known of its code: paths under `/api`, its validators with their limits,
//! its rate limits, its refusals, and what it does to its own database when it calls a worker.
//!
//! Its database is two maps. [`customer`] plays the customers, whose requests it forwards to the worker.

pub mod customer;
mod validators;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    TOKEN,
    rules::{Checks, Wrong},
    server::{Answer, Request, Server, locked},
};
use crate::common::{eventually, sandbox::Sandbox, worker::Worker};

/// The backend. Ends with the value.
pub struct WhatsamBackend {
    pub server: Server,
    port: u16,
    database: Arc<Database>,
}

/// What the worker calls itself; the backend makes [`NORMAL_ID`] of it.
pub const OWN_ID: &str = "Worker_One";
pub const NORMAL_ID: &str = "worker-one";

/// A row of the workers' table.
#[derive(Clone, Debug)]
pub struct WorkerRow {
    pub endpoint: String,
    pub status: String,
    pub max_sessions: u64,
    pub registrations: usize,
}

/// A row of the sessions' table.
#[derive(Clone, Debug, Default)]
pub struct SessionRow {
    pub worker_id: Option<String>,
    pub status: String,
    pub qr_code: Option<String>,
    pub phone_number: Option<String>,
    pub display_name: Option<String>,
}

struct Database {
    tables: Mutex<Tables>,
    limits: Mutex<Limits>,
}

#[derive(Default)]
pub struct Tables {
    pub workers: BTreeMap<String, WorkerRow>,
    pub sessions: BTreeMap<String, SessionRow>,
    /// Statuses that were taken: session and word.
    pub statuses: Vec<(String, String)>,
    /// Results of recoveries that were taken.
    pub recoveries: Vec<Value>,
    /// What was refused and should not have been sent.
    pub refused: Vec<String>,
}

/// Two counters, as `express-rate-limit` keeps them: a window that begins with its first request.
struct Limits {
    webhooks: Window,
    all: Window,
}

struct Window {
    most: usize,
    length: Duration,
    begun: Instant,
    count: usize,
}

impl Window {
    fn new(most: usize, length: Duration) -> Self {
        Self { most, length, begun: Instant::now(), count: 0 }
    }

    /// Counts one request; the seconds to wait when that is one too many.
    fn count(&mut self) -> Result<(), u64> {
        if self.begun.elapsed() >= self.length {
            (self.begun, self.count) = (Instant::now(), 0);
        }
        self.count += 1;
        if self.count <= self.most {
            return Ok(());
        }
        Err(self.length.saturating_sub(self.begun.elapsed()).as_secs() + 1)
    }
}

impl WhatsamBackend {
    pub fn start() -> Self {
        let backend = Self::absent();
        backend.server.open();
        backend
    }

    /// Not there yet.
    pub fn absent() -> Self {
        let limits = Limits {
            webhooks: Window::new(60, Duration::from_secs(60)),
            all: Window::new(1000, Duration::from_secs(15 * 60)),
        };
        let database = Arc::new(Database { tables: Mutex::default(), limits: Mutex::new(limits) });
        let serving = Arc::clone(&database);
        let server = Server::closed(Box::new(move |request| serving.answer(request)));
        Self { server, port: super::own_port(), database }
    }

    /// A worker that is told of this backend, beats every second, and listens where it says.
    pub fn worker(&self, sandbox: &Sandbox, settings: &[(&str, &str)]) -> Worker {
        let (port, url, endpoint) = (self.port.to_string(), self.server.url(), self.endpoint());
        let own = [
            ("BACKEND_URL", url.as_str()),
            ("BACKEND_DIALECT", "whatsam"),
            ("WORKER_ID", OWN_ID),
            ("WORKER_PORT", &port),
            ("WORKER_BIND", "127.0.0.1"),
            ("WORKER_ENDPOINT", &endpoint),
            ("WORKER_AUTH_TOKEN", TOKEN),
            ("HEARTBEAT_INTERVAL", "1"),
        ];
        Worker::start_with(sandbox, &[&own[..], settings].concat())
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        locked(&self.database.tables)
    }

    /// A new minute, as far as its limit is concerned.
    pub fn forget_the_limits(&self) {
        let mut limits = locked(&self.database.limits);
        (limits.webhooks.count, limits.all.count) = (0, 0);
    }

    /// Waits until the worker is known and online.
    pub fn await_registration(&self, times: usize) -> WorkerRow {
        eventually("the worker registers", || {
            let row = self.tables().workers.get(NORMAL_ID).cloned()?;
            (row.registrations >= times && row.status == "ONLINE").then_some(row)
        })
    }

    pub fn session(&self, id: &str) -> SessionRow {
        self.tables().sessions.get(id).cloned().unwrap_or_else(|| panic!("no session {id}"))
    }

    /// Waits until the database has this status for the session.
    pub fn await_status(&self, id: &str, status: &str) -> SessionRow {
        eventually(&format!("the backend knows that {id} is {status}"), || {
            Some(self.session(id)).filter(|row| row.status == status)
        })
    }

    /// # Panics
    /// When the worker sent what it should not have.
    pub fn assert_nothing_refused(&self) {
        let tables = self.tables();
        assert!(tables.refused.is_empty(), "{:#?}", tables.refused);
    }
}

/// As the backend makes them.
fn normalised(id: &str) -> String {
    id.to_ascii_lowercase().replace('_', "-")
}

impl Database {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        locked(&self.tables)
    }

    fn answer(&self, request: &Request) -> Answer {
        if let Err(answer) = self.count(request) {
            return answer;
        }
        let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let known: fn(&Self, &Request, &str) -> Answer = match (request.method.as_str(), segments.as_slice())
        {
            ("POST", ["api", "workers", "register"]) => Self::register,
            ("PUT", ["api", "workers", _, "heartbeat"]) => Self::heartbeat,
            ("GET", ["api", "workers", _, "sessions", "assigned"]) => Self::assigned,
            ("POST", ["api", "workers", _, "sessions", "recovery-status"]) => Self::recovery_status,
            ("DELETE", ["api", "workers", "unregister"]) => Self::unregister,
            ("POST", ["api", "webhooks", "session-status"]) => Self::session_status,
            ("POST", ["api", "webhooks", "message-status"]) => Self::message_status,
            ("POST", ["api", "webhooks", "worker-heartbeat"]) => Self::worker_heartbeat,
            _ => {
                let body = json!({
                    "success": false, "error": "Endpoint not found",
                    "path": request.path, "method": request.method,
                });
                return Answer::json(404, &body);
            }
        };
        if request.header("Authorization") != Some(&format!("Bearer {TOKEN}")) {
            return self.refuse(request, 401, "Unauthorized", "Invalid worker token");
        }
        known(self, request, segments.get(2).copied().unwrap_or_default())
    }

    fn count(&self, request: &Request) -> Result<(), Answer> {
        let mut limits = locked(&self.limits);
        let limited = match request.path.starts_with("/api/webhooks/") {
            true => limits.all.count().and_then(|()| limits.webhooks.count()),
            false => limits.all.count(),
        };
        limited.map_err(|seconds| {
            drop(limits);
            self.tables().refused.push(format!("429 {} {}", request.method, request.path));
            Answer::error(429, "Too many requests").header("Retry-After", seconds)
        })
    }

    /// An error of a service, noted as one that the worker should not have caused.
    fn refuse(&self, request: &Request, status: u16, error: &str, message: &str) -> Answer {
        let body = String::from_utf8_lossy(&request.body);
        self.tables().refused.push(format!("{status} {message}: {} {} {body}", request.method, request.path));
        service_error(status, error, message)
    }

    /// The body, when it passes; else 400 with everything that is wrong, in this backend's words.
    fn checked(&self, request: &Request, check: fn(&mut Checks<'_>)) -> Result<Value, Answer> {
        let is_webhook = request.path.starts_with("/api/webhooks/");
        let is_json = request.header("Content-Type").is_some_and(|kind| kind.starts_with("application/json"));
        if is_webhook && request.body.len() > 1 << 20 {
            return Err(self.refuse(request, 413, "Payload Too Large", "at most 1 MB"));
        }
        let body = request.json();
        let Some(object) = body.as_object().filter(|object| is_json && !(is_webhook && object.is_empty()))
        else {
            return Err(self.refuse(request, 400, "Bad Request", "no JSON object"));
        };
        let mut checks = Checks::of(object);
        check(&mut checks);
        let wrong = checks.wrong();
        if wrong.is_empty() {
            return Ok(body);
        }
        self.refuse(request, 400, "Bad Request", &format!("{wrong:?}"));
        Err(validation_error(&wrong))
    }

    fn register(&self, request: &Request, _: &str) -> Answer {
        let body = match self.checked(request, validators::register) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (id, endpoint) = (normalised(&text("workerId")), text("endpoint"));
        let is_taken =
            self.tables().workers.iter().any(|(known, row)| (*known == id) != (row.endpoint == endpoint));
        if is_taken {
            return service_error(409, "Conflict", "Worker ID or endpoint already exists");
        }
        // The worker has to answer this while it waits for the answer to its registration.
        if !customer::is_healthy(&endpoint) {
            return service_error(503, "Service Unavailable", "Worker health check failed");
        }
        let mut tables = self.tables();
        let assigned = tables.assigned(&id).count();
        let recovery = tables.workers.contains_key(&id).then_some(assigned > 0);
        let row = tables.workers.entry(id.clone()).or_insert_with(|| WorkerRow {
            endpoint: endpoint.clone(),
            status: String::new(),
            max_sessions: 0,
            registrations: 0,
        });
        row.status = "ONLINE".to_owned();
        row.max_sessions = body["maxSessions"].as_u64().unwrap_or(50);
        row.registrations += 1;
        let data = json!({
            "workerId": id, "endpoint": endpoint, "status": "ONLINE", "maxSessions": row.max_sessions,
            "version": body["version"], "environment": body["environment"], "registeredAt": now(),
            "recoveryRequired": recovery, "assignedSessionCount": assigned,
        });
        success(201, &data)
    }

    fn heartbeat(&self, request: &Request, id: &str) -> Answer {
        let body = match self.checked(request, validators::heartbeat) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let mut tables = self.tables();
        let Some(worker) = tables.workers.get_mut(id) else {
            return service_error(404, "Not Found", "Worker not found");
        };
        worker.status = "ONLINE".to_owned();
        if let Some(most) = body["capabilities"]["maxSessions"].as_u64() {
            worker.max_sessions = most;
        }
        let sessions = body["sessions"].as_array().cloned().unwrap_or_default();
        for session in &sessions {
            let row = tables.sessions.get_mut(session["sessionId"].as_str().unwrap_or_default());
            if let Some(row) = row.filter(|row| row.worker_id.as_deref() == Some(id)) {
                row.status = session["status"].as_str().unwrap_or_default().to_owned();
            }
        }
        let data = json!({
            "status": "ONLINE", "lastHeartbeat": now(), "sessionCount": sessions.len(), "sessionsProcessed": 0,
            "sessionsSynced": 0, "staleWorkersDetected": 0, "metrics": body["metrics"],
            "capabilities": body["capabilities"],
        });
        success(200, &data)
    }

    fn assigned(&self, _: &Request, id: &str) -> Answer {
        let tables = self.tables();
        if !tables.workers.contains_key(id) {
            return service_error(404, "Not Found", "Worker not found");
        }
        let sessions: Vec<Value> = tables
            .assigned(id)
            .map(|(session, row)| {
                json!({
                    "sessionId": session, "userId": customer::USER, "sessionName": session,
                    "phoneNumber": row.phone_number, "status": row.status, "userEmail": "user@example.com",
                    "userTier": "PRO", "createdAt": now(), "updatedAt": now(), "lastSeenAt": null,
                })
            })
            .collect();
        let count = sessions.len();
        success(
            200,
            &json!({ "workerId": id, "sessionCount": count, "sessions": sessions, "retrievedAt": now() }),
        )
    }

    fn recovery_status(&self, request: &Request, id: &str) -> Answer {
        let body = match self.checked(request, validators::recovery_status) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let mut tables = self.tables();
        if !tables.workers.contains_key(id) {
            return service_error(404, "Not Found", "Worker not found");
        }
        for result in body["recoveryResults"].as_array().into_iter().flatten() {
            let row = tables.sessions.get_mut(result["sessionId"].as_str().unwrap_or_default());
            let word = match result["status"].as_str() {
                Some("SUCCESS") => "CONNECTED",
                Some("FAILED") => "ERROR",
                _ => continue,
            };
            if let Some(row) = row {
                row.status = word.to_owned();
            }
        }
        tables.recoveries.push(body);
        success(200, &json!({}))
    }

    fn unregister(&self, request: &Request, _: &str) -> Answer {
        self.refuse(request, 400, "Bad Request", "an unregistered worker loses its sessions")
    }

    fn session_status(&self, request: &Request, _: &str) -> Answer {
        let body = match self.checked(request, validators::session_status) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        let id = text("sessionId").unwrap_or_default();
        let worker = text("workerId");
        if worker.as_ref().is_some_and(|worker| !self.tables().workers.contains_key(worker)) {
            return self.refuse(request, 500, "Internal Server Error", "Foreign key constraint violated");
        }
        let mut tables = self.tables();
        let Some(row) = tables.sessions.get_mut(&id) else {
            let error = json!({ "code": format!("Session not found: {id}"), "details": {} });
            return Answer::json(404, &json!({ "success": false, "timestamp": now(), "error": error }));
        };
        row.status = text("status").unwrap_or_default();
        row.worker_id = worker.or(row.worker_id.take());
        row.qr_code = text("qrCode").or(row.qr_code.take());
        row.phone_number = text("phoneNumber").or(row.phone_number.take());
        row.display_name = text("displayName").or(row.display_name.take());
        let data = json!({
            "sessionId": id, "status": row.status, "phoneNumber": row.phone_number,
            "displayName": row.display_name, "updatedAt": now(),
        });
        let status = row.status.clone();
        tables.statuses.push((id, status));
        success(200, &data)
    }

    /// The backend never makes a row for a message, so there is none to be found.
    fn message_status(&self, request: &Request, _: &str) -> Answer {
        match self.checked(request, validators::message_status) {
            Ok(_) => service_error(404, "Not Found", "Message not found"),
            Err(answer) => answer,
        }
    }

    fn worker_heartbeat(&self, request: &Request, _: &str) -> Answer {
        let body = match self.checked(request, validators::worker_heartbeat) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        match self.tables().workers.get_mut(body["workerId"].as_str().unwrap_or_default()) {
            Some(row) => {
                row.status = body["status"].as_str().unwrap_or_default().to_owned();
                success(200, &json!({}))
            }
            None => service_error(404, "Not Found", "Worker not found"),
        }
    }
}

impl Tables {
    /// Sessions that this worker is expected to hold.
    fn assigned(&self, worker: &str) -> impl Iterator<Item = (&String, &SessionRow)> {
        self.sessions.iter().filter(move |(_, row)| {
            row.worker_id.as_deref() == Some(worker)
                && matches!(row.status.as_str(), "CONNECTED" | "QR_REQUIRED" | "RECONNECTING" | "INIT")
        })
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn success(status: u16, data: &Value) -> Answer {
    Answer::json(status, &json!({ "success": true, "timestamp": now(), "data": data }))
}

fn service_error(status: u16, error: &str, message: &str) -> Answer {
    Answer::json(status, &json!({ "success": false, "error": error, "message": message }))
}

fn validation_error(wrong: &[Wrong]) -> Answer {
    let errors: Vec<Value> = wrong
        .iter()
        .map(|wrong| json!({ "field": wrong.field, "message": wrong.message, "value": wrong.value }))
        .collect();
    let error = json!({
        "code": "VALIDATION_ERROR", "message": "Validation failed", "details": { "errors": errors },
    });
    Answer::json(400, &json!({ "success": false, "timestamp": now(), "error": error }))
}
