//! The written guide, to the letter: `/api/v1/workers/…`, lower-case statuses, a flat heartbeat, the QR as data URL.
//!
//! The guide knows one webhook, `session-status`; it has exactly the guide's fields. Every other event goes to
//! `/api/webhooks/<kind>` in an envelope of our own.

use serde_json::json;

use super::{Condition, Identity, Pulse, Request, Said, add};
use crate::{backend::choose::SESSION_STATUS, qr};

pub(super) fn register(me: &Identity) -> Request {
    // The guide's worker always describes itself.
    let description = me.description.as_deref().unwrap_or(DESCRIPTION);
    Request::new("POST", "/api/v1/workers/register").with_body(&json!({
        "workerId": me.worker_id,
        "endpoint": me.endpoint,
        "maxSessions": me.max_sessions,
        "description": description,
    }))
}

pub(super) fn heartbeat(worker_id: &str, pulse: &Pulse) -> Request {
    let status = match pulse.condition {
        Condition::Online => "online",
        Condition::Draining => "draining",
        Condition::Degraded => "degraded",
    };
    Request::new("PUT", format!("/api/v1/workers/{worker_id}/heartbeat")).with_body(&json!({
        "status": status,
        "sessionCount": pulse.sessions.len(),
        "cpuUsage": pulse.cpu_percent,
        "memoryUsage": pulse.memory_percent,
        "uptime": pulse.uptime_s,
        "messageCount": pulse.messages,
    }))
}

pub(super) fn webhook(said: Said<'_>) -> Request {
    let event = said.event;
    let request = Request::new("POST", format!("/api/webhooks/{}", event.kind));
    if event.kind == SESSION_STATUS {
        let mut body = json!({
            "sessionId": said.session_id,
            "status": said.text("status").unwrap_or("error"),
            "timestamp": said.timestamp,
        });
        // A text that cannot be drawn is left to `GET /session/{id}/qr`.
        let picture = said.text("qr").and_then(|text| qr::data_url(text).ok());
        add(&mut body, [("phoneNumber", said.text("phoneNumber")), ("qrCode", picture.as_deref())]);
        return request.with_body(&body);
    }
    request.with_body(&json!({
        "eventId": event.event_id,
        "seq": event.seq,
        "type": event.kind,
        "sessionId": said.session_id,
        "workerId": said.worker_id,
        "timestamp": said.timestamp,
        "data": said.data,
    }))
}

const DESCRIPTION: &str = concat!("whatsapp-worker ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        backend::dialect::{self, event, pulse, session},
        config::Dialect,
        session::SessionStatus,
    };

    fn body(request: &Request) -> Value {
        serde_json::from_str(request.body.as_deref().unwrap()).unwrap()
    }

    fn webhook(kind: &str, data: &Value) -> Request {
        dialect::webhook(Dialect::Guide, "worker-001", "user123-personal", &event(kind, data)).unwrap()
    }

    #[test]
    fn registration_and_heartbeat_are_the_guides() {
        let me = Identity {
            worker_id: "worker-001".into(),
            endpoint: "http://192.168.1.100:8001".into(),
            max_sessions: 50,
            description: Some("Primary worker instance".into()),
        };
        let request = register(&me);
        assert_eq!((request.method, request.path.as_str()), ("POST", "/api/v1/workers/register"));
        let expected = json!({
            "workerId": "worker-001", "endpoint": "http://192.168.1.100:8001", "maxSessions": 50,
            "description": "Primary worker instance",
        });
        assert_eq!(body(&request), expected);
        assert_eq!(body(&register(&Identity { description: None, ..me }))["description"], DESCRIPTION);
        let request = heartbeat("worker-001", &pulse(vec![session("a", SessionStatus::Connected)]));
        assert_eq!((request.method, request.path.as_str()), ("PUT", "/api/v1/workers/worker-001/heartbeat"));
        let expected = json!({
            "status": "online", "sessionCount": 1, "cpuUsage": 45.5, "memoryUsage": 67.8, "uptime": 3600,
            "messageCount": 1250,
        });
        assert_eq!(body(&request), expected);
    }

    #[test]
    fn a_status_has_the_guides_fields_and_no_others() {
        let data =
            json!({ "status": "connected", "phoneNumber": "+6281234567890", "lid": "1", "pushName": "x" });
        let request = webhook("session-status", &data);
        assert_eq!((request.method, request.path.as_str()), ("POST", "/api/webhooks/session-status"));
        let expected = json!({
            "sessionId": "user123-personal", "status": "connected", "phoneNumber": "+6281234567890",
            "timestamp": "2024-01-15T10:30:00.25Z",
        });
        assert_eq!(body(&request), expected);
        let told = body(&webhook("session-status", &json!({ "status": "qr_required", "qr": "2@abc" })));
        assert_eq!(told["status"], "qr_required");
        assert!(told["qrCode"].as_str().unwrap().starts_with("data:image/png;base64,"));
    }

    #[test]
    fn other_events_come_in_an_envelope() {
        let request = webhook("message", &json!({ "id": "M1" }));
        assert_eq!(request.path, "/api/webhooks/message");
        let expected = json!({
            "eventId": "u-7", "seq": 7, "type": "message", "sessionId": "user123-personal",
            "workerId": "worker-001", "timestamp": "2024-01-15T10:30:00.25Z", "data": { "id": "M1" },
        });
        assert_eq!(body(&request), expected);
    }
}
