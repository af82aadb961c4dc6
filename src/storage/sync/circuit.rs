//! Spares a dead object store, and us: after failures in a row nothing is tried for a while, then one thing is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Failures in a row before the store is left alone.
const FAILURES: u32 = 3;
/// First and longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

#[derive(Default)]
pub(super) struct Circuit {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    pause: Duration,
    closed_until: Option<Instant>,
    failing_since: Option<Instant>,
    error: String,
}

impl Circuit {
    /// Whether the store is worth a try now. Of many who ask after a pause one is told yes.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut state = self.lock();
        match state.closed_until {
            None => true,
            Some(until) if now >= until => {
                state.closed_until = Some(now + state.pause);
                true
            }
            Some(_) => false,
        }
    }

    /// Whether [`Self::allows`] would say yes.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.lock().closed_until.is_none_or(|until| now >= until)
    }

    /// What is wrong, while the store is left alone.
    pub(super) fn error(&self) -> Option<String> {
        let state = self.lock();
        state.closed_until.is_some().then(|| state.error.clone())
    }

    pub(super) fn succeeded(&self) {
        let mut state = self.lock();
        if state.failures == 0 {
            return;
        }
        if state.closed_until.is_some() {
            let lasted = state.failing_since.map_or(0, |since| since.elapsed().as_secs());
            log::info!("the object store works again after {lasted} s");
        }
        *state = State::default();
    }

    pub(super) fn failed(&self, error: &dyn std::fmt::Display, now: Instant) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.error = error.to_string();
        state.failing_since.get_or_insert(now);
        if state.failures < FAILURES {
            return;
        }
        if state.closed_until.is_none() {
            log::warn!("the object store fails; work goes on here and is uploaded later: {error}");
            state.pause = PAUSES.0;
        } else {
            state.pause = (state.pause * 2).min(PAUSES.1);
        }
        state.closed_until = Some(now + state.pause);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_store_is_tried_once_per_growing_pause_and_a_success_ends_it() {
        let (circuit, start) = (Circuit::default(), Instant::now());
        for _ in 0..FAILURES {
            assert!(circuit.allows(start));
            circuit.failed(&"down", start);
        }
        assert_eq!(circuit.error().as_deref(), Some("down"));
        assert!(!circuit.allows(start));
        let later = start + PAUSES.0;
        assert!(circuit.allows(later));
        assert!(!circuit.allows(later), "only one of many tries");
        circuit.failed(&"down", later);
        assert!(!circuit.allows(later + PAUSES.0), "the pause has grown");
        assert!(circuit.allows(later + PAUSES.0 * 2));
        circuit.succeeded();
        assert!(circuit.allows(later) && circuit.error().is_none());
    }
}
