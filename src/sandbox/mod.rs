//! A simulated WhatsApp: the service and the phones, for newcomers (`--sandbox`) and for tests.
//!
//! It is strict: what a real server would object to is recorded as a [`violations::Violation`] and refused with the
//! real server's error. It knows nothing of our engine and can be driven by any client of the protocol.
//!
//! - [`world`]: service, phones and connections joined in memory, sans-IO; for tests on a virtual clock.
//! - [`violations`]: what clients did wrong.

pub mod violations;
pub mod world;
