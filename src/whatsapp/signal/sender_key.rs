//! Sender keys: one chain per sender and group.

use rand_core::CryptoRngCore;

use super::error::SignalError;

/// Result of [`SenderKeyRecord::encrypt`].
#[derive(Debug, Clone)]
pub struct GroupEncrypted {
    /// The `skmsg`.
    pub bytes: Vec<u8>,
    /// The record must be durable (`encode`) before `bytes` leave.
    pub must_persist: bool,
}

/// Result of [`SenderKeyRecord::decrypt`].
#[derive(Debug, Clone)]
pub struct GroupDecrypted {
    /// The plaintext, still padded as the sender padded it.
    pub plaintext: Vec<u8>,
    /// The record must be written (`encode`) together with what came of this message.
    pub must_persist: bool,
}

/// One sender's keys in one group. Default = nothing received yet.
#[derive(Clone, Default)]
pub struct SenderKeyRecord {}

impl SenderKeyRecord {
    /// A fresh key of our own.
    pub fn create(_rng: &mut dyn CryptoRngCore) -> Self {
        Self {}
    }

    /// The SKDM that lets others decrypt from the next message on.
    ///
    /// # Errors
    /// [`SignalError::NoSenderKey`].
    pub fn distribution(&self) -> Result<Vec<u8>, SignalError> {
        Err(SignalError::NoSenderKey)
    }

    /// Takes in a sender's SKDM. A key that is known already keeps its place in the chain.
    ///
    /// # Errors
    /// [`SignalError::InvalidMessage`], [`SignalError::InvalidKey`].
    pub fn process_distribution(&mut self, _bytes: &[u8]) -> Result<(), SignalError> {
        Err(SignalError::InvalidMessage)
    }

    /// Encrypts with our own key.
    ///
    /// # Errors
    /// [`SignalError::NoSenderKey`] when this record has no key of ours, [`SignalError::ChainExhausted`].
    pub fn encrypt(
        &mut self,
        _plaintext: &[u8],
        _rng: &mut dyn CryptoRngCore,
    ) -> Result<GroupEncrypted, SignalError> {
        Err(SignalError::NoSenderKey)
    }

    /// Decrypts a `skmsg` of the sender.
    ///
    /// # Errors
    /// Any; the record is unchanged then.
    pub fn decrypt(&mut self, _bytes: &[u8]) -> Result<GroupDecrypted, SignalError> {
        Err(SignalError::NoSenderKey)
    }

    /// Position of the newest key's chain: how many messages it has given.
    #[must_use]
    pub fn iteration(&self) -> u32 {
        0
    }

    /// Id of the newest key.
    #[must_use]
    pub fn key_id(&self) -> Option<u32> {
        None
    }

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
