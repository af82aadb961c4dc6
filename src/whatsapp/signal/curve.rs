//! XEdDSA: signatures with X25519 keys, in the variant of libsignal.
//!
//! The public key on the wire is a Montgomery point without a sign; the sign of the signer's Edwards point travels in
//! the top bit of the signature's last byte. Spec: Signal "XEdDSA and VXEdDSA" §2; the sign bit as libsignal does it.
//! Seen: whatsmeow `util/keys/keypair.go` @33cfac51; libsignal 6.0.0 (npm) `src/curve.js`.

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar, traits::IsIdentity};
use rand_core::CryptoRngCore;
use sha2::{Digest, Sha512};
use zeroize::Zeroize;

use crate::whatsapp::keys::{PrivateKey, PublicKey};

/// Signs `message` with 64 bytes of fresh randomness in the nonce.
pub fn sign(private: &PrivateKey, message: &[u8], rng: &mut dyn CryptoRngCore) -> [u8; 64] {
    let mut random = [0u8; 64];
    rng.fill_bytes(&mut random);
    let signature = sign_with(private, message, &random);
    random.zeroize();
    signature
}

/// Whether `signature` (64 bytes) was made over `message` by the owner of `public`.
///
/// Non-canonical scalars and public keys of low order are refused.
#[must_use]
pub fn verify(public: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let Some((r, s)) = signature.split_first_chunk::<32>() else {
        return false;
    };
    let Ok(mut s) = <[u8; 32]>::try_from(s) else {
        return false;
    };
    let sign_bit = s[31] >> 7;
    s[31] &= 0x7f;
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else {
        return false;
    };
    let Some(point) = MontgomeryPoint(public.0).to_edwards(sign_bit) else {
        return false;
    };
    if point.mul_by_cofactor().is_identity() {
        return false;
    }
    let challenge = challenge(r, point.compress().as_bytes(), message);
    // R = s·B − h·A; everything here is public, so variable time is fine.
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&challenge, &-point, &s).compress().as_bytes() == r
}

fn sign_with(private: &PrivateKey, message: &[u8], random: &[u8; 64]) -> [u8; 64] {
    let mut clamped = curve25519_dalek::scalar::clamp_integer(private.0);
    let mut secret = private.scalar();
    let public = EdwardsPoint::mul_base(&secret).compress();

    let mut hash = Sha512::new();
    hash.update(NONCE_PREFIX);
    hash.update(clamped);
    hash.update(message);
    hash.update(random);
    let mut nonce = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());

    let r = EdwardsPoint::mul_base(&nonce).compress();
    let challenge = challenge(r.as_bytes(), public.as_bytes(), message);
    let s = challenge * secret + nonce;

    let mut signature = [0u8; 64];
    signature[..32].copy_from_slice(r.as_bytes());
    signature[32..].copy_from_slice(s.as_bytes());
    signature[63] |= public.as_bytes()[31] & 0x80;
    clamped.zeroize();
    secret.zeroize();
    nonce.zeroize();
    signature
}

fn challenge(r: &[u8; 32], public: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(public).chain_update(message);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// Separates the nonce hash from the challenge hash: no Edwards point encodes to these bytes.
const NONCE_PREFIX: [u8; 32] = {
    let mut prefix = [0xff; 32];
    prefix[0] = 0xfe;
    prefix
};

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::whatsapp::keys::KeyPair;

    #[test]
    fn own_signatures_verify_for_both_signs_of_the_public_point() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut signs = [false; 2];
        for round in 0..32u8 {
            let pair = KeyPair::generate(&mut rng);
            let signature = sign(&pair.private, &[round; 40], &mut rng);
            assert!(verify(&pair.public, &[round; 40], &signature));
            signs[usize::from(signature[63] >> 7)] = true;
        }
        assert_eq!(signs, [true, true]);
    }

    #[test]
    fn any_flipped_bit_breaks_a_signature() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let pair = KeyPair::generate(&mut rng);
        let signature = sign(&pair.private, b"message", &mut rng);
        for bit in 0..512 {
            let mut changed = signature;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&pair.public, b"message", &changed), "bit {bit}");
        }
        assert!(!verify(&pair.public, b"massage", &signature));
    }

    #[test]
    fn wrong_lengths_and_low_order_keys_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let pair = KeyPair::generate(&mut rng);
        let signature = sign(&pair.private, b"m", &mut rng);
        assert!(!verify(&pair.public, b"m", &signature[..63]));
        assert!(!verify(&pair.public, b"m", &[&signature[..], &[0]].concat()));
        assert!(!verify(&pair.public, b"m", &[]));
        // u = 0 is of order two or four: s = 0, R = identity would verify half of all messages.
        let mut forged = [0u8; 64];
        forged[0] = 1;
        assert!((0..64u8).all(|n| !verify(&PublicKey([0; 32]), &[n], &forged)));
    }

    #[test]
    fn a_non_canonical_scalar_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let pair = KeyPair::generate(&mut rng);
        let mut signature = sign(&pair.private, b"m", &mut rng);
        // s + L verifies by the equation alone.
        let order_minus_one = (Scalar::ZERO - Scalar::ONE).to_bytes();
        let mut carry = 1u16;
        for (byte, add) in signature[32..].iter_mut().zip(order_minus_one) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        assert!(!verify(&pair.public, b"m", &signature));
    }
}
