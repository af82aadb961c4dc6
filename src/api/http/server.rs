//! The server: tiny_http and its pool of handler threads.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::message::{Request, Response};

/// Answers one request. Runs on any of the server's threads; a panic inside becomes a 500.
pub type Handler = Arc<dyn Fn(Request) -> Response + Send + Sync>;

/// How a server listens and what it accepts.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Handler threads.
    pub threads: usize,
    /// Names the threads, for example `api`.
    pub name: &'static str,
}

impl HttpOptions {
    /// Defaults for an address.
    #[must_use]
    pub fn new(name: &'static str, bind: SocketAddr) -> Self {
        Self { bind, threads: 64, name }
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
    /// A thread or an internal socket could not be made.
    #[error("cannot start the HTTP server: {0}")]
    Start(String),
}

/// A running server. Dropping it stops it at once.
pub struct HttpServer {
    local_addr: SocketAddr,
    inner: Arc<tiny_http::Server>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// [`HttpError`] when the address is taken or threads cannot be made.
    pub fn start(options: HttpOptions, handler: Handler) -> Result<Self, HttpError> {
        let bind_error = |source| HttpError::Bind { address: options.bind, source };
        let listener = std::net::TcpListener::bind(options.bind).map_err(bind_error)?;
        let local_addr = listener.local_addr().map_err(bind_error)?;
        let inner =
            tiny_http::Server::from_listener(listener, None).map_err(|e| HttpError::Start(e.to_string()))?;
        let inner = Arc::new(inner);
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..options.threads {
            let (inner, stopping, handler) = (inner.clone(), stopping.clone(), handler.clone());
            let thread = std::thread::Builder::new()
                .name(format!("{}-{number}", options.name))
                .spawn(move || serve(&inner, &stopping, &handler))
                .map_err(|e| HttpError::Start(e.to_string()))?;
            threads.push(thread);
        }
        Ok(Self { local_addr, inner, stopping, threads })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, lets requests under way finish until `deadline` has passed, then closes everything.
    pub fn stop(mut self, _deadline: Duration) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stopping.store(true, Ordering::Release);
        for _ in &self.threads {
            self.inner.unblock();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.halt();
    }
}

fn serve(inner: &tiny_http::Server, stopping: &AtomicBool, handler: &Handler) {
    while !stopping.load(Ordering::Acquire) {
        let Ok(mut raw) = inner.recv() else { break };
        let mut body = Vec::new();
        let _ = raw.as_reader().take(1 << 20).read_to_end(&mut body);
        let (segments, query) = Request::split_target(raw.url()).unwrap_or_default();
        let request = Request {
            method: raw.method().to_string(),
            segments,
            query,
            headers: raw
                .headers()
                .iter()
                .map(|header| (header.field.to_string(), header.value.to_string()))
                .collect(),
            body,
            is_loopback: raw.remote_addr().is_some_and(|address| address.ip().is_loopback()),
        };
        let response = handler(request);
        let mut answer = tiny_http::Response::from_data(response.body).with_status_code(response.status);
        for (name, value) in response.headers {
            if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
                answer.add_header(header);
            }
        }
        let _ = raw.respond(answer);
    }
}
