//! `POST /drain`: gives all sessions away, for a worker that is about to go.

use serde::Serialize;

use super::{
    Api,
    fields::Fields,
    http::Request,
    respond::{Answer, ok},
};

/// What became of one session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DrainedView {
    session_id: String,
    released: bool,
    pending_messages: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Takes as long as messages and uploads take, within bounds.
pub(super) fn drain(api: &Api, request: &Request) -> Answer {
    Fields::of(request)?.refuse_unknown()?;
    let sessions: Vec<DrainedView> = api
        .registry
        .drain()
        .into_iter()
        .map(|drained| DrainedView {
            session_id: drained.id,
            released: drained.error.is_none(),
            pending_messages: drained.pending,
            error: drained.error.map(|error| error.to_string()),
        })
        .collect();
    let failed = sessions.iter().filter(|session| !session.released).count();
    let drained = sessions.len() - failed;
    Ok(ok(&serde_json::json!({ "drained": drained, "failed": failed, "sessions": sessions })))
}
