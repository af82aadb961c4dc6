//! The envelope of every answer, and the one place that turns an error into a status.
//!
//! Success: `{"success":true,"data":…}`. Error: `{"success":false,"error":"<sentence>","code":"<STABLE_WORD>",
//! "details":{…}}`, where `error` is always a string and `details.field` names the field at fault.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{http::Response, time};
use crate::{
    session::SessionError,
    storage::{local::StoreError, sync::CustodyError},
    whatsapp::model::CommandError,
};

/// What a route gives back.
pub(super) type Answer = Result<Response, ApiError>;

/// An error as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    /// HTTP status.
    pub(super) status: u16,
    /// Stable word for programs.
    pub(super) code: &'static str,
    /// One sentence for people.
    pub(super) message: String,
    details: Map<String, Value>,
    retry_after_s: Option<u32>,
    allow: Option<String>,
}

/// `200` with `data`.
pub(super) fn ok(data: &impl Serialize) -> Response {
    respond(200, data)
}

/// Any success status with `data`.
pub(super) fn respond(status: u16, data: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        success: bool,
        data: &'a T,
    }
    Response::json(status, &Envelope { success: true, data })
}

impl ApiError {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Map::new(), retry_after_s: None, allow: None }
    }

    /// 400 about one field; the sentence starts with its name.
    pub(super) fn field(field: &str, problem: &str) -> Self {
        Self::new(400, "INVALID_FIELD", format!("{field}: {problem}")).with_detail("field", field)
    }

    /// 405 with the methods that work.
    pub(super) fn method_not_allowed(allow: String) -> Self {
        let message = format!("this path answers to {allow} only");
        Self { allow: Some(allow), ..Self::new(405, "METHOD_NOT_ALLOWED", message) }
    }

    /// 503: nothing was started, come back.
    pub(super) fn unavailable(code: &'static str, message: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(503, code, message) }
    }

    pub(super) fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// WhatsApp's answer to exactly this message, which the same message would get again.
    pub(super) fn is_verdict(&self) -> bool {
        matches!(self.status, 403 | 422)
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn into_response(self) -> Response {
        let mut body = json!({ "success": false, "error": self.message, "code": self.code });
        if !self.details.is_empty() {
            body["details"] = Value::Object(self.details);
        }
        let mut response = Response::json(self.status, &body);
        if let Some(seconds) = self.retry_after_s {
            response = response.with_header("Retry-After", seconds.to_string());
        }
        if let Some(allow) = self.allow {
            response = response.with_header("Allow", allow);
        }
        if self.status == 401 {
            response = response.with_header("WWW-Authenticate", "Bearer");
        }
        response
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::NotFound => {
                Self::new(404, "SESSION_NOT_FOUND", message).with_detail("field", "sessionId")
            }
            SessionError::OtherUser => {
                Self::new(409, "SESSION_OF_OTHER_USER", message).with_detail("field", "sessionId")
            }
            SessionError::TooMany { .. } => Self::unavailable("WORKER_FULL", message, 60),
            SessionError::NotConnected => Self::new(409, "SESSION_NOT_CONNECTED", message),
            SessionError::Busy => Self::unavailable("SESSION_BUSY", message, 1),
            SessionError::Stopping => Self::unavailable("WORKER_STOPPING", message, 5),
            SessionError::Deleting => Self::new(409, "SESSION_DELETING", message),
            SessionError::Thread(_) => Self::unavailable("WORKER_EXHAUSTED", message, 10),
            SessionError::Store(error) => error.into(),
            SessionError::Custody(error) => error.into(),
        }
    }
}

