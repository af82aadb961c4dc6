//! The protobuf schema, as prost structs. Knows nothing about what the messages mean.
//!
//! `whatsapp.proto` and `signal.proto` are written by hand, the two Rust files beside them are generated and never
//! edited: `REGENERATE=1 cargo test --lib proto` writes them anew, and without the variable the same test fails when
//! they do not match the schema. Names follow WhatsApp's own, as Rust writes them ([`Message`],
//! [`AdvSignedDeviceIdentity`], …). What is inside Signal ciphertexts is in [`signal`].

#[allow(clippy::all, reason = "generated")]
#[rustfmt::skip]
mod whatsapp;

#[allow(clippy::all, reason = "generated")]
#[rustfmt::skip]
pub mod signal;

pub use whatsapp::*;

#[cfg(test)]
mod tests;
