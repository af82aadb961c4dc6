//! The server: front door, tiny_http behind it, and the threads that run the handler.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    lane::{HandlerLane, LaneKind},
    message::{Request, Response},
    private_dir::PrivateDir,
};
use crate::api::front_door::{Door, DoorHandle, Limits};

/// Answers one request. Runs on any of the server's threads; a panic inside becomes a 500.
pub type Handler = Arc<dyn Fn(Request) -> Response + Send + Sync>;

/// How a server listens and what it accepts. Start from [`HttpOptions::new`].
#[derive(Clone)]
pub struct HttpOptions {
    /// Names the threads, for example `api`.
    pub name: &'static str,
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Handler threads, so requests answered at the same time. Once for loopback peers and once for others,
    /// when `bind` lets others in.
    pub threads: usize,
    /// Paths that are answered even while every other thread is busy. Their handlers must not wait, and do not
    /// learn whether the peer is local.
    pub express: &'static [&'static str],
    /// Open connections in total. The one that was silent longest makes room for a new one.
    pub max_connections: usize,
    /// Open connections of one address that is not loopback.
    pub max_connections_per_address: usize,
    /// Longest request body, bytes.
    pub max_body_bytes: usize,
    /// Until a request head must be complete.
    pub head_timeout: Duration,
    /// Until a request body must be complete.
    pub body_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Until a client must have read what is buffered for it (at most 64 KiB at a time).
    pub write_timeout: Duration,
    /// Folder of this process alone, for internal sockets; a temporary one when `None`.
    pub runtime_dir: Option<PathBuf>,
    /// Runs once when the server can no longer serve. The process should end then.
    pub on_failure: Arc<dyn Fn() + Send + Sync>,
}

impl HttpOptions {
    /// The defaults for an address.
    #[must_use]
    pub fn new(name: &'static str, bind: SocketAddr) -> Self {
        Self {
            name,
            bind,
            threads: 64,
            express: &[],
            max_connections: 1024,
            max_connections_per_address: 256,
            max_body_bytes: 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(20),
            runtime_dir: None,
            on_failure: Arc::new(|| {}),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            express: self.express,
            max_connections: self.max_connections.max(1),
            max_connections_per_address: self.max_connections_per_address.max(1),
            max_body_bytes: self.max_body_bytes,
            max_buffered_bytes: self.max_body_bytes.saturating_mul(BODIES_AT_ONCE),
            head_timeout: self.head_timeout,
            body_timeout: self.body_timeout,
            idle_timeout: self.idle_timeout,
            write_timeout: self.write_timeout,
            queue_timeout: QUEUE_TIMEOUT,
            handler_timeout: HANDLER_TIMEOUT,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The private folder for internal sockets cannot be made.
    #[error("cannot make a private folder for internal sockets")]
    RuntimeDir(#[source] std::io::Error),
    /// A thread or an internal socket could not be made.
    #[error("cannot start the HTTP server")]
    Start(#[source] std::io::Error),
}

/// A running server. Dropping it stops it within about a second.
pub struct HttpServer {
    door: DoorHandle,
    lanes: Vec<HandlerLane>,
    /// Removed last: tiny_http connects to its own socket once more when it stops.
    _runtime_dir: PrivateDir,
}

impl HttpServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// [`HttpError`] when the address is taken, or sockets or threads cannot be made.
    pub fn start(options: HttpOptions, handler: Handler) -> Result<Self, HttpError> {
        let bind_error = |source| HttpError::Bind { address: options.bind, source };
        let listener = TcpListener::bind(options.bind).map_err(bind_error)?;
        let bound = listener.local_addr().map_err(bind_error)?;
        let runtime_dir =
            PrivateDir::create(options.runtime_dir.as_deref()).map_err(HttpError::RuntimeDir)?;
        let on_failure = once(options.on_failure.clone());
        let is_local = bound.ip().to_canonical().is_loopback();
        let mut kinds = vec![LaneKind::Loopback];
        kinds.extend((!is_local).then_some(LaneKind::Remote));
        kinds.push(LaneKind::Express);
        let mut lanes = Vec::new();
        for kind in kinds {
            let threads = if kind == LaneKind::Express { EXPRESS_THREADS } else { options.threads.max(1) };
            let directory = runtime_dir.path();
            let lane = HandlerLane::start(
                options.name,
                directory,
                threads,
                kind,
                handler.clone(),
                on_failure.clone(),
            )
            .map_err(HttpError::Start)?;
            lanes.push(lane);
        }
        let ways_in = lanes.iter().map(HandlerLane::way_in).collect();
        let door = Door::new(listener, ways_in, options.limits())
            .and_then(|door| door.start(options.name, move || on_failure()))
            .map_err(HttpError::Start)?;
        Ok(Self { door, lanes, _runtime_dir: runtime_dir })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Stops accepting, lets requests under way finish for at most `deadline`, then closes everything.
    pub fn stop(mut self, deadline: Duration) {
        self.halt(deadline);
    }

    fn halt(&mut self, deadline: Duration) {
        let at = Instant::now() + deadline;
        self.door.stop(at);
        for lane in &mut self.lanes {
            lane.stop(at);
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.halt(DROP_DEADLINE);
    }
}

/// Several threads may notice a failure; it is reported once.
fn once(report: Arc<dyn Fn() + Send + Sync>) -> Arc<dyn Fn() + Send + Sync> {
    let reported = AtomicBool::new(false);
    Arc::new(move || {
        if !reported.swap(true, Ordering::AcqRel) {
            report();
        }
    })
}

/// Bodies of the greatest allowed length that may be held at one time.
const BODIES_AT_ONCE: usize = 64;

/// Threads that only serve the express paths.
const EXPRESS_THREADS: usize = 2;

/// How long a complete request may wait for a free thread before 503.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);

/// Backstop above every deadline a handler has by itself (the longest is a 60 s long poll).
const HANDLER_TIMEOUT: Duration = Duration::from_secs(180);

/// What a dropped server grants requests under way.
const DROP_DEADLINE: Duration = Duration::from_millis(500);
