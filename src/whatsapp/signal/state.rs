//! One session: the double ratchet between us and one peer device.
//!
//! Turns plaintext into `msg`/`pkmsg` and back. Knows nothing of the sessions next to it, of prekey lookup, or of when
//! it is written to disk. Nothing changes before MAC and padding of a message were found right.
//!
//! Spec: Signal "The Double Ratchet Algorithm" §3. Seen: libsignal 6.0.0 (npm) `src/session_cipher.js`.

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand_core::CryptoRngCore;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    chain::{ChainKey, ReceivingChain, Seed, SendingChain},
    cipher,
    error::SignalError,
    limits::MAX_RECEIVER_CHAINS,
    session::{CiphertextKind, LocalIdentity},
    wire::{self, SignalMessage},
};
use crate::whatsapp::keys::{KeyPair, PrivateKey, PublicKey};

/// The state of one session.
#[derive(Clone)]
pub(super) struct SessionState {
    /// We sent the first message; `base_key` is ours.
    pub(super) initiator: bool,
    /// The initiator's one-time key of the set-up; names the session.
    pub(super) base_key: PublicKey,
    pub(super) remote_identity: PublicKey,
    /// Absent in some sessions taken over from Baileys.
    pub(super) remote_registration_id: Option<u32>,
    pub(super) root: RootKey,
    /// The peer's newest ratchet key; its signed prekey before the first message of the peer.
    pub(super) remote_ratchet: PublicKey,
    /// Our ratchet pair; the signed prekey before the first ratchet step of a responder.
    pub(super) ratchet: KeyPair,
    /// Chain of `ratchet`; `None` while a responder has not made its first ratchet step.
    pub(super) sending: Option<SendingChain>,
    /// Last counter of the sending chain before this one.
    pub(super) previous_counter: u32,
    /// Oldest first.
    pub(super) receiving: Vec<(PublicKey, ReceivingChain)>,
    /// The peer has not answered yet: every message must carry the set-up.
    pub(super) pending: Option<PendingPreKey>,
}

/// Which of the peer's prekeys the set-up used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PendingPreKey {
    pub(super) prekey_id: Option<u32>,
    pub(super) signed_prekey_id: u32,
}

/// A decrypted message.
pub(super) struct Opened {
    pub(super) plaintext: Vec<u8>,
    /// More than a counter changed: ratchet step, or the pending prekey was cleared.
    pub(super) structural: bool,
}

/// Root of the Diffie-Hellman ratchet.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct RootKey(pub(super) [u8; 32]);

impl RootKey {
    /// Mixes one Diffie-Hellman result in; gives the next root and a chain.
    pub(super) fn step(
        &self,
        ours: &PrivateKey,
        theirs: &PublicKey,
    ) -> Result<(RootKey, ChainKey), SignalError> {
        let shared = ours.diffie_hellman(theirs).ok_or(SignalError::InvalidKey)?;
        Ok(derive(Some(&self.0), &shared.0, b"WhisperRatchet"))
    }
}

/// HKDF to a root key and a chain key.
pub(super) fn derive(salt: Option<&[u8]>, secret: &[u8], info: &[u8]) -> (RootKey, ChainKey) {
    let mut root = RootKey([0; 32]);
    let mut chain = ChainKey([0; 32]);
    let mut both = Zeroizing::new([0u8; 64]);
    Hkdf::<Sha256>::new(salt, secret).expand(info, &mut *both).expect("64 is far below 255 hashes");
    let (left, right) = both.split_at(32);
    root.0.copy_from_slice(left);
    chain.0.copy_from_slice(right);
    (root, chain)
}

impl SessionState {
    /// Encrypts; gives the bytes and whether the counter was covered by the durable reservation.
    pub(super) fn encrypt(
        &mut self,
        local: &LocalIdentity<'_>,
        plaintext: &[u8],
    ) -> Result<(CiphertextKind, Vec<u8>, bool), SignalError> {
        let chain = self.sending.as_mut().ok_or(SignalError::NoSession)?;
        let covered = chain.is_covered();
        let (counter, seed) = chain.advance()?;
        let keys = MessageKeys::derive(&seed);

        let ciphertext_len = cipher::ciphertext_len(plaintext.len());
        let mut out = Vec::with_capacity(ciphertext_len + MSG_OVERHEAD);
        out.push(wire::VERSION_BYTE);
        wire::put_bytes(&mut out, 1, &self.ratchet.public.serialize());
        wire::put_number(&mut out, 2, counter.into());
        wire::put_number(&mut out, 3, self.previous_counter.into());
        wire::put_header(&mut out, 4, ciphertext_len);
        cipher::encrypt(keys.cipher_key(), keys.iv(), plaintext, &mut out);
        let mac = keys.mac(&local.pair.public, &self.remote_identity, &out).finalize().into_bytes();
        out.extend(mac.iter().take(wire::MAC_LEN));

        Ok(match self.pending {
            None => (CiphertextKind::Msg, out, covered),
            Some(pending) => (CiphertextKind::PkMsg, self.wrap(local, pending, &out), covered),
        })
    }

