//! Is the socket alive? A ping every 25 to 35 s, of its own timer: neither other outstanding IQs nor silent chats
//! have a say. Whatever arrives after a ping proves that the path works. Seen: whatsmeow `keepalive.go` @33cfac51.

use std::time::Duration;

use super::Engine;
use crate::whatsapp::{
    ctx::Ctx,
    iq::{IqKind, iq},
    limits::{PING_INTERVAL, PING_TICK, PONG_TIMEOUT},
    timers::Timer,
};

/// The next whole [`PING_TICK`] of a clock that all sessions share: their pings come together, dozens at a time, and
/// find the processor awake and its caches warm.
fn next_tick(at: Duration) -> Duration {
    let tick = PING_TICK.as_millis();
    let ticks = at.as_millis().div_ceil(tick);
    Duration::from_millis(u64::try_from(ticks * tick).unwrap_or(u64::MAX))
}

impl Engine {
    /// The channel is open: from now on it is watched.
    pub(super) fn start_liveness(&mut self, ctx: &mut Ctx<'_>) {
        self.arm_ping(ctx);
    }

    /// Any bytes from the server: it lives.
    pub(super) fn note_received(&mut self) {
        self.timers.clear(Timer::Pong);
    }

    /// [`Timer::Ping`].
    pub(super) fn on_ping_timer(&mut self, ctx: &mut Ctx<'_>) {
        self.send_iq(ctx, iq("get", "w:p"), IqKind::Ping);
        // An unanswered ping keeps its deadline: later sends must not move it.
        if !self.timers.is_set(Timer::Pong) {
            self.arm(Timer::Pong, ctx.now.mono + PONG_TIMEOUT);
        }
        self.arm_ping(ctx);
    }

    fn arm_ping(&mut self, ctx: &mut Ctx<'_>) {
        let (shortest, longest) = PING_INTERVAL;
        let spread = f64::from(ctx.rng.next_u32()) / f64::from(u32::MAX);
        let wait: Duration = shortest + (longest - shortest).mul_f64(spread);
        self.arm(Timer::Ping, next_tick(ctx.now.mono + wait));
    }
}
