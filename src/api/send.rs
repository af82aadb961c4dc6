//! `POST /session/{id}/send`.
//!
//! 200 `sent` means that WhatsApp's server has the message; 202 `pending` that it is stored and under way. Once a
//! message may have left, the answer is never an error of ours: a caller that repeats on 5xx would send it twice.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    Api,
    fields::Fields,
    http::{Request, Response},
    idempotency::{self, Claimed},
    note_unknown, recipient,
    respond::{Answer, ApiError, respond},
    time,
};
use crate::{
    session::SessionHandle,
    storage::local::StoredMessage,
    whatsapp::{
        jid::Jid,
        model::{Command, CommandError, MessageStatus, OutgoingContent, Reply, SendId, SendRequest},
    },
};

/// A checked message.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) to: Jid,
    pub(super) text: String,
}

/// What became of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    message_id: &'a str,
    status: &'static str,
    timestamp: String,
}

pub(super) fn send(api: &Api, id: &str, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let to = recipient::parse("to", &fields.text("to")?)?;
    let kind = fields.text("type")?;
    if kind != "text" {
        return Err(not_supported("type", &kind, &["text"]));
    }
    let outgoing = Outgoing { to, text: text(&mut fields)? };
    let session = api.session(id)?;
    let response = deliver(api, &session, &outgoing, request, api.settings.send_dedupe_window)?;
    Ok(note_unknown(response, &fields, id))
}

/// The text of a message of type `text`.
///
/// # Errors
/// 400 naming the field.
pub(super) fn text(fields: &mut Fields) -> Result<String, ApiError> {
    let text = fields.text("message")?;
    if text.is_empty() || text.len() > MAX_TEXT_BYTES {
        return Err(ApiError::field("message", &format!("must be 1 to {MAX_TEXT_BYTES} bytes long")));
    }
    Ok(text)
}

/// 400 for a kind of work that others know and this version does not do.
pub(super) fn not_supported(field: &str, given: &str, supported: &[&str]) -> ApiError {
    let given: String = given.chars().filter(|letter| !letter.is_control()).take(40).collect();
    let problem =
        format!("\"{given}\" is not supported by this version; supported: {}", supported.join(", "));
    ApiError::new(400, "NOT_SUPPORTED", format!("{field}: {problem}"))
        .with_detail("field", field)
        .with_detail(field, given)
        .with_detail("supported", supported)
}

/// Sends a message once, however often the request comes: by its `Idempotency-Key`, or within `window` by its body.
///
/// # Errors
/// What kept the message from being sent.
pub(super) fn deliver(
    api: &Api,
    session: &SessionHandle,
    outgoing: &Outgoing,
    request: &Request,
    window: Duration,
) -> Answer {
    let Some(key) = idempotency::key_of(request, window)? else {
        return transmit(api, session, outgoing, &new_message_id(), SendId::Fresh);
    };
    match idempotency::claim(api, session, key, request)? {
        Claimed::Answered(response) => Ok(response),
        Claimed::Ours(claim) => {
            let outcome = if claim.is_retry() {
                resume(api, session, outgoing, claim.message_id())
            } else {
                transmit(api, session, outgoing, claim.message_id(), SendId::Fresh)
            };
            claim.settle(outcome)
        }
    }
}

/// Hands the message to the session and waits for the server's ack, for a bounded time.
fn transmit(
    api: &Api,
    session: &SessionHandle,
    outgoing: &Outgoing,
    message_id: &str,
    kind: fn(String) -> SendId,
) -> Answer {
    let content = OutgoingContent::Text { body: outgoing.text.clone(), quote: None, mentions: Vec::new() };
    let send = SendRequest { to: outgoing.to.clone(), id: kind(message_id.to_owned()), content };
    let pending = session.command(Command::Send(send))?;
    match pending.wait(api.settings.send_wait) {
        Some(Reply::Sent { id, timestamp }) => Ok(sent(&id, timestamp)),
        // It may have left: the outcome comes as an event, and in the history.
        None | Some(Reply::Failed(CommandError::Timeout | CommandError::ConnectionLost)) => {
            Ok(under_way(message_id, now_s()))
        }
        Some(Reply::Failed(error)) => Err(ApiError::from(error).with_detail("messageId", message_id)),
        Some(Reply::PairCode { .. } | Reply::Group(_) | Reply::Done) => {
            log::error!("a send was answered with something else");
            Ok(under_way(message_id, now_s()))
        }
    }
}

