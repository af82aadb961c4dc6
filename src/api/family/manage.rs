//! `POST /api/message/{id}/manage`: the backend's seven actions, as far as this version has them.

use super::{mirrored, send::mark_read};
use crate::api::{
    Api,
    fields::Fields,
    http::Request,
    note_unknown, recipient,
    respond::{Answer, ok},
    send::not_supported,
    time,
};

pub(in crate::api) fn manage(api: &Api, id: &str, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let action = fields.text("action")?;
    if action != "read" {
        return Err(not_supported("action", &action, SUPPORTED));
    }
    let message_id = fields.text("messageId")?;
    let chat = recipient::parse("phone", &fields.text("phone")?)?;
    // They repeat what the fields above say.
    for name in ["jid", "messageKey"] {
        fields.take(name);
    }
    let session = api.session(id)?;
    mark_read(api, &session, &chat, &message_id)?;
    let response = ok(&serde_json::json!({
        "messageId": message_id,
        "action": action,
        "status": "read",
        "success": true,
        "remoteJid": chat.to_string(),
        "timestamp": time::from_millis(time::now_millis()),
    }));
    Ok(note_unknown(mirrored(response, |_| {}), &fields, id))
}

/// Actions this version has.
const SUPPORTED: &[&str] = &["read"];
