//! Registration: once our own `/health` answers, for as long as it takes, and again whenever the backend forgot us.
//! Afterwards what the dialect asks for: sessions that are assigned to us are brought back, each one's status is told
//! again, and orphans are cleaned up.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rand_core::{OsRng, RngCore as _};

use super::{
    circuit::pause,
    client::{Answer, Client},
    dialect::{self, Identity, Registered},
    outbox::Outbox,
    recovery,
    worker::{REFRESH_EVERY, Worker},
};
use crate::{config::Dialect, session::SessionStatus, systemd::is_healthy};

/// The backend calls our `/health` while we wait.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks whether our own API answers.
const HEALTH_EVERY: Duration = Duration::from_millis(100);
/// Pauses between tries while the backend is away …
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// … and while it answers, and refuses what only a person can change.
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// A registration that lasts less was in vain.
const FORGOTTEN_SOON: Duration = Duration::from_secs(60);

/// By which name the backend knows this worker, if it does.
#[derive(Debug, Default)]
pub(super) struct Membership {
    name: Mutex<Option<String>>,
}

impl Membership {
    pub(super) fn name(&self) -> Option<String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn lost(&self) {
        self.won(None);
    }

    fn won(&self, name: Option<String>) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// What the link is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    /// The backend does not know us.
    Register { why: &'static str },
    /// The backend heard nothing of us for so long that it may have taken our sessions away.
    TellAll,
    /// The backend does not know this session.
    UnknownSession(String),
}

/// See the module.
pub(super) struct Link {
    pub(super) worker: Arc<Worker>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) membership: Arc<Membership>,
    pub(super) client: Client,
    pub(super) dialect: Dialect,
    pub(super) health: SocketAddr,
    pub(super) is_stopping: Arc<AtomicBool>,
}

impl Link {
    /// Works until `tasks` is disconnected.
    pub(super) fn work(&self, tasks: &Receiver<Task>) {
        while !is_healthy(self.health) {
            if self.pause(tasks, HEALTH_EVERY) {
                return;
            }
        }
        let mut in_vain = 0;
        loop {
            self.worker.refresh();
            let Some(registered) = self.register(tasks) else { return };
            let begun = Instant::now();
            if registered.has_sessions {
                recovery::recover(self, &registered.name);
            }
            self.outbox.registered(&registered.name);
            self.tell_all_again();
            if !self.serve(tasks) {
                return;
            }
            // A backend that forgets us as soon as it has us is not asked without a pause.
            in_vain = if begun.elapsed() < FORGOTTEN_SOON { in_vain + 1 } else { 0 };
            if in_vain > 1 && self.pause(tasks, pause(in_vain, jitter()).min(LONGEST_PAUSE)) {
                return;
            }
        }
    }

