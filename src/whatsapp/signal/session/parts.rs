//! A session record taken apart and put together again, for storage in another program's format.
//!
//! Checks sizes and order, not origin: whether the keys belong together shows when a message is decrypted.

use zeroize::Zeroizing;

use super::SessionRecord;
use crate::whatsapp::{
    keys::{KeyPair, PublicKey},
    signal::{
        chain::{ChainKey, ReceivingChain, Seed, SendingChain, SkippedKey},
        error::SignalError,
        limits::{MAX_ARCHIVED_STATES, MAX_SKIPPED_KEYS},
        state::{PendingPreKey, RootKey, SessionState},
    },
};

/// A chain key, root key or message seed.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// All sessions with one peer device.
#[derive(Clone, Default)]
pub(crate) struct SessionParts {
    /// The session messages are sent on.
    pub(crate) current: Option<StateParts>,
    /// Replaced ones, most recently used first.
    pub(crate) archived: Vec<StateParts>,
}

/// One session.
#[derive(Clone)]
pub(crate) struct StateParts {
    /// We sent the first message; `base_key` is ours.
    pub(crate) initiator: bool,
    /// The initiator's one-time key of the set-up; names the session.
    pub(crate) base_key: PublicKey,
    /// The peer's identity key.
    pub(crate) remote_identity: PublicKey,
    /// The peer's registration id.
    pub(crate) remote_registration_id: Option<u32>,
    /// Root key of the ratchet.
    pub(crate) root: Secret,
    /// The peer's newest ratchet key.
    pub(crate) remote_ratchet: PublicKey,
    /// Our ratchet pair.
    pub(crate) ratchet: KeyPair,
    /// Chain key and counter of the next message; `None`: nothing can be sent before the peer turns its ratchet.
    pub(crate) sending: Option<(Secret, u32)>,
    /// Last counter of the sending chain before this one.
    pub(crate) previous_counter: u32,
    /// Oldest first.
    pub(crate) receiving: Vec<ReceivingParts>,
    /// Prekeys of the peer that every message must name until it answers.
    pub(crate) pending: Option<PendingParts>,
}

/// One receiving chain.
#[derive(Clone)]
pub(crate) struct ReceivingParts {
    /// The peer's ratchet key.
    pub(crate) ratchet: PublicKey,
    /// `None`: closed, only the skipped keys can still be used.
    pub(crate) key: Option<Secret>,
    /// Counter that `key` belongs to.
    pub(crate) counter: u32,
    /// Counters and seeds of messages that have not arrived.
    pub(crate) skipped: Vec<(u32, Secret)>,
}

/// Which of the peer's prekeys the set-up used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingParts {
    /// One-time prekey.
    pub(crate) prekey_id: Option<u32>,
    /// Signed prekey.
    pub(crate) signed_prekey_id: u32,
}

impl SessionRecord {
    /// The parts of this record. Sending chains stand where [`SessionRecord::encode_clean`] would write them.
    pub(crate) fn to_parts(&self) -> SessionParts {
        SessionParts {
            current: self.current.as_ref().map(state_parts),
            archived: self.archived.iter().map(state_parts).collect(),
        }
    }

    /// A record made of parts. Archived sessions beyond the limit are dropped, oldest first.
    pub(crate) fn from_parts(parts: SessionParts) -> Self {
        let archived = parts.archived.into_iter().take(MAX_ARCHIVED_STATES).map(state).collect();
        Self { current: parts.current.map(state), archived, dirty: true, receives: 0 }
    }

    /// Nothing is sent on the sending chains of this record any more: they may have been used further than it knows.
    /// [`SessionRecord::encrypt`] reports [`SignalError::NoSession`] until the peer turns its ratchet or a new session
    /// is set up; receiving goes on.
    pub(crate) fn retire_sending(&mut self) {
        for state in self.current.iter_mut().chain(&mut self.archived) {
            if let Some(chain) = state.sending.take() {
                state.previous_counter = chain.counter.saturating_sub(1);
                self.dirty = true;
            }
        }
    }