    /// Decrypts. `Err` leaves the state as it was.
    pub(super) fn decrypt(
        &mut self,
        local: &LocalIdentity<'_>,
        message: &SignalMessage<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Opened, SignalError> {
        let known = self.receiving.iter().position(|(ratchet, _)| *ratchet == message.ratchet_key);
        let (plaintext, stepped) = match known {
            Some(index) => (self.decrypt_on_chain(local, message, index)?, false),
            None => (self.decrypt_on_new_chain(local, message, rng)?, true),
        };
        let cleared = self.pending.take().is_some();
        Ok(Opened { plaintext, structural: stepped || cleared })
    }

    /// Whether one of the receiving chains belongs to this ratchet key.
    pub(super) fn has_receiving_chain(&self, ratchet: &PublicKey) -> bool {
        self.receiving.iter().any(|(known, _)| known == ratchet)
    }

    fn decrypt_on_chain(
        &mut self,
        local: &LocalIdentity<'_>,
        message: &SignalMessage<'_>,
        index: usize,
    ) -> Result<Vec<u8>, SignalError> {
        let (_, chain) = self.receiving.get(index).ok_or(SignalError::NoSession)?;
        let found = chain.find(message.counter)?;
        let plaintext = self.open(local, message, &found.seed)?;
        if let Some((_, chain)) = self.receiving.get_mut(index) {
            chain.commit(found);
        }
        Ok(plaintext)
    }

    /// The peer turned its ratchet: a new receiving chain, and a new ratchet pair and sending chain of ours.
    fn decrypt_on_new_chain(
        &mut self,
        local: &LocalIdentity<'_>,
        message: &SignalMessage<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Vec<u8>, SignalError> {
        let (root, key) = self.root.step(&self.ratchet.private, &message.ratchet_key)?;
        let mut chain = ReceivingChain::new(key, 0);
        let found = chain.find(message.counter)?;
        let plaintext = self.open(local, message, &found.seed)?;
        chain.commit(found);

        let ratchet = KeyPair::generate(rng);
        let (root, key) = root.step(&ratchet.private, &message.ratchet_key)?;
        if let Some(old) = &self.sending {
            self.previous_counter = old.counter.saturating_sub(1);
        }
        self.root = root;
        self.remote_ratchet = message.ratchet_key;
        self.ratchet = ratchet;
        self.sending = Some(SendingChain::new(key, 0));
        if self.receiving.len() >= MAX_RECEIVER_CHAINS {
            self.receiving.remove(0);
        }
        self.receiving.push((message.ratchet_key, chain));
        Ok(plaintext)
    }

    fn open(
        &self,
        local: &LocalIdentity<'_>,
        message: &SignalMessage<'_>,
        seed: &Seed,
    ) -> Result<Vec<u8>, SignalError> {
        let keys = MessageKeys::derive(seed);
        // Compares in constant time.
        keys.mac(&self.remote_identity, &local.pair.public, message.authenticated)
            .verify_truncated_left(message.mac)
            .map_err(|_| SignalError::BadMac)?;
        cipher::decrypt(keys.cipher_key(), keys.iv(), message.ciphertext)
    }

    /// Puts the set-up around a `msg`.
    fn wrap(&self, local: &LocalIdentity<'_>, pending: PendingPreKey, msg: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(msg.len() + PKMSG_OVERHEAD);
        out.push(wire::VERSION_BYTE);
        if let Some(id) = pending.prekey_id {
            wire::put_number(&mut out, 1, id.into());
        }
        wire::put_bytes(&mut out, 2, &self.base_key.serialize());
        wire::put_bytes(&mut out, 3, &local.pair.public.serialize());
        wire::put_bytes(&mut out, 4, msg);
        wire::put_number(&mut out, 5, local.registration_id.into());
        wire::put_number(&mut out, 6, pending.signed_prekey_id.into());
        out
    }
}

/// Cipher key (32), MAC key (32) and IV (16) of one message.
struct MessageKeys(Zeroizing<[u8; 80]>);

impl MessageKeys {
    fn derive(seed: &Seed) -> Self {
        Self(Zeroizing::new(seed.expand(b"WhisperMessageKeys")))
    }

    fn cipher_key(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("80 bytes hold 32")
    }

    fn iv(&self) -> &[u8; 16] {
        self.0.last_chunk().expect("80 bytes hold 16")
    }

    fn mac(&self, sender: &PublicKey, receiver: &PublicKey, message: &[u8]) -> Hmac<Sha256> {
        let (mac_key, _) = self.0.split_at(32).1.split_at(32);
        <Hmac<Sha256> as Mac>::new_from_slice(mac_key)
            .expect("HMAC takes keys of any length")
            .chain_update(sender.serialize())
            .chain_update(receiver.serialize())
            .chain_update(message)
    }
}

/// Room for everything of a `msg` but its ciphertext.
const MSG_OVERHEAD: usize = 64;

/// Room for everything of a `pkmsg` but its `msg`.
const PKMSG_OVERHEAD: usize = 96;
