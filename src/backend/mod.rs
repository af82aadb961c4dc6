//! The link to the backend gateway that this worker serves.
//!
//! [`Backend`] is what the rest of the program holds. Behind it: `link` registers and brings sessions back, `heart`
//! beats, `outbox` delivers events. What is decided without doing anything is apart and pure: `schedule` (whose turn
//! it is, with `circuit` and `budget`), `choose` (which event), `verdict` (what an answer means) and `dialect` (what
//! is said). `client` is one HTTP exchange, `signature` what proves it.
//!
//! The event log of the local store is the queue, so a backend that is away for days costs disk and nothing else. No
//! session and no request waits for anything here. Nothing here knows the protocol or the API.
//!
//! Webhooks go out only while the backend knows this worker: before, it would refuse them, or not know whose they are.

mod budget;
mod choose;
mod circuit;
mod client;
mod dialect;
mod heart;
mod link;
mod outbox;
mod probe;
mod recovery;
mod schedule;
mod signature;
mod verdict;
mod worker;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, bounded, unbounded};
use rand_core::{OsRng, RngCore as _};

use self::{
    budget::Budget,
    client::Client,
    heart::{Beats, Heart},
    link::{Link, Membership, Task},
    outbox::{Listener, Outbox, OutboxSettings},
    schedule::Schedule,
    worker::Worker,
};
use crate::{
    config::{BackendConfig, Config, Dialect},
    http_client::AgentError,
    session::{Registry, SessionHandle},
    storage::local::{DeadLetter, ReplayFilter, SessionKey, StoreError},
};

pub(crate) use dialect::whatsam_word;
pub(crate) use probe::{Reached, probe};