    /// Takes in the sessions kept for the same device under another name, as archived ones.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`] when `other` speaks of a device with another identity key.
    pub(crate) fn absorb(&mut self, other: Self) -> Result<(), SignalError> {
        if let (Some(ours), Some(theirs)) = (self.remote_identity(), other.remote_identity())
            && ours != theirs
        {
            return Err(SignalError::DamagedRecord);
        }
        for state in other.current.into_iter().chain(other.archived) {
            if self.find(|known| known.base_key == state.base_key).is_none() {
                self.archived.push(state);
                self.dirty = true;
            }
        }
        self.archived.truncate(MAX_ARCHIVED_STATES);
        Ok(())
    }
}

fn state_parts(state: &SessionState) -> StateParts {
    StateParts {
        initiator: state.initiator,
        base_key: state.base_key,
        remote_identity: state.remote_identity,
        remote_registration_id: state.remote_registration_id,
        root: Zeroizing::new(state.root.0),
        remote_ratchet: state.remote_ratchet,
        ratchet: state.ratchet.clone(),
        sending: state.sending.as_ref().map(|chain| (Zeroizing::new(chain.key.0), chain.counter)),
        previous_counter: state.previous_counter,
        receiving: state
            .receiving
            .iter()
            .map(|(ratchet, chain)| ReceivingParts {
                ratchet: *ratchet,
                key: chain.key.as_ref().map(|key| Zeroizing::new(key.0)),
                counter: chain.counter,
                skipped: skipped_parts(&chain.skipped),
            })
            .collect(),
        pending: state.pending.map(|pending| PendingParts {
            prekey_id: pending.prekey_id,
            signed_prekey_id: pending.signed_prekey_id,
        }),
    }
}

fn state(parts: StateParts) -> SessionState {
    SessionState {
        initiator: parts.initiator,
        base_key: parts.base_key,
        remote_identity: parts.remote_identity,
        remote_registration_id: parts.remote_registration_id,
        root: RootKey(*parts.root),
        remote_ratchet: parts.remote_ratchet,
        ratchet: parts.ratchet,
        sending: parts.sending.map(|(key, counter)| SendingChain::new(ChainKey(*key), counter)),
        previous_counter: parts.previous_counter,
        receiving: parts
            .receiving
            .into_iter()
            .map(|chain| (chain.ratchet, receiving_chain(chain.key, chain.counter, chain.skipped)))
            .collect(),
        pending: parts.pending.map(|pending| PendingPreKey {
            prekey_id: pending.prekey_id,
            signed_prekey_id: pending.signed_prekey_id,
        }),
    }
}

/// Skipped keys as parts.
pub(in crate::whatsapp::signal) fn skipped_parts(skipped: &[SkippedKey]) -> Vec<(u32, Secret)> {
    skipped.iter().map(|key| (key.counter, Zeroizing::new(key.seed.0))).collect()
}

