//! `GET /health` and `GET /ready`.

use serde::Serialize;

use super::{
    Api,
    respond::{Answer, ApiError, ok},
};
use crate::storage::sync::ObjectSync;

/// `GET /health`: open to everybody, so it tells figures only.
pub(super) fn health(api: &Api) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Health {
        status: &'static str,
        session_count: usize,
        cpu_usage: f64,
        memory_usage: f64,
        uptime: u64,
        max_sessions: usize,
    }
    let (session_count, _) = api.registry.counts();
    let status = if api.is_stopping() || api.registry.is_draining() {
        "draining"
    } else if api.store().health().is_some() || api.registry.sync().is_some_and(ObjectSync::is_in_trouble) {
        "degraded"
    } else {
        "online"
    };
    Ok(ok(&Health {
        status,
        session_count,
        cpu_usage: api.load.cpu_percent(),
        memory_usage: api.load.memory_percent(),
        uptime: api.started.elapsed().as_secs(),
        max_sessions: api.settings.max_sessions,
    }))
}

/// `GET /ready`: 200 while new work is taken, 503 with the reason otherwise.
pub(super) fn ready(api: &Api) -> Answer {
    if api.is_stopping() {
        return Err(ApiError::unavailable("WORKER_STOPPING", "the worker is stopping", 5));
    }
    if api.registry.is_draining() {
        return Err(ApiError::unavailable("WORKER_STOPPING", "the worker gives its sessions away", 60));
    }
    if let Some(error) = api.store().health() {
        return Err(error.into());
    }
    let (sessions, connected) = api.registry.counts();
    Ok(ok(&serde_json::json!({ "ready": true, "sessionCount": sessions, "connectedCount": connected })))
}