    /// Waits for something to do; `false` when the worker stops, `true` when it must register again.
    fn serve(&self, tasks: &Receiver<Task>) -> bool {
        loop {
            match tasks.recv_timeout(REFRESH_EVERY) {
                Ok(Task::Register { why }) => {
                    // One that was sent before the registration that is in force.
                    if self.membership.name().is_none() {
                        log::warn!("{why}: registering again");
                        return true;
                    }
                }
                Ok(Task::TellAll) => self.tell_all_again(),
                Ok(Task::UnknownSession(id)) => self.clean_up(&id),
                Err(RecvTimeoutError::Timeout) => self.worker.refresh(),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Tries until the backend has us; the name it knows us by. `None` when the worker stops first.
    fn register(&self, tasks: &Receiver<Task>) -> Option<Registered> {
        let mut failures = 0;
        let mut told = String::new();
        loop {
            let me = self.worker.identity();
            self.outbox.count_request();
            let answer = self.client.send(&dialect::register(self.dialect, &me));
            let (problem, longest, asked) = match answer {
                Ok(answer) if answer.is_success() => {
                    if let Some(registered) = dialect::registered(self.dialect, &me, &answer) {
                        let name = &registered.name;
                        log::info!("registered with the backend as {name}, reached at {}", me.endpoint);
                        self.membership.won(Some(name.clone()));
                        return Some(registered);
                    }
                    let problem =
                        "whoever answers at BACKEND_URL does not answer as the backend does".to_owned();
                    (problem, LONGEST_PAUSE, Duration::ZERO)
                }
                Ok(answer) => {
                    let longest = if answer.status < 500 { LONGEST_REFUSED_PAUSE } else { LONGEST_PAUSE };
                    (refusal(&me, &answer), longest, answer.retry_after.unwrap_or_default())
                }
                Err(error) => {
                    (format!("the backend cannot be reached: {error}"), LONGEST_PAUSE, Duration::ZERO)
                }
            };
            // Once per trouble; it may last for days.
            if problem == told {
                log::debug!("{problem}");
            } else {
                log::warn!("{problem}; trying again until it works");
                told = problem;
            }
            failures += 1;
            if self.pause(tasks, pause(failures, jitter()).min(longest).max(asked.min(LONGEST_REFUSED_PAUSE)))
            {
                return None;
            }
        }
    }

    /// Lets time pass; whether the worker stops meanwhile.
    fn pause(&self, tasks: &Receiver<Task>, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            match tasks.recv_deadline(until) {
                // We are at it.
                Ok(Task::Register { .. } | Task::TellAll) => {}
                Ok(Task::UnknownSession(id)) => self.clean_up(&id),
                Err(RecvTimeoutError::Timeout) => return self.is_stopping(),
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// The backend may have forgotten what our sessions do, or given them to nobody.
    fn tell_all_again(&self) {
        for session in self.worker.registry.list() {
            let told = self.worker.registry.get(&session.id).and_then(|session| session.tell_again());
            if let Err(error) = told {
                log::debug!(session = session.id.as_str(); "not told of again: {error}");
            }
        }
    }

    /// The backend has deleted this session. What is logged out here as well is of no use to anybody; a pairing that
    /// lives is never given up for an answer.
    fn clean_up(&self, id: &str) {
        if self.dialect != Dialect::Whatsam {
            return;
        }
        let is_orphan = self.worker.registry.get(id).is_ok_and(|session| {
            session.snapshot().status == SessionStatus::LoggedOut && session.is_unlinked()
        });
        if is_orphan {
            match self.worker.registry.delete(id) {
                Ok(_) => log::info!(session = id; "logged out, and deleted by the backend: removed here too"),
                Err(error) => log::warn!(session = id; "an orphan was not removed: {error}"),
            }
        }
    }
}

/// 0 to 1.
fn jitter() -> f64 {
    f64::from(OsRng.next_u32() >> 8) / f64::from(1u32 << 24)
}

/// What a refused registration means, for whoever runs the worker.
fn refusal(me: &Identity, answer: &Answer) -> String {
    let Identity { worker_id, endpoint, .. } = me;
    let (status, reason) = (answer.status, answer.reason());
    let advice = match status {
        401 | 403 => {
            "the token is not accepted; set WORKER_AUTH_TOKEN to the one that the backend has".to_owned()
        }
        404 => "there is no such route; look at BACKEND_URL and BACKEND_DIALECT".to_owned(),
        409 => format!(
            "another worker is registered for {endpoint}, or {worker_id} is registered with another address; give \
             this worker a WORKER_ID and a WORKER_ENDPOINT of its own, or have an administrator of the backend delete \
             the old worker"
        ),
        400 | 422 => {
            format!("it does not like what it is told (WORKER_ID {worker_id}, WORKER_ENDPOINT {endpoint})")
        }
        429 => "too many requests come from this address".to_owned(),
        503 => format!(
            "it may not reach GET {endpoint}/health; set WORKER_ENDPOINT to an address that the backend can reach \
             (name, firewall)"
        ),
        _ => "look at its log".to_owned(),
    };
    format!("the backend refuses to register this worker ({status}: {reason}): {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let me = Identity {
            worker_id: "w1".into(),
            endpoint: "http://10.0.0.1:8001".into(),
            max_sessions: 1,
            description: None,
        };
        let text = |status, body: &str| {
            refusal(&me, &Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() })
        };
        let conflict = text(409, r#"{"error":"Conflict","message":"endpoint is taken"}"#);
        assert!(
            conflict.contains("endpoint is taken") && conflict.contains("http://10.0.0.1:8001"),
            "{conflict}"
        );
        assert!(conflict.contains("WORKER_ENDPOINT") && conflict.contains("administrator"), "{conflict}");
        assert!(text(401, "").contains("WORKER_AUTH_TOKEN"));
        assert!(text(404, "").contains("BACKEND_DIALECT"));
        assert!(text(503, "").contains("http://10.0.0.1:8001/health"));
    }
}
