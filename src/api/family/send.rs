//! `POST /api/{id}/send`: the backend's twelve types, as far as this version has them.

use super::mirrored;
use crate::{
    api::{
        Api,
        fields::Fields,
        http::Request,
        note_unknown,
        progress::{check_message_id, no_message},
        recipient,
        respond::{Answer, ApiError, ok},
        send::{self, Outgoing, not_supported},
        time,
    },
    session::SessionHandle,
    whatsapp::{
        jid::Jid,
        model::{Command, Reply},
    },
};

pub(in crate::api) fn send(api: &Api, id: &str, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let to = recipient::parse("to", &fields.text("to")?)?;
    let kind = fields.text("type")?;
    let response = match kind.as_str() {
        "text" => {
            let outgoing = Outgoing { to: to.clone(), text: send::text(&mut fields)? };
            let session = api.session(id)?;
            let sent = send::deliver(api, &session, &outgoing, request, api.settings.family_dedupe_window)?;
            mirrored(sent, |data| {
                // An answer that tells of a failure has no `data` and does not come here.
                data.insert("to".to_owned(), to.to_string().into());
                data.insert("type".to_owned(), "TEXT".into());
                data.insert("message".to_owned(), outgoing.text.into());
            })
        }
        "seen" => {
            let message_id = fields.text("messageId")?;
            let session = api.session(id)?;
            mark_read(api, &session, &to, &message_id)?;
            mirrored(
                ok(&serde_json::json!({
                    "messageId": message_id, "status": "seen", "to": to.to_string(), "type": "SEEN",
                    "timestamp": time::from_millis(time::now_millis()),
                })),
                |_| {},
            )
        }
        other => return Err(not_supported("type", other, SUPPORTED)),
    };
    Ok(note_unknown(response, &fields, id))
}

/// Tells the author of a message that it was read.
///
/// # Errors
/// 404 in a group, where the author must be known, for a message that is not in the history; what the session says.
pub(super) fn mark_read(
    api: &Api,
    session: &SessionHandle,
    chat: &Jid,
    message_id: &str,
) -> Result<(), ApiError> {
    check_message_id("messageId", message_id)?;
    let known = api.store().message_progress(session.key(), message_id, Some(chat))?;
    let participant = match known {
        Some((message, _)) if message.record.from_me => {
            return Err(ApiError::field("messageId", "is a message of this account"));
        }
        Some((message, _)) if chat.is_group() => Some(message.record.sender),
        None if chat.is_group() => return Err(no_message()),
        _ => None,
    };
    let ids = vec![message_id.to_owned()];
    let pending = session.command(Command::MarkRead { chat: chat.clone(), participant, ids })?;
    match pending.wait(api.settings.send_wait) {
        Some(Reply::Done) => Ok(()),
        Some(Reply::Failed(error)) => Err(error.into()),
        Some(Reply::Sent { .. } | Reply::PairCode { .. } | Reply::Group(_)) | None => {
            Err(ApiError::unavailable("WHATSAPP_TIMEOUT", "the session did not answer in time", 5))
        }
    }
}

/// Types this version sends.
const SUPPORTED: &[&str] = &["text", "seen"];
