//! Heartbeats: a thread and connections of their own, short deadlines, behind nothing that could be slow.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{
    client::{Answer, Client},
    dialect::{self, Condition, Pulse},
    link::{Membership, Task},
    outbox::Outbox,
    worker::Worker,
};
use crate::{config::Dialect, metrics::Counter};

/// An answer that takes longer is none: the next heartbeat is due soon.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// A change of condition is told after this time at the latest.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The public backend gives up a worker after two minutes, and its sessions with it.
const LONG_SILENCE: Duration = Duration::from_secs(100);
/// Before a heartbeat is repeated because a session changed while it was under way.
const OVERTAKEN_PAUSE: Duration = Duration::from_secs(5);
/// Heartbeats of one round: each goes out without what the one before it was refused for.
const TRIES: usize = 3;

/// Heartbeats, counted.
#[derive(Debug, Default)]
pub(super) struct Beats {
    pub(super) ok: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
}

/// See the module.
pub(super) struct Heart {
    pub(super) worker: Arc<Worker>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) membership: Arc<Membership>,
    pub(super) client: Client,
    pub(super) dialect: Dialect,
    pub(super) every: Duration,
    pub(super) beats: Arc<Beats>,
    /// The link's inbox.
    pub(super) link: Sender<Task>,
    /// The last heartbeat was answered well.
    pub(super) is_well: AtomicBool,
    /// When that was.
    pub(super) heard: Mutex<Instant>,
}

impl Heart {
    /// Beats while the backend knows this worker, until `stopped` is disconnected; the last one says that it leaves.
    pub(super) fn work(&self, stopped: &Receiver<()>) {
        let mut told: Option<(String, Condition)> = None;
        let mut due = Instant::now();
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY.min(self.every)) {
            let Some(name) = self.membership.name() else {
                told = None;
                continue;
            };
            let now = (name, self.worker.condition());
            if Instant::now() < due && told.as_ref() == Some(&now) {
                continue;
            }
            let is_overtaken = self.beat(&now.0);
            due = Instant::now() + if is_overtaken { OVERTAKEN_PAUSE.min(self.every) } else { self.every };
            told = Some(now);
        }
        // A worker that leaves in a hurry says so once.
        let is_told = told.is_some_and(|(_, condition)| condition == Condition::Draining);
        if let Some(name) = self.membership.name().filter(|_| !is_told) {
            self.beat(&name);
        }
    }

    /// One heartbeat, and what its answer asks for. Whether it may have undone a status that a webhook told meanwhile:
    /// nothing keeps the order of the two.
    pub(super) fn beat(&self, name: &str) -> bool {
        let pulse = self.worker.pulse();
        self.send(name, &pulse);
        dialect::is_overtaken(self.dialect, &pulse, &self.worker.pulse())
    }

    fn send(&self, name: &str, pulse: &Pulse) {
        let mut left_out = Vec::new();
        for _ in 0..TRIES {
            let request = dialect::heartbeat(self.dialect, name, pulse, &left_out);
            self.outbox.count_request();
            let answer = match self.client.send(&request) {
                Ok(answer) => answer,
                Err(error) => return self.failed(&error.to_string()),
            };
            let refused = if answer.status == 400 {
                dialect::refused_sessions(self.dialect, &request, &answer)
            } else {
                Vec::new()
            };
            if refused.is_empty() {
                return self.answered(name, &answer);
            }
            log::warn!(
                "the backend refuses {} in a heartbeat, which goes out without: {}",
                refused.join(", "),
                answer.reason()
            );
            left_out.extend(refused);
        }
        self.beats.refused.increment();
    }

    fn answered(&self, name: &str, answer: &Answer) {
        let is_other = dialect::named_in(answer).is_some_and(|told| !dialect::is_same_worker(&told, name));
        match answer.status {
            200..=299 if is_other => {
                self.beats.refused.increment();
                self.ask_to_register("the backend knows this worker by another name");
            }
            200..=299 => {
                self.beats.ok.increment();
                let now = Instant::now();
                let before =
                    std::mem::replace(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner), now);
                if !self.is_well.swap(true, Ordering::Relaxed) {
                    log::info!("the backend answers heartbeats again");
                    self.outbox.hopeful();
                    if now.duration_since(before) > LONG_SILENCE {
                        let _ = self.link.send(Task::TellAll);
                    }
                }
            }
            404 => {
                self.beats.refused.increment();
                self.ask_to_register("the backend does not know this worker");
            }
            401 | 403 => {
                self.beats.refused.increment();
                self.ask_to_register("the backend does not take the token");
            }
            status => self.failed(&format!("{} ({status})", answer.reason())),
        }
    }

    fn failed(&self, problem: &str) {
        self.beats.failed.increment();
        if self.is_well.swap(false, Ordering::Relaxed) {
            log::warn!("a heartbeat failed: {problem}");
        }
    }

    fn ask_to_register(&self, why: &'static str) {
        self.membership.lost();
        self.outbox.unregistered();
        let _ = self.link.send(Task::Register { why });
    }
}
