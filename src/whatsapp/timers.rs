//! All timers of a session in one table. There is no timer thread: the session thread sleeps until the nearest one.

use std::time::Duration;

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(in crate::whatsapp) enum Timer {
    /// The Noise handshake must be finished.
    Handshake,
    /// Login must have succeeded.
    Login,
    /// Time for the next ping.
    Ping,
    /// The pong is overdue: the socket is dead.
    Pong,
    /// The current QR expires.
    Qr,
    /// The oldest pending IQ expires.
    Iq,
    /// The offline queue stalled, or its next batch is due.
    Offline,
    /// Prekeys need attention (upload retry).
    PreKeys,
    /// The signed prekey is old.
    SignedPreKey,
    /// The oldest unacknowledged message expires.
    MessageAck,
    /// Held-back receipts are due.
    Receipts,
    /// Our phone is asked for messages that did not open.
    Placeholder,
    /// Records kept in memory are written and dropped after a quiet time.
    CacheTrim,
}

const COUNT: usize = Timer::CacheTrim as usize + 1;

const ALL: [Timer; COUNT] = [
    Timer::Handshake,
    Timer::Login,
    Timer::Ping,
    Timer::Pong,
    Timer::Qr,
    Timer::Iq,
    Timer::Offline,
    Timer::PreKeys,
    Timer::SignedPreKey,
    Timer::MessageAck,
    Timer::Receipts,
    Timer::Placeholder,
    Timer::CacheTrim,
];

/// Deadlines in [`super::ctx::Now::mono`] time.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct Timers {
    deadlines: [Option<Duration>; COUNT],
}

impl Timers {
    /// Arms a timer, replacing its earlier deadline.
    pub(in crate::whatsapp) fn set(&mut self, timer: Timer, at: Duration) {
        if let Some(slot) = self.deadlines.get_mut(timer as usize) {
            *slot = Some(at);
        }
    }

    /// Disarms a timer.
    pub(in crate::whatsapp) fn clear(&mut self, timer: Timer) {
        if let Some(slot) = self.deadlines.get_mut(timer as usize) {
            *slot = None;
        }
    }

    /// Whether a timer is armed.
    pub(in crate::whatsapp) fn is_set(&self, timer: Timer) -> bool {
        self.deadlines.get(timer as usize).is_some_and(Option::is_some)
    }

    /// The nearest deadline.
    pub(in crate::whatsapp) fn next(&self) -> Option<Duration> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes one timer whose deadline has passed, earliest first.
    pub(in crate::whatsapp) fn expired(&mut self, now: Duration) -> Option<Timer> {
        let (timer, at) = ALL
            .into_iter()
            .zip(self.deadlines)
            .filter_map(|(timer, at)| Some((timer, at?)))
            .min_by_key(|(_, at)| *at)?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_expire_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Ping, Duration::from_secs(2));
        timers.set(Timer::Iq, Duration::from_secs(1));
        assert_eq!(timers.next(), Some(Duration::from_secs(1)));
        assert_eq!(timers.expired(Duration::from_secs(3)), Some(Timer::Iq));
        assert_eq!(timers.expired(Duration::from_secs(3)), Some(Timer::Ping));
        assert_eq!(timers.expired(Duration::from_secs(3)), None);
    }
}
