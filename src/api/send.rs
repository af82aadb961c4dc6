//! `POST /session/{id}/send`.
//!
//! 200 `sent` means that WhatsApp's server has the message; 202 `pending` that it is stored and under way. Once a
//! message may have left, the answer is never an error of ours: a caller that repeats on 5xx would send it twice.

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
    whatsapp::{
        jid::Jid,
        model::{Command, CommandError, MessageStatus, OutgoingContent, Reply, SendRequest},
    },
};

/// A checked request body.
struct Outgoing {
    to: Jid,
    text: String,
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
    let outgoing = read(&mut fields)?;
    let session = api.session(id)?;
    let response = match idempotency::key_of(request, api.settings.send_dedupe_window)? {
        None => transmit(api, &session, outgoing, &new_message_id())?,
        Some(key) => match idempotency::claim(api, &session, key, request)? {
            Claimed::Answered(response) => response,
            Claimed::Ours(claim) => {
                let earlier =
                    if claim.is_retry() { already_stored(api, &session, claim.message_id())? } else { None };
                let outcome = match earlier {
                    Some(response) => Ok(response),
                    None => transmit(api, &session, outgoing, claim.message_id()),
                };
                claim.settle(outcome)?
            }
        },
    };
    Ok(note_unknown(response, &fields, id))
}

fn read(fields: &mut Fields) -> Result<Outgoing, ApiError> {
    let to = recipient::parse("to", &fields.text("to")?)?;
    let kind = fields.text("type")?;
    if kind != "text" {
        return Err(ApiError::field("type", "must be \"text\"; this version sends no other types")
            .with_detail("supported", serde_json::json!(["text"])));
    }
    let text = fields.text("message")?;
    if text.is_empty() || text.len() > MAX_TEXT_BYTES {
        return Err(ApiError::field("message", &format!("must be 1 to {MAX_TEXT_BYTES} bytes long")));
    }
    Ok(Outgoing { to, text })
}

/// Hands the message to the session and waits for the server's ack, for a bounded time.
fn transmit(api: &Api, session: &SessionHandle, outgoing: Outgoing, message_id: &str) -> Answer {
    let content = OutgoingContent::Text { body: outgoing.text, quote: None, mentions: Vec::new() };
    let send = SendRequest { to: outgoing.to, id: Some(message_id.to_owned()), content };
    let pending = session.command(Command::Send(send))?;
    match pending.wait(api.settings.send_wait) {
        Some(Reply::Sent { id, timestamp }) => Ok(sent(&id, time::from_seconds(timestamp))),
        // It may have left: the outcome comes as an event, and in the history.
        None | Some(Reply::Failed(CommandError::Timeout | CommandError::ConnectionLost)) => {
            Ok(under_way(message_id))
        }
        Some(Reply::Failed(error)) => Err(ApiError::from(error).with_detail("messageId", message_id)),
        Some(Reply::PairCode { .. } | Reply::Group(_) | Reply::Done) => {
            log::error!("a send was answered with something else");
            Ok(under_way(message_id))
        }
    }
}

/// What an earlier try with the same message id left behind, when the worker died before it could answer.
fn already_stored(
    api: &Api,
    session: &SessionHandle,
    message_id: &str,
) -> Result<Option<Response>, ApiError> {
    let Some(message) = api.store().message(session.key(), message_id)? else { return Ok(None) };
    Ok(Some(match message.record.status {
        MessageStatus::Pending | MessageStatus::Failed => under_way(message_id),
        MessageStatus::Sent | MessageStatus::Delivered | MessageStatus::Read | MessageStatus::Played => {
            sent(message_id, time::from_seconds(message.record.timestamp))
        }
    }))
}

fn sent(message_id: &str, timestamp: String) -> Response {
    respond(200, &Sent { message_id, status: MessageStatus::Sent.as_str(), timestamp })
}

fn under_way(message_id: &str) -> Response {
    let timestamp = time::from_millis(time::now_millis());
    respond(202, &Sent { message_id, status: MessageStatus::Pending.as_str(), timestamp })
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
