//! tiny_http on a Unix socket, and the threads that run the handler for what it receives.

use std::{
    io,
    os::unix::net::UnixListener,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use log::{error, warn};

use super::{
    message::{Request, Response},
    server::Handler,
};
use crate::api::front_door::{Lane, PROBE_TARGET};

/// Whose requests a lane carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneKind {
    /// Of loopback peers.
    Loopback,
    /// Of all others.
    Remote,
    /// Of anybody, for the express paths.
    Express,
}

/// One way from the front door to the handler.
pub(super) struct HandlerLane {
    path: PathBuf,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the handler threads share.
struct Shared {
    server: tiny_http::Server,
    stopping: AtomicBool,
    is_loopback: bool,
    handler: Handler,
    on_failure: Arc<dyn Fn() + Send + Sync>,
}

impl HandlerLane {
    pub(super) fn start(
        name: &str,
        directory: &Path,
        threads: usize,
        kind: LaneKind,
        handler: Handler,
        on_failure: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let letter = match kind {
            LaneKind::Loopback => "",
            LaneKind::Remote => "r",
            LaneKind::Express => "x",
        };
        let path = directory.join(format!("lane{letter}"));
        let listener = UnixListener::bind(&path)?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let stopping = AtomicBool::new(false);
        let is_loopback = kind == LaneKind::Loopback;
        let shared = Arc::new(Shared { server, stopping, is_loopback, handler, on_failure });
        let mut lane = Self { path, shared, threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let shared = lane.shared.clone();
            let thread = thread::Builder::new()
                .name(format!("{name}-{letter}{number}"))
                .stack_size(HANDLER_STACK_BYTES)
                .spawn(move || shared.serve())?;
            lane.threads.push(thread);
        }
        Ok(lane)
    }

    /// How the front door reaches this lane.
    pub(super) fn way_in(&self) -> Lane {
        Lane { path: self.path.clone(), connections: self.threads.len() }
    }

    /// Ends the threads. One that is still in the handler at `deadline` is left behind.
    pub(super) fn stop(&mut self, deadline: Instant) {
        self.shared.stopping.store(true, Ordering::Release);
        for _ in &self.threads {
            self.shared.server.unblock();
        }
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(STOP_POLL);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn serve(&self) {
        loop {
            match self.server.recv() {
                Ok(request) => self.answer(request),
                Err(_) if self.stopping.load(Ordering::Acquire) => return,
                Err(error) => {
                    // tiny_http's listener is gone and does not come back.
                    error!("the HTTP server cannot receive requests any more: {error}");
                    (self.on_failure)();
                    return;
                }
            }
        }
    }

    fn answer(&self, mut raw: tiny_http::Request) {
        let response = if raw.url() == PROBE_TARGET {
            Response { status: 204, headers: Vec::new(), body: Vec::new() }
        } else {
            match self.read(&mut raw) {
                Ok(request) => self.handle(request),
                Err(response) => response,
            }
        };
        // The client may be gone; the front door deals with that.
        let _ = raw.respond(encode(response));
    }

    fn handle(&self, request: Request) -> Response {
        catch_unwind(AssertUnwindSafe(|| (self.handler)(request))).unwrap_or_else(|_| {
            // The panic hook has logged where.
            refusal(500, "INTERNAL_ERROR", "something went wrong inside the worker; its log has the details")
        })
    }

    fn read(&self, raw: &mut tiny_http::Request) -> Result<Request, Response> {
        let mut body = Vec::with_capacity(raw.body_length().unwrap_or(0));
        if raw.body_length().is_some_and(|length| length > 0)
            && let Err(error) = raw.as_reader().read_to_end(&mut body)
        {
            warn!("a request body could not be read: {error}");
            return Err(refusal(400, "BAD_REQUEST", "the request body could not be read"));
        }
        let Some((segments, query)) = Request::split_target(raw.url()) else {
            return Err(refusal(
                400,
                "BAD_PATH",
                "the path or query holds a broken or forbidden percent escape",
            ));
        };
        let headers = raw
            .headers()
            .iter()
            .map(|header| (header.field.as_str().as_str().to_owned(), header.value.as_str().to_owned()))
            .collect();
        let method = raw.method().as_str().to_owned();
        Ok(Request { method, segments, query, headers, body, is_loopback: self.is_loopback })
    }
}

/// The API's error envelope, for what goes wrong before the handler or in place of its answer.
fn refusal(status: u16, code: &str, message: &str) -> Response {
    Response::json(status, &serde_json::json!({ "success": false, "error": message, "code": code }))
}

fn encode(response: Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut headers = Vec::with_capacity(response.headers.len() + 1);
    headers.extend(tiny_http::Header::from_bytes("Server", "whatsapp-worker"));
    for (name, value) in response.headers {
        match tiny_http::Header::from_bytes(name, value.replace(['\r', '\n'], " ")) {
            Ok(header) => headers.push(header),
            Err(()) => warn!("header {name} of an answer is not ASCII and is left out"),
        }
    }
    let length = response.body.len();
    // The threshold keeps tiny_http from chunked coding: the front door relays by `Content-Length`.
    tiny_http::Response::new(
        response.status.into(),
        headers,
        io::Cursor::new(response.body),
        Some(length),
        None,
    )
    .with_chunked_threshold(usize::MAX)
}

/// Stack of a handler thread. Only touched pages count; JSON of depth 128 in a debug build needs about 100 KiB.
const HANDLER_STACK_BYTES: usize = 512 * 1024;

/// How often a stopping server looks whether its threads are done.
const STOP_POLL: Duration = Duration::from_millis(2);
