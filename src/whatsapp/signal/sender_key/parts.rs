//! A sender key record taken apart and put together again, for storage in another program's format.

use zeroize::Zeroizing;

use super::{Chain, SenderKeyRecord, SenderKeyState};
use crate::whatsapp::{
    keys::{PrivateKey, PublicKey},
    signal::{
        chain::{ChainKey, SendingChain},
        limits::MAX_SENDER_KEY_STATES,
        session::parts::{Secret, receiving_chain, skipped_parts},
    },
};

/// One key of a sender.
#[derive(Clone)]
pub(crate) struct SenderKeyParts {
    /// Id of the key.
    pub(crate) key_id: u32,
    /// Public signing key.
    pub(crate) signing: PublicKey,
    /// Private signing key: only of keys of our own.
    pub(crate) private: Option<PrivateKey>,
    /// Chain key; `None` never comes from other programs.
    pub(crate) chain_key: Option<Secret>,
    /// Iteration that `chain_key` belongs to.
    pub(crate) iteration: u32,
    /// Where the distribution message began: earlier messages were not meant for us.
    pub(crate) first: u32,
    /// Iterations and seeds of messages that have not arrived.
    pub(crate) skipped: Vec<(u32, Secret)>,
}

impl SenderKeyRecord {
    /// The keys, newest first. A sending chain stands where [`SenderKeyRecord::encode_clean`] would write it.
    pub(crate) fn to_parts(&self) -> Vec<SenderKeyParts> {
        self.states.iter().map(parts).collect()
    }

    /// A record made of keys, newest first. A record whose newest key is our own has only that one; otherwise keys
    /// beyond the limit are dropped, oldest first, as are keys of our own and keys without a chain.
    pub(crate) fn from_parts(keys: Vec<SenderKeyParts>) -> Self {
        let own = keys.first().is_some_and(|key| key.private.is_some());
        let limit = if own { 1 } else { MAX_SENDER_KEY_STATES };
        let states = keys.into_iter().filter(|key| key.private.is_some() == own).filter_map(state);
        Self { states: states.take(limit).collect(), dirty: true, receives: 0 }
    }
}

fn parts(state: &SenderKeyState) -> SenderKeyParts {
    let (private, chain_key, iteration, first, skipped) = match &state.chain {
        Chain::Own { chain, signing } => {
            (Some(signing.clone()), Some(&chain.key), chain.counter, 0, Vec::new())
        }
        Chain::Theirs { chain, first } => {
            (None, chain.key.as_ref(), chain.counter, *first, skipped_parts(&chain.skipped))
        }
    };
    SenderKeyParts {
        key_id: state.key_id,
        signing: state.signing,
        private,
        chain_key: chain_key.map(|key| Zeroizing::new(key.0)),
        iteration,
        first,
        skipped,
    }
}

fn state(parts: SenderKeyParts) -> Option<SenderKeyState> {
    let chain = match parts.private {
        Some(signing) => {
            let chain = SendingChain::new(ChainKey(*parts.chain_key?), parts.iteration);
            Chain::Own { chain, signing }
        }
        None => Chain::Theirs {
            chain: receiving_chain(Some(parts.chain_key?), parts.iteration, parts.skipped),
            first: parts.first,
        },
    };
    Some(SenderKeyState { key_id: parts.key_id, signing: parts.signing, chain })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::signal::testing::rng;

    fn through(record: &SenderKeyRecord) -> SenderKeyRecord {
        let mut record = SenderKeyRecord::from_parts(record.to_parts());
        SenderKeyRecord::decode(&record.encode_clean()).unwrap()
    }

    #[test]
    fn a_group_goes_on_through_parts_on_both_sides() {
        let mut rng = rng(1);
        let (mut ours, mut theirs) = (SenderKeyRecord::create(&mut rng), SenderKeyRecord::default());
        theirs.process_distribution(&ours.distribution().unwrap()).unwrap();
        let late = ours.encrypt(b"late", &mut rng).unwrap();
        let skipped = ours.encrypt(b"skipped", &mut rng).unwrap();
        let (mut ours, mut theirs) = (through(&ours), through(&theirs));
        let next = ours.encrypt(b"next", &mut rng).unwrap();
        assert_eq!(theirs.decrypt(&next.bytes).unwrap().plaintext, b"next");
        let mut theirs = through(&theirs);
        assert_eq!(theirs.decrypt(&late.bytes).unwrap().plaintext, b"late");
        assert_eq!(through(&theirs).decrypt(&skipped.bytes).unwrap().plaintext, b"skipped");
        assert_eq!((ours.iteration(), theirs.iteration()), (3, 3));
    }

    #[test]
    fn a_record_is_either_our_own_key_or_others_keys() {
        let own = SenderKeyRecord::create(&mut rng(1)).to_parts();
        let other = SenderKeyRecord::create(&mut rng(2)).to_parts();
        let theirs = |mut key: SenderKeyParts| {
            key.private = None;
            key
        };
        let mixed = vec![own[0].clone(), other[0].clone(), theirs(other[0].clone())];
        assert_eq!(SenderKeyRecord::from_parts(mixed).to_parts().len(), 1);
        let mixed = vec![theirs(other[0].clone()), own[0].clone()];
        assert!(SenderKeyRecord::from_parts(mixed).distribution().is_err());
        let many = (0..9).map(|id| SenderKeyParts { key_id: id, ..theirs(other[0].clone()) }).collect();
        let kept = SenderKeyRecord::from_parts(many).to_parts();
        assert_eq!(kept.iter().map(|key| key.key_id).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
