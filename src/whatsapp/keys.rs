//! Key types shared by Noise and Signal: 32-byte X25519 keys that wipe themselves and never print.

use std::fmt;

use curve25519_dalek::{MontgomeryPoint, scalar::Scalar};
use rand_core::CryptoRngCore;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Prefix of a "serialized" public key (33 bytes) in Signal structures: key type X25519.
pub const DJB_TYPE: u8 = 0x05;

/// An X25519 public key, raw 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The 33-byte form `05 || key` used inside Signal messages.
    #[must_use]
    pub fn serialize(&self) -> [u8; 33] {
        let mut out = [DJB_TYPE; 33];
        out[1..].copy_from_slice(&self.0);
        out
    }

    /// Reads a raw 32-byte key or a 33-byte key with the type prefix; `None` for anything else.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let raw = match bytes {
            [DJB_TYPE, raw @ ..] if raw.len() == 32 => raw,
            raw => raw,
        };
        raw.try_into().ok().map(Self)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}

/// An X25519 private key. Clamped on use, wiped on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(pub [u8; 32]);

impl PrivateKey {
    /// Fresh key from the caller's random source.
    pub fn generate(rng: &mut dyn CryptoRngCore) -> Self {
        let mut bytes = [0u8; 32];
        rng.fill_bytes(&mut bytes);
        // Stored clamped, as every client does, so that an export compares equal to what others keep.
        bytes[0] &= 0xf8;
        bytes[31] = (bytes[31] & 0x7f) | 0x40;
        Self(bytes)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        // The fixed-base tables make this three times as fast as a ladder on the base point.
        PublicKey(MontgomeryPoint::mul_base_clamped(self.0).0)
    }

    /// X25519. `None` when the result is all zero (the peer sent a low-order point).
    #[must_use]
    pub fn diffie_hellman(&self, theirs: &PublicKey) -> Option<SharedSecret> {
        let theirs = MontgomeryPoint(theirs.0);
        // A quarter faster than the ladder where the CPU has vector instructions. The sign does not matter to the
        // result; points of the twist, which no honest key is, have no Edwards form.
        let shared = match theirs.to_edwards(0) {
            Some(point) => point.mul_clamped(self.0).to_montgomery(),
            None => theirs.mul_clamped(self.0),
        };
        (!bool::from(shared.0.ct_eq(&[0; 32]))).then_some(SharedSecret(shared.0))
    }

    /// The clamped scalar, for signatures.
    #[must_use]
    pub fn scalar(&self) -> Scalar {
        Scalar::from_bytes_mod_order(curve25519_dalek::scalar::clamp_integer(self.0))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// Result of a Diffie-Hellman; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret(pub [u8; 32]);

/// A private key together with its public half.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// Private half.
    pub private: PrivateKey,
    /// Public half, always derived from `private`.
    pub public: PublicKey,
}

impl KeyPair {
    /// Fresh pair from the caller's random source.
    pub fn generate(rng: &mut dyn CryptoRngCore) -> Self {
        PrivateKey::generate(rng).into()
    }

    /// The pair of a stored private key; `None` when it is not 32 bytes.
    #[must_use]
    pub fn from_private_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|raw| PrivateKey(raw).into())
    }
}

impl From<PrivateKey> for KeyPair {
    fn from(private: PrivateKey) -> Self {
        let public = private.public();
        Self { private, public }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_order_point_gives_no_shared_secret() {
        // Orders 2 and 4 on curve and twist: u = 0, 1, -1.
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one, minus_one] {
            assert!(PrivateKey([7; 32]).diffie_hellman(&PublicKey(point)).is_none());
        }
    }

    #[test]
    fn the_shared_secret_is_that_of_the_ladder_on_curve_and_twist() {
        let mut twist = 0;
        for n in 2..=40u8 {
            let (private, public) = (PrivateKey([n; 32]), PublicKey([n; 32]));
            twist += u32::from(MontgomeryPoint(public.0).to_edwards(0).is_none());
            let ladder = MontgomeryPoint(public.0).mul_clamped(private.0);
            assert_eq!(private.diffie_hellman(&public).unwrap().0, ladder.0);
        }
        assert!((5..35).contains(&twist), "both kinds of points were met: {twist}");
    }
}
