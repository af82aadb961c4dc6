//! What an answer to a webhook means for the event: the one place that decides.
//!
//! | answer | what follows |
//! |---|---|
//! | 2xx | delivered |
//! | 404, 410 for a kind that backends need not have | the kind is switched off until the next registration |
//! | 404 for a status, in a dialect that says "no such session" by it | no more about this session until it is started again |
//! | 429 | all webhooks wait, as long as it says |
//! | none, 3xx, 401, 403, 404 for a route that must be there, 407, 408, 425, 5xx | an outage: tried again |
//! | every other 4xx | refused for good: a dead letter |

use std::time::Duration;

use super::{
    choose::SESSION_STATUS,
    client::{Answer, NoAnswer},
    dialect,
};
use crate::config::Dialect;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    UnknownKind,
    UnknownSession,
    TooFast {
        retry_after: Option<Duration>,
    },
    /// With words for the log.
    Outage {
        retry_after: Option<Duration>,
        problem: String,
    },
    Refused {
        status: u16,
        reason: String,
    },
}

pub(super) fn judge(dialect: Dialect, kind: &str, answer: &Result<Answer, NoAnswer>) -> Verdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer(problem)) => return Verdict::Outage { retry_after: None, problem: problem.clone() },
    };
    let is_status = kind == SESSION_STATUS;
    let outage = || Verdict::Outage {
        retry_after: answer.retry_after,
        // Not its words: they may repeat what a person wrote.
        problem: format!("it answers {}", answer.status),
    };
    match answer.status {
        200..=299 => Verdict::Delivered,
        404 | 410 if !is_status => Verdict::UnknownKind,
        404 if dialect::is_unknown_session(dialect, answer) => Verdict::UnknownSession,
        404 if dialect == Dialect::Whatsam => outage(),
        429 => Verdict::TooFast { retry_after: answer.retry_after },
        401 | 403 | 407 | 408 | 425 => outage(),
        400..=499 => Verdict::Refused { status: answer.status, reason: answer.reason() },
        _ => outage(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(dialect: Dialect, kind: &str, status: u16) -> Verdict {
        judge(dialect, kind, &Ok(Answer { status, ..Answer::default() }))
    }

    fn is_outage(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Outage { .. })
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_cannot_is_buried() {
        for status in [302, 401, 403, 408, 425, 500, 502, 503, 504] {
            for kind in [SESSION_STATUS, "message"] {
                assert!(is_outage(&judged(Dialect::Guide, kind, status)), "{status}");
            }
        }
        for status in [400, 409, 413, 415, 422] {
            let verdict = judged(Dialect::Guide, "message", status);
            assert!(matches!(verdict, Verdict::Refused { status: told, .. } if told == status));
        }
        assert!(is_outage(&judge(Dialect::Guide, "message", &Err(NoAnswer("refused".into())))));
        assert_eq!(judged(Dialect::Guide, "message", 204), Verdict::Delivered);
    }

    #[test]
    fn not_found_is_about_the_kind_the_session_or_the_route() {
        assert_eq!(judged(Dialect::Guide, "message", 404), Verdict::UnknownKind);
        assert!(matches!(judged(Dialect::Guide, SESSION_STATUS, 404), Verdict::Refused { .. }));
        assert_eq!(judged(Dialect::Whatsam, SESSION_STATUS, 404), Verdict::UnknownSession);
        let body = br#"{"success":false,"error":"Endpoint not found"}"#.to_vec();
        let no_route = Ok(Answer { status: 404, body, ..Answer::default() });
        assert!(is_outage(&judge(Dialect::Whatsam, SESSION_STATUS, &no_route)));
    }

    #[test]
    fn a_backend_that_is_busy_says_for_how_long() {
        let answer = Answer { status: 429, retry_after: Some(Duration::from_secs(7)), ..Answer::default() };
        let expected = Verdict::TooFast { retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(judge(Dialect::Whatsam, SESSION_STATUS, &Ok(answer)), expected);
    }
}
