//! The running state of a Noise handshake: hash of everything said, chaining key, current cipher key.
//!
//! Spec: Noise rev 34 §5.1, §5.2. WhatsApp writes the nonce big-endian in the last four bytes, the specification's
//! AESGCM does the same with eight; the counters here never pass 32 bits, so both agree.

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInPlace};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::whatsapp::keys::{PrivateKey, PublicKey};

/// What can go wrong with the key schedule; the caller knows which message it was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SymmetricError {
    /// A ciphertext was changed, or encrypted with another key or transcript.
    BadCiphertext,
    /// A public key gives no shared secret.
    LowOrderKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Symmetric {
    hash: [u8; 32],
    chaining: [u8; 32],
    key: [u8; 32],
    counter: u64,
}

impl Symmetric {
    /// Starts the transcript. Names of at most 32 bytes are padded with zeros, longer ones hashed.
    pub(super) fn new(protocol: &str, prologue: &[u8]) -> Self {
        let mut hash = [0; 32];
        match hash.get_mut(..protocol.len()) {
            Some(start) => start.copy_from_slice(protocol.as_bytes()),
            None => hash = Sha256::digest(protocol).into(),
        }
        let mut state = Self { hash, chaining: hash, key: hash, counter: 0 };
        state.mix_hash(prologue);
        state
    }

    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Sha256::new().chain_update(self.hash).chain_update(data).finalize().into();
    }

    pub(super) fn mix_key(&mut self, ours: &PrivateKey, theirs: &PublicKey) -> Result<(), SymmetricError> {
        let shared = ours.diffie_hellman(theirs).ok_or(SymmetricError::LowOrderKey)?;
        (self.chaining, self.key) = self.expand(&shared.0);
        self.counter = 0;
        Ok(())
    }

    /// Encrypts and adds the ciphertext to the transcript.
    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut data = Vec::with_capacity(plaintext.len() + TAG);
        data.extend_from_slice(plaintext);
        let tag = cipher(&self.key)
            .encrypt_in_place_detached(&nonce(self.counter).into(), &self.hash, &mut data)
            .expect("AES-GCM encrypts up to 64 GiB");
        data.extend_from_slice(&tag);
        self.counter += 1;
        self.mix_hash(&data);
        data
    }

    /// Decrypts and adds the ciphertext to the transcript.
    pub(super) fn decrypt(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, SymmetricError> {
        let mut data = ciphertext.to_vec();
        cipher(&self.key)
            .decrypt_in_place(&nonce(self.counter).into(), &self.hash, &mut data)
            .map_err(|_| SymmetricError::BadCiphertext)?;
        self.counter += 1;
        self.mix_hash(ciphertext);
        Ok(data)
    }

    /// The two transport keys: initiator to responder, responder to initiator.
    pub(super) fn split(&self) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
        let (initiator, responder) = self.expand(&[]);
        (Zeroizing::new(initiator), Zeroizing::new(responder))
    }

    fn expand(&self, secret: &[u8]) -> ([u8; 32], [u8; 32]) {
        let mut out = Zeroizing::new([0; 64]);
        Hkdf::<Sha256>::new(Some(&self.chaining), secret)
            .expand(&[], &mut *out)
            .expect("64 bytes are within HKDF");
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(&out[..32]);
        second.copy_from_slice(&out[32..]);
        (first, second)
    }
}

pub(super) fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

/// Twelve bytes: zeros, then the counter big-endian.
pub(super) fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// The full handshake.
pub(super) const PROTOCOL_XX: &str = "Noise_XX_25519_AESGCM_SHA256";
/// The handshake a server falls back to when a client began with IK.
pub(super) const PROTOCOL_XX_FALLBACK: &str = "Noise_XXfallback_25519_AESGCM_SHA256";
/// The stream header: "WA", protocol version 6, token dictionary version 3. Also the Noise prologue.
pub(super) const WA_HEADER: [u8; 4] = [b'W', b'A', 6, 3];
/// Starts the edge-routing intro, which may precede the stream header. Not part of the transcript.
pub(super) const EDGE_ROUTING_HEADER: [u8; 4] = [b'E', b'D', 0, 1];
/// Bytes AES-GCM adds to a plaintext.
pub(super) const TAG: usize = 16;
