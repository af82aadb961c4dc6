//! `GET /webhooks/failed` and `POST /webhooks/replay`: events the backend refused for good.

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    Api, check_id,
    fields::{Fields, known_query, query_number},
    http::Request,
    respond::{Answer, ApiError, ok},
    time,
};
use crate::{
    backend::Backend,
    storage::local::{DeadLetter, ReplayFilter, SessionKey},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedView {
    /// For `after`.
    number: i64,
    event_id: String,
    session_id: String,
    seq: u64,
    r#type: String,
    timestamp: String,
    failed_at: String,
    status: u16,
    reason: String,
    attempts: u32,
    /// It is on its way again.
    replaying: bool,
    data: Box<RawValue>,
}

impl From<DeadLetter> for FailedView {
    fn from(letter: DeadLetter) -> Self {
        let event = letter.event;
        Self {
            number: letter.key,
            event_id: event.event_id,
            session_id: letter.session_id,
            seq: event.seq,
            r#type: event.kind,
            timestamp: time::from_millis(event.created_ms),
            failed_at: time::from_millis(letter.failed_ms),
            status: letter.status,
            reason: letter.reason,
            attempts: letter.attempts,
            replaying: letter.replay,
            data: RawValue::from_string(event.payload).unwrap_or_else(|_| RawValue::NULL.to_owned()),
        }
    }
}

/// Oldest refusal first; `total` counts all of them.
pub(super) fn failed(api: &Api, request: &Request) -> Answer {
    known_query(request, &["sessionId", "after", "limit"])?;
    let after = query_number(request, "after", 0, 0..=i64::MAX.unsigned_abs())?;
    let limit = query_number(request, "limit", 100, 1..=1000)?;
    let session = request.query("sessionId").map(|id| of_session(api, id)).transpose()?;
    let after = i64::try_from(after).expect("within the bounds of a number of SQLite");
    let limit = u32::try_from(limit).expect("at most 1000");
    let (letters, total) = backend(api)?.refused(session, after, limit)?;
    let last = letters.last().map_or(after, |letter| letter.key);
    let failed: Vec<FailedView> = letters.into_iter().map(FailedView::from).collect();
    Ok(ok(&serde_json::json!({ "failed": failed, "total": total, "last": last })))
}

/// `{sessionId?, eventIds?}`: without either, everything that was refused.
pub(super) fn replay(api: &Api, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let session = fields.optional_text("sessionId")?;
    let event_ids = fields.take("eventIds").map(event_ids).transpose()?;
    fields.refuse_unknown()?;
    let session = session.map(|id| of_session(api, &id)).transpose()?;
    let replaying = backend(api)?.replay(ReplayFilter { session, event_ids })?;
    Ok(ok(&serde_json::json!({ "replaying": replaying })))
}

fn backend(api: &Api) -> Result<&Backend, ApiError> {
    let missing = || {
        ApiError::new(409, "NO_BACKEND", "no backend is configured (BACKEND_URL): nothing is sent anywhere")
    };
    api.backend.as_deref().ok_or_else(missing)
}

fn of_session(api: &Api, id: &str) -> Result<SessionKey, ApiError> {
    check_id("sessionId", id)?;
    Ok(api.registry.get(id)?.key())
}

fn event_ids(value: Value) -> Result<Vec<String>, ApiError> {
    let problem = || ApiError::field("eventIds", &format!("must be a list of 1 to {MAX_IDS} event ids"));
    let ids: Vec<String> = serde_json::from_value(value).map_err(|_| problem())?;
    if (1..=MAX_IDS).contains(&ids.len()) { Ok(ids) } else { Err(problem()) }
}

/// More are asked for by session, or all together.
const MAX_IDS: usize = 1000;