/// An earlier request had this message id and its outcome was not known when it ended: it was `pending`, or the
/// worker died before it could answer.
fn resume(api: &Api, session: &SessionHandle, outgoing: &Outgoing, message_id: &str) -> Answer {
    match settled(api, session, message_id)? {
        // It was claimed and never accepted.
        None => transmit(api, session, outgoing, message_id, SendId::Repeat),
        Some(message) => outcome(&message),
    }
}

/// A message that was accepted before, once its outcome is known or the usual patience is over. The session sends what
/// is pending by itself, after a reconnect and after a restart.
fn settled(api: &Api, session: &SessionHandle, message_id: &str) -> Result<Option<StoredMessage>, ApiError> {
    let deadline = Instant::now() + api.settings.send_wait;
    loop {
        let last_event = api.store().event_span(session.key())?.map_or(0, |(_, last)| last);
        let found = api.store().message(session.key(), message_id)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let may_change =
            found.as_ref().is_some_and(|message| message.record.status == MessageStatus::Pending)
                && session.is_live();
        if !may_change || left.is_zero() || api.is_stopping() {
            return Ok(found);
        }
        let _ = session.wait_event(last_event, left.min(SLICE));
    }
}

/// The answer about a message as it stands.
fn outcome(message: &StoredMessage) -> Answer {
    let (id, accepted_s) = (&message.record.id, message.record.timestamp);
    match message.record.status {
        MessageStatus::Pending => Ok(under_way(id, accepted_s)),
        MessageStatus::Sent | MessageStatus::Delivered | MessageStatus::Read | MessageStatus::Played => {
            Ok(sent(id, message.times.sent_s.unwrap_or(accepted_s)))
        }
        MessageStatus::Failed => {
            let reason = message.error.as_deref().unwrap_or("WhatsApp did not take it");
            let problem = format!("the message was not delivered: {reason}");
            Err(ApiError::new(422, "MESSAGE_FAILED", problem).with_detail("messageId", id.as_str()))
        }
    }
}

fn sent(message_id: &str, timestamp_s: u64) -> Response {
    let timestamp = time::from_seconds(timestamp_s);
    respond(200, &Sent { message_id, status: MessageStatus::Sent.as_str(), timestamp })
}

fn under_way(message_id: &str, timestamp_s: u64) -> Response {
    let timestamp = time::from_seconds(timestamp_s);
    respond(202, &Sent { message_id, status: MessageStatus::Pending.as_str(), timestamp })
}

fn now_s() -> u64 {
    time::now_millis() / 1000
}

/// `3EB0` and 18 upper-case hex digits, the form of WhatsApp Web: recipients infer the kind of client from it.
/// Seen: whatsmeow `send.go` `GenerateMessageID` @33cfac51.
pub(super) fn new_message_id() -> String {
    use rand_core::RngCore as _;
    let mut random = [0u8; 9];
    rand_core::OsRng.fill_bytes(&mut random);
    random.iter().fold(String::from("3EB0"), |mut id, byte| {
        for nibble in [byte >> 4, byte & 15] {
            id.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
        }
        id
    })
}

/// How soon a waiting request notices that the session or the worker stops.
const SLICE: Duration = Duration::from_secs(1);

/// Longest text, in bytes of UTF-8.
const MAX_TEXT_BYTES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_have_the_web_form_and_differ() {
        let (first, second) = (new_message_id(), new_message_id());
        assert_ne!(first, second);
        assert!(first.len() == 22 && first.starts_with("3EB0"), "{first}");
        assert!(first.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()), "{first}");
    }
}
