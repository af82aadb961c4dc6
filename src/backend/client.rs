//! One HTTP exchange with the backend: the base address, the token, deadlines, and what an answer says about waiting.

use std::time::{Duration, SystemTime};

use ureq::{Agent, http};

use crate::{
    config::{BackendConfig, Secret},
    http_client::{AgentError, AgentOptions, agent},
};

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: &'static str,
    /// Behind the base address, with its slash.
    pub(super) path: String,
    /// JSON.
    pub(super) body: Option<String>,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Request {
    pub(super) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, headers: Vec::new() }
    }

    pub(super) fn with_body(self, body: &serde_json::Value) -> Self {
        Self { body: Some(body.to_string()), ..self }
    }
}

/// What came back, whatever its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The backend's clock, Unix seconds.
    pub(super) date: Option<i64>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null when it is none.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The reason in the backend's words, one short line.
    pub(super) fn reason(&self) -> String {
        let body = self.json();
        let text = ["/error/message", "/message", "/error", "/error/code"]
            .iter()
            .find_map(|place| body.pointer(place)?.as_str())
            .map_or_else(|| String::from_utf8_lossy(&self.body).into_owned(), str::to_owned);
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = one_line.chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect();
        if short.is_empty() { format!("HTTP {}", self.status) } else { short }
    }
}

/// There was no answer, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoAnswer(pub(super) String);

/// The way to one backend. Each user has its own, so that none waits for a connection of another.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<Secret>,
}

impl Client {
    pub(super) fn new(
        config: &BackendConfig,
        timeout: Duration,
        connections: usize,
    ) -> Result<Self, AgentError> {
        let options = AgentOptions {
            timeout,
            connect_timeout: timeout.min(CONNECT_TIMEOUT),
            idle_connections: connections,
            ca_file: config.ca_file.clone(),
            ..AgentOptions::default()
        };
        Ok(Self { agent: agent(&options)?, base: config.url.clone(), token: config.token.clone() })
    }

    /// Sends once.
    pub(super) fn send(&self, request: &Request) -> Result<Answer, NoAnswer> {
        let mut outgoing =
            http::Request::builder().method(request.method).uri(format!("{}{}", self.base, request.path));
        outgoing = outgoing.header("accept", "application/json");
        if let Some(token) = &self.token {
            outgoing = outgoing.header("authorization", format!("Bearer {}", token.as_str()));
        }
        for (name, value) in &request.headers {
            outgoing = outgoing.header(*name, value);
        }
        let sent = match &request.body {
            Some(body) => outgoing
                .header("content-type", "application/json")
                .body(body.as_bytes())
                .map_err(Into::into)
                .and_then(|outgoing| self.agent.run(outgoing)),
            None => outgoing.body(()).map_err(Into::into).and_then(|outgoing| self.agent.run(outgoing)),
        };
        let mut response = sent.map_err(|error| no_answer(&error))?;
        let text = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (date, wait) = (text("date").and_then(|text| http_date(&text)), text("retry-after"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        // Of a success the status is what counts; a refusal cut short is no verdict.
        let body = match body {
            Ok(body) => body,
            Err(_) if (200..300).contains(&status) => Vec::new(),
            Err(error) => return Err(no_answer(&error)),
        };
        Ok(Answer { status, retry_after: wait.and_then(|text| retry_after(&text)), date, body })
    }
}

fn no_answer(error: &ureq::Error) -> NoAnswer {
    NoAnswer(match error {
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::HostNotFound => "its name has no address".to_owned(),
        other => other.to_string(),
    })
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let left = http_date(text)?.saturating_sub(i64::try_from(now).ok()?);
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// Unix seconds of an HTTP date.
fn http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text.trim()).ok().map(|date| date.timestamp().as_second())
}

/// For resolving and connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 8 << 20;

/// Longest reason that is shown, characters.
const MAX_REASON: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_where_backends_put_them() {
        let reason = |status, text: &str| {
            Answer { status, body: text.as_bytes().to_vec(), ..Answer::default() }.reason()
        };
        let validation =
            r#"{"success":false,"error":{"code":"VALIDATION_ERROR","message":"Validation failed"}}"#;
        assert_eq!(reason(400, validation), "Validation failed");
        assert_eq!(reason(409, r#"{"error":"Conflict","message":"endpoint is taken"}"#), "endpoint is taken");
        assert_eq!(reason(404, r#"{"error":"Endpoint not found"}"#), "Endpoint not found");
        assert_eq!(reason(404, r#"{"error":{"code":"Session not found: a"}}"#), "Session not found: a");
        assert_eq!(reason(502, "<html>\n Bad  Gateway"), "<html> Bad Gateway");
        assert_eq!(reason(500, ""), "HTTP 500");
        assert_eq!(reason(500, &"x".repeat(999)).len(), 300);
    }

    #[test]
    fn waiting_times_are_seconds_or_dates() {
        assert_eq!(retry_after("17"), Some(Duration::from_secs(17)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
    }
}
