//! One-to-one sessions.

use rand_core::CryptoRngCore;

use super::{bundle::PreKeyBundle, error::SignalError};
use crate::whatsapp::keys::{KeyPair, PublicKey};

/// Who we are in every session.
#[derive(Debug, Clone, Copy)]
pub struct LocalIdentity<'a> {
    /// Our registration id.
    pub registration_id: u32,
    /// Our identity key.
    pub pair: &'a KeyPair,
}

/// Where our private prekeys are looked up.
pub trait PreKeySource {
    /// A one-time prekey.
    fn prekey(&self, id: u32) -> Option<KeyPair>;
    /// A signed prekey.
    fn signed_prekey(&self, id: u32) -> Option<KeyPair>;
}

/// The two forms of a one-to-one ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiphertextKind {
    /// Inside an established session.
    Msg,
    /// Carries what the receiver needs to set up the session.
    PkMsg,
}

impl CiphertextKind {
    /// The `type` of an `<enc>`: `msg` or `pkmsg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Msg => "msg",
            Self::PkMsg => "pkmsg",
        }
    }
}

/// Result of [`SessionRecord::encrypt`].
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// Which form `bytes` has.
    pub kind: CiphertextKind,
    /// The ciphertext message.
    pub bytes: Vec<u8>,
    /// The record must be durable (`encode`) before `bytes` leave.
    pub must_persist: bool,
}

/// Result of the decrypting functions.
#[derive(Debug, Clone)]
pub struct Decrypted {
    /// The plaintext, still padded as the sender padded it.
    pub plaintext: Vec<u8>,
    /// The one-time prekey that set up the new session: delete it together with writing the record.
    pub used_prekey: Option<u32>,
    /// A new session was made from this message.
    pub new_session: bool,
    /// The sender's identity key.
    pub identity: PublicKey,
    /// The record must be written (`encode`) together with what came of this message.
    pub must_persist: bool,
}

/// All sessions with one peer device: the current one and replaced ones.
#[derive(Clone, Default)]
pub struct SessionRecord {}

impl SessionRecord {
    /// Whether there is a current session to encrypt with.
    #[must_use]
    pub fn has_session(&self) -> bool {
        false
    }

    /// The peer's identity key in the current session.
    #[must_use]
    pub fn remote_identity(&self) -> Option<PublicKey> {
        None
    }

    /// The peer's registration id in the current session.
    #[must_use]
    pub fn remote_registration_id(&self) -> Option<u32> {
        None
    }

    /// The initiator's base key of the current session: names the session.
    #[must_use]
    pub fn base_key(&self) -> Option<PublicKey> {
        None
    }

    /// Sets up a session from a fetched bundle; the current session, if any, is archived.
    ///
    /// # Errors
    /// [`SignalError::BadSignature`], [`SignalError::InvalidKey`]; the record is unchanged then.
    pub fn process_bundle(
        &mut self,
        _local: &LocalIdentity<'_>,
        bundle: &PreKeyBundle,
        _rng: &mut dyn CryptoRngCore,
    ) -> Result<(), SignalError> {
        bundle.verify()?;
        Err(SignalError::NoSession)
    }

    /// Encrypts with the current session.
    ///
    /// # Errors
    /// [`SignalError::NoSession`], [`SignalError::ChainExhausted`].
    pub fn encrypt(
        &mut self,
        _local: &LocalIdentity<'_>,
        _plaintext: &[u8],
    ) -> Result<Encrypted, SignalError> {
        Err(SignalError::NoSession)
    }

    /// Decrypts a `pkmsg`, setting up the session when it is new.
    ///
    /// # Errors
    /// Any; the record is unchanged then.
    pub fn decrypt_pkmsg(
        &mut self,
        _local: &LocalIdentity<'_>,
        _bytes: &[u8],
        _keys: &dyn PreKeySource,
        _rng: &mut dyn CryptoRngCore,
    ) -> Result<Decrypted, SignalError> {
        Err(SignalError::NoSession)
    }

    /// Decrypts a `msg`.
    ///
    /// # Errors
    /// Any; the record is unchanged then.
    pub fn decrypt_msg(
        &mut self,
        _local: &LocalIdentity<'_>,
        _bytes: &[u8],
        _rng: &mut dyn CryptoRngCore,
    ) -> Result<Decrypted, SignalError> {
        Err(SignalError::NoSession)
    }

    /// Closes the current session: it still decrypts, but nothing is encrypted with it any more.
    pub fn archive(&mut self) {}

    /// The stored form, with sending counters reserved ahead.
    #[must_use]
    pub fn encode(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The stored form for a clean stop: nothing is skipped when it is read again.
    #[must_use]
    pub fn encode_clean(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads the stored form; skips sending counters that were reserved.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(_bytes: &[u8]) -> Result<Self, SignalError> {
        Err(SignalError::DamagedRecord)
    }
}
