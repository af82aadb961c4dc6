//! A simulated WhatsApp: the service and the phones, for newcomers (`--sandbox`) and for tests.
//!
//! It is strict: what a real server would object to is recorded as a [`violations::Violation`] and refused with the
//! real server's error. It knows nothing of our engine and can be driven by any client of the protocol.
//!
//! [`Sandbox`] runs it all behind real sockets on loopback, with a control API (`control`).
//!
//! - [`world`]: service, phones and connections joined in memory, sans-IO; for tests on a virtual clock.
//! - [`link`]: the server end of one connection: Noise, frames, stanza codec.
//! - [`phone`]: simulated phones with their own Signal identity.
//! - [`service`]: the server side on stanza level: accounts, devices, prekeys, groups, queues, routing.
//! - [`violations`]: what clients did wrong.

pub mod link;
pub mod phone;
pub mod service;
pub mod violations;
pub mod world;

mod control;
mod rng;
mod server;

pub use server::{Sandbox, SandboxOptions, StartError};
