//! `GET /session/{id}/events?after=<seq>&wait=<s>`: everything that happened to a session, without gaps.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Api,
    fields::{known_query, query_number},
    http::Request,
    respond::{Answer, ok},
    time,
};
use crate::storage::local::StoredEvent;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView {
    seq: u64,
    event_id: String,
    r#type: String,
    timestamp: String,
    data: Box<RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Events {
    events: Vec<EventView>,
    /// Numbers that are no longer kept, when `after` lies that far back.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
    /// Give this as `after` next time.
    last_seq: u64,
}

/// A stretch of the log that was cleaned up.
#[derive(Debug, Serialize)]
struct Gone {
    from: u64,
    to: u64,
}

/// Events with a number above `after`, at once or as soon as there is one within `wait` seconds (at most 60).
pub(super) fn list(api: &Api, id: &str, request: &Request) -> Answer {
    known_query(request, &["after", "wait", "limit"])?;
    let after = query_number(request, "after", 0, 0..=MAX_SEQ)?;
    let wait = query_number(request, "wait", 0, 0..=60)?;
    let limit = u32::try_from(query_number(request, "limit", 100, 1..=1000)?).expect("at most 1000");
    let session = api.session(id)?;
    let mut events = api.store().events(session.key(), after, limit)?;
    if events.is_empty() && wait > 0 {
        let _permit = api.waiting.take()?;
        let deadline = Instant::now() + Duration::from_secs(wait);
        // In slices, so that a stopping worker does not wait for us.
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if session.wait_event(after, left.min(SLICE)) || left <= SLICE || api.is_stopping() {
                break;
            }
        }
        events = api.store().events(session.key(), after, limit)?;
    }
    let last_seq = events.last().map_or(after, |event| event.seq);
    let first = events.first().map_or(after + 1, |event| event.seq);
    let gone = (first > after + 1).then_some(Gone { from: after + 1, to: first - 1 });
    Ok(ok(&Events { events: events.into_iter().map(view).collect(), gone, last_seq }))
}

fn view(event: StoredEvent) -> EventView {
    let data = RawValue::from_string(event.payload).unwrap_or_else(|error| {
        log::error!("event {} of the log is not JSON: {error}", event.event_id);
        RawValue::from_string("null".to_owned()).expect("null is JSON")
    });
    EventView {
        seq: event.seq,
        event_id: event.event_id,
        r#type: event.kind,
        timestamp: time::from_millis(event.created_ms),
        data,
    }
}

/// SQLite's numbers end at 2^63.
const MAX_SEQ: u64 = i64::MAX.unsigned_abs() - 1;

/// How soon a long poll notices that the worker stops.
const SLICE: Duration = Duration::from_secs(1);
