//! A session's status as the store keeps it and as the event log tells it.
//!
//! `session-gap`: `from to reason`; the session is back after it was away.
//! `session-status`: `status`, and as far as they are known `phoneNumber lid pushName qr qrExpiresAt error`.

use serde::Serialize;

use super::SessionSnapshot;
use crate::storage::{events, local::SessionPatch};

/// What the session's row keeps of it.
pub(super) fn patch(shown: &SessionSnapshot, wanted: Option<bool>) -> SessionPatch {
    SessionPatch {
        status: Some(shown.status.as_str()),
        phone: Some(shown.phone_number.as_ref().map(|number| number.trim_start_matches('+').to_owned())),
        lid: Some(shown.lid.clone()),
        push_name: Some(shown.push_name.clone()),
        wanted,
        error: Some(shown.error.clone()),
        last_activity_ms: shown.connected_since_ms,
        away: Some(shown.away.clone()),
    }
}

/// Payload of a `session-status` event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusPayload<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Kind and payload of the event that tells of it.
pub(super) fn event(shown: &SessionSnapshot) -> (&'static str, String) {
    let payload = StatusPayload {
        status: shown.status.as_str(),
        phone_number: shown.phone_number.as_deref(),
        lid: shown.lid.as_deref(),
        push_name: shown.push_name.as_deref(),
        qr: shown.qr.as_ref().map(|qr| qr.text.as_str()),
        qr_expires_at: shown.qr.as_ref().map(|qr| events::rfc3339(qr.expires_at_ms / 1000)),
        error: shown.error.as_deref(),
    };
    ("session-status", serde_json::to_string(&payload).expect("strings always serialize"))
}

/// Kind and payload of the event that tells of a gap: from when on messages may have waited, and until when.
pub(super) fn gap(from_ms: u64, to_ms: u64, reason: &str) -> (&'static str, String) {
    let (from, to) = (events::rfc3339_ms(from_ms), events::rfc3339_ms(to_ms));
    ("session-gap", serde_json::json!({ "from": from, "to": to, "reason": reason }).to_string())
}
