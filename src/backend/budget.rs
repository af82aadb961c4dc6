//! How many requests a backend takes from one address, kept on our side so that it never has to refuse.
//!
//! Counted in sliding windows: whatever fixed windows the backend counts in, none of them can hold more.

use std::{collections::VecDeque, time::Duration};

/// At most so many in any stretch of this length.
#[derive(Debug)]
struct Window {
    most: usize,
    length: Duration,
    /// When each of the last ones went out.
    sent: VecDeque<Duration>,
}

impl Window {
    fn new(most: usize, length: Duration) -> Self {
        Self { most, length, sent: VecDeque::with_capacity(most) }
    }

    /// When there is room for one more.
    fn free_at(&self, now: Duration) -> Duration {
        match self.sent.len().checked_sub(self.most).and_then(|oldest| self.sent.get(oldest)) {
            Some(oldest) => (*oldest + self.length).max(now),
            None => now,
        }
    }

    fn count(&mut self, now: Duration) {
        self.sent.push_back(now);
        while self.sent.len() > self.most {
            self.sent.pop_front();
        }
    }

    fn give_back(&mut self) {
        self.sent.pop_back();
    }
}

/// The limits of one backend.
#[derive(Debug)]
pub(super) struct Budget {
    webhooks: Window,
    all: Window,
}

impl Budget {
    /// The public backend's: 60 webhooks a minute, 1000 requests of any kind in 15 minutes. The windows are a little
    /// longer, because the network moves requests closer together.
    pub(super) fn whatsam() -> Self {
        Self {
            webhooks: Window::new(60, Duration::from_secs(62)),
            all: Window::new(980, Duration::from_secs(905)),
        }
    }

    /// Takes one webhook, or says when there is room for one.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let free_at = self.webhooks.free_at(now).max(self.all.free_at(now));
        if free_at > now {
            return Err(free_at);
        }
        self.webhooks.count(now);
        self.all.count(now);
        Ok(())
    }

    /// A webhook that was taken did not go out.
    pub(super) fn give_back(&mut self) {
        self.webhooks.give_back();
        self.all.give_back();
    }

    /// A request that is no webhook; those are few and never wait.
    pub(super) fn count(&mut self, now: Duration) {
        self.all.count(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn no_minute_ever_has_more_than_sixty_webhooks() {
        let mut budget = Budget::whatsam();
        let mut sent: Vec<Duration> = Vec::new();
        let mut now = s(0);
        while now < s(3600) {
            match budget.take(now) {
                Ok(()) => sent.push(now),
                Err(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        for (at, first) in sent.iter().enumerate() {
            let in_minute = sent[at..].iter().take_while(|time| **time < *first + s(60)).count();
            assert!(in_minute <= 60, "{in_minute} from {first:?}");
            let in_quarter = sent[at..].iter().take_while(|time| **time < *first + s(900)).count();
            assert!(in_quarter <= 1000, "{in_quarter} from {first:?}");
        }
        assert!(sent.len() > 3000, "the budget is used: {}", sent.len());
    }

    #[test]
    fn heartbeats_count_and_are_never_held_up() {
        let mut budget = Budget::whatsam();
        (0..980).for_each(|_| budget.count(s(1)));
        assert_eq!(budget.take(s(2)), Err(s(906)));
        budget.count(s(3));
        assert_eq!(budget.take(s(910)), Ok(()));
    }

    #[test]
    fn what_did_not_go_out_is_given_back() {
        let mut budget = Budget::whatsam();
        for _ in 0..200 {
            budget.take(s(0)).unwrap();
            budget.give_back();
        }
    }
}
