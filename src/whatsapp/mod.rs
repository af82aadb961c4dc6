//! The WhatsApp Web multi-device protocol, sans-IO.
//!
//! Everything here is a calculator: bytes, commands, the time and a random source come in, outputs go out.
//! No sockets, threads, files, clocks or locks; `tests/architecture.rs` reads this folder and enforces it.
//!
//! Start with [`engine`]: the state machine of one account. Below it, one folder per sub-protocol:
//! [`binary`] (stanza codec), [`noise`] (handshake and transport), [`signal`] (end-to-end encryption),
//! [`proto`] (protobuf schema), `pairing`, `iq`, `messages`, `groups`, `contacts`. [`tally`] is what it counts.

pub mod binary;
pub mod ctx;
pub mod engine;
pub mod jid;
pub mod keys;
pub mod limits;
pub mod model;
pub mod noise;
pub mod proto;
pub mod signal;
pub mod state;
pub mod tally;
pub mod testing;

mod contacts;
mod groups;
mod iq;
mod messages;
mod pairing;
pub(crate) mod rows;
mod timers;

#[cfg(test)]
pub(crate) mod vectors;
