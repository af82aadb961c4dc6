//! The public backend's later form: `/api/workers/…`, upper-case words, a heartbeat with every session, the raw QR.
//!
//! It checks strictly (one bad session refuses a whole heartbeat, null is no absence), so everything is brought into
//! its bounds here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Answer, Condition, Identity, Pulse, Request, Said, add};
use crate::{
    backend::choose::SESSION_STATUS,
    session::{SessionSnapshot, SessionStatus},
    storage::events::rfc3339_ms,
};

/// The backend's word for a status; it has six of them and refuses every other.
///
/// `connecting` is not its `INIT`: a session that is left in `INIT`, by a worker that dies then, can never be connected
/// again, while `RECONNECTING` is cleared with the worker.
pub(crate) fn word(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Disconnected | SessionStatus::LoggedOut => "DISCONNECTED",
        SessionStatus::Connecting | SessionStatus::Reconnecting => "RECONNECTING",
        SessionStatus::QrRequired => "QR_REQUIRED",
        SessionStatus::Connected => "CONNECTED",
        SessionStatus::PasskeyRequired | SessionStatus::Error => "ERROR",
    }
}

pub(super) fn register(me: &Identity) -> Request {
    let mut body = json!({
        "workerId": me.worker_id,
        "endpoint": me.endpoint,
        "maxSessions": me.max_sessions.clamp(1, MAX_SESSIONS),
        "version": version(),
        "environment": ENVIRONMENT,
    });
    add(&mut body, [("description", me.description.as_deref())]);
    Request::new("POST", "/api/workers/register").with_body(&body)
}

pub(super) fn heartbeat(worker_id: &str, pulse: &Pulse, left_out: &[String]) -> Request {
    let sessions: Vec<Value> =
        pulse.sessions.iter().filter(|session| !left_out.contains(&session.id)).map(session).collect();
    // It has no word for a worker that is leaving; one without room gets no new sessions.
    let capacity = match pulse.condition {
        Condition::Draining => pulse.sessions.len(),
        Condition::Online | Condition::Degraded => pulse.max_sessions,
    };
    Request::new("PUT", format!("/api/workers/{worker_id}/heartbeat")).with_body(&json!({
        "sessions": sessions,
        "capabilities": {
            "maxSessions": capacity.clamp(1, MAX_SESSIONS),
            "version": version(),
            "environment": ENVIRONMENT,
            "supportedFeatures": ["text"],
        },
        "metrics": {
            "cpuUsage": pulse.cpu_percent.clamp(0.0, 100.0),
            "memoryUsage": pulse.memory_percent.clamp(0.0, 100.0),
            "uptime": pulse.uptime_s,
            "messageCount": pulse.messages,
            "totalSessions": pulse.sessions.len(),
            "activeSessions": pulse.connected,
        },
        "lastActivity": rfc3339_ms(pulse.unix_ms),
    }))
}

fn session(session: &SessionSnapshot) -> Value {
    let mut shown = json!({ "sessionId": session.id, "status": word(session.status) });
    let activity = session.last_activity_ms.map(rfc3339_ms);
    let phone = session.phone_number.as_deref().filter(|phone| is_phone(phone));
    add(&mut shown, [("phoneNumber", phone), ("lastActivity", activity.as_deref())]);
    shown
}

/// What a heartbeat tells of each session.
pub(super) fn words(pulse: &Pulse) -> BTreeMap<&str, &'static str> {
    pulse.sessions.iter().map(|session| (session.id.as_str(), word(session.status))).collect()
}

/// Its errors name `sessions[3].status`; the place is that of the request.
pub(super) fn refused_sessions(sent: &Request, answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let errors = body.pointer("/error/details/errors").and_then(Value::as_array).cloned().unwrap_or_default();
    let sent: Value =
        sent.body.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let id_at = |at: usize| sent["sessions"].get(at)?["sessionId"].as_str().map(str::to_owned);
    let mut refused: Vec<String> = errors
        .iter()
        .filter_map(|error| error["field"].as_str()?.strip_prefix("sessions"))
        .filter_map(|place| {
            let digits = place.trim_start_matches(['[', '.']);
            let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
            digits.get(..end)?.parse().ok()
        })
        .filter_map(id_at)
        .collect();
    refused.sort();
    refused.dedup();
    refused
}

pub(super) fn speaks(kind: &str) -> bool {
    matches!(kind, SESSION_STATUS | MESSAGE_STATUS)
}

pub(super) fn webhook(said: &Said<'_>) -> Option<Request> {
    let body = match said.event.kind.as_str() {
        SESSION_STATUS => session_status(said)?,
        MESSAGE_STATUS => message_status(said)?,
        _ => return None,
    };
    Some(Request::new("POST", format!("/api/webhooks/{}", said.event.kind)).with_body(&body))
}

