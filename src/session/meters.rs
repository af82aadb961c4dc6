//! What all sessions of a worker count together: how messages went, why connections ended, how long acks took.
//!
//! One relaxed addition per count. What an engine counted comes as a [`Tally`] after each turn of its thread.

use std::time::Duration;

use crate::{
    metrics::{Counter, Gauge, Histogram},
    whatsapp::{
        model::{DisconnectReason, Trouble},
        tally::{Counted, Tally},
    },
};

/// Why a connection, or a try to make one, was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The server restarts the stream, as after pairing.
    Restart,
    /// No connection could be made: name, route, TLS, upgrade.
    Dial,
    /// The socket broke.
    Socket,
    /// Handshake or login went wrong.
    Handshake,
    /// The server answered nothing any more.
    Silence,
    /// The server ended the stream.
    Closed,
    /// The server had trouble.
    Server,
    /// The server asked to slow down.
    RateLimited,
    /// One side could not read the other.
    Protocol,
    /// The server wants a newer client.
    Outdated,
    /// A ban for some time.
    Banned,
    /// Our own store failed.
    Store,
    /// A bug of ours.
    Panic,
    /// The account was connected elsewhere.
    Replaced,
    /// The phone unlinked the device, or the account is gone.
    LoggedOut,
    /// The server refused in a way that trying again does not mend.
    Refused,
    /// Nobody scanned.
    QrTimeout,
    /// A logout was asked for.
    Requested,
}

impl End {
    /// All of them; those from [`End::Replaced`] on are not followed by another try.
    pub(crate) const ALL: [Self; 18] = [
        Self::Restart,
        Self::Dial,
        Self::Socket,
        Self::Handshake,
        Self::Silence,
        Self::Closed,
        Self::Server,
        Self::RateLimited,
        Self::Protocol,
        Self::Outdated,
        Self::Banned,
        Self::Store,
        Self::Panic,
        Self::Replaced,
        Self::LoggedOut,
        Self::Refused,
        Self::QrTimeout,
        Self::Requested,
    ];

    /// As a label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Dial => "dial",
            Self::Socket => "socket",
            Self::Handshake => "handshake",
            Self::Silence => "silence",
            Self::Closed => "closed",
            Self::Server => "server",
            Self::RateLimited => "rate_limited",
            Self::Protocol => "protocol",
            Self::Outdated => "outdated",
            Self::Banned => "banned",
            Self::Store => "store",
            Self::Panic => "panic",
            Self::Replaced => "replaced",
            Self::LoggedOut => "logged_out",
            Self::Refused => "refused",
            Self::QrTimeout => "qr_timeout",
            Self::Requested => "requested",
        }
    }

    /// Whether nothing connects again before somebody asks for it.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Replaced | Self::LoggedOut | Self::Refused | Self::QrTimeout | Self::Requested)
    }
}

impl From<&DisconnectReason> for End {
    fn from(reason: &DisconnectReason) -> Self {
        match reason {
            DisconnectReason::RestartRequired => Self::Restart,
            DisconnectReason::Retry { trouble, .. } => match trouble {
                Trouble::Handshake => Self::Handshake,
                Trouble::Silence => Self::Silence,
                Trouble::StreamEnd => Self::Closed,
                Trouble::Server => Self::Server,
                Trouble::RateLimited => Self::RateLimited,
                Trouble::Protocol => Self::Protocol,
            },
            DisconnectReason::Replaced => Self::Replaced,
            DisconnectReason::LoggedOut { .. } => Self::LoggedOut,
            DisconnectReason::Banned { .. } => Self::Banned,
            DisconnectReason::ClientOutdated => Self::Outdated,
            DisconnectReason::Stop { .. } => Self::Refused,
            DisconnectReason::QrTimeout => Self::QrTimeout,
            DisconnectReason::Requested => Self::Requested,
        }
    }
}

/// See the module.
pub(crate) struct Meters {
    counted: [Counter; Counted::ALL.len()],
    ends: [Counter; End::ALL.len()],
    /// Logins that succeeded.
    pub(crate) logins: Counter,
    /// From the command of a message to the server's ack.
    pub(crate) send_took: Histogram,
    /// From the wire to the server's ack.
    pub(crate) ack_took: Histogram,
    /// Threads of sessions.
    pub(crate) threads: Gauge,
    /// Threads that connect.
    pub(crate) dials: Gauge,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            counted: [const { Counter::new() }; Counted::ALL.len()],
            ends: [const { Counter::new() }; End::ALL.len()],
            logins: Counter::new(),
            send_took: Histogram::new(),
            ack_took: Histogram::new(),
            threads: Gauge::new(),
            dials: Gauge::new(),
        }
    }
}

impl Meters {
    /// What an engine counted in the last turn of its thread.
    pub(super) fn add(&self, tally: &Tally) {
        for (counter, count) in self.counted.iter().zip(tally.counts()).filter(|(_, count)| **count > 0) {
            counter.add(u64::from(*count));
        }
        tally.ack_waits().iter().for_each(|wait| self.ack_took.observe(*wait));
    }

    /// A connection is over.
    pub(super) fn ended(&self, end: End) {
        if let Some(counter) = self.ends.get(end as usize) {
            counter.increment();
        }
    }

    /// A message was acknowledged so long after somebody asked for it.
    pub(super) fn sent_after(&self, took: Duration) {
        self.send_took.observe(took);
    }

    /// All that engines counted.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (Counted, u64)> {
        Counted::ALL.iter().copied().zip(self.counted.iter().map(Counter::value))
    }

    /// All ends of connections.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (End, u64)> {
        End::ALL.into_iter().zip(self.ends.iter().map(Counter::value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_place_of_its_own_and_final_ones_are_the_last() {
        let meters = Meters::default();
        for (place, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, place);
            assert_eq!(end.is_final(), place >= End::Replaced as usize, "{end:?}");
            (0..=place).for_each(|_| meters.ended(end));
        }
        let counts: Vec<u64> = meters.ends().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=18).collect::<Vec<u64>>());
    }

    #[test]
    fn what_stops_a_session_for_good_is_counted_as_final_and_nothing_else() {
        use super::super::lifecycle::{Next, next};
        let retry = |trouble| DisconnectReason::Retry { trouble, reason: String::new(), extra_steps: 0 };
        for reason in [
            DisconnectReason::RestartRequired,
            retry(Trouble::Handshake),
            retry(Trouble::Silence),
            DisconnectReason::Replaced,
            DisconnectReason::LoggedOut { reason: String::new() },
            DisconnectReason::Banned { code: 101, expires_in: Duration::from_secs(1) },
            DisconnectReason::ClientOutdated,
            DisconnectReason::Stop { reason: String::new() },
            DisconnectReason::QrTimeout,
            DisconnectReason::Requested,
        ] {
            let end = End::from(&reason);
            assert_eq!(end.is_final(), matches!(next(reason), Next::Stop { .. }), "{end:?}");
        }
    }
}
