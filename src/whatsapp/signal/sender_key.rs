//! Sender keys: one sender encrypts once for a whole group.
//!
//! The sender hands its chain out in an SKDM (through one-to-one sessions); every message moves the chain on and is
//! signed. Knows nothing of groups, of who holds a key, or of where records are kept. Records are written by the same
//! two rules as sessions: see [`session`](super::session).
//!
//! Seen: libsignal `rust/protocol/src/{group_cipher,sender_keys}.rs`; Baileys `Signal/Group/*` @7.0.0-rc14.

use std::fmt;

use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use super::{
    chain::{ChainKey, ReceivingChain, Seed, SendingChain},
    cipher, curve,
    error::SignalError,
    limits::{MAX_FORWARD_JUMP, MAX_SENDER_KEY_STATES, RECEIVES_PER_PERSIST},
    stored::{check_version, put_skipped, read_skipped},
    wire::{self, Fields, SenderKeyDistribution, SenderKeyMessage, put_bytes, put_message, put_number},
};
use crate::whatsapp::keys::{KeyPair, PrivateKey, PublicKey};

/// Result of [`SenderKeyRecord::encrypt`].
#[derive(Debug, Clone)]
pub struct GroupEncrypted {
    /// The `skmsg`.
    pub bytes: Vec<u8>,
    /// The record must be durable (`encode`) before `bytes` leave.
    pub must_persist: bool,
}

/// Result of [`SenderKeyRecord::decrypt`].
#[derive(Clone)]
pub struct GroupDecrypted {
    /// The plaintext, still padded as the sender padded it.
    pub plaintext: Vec<u8>,
    /// The record must be written (`encode`) together with what came of this message.
    pub must_persist: bool,
}

impl fmt::Debug for GroupDecrypted {
    /// Leaves the plaintext out: it must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupDecrypted").field("must_persist", &self.must_persist).finish_non_exhaustive()
    }
}

/// One sender's keys in one group. Default = nothing received yet.
#[derive(Clone, Default)]
pub struct SenderKeyRecord {
    /// Newest first. A record of our own has exactly one.
    states: Vec<SenderKeyState>,
    /// More than counters changed since the record was encoded.
    dirty: bool,
    /// Messages received since the record was encoded.
    receives: u32,
}

impl SenderKeyRecord {
    /// A fresh key of our own. To rotate, replace the record by a new one.
    pub fn create(rng: &mut dyn CryptoRngCore) -> Self {
        let mut key = ChainKey([0; 32]);
        rng.fill_bytes(&mut key.0);
        // 31 bits: some clients read the id as a signed number.
        let key_id = rng.next_u32() >> 1;
        Self::own(key_id, SendingChain::new(key, 0), KeyPair::generate(rng))
    }

    pub(super) fn own(key_id: u32, chain: SendingChain, signing: KeyPair) -> Self {
        let chain = Chain::Own { chain, signing: signing.private.clone() };
        let state = SenderKeyState { key_id, signing: signing.public, chain };
        Self { states: vec![state], dirty: true, receives: 0 }
    }

    /// The SKDM that lets others decrypt from the next message on.
    ///
    /// # Errors
    /// [`SignalError::NoSenderKey`] when this record has no key of ours.
    pub fn distribution(&self) -> Result<Vec<u8>, SignalError> {
        let Some(SenderKeyState { key_id, signing, chain: Chain::Own { chain, .. } }) = self.states.first()
        else {
            return Err(SignalError::NoSenderKey);
        };
        let mut out = Vec::with_capacity(96);
        out.push(wire::VERSION_BYTE);
        put_number(&mut out, 1, (*key_id).into());
        put_number(&mut out, 2, chain.counter.into());
        put_bytes(&mut out, 3, &chain.key.0);
        put_bytes(&mut out, 4, &signing.serialize());
        Ok(out)
    }

    /// Takes in a sender's SKDM; write the record afterwards. A key that is known already keeps its place in the
    /// chain, unless the SKDM is so far ahead that the chain could not follow.
    ///
    /// # Errors
    /// [`SignalError::InvalidMessage`] (also for a record of our own), [`SignalError::InvalidKey`].
    pub fn process_distribution(&mut self, bytes: &[u8]) -> Result<(), SignalError> {
        let skdm = SenderKeyDistribution::parse(bytes)?;
        if self.states.iter().any(SenderKeyState::is_own) {
            return Err(SignalError::InvalidMessage);
        }
        let known = self.states.iter().position(|state| state.key_id == skdm.key_id);
        // The same id with another signing key is another key; it replaces the old one.
        let state = match known.map(|index| self.states.remove(index)) {
            Some(mut state) if state.signing == skdm.signing_key => {
                state.catch_up(&skdm);
                state
            }
            _ => SenderKeyState::received(&skdm),
        };
        self.states.insert(0, state);
        self.states.truncate(MAX_SENDER_KEY_STATES);
        self.dirty = true;
        Ok(())
    }

