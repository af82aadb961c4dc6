//! One account: its thread, its connection, its lifecycle; the registry of all of them.
//!
//! Read [`registry`] and `handle` for what the rest of the program calls, [`lifecycle`] for the statuses and their
//! allowed moves, then `runner` for the loop of a session's thread, with `desk` around it (supervision, status) and
//! `pipeline` in it (durable before wire). `dial`, `connection` and `websocket` are the way to the server; `mailbox`,
//! `reply` and `board` the ways in and out of the thread; `backoff` the pauses; `meters` is what is counted. Nothing
//! here knows HTTP requests or the inside of the protocol.

mod backoff;
mod board;
mod connection;
mod custody;
mod desk;
mod dial;
mod entropy;
mod handle;
pub mod lifecycle;
mod mailbox;
mod meters;
mod pipeline;
mod reach;
pub mod registry;
mod reply;
mod report;
mod runner;
mod websocket;

pub use board::{Qr, SessionSnapshot};
pub use custody::Drained;
pub use handle::SessionHandle;
pub use lifecycle::SessionStatus;
pub(crate) use meters::Meters;
pub(crate) use reach::{Obstacle, reach};
pub use registry::{Registry, SessionError, SessionSettings};
pub use reply::PendingReply;