fn session_status(said: &Said<'_>) -> Option<Value> {
    let status =
        SessionStatus::ALL.into_iter().find(|status| Some(status.as_str()) == said.text("status"))?;
    let name: Option<String> = said.text("pushName").map(|name| name.trim().chars().take(100).collect());
    let mut body = json!({
        "sessionId": said.session_id,
        "status": word(status),
        "workerId": said.worker_id,
        "timestamp": said.timestamp,
    });
    add(
        &mut body,
        [
            ("phoneNumber", said.text("phoneNumber").filter(|phone| is_phone(phone))),
            ("displayName", name.as_deref().filter(|name| !name.is_empty())),
            ("qrCode", said.text("qr").filter(|text| (1..=MAX_QR).contains(&text.len()))),
        ],
    );
    Some(body)
}

fn message_status(said: &Said<'_>) -> Option<Value> {
    let (status, time) = match said.text("status")? {
        "pending" => ("PENDING", None),
        "sent" => ("SENT", None),
        "delivered" => ("DELIVERED", Some("deliveredAt")),
        "read" | "played" => ("READ", Some("readAt")),
        "failed" => ("FAILED", None),
        _ => return None,
    };
    let at = said.text("timestamp").unwrap_or(&said.timestamp);
    let error: Option<String> = said.text("error").map(|text| text.chars().take(500).collect());
    let mut body: Map<String, Value> = Map::new();
    body.insert("sessionId".to_owned(), said.session_id.into());
    body.insert("messageId".to_owned(), said.text("id")?.into());
    body.insert("status".to_owned(), status.into());
    body.insert("timestamp".to_owned(), at.into());
    body.extend(time.map(|name| (name.to_owned(), at.into())));
    body.extend(error.map(|text| ("errorMessage".to_owned(), text.into())));
    Some(body.into())
}

/// A path that is not there answers the plain text; a session that is not there names itself.
pub(super) fn is_unknown_session(answer: &Answer) -> bool {
    answer.status == 404 && answer.json().get("error").and_then(Value::as_str) != Some("Endpoint not found")
}