    /// Encrypts with our own key.
    ///
    /// # Errors
    /// [`SignalError::NoSenderKey`] when this record has no key of ours, [`SignalError::ChainExhausted`].
    pub fn encrypt(
        &mut self,
        plaintext: &[u8],
        rng: &mut dyn CryptoRngCore,
    ) -> Result<GroupEncrypted, SignalError> {
        let Some(SenderKeyState { key_id, chain: Chain::Own { chain, signing }, .. }) =
            self.states.first_mut()
        else {
            return Err(SignalError::NoSenderKey);
        };
        let must_persist = self.dirty || !chain.is_covered();
        let (iteration, seed) = chain.advance()?;
        let keys = GroupKeys::derive(&seed);

        let ciphertext_len = cipher::ciphertext_len(plaintext.len());
        let mut bytes = Vec::with_capacity(ciphertext_len + SKMSG_OVERHEAD);
        bytes.push(wire::VERSION_BYTE);
        put_number(&mut bytes, 1, (*key_id).into());
        put_number(&mut bytes, 2, iteration.into());
        wire::put_header(&mut bytes, 3, ciphertext_len);
        cipher::encrypt(keys.cipher_key(), keys.iv(), plaintext, &mut bytes);
        let signature = curve::sign(signing, &bytes, rng);
        bytes.extend_from_slice(&signature);
        Ok(GroupEncrypted { bytes, must_persist })
    }

    /// Decrypts a `skmsg` of the sender.
    ///
    /// # Errors
    /// [`SignalError::NoSenderKey`] for an unknown key and for messages sent before its SKDM,
    /// [`SignalError::InvalidMessage`], [`SignalError::BadSignature`], [`SignalError::Duplicate`],
    /// [`SignalError::TooFarAhead`]; the record is unchanged then.
    pub fn decrypt(&mut self, bytes: &[u8]) -> Result<GroupDecrypted, SignalError> {
        let message = SenderKeyMessage::parse(bytes)?;
        let state = self
            .states
            .iter_mut()
            .find(|state| state.key_id == message.key_id)
            .ok_or(SignalError::NoSenderKey)?;
        if !curve::verify(&state.signing, message.signed, message.signature) {
            return Err(SignalError::BadSignature);
        }
        let Chain::Theirs { chain, first } = &mut state.chain else {
            return Err(SignalError::NoSenderKey);
        };
        let found = chain.find(message.iteration).map_err(|error| match error {
            // Never ours to read, so not read before either.
            SignalError::Duplicate if message.iteration < *first => SignalError::NoSenderKey,
            other => other,
        })?;
        let keys = GroupKeys::derive(&found.seed);
        let plaintext = cipher::decrypt(keys.cipher_key(), keys.iv(), message.ciphertext)?;
        chain.commit(found);
        self.receives = self.receives.saturating_add(1);
        Ok(GroupDecrypted { plaintext, must_persist: self.dirty || self.receives >= RECEIVES_PER_PERSIST })
    }

    /// Position of the newest key's chain: how many messages it has given.
    #[must_use]
    pub fn iteration(&self) -> u32 {
        self.states.first().map_or(0, |state| match &state.chain {
            Chain::Own { chain, .. } => chain.counter,
            Chain::Theirs { chain, .. } => chain.counter,
        })
    }

    /// Id of the newest key.
    #[must_use]
    pub fn key_id(&self) -> Option<u32> {
        self.states.first().map(|state| state.key_id)
    }

    /// The stored form, with the next 64 sending counters reserved.
    #[must_use]
    pub fn encode(&mut self) -> Vec<u8> {
        self.write(false)
    }

    /// The stored form for a clean stop: nothing is skipped when it is read again.
    #[must_use]
    pub fn encode_clean(&mut self) -> Vec<u8> {
        self.write(true)
    }

    /// Reads the stored form; skips the sending counters that were reserved.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        check_version(bytes, VERSION)?;
        let read = |bytes| -> Result<Vec<SenderKeyState>, SignalError> {
            let mut states = Vec::new();
            for field in Fields(bytes) {
                if let (2, value) = field? {
                    states.push(read_state(value.bytes()?)?);
                }
            }
            Ok(states)
        };
        let states = read(bytes).map_err(|_| SignalError::DamagedRecord)?;
        Ok(Self { states, dirty: false, receives: 0 })
    }

    /// Record: version 1, states 2 (newest first).
    fn write(&mut self, clean: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 * self.states.len() + 8);
        put_number(&mut out, 1, VERSION.into());
        for state in &mut self.states {
            if let Chain::Own { chain, .. } = &mut state.chain {
                chain.reserve(clean);
            }
            put_message(&mut out, 2, |out| put_state(out, state));
        }
        self.dirty = false;
        self.receives = 0;
        out
    }
}

