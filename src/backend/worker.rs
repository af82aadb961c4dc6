//! What the link knows of this worker: who it is, how it is, which sessions it has.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::dialect::{Condition, Identity, Pulse};
use crate::{
    config::{BackendConfig, Config},
    metrics::Load,
    session::{Registry, SessionStatus},
};

/// See the module. Nothing here waits, [`Worker::refresh`] excepted.
pub(super) struct Worker {
    pub(super) registry: Registry,
    worker_id: String,
    max_sessions: usize,
    description: Option<String>,
    endpoint: OnceLock<String>,
    load: Load,
    started: Instant,
    /// How the worker was when it began to stop: what its sessions do while they close is not worth telling.
    farewell: OnceLock<Pulse>,
    /// Refreshed now and then, because asking the store may wait.
    messages: AtomicU64,
}

impl Worker {
    pub(super) fn new(config: &Config, backend: &BackendConfig, registry: Registry) -> Self {
        Self {
            registry,
            worker_id: config.worker_id.clone(),
            max_sessions: config.max_sessions,
            description: backend.description.clone(),
            endpoint: OnceLock::new(),
            load: Load::start(),
            started: Instant::now(),
            farewell: OnceLock::new(),
            messages: AtomicU64::new(0),
        }
    }

    /// Under which address the backend reaches us; only the first call counts.
    pub(super) fn serves_at(&self, endpoint: String) {
        self.endpoint.get_or_init(|| endpoint);
    }

    pub(super) fn begin_stop(&self) {
        self.farewell.get_or_init(|| Pulse { condition: Condition::Draining, ..self.measure() });
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            worker_id: self.worker_id.clone(),
            endpoint: self.endpoint.get().cloned().unwrap_or_default(),
            max_sessions: self.max_sessions,
            description: self.description.clone(),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        let has_trouble = || {
            self.registry.store().health().is_some()
                || self.registry.sync().is_some_and(crate::storage::sync::ObjectSync::is_in_trouble)
        };
        if self.farewell.get().is_some() || self.registry.is_draining() {
            Condition::Draining
        } else if has_trouble() {
            Condition::Degraded
        } else {
            Condition::Online
        }
    }

    /// Figures now, as far as they are known without asking anybody.
    pub(super) fn pulse(&self) -> Pulse {
        self.farewell.get().cloned().unwrap_or_else(|| self.measure())
    }

    fn measure(&self) -> Pulse {
        let sessions = self.registry.list();
        let connected = sessions.iter().filter(|session| session.status == SessionStatus::Connected).count();
        Pulse {
            condition: self.condition(),
            connected,
            sessions,
            cpu_percent: self.load.cpu_percent(),
            memory_percent: self.load.memory_percent(),
            uptime_s: self.started.elapsed().as_secs(),
            messages: self.messages.load(Ordering::Relaxed),
            max_sessions: self.max_sessions,
            unix_ms: unix_ms(),
        }
    }

    /// Asks the store for what [`Worker::pulse`] tells.
    pub(super) fn refresh(&self) {
        match self.registry.store().message_count() {
            Ok(count) => self.messages.store(count, Ordering::Relaxed),
            Err(error) => log::debug!("the number of messages is not known: {error}"),
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How often [`Worker::refresh`] is worth it.
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(2);
