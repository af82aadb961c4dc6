//! What can be seen of ciphertexts without keys: whether a message key was used twice.
//!
//! A `msg` shows its ratchet key and counter, a `skmsg` its key id and iteration. The same pair with two different
//! ciphertexts means that the sender used one message key for two plaintexts: the worst thing a client can do.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hasher as _},
};

use super::DeviceRef;
use crate::whatsapp::proto::signal::{PreKeySignalMessage, SenderKeyMessage, SignalMessage};
use prost::Message as _;

/// Message keys seen from one device.
#[derive(Default)]
pub(super) struct KeyLog {
    chains: HashMap<u64, Vec<u32>>,
    order: VecDeque<u64>,
}

impl KeyLog {
    /// Notes one pairwise ciphertext (`msg` or `pkmsg`). `false`: its key was used for another ciphertext before.
    pub(super) fn note_pairwise(&mut self, kind: &str, to: DeviceRef, bytes: &[u8]) -> bool {
        let Some(body) = bytes.get(1..) else { return true };
        let inner = if kind == "pkmsg" {
            PreKeySignalMessage::decode(body).ok().and_then(|outer| outer.message)
        } else {
            Some(bytes.to_vec())
        };
        let message = inner.as_deref().and_then(|inner| {
            let end = inner.len().checked_sub(MAC_LEN)?;
            SignalMessage::decode(inner.get(1..end)?).ok()
        });
        let Some((ratchet, counter, ciphertext)) =
            message.and_then(|message| Some((message.ratchet_key?, message.counter?, message.ciphertext?)))
        else {
            return true;
        };
        self.note(digest(&(to, ratchet)), counter, &ciphertext)
    }

    /// Notes one group ciphertext.
    pub(super) fn note_group(&mut self, group: &str, bytes: &[u8]) -> bool {
        let message = bytes
            .len()
            .checked_sub(SIGNATURE_LEN)
            .and_then(|end| SenderKeyMessage::decode(bytes.get(1..end)?).ok());
        let Some((id, iteration, ciphertext)) =
            message.and_then(|message| Some((message.id?, message.iteration?, message.ciphertext?)))
        else {
            return true;
        };
        self.note(digest(&(group, id)), iteration, &ciphertext)
    }

    fn note(&mut self, chain: u64, counter: u32, ciphertext: &[u8]) -> bool {
        if counter > MAX_COUNTER {
            return true;
        }
        let seen = self.chains.entry(chain).or_insert_with(|| {
            self.order.push_back(chain);
            Vec::new()
        });
        let index = counter as usize;
        if seen.len() <= index {
            seen.resize(index + 1, 0);
        }
        // 0 stands for "not seen"; a hash that happens to be 0 is merely not remembered.
        let hash = u32::try_from(digest(&ciphertext) & u64::from(u32::MAX)).unwrap_or_default();
        let entry = &mut seen[index];
        let fresh = *entry == 0 || *entry == hash;
        *entry = hash;
        if self.chains.len() > MAX_CHAINS
            && let Some(oldest) = self.order.pop_front()
        {
            self.chains.remove(&oldest);
        }
        fresh
    }
}

fn digest(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Truncated HMAC behind a `msg`.
const MAC_LEN: usize = 8;

/// XEdDSA signature behind a `skmsg`.
const SIGNATURE_LEN: usize = 64;

/// Chains remembered per device; a chat in both directions starts a new one with each turn.
const MAX_CHAINS: usize = 8192;

/// Counters beyond this are not tracked (4 bytes each).
const MAX_COUNTER: u32 = 4_000_000;