/// One key.
#[derive(Clone)]
struct SenderKeyState {
    key_id: u32,
    signing: PublicKey,
    chain: Chain,
}

#[derive(Clone)]
enum Chain {
    Own {
        chain: SendingChain,
        signing: PrivateKey,
    },
    Theirs {
        chain: ReceivingChain,
        /// Where the SKDM began: earlier messages were not meant for us.
        first: u32,
    },
}

impl SenderKeyState {
    fn received(skdm: &SenderKeyDistribution<'_>) -> Self {
        Self {
            key_id: skdm.key_id,
            signing: skdm.signing_key,
            chain: Chain::Theirs {
                chain: ReceivingChain::new(ChainKey(*skdm.chain_key), skdm.iteration),
                first: skdm.iteration,
            },
        }
    }

    fn is_own(&self) -> bool {
        matches!(self.chain, Chain::Own { .. })
    }

    /// Jumps to the SKDM's place when the chain cannot reach it step by step.
    fn catch_up(&mut self, skdm: &SenderKeyDistribution<'_>) {
        if let Chain::Theirs { chain, first } = &mut self.chain
            && skdm.iteration.saturating_sub(chain.counter) > MAX_FORWARD_JUMP
        {
            chain.key = Some(ChainKey(*skdm.chain_key));
            chain.counter = skdm.iteration;
            *first = skdm.iteration;
        }
    }
}

/// IV (16) and cipher key (32) of one message.
struct GroupKeys(Zeroizing<[u8; 48]>);

impl GroupKeys {
    fn derive(seed: &Seed) -> Self {
        Self(Zeroizing::new(seed.expand(b"WhisperGroup")))
    }

    fn iv(&self) -> &[u8; 16] {
        self.0.first_chunk().expect("48 bytes hold 16")
    }

    fn cipher_key(&self) -> &[u8; 32] {
        self.0.last_chunk().expect("48 bytes hold 32")
    }
}

/// State: key id 1, signing public 2, chain key 3, counter 4; own: signing private 5, reserved 6;
/// theirs: first 7, skipped keys 8.
fn put_state(out: &mut Vec<u8>, state: &SenderKeyState) {
    put_number(out, 1, state.key_id.into());
    put_bytes(out, 2, &state.signing.0);
    match &state.chain {
        Chain::Own { chain, signing } => {
            put_bytes(out, 3, &chain.key.0);
            put_number(out, 4, chain.counter.into());
            put_bytes(out, 5, &signing.0);
            put_number(out, 6, chain.reserved.into());
        }
        Chain::Theirs { chain, first } => {
            if let Some(key) = &chain.key {
                put_bytes(out, 3, &key.0);
            }
            put_number(out, 4, chain.counter.into());
            put_number(out, 7, (*first).into());
            put_skipped(out, 8, &chain.skipped);
        }
    }
}

fn read_state(bytes: &[u8]) -> Result<SenderKeyState, SignalError> {
    let (mut key_id, mut public, mut key, mut counter) = (None, None, None, 0);
    let (mut private, mut reserved, mut first, mut skipped) = (None, 0, 0, Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, value) => key_id = Some(value.number()?),
            (2, value) => public = Some(PublicKey(*value.array()?)),
            (3, value) => key = Some(ChainKey(*value.array()?)),
            (4, value) => counter = value.number()?,
            (5, value) => private = Some(PrivateKey(*value.array()?)),
            (6, value) => reserved = value.number()?,
            (7, value) => first = value.number()?,
            (8, value) => skipped = read_skipped(value)?,
            _ => {}
        }
    }
    let missing = SignalError::DamagedRecord;
    let chain = match private {
        Some(signing) => {
            let chain = SendingChain::restore(key.ok_or(missing)?, counter, reserved)?;
            Chain::Own { chain, signing }
        }
        None => Chain::Theirs { chain: ReceivingChain { key, counter, skipped }, first },
    };
    Ok(SenderKeyState { key_id: key_id.ok_or(missing)?, signing: public.ok_or(missing)?, chain })
}

/// Format this program writes.
const VERSION: u32 = 1;

/// Room for everything of a `skmsg` but its ciphertext.
const SKMSG_OVERHEAD: usize = 96;

pub(crate) mod parts;
#[cfg(test)]
mod tests;
