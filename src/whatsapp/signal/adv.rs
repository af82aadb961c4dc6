//! ADV: the signatures that tie a companion device's identity key to its account, and an account to its device list.
//!
//! Works on raw byte slices: `details` is always the encoded inner protobuf exactly as received, because the
//! signatures cover those bytes. Knows nothing of the protobuf types around them, nor of stanzas.
//!
//! - pairing: [`verify_hmac`], [`verify_account_signature`], then [`sign_device`];
//! - a peer's companion: [`verify_device_identity`];
//! - a phone (the sandbox's): [`hmac()`], [`sign_account`], [`sign_key_index_list`].
//!
//! Seen: whatsmeow `pair.go`, `message.go` @33cfac51; whatsapp-rust `wacore/src/adv.rs` @1489b7da;
//! Baileys `Utils/validate-connection.js` @7.0.0-rc14.

use hmac::{Hmac, Mac};
use rand_core::CryptoRngCore;
use sha2::Sha256;

use super::curve;
use crate::whatsapp::keys::{KeyPair, PublicKey};

/// Who holds the account's or device's keys; chooses the domain separators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvType {
    /// Keys on the user's own devices (enum value 0).
    E2ee,
    /// Keys at a hosting provider, Cloud API (enum value 1).
    Hosted,
}

impl AdvType {
    /// From the protobuf's enum value; absent and unknown values are [`AdvType::E2ee`].
    #[must_use]
    pub fn from_proto(value: Option<i32>) -> Self {
        if value == Some(1) { Self::Hosted } else { Self::E2ee }
    }

    fn account_prefix(self) -> [u8; 2] {
        match self {
            Self::E2ee => [6, 0],
            Self::Hosted => [6, 5],
        }
    }

    fn device_prefix(self) -> [u8; 2] {
        match self {
            Self::E2ee => [6, 1],
            Self::Hosted => [6, 6],
        }
    }
}

/// HMAC-SHA256 by the QR code's ADV secret over an `ADVSignedDeviceIdentityHMAC.details`.
#[must_use]
pub fn hmac(secret: &[u8], account: AdvType, details: &[u8]) -> [u8; 32] {
    keyed(secret, account, details).finalize().into_bytes().into()
}

/// Whether `tag` is the [`hmac()`] of `details`; compared in constant time.
#[must_use]
pub fn verify_hmac(secret: &[u8], account: AdvType, details: &[u8], tag: &[u8]) -> bool {
    keyed(secret, account, details).verify_slice(tag).is_ok()
}

/// The account (the phone) vouches for a device: signs `prefix || details || device identity`.
pub fn sign_account(
    account: &KeyPair,
    device: AdvType,
    details: &[u8],
    identity: &PublicKey,
    rng: &mut dyn CryptoRngCore,
) -> [u8; 64] {
    curve::sign(&account.private, &account_message(device, details, identity), rng)
}

/// Checks what [`sign_account`] made. `identity` is the device's identity key.
#[must_use]
pub fn verify_account_signature(
    account: &PublicKey,
    device: AdvType,
    details: &[u8],
    identity: &PublicKey,
    signature: &[u8],
) -> bool {
    curve::verify(account, &account_message(device, details, identity), signature)
}

/// The device accepts its account: signs `prefix || details || own identity || account key`.
pub fn sign_device(
    identity: &KeyPair,
    device: AdvType,
    details: &[u8],
    account: &PublicKey,
    rng: &mut dyn CryptoRngCore,
) -> [u8; 64] {
    curve::sign(&identity.private, &device_message(device, details, &identity.public, account), rng)
}

/// Checks what [`sign_device`] made.
#[must_use]
pub fn verify_device_signature(
    identity: &PublicKey,
    device: AdvType,
    details: &[u8],
    account: &PublicKey,
    signature: &[u8],
) -> bool {
    curve::verify(identity, &device_message(device, details, identity, account), signature)
}

