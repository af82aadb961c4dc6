//! Sessions: list, create, status, disconnect, log out, delete.

use serde::Serialize;

use super::{
    Api, check_id,
    fields::{Fields, known_query},
    http::{Request, Response},
    note_unknown,
    respond::{Answer, ApiError, ok},
    time,
};
use crate::session::{SessionHandle, SessionSnapshot};

/// What the API shows of a session. Fields without a value are left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionView {
    session_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_activity: Option<String>,
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey_options: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Everything that waited while we were offline has been delivered.
    ready: bool,
    created_at: String,
    updated_at: String,
}

impl From<SessionSnapshot> for SessionView {
    fn from(session: SessionSnapshot) -> Self {
        Self {
            session_id: session.id,
            status: session.status.as_str(),
            phone_number: session.phone_number,
            last_activity: session.last_activity_ms.map(time::from_millis),
            user_id: session.user_id,
            session_name: session.name,
            display_name: session.push_name,
            lid: session.lid,
            connected_since: session.connected_since_ms.map(time::from_millis),
            qr_expires_at: session.qr.map(|qr| time::from_millis(qr.expires_at_ms)),
            passkey_options: session
                .passkey_options
                .map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))),
            error: session.error,
            ready: session.ready,
            created_at: time::from_millis(session.created_ms),
            updated_at: time::from_millis(session.updated_ms),
        }
    }
}

/// The short answer of everything that changes a session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed<'a> {
    session_id: &'a str,
    status: &'static str,
    message: &'static str,
}

/// `GET /sessions[?userId=…]`.
pub(super) fn list(api: &Api, request: &Request) -> Answer {
    known_query(request, &["userId"])?;
    let only = request.query("userId");
    let sessions: Vec<SessionView> = api
        .registry
        .list()
        .into_iter()
        .filter(|session| only.is_none_or(|user| session.user_id == user))
        .map(SessionView::from)
        .collect();
    Ok(ok(&serde_json::json!({ "total": sessions.len(), "sessions": sessions })))
}

/// `POST /session/create`: makes a session, or finds the one the same user made before.
pub(super) fn create(api: &Api, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let (id, session, is_new) = find_or_create(api, &mut fields)?;
    let message = if is_new { "Session created successfully" } else { "Session already exists" };
    let status = session.snapshot().status.as_str();
    let response = ok(&Changed { session_id: &id, status, message });
    Ok(note_unknown(response, &fields, &id))
}

/// The session that `{sessionId,userId,sessionName?}` names, its id, and whether it is new.
///
/// # Errors
/// 400 naming a field; what the registry refuses.
pub(super) fn find_or_create(
    api: &Api,
    fields: &mut Fields,
) -> Result<(String, SessionHandle, bool), ApiError> {
    let id = fields.text("sessionId")?;
    check_id("sessionId", &id)?;
    let user = fields.text("userId")?;
    check_words("userId", &user)?;
    let name = fields.optional_text("sessionName")?;
    if let Some(name) = &name {
        check_words("sessionName", name)?;
    }
    let (session, is_new) = api.registry.create(&id, &user, name.as_deref())?;
    Ok((id, session, is_new))
}

/// `GET /session/{id}/status`.
pub(super) fn status(api: &Api, id: &str) -> Answer {
    Ok(ok(&SessionView::from(api.session(id)?.snapshot())))
}

/// `DELETE /session/{id}`: unlinks the device and removes everything stored under exactly this id.
pub(super) fn delete(api: &Api, id: &str) -> Answer {
    check_id("sessionId", id)?;
    let unlinked = api.registry.delete(id)?;
    let message = if unlinked { "Session deleted successfully" } else { STILL_LINKED };
    let body = serde_json::json!({ "success": true, "message": message, "unlinked": unlinked });
    Ok(Response::json(200, &body))
}

/// `POST /session/{id}/disconnect`: keeps the pairing.
pub(super) fn disconnect(api: &Api, id: &str, request: &Request) -> Answer {
    Fields::of(request)?.refuse_unknown()?;
    do_disconnect(id, &api.session(id)?)
}

pub(super) fn do_disconnect(id: &str, session: &SessionHandle) -> Answer {
    session.disconnect()?;
    let status = session.snapshot().status.as_str();
    Ok(ok(&Changed { session_id: id, status, message: "Session disconnected; the pairing is kept" }))
}

/// `POST /session/{id}/release`: any worker can connect it afterwards.
pub(super) fn release(api: &Api, id: &str, request: &Request) -> Answer {
    Fields::of(request)?.refuse_unknown()?;
    let session = api.session(id)?;
    api.registry.release(id)?;
    let status = session.snapshot().status.as_str();
    Ok(ok(&Changed { session_id: id, status, message: "Session released; any worker can connect it" }))
}

/// `POST /session/{id}/logout`: unlinks the device and forgets its keys; the history stays.
pub(super) fn logout(api: &Api, id: &str, request: &Request) -> Answer {
    Fields::of(request)?.refuse_unknown()?;
    do_logout(id, &api.session(id)?)
}

pub(super) fn do_logout(id: &str, session: &SessionHandle) -> Answer {
    let unlinked = session.logout()?;
    let status = session.snapshot().status.as_str();
    let message = if unlinked { "Session logged out; connect links it anew" } else { STILL_LINKED };
    Ok(ok(&serde_json::json!({
        "sessionId": id, "status": status, "message": message, "unlinked": unlinked,
    })))
}

/// WhatsApp could not be reached to unlink the device.
const STILL_LINKED: &str = "Session removed here; the phone still lists the device: remove it there";

/// Names that people chose: not empty, not endless, no control characters.
fn check_words(field: &str, text: &str) -> Result<(), ApiError> {
    if text.trim().is_empty() || text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
        let problem = format!("must be 1 to {MAX_NAME} characters without control characters");
        return Err(ApiError::field(field, &problem));
    }
    Ok(())
}

/// Longest name, characters.
const MAX_NAME: usize = 255;
