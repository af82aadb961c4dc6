//! What is said to the backend, and what its answers mean: [`guide`] is the written guide, [`whatsam`] the public
//! backend. Bodies in, facts out; nothing here sends, waits or remembers.

mod guide;
mod whatsam;

use serde_json::Value;

use super::client::{Answer, Request};
use crate::{
    config::Dialect,
    session::SessionSnapshot,
    storage::{events::rfc3339_ms, local::StoredEvent},
};

pub(crate) use whatsam::word as whatsam_word;

/// How the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Takes work.
    Online,
    /// Gives its sessions away, or stops.
    Draining,
    /// Its local store or the object store fails.
    Degraded,
}

/// Who the worker is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) worker_id: String,
    pub(super) endpoint: String,
    pub(super) max_sessions: usize,
    pub(super) description: Option<String>,
}

/// What a heartbeat tells.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    pub(super) condition: Condition,
    pub(super) sessions: Vec<SessionSnapshot>,
    pub(super) connected: usize,
    pub(super) cpu_percent: f64,
    pub(super) memory_percent: f64,
    pub(super) uptime_s: u64,
    pub(super) messages: u64,
    pub(super) max_sessions: usize,
    pub(super) unix_ms: u64,
}

/// `register`, each time with everything: what is left out would be reset.
pub(super) fn register(dialect: Dialect, me: &Identity) -> Request {
    match dialect {
        Dialect::Guide => guide::register(me),
        Dialect::Whatsam => whatsam::register(me),
    }
}

/// What a successful registration came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// Under which name the backend knows the worker from now on.
    pub(super) name: String,
    /// The backend counts on sessions of this worker.
    pub(super) has_sessions: bool,
}

/// Reads the answer to a registration; `None` when it is none, whatever its status says.
///
/// A session that a customer starts while we ask for those of an earlier life would be reported as lost, so we ask
/// only when there was one.
pub(super) fn registered(dialect: Dialect, me: &Identity, answer: &Answer) -> Option<Registered> {
    match dialect {
        Dialect::Guide => Some(Registered { name: me.worker_id.clone(), has_sessions: false }),
        Dialect::Whatsam => {
            let body = answer.json();
            let has_sessions = body.pointer("/data/recoveryRequired").is_none_or(|word| word == true);
            let name = named_in(answer).unwrap_or_else(|| me.worker_id.clone());
            body.is_object().then_some(Registered { name, has_sessions })
        }
    }
}

/// The worker's name in an answer, when it has one.
pub(super) fn named_in(answer: &Answer) -> Option<String> {
    let body = answer.json();
    let name = body.pointer("/data/workerId").or_else(|| body.get("workerId"));
    let is_name = |name: &&str| {
        (1..=100).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    name.and_then(Value::as_str).filter(is_name).map(str::to_owned)
}

/// Whether two names are one worker's: backends write them in their own way.
pub(super) fn is_same_worker(name: &str, other: &str) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    plain(name) == plain(other)
}

/// One heartbeat. Sessions of `left_out` are not in it.
pub(super) fn heartbeat(dialect: Dialect, worker_id: &str, pulse: &Pulse, left_out: &[String]) -> Request {
    match dialect {
        Dialect::Guide => guide::heartbeat(worker_id, pulse),
        Dialect::Whatsam => whatsam::heartbeat(worker_id, pulse, left_out),
    }
}

/// The sessions a backend refused in a heartbeat; empty when it does not say or does not refuse single ones.
pub(super) fn refused_sessions(dialect: Dialect, sent: &Request, answer: &Answer) -> Vec<String> {
    match dialect {
        Dialect::Guide => Vec::new(),
        Dialect::Whatsam => whatsam::refused_sessions(sent, answer),
    }
}

/// Whether a session's word in a heartbeat that was `sent` is no longer that of `now`.
pub(super) fn is_overtaken(dialect: Dialect, sent: &Pulse, now: &Pulse) -> bool {
    match dialect {
        Dialect::Guide => false,
        Dialect::Whatsam => whatsam::words(sent) != whatsam::words(now),
    }
}

/// Whether there is a webhook for this kind of event.
pub(super) fn speaks(dialect: Dialect, kind: &str) -> bool {
    match dialect {
        Dialect::Guide => true,
        Dialect::Whatsam => whatsam::speaks(kind),
    }
}

/// The webhook that tells of an event; `None` when the dialect has none for it.
pub(super) fn webhook(
    dialect: Dialect,
    worker_id: &str,
    session_id: &str,
    event: &StoredEvent,
) -> Option<Request> {
    let data: Value = serde_json::from_str(&event.payload).ok()?;
    let said = Said { worker_id, session_id, event, data, timestamp: rfc3339_ms(event.created_ms) };
    match dialect {
        Dialect::Guide => Some(guide::webhook(said)),
        Dialect::Whatsam => whatsam::webhook(&said),
    }
}

/// Whether the backend says that the session of a refused `session-status` is not there, as opposed to the route.
pub(super) fn is_unknown_session(dialect: Dialect, answer: &Answer) -> bool {
    dialect == Dialect::Whatsam && whatsam::is_unknown_session(answer)
}

/// An event on its way into words.
struct Said<'a> {
    worker_id: &'a str,
    session_id: &'a str,
    event: &'a StoredEvent,
    data: Value,
    timestamp: String,
}

impl Said<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name).and_then(Value::as_str)
    }
}

/// Puts optional fields into an object.
fn add<'a>(body: &mut Value, fields: impl IntoIterator<Item = (&'static str, Option<&'a str>)>) {
    for (name, value) in fields {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
}

#[cfg(test)]
fn event(kind: &str, data: &Value) -> StoredEvent {
    StoredEvent {
        seq: 7,
        event_id: "u-7".to_owned(),
        kind: kind.to_owned(),
        payload: data.to_string(),
        created_ms: 1_705_314_600_250,
    }
}

#[cfg(test)]
fn session(id: &str, status: crate::session::SessionStatus) -> SessionSnapshot {
    SessionSnapshot {
        id: id.to_owned(),
        user_id: "u".to_owned(),
        name: None,
        status,
        phone_number: Some("+6281234567890".to_owned()),
        lid: None,
        push_name: None,
        qr: None,
        passkey_options: None,
        error: None,
        ready: false,
        created_ms: 0,
        updated_ms: 0,
        last_activity_ms: Some(1_705_314_600_000),
        connected_since_ms: None,
        away: None,
    }
}

#[cfg(test)]
fn pulse(sessions: Vec<SessionSnapshot>) -> Pulse {
    Pulse {
        condition: Condition::Online,
        sessions,
        connected: 1,
        cpu_percent: 45.5,
        memory_percent: 67.8,
        uptime_s: 3600,
        messages: 1250,
        max_sessions: 50,
        unix_ms: 1_705_314_600_000,
    }
}
