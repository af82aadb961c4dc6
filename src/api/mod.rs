//! The REST face of the worker.
//!
//! [`http`] is a small synchronous HTTP server that knows nothing of WhatsApp; it serves the worker's API and the
//! sandbox's control API. `front_door` is the part of it that faces the network. Read them next.

mod front_door;
pub mod http;
