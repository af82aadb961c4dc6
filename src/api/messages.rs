//! `GET /session/{id}/messages`: history from the local store.

use serde::Serialize;

use super::{
    Api,
    fields::{known_query, query_number},
    http::Request,
    recipient,
    respond::{Answer, ApiError, ok},
    time,
};
use crate::{
    session::SessionSnapshot,
    storage::local::{MessageFilter, StoredMessage},
};

/// One message. The first seven fields are the guide's; the others are left out when they have no value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageView {
    id: String,
    from: String,
    to: String,
    r#type: String,
    content: String,
    timestamp: String,
    status: &'static str,
    chat: String,
    from_me: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    played_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Page {
    messages: Vec<MessageView>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
struct Pagination {
    total: u64,
    limit: u64,
    offset: u64,
}

/// Newest first; `total` counts everything the filter matches.
pub(super) fn list(api: &Api, id: &str, request: &Request) -> Answer {
    let limit = query_number(request, "limit", 50, 1..=500)?;
    let offset = query_number(request, "offset", 0, 0..=u64::MAX)?;
    let filter = MessageFilter {
        chat: request.query("chat").map(|text| recipient::chat("chat", text)).transpose()?,
        before: moment(request, "before")?,
        after: moment(request, "after")?,
        limit: u32::try_from(limit).expect("at most 500"),
        // SQLite's numbers end at 2^63; so far back there is nothing anyway.
        offset: offset.min(i64::MAX.unsigned_abs()),
    };
    known_query(request, &["limit", "offset", "chat", "before", "after"])?;
    let session = api.session(id)?;
    let page = api.store().messages(session.key(), &filter)?;
    let own = own_jid(&session.snapshot());
    let messages = page.messages.into_iter().map(|message| view(message, own.as_deref())).collect();
    Ok(ok(&Page { messages, pagination: Pagination { total: page.total, limit, offset } }))
}

/// The account's own JID, as the history names it.
pub(super) fn own_jid(session: &SessionSnapshot) -> Option<String> {
    let number = session.phone_number.as_ref()?;
    Some(format!("{}@s.whatsapp.net", number.trim_start_matches('+')))
}

pub(super) fn view(message: StoredMessage, own: Option<&str>) -> MessageView {
    let StoredMessage { record, times, error } = message;
    let chat = record.chat.to_string();
    // What we sent, and what is said in a group, goes to the chat; the rest is for us.
    let to = match own {
        Some(own) if !record.from_me && record.chat.is_user() => own.to_owned(),
        _ => chat.clone(),
    };
    MessageView {
        id: record.id,
        from: record.sender.to_string(),
        to,
        r#type: record.kind,
        content: record.content,
        timestamp: time::from_seconds(record.timestamp),
        status: record.status.as_str(),
        chat,
        from_me: record.from_me,
        sender_name: record.push_name,
        target_id: record.target_id,
        delivered_at: times.delivered_s.map(time::from_seconds),
        read_at: times.read_s.map(time::from_seconds),
        played_at: times.played_s.map(time::from_seconds),
        error,
    }
}

fn moment(request: &Request, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = request.query(name) else { return Ok(None) };
    time::parse(text)
        .filter(|seconds| *seconds <= i64::MAX.unsigned_abs())
        .map(Some)
        .ok_or_else(|| ApiError::field(name, "must be a time as RFC 3339 or Unix seconds"))
}
