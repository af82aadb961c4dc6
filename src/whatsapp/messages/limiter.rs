//! How often somebody may make us resend, or make us ask for a resend.
//!
//! Without a limit two broken ratchets keep each other busy until the server locks the account: 36,000 resends in 66
//! hours did. Seen: whatsapp-rust PRs 871 and 924.

use std::time::Duration;

use super::cache::Cache;
use crate::whatsapp::jid::Jid;

/// Resends in a burst.
const BURST: u32 = 20;
/// One more after each of these: 10 per minute.
const REFILL: Duration = Duration::from_secs(6);
/// Peers or chats watched at once; one forgotten starts with a full budget.
const WATCHED: usize = 256;

/// A budget per peer or chat.
#[derive(Debug)]
pub(super) struct Limiter(Cache<Jid, Bucket>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    /// Up to when refills are counted in.
    at: Duration,
}

impl Default for Limiter {
    fn default() -> Self {
        Self(Cache::new(WATCHED))
    }
}

impl Limiter {
    /// Takes one from the budget; false when it is empty.
    pub(super) fn take(&mut self, who: &Jid, now: Duration) -> bool {
        let mut bucket = self.0.get(who).copied().unwrap_or(Bucket { left: BURST, at: now });
        let refills = now.saturating_sub(bucket.at).as_secs() / REFILL.as_secs();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        bucket.left = bucket.left.saturating_add(refills).min(BURST);
        bucket.at = if bucket.left == BURST { now } else { bucket.at + REFILL * refills };
        let allowed = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        self.0.insert(who.clone(), bucket);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_ten_a_minute() {
        let mut limiter = Limiter::default();
        let who = Jid::lid("1");
        let start = Duration::from_secs(100);
        assert_eq!((0..30).filter(|_| limiter.take(&who, start)).count(), 20);
        let minute: usize = (1..=60).filter(|s| limiter.take(&who, start + Duration::from_secs(*s))).count();
        assert_eq!(minute, 10);
        assert!(limiter.take(&Jid::lid("2"), start), "others have their own budget");
        let later = start + Duration::from_secs(100_000);
        assert_eq!((0..30).filter(|_| limiter.take(&who, later)).count(), 20);
    }
}
