//! After registration with the public backend: it says which sessions it counts on, those that can be had are
//! connected, and it is told of each.
//!
//! | a session that is assigned to us | answer |
//! |---|---|
//! | connected, soon at the latest | `SUCCESS` |
//! | still on its way, or another worker has it | `SKIPPED`: its next status says more |
//! | not paired, or nothing is stored of it | `FAILED`: it must be connected anew, which `INIT` would not allow |

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{client::Request, link::Link};
use crate::{
    session::{SessionError, SessionHandle, SessionStatus},
    storage::{events::rfc3339_ms, sync::CustodyError},
};

/// Sessions that connect have this long together before they are reported as on their way. Webhooks wait meanwhile.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How a session came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Success,
    Skipped(String),
    Failed(String),
}

/// A session the backend counts on.
struct Assigned {
    id: String,
    user_id: String,
    name: Option<String>,
}

/// Asks, connects, reports. What goes wrong here is logged and left: statuses follow anyway.
pub(super) fn recover(link: &Link, worker_id: &str) {
    let request = Request::new("GET", format!("/api/workers/{worker_id}/sessions/assigned"));
    link.outbox.count_request();
    let assigned = match link.client.send(&request) {
        Ok(answer) if answer.is_success() => assigned(&answer.json()),
        Ok(answer) => {
            return log::warn!("the backend does not say which sessions are ours: {}", answer.reason());
        }
        Err(error) => return log::warn!("the backend does not say which sessions are ours: {error}"),
    };
    if assigned.is_empty() {
        return;
    }
    let begun: Vec<_> = assigned.iter().map(|session| begin(link, session)).collect();
    let deadline = Instant::now() + CONNECT_WAIT;
    let outcomes: Vec<(String, Outcome)> = assigned
        .into_iter()
        .zip(begun)
        .map(|(session, begun)| {
            (session.id, begun.map_or_else(|no| no, |handle| wait(link, &handle, deadline)))
        })
        .collect();
    let request = Request::new("POST", format!("/api/workers/{worker_id}/sessions/recovery-status"))
        .with_body(&report(&outcomes));
    link.outbox.count_request();
    match link.client.send(&request) {
        Ok(answer) if answer.is_success() => {
            log::info!(
                "the backend counts on {} sessions of this worker; it was told of each",
                outcomes.len()
            );
        }
        Ok(answer) => log::warn!("the backend does not take the report on its sessions: {}", answer.reason()),
        Err(error) => log::warn!("the backend was not told of its sessions: {error}"),
    }
}

fn assigned(body: &Value) -> Vec<Assigned> {
    let sessions = body.pointer("/data/sessions").and_then(Value::as_array);
    let text = |session: &Value, name: &str| session.get(name).and_then(Value::as_str).map(str::to_owned);
    let read = |session: &Value| {
        let (id, user_id) = (text(session, "sessionId")?, text(session, "userId").unwrap_or_default());
        Some(Assigned { id, user_id, name: text(session, "sessionName") })
    };
    sessions.into_iter().flatten().filter_map(read).collect()
}

/// Starts what can be had.
fn begin(link: &Link, assigned: &Assigned) -> Result<SessionHandle, Outcome> {
    let registry = &link.worker.registry;
    let session = match registry.get(&assigned.id) {
        Ok(session) => session,
        Err(_) => registry
            .take_over(&assigned.id, &assigned.user_id, assigned.name.as_deref())
            .map_err(|error| refused(&error))?
            .ok_or_else(|| {
                Outcome::Failed("nothing is stored of this session; it must be linked anew".into())
            })?,
    };
    if session.is_unlinked() {
        return Err(Outcome::Failed("this session is not linked; it must be connected anew".into()));
    }
    session.connect().map_err(|error| refused(&error))?;
    Ok(session)
}

fn refused(error: &SessionError) -> Outcome {
    match error {
        SessionError::Custody(CustodyError::Held { .. } | CustodyError::HeldByNamesake { .. })
        | SessionError::Stopping
        | SessionError::Deleting => Outcome::Skipped(error.to_string()),
        _ => Outcome::Failed(error.to_string()),
    }
}

fn wait(link: &Link, session: &SessionHandle, deadline: Instant) -> Outcome {
    let left = deadline.saturating_duration_since(Instant::now());
    let shown = session.wait_until(left, |shown| {
        !matches!(shown.status, SessionStatus::Connecting | SessionStatus::Reconnecting) || link.is_stopping()
    });
    match shown.status {
        SessionStatus::Connected => Outcome::Success,
        SessionStatus::Connecting | SessionStatus::Reconnecting => {
            Outcome::Skipped("still connecting".to_owned())
        }
        status => Outcome::Failed(shown.error.unwrap_or_else(|| status.as_str().to_owned())),
    }
}

fn report(outcomes: &[(String, Outcome)]) -> Value {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = rfc3339_ms(u64::try_from(since.as_millis()).unwrap_or(0));
    let results: Vec<Value> = outcomes
        .iter()
        .map(|(id, outcome)| match outcome {
            Outcome::Success => json!({ "sessionId": id, "status": "SUCCESS", "recoveredAt": now }),
            Outcome::Skipped(why) => json!({ "sessionId": id, "status": "SKIPPED", "error": why }),
            Outcome::Failed(why) => json!({ "sessionId": id, "status": "FAILED", "error": why }),
        })
        .collect();
    let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count();
    json!({
        "recoveryResults": results,
        "totalSessions": outcomes.len(),
        "successfulRecoveries": count(|outcome| *outcome == Outcome::Success),
        "failedRecoveries": count(|outcome| matches!(outcome, Outcome::Failed(_))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_counts_are_at_the_top_level_and_nothing_is_null() {
        let outcomes = [
            ("a".to_owned(), Outcome::Success),
            ("b".to_owned(), Outcome::Failed("gone".into())),
            ("c".to_owned(), Outcome::Skipped("elsewhere".into())),
        ];
        let report = report(&outcomes);
        let counts =
            ["totalSessions", "successfulRecoveries", "failedRecoveries"].map(|name| report[name].clone());
        assert_eq!(counts, [json!(3), json!(1), json!(1)]);
        assert_eq!(
            report["recoveryResults"][1],
            json!({ "sessionId": "b", "status": "FAILED", "error": "gone" })
        );
        assert!(report["recoveryResults"][0]["recoveredAt"].is_string());
        assert!(!report.to_string().contains("null"), "{report}");
    }

    #[test]
    fn sessions_are_read_as_the_backend_lists_them() {
        let body = json!({ "data": { "sessions": [
            { "sessionId": "a", "userId": "u", "sessionName": "Shop", "phoneNumber": null },
            { "userId": "u" },
            { "sessionId": "b", "sessionName": null },
        ] } });
        let found = assigned(&body);
        let found: Vec<_> =
            found.iter().map(|s| (s.id.as_str(), s.user_id.as_str(), s.name.as_deref())).collect();
        assert_eq!(found, [("a", "u", Some("Shop")), ("b", "", None)]);
        assert!(assigned(&json!({ "data": null })).is_empty());
    }
}
