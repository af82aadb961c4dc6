//! Answers the front door gives by itself, in the API's error envelope.

use std::borrow::Cow;

/// Why a request goes no further than the front door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: u16,
    /// Stable word.
    pub(super) code: &'static str,
    /// One sentence.
    pub(super) message: Cow<'static, str>,
    /// Header or field the sentence is about.
    pub(super) field: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), field: None }
    }

    /// 400 about the request's form.
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "BAD_REQUEST", message)
    }

    /// 400 about one header.
    pub(super) fn header(name: &str, problem: &str) -> Self {
        Self::malformed(format!("header {name}: {problem}")).about(name)
    }

    /// The same refusal with the header or field it is about.
    pub(super) fn about(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// 503: come back in a moment.
    pub(super) fn busy(message: &'static str) -> Self {
        Self::new(503, "OVERLOADED", message)
    }

    /// 408: the rest did not come in time.
    pub(super) fn too_slow(message: &'static str) -> Self {
        Self::new(408, "REQUEST_TIMEOUT", message)
    }

    /// The whole HTTP answer; the connection is closed behind it.
    pub(super) fn encode(&self, without_body: bool) -> Vec<u8> {
        let details = self.field.as_ref().map(|field| serde_json::json!({ "field": field }));
        let mut envelope = serde_json::json!({ "success": false, "error": self.message, "code": self.code });
        if let Some(details) = details {
            envelope["details"] = details;
        }
        let body = envelope.to_string();
        let retry = if self.status == 503 { "Retry-After: 1\r\n" } else { "" };
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\n{retry}Connection: close\r\nContent-Length: {}\r\n\r\n",
            self.status,
            reason_phrase(self.status),
            body.len()
        );
        if !without_body {
            out.push_str(&body);
        }
        out.into_bytes()
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_api_envelope_and_closes() {
        let text = String::from_utf8(Refusal::header("Host", "given twice").encode(false)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("Connection: close"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["success"], false);
        assert_eq!(body["details"]["field"], "Host");
    }
}