/// `^\+?[1-9]\d{1,14}$`
fn is_phone(phone: &str) -> bool {
    let digits = phone.strip_prefix('+').unwrap_or(phone);
    (2..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Three numbers and nothing behind them.
fn version() -> &'static str {
    let version = env!("CARGO_PKG_VERSION");
    version.split(['-', '+']).next().unwrap_or(version)
}

const MESSAGE_STATUS: &str = "message-status";

/// Workers that are tried out are not registered with anybody's backend.
const ENVIRONMENT: &str = "PRODUCTION";

/// Most sessions it accepts of a worker.
const MAX_SESSIONS: usize = 1000;

/// Longest QR text.
const MAX_QR: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::dialect::{self, Registered, event, pulse, session},
        config::Dialect,
    };

    fn body(request: &Request) -> Value {
        serde_json::from_str(request.body.as_deref().unwrap()).unwrap()
    }

    fn told(kind: &str, data: &Value) -> Option<Value> {
        let request = dialect::webhook(Dialect::Whatsam, "worker-001", "a", &event(kind, data))?;
        assert_eq!(request.path, format!("/api/webhooks/{kind}"));
        Some(body(&request))
    }

    #[test]
    fn every_status_has_one_of_the_six_words() {
        const WORDS: [&str; 6] =
            ["INIT", "QR_REQUIRED", "CONNECTED", "DISCONNECTED", "RECONNECTING", "ERROR"];
        for status in SessionStatus::ALL {
            assert!(WORDS.contains(&word(status)), "{status:?}");
        }
    }

    #[test]
    fn registration_says_everything_each_time_within_the_bounds() {
        let me = Identity {
            worker_id: "Worker_1".into(),
            endpoint: "http://w:8001".into(),
            max_sessions: 5000,
            description: None,
        };
        let request = register(&me);
        assert_eq!(request.path, "/api/workers/register");
        let expected = json!({
            "workerId": "Worker_1", "endpoint": "http://w:8001", "maxSessions": 1000, "version": version(),
            "environment": "PRODUCTION",
        });
        assert_eq!(body(&request), expected);
        assert!(version().split('.').all(|part| part.parse::<u32>().is_ok()));
        let answer = |body: &str| Answer { body: body.as_bytes().to_vec(), ..Answer::default() };
        let registered = |dialect, body: &str| dialect::registered(dialect, &me, &answer(body));
        let as_worker = |name: &str, has_sessions| Some(Registered { name: name.to_owned(), has_sessions });
        let first = r#"{"data":{"workerId":"worker-1","recoveryRequired":null}}"#;
        assert_eq!(registered(Dialect::Whatsam, first), as_worker("worker-1", false));
        let again = r#"{"data":{"workerId":"worker-1","recoveryRequired":true}}"#;
        assert_eq!(registered(Dialect::Whatsam, again), as_worker("worker-1", true));
        assert_eq!(registered(Dialect::Whatsam, "<html>"), None, "that was somebody else");
        assert_eq!(registered(Dialect::Guide, "<html>"), as_worker("Worker_1", false));
        let strange = r#"{"data":{"workerId":"../x"}}"#;
        assert_eq!(registered(Dialect::Whatsam, strange), as_worker("Worker_1", true), "no name for a path");
        assert!(dialect::is_same_worker("Worker_1", "worker-1") && !dialect::is_same_worker("w-1", "w-2"));
    }

    #[test]
    fn a_heartbeat_cannot_be_refused_for_one_session() {
        let mut strange = session("b", SessionStatus::LoggedOut);
        strange.phone_number = Some("+0123".into());
        strange.last_activity_ms = None;
        let mut pulse = pulse(vec![session("a", SessionStatus::Connected), strange]);
        pulse.cpu_percent = 130.0;
        let told = body(&heartbeat("worker-001", &pulse, &[]));
        let sessions = json!([
            { "sessionId": "a", "status": "CONNECTED", "phoneNumber": "+6281234567890",
              "lastActivity": "2024-01-15T10:30:00Z" },
            { "sessionId": "b", "status": "DISCONNECTED" },
        ]);
        assert_eq!(told["sessions"], sessions);
        assert_eq!(told["metrics"]["cpuUsage"], 100.0);
        assert_eq!(
            (&told["metrics"]["uptime"], &told["metrics"]["totalSessions"]),
            (&json!(3600), &json!(2))
        );
        assert!(!told.to_string().contains("null"), "{told}");
        pulse.condition = Condition::Draining;
        let told = body(&heartbeat("worker-001", &pulse, &["a".into()]));
        assert_eq!(
            (&told["capabilities"]["maxSessions"], told["sessions"].as_array().unwrap().len()),
            (&json!(2), 1)
        );
    }

    #[test]
    fn sessions_that_were_refused_are_found_by_their_place() {
        let pulse = pulse(vec![
            session("a", SessionStatus::Connected),
            session("b", SessionStatus::Connected),
            session("c", SessionStatus::Connected),
        ]);
        let sent = heartbeat("w", &pulse, &["a".into()]);
        let refused = |text: &str| {
            refused_sessions(
                &sent,
                &Answer { status: 400, body: text.as_bytes().to_vec(), ..Answer::default() },
            )
        };
        let errors = r#"{"error":{"details":{"errors":[{"field":"sessions[1].status"},{"field":"sessions.1.phoneNumber"},
                         {"field":"metrics.uptime"},{"field":"sessions[9].status"}]}}}"#;
        assert_eq!(refused(errors), ["c"]);
        assert!(refused("{}").is_empty());
    }

    #[test]
    fn a_status_claims_the_session_and_carries_the_raw_qr() {
        let data =
            json!({ "status": "connected", "phoneNumber": "+6281", "pushName": "  Toko ", "lid": "9" });
        let expected = json!({
            "sessionId": "a", "status": "CONNECTED", "workerId": "worker-001", "phoneNumber": "+6281",
            "displayName": "Toko", "timestamp": "2024-01-15T10:30:00.25Z",
        });
        assert_eq!(told("session-status", &data).unwrap(), expected);
        let qr = told("session-status", &json!({ "status": "qr_required", "qr": "2@abc", "pushName": " " }))
            .unwrap();
        assert_eq!((&qr["qrCode"], qr.get("displayName")), (&json!("2@abc"), None));
        let long = json!({ "status": "qr_required", "qr": "x".repeat(2001) });
        assert!(told("session-status", &long).unwrap().get("qrCode").is_none());
    }

    #[test]
    fn progress_of_messages_has_its_words_and_times_and_nothing_else_has_a_route() {
        let time = "2024-01-15T10:00:00Z";
        let played =
            told("message-status", &json!({ "id": "M1", "status": "played", "timestamp": time })).unwrap();
        let expected = json!({ "sessionId": "a", "messageId": "M1", "status": "READ", "timestamp": time, "readAt": time });
        assert_eq!(played, expected);
        let failed = json!({ "id": "M1", "status": "failed", "timestamp": time, "error": "e".repeat(600) });
        assert_eq!(told("message-status", &failed).unwrap()["errorMessage"].as_str().unwrap().len(), 500);
        for kind in ["message", "session-gap", "login"] {
            assert!(!speaks(kind));
            assert!(told(kind, &json!({ "id": "M1" })).is_none(), "{kind}");
        }
    }

    #[test]
    fn a_missing_route_is_no_missing_session() {
        let answer = |text: &str| Answer { status: 404, body: text.as_bytes().to_vec(), ..Answer::default() };
        assert!(is_unknown_session(&answer(r#"{"error":{"code":"Session not found: a","details":{}}}"#)));
        assert!(!is_unknown_session(&answer(r#"{"success":false,"error":"Endpoint not found"}"#)));
    }
}
