//! The prekeys we publish: one-time prekeys and signed prekeys, and their stored form.
//!
//! Does not hand out ids and does not decide when to upload or rotate.

use prost::Message;
use rand_core::CryptoRngCore;

use super::{curve, error::SignalError};
use crate::whatsapp::keys::{KeyPair, PublicKey};

/// A one-time prekey.
#[derive(Debug, Clone)]
pub struct PreKeyRecord {
    /// 24-bit id, from one counter that never goes back.
    pub id: u32,
    /// The key.
    pub pair: KeyPair,
    /// The server confirmed its upload.
    pub uploaded: bool,
}

impl PreKeyRecord {
    /// A fresh prekey, not uploaded yet.
    pub fn generate(id: u32, rng: &mut dyn CryptoRngCore) -> Self {
        Self { id, pair: KeyPair::generate(rng), uploaded: false }
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        StoredPreKey {
            version: RECORD_VERSION,
            id: self.id,
            private: self.pair.private.0.to_vec(),
            uploaded: self.uploaded,
        }
        .encode_to_vec()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let stored = StoredPreKey::decode(bytes).map_err(|_| SignalError::DamagedRecord)?;
        check_version(stored.version)?;
        let pair = KeyPair::from_private_slice(&stored.private).ok_or(SignalError::DamagedRecord)?;
        Ok(Self { id: stored.id, pair, uploaded: stored.uploaded })
    }
}

/// A signed prekey.
#[derive(Debug, Clone)]
pub struct SignedPreKeyRecord {
    /// 24-bit id.
    pub id: u32,
    /// The key.
    pub pair: KeyPair,
    /// Signature by our identity key over `05 || public key`.
    pub signature: [u8; 64],
    /// When it was made, Unix seconds.
    pub created_s: u64,
}

impl SignedPreKeyRecord {
    /// A fresh signed prekey.
    pub fn generate(id: u32, identity: &KeyPair, now_s: u64, rng: &mut dyn CryptoRngCore) -> Self {
        let pair = KeyPair::generate(rng);
        let signature = curve::sign(&identity.private, &pair.public.serialize(), rng);
        Self { id, pair, signature, created_s: now_s }
    }

    /// Whether `identity` signed this key.
    #[must_use]
    pub fn is_signed_by(&self, identity: &PublicKey) -> bool {
        curve::verify(identity, &self.pair.public.serialize(), &self.signature)
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        StoredSignedPreKey {
            version: RECORD_VERSION,
            id: self.id,
            private: self.pair.private.0.to_vec(),
            signature: self.signature.to_vec(),
            created_s: self.created_s,
        }
        .encode_to_vec()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let stored = StoredSignedPreKey::decode(bytes).map_err(|_| SignalError::DamagedRecord)?;
        check_version(stored.version)?;
        Ok(Self {
            id: stored.id,
            pair: KeyPair::from_private_slice(&stored.private).ok_or(SignalError::DamagedRecord)?,
            signature: stored.signature.as_slice().try_into().map_err(|_| SignalError::DamagedRecord)?,
            created_s: stored.created_s,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct StoredPreKey {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    id: u32,
    #[prost(bytes = "vec", tag = "3")]
    private: Vec<u8>,
    #[prost(bool, tag = "4")]
    uploaded: bool,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct StoredSignedPreKey {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    id: u32,
    #[prost(bytes = "vec", tag = "3")]
    private: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    signature: Vec<u8>,
    #[prost(uint64, tag = "5")]
    created_s: u64,
}

fn check_version(version: u32) -> Result<(), SignalError> {
    match version {
        RECORD_VERSION => Ok(()),
        other => Err(SignalError::UnknownRecordVersion(other)),
    }
}

/// Format of both stored forms.
const RECORD_VERSION: u32 = 1;
