//! The encrypted connection to the server: frames, the Noise XX handshake, transport encryption.
//!
//! Read [`handshake`] first (our side), then [`cert`] (who the server is) and [`transport`] (what follows).
//! [`frame`] cuts the byte stream, [`payload`] builds what we say about ourselves, [`responder`] is the server side
//! for the sandbox. Knows nothing about stanzas.

pub mod cert;
pub mod frame;
pub mod handshake;
pub mod payload;
pub mod responder;
mod symmetric;
pub mod transport;

#[cfg(test)]
mod vectors;