/// Checks a peer companion's complete `ADVSignedDeviceIdentity` against the identity key its bundle or message shows.
///
/// The device type inside `details` is not consulted: either both signatures hold under the ordinary prefixes or both
/// under the hosted ones, as WhatsApp Web does it.
#[must_use]
pub fn verify_device_identity(
    account: &PublicKey,
    details: &[u8],
    identity: &PublicKey,
    account_signature: &[u8],
    device_signature: &[u8],
) -> bool {
    [AdvType::E2ee, AdvType::Hosted].into_iter().any(|device| {
        verify_account_signature(account, device, details, identity, account_signature)
            && verify_device_signature(identity, device, details, account, device_signature)
    })
}

/// The account signs its list of valid devices: `06 02 || details`.
pub fn sign_key_index_list(account: &KeyPair, details: &[u8], rng: &mut dyn CryptoRngCore) -> [u8; 64] {
    curve::sign(&account.private, &key_index_message(details), rng)
}

/// Checks what [`sign_key_index_list`] made.
#[must_use]
pub fn verify_key_index_list(account: &PublicKey, details: &[u8], signature: &[u8]) -> bool {
    curve::verify(account, &key_index_message(details), signature)
}

fn keyed(secret: &[u8], account: AdvType, details: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes keys of any length");
    if account == AdvType::Hosted {
        mac.update(&AdvType::Hosted.account_prefix());
    }
    mac.update(details);
    mac
}

fn account_message(device: AdvType, details: &[u8], identity: &PublicKey) -> Vec<u8> {
    [&device.account_prefix(), details, &identity.0].concat()
}

fn device_message(device: AdvType, details: &[u8], identity: &PublicKey, account: &PublicKey) -> Vec<u8> {
    [&device.device_prefix(), details, &identity.0, &account.0].concat()
}

fn key_index_message(details: &[u8]) -> Vec<u8> {
    [&KEY_INDEX_PREFIX, details].concat()
}

/// Domain separator of a signed key index list. Spec: WhatsApp Encryption Overview, "linking": `0x0602 || ListData`.
const KEY_INDEX_PREFIX: [u8; 2] = [6, 2];

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_device_identity_made_by_the_phone_and_the_device_verifies() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (account, device) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        for kind in [AdvType::E2ee, AdvType::Hosted] {
            let by_account = sign_account(&account, kind, b"details", &device.public, &mut rng);
            let by_device = sign_device(&device, kind, b"details", &account.public, &mut rng);
            let holds = |details: &[u8], identity: &PublicKey, account: &PublicKey| {
                verify_device_identity(account, details, identity, &by_account, &by_device)
            };
            assert!(holds(b"details", &device.public, &account.public));
            assert!(!holds(b"detail", &device.public, &account.public));
            assert!(!holds(b"details", &account.public, &account.public));
            assert!(!holds(b"details", &device.public, &device.public));
        }
    }

    #[test]
    fn ordinary_and_hosted_signatures_do_not_stand_in_for_each_other() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (account, device) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let by_account = sign_account(&account, AdvType::E2ee, b"d", &device.public, &mut rng);
        assert!(!verify_account_signature(
            &account.public,
            AdvType::Hosted,
            b"d",
            &device.public,
            &by_account
        ));
        let by_device = sign_device(&device, AdvType::Hosted, b"d", &account.public, &mut rng);
        assert!(!verify_device_signature(&device.public, AdvType::E2ee, b"d", &account.public, &by_device));
        assert!(!verify_device_identity(&account.public, b"d", &device.public, &by_account, &by_device));
    }

    #[test]
    fn the_hmac_depends_on_secret_type_and_details() {
        let tag = hmac(b"secret", AdvType::E2ee, b"details");
        assert!(verify_hmac(b"secret", AdvType::E2ee, b"details", &tag));
        assert!(!verify_hmac(b"secret", AdvType::Hosted, b"details", &tag));
        assert!(!verify_hmac(b"Secret", AdvType::E2ee, b"details", &tag));
        assert!(!verify_hmac(b"secret", AdvType::E2ee, b"detail", &tag));
        assert!(!verify_hmac(b"secret", AdvType::E2ee, b"details", &tag[..31]));
    }

    #[test]
    fn a_key_index_list_verifies_only_for_its_account_and_bytes() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let account = KeyPair::generate(&mut rng);
        let signature = sign_key_index_list(&account, b"list", &mut rng);
        assert!(verify_key_index_list(&account.public, b"list", &signature));
        assert!(!verify_key_index_list(&account.public, b"lis", &signature));
    }
}
