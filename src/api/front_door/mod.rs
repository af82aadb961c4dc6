//! The front door: one thread that owns every network connection of a server.
//!
//! tiny_http by itself is fragile: one failed `accept` ends its listener, half-sent requests never time out, heads
//! and threads are unbounded, and one absurd `Content-Length` aborts the process. So it never faces the network.
//! The front door accepts (and survives running out of file descriptors), caps connections in total and per
//! address, reads and checks each request ([`head`], [`body`]) against limits and deadlines, and only then hands it,
//! written anew, to tiny_http over a Unix socket of a private directory. It relays the answer without ever
//! buffering more than [`RESPONSE_HIGH_WATER`] for a slow reader.
//!
//! Requests of loopback peers and of other peers use different Unix sockets ("lanes"), so that what stands behind
//! can tell them apart without trusting a header. A third one, the express lane, keeps a few handlers free for
//! paths like `/health`, which must be answered however many requests wait for WhatsApp.
//!
//! It knows nothing of routes or sessions. TLS for the API will end here as well, when it comes: between
//! [`client`]'s socket calls and its buffers.
//!
//! Files: [`door`] the event loop, [`accept`] new connections, [`relay`] what happens on one, [`client`] one network connection, [`upstream`] one connection to tiny_http,
//! [`slots`] tokens that cannot be mistaken, [`refusal`] the answers given here.

mod accept;
mod body;
mod client;
mod door;
mod head;
mod refusal;
mod relay;
mod slots;
mod upstream;

use std::{path::PathBuf, time::Duration};

pub(in crate::api) use door::{Door, DoorHandle};
pub(in crate::api) use upstream::PROBE_TARGET;

/// What the front door accepts.
#[derive(Debug, Clone)]
pub(in crate::api) struct Limits {
    /// Paths answered at once by handlers, whose requests never queue behind others.
    pub(in crate::api) express: &'static [&'static str],
    /// Open connections in total.
    pub(in crate::api) max_connections: usize,
    /// Open connections of one remote address (one /64 in IPv6). Loopback is only bound by the total.
    pub(in crate::api) max_connections_per_address: usize,
    /// Longest request body.
    pub(in crate::api) max_body_bytes: usize,
    /// All request bodies held at one time.
    pub(in crate::api) max_buffered_bytes: usize,
    /// From the first byte of a connection or head to the end of the head.
    pub(in crate::api) head_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub(in crate::api) body_timeout: Duration,
    /// How long a connection may stay open between two requests.
    pub(in crate::api) idle_timeout: Duration,
    /// How long a client may take to read what is buffered for it.
    pub(in crate::api) write_timeout: Duration,
    /// How long a request may wait for a free handler before 503.
    pub(in crate::api) queue_timeout: Duration,
    /// How long a handler may take. A backstop: handlers have shorter deadlines of their own.
    pub(in crate::api) handler_timeout: Duration,
}

/// One way in to tiny_http.
#[derive(Debug, Clone)]
pub(in crate::api) struct Lane {
    /// Its Unix socket.
    pub(in crate::api) path: PathBuf,
    /// How many connections to keep to it: the number of its handler threads.
    pub(in crate::api) connections: usize,
}

/// Most response bytes buffered for one client; above it the answer is left in the Unix socket.
const RESPONSE_HIGH_WATER: usize = 64 * 1024;

/// Size of the one read buffer.
const SCRATCH_BYTES: usize = 64 * 1024;