/// A chain of parts: skipped keys in order, each once, none ahead of the chain, the newest where there are too many.
pub(in crate::whatsapp::signal) fn receiving_chain(
    key: Option<Secret>,
    counter: u32,
    mut skipped: Vec<(u32, Secret)>,
) -> ReceivingChain {
    skipped.retain(|(place, _)| *place < counter);
    skipped.sort_by_key(|(place, _)| *place);
    skipped.dedup_by_key(|(place, _)| *place);
    let excess = skipped.len().saturating_sub(MAX_SKIPPED_KEYS);
    ReceivingChain {
        key: key.map(|key| ChainKey(*key)),
        counter,
        skipped: skipped
            .into_iter()
            .skip(excess)
            .map(|(counter, seed)| SkippedKey { counter, seed: Seed(*seed) })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::signal::testing::{Party, established};

    /// Through the parts and the stored form, as a takeover does it.
    fn taken_over(party: &Party, retire: bool) -> Party {
        let mut record = SessionRecord::from_parts(party.record.to_parts());
        if retire {
            record.retire_sending();
        }
        Party { record: SessionRecord::decode(&record.encode_clean()).unwrap(), ..party.clone() }
    }

    #[test]
    fn a_chat_goes_on_through_parts_with_late_messages_and_exact_counters() {
        let (mut alice, mut bob) = established();
        let mut late = Vec::new();
        for turn in 0..6u8 {
            let from_alice: Vec<_> = (0..3u8).map(|n| alice.encrypt(&[turn, n]).unwrap()).collect();
            bob = taken_over(&bob, false);
            assert_eq!(bob.decrypt(&from_alice[2]).unwrap().plaintext, [turn, 2]);
            late.push((turn, from_alice[0].clone()));
            bob = taken_over(&bob, false);
            let answer = bob.encrypt(&[turn]).unwrap();
            alice = taken_over(&alice, false);
            assert_eq!(alice.decrypt(&answer).unwrap().plaintext, [turn]);
        }
        for (turn, message) in late.split_off(2) {
            assert_eq!(bob.decrypt(&message).unwrap().plaintext, [turn, 0]);
        }
    }

    #[test]
    fn a_pending_set_up_stays_pending() {
        let (mut alice, mut bob) = (Party::new(1), Party::new(2));
        alice.start(&bob.bundle(Some(3))).unwrap();
        let first = alice.encrypt(b"1").unwrap();
        let second = taken_over(&alice, false).encrypt(b"2").unwrap();
        assert_eq!(bob.decrypt(&second).unwrap().used_prekey, Some(3));
        assert_eq!(bob.decrypt(&first).unwrap().plaintext, b"1");
    }

    #[test]
    fn a_retired_chain_is_never_sent_on_and_the_peers_next_turn_ends_that() {
        let (mut alice, mut bob) = established();
        alice.encrypt(b"lost with the disk").unwrap();
        let mut alice = taken_over(&alice, true);
        assert!(!alice.record.has_session());
        assert_eq!(alice.encrypt(b"x").unwrap_err(), SignalError::NoSession);
        // More on a chain that is known changes nothing.
        let more = bob.encrypt(b"more").unwrap();
        alice.decrypt(&more).unwrap();
        assert_eq!(alice.encrypt(b"x").unwrap_err(), SignalError::NoSession);
        // Bob reads something of Alice's old chain and turns the ratchet.
        let (mut old_alice, mut bob_turned) = established();
        bob_turned.decrypt(&old_alice.encrypt(b"y").unwrap()).unwrap();
        let turned = bob_turned.encrypt(b"turned").unwrap();
        let mut old_alice = taken_over(&old_alice, true);
        old_alice.decrypt(&turned).unwrap();
        let answer = old_alice.encrypt(b"answer").unwrap();
        assert_eq!(bob_turned.decrypt(&answer).unwrap().plaintext, b"answer");
    }

    #[test]
    fn a_late_message_of_a_retired_session_reads_but_does_not_replace_the_new_one() {
        let (alice, mut bob) = established();
        let mut alice = taken_over(&alice, true);
        alice.start(&bob.bundle(Some(9))).unwrap();
        let new = alice.record.base_key();
        let late = bob.encrypt(b"late").unwrap();
        assert_eq!(alice.decrypt(&late).unwrap().plaintext, b"late");
        assert_eq!(alice.record.base_key(), new);
        let message = alice.encrypt(b"hello").unwrap();
        assert_eq!(bob.decrypt(&message).unwrap().used_prekey, Some(9));
    }

    #[test]
    fn sessions_kept_under_another_name_are_taken_in_and_read() {
        let (mut alice, mut bob) = established();
        let mut other = Party { record: SessionRecord::default(), ..bob.clone() };
        other.start(&alice.bundle(Some(5))).unwrap();
        let on_other = other.encrypt(b"other name").unwrap();
        alice.decrypt(&on_other).unwrap();
        bob.record.absorb(other.record.clone()).unwrap();
        let answer = alice.encrypt(b"answer").unwrap();
        assert_eq!(bob.decrypt(&answer).unwrap().plaintext, b"answer");
        let stranger = established().1;
        let mut record = Party::new(7).record;
        record.absorb(stranger.record).unwrap();
        assert!(!record.has_session());
    }

    #[test]
    fn skipped_keys_are_put_in_order_once_and_never_ahead_of_the_chain() {
        let seed = |n: u8| Zeroizing::new([n; 32]);
        let skipped = vec![(5, seed(5)), (2, seed(2)), (5, seed(6)), (9, seed(9)), (u32::MAX, seed(1))];
        let chain = receiving_chain(None, 9, skipped);
        assert_eq!(chain.skipped.iter().map(|key| key.counter).collect::<Vec<_>>(), [2, 5]);
        let many = (0..2500).map(|n| (n, seed(0))).collect();
        let chain = receiving_chain(None, 2500, many);
        assert_eq!((chain.skipped.len(), chain.skipped[0].counter), (MAX_SKIPPED_KEYS, 500));
    }
}
