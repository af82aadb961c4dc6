//! `whatsapp-worker`: many WhatsApp accounts in one process, driven over REST.
//!
//! The modules, in reading order:
//!
//! - [`whatsapp`]: the protocol, sans-IO. Bytes, commands, time and randomness in; outputs out.
//! - [`session`]: one account: its thread, its connection, its lifecycle; the registry of all of them.
//! - [`storage`]: what is kept, and the promise that what was acknowledged is durable.
//! - [`backend`]: the link to the gateway that is served: registration, heartbeats, the delivery of events.
//! - [`api`]: the REST face: front door, routes, one file per resource.
//! - [`cli`]: what the program does besides running a worker, for example `doctor`.
//! - [`sandbox`]: a simulated WhatsApp service with phones, for newcomers and for tests.
//!
//! The arrows point one way: `api` knows `backend`, both know `session`, all know `storage` and `whatsapp`; `whatsapp`
//! knows none of them.

pub mod api;
pub mod backend;
pub mod cli;
pub mod config;
mod http_client;
pub mod log;
mod metrics;
pub mod proxy;
mod qr;
pub mod sandbox;
pub mod session;
pub mod storage;
pub mod systemd;
pub mod whatsapp;
pub mod worker;
