//! Whether the backend takes webhooks at the moment, and when it is asked again. Pure: time is handed in.

use std::time::Duration;

/// Failures in a row, of whatever session, after which all sessions wait together.
const FAILURES: u32 = 3;
/// First pause, doubled with each failure …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this one.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A backend that asks for more patience than this is asked earlier all the same.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    /// Webhooks go out.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// All wait; one webhook is tried at a time.
    Open {
        /// When the next one is.
        until: Duration,
        /// Failures so far.
        failures: u32,
        /// One is under way.
        is_probing: bool,
    },
}

impl Circuit {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// A webhook may go out now; `Err` says when, `None` in it: when the one under way is over.
    pub(super) fn admits(&self, now: Duration) -> Result<(), Option<Duration>> {
        match self {
            Self::Closed { .. } => Ok(()),
            Self::Open { is_probing: true, .. } => Err(None),
            Self::Open { until, .. } if *until > now => Err(Some(*until)),
            Self::Open { .. } => Ok(()),
        }
    }

    /// A webhook goes out.
    pub(super) fn begin(&mut self) {
        if let Self::Open { is_probing, .. } = self {
            *is_probing = true;
        }
    }

    /// It did not go out after all.
    pub(super) fn never_mind(&mut self) {
        if let Self::Open { is_probing, .. } = self {
            *is_probing = false;
        }
    }

    /// The backend answered. `true` when it did not before.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_open = self.is_open();
        *self = Self::Closed { failures: 0 };
        was_open
    }

    /// It did not answer, or not as it should. `true` when it did before.
    pub(super) fn failed(&mut self, now: Duration, retry_after: Option<Duration>, jitter: f64) -> bool {
        let patience = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        match *self {
            Self::Closed { failures } if failures + 1 < FAILURES && patience.is_zero() => {
                *self = Self::Closed { failures: failures + 1 };
                false
            }
            Self::Closed { failures } => {
                let failures = failures + 1;
                let until = now + pause(failures, jitter).max(patience);
                *self = Self::Open { until, failures, is_probing: false };
                true
            }
            // Of a webhook that was under way when the circuit opened.
            Self::Open { is_probing: false, .. } => false,
            Self::Open { failures, .. } => {
                let failures = failures.saturating_add(1);
                let until = now + pause(failures, jitter).max(patience);
                *self = Self::Open { until, failures, is_probing: false };
                false
            }
        }
    }

    /// Something else says that the backend is back: one webhook is tried at once.
    pub(super) fn hopeful(&mut self, now: Duration) {
        if let Self::Open { until, is_probing: false, .. } = self {
            *until = now;
        }
    }
}

/// Pause after so many failures; `jitter` from 0 to 1 spreads it from 3/4 to 5/4.
pub(super) fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_after_a_few_failures_and_lets_one_through_at_a_time() {
        let mut circuit = Circuit::Closed { failures: 0 };
        assert!(!circuit.failed(s(0), None, 0.5));
        assert!(!circuit.failed(s(0), None, 0.5));
        assert_eq!(circuit.admits(s(0)), Ok(()));
        assert!(circuit.failed(s(0), None, 0.5));
        assert_eq!(circuit.admits(s(3)), Err(Some(s(4))));
        assert_eq!(circuit.admits(s(4)), Ok(()));
        circuit.begin();
        assert_eq!(circuit.admits(s(4)), Err(None));
        assert!(!circuit.failed(s(4), None, 0.5));
        assert_eq!(circuit.admits(s(5)), Err(Some(s(12))));
        circuit.hopeful(s(5));
        assert_eq!(circuit.admits(s(5)), Ok(()));
        circuit.begin();
        assert!(circuit.succeeded());
        assert!(!circuit.succeeded());
        assert_eq!(circuit.admits(s(5)), Ok(()));
    }

    #[test]
    fn a_backend_that_says_when_to_come_back_is_believed_within_reason() {
        let mut circuit = Circuit::Closed { failures: 0 };
        assert!(circuit.failed(s(0), Some(s(40)), 0.5));
        assert_eq!(circuit.admits(s(0)), Err(Some(s(40))));
        circuit.begin();
        circuit.failed(s(40), Some(s(1_000_000)), 0.5);
        assert_eq!(circuit.admits(s(40)), Err(Some(s(3640))));
    }

    #[test]
    fn late_failures_of_webhooks_under_way_do_not_count_again() {
        let mut circuit = Circuit::Open { until: s(10), failures: 3, is_probing: false };
        assert!(!circuit.failed(s(9), None, 0.5));
        assert_eq!(circuit.admits(s(9)), Err(Some(s(10))));
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_differ() {
        let pauses = [1, 2, 3, 9, 10, 99].map(|failures| pause(failures, 0.5).as_secs());
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300]);
        assert!(pause(5, 0.0) < pause(5, 1.0));
    }
}
