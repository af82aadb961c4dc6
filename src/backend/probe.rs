//! One harmless request to the backend, to see whether it is there and takes the token.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::client::{Answer, Client, NoAnswer, Request};
use crate::config::{BackendConfig, Dialect};

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It answers, and the token is good.
    Fine {
        /// How long that took.
        took: Duration,
        /// How far our clock is ahead of its clock, seconds; `None` when it does not say the time.
        ahead_s: Option<i64>,
    },
    /// It answers, and does not take the token.
    TokenRefused,
    /// It answers, and does not have the route.
    NoRoute,
    /// It answers with an error of its own.
    Trouble {
        /// HTTP status.
        status: u16,
    },
    /// It does not answer.
    Unreachable(String),
}

/// Asks what changes nothing: a status without a session, which is refused behind the check of the token, or which
/// sessions are assigned.
pub(crate) fn probe(config: &BackendConfig, worker_id: &str) -> Reached {
    let request = match config.dialect {
        Dialect::Guide => Request::new("POST", "/api/webhooks/session-status").with_body(&json!({})),
        Dialect::Whatsam => Request::new("GET", format!("/api/workers/{worker_id}/sessions/assigned")),
    };
    let begun = Instant::now();
    match Client::new(config, TIMEOUT, 1) {
        Ok(client) => judge(config.dialect, client.send(&request), begun.elapsed()),
        Err(error) => Reached::Unreachable(error.to_string()),
    }
}

fn judge(dialect: Dialect, answer: Result<Answer, NoAnswer>, took: Duration) -> Reached {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer(problem)) => return Reached::Unreachable(problem),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let ahead_s = answer.date.and_then(|date| i64::try_from(now).ok()?.checked_sub(date));
    // A worker that is not registered yet is not found by the public backend.
    let is_stranger = dialect == Dialect::Whatsam
        && answer.status == 404
        && answer.json()["error"].as_str() != Some("Endpoint not found");
    match answer.status {
        _ if is_stranger => Reached::Fine { took, ahead_s },
        200..=299 | 400 | 422 => Reached::Fine { took, ahead_s },
        401 | 403 => Reached::TokenRefused,
        300..=399 | 404 | 405 => Reached::NoRoute,
        status => Reached::Trouble { status },
    }
}

/// Somebody waits for the report.
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_says_what_is_wrong() {
        let judged = |dialect, status, body: &str| {
            let body = body.as_bytes().to_vec();
            judge(dialect, Ok(Answer { status, body, ..Answer::default() }), Duration::ZERO)
        };
        for status in [200, 400, 422] {
            assert!(matches!(judged(Dialect::Guide, status, ""), Reached::Fine { .. }), "{status}");
        }
        assert_eq!(judged(Dialect::Guide, 401, ""), Reached::TokenRefused);
        assert_eq!(judged(Dialect::Guide, 404, ""), Reached::NoRoute);
        assert_eq!(judged(Dialect::Guide, 502, ""), Reached::Trouble { status: 502 });
        let stranger = judged(Dialect::Whatsam, 404, r#"{"error":"Not Found","message":"Worker not found"}"#);
        assert!(matches!(stranger, Reached::Fine { .. }));
        assert_eq!(judged(Dialect::Whatsam, 404, r#"{"error":"Endpoint not found"}"#), Reached::NoRoute);
        let lost = judge(Dialect::Guide, Err(NoAnswer("refused".into())), Duration::ZERO);
        assert_eq!(lost, Reached::Unreachable("refused".into()));
    }

    #[test]
    fn the_backends_clock_is_compared_with_ours() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let date = Some(i64::try_from(now).unwrap() - 500);
        let answer = Answer { status: 200, date, ..Answer::default() };
        let Reached::Fine { ahead_s, .. } = judge(Dialect::Guide, Ok(answer), Duration::ZERO) else {
            panic!()
        };
        assert!((499..=510).contains(&ahead_s.unwrap()), "{ahead_s:?}");
    }
}
