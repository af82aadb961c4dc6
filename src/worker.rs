//! Start and stop of a worker, in order, and the list of its threads.
//!
//! | thread | of | blocks on | joined by | stack |
//! |---|---|---|---|---|
//! | `main` | `main.rs` | the channel of reasons to stop | – | system |
//! | `signals` | `main.rs` | SIGTERM, SIGINT | process exit | 64 KiB |
//! | `api-door` | `api::front_door` | `epoll`: every API connection | [`Worker::stop`] | 256 KiB |
//! | `api-0` … (`api-r0` … for peers that are not local, `api-x0` … for `/health`) | `api::http` | the next request; then WhatsApp's ack (20 s), a QR (20 s), an event (60 s) | [`Worker::stop`], left behind after its deadline | 512 KiB |
//! | tiny_http's own, one per thread above and one per lane | `tiny_http` | an internal Unix socket | end with the door | system |
//! | `store` | `storage::local` | its queue, the disk | the last clone of the store, dropped | system |
//! | `sync` | `storage::sync` | changes to upload; looks once a second | [`Worker::stop`] | 512 KiB |
//! | `upload-0` … | `storage::sync` | a session to upload; the object store, which has deadlines | [`Worker::stop`] | 512 KiB |
//! | `lease` | `storage::sync` | the next renewal; the object store | [`Worker::stop`] | 512 KiB |
//! | `sweep` | `storage::sync` | the next hour; the object store | [`Worker::stop`] | 512 KiB |
//! | `objects-…`, `history`, `lost`, `remove`, for moments | `storage::sync` | the object store; the end of a session | end by themselves | 512 KiB |
//! | `come-back`, at the start | `session` | sessions that cannot be had yet | ends by itself | system |
//! | `wa-<id>`, one per session that is not at rest | `session` | `poll`: its socket and its inbox; the disk through the store's answers | [`Worker::stop`] | 1 MiB virtual, few pages touched |
//! | `new-<id>`, until an account is linked and has settled in | `session` | in place of its `wa-<id>`, which waits for it | ends by itself | 1 MiB virtual |
//! | `dial-<id>`, for moments | `session` | connect, TLS and websocket handshake, each with a deadline | end by themselves | see `session::desk` |
//! | `backend-link`, `backend-heart`, only with a backend | `backend` | the backend's answers (15 s, 5 s); something to do | [`Worker::stop`], left behind after its deadline | 512 KiB |
//! | `outbox-0` … `outbox-7`, only with a backend | `backend` | an event to deliver; the backend's answer (10 s) | [`Worker::stop`], left behind after its deadline | 512 KiB |
//! | `systemd`, only under `Type=notify` | `systemd` | a pause; then the store's and the API's answer (15 s, 5 s) | ends with the process | 128 KiB |
//! | `sbx-…`, only with `--sandbox` | `sandbox` | see there | [`Sandboxed::stop`] | see there |
//!
//! Stop order: the API stops accepting and lets requests under way finish, sessions say goodbye and write exact
//! counters, events that can be delivered in a moment are, what is left is uploaded and the leases released, the store writes its queue. Each step has a deadline; their sum is [`STOP_DEADLINE`].

mod sandboxed;

