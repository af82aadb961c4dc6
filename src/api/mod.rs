//! The REST face of the worker.
//!
//! [`http`] is a small synchronous HTTP server that knows nothing of WhatsApp; it serves the worker's API and the
//! sandbox's control API. Read it next.

pub mod http;
