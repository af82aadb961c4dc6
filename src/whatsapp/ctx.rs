//! What the engine is handed on every call: the time, a random source, and sight of the durable state.

use std::time::Duration;

use rand_core::CryptoRngCore;

use super::state::StateRead;

/// The time as the caller sees it. The engine never asks a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since an arbitrary, fixed start. Timers and deadlines use this one.
    pub mono: Duration,
    /// Wall clock, milliseconds since the Unix epoch. Only for timestamps and certificate validity.
    pub unix_ms: u64,
}

impl Now {
    /// Wall clock in whole seconds since the Unix epoch.
    #[must_use]
    pub fn unix_s(&self) -> u64 {
        self.unix_ms / 1000
    }
}

/// Everything an engine call may use besides its own state.
pub struct Ctx<'a> {
    /// The time of this call.
    pub now: Now,
    /// Cryptographic randomness; seeded in tests.
    pub rng: &'a mut dyn CryptoRngCore,
    /// Committed durable state of this session. The engine lays its own uncommitted writes over it.
    pub store: &'a dyn StateRead,
}
