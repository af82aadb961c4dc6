//! The REST face of the worker.
//!
//! [`http`] is a small synchronous HTTP server that knows nothing of WhatsApp; it serves this API and the sandbox's
//! control API. `front_door` is the part of it that faces the network.
//!
//! [`Api`] is what the server calls. Read `routes` next: one table of methods, paths, handlers and their documentation;
//! then one file per resource. Handlers know session handles and the store, never engines or sockets. `respond` has the
//! envelope and the one place that turns an error into a status.

mod auth;
mod connect;
mod drain;
mod events;
mod family;
mod fields;
mod front_door;
mod health;
pub mod http;
mod idempotency;
mod messages;
mod metrics;
mod openapi;
mod permits;
mod progress;
mod qr;
mod recipient;
mod respond;
mod routes;
mod send;
mod sessions;
mod time;
mod traffic;
mod webhooks;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    backend::Backend,
    config::{ApiAuth, Config},
    metrics::Load,
    session::{Registry, SessionHandle},
    storage::local::LocalStore,
};
use auth::Auth;
use fields::Fields;
use http::{Request, Response};
use idempotency::InFlight;
use permits::Permits;
use respond::ApiError;
use traffic::Traffic;

/// What the API needs to know of the configuration.
#[derive(Clone)]
pub struct ApiSettings {
    /// Who needs a token.
    pub auth: ApiAuth,
    /// The token.
    pub token: Option<String>,
    /// Shown by `/health`.
    pub max_sessions: usize,
    /// Same session and same send body within this time is one message. Zero: off.
    pub send_dedupe_window: Duration,
    /// The same for the `/api` family, whose backend repeats sends blindly.
    pub family_dedupe_window: Duration,
    /// Handler threads of the server in front.
    pub threads: usize,
    /// How long a connect waits for a QR or a login.
    pub connect_wait: Duration,
    /// How long a send waits for the server's ack.
    pub send_wait: Duration,
}

impl From<&Config> for ApiSettings {
    fn from(config: &Config) -> Self {
        Self {
            auth: config.api_auth,
            token: config.auth_token.clone(),
            max_sessions: config.max_sessions,
            send_dedupe_window: config.send_dedupe_window.unwrap_or(Duration::ZERO),
            family_dedupe_window: config.send_dedupe_window.unwrap_or(FAMILY_DEDUPE_WINDOW),
            threads: config.http.threads,
            connect_wait: CONNECT_WAIT,
            send_wait: SEND_WAIT,
        }
    }
}

/// The worker's API: answers requests about the sessions of one registry.
pub struct Api {
    registry: Registry,
    /// The gateway that is served, if there is one.
    backend: Option<Arc<Backend>>,
    auth: Auth,
    settings: ApiSettings,
    routes: routes::Table,
    in_flight: InFlight,
    /// Handler threads that may wait for a QR or for events at one time; sends always find others.
    waiting: Permits,
    stopping: AtomicBool,
    started: Instant,
    load: Load,
    traffic: Traffic,
}

impl Api {
    /// An API over these sessions, without a backend.
    #[must_use]
    pub fn new(registry: Registry, settings: ApiSettings) -> Arc<Self> {
        Self::with_backend(registry, settings, None)
    }

    /// An API over these sessions, and the backend they are served to.
    #[must_use]
    pub fn with_backend(
        registry: Registry,
        settings: ApiSettings,
        backend: Option<Arc<Backend>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            auth: Auth::new(settings.auth, settings.token.clone()),
            waiting: Permits::new((settings.threads / 2).max(1)),
            registry,
            backend,
            settings,
            routes: routes::Table::new(),
            in_flight: InFlight::default(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            load: Load::start(),
            traffic: Traffic::new(),
        })
    }

    /// The function to give to an HTTP server.
    #[must_use]
    pub fn handler(self: &Arc<Self>) -> http::Handler {
        let api = self.clone();
        Arc::new(move |request| api.handle(&request))
    }

    /// From now on `/ready` says no and long polls end at once.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn handle(&self, request: &Request) -> Response {
        let begun = Instant::now();
        let _in_flight = self.traffic.enter();
        let found = self.routes.find(request);
        let response = routes::answer(self, request, &found).unwrap_or_else(ApiError::into_response);
        let took = begun.elapsed();
        self.traffic.count(found.path(), response.status, took);
        log::debug!(
            session = found.session();
            "{} {} -> {} in {} us",
            request.method,
            found.path(),
            response.status,
            took.as_micros()
        );
        response
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn store(&self) -> &LocalStore {
        self.registry.store()
    }

    /// The session named in the path.
    fn session(&self, id: &str) -> Result<SessionHandle, ApiError> {
        check_id("sessionId", id)?;
        Ok(self.registry.get(id)?)
    }
}

/// Ids are `[A-Za-z0-9_-]{1,100}`: safe in paths, file names and object keys.
fn check_id(field: &str, id: &str) -> Result<(), ApiError> {
    let is_valid = (1..=100).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_valid { Ok(()) } else { Err(ApiError::field(field, "must be 1 to 100 of A-Z a-z 0-9 - _")) }
}

/// Names fields nobody knows in a header and in one log line, so that a typo is found.
fn note_unknown(response: Response, fields: &Fields, session: &str) -> Response {
    let unknown = fields.unknown();
    if unknown.is_empty() {
        return response;
    }
    let mut names = unknown.join(", ");
    names.retain(|letter| letter.is_ascii_graphic() || letter == ' ');
    names.truncate(MAX_UNKNOWN_BYTES);
    log::info!(session = session; "ignored unknown fields: {names}");
    response.with_header("X-Unknown-Fields", names)
}

/// The public backend makes three attempts in up to 93 seconds.
const FAMILY_DEDUPE_WINDOW: Duration = Duration::from_secs(100);

/// A connect answers after this time at the latest.
const CONNECT_WAIT: Duration = Duration::from_secs(20);

/// A send answers after this time at the latest.
const SEND_WAIT: Duration = Duration::from_secs(20);

/// Longest list of unknown fields told.
const MAX_UNKNOWN_BYTES: usize = 200;
