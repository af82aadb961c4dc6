//! The prekeys we publish: one-time prekeys and signed prekeys, and their stored form.
//!
//! Does not hand out ids and does not decide when to upload or rotate.

use rand_core::CryptoRngCore;

use super::{
    curve,
    error::SignalError,
    stored::check_version,
    wire::{Fields, put_bytes, put_number},
};
use crate::whatsapp::keys::{KeyPair, PrivateKey, PublicKey};

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

    /// The stored form: version 1, id 2, private key 3, uploaded 4, public key 5.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        put_number(&mut out, 1, VERSION.into());
        put_number(&mut out, 2, self.id.into());
        put_bytes(&mut out, 3, &self.pair.private.0);
        put_number(&mut out, 4, self.uploaded.into());
        put_bytes(&mut out, 5, &self.pair.public.0);
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let stored = Stored::read(bytes)?;
        Ok(Self { id: stored.id, pair: stored.pair, uploaded: stored.number != 0 })
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

    /// The stored form: version 1, id 2, private key 3, created 4, public key 5, signature 6.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        put_number(&mut out, 1, VERSION.into());
        put_number(&mut out, 2, self.id.into());
        put_bytes(&mut out, 3, &self.pair.private.0);
        put_number(&mut out, 4, self.created_s);
        put_bytes(&mut out, 5, &self.pair.public.0);
        put_bytes(&mut out, 6, &self.signature);
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let stored = Stored::read(bytes)?;
        let signature = stored.signature.ok_or(SignalError::DamagedRecord)?;
        Ok(Self { id: stored.id, pair: stored.pair, signature, created_s: stored.number })
    }
}

/// What both stored forms hold.
struct Stored {
    id: u32,
    pair: KeyPair,
    number: u64,
    signature: Option<[u8; 64]>,
}

impl Stored {
    fn read(bytes: &[u8]) -> Result<Self, SignalError> {
        check_version(bytes, VERSION)?;
        Self::read_fields(bytes).map_err(|_| SignalError::DamagedRecord)
    }

    fn read_fields(bytes: &[u8]) -> Result<Self, SignalError> {
        let (mut id, mut private, mut public, mut number, mut signature) = (None, None, None, 0, None);
        for field in Fields(bytes) {
            match field? {
                (2, value) => id = Some(value.number()?),
                (3, value) => private = Some(PrivateKey(*value.array()?)),
                (4, value) => number = value.long()?,
                (5, value) => public = Some(PublicKey(*value.array()?)),
                (6, value) => signature = Some(*value.array()?),
                _ => {}
            }
        }
        let missing = SignalError::DamagedRecord;
        let pair = KeyPair { private: private.ok_or(missing)?, public: public.ok_or(missing)? };
        Ok(Self { id: id.ok_or(missing)?, pair, number, signature })
    }
}

/// Format of both stored forms.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::signal::testing::rng;

    #[test]
    fn prekeys_round_trip() {
        let mut record = PreKeyRecord::generate(0x00ff_ffff, &mut rng(1));
        record.uploaded = true;
        let decoded = PreKeyRecord::decode(&record.encode()).unwrap();
        assert_eq!((decoded.id, decoded.uploaded), (0x00ff_ffff, true));
        assert_eq!(decoded.pair.private.0, record.pair.private.0);
        assert_eq!(decoded.pair.public, decoded.pair.private.public());
    }

    #[test]
    fn signed_prekeys_round_trip_with_a_signature_that_holds() {
        let (identity, other) = (KeyPair::generate(&mut rng(1)), KeyPair::generate(&mut rng(2)));
        let record = SignedPreKeyRecord::generate(3, &identity, 1_790_000_000, &mut rng(3));
        let decoded = SignedPreKeyRecord::decode(&record.encode()).unwrap();
        assert_eq!((decoded.id, decoded.created_s), (3, 1_790_000_000));
        assert_eq!(decoded.pair.private.0, record.pair.private.0);
        assert!(decoded.is_signed_by(&identity.public));
        assert!(!decoded.is_signed_by(&other.public));
    }

    #[test]
    fn a_cut_or_newer_record_is_a_typed_error() {
        let identity = KeyPair::generate(&mut rng(1));
        let mut stored = SignedPreKeyRecord::generate(3, &identity, 5, &mut rng(3)).encode();
        for len in 0..stored.len() {
            let error = SignedPreKeyRecord::decode(&stored[..len]).unwrap_err();
            assert_eq!(error, SignalError::DamagedRecord, "length {len}");
        }
        stored[1] = 9;
        assert_eq!(SignedPreKeyRecord::decode(&stored).unwrap_err(), SignalError::UnknownRecordVersion(9));
    }
}