use std::{
    fs::DirBuilder,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use log::{info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    api::{
        Api, ApiSettings,
        http::{HttpError, HttpOptions, HttpServer},
    },
    backend::{Backend, BackendError},
    config::{Config, ObjectsAt, default_endpoint},
    session::{Registry, SessionSettings},
    storage::{
        local::{LocalStore, StoreError},
        object::{self, Conditions, ObjectError, ObjectStore},
        sync::{ObjectSync, SyncSettings},
    },
    systemd::{Vitals, is_healthy},
};

pub use sandboxed::{Sandboxed, SandboxedError};

/// A running worker.
pub struct Worker {
    http: HttpServer,
    api: Arc<Api>,
    registry: Registry,
    backend: Option<Arc<Backend>>,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be made.
    #[error("cannot make the state directory {dir}")]
    StateDir {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The local store cannot be opened.
    #[error("cannot open the local store")]
    Store(#[from] StoreError),
    /// The object store cannot be used.
    #[error("the object store cannot be used")]
    Objects(#[from] ObjectError),
    /// The object store cannot be shared.
    #[error(
        "the object store ignores conditional writes ({how}), so two workers could own a session; use another store, \
         or set STORAGE_SINGLE_WORKER=true if no other worker ever uses it"
    )]
    Conditions {
        /// What was seen.
        how: &'static str,
    },
    /// The sessions cannot be loaded.
    #[error("cannot load the sessions: {0}")]
    Sessions(String),
    /// The link to the backend.
    #[error("the backend cannot be served")]
    Backend(#[from] BackendError),
    /// The API cannot be served.
    #[error("the API cannot be served")]
    Http(#[from] HttpError),
}

impl Worker {
    /// Opens the store, loads the sessions, serves the API, then connects the sessions that were connected.
    /// `on_failure` runs when the API cannot be served any more; the process should end then.
    ///
    /// # Errors
    /// [`StartError`] with one clear line.
    pub fn start(config: &Config, on_failure: impl Fn() + Send + Sync + 'static) -> Result<Self, StartError> {
        raise_descriptor_limit(config);
        make_state_dir(&config.state_dir)?;
        let store = LocalStore::open_with_keys(&config.state_dir, config.storage.keys.clone())?;
        let home = home(config);
        info!("whatsapp-worker {VERSION}: state in {}, objects in {home}", config.state_dir.display());
        let (objects, proven) = open_objects(config)?;
        if store.set_home(&home)? {
            info!("objects were elsewhere before: everything is uploaded to {home}");
        }
        let sync = ObjectSync::start(objects, store.clone(), sync_settings(config, proven))?;
        let registry =
            Registry::open_synced(store, session_settings(config), sync).map_err(StartError::Sessions)?;
        // Before the sessions, so that it hears of everything they say.
        let backend = Backend::open(config, &registry)?;
        let api = Api::with_backend(registry.clone(), ApiSettings::from(config), backend.clone());
        let http = HttpServer::start(http_options(config, on_failure), api.handler())?;
        if let Some(backend) = &backend {
            let listens_on = http.local_addr();
            let endpoint = config.endpoint.clone().unwrap_or_else(|| default_endpoint(listens_on));
            backend.start(endpoint, reachable(listens_on))?;
        }
        // After the API, so that a thousand reconnecting sessions do not keep `/health` waiting.
        registry.start_all();
        let sessions = registry.counts().0;
        let worker = Self { http, api, registry, backend };
        let address = worker.local_addr();
        let (id, max) = (&config.worker_id, config.max_sessions);
        info!("worker {id}, {sessions} of at most {max} sessions, listens on http://{address}");
        Ok(worker)
    }

    /// Where the API listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// What systemd is told: whether store and API answer, and how many sessions are connected.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let (store, api) = (self.registry.store().clone(), reachable(self.local_addr()));
        let registry = self.registry.clone();
        Vitals {
            is_alive: Box::new(move || store.answers_within(STORE_WAIT) && is_healthy(api)),
            status: Box::new(move || {
                let (sessions, connected) = registry.counts();
                format!("{connected} of {sessions} sessions connected")
            }),
        }
    }

    /// Stops in order. Takes at most [`STOP_DEADLINE`]; pairings are kept, and sessions that are connected now are
    /// connected again at the next start.
    pub fn stop(self) {
        let Self { http, api, registry, backend } = self;
        api.begin_stop();
        if let Some(backend) = &backend {
            backend.begin_stop();
        }
        http.stop(HTTP_DEADLINE);
        let late = registry.shutdown(SESSIONS_DEADLINE);
        if !late.is_empty() {
            warn!("{} sessions did not stop in time: {}", late.len(), late.join(", "));
        }
        if let Some(backend) = &backend {
            backend.stop(BACKEND_DEADLINE);
        }
        let kept = registry.release_all(UPLOADS_DEADLINE);
        if !kept.is_empty() {
            warn!(
                "{} sessions were not uploaded in time and keep their lease: {}",
                kept.len(),
                kept.join(", ")
            );
        }
        info!("stopped");
    }
}

/// Where objects are, in words that stay the same as long as the place does.
fn home(config: &Config) -> String {
    match &config.storage.objects {
        ObjectsAt::Directory(root) => {
            std::path::absolute(root).unwrap_or_else(|_| root.clone()).display().to_string()
        }
        ObjectsAt::S3(s3) => format!("{}/{}", s3.endpoint, s3.bucket),
    }
}

/// Opens the object store and tries it; whether it keeps conditions for certain. One that does not answer is no reason
/// not to start.
fn open_objects(config: &Config) -> Result<(Arc<dyn ObjectStore>, bool), StartError> {
    let objects = object::open(&config.storage)?;
    let begun = Instant::now();
    let mut tried = object::self_test(&*objects);
    for _ in 1..SELF_TESTS {
        if tried.as_ref().is_err_and(ObjectError::is_transient) && begun.elapsed() < Duration::from_secs(1) {
            tried = object::self_test(&*objects);
        }
    }
    match tried {
        Ok(Conditions::Enforced) => return Ok((objects, true)),
        Ok(Conditions::Ignored { how }) if config.storage.sync.shared => {
            return Err(StartError::Conditions { how });
        }
        Ok(Conditions::Ignored { how }) => {
            warn!("the object store ignores conditional writes ({how}); never share it between workers");
        }
        Err(error) if error.is_transient() => warn!("starting without the object store: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok((objects, false))
}

fn sync_settings(config: &Config, proven: bool) -> SyncSettings {
    let sync = &config.storage.sync;
    SyncSettings {
        worker_id: config.worker_id.clone(),
        shared: sync.shared,
        proven,
        single_worker: sync.single_worker,
        lease_ttl: sync.lease_ttl,
        delay: UPLOAD_DELAY,
        spacing: UPLOAD_SPACING,
        threads: UPLOAD_THREADS,
        message_days: sync.message_days,
        media_days: sync.media_days,
    }
}

fn session_settings(config: &Config) -> SessionSettings {
    SessionSettings {
        url: config.whatsapp.url.clone(),
        noise_root: config.whatsapp.noise_root,
        ca_file: config.whatsapp.ca_file.clone(),
        proxy: config.whatsapp.proxy.clone(),
        version: config.whatsapp.version,
        device_name: DEVICE_NAME.to_owned(),
        max_sessions: config.max_sessions,
    }
}

fn http_options(config: &Config, on_failure: impl Fn() + Send + Sync + 'static) -> HttpOptions {
    HttpOptions {
        threads: config.http.threads,
        express: &["/health"],
        max_connections: config.http.max_connections,
        max_connections_per_address: config.http.max_connections_per_address,
        max_body_bytes: config.http.max_body_bytes,
        runtime_dir: Some(config.state_dir.clone()),
        on_failure: Arc::new(on_failure),
        ..HttpOptions::new("api", config.bind)
    }
}

/// Two descriptors per session and three per handler thread pass the usual soft limit of 1024 early.
fn raise_descriptor_limit(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!("the limit of open files cannot be raised: {error}");
    }
    let wanted = descriptors_wanted(config);
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && usize::try_from(limit).is_ok_and(|limit| limit < wanted)
    {
        warn!("{limit} open files are allowed, up to {wanted} may be needed: raise LimitNOFILE");
    }
}

/// Open files when every session and every connection is in use.
pub(crate) fn descriptors_wanted(config: &Config) -> usize {
    2 * config.max_sessions + 6 * config.http.threads + config.http.max_connections + 64
}

/// Threads when every session is connected: one each and some that dial, and of the API one per request answered at
/// the same time and one of tiny_http's for it, on both lanes.
pub(crate) fn threads_wanted(config: &Config) -> usize {
    config.max_sessions + 4 * config.http.threads + 64
}

/// Holds keys: for this user only.
fn make_state_dir(dir: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StartError::StateDir { dir: dir.to_owned(), source })
}

/// An address that reaches the one listened on from this machine.
pub(crate) fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A disk that is slower than this for a single commit is as good as stuck.
const STORE_WAIT: Duration = Duration::from_secs(15);

/// What the phone shows under "Linked devices".
const DEVICE_NAME: &str = "WhatsApp Worker";

/// For requests under way: longer than a usual ack, shorter than the longest wait.
const HTTP_DEADLINE: Duration = Duration::from_secs(8);

/// For sessions to close and for their last writes.
const SESSIONS_DEADLINE: Duration = Duration::from_secs(10);

/// For events that can be delivered at once; the others wait for the next start.
const BACKEND_DEADLINE: Duration = Duration::from_secs(5);

/// For the last uploads and the leases.
const UPLOADS_DEADLINE: Duration = Duration::from_secs(20);

/// What a stop takes at the longest, the store's last commit aside.
pub const STOP_DEADLINE: Duration = HTTP_DEADLINE
    .saturating_add(SESSIONS_DEADLINE)
    .saturating_add(BACKEND_DEADLINE)
    .saturating_add(UPLOADS_DEADLINE);

/// Tries at the start, as long as trouble comes quickly.
const SELF_TESTS: usize = 3;

/// What a lost disk costs: changes that are younger than this, about.
const UPLOAD_DELAY: Duration = Duration::from_millis(1500);

/// A session that is always busy is uploaded this often.
const UPLOAD_SPACING: Duration = Duration::from_secs(3);

/// Sessions uploaded at the same time.
const UPLOAD_THREADS: usize = 4;
