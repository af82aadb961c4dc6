//! The symmetric half of both ratchets: chain keys, message key seeds, and chains with their skipped keys.
//!
//! A chain gives one seed per message: `seed = HMAC(chain key, 01)`, `next chain key = HMAC(chain key, 02)`. Seeds are
//! what is kept for skipped messages, because cipher keys can be made of seeds but not the other way round, and other
//! implementations store seeds. Knows nothing of ratchet keys, sessions or message formats.
//!
//! Seen: libsignal `rust/protocol/src/ratchet/keys.rs`, `sender_keys.rs`; Baileys `Signal/Group/sender-chain-key.ts`.

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    error::SignalError,
    limits::{MAX_FORWARD_JUMP, MAX_SKIPPED_KEYS, SEND_RESERVATION},
};

/// Gives seeds, one after the other.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct ChainKey(pub(super) [u8; 32]);

impl ChainKey {
    /// The seed at this place; moves on to the next.
    pub(super) fn advance(&mut self) -> Seed {
        let mac = self.keyed();
        let seed = Seed(mac.clone().chain_update([1]).finalize().into_bytes().into());
        self.0 = mac.chain_update([2]).finalize().into_bytes().into();
        seed
    }

    fn skip(&mut self, count: u32) {
        for _ in 0..count {
            self.0 = self.keyed().chain_update([2]).finalize().into_bytes().into();
        }
    }

    fn keyed(&self) -> Hmac<Sha256> {
        <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of any length")
    }
}

/// What the keys of one message are made of.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Seed(pub(super) [u8; 32]);

impl Seed {
    /// Expands to `N` bytes of key material for `info`.
    pub(super) fn expand<const N: usize>(&self, info: &[u8]) -> [u8; N] {
        let mut out = [0u8; N];
        Hkdf::<Sha256>::new(None, &self.0).expand(info, &mut out).expect("N is far below 255 hashes");
        out
    }
}

/// A chain we send on. Counters below `reserved` may be used without writing the record first.
#[derive(Clone)]
pub(super) struct SendingChain {
    pub(super) key: ChainKey,
    /// Counter of the next message.
    pub(super) counter: u32,
    /// Durable bound: after a crash the chain continues here.
    pub(super) reserved: u32,
}

impl SendingChain {
    /// A chain nothing of which is durable yet.
    pub(super) fn new(key: ChainKey, counter: u32) -> Self {
        Self { key, counter, reserved: counter }
    }

    /// The stored chain, moved on to the counter from which on nothing was used.
    pub(super) fn restore(key: ChainKey, counter: u32, reserved: u32) -> Result<Self, SignalError> {
        let skipped = reserved.checked_sub(counter).ok_or(SignalError::DamagedRecord)?;
        // Receivers would refuse a longer jump, and a damaged number must not cost billions of steps.
        if skipped > MAX_FORWARD_JUMP {
            return Err(SignalError::DamagedRecord);
        }
        let mut chain = Self::new(key, reserved);
        chain.key.skip(skipped);
        Ok(chain)
    }

    /// Sets the bound that is about to become durable.
    pub(super) fn reserve(&mut self, clean: bool) {
        self.reserved = if clean { self.counter } else { self.counter.saturating_add(SEND_RESERVATION) };
    }

    /// Whether the next counter may be used without writing first.
    pub(super) fn is_covered(&self) -> bool {
        self.counter < self.reserved
    }

    /// The next message's counter and seed.
    pub(super) fn advance(&mut self) -> Result<(u32, Seed), SignalError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(SignalError::ChainExhausted)?;
        Ok((counter, self.key.advance()))
    }
}

/// The seed of a message that has not arrived.
#[derive(Clone)]
pub(super) struct SkippedKey {
    pub(super) counter: u32,
    pub(super) seed: Seed,
}

/// A chain we receive on.
#[derive(Clone)]
pub(super) struct ReceivingChain {
    /// `None`: closed by another implementation; only the skipped keys can still be used.
    pub(super) key: Option<ChainKey>,
    /// Counter that `key` belongs to.
    pub(super) counter: u32,
    /// In ascending order of counters.
    pub(super) skipped: Vec<SkippedKey>,
}

/// A message's seed, and what using it will change in the chain.
pub(super) struct Found {
    pub(super) seed: Seed,
    change: Change,
}

enum Change {
    UseSkipped(usize),
    MoveOn { key: ChainKey, counter: u32, skipped: Vec<SkippedKey> },
}

impl ReceivingChain {
    pub(super) fn new(key: ChainKey, counter: u32) -> Self {
        Self { key: Some(key), counter, skipped: Vec::new() }
    }

    /// The seed for `counter`; the chain does not change before [`ReceivingChain::commit`].
    pub(super) fn find(&self, counter: u32) -> Result<Found, SignalError> {
        let Some(jump) = counter.checked_sub(self.counter) else {
            return self.find_skipped(counter).ok_or(SignalError::Duplicate);
        };
        let Some(key) = &self.key else {
            return self.find_skipped(counter).ok_or(SignalError::NoSession);
        };
        if jump > MAX_FORWARD_JUMP {
            return Err(SignalError::TooFarAhead);
        }
        let after = counter.checked_add(1).ok_or(SignalError::TooFarAhead)?;
        let mut key = key.clone();
        let mut skipped = Vec::new();
        for counter in self.counter..counter {
            skipped.push(SkippedKey { counter, seed: key.advance() });
        }
        let seed = key.advance();
        Ok(Found { seed, change: Change::MoveOn { key, counter: after, skipped } })
    }

    /// The message was authentic: its key is used up.
    pub(super) fn commit(&mut self, found: Found) {
        match found.change {
            Change::UseSkipped(index) => {
                self.skipped.remove(index);
            }
            Change::MoveOn { key, counter, mut skipped } => {
                self.key = Some(key);
                self.counter = counter;
                self.skipped.append(&mut skipped);
                let excess = self.skipped.len().saturating_sub(MAX_SKIPPED_KEYS);
                self.skipped.drain(..excess);
            }
        }
    }

    fn find_skipped(&self, counter: u32) -> Option<Found> {
        let index = self.skipped.binary_search_by_key(&counter, |key| key.counter).ok()?;
        let seed = self.skipped.get(index)?.seed.clone();
        Some(Found { seed, change: Change::UseSkipped(index) })
    }
}
