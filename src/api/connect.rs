//! Connecting: by QR, by pairing code, again.

use std::time::Duration;

use serde::Serialize;

use super::{
    Api,
    fields::Fields,
    http::Request,
    note_unknown,
    qr::data_url,
    recipient,
    respond::{Answer, ApiError, ok},
    time,
};
use crate::{
    session::{SessionHandle, SessionSnapshot, SessionStatus},
    whatsapp::model::{Command, Reply},
};

/// What a connect came to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connected<'a> {
    session_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `POST /session/{id}/connect`: waits for the first QR or for the login.
pub(super) fn connect(api: &Api, id: &str, request: &Request) -> Answer {
    let fields = Fields::of(request)?;
    let session = api.session(id)?;
    session.connect()?;
    let response = outcome(api, id, &session)?;
    Ok(note_unknown(response, &fields, id))
}

/// `POST /session/{id}/restart`: disconnects, then as for connect.
pub(super) fn restart(api: &Api, id: &str, request: &Request) -> Answer {
    Fields::of(request)?.refuse_unknown()?;
    let session = api.session(id)?;
    session.restart()?;
    outcome(api, id, &session)
}

/// `POST /session/{id}/pair-code {"phoneNumber":"…"}`: a code to type on the phone instead of scanning.
pub(super) fn pair_code(api: &Api, id: &str, request: &Request) -> Answer {
    let mut fields = Fields::of(request)?;
    let phone = recipient::phone("phoneNumber", &fields.text("phoneNumber")?)?;
    fields.refuse_unknown()?;
    let session = api.session(id)?;
    let _permit = api.waiting.take()?;
    if session.snapshot().status == SessionStatus::Connected {
        return Err(ApiError::new(409, "WRONG_STATE", "the session is linked already"));
    }
    session.connect()?;
    let snapshot = wait_for_link(api, &session, api.settings.connect_wait);
    if snapshot.status != SessionStatus::QrRequired {
        let message = snapshot.error.unwrap_or_else(|| "the session is not ready to be linked".to_owned());
        return Err(
            ApiError::new(409, "WRONG_STATE", message).with_detail("status", snapshot.status.as_str())
        );
    }
    let pending = session.command(Command::PairCode { phone })?;
    match pending.wait(PAIR_CODE_WAIT) {
        Some(Reply::PairCode { code, expires_in }) => {
            let expires_ms = time::now_millis() + u64::try_from(expires_in.as_millis()).unwrap_or(0);
            let expires_at = time::from_millis(expires_ms);
            Ok(ok(&serde_json::json!({ "sessionId": id, "pairingCode": code, "expiresAt": expires_at })))
        }
        Some(Reply::Failed(error)) => Err(error.into()),
        Some(Reply::Sent { .. } | Reply::Group(_) | Reply::Done) | None => {
            Err(ApiError::unavailable("WHATSAPP_TIMEOUT", "WhatsApp did not give a pairing code in time", 5))
        }
    }
}

fn outcome(api: &Api, id: &str, session: &SessionHandle) -> Answer {
    // With too many waiting already, this one is told `connecting` and finds the QR by asking for it.
    let permit = api.waiting.take();
    let patience = if permit.is_ok() { api.settings.connect_wait } else { Duration::ZERO };
    let snapshot = wait_for_link(api, session, patience);
    let qr_code = snapshot.qr.as_ref().map(|qr| data_url(&qr.text)).transpose()?;
    Ok(ok(&Connected {
        session_id: id,
        // A status of `qr_required` without its QR would be a promise we cannot keep.
        status: if snapshot.status == SessionStatus::QrRequired && qr_code.is_none() {
            SessionStatus::Connecting.as_str()
        } else {
            snapshot.status.as_str()
        },
        qr_code,
        qr_expires_at: snapshot.qr.map(|qr| time::from_millis(qr.expires_at_ms)),
        phone_number: snapshot.phone_number,
        error: snapshot.error,
    }))
}

/// Until there is something to show, or nothing more to wait for.
pub(super) fn wait_for_link(api: &Api, session: &SessionHandle, patience: Duration) -> SessionSnapshot {
    session.wait_until(patience, |snapshot| match snapshot.status {
        SessionStatus::QrRequired => snapshot.qr.is_some(),
        SessionStatus::Connecting | SessionStatus::Reconnecting => api.is_stopping(),
        SessionStatus::Disconnected
        | SessionStatus::PasskeyRequired
        | SessionStatus::Connected
        | SessionStatus::LoggedOut
        | SessionStatus::Error => true,
    })
}

/// How long WhatsApp may take to give a pairing code.
const PAIR_CODE_WAIT: Duration = Duration::from_secs(25);
