//! When to try again: the pause after a failure, and the pace at which all sessions together connect.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand_core::RngCore;

/// The longest pause (protocol-facts 1.10).
const LONGEST: Duration = Duration::from_secs(900);
/// Up this long, a connection counts as good and the pauses start over.
const GOOD_AFTER: Duration = Duration::from_secs(30);
/// Steps after which the sequence is beyond [`LONGEST`].
const MAX_STEP: u32 = 16;

/// The pauses of one session: 1, 1, 2, 3, 5, … seconds, at most 900, each ±10 %.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    step: u32,
}

impl Backoff {
    /// The next pause; `extra_steps` are skipped.
    pub(super) fn next(&mut self, extra_steps: u32, rng: &mut dyn RngCore) -> Duration {
        self.step = self.step.saturating_add(extra_steps).min(MAX_STEP);
        let (mut pause, mut following) = (1u32, 1u32);
        for _ in 0..self.step {
            (pause, following) = (following, pause + following);
        }
        self.step = (self.step + 1).min(MAX_STEP);
        let pause = Duration::from_secs(pause.into()).min(LONGEST);
        pause * (900 + rng.next_u32() % 201) / 1000
    }

    /// A connection ended after it was up this long.
    pub(super) fn connection_lasted(&mut self, time: Duration) {
        if time >= GOOD_AFTER {
            self.step = 0;
        }
    }
}

/// Connections that may be dialled at the same moment.
const AT_ONCE: u32 = 64;
/// Dials started per second, over all sessions: 1,000 sessions are dialled within 20 s.
const PER_SECOND: u32 = 50;
/// Dials that may start without waiting after a quiet time.
const BURST: u32 = 10;
/// When all places are taken, look again after this.
const RETRY: Duration = Duration::from_millis(100);

/// Shared by all sessions of the process, so that a restart or an outage does not end in a stampede.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<PaceState>,
}

#[derive(Debug)]
struct PaceState {
    dialling: u32,
    /// The turn of whoever asks next; lags behind at most by [`BURST`].
    next: Duration,
}

/// The right to dial; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Pace>);

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(PaceState { dialling: 0, next: Duration::ZERO }) })
    }

    /// A permit, or how long to wait before asking again. `turn` keeps the caller's place: with it a thousand sessions
    /// that wait are woken once each, not all of them for every dial. Somebody waits for a `hurried` dial (a QR on a
    /// screen): it does not queue behind the reconnects, only the number at once holds for it.
    pub(super) fn ask(
        self: &Arc<Self>,
        now: Duration,
        turn: &mut Option<Duration>,
        hurried: bool,
    ) -> Result<Permit, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !hurried {
            let at = *turn.get_or_insert_with(|| {
                let gap = Duration::from_secs(1) / PER_SECOND;
                let at = state.next.max(now.saturating_sub(gap * BURST));
                state.next = at + gap;
                at
            });
            if at > now {
                return Err(at - now);
            }
        }
        if state.dialling >= AT_ONCE {
            return Err(RETRY);
        }
        state.dialling += 1;
        *turn = None;
        Ok(Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).dialling -= 1;
    }
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;

    fn seconds(backoff: &mut Backoff, extra: u32) -> f64 {
        backoff.next(extra, &mut OsRng).as_secs_f64()
    }

    #[test]
    fn pauses_grow_like_fibonacci_with_ten_percent_jitter_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let expected =
            [1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0, 233.0, 377.0, 610.0];
        for pause in expected.into_iter().chain([900.0; 50]) {
            let got = seconds(&mut backoff, 0);
            // A millisecond for what rounding does at the edges.
            assert!((pause * 0.9 - 0.001..=pause * 1.1 + 0.001).contains(&got), "{got} for {pause}");
        }
        backoff.connection_lasted(Duration::from_secs(29));
        assert!(seconds(&mut backoff, 0) > 800.0);
        backoff.connection_lasted(Duration::from_secs(30));
        assert!(seconds(&mut backoff, 0) < 1.2);
    }

    #[test]
    fn extra_steps_are_skipped() {
        let mut backoff = Backoff::default();
        assert!((7.2..=8.8).contains(&seconds(&mut backoff, 5)));
        assert!((11.7..=14.3).contains(&seconds(&mut backoff, 0)));
        assert!(seconds(&mut backoff, u32::MAX) >= 810.0);
    }

    #[test]
    fn a_thousand_sessions_are_dialled_smoothly_within_half_a_minute() {
        let pace = Pace::new();
        let mut waiting: Vec<(Duration, Option<Duration>)> = vec![(Duration::from_secs(100), None); 1000];
        let mut started = Vec::new();
        let mut asked = 0;
        while let Some(index) = (0..waiting.len()).min_by_key(|index| waiting[*index].0) {
            let (now, turn) = &mut waiting[index];
            asked += 1;
            match pace.ask(*now, turn, false) {
                Ok(_permit) => {
                    started.push(*now);
                    waiting.swap_remove(index);
                }
                Err(wait) => *now += wait,
            }
        }
        assert!(asked <= 2000, "{asked} wake-ups for 1000 dials");
        let span = *started.last().unwrap() - started[0];
        assert!(span <= Duration::from_secs(21), "{span:?}");
        for second in 0..20 {
            let from = Duration::from_secs(100 + second);
            let in_it =
                started.iter().filter(|at| **at >= from && **at < from + Duration::from_secs(1)).count();
            assert!(in_it <= 61, "{in_it} dials in one second");
        }
    }

    #[test]
    fn a_hurried_dial_waits_for_nothing_but_a_free_place() {
        let pace = Pace::new();
        let ask = |hurried| pace.ask(Duration::from_secs(5), &mut None, hurried);
        while ask(false).is_ok() {}
        let permits: Vec<_> = (0..64).map(|_| ask(true).unwrap()).collect();
        assert_eq!(ask(true).unwrap_err(), RETRY);
        drop(permits);
        ask(true).unwrap();
    }
}
