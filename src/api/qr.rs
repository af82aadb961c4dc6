//! `GET /session/{id}/qr`: the QR as PNG, data URL or text.

use super::{
    Api,
    fields::known_query,
    http::{Request, Response},
    respond::{Answer, ApiError, ok},
    time,
};
use crate::{
    qr::{self, Undrawable},
    session::SessionStatus,
};

/// `GET /session/{id}/qr[?format=png|raw|json]`.
pub(super) fn show(api: &Api, id: &str, request: &Request) -> Answer {
    known_query(request, &["format"])?;
    let format = request.query("format").unwrap_or("png");
    if !matches!(format, "png" | "raw" | "json") {
        return Err(ApiError::field("format", "must be png, raw or json"));
    }
    let session = api.session(id)?.snapshot();
    let Some(qr) = session.qr else { return Err(no_qr(session.status)) };
    let response = match format {
        "raw" => Response::text(200, qr.text),
        "json" => ok(&serde_json::json!({
            "sessionId": id,
            "status": session.status.as_str(),
            "qr": qr.text,
            "qrCode": data_url(&qr.text)?,
            "expiresAt": time::from_millis(qr.expires_at_ms),
        })),
        _ => Response::bytes(200, "image/png", qr::png(&qr.text)?),
    };
    Ok(response.with_header("Cache-Control", "no-store"))
}

/// `data:image/png;base64,…`
///
/// # Errors
/// 503 when the text cannot be drawn.
pub(super) fn data_url(text: &str) -> Result<String, ApiError> {
    Ok(qr::data_url(text)?)
}

impl From<Undrawable> for ApiError {
    fn from(error: Undrawable) -> Self {
        log::error!("{error}");
        Self::unavailable("QR_UNDRAWABLE", "the QR cannot be drawn", 20)
    }
}

fn no_qr(status: SessionStatus) -> ApiError {
    let message = match status {
        SessionStatus::Connected | SessionStatus::Reconnecting => {
            "the session is linked already; there is no QR"
        }
        SessionStatus::Connecting | SessionStatus::QrRequired => "the QR has not arrived yet; ask again",
        SessionStatus::PasskeyRequired => "WhatsApp wants a passkey step instead of a QR",
        SessionStatus::Disconnected | SessionStatus::LoggedOut | SessionStatus::Error => {
            "the session is not connecting; connect it first"
        }
    };
    ApiError::new(409, "NO_QR", message).with_detail("status", status.as_str())
}