/// The link. Made before the sessions start, so that it hears of everything; at work from [`Backend::start`] on.
pub struct Backend {
    config: BackendConfig,
    worker: Arc<Worker>,
    outbox: Arc<Outbox>,
    membership: Arc<Membership>,
    beats: Arc<Beats>,
    is_stopping: Arc<AtomicBool>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    /// Dropped to end the link and the heart.
    link: Option<Sender<Task>>,
    heart: Option<Sender<()>>,
    running: Vec<JoinHandle<()>>,
    senders: Vec<JoinHandle<()>>,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The outbox cannot be opened.
    #[error("the outbox cannot be opened")]
    Store(#[from] StoreError),
    /// Bad CA file.
    #[error("BACKEND_CA_FILE cannot be used: {0}")]
    Certificates(String),
    /// The operating system refused a thread.
    #[error("no thread for the backend link")]
    Thread(#[from] io::Error),
}

impl From<AgentError> for BackendError {
    fn from(error: AgentError) -> Self {
        Self::Certificates(error.to_string())
    }
}

/// What the link counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BackendStats {
    /// The backend knows this worker.
    pub(crate) is_registered: bool,
    /// All webhooks wait for the backend.
    pub(crate) is_circuit_open: bool,
    /// Events that are not delivered.
    pub(crate) waiting: u64,
    /// When the oldest of them was logged, Unix milliseconds.
    pub(crate) oldest_ms: Option<u64>,
    /// Deliveries by outcome.
    pub(crate) deliveries: [(&'static str, u64); 8],
    /// Heartbeats by outcome.
    pub(crate) heartbeats: [(&'static str, u64); 3],
}

impl Backend {
    /// Takes up the delivery of events; `None` without a backend: nothing is kept for one then.
    ///
    /// # Errors
    /// [`BackendError`] with one clear line.
    pub fn open(config: &Config, registry: &Registry) -> Result<Option<Arc<Self>>, BackendError> {
        let store = registry.store();
        let Some(backend) = config.backend.clone() else {
            store.close_outbox()?;
            return Ok(None);
        };
        let budget = (backend.dialect == Dialect::Whatsam).then(Budget::whatsam);
        let spoken = |kind: &&'static str| dialect::speaks(backend.dialect, kind);
        let wanted = backend.events.iter().copied().filter(spoken).collect();
        let schedule = Schedule::new(&wanted, budget, OsRng.next_u64());
        let settings = OutboxSettings {
            dialect: backend.dialect,
            signing: backend.signing.clone(),
            client: Client::new(&backend, WEBHOOK_TIMEOUT, SENDERS)?,
        };
        let outbox = Outbox::open(store, schedule, settings, config.worker_id.clone())?;
        Ok(Some(Arc::new(Self {
            worker: Arc::new(Worker::new(config, &backend, registry.clone())),
            config: backend,
            outbox,
            membership: Arc::default(),
            beats: Arc::default(),
            is_stopping: Arc::default(),
            threads: Mutex::default(),
        })))
    }

    /// Registers as soon as `health` answers, and delivers. `endpoint` is what the backend is told.
    ///
    /// # Errors
    /// [`BackendError::Thread`], [`BackendError::Certificates`]
    pub fn start(&self, endpoint: String, health: SocketAddr) -> Result<(), BackendError> {
        self.worker.serves_at(endpoint);
        let (to_link, tasks) = unbounded();
        let (stop_heart, heart_stopped) = bounded(0);
        let mut threads = self.threads();
        let told = Arc::new(Teller {
            link: to_link.clone(),
            registry: self.worker.registry.clone(),
            started: Instant::now(),
        });
        for number in 0..SENDERS {
            let (outbox, told) = (Arc::clone(&self.outbox), Arc::clone(&told));
            let work = move || outbox.work(&*told);
            threads.senders.push(spawn(format!("outbox-{number}"), work)?);
        }
        let link = self.link(health)?;
        threads.running.push(spawn("backend-link".to_owned(), move || link.work(&tasks))?);
        let heart = self.heart(to_link.clone())?;
        threads.running.push(spawn("backend-heart".to_owned(), move || heart.work(&heart_stopped))?);
        threads.link = Some(to_link);
        threads.heart = Some(stop_heart);
        Ok(())
    }

    fn link(&self, health: SocketAddr) -> Result<Link, BackendError> {
        Ok(Link {
            worker: Arc::clone(&self.worker),
            outbox: Arc::clone(&self.outbox),
            membership: Arc::clone(&self.membership),
            client: Client::new(&self.config, link::TIMEOUT, 1)?,
            dialect: self.config.dialect,
            health,
            is_stopping: Arc::clone(&self.is_stopping),
        })
    }

    fn heart(&self, link: Sender<Task>) -> Result<Heart, BackendError> {
        Ok(Heart {
            worker: Arc::clone(&self.worker),
            outbox: Arc::clone(&self.outbox),
            membership: Arc::clone(&self.membership),
            client: Client::new(&self.config, heart::TIMEOUT, 1)?,
            dialect: self.config.dialect,
            every: self.config.heartbeat,
            beats: Arc::clone(&self.beats),
            link,
            is_well: AtomicBool::new(true),
            heard: Mutex::new(Instant::now()),
        })
    }

    /// From now on heartbeats say that the worker is leaving.
    pub fn begin_stop(&self) {
        self.worker.begin_stop();
    }

    /// Delivers what can still be delivered, for a short time, and ends. What is left goes out after the next start.
    pub fn stop(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        self.is_stopping.store(true, Ordering::Release);
        self.outbox.flush(wait.mul_f32(0.6));
        self.outbox.stop();
        let mut threads = self.threads();
        drop((threads.link.take(), threads.heart.take()));
        let senders = std::mem::take(&mut threads.senders);
        let running = std::mem::take(&mut threads.running);
        drop(threads);
        for thread in senders.into_iter().chain(running) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(JOIN_TICK);
            }
            if thread.is_finished() && thread.join().is_err() {
                log::error!("a thread of the backend link panicked");
            }
        }
    }

    /// The answer to a start or restart of this session is on its way to the backend, which then overwrites what it
    /// knows of it: it is told again afterwards, where that is so.
    pub(crate) fn answered(&self, session: &SessionHandle) {
        if self.config.dialect == Dialect::Whatsam {
            self.outbox.tell_again_after(session.key(), AFTER_ANSWER);
        }
    }

    /// Refused events with a number above `after`, and how many there are in all.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub(crate) fn refused(
        &self,
        session: Option<SessionKey>,
        after: i64,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, u64), StoreError> {
        self.outbox.store.dead_letters(session, after, limit)
    }

    /// Sends refused events again; how many.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be made durable.
    pub(crate) fn replay(&self, filter: ReplayFilter) -> Result<usize, StoreError> {
        let (sessions, count) = self.outbox.store.replay_dead_letters(filter)?;
        self.outbox.replay(&sessions);
        Ok(count)
    }

    /// What was counted so far.
    pub(crate) fn stats(&self) -> BackendStats {
        let backlog = self.outbox.backlog();
        let (counts, beats) = (&self.outbox.counts, &self.beats);
        BackendStats {
            is_registered: self.membership.name().is_some(),
            is_circuit_open: backlog.is_circuit_open,
            waiting: backlog.events,
            oldest_ms: backlog.oldest_ms,
            deliveries: [
                ("delivered", counts.delivered.value()),
                ("refused", counts.refused.value()),
                ("failed", counts.failed.value()),
                ("slowed_down", counts.slowed_down.value()),
                ("superseded", counts.superseded.value()),
                ("unknown_session", counts.unknown_session.value()),
                ("unknown_kind", counts.unknown_kind.value()),
                ("given_up", counts.given_up.value()),
            ],
            heartbeats: [
                ("ok", beats.ok.value()),
                ("refused", beats.refused.value()),
                ("failed", beats.failed.value()),
            ],
        }
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What senders tell.
struct Teller {
    link: Sender<Task>,
    registry: Registry,
    started: Instant,
}

impl Listener for Teller {
    fn unknown_session(&self, session_id: &str) {
        // Nobody listens any more: the worker stops.
        let _ = self.link.send(Task::UnknownSession(session_id.to_owned()));
    }

    fn is_ours(&self, session: SessionKey) -> bool {
        let starting = self.started.elapsed() < STARTING;
        self.registry.sync().is_none_or(|sync| sync.speaks_for(session, starting))
    }

    fn tell_again(&self, session: SessionKey) {
        if let Some(session) = self.registry.by_key(session)
            && let Err(error) = session.tell_again()
        {
            log::debug!("a session is not told of again: {error}");
        }
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(work)
}

/// Webhooks under way at the same time.
const SENDERS: usize = 8;

/// For one webhook. A backend that takes longer may have it; it gets it again.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS and JSON need some.
const STACK_BYTES: usize = 512 << 10;

/// The backend writes down what a start answered within this time.
const AFTER_ANSWER: Duration = Duration::from_millis(1500);

/// Leases of sessions that were here before the start are renewed in this time.
const STARTING: Duration = Duration::from_secs(60);

/// Between two looks whether a thread has ended.
const JOIN_TICK: Duration = Duration::from_millis(5);
