//! The table of outstanding IQs. Knows nothing of what they ask.

use std::{collections::VecDeque, time::Duration};

use rand_core::CryptoRngCore;

use super::IqKind;
use crate::whatsapp::limits::{IQ_TIMEOUT, QUEUE_KEPT};

/// Outstanding IQs. Every one that was added comes out exactly once, by [`PendingIqs::take`],
/// [`PendingIqs::expired`] or [`PendingIqs::take_lost`].
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct PendingIqs {
    /// `<rand>.<rand>-`, made with the first IQ; a later engine of the same session makes another.
    prefix: String,
    counter: u32,
    /// In order of deadline, because every IQ waits equally long.
    waiting: VecDeque<Waiting>,
    lost: VecDeque<IqKind>,
}

#[derive(Debug)]
struct Waiting {
    number: u32,
    deadline: Duration,
    kind: IqKind,
}

impl PendingIqs {
    /// Remembers an IQ that is about to be sent and returns its id.
    pub(in crate::whatsapp) fn add(
        &mut self,
        now: Duration,
        rng: &mut dyn CryptoRngCore,
        kind: IqKind,
    ) -> String {
        if self.prefix.is_empty() {
            let random = rng.next_u32();
            self.prefix = format!("{}.{}-", random >> 16, random & 0xffff);
        }
        self.counter = self.counter.wrapping_add(1);
        self.waiting.push_back(Waiting { number: self.counter, deadline: now + IQ_TIMEOUT, kind });
        format!("{}{}", self.prefix, self.counter)
    }

    /// Remembers an IQ that cannot be sent: its outcome is a lost connection.
    pub(in crate::whatsapp) fn add_lost(&mut self, kind: IqKind) {
        self.lost.push_back(kind);
    }

    /// The question an answer with this id belongs to.
    pub(in crate::whatsapp) fn take(&mut self, id: &str) -> Option<IqKind> {
        if self.prefix.is_empty() {
            return None;
        }
        let number: u32 = id.strip_prefix(&self.prefix)?.parse().ok()?;
        let at = self.waiting.iter().position(|waiting| waiting.number == number)?;
        let found = self.waiting.remove(at)?;
        self.shrink();
        Some(found.kind)
    }

    /// One IQ whose time is over.
    pub(in crate::whatsapp) fn expired(&mut self, now: Duration) -> Option<IqKind> {
        if self.waiting.front()?.deadline > now {
            return None;
        }
        self.waiting.pop_front().map(|waiting| waiting.kind)
    }

    /// The deadline of the oldest IQ.
    pub(in crate::whatsapp) fn next_deadline(&self) -> Option<Duration> {
        self.waiting.front().map(|waiting| waiting.deadline)
    }

    /// The connection is gone: all outstanding IQs are lost.
    pub(in crate::whatsapp) fn lose_all(&mut self) {
        self.lost.extend(self.waiting.drain(..).map(|waiting| waiting.kind));
        self.shrink();
    }

    /// All lost IQs.
    pub(in crate::whatsapp) fn take_lost(&mut self) -> VecDeque<IqKind> {
        std::mem::take(&mut self.lost)
    }

    /// Takes the first outstanding IQ of a kind, before its answer came.
    pub(in crate::whatsapp) fn take_kind(&mut self, is: impl Fn(&IqKind) -> bool) -> Option<IqKind> {
        let at = self.waiting.iter().position(|waiting| is(&waiting.kind))?;
        self.waiting.remove(at).map(|waiting| waiting.kind)
    }

    fn shrink(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > QUEUE_KEPT {
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_answer_is_matched_by_its_whole_id_and_once() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut iqs = PendingIqs::default();
        assert!(iqs.take("1").is_none());
        let first = iqs.add(Duration::ZERO, &mut rng, IqKind::Ping);
        let second = iqs.add(Duration::ZERO, &mut rng, IqKind::Props);
        assert_ne!(first, second);
        assert!(iqs.take("2").is_none(), "the prefix is part of the id");
        assert!(matches!(iqs.take(&second), Some(IqKind::Props)));
        assert!(iqs.take(&second).is_none());
        assert!(matches!(iqs.take(&first), Some(IqKind::Ping)));
        assert_eq!(iqs.next_deadline(), None);
    }

    #[test]
    fn every_iq_comes_out_once_whether_it_expires_or_is_lost() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut iqs = PendingIqs::default();
        let early = iqs.add(Duration::ZERO, &mut rng, IqKind::PreKeyCount);
        let late = iqs.add(Duration::from_secs(10), &mut rng, IqKind::Props);
        assert!(iqs.expired(IQ_TIMEOUT - Duration::from_millis(1)).is_none());
        assert!(matches!(iqs.expired(IQ_TIMEOUT), Some(IqKind::PreKeyCount)));
        assert!(iqs.expired(IQ_TIMEOUT).is_none());
        iqs.lose_all();
        iqs.add_lost(IqKind::Ping);
        assert!(matches!(iqs.take_lost().make_contiguous(), [IqKind::Props, IqKind::Ping]));
        assert!(iqs.take_lost().is_empty());
        assert!(iqs.take(&early).is_none() && iqs.take(&late).is_none());
    }
}
