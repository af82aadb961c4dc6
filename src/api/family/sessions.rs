//! `/api/sessions/…`: start, status, list, disconnect, log out, restart, delete.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{mirrored, word};
use crate::{
    api::{
        Api, connect,
        fields::Fields,
        http::{Request, Response},
        note_unknown,
        respond::{Answer, ok, respond},
        sessions::{self, SessionView},
        time,
    },
    session::{SessionHandle, SessionSnapshot},
};

/// `POST /api/sessions/start {sessionId,userId,sessionName}`: makes the session if need be and connects it.
pub(in crate::api) fn start(api: &Api, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let (id, session, is_new) = sessions::find_or_create(api, &mut fields)?;
    session.connect()?;
    let message = if is_new { "Session started" } else { "Session is there and connects" };
    let response = connecting(api, &session, if is_new { 201 } else { 200 }, message);
    Ok(note_unknown(response, &fields, &id))
}

/// `POST /api/sessions/{id}/restart`.
pub(in crate::api) fn restart(api: &Api, id: &str, request: &Request) -> Answer {
    let fields = Fields::of(request)?;
    let session = api.session(id)?;
    session.restart()?;
    let response = connecting(api, &session, 200, "Session restarted");
    Ok(note_unknown(response, &fields, id))
}

/// `GET /api/sessions/{id}/status`.
pub(in crate::api) fn status(api: &Api, id: &str) -> Answer {
    let snapshot = api.session(id)?.snapshot();
    let (status, qr) = (word(snapshot.status), snapshot.qr.as_ref().map(|qr| qr.text.clone()));
    Ok(mirrored(ok(&SessionView::from(snapshot)), |data| {
        data.insert("status".to_owned(), status.into());
        data.extend(qr.map(|text| ("qrCode".to_owned(), Value::String(text))));
    }))
}

/// `GET /api/sessions`.
pub(in crate::api) fn list(api: &Api) -> Answer {
    let mut all = Vec::new();
    for snapshot in api.registry.list() {
        let status = word(snapshot.status);
        let mut view = serde_json::json!(SessionView::from(snapshot));
        view["status"] = status.into();
        all.push(view);
    }
    Ok(mirrored(ok(&serde_json::json!({ "total": all.len(), "sessions": all })), |_| {}))
}

/// `POST /api/sessions/{id}/disconnect`.
pub(in crate::api) fn disconnect(api: &Api, id: &str, request: &Request) -> Answer {
    let fields = Fields::of(request)?;
    let session = api.session(id)?;
    let response = sessions::do_disconnect(id, &session)?;
    Ok(note_unknown(in_its_words(response, &session), &fields, id))
}

/// `POST /api/sessions/{id}/logout`.
pub(in crate::api) fn logout(api: &Api, id: &str, request: &Request) -> Answer {
    let fields = Fields::of(request)?;
    let session = api.session(id)?;
    let response = sessions::do_logout(id, &session)?;
    Ok(note_unknown(in_its_words(response, &session), &fields, id))
}

/// `DELETE /api/sessions/{id}`.
pub(in crate::api) fn delete(api: &Api, id: &str) -> Answer {
    sessions::delete(api, id)
}

fn in_its_words(response: Response, session: &SessionHandle) -> Response {
    let status = word(session.snapshot().status);
    mirrored(response, |data| {
        data.insert("status".to_owned(), status.into());
    })
}

/// Waits for the first QR or the login, as connect does, and tells where the session stands.
fn connecting(api: &Api, session: &SessionHandle, status: u16, message: &str) -> Response {
    let patience = api.settings.connect_wait.min(LINK_WAIT);
    let permit = api.waiting.take();
    let snapshot =
        connect::wait_for_link(api, session, if permit.is_ok() { patience } else { Duration::ZERO });
    // Its database takes this answer for the newest status, even over a webhook that came meanwhile.
    if let Some(backend) = &api.backend {
        backend.answered(session);
    }
    mirrored(respond(status, &standing(snapshot, message)), |_| {})
}

fn standing(session: SessionSnapshot, message: &str) -> Map<String, Value> {
    // A status of `QR_REQUIRED` without its QR would erase the one that a webhook brought.
    let status = match (word(session.status), &session.qr) {
        ("QR_REQUIRED", None) => "RECONNECTING",
        (status, _) => status,
    };
    let mut data = Map::new();
    data.insert("sessionId".to_owned(), session.id.into());
    data.insert("status".to_owned(), status.into());
    data.insert("message".to_owned(), message.into());
    let optional = [
        ("qrCode", session.qr.as_ref().map(|qr| qr.text.clone())),
        ("qrExpiresAt", session.qr.as_ref().map(|qr| time::from_millis(qr.expires_at_ms))),
        ("phoneNumber", session.phone_number),
        ("displayName", session.push_name),
        ("lastActivity", session.last_activity_ms.map(time::from_millis)),
        ("error", session.error),
    ];
    data.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    data
}

/// The backend gives up after 30 seconds, and ending the session before a restart may take 10 of them.
const LINK_WAIT: Duration = Duration::from_secs(15);