impl From<CustodyError> for ApiError {
    fn from(error: CustodyError) -> Self {
        let message = error.to_string();
        match error {
            CustodyError::Held { worker, expires_ms }
            | CustodyError::HeldByNamesake { worker, expires_ms } => {
                Self::new(409, "SESSION_HELD_ELSEWHERE", message)
                    .with_detail("workerId", worker)
                    .with_detail("expiresAt", time::from_millis(expires_ms))
            }
            CustodyError::GivenAway { .. } => Self::new(409, "SESSION_HELD_ELSEWHERE", message),
            CustodyError::Deleting => Self::new(409, "SESSION_DELETING", message),
            CustodyError::Damaged(_) => Self::new(409, "ACCOUNT_DAMAGED", message),
            CustodyError::Unreachable(_) => {
                log::warn!("{message}");
                Self::unavailable(
                    "STORAGE_UNAVAILABLE",
                    "the object store cannot be used, and another worker may hold the session",
                    10,
                )
            }
            CustodyError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Full => {
                Self::new(507, "DISK_FULL", "the worker's disk is full; nothing was accepted")
            }
            StoreError::NoSession => Self::new(404, "SESSION_NOT_FOUND", error.to_string()),
            StoreError::Stopped => Self::unavailable("WORKER_STOPPING", "the worker is stopping", 5),
            // Paths and database details are for the log, not for callers.
            StoreError::Refused(_)
            | StoreError::Locked { .. }
            | StoreError::Damaged { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::Sealed(_)
            | StoreError::Io(_) => {
                log::error!("the local store failed: {error}");
                Self::unavailable("STORE_FAILED", "the worker's local store failed; nothing was accepted", 10)
            }
        }
    }
}

impl From<CommandError> for ApiError {
    /// The callers' view of a command that did not work. Whether a message may have left all the same is decided
    /// before, in `send`: what comes here did not leave, or was refused by WhatsApp.
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::NotConnected => Self::new(409, "SESSION_NOT_CONNECTED", message),
            CommandError::WrongState(_) => Self::new(409, "WRONG_STATE", message),
            CommandError::NoSuchRecipient => {
                Self::new(422, "RECIPIENT_NOT_ON_WHATSAPP", message).with_detail("field", "to")
            }
            CommandError::Refused { code, reason } => refused(code, message).with_detail("reason", reason),
            CommandError::QueueFull => Self::unavailable("QUEUE_FULL", message, 30),
            CommandError::RateLimited => Self::new(429, "RATE_LIMITED", message).retry_after(60),
            CommandError::Timeout => Self::unavailable("WHATSAPP_TIMEOUT", message, 5),
            CommandError::ConnectionLost => Self::unavailable("CONNECTION_LOST", message, 5),
            CommandError::Invalid(_) => Self::new(400, "INVALID_REQUEST", message),
            CommandError::Store(_) => {
                log::error!("{message}");
                Self::unavailable("STORE_FAILED", "the worker's local store failed; nothing was sent", 10)
            }
        }
    }
}

/// WhatsApp said no; the number says why. Seen: protocol-facts of 1:1 sends (463, 475, 479, …).
fn refused(code: u16, message: String) -> ApiError {
    let (status, word) = match code {
        401 | 403 => (403, "WHATSAPP_FORBIDDEN"),
        404..=406 => (422, "RECIPIENT_REFUSED"),
        463 => (422, "RECIPIENT_RESTRICTED"),
        429 => (429, "RATE_LIMITED"),
        _ => (422, "WHATSAPP_REFUSED"),
    };
    let error = ApiError::new(status, word, message).with_detail("whatsappCode", code);
    if status == 429 { error.retry_after(60) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(error: ApiError) -> Value {
        serde_json::from_slice(&error.into_response().body).unwrap()
    }

    #[test]
    fn an_error_is_a_sentence_a_word_and_the_field() {
        let body = body(ApiError::field("to", "must be a phone number"));
        let wanted = json!({
            "success": false, "error": "to: must be a phone number", "code": "INVALID_FIELD",
            "details": { "field": "to" },
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn waiting_errors_say_how_long() {
        for error in [
            ApiError::from(SessionError::Busy),
            ApiError::from(CommandError::RateLimited),
            ApiError::from(CommandError::Refused { code: 429, reason: "slow down" }),
            ApiError::from(StoreError::Stopped),
        ] {
            let response = error.into_response();
            assert!(matches!(response.status, 429 | 503), "{response:?}");
            assert!(response.headers.iter().any(|(name, _)| *name == "Retry-After"), "{response:?}");
        }
    }

    #[test]
    fn store_details_stay_in_the_log() {
        let text = body(StoreError::Io("cannot open /var/lib/secret".into()).into()).to_string();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(ApiError::from(StoreError::Full).status, 507);
    }

    #[test]
    fn a_refusal_keeps_whatsapps_number() {
        let error = ApiError::from(CommandError::Refused { code: 463, reason: "reach-out limit" });
        assert_eq!((error.status, error.code), (422, "RECIPIENT_RESTRICTED"));
        assert_eq!(body(error)["details"], json!({ "reason": "reach-out limit", "whatsappCode": 463 }));
    }
}
