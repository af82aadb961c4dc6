//! One account: its thread, its connection, its lifecycle; the registry of all of them.
//!
//! Read [`registry`] for what the rest of the program calls, then `lifecycle` for the statuses and their allowed
//! moves. Nothing here knows HTTP requests or the inside of the protocol.

mod backoff;
pub mod lifecycle;
pub mod registry;
mod websocket;

pub use lifecycle::SessionStatus;
pub use registry::{
    PendingReply, Qr, Registry, SessionError, SessionHandle, SessionSettings, SessionSnapshot,
};
