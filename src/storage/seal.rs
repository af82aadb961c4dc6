//! Encryption of what rests: AES-256-GCM under a key of the operator, with older keys for reading.
//!
//! A sealed value is
//!
//! ```text
//! 89 57 57 53   magic; no JSON, no text and no image begins like this
//! 01            version
//! 8 bytes       key id: which key, not what key
//! 12 bytes      nonce, random
//! …             ciphertext, as long as the content
//! 16 bytes      tag
//! ```
//!
//! The tag covers magic, version, key id and the value's **name** (an object's key, a table and row): a sealed value
//! copied to another name does not open. Values without the magic are plain and pass through, so that encryption can be
//! switched on with data there. 2³² values under one key are the limit of random nonces; nobody gets there, and rotating
//! the key starts anew.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// One key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealKey([u8; 32]);

/// Which key, without telling the key: 16 hex digits, the beginning of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

/// The key that seals, and the keys that may have sealed. Without a key that seals, values are written plain.
#[derive(Clone, Default)]
pub struct KeyRing {
    current: Option<SealKey>,
    old: Vec<SealKey>,
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// None of our keys has this id.
    #[error(
        "it is encrypted with key {0}, which is not among STORAGE_ENCRYPTION_KEY and STORAGE_ENCRYPTION_OLD_KEYS"
    )]
    UnknownKey(KeyId),
    /// The tag is wrong.
    #[error("it is encrypted with key {0}, but it was changed, cut or copied from another place")]
    Forged(KeyId),
    /// Too short, or of a later version.
    #[error("its encryption header is damaged or of a later version")]
    BadHeader,
}

/// Under what a stored value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// It is not sealed.
    Plain,
    /// Under the key with this id.
    Under(KeyId),
}

impl SealKey {
    /// Reads 64 hex digits, or 32 bytes in base64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = hex(text).or_else(|| STANDARD.decode(text).ok())?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Self);
        bytes.zeroize();
        key
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest =
            Sha256::new().chain_update(b"whatsapp-worker storage key\0").chain_update(self.0).finalize();
        KeyId(digest.first_chunk().copied().expect("a SHA-256 has 32 bytes"))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.0.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyRing {
    /// `current` seals; it and `old` open.
    #[must_use]
    pub fn new(current: Option<SealKey>, old: Vec<SealKey>) -> Self {
        Self { current, old }
    }

    /// Which key seals.
    #[must_use]
    pub fn current_id(&self) -> Option<KeyId> {
        self.current.as_ref().map(SealKey::id)
    }

    /// Whether values are sealed.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.current.is_some()
    }

    /// Seals a value; without a current key the plain value.
    #[must_use]
    pub fn seal(&self, name: &str, content: &[u8]) -> Vec<u8> {
        let Some(key) = &self.current else { return content.to_vec() };
        let mut sealed = Vec::with_capacity(OVERHEAD + content.len());
        sealed.extend_from_slice(&MAGIC);
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id().0);
        let mut nonce = [0u8; NONCE_BYTES];
        OsRng.fill_bytes(&mut nonce);
        let aad = aad(&sealed, name);
        sealed.extend_from_slice(&nonce);
        let payload = Payload { msg: content, aad: &aad };
        let ciphertext =
            key.cipher().encrypt(&nonce.into(), payload).expect("AES-GCM takes 64 GB, memory does not");
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// The content of a stored value, and under what it was.
    ///
    /// # Errors
    /// [`SealError`]
    pub fn open(&self, name: &str, stored: Vec<u8>) -> Result<(Vec<u8>, Sealing), SealError> {
        let Sealing::Under(id) = sealing(&stored)? else { return Ok((stored, Sealing::Plain)) };
        let mut keys = self.current.iter().chain(&self.old);
        let key = keys.find(|key| key.id() == id).ok_or(SealError::UnknownKey(id))?;
        let (head, rest) = stored.split_at_checked(HEAD_BYTES).ok_or(SealError::BadHeader)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::BadHeader)?;
        let payload = Payload { msg: ciphertext, aad: &aad(head, name) };
        let content = key.cipher().decrypt(&(*nonce).into(), payload).map_err(|_| SealError::Forged(id))?;
        Ok((content, Sealing::Under(id)))
    }
}

/// Under what a stored value is, without opening it.
///
/// # Errors
/// [`SealError::BadHeader`]
pub fn sealing(stored: &[u8]) -> Result<Sealing, SealError> {
    let Some(rest) = stored.strip_prefix(&MAGIC) else { return Ok(Sealing::Plain) };
    let (&version, rest) = rest.split_first().ok_or(SealError::BadHeader)?;
    let (id, _) = rest.split_first_chunk().ok_or(SealError::BadHeader)?;
    if version != VERSION || stored.len() < OVERHEAD {
        return Err(SealError::BadHeader);
    }
    Ok(Sealing::Under(KeyId(*id)))
}

fn aad(head: &[u8], name: &str) -> Vec<u8> {
    [head, name.as_bytes()].concat()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect::<Option<_>>()?;
    (digits.len() == 64)
        .then(|| digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect())
}

/// What sealing adds to a value.
pub const OVERHEAD: usize = HEAD_BYTES + NONCE_BYTES + TAG_BYTES;

const MAGIC: [u8; 4] = [0x89, b'W', b'W', b'S'];
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 4 + 1 + 8;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey([byte; 32])
    }

    fn ring(current: u8, old: &[u8]) -> KeyRing {
        KeyRing::new(Some(key(current)), old.iter().copied().map(key).collect())
    }

    #[test]
    fn a_value_opens_under_its_name_with_its_key_only() {
        let sealed = ring(1, &[]).seal("a/b", b"secret");
        assert_eq!(sealed.len(), 6 + OVERHEAD);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let opened = ring(2, &[1]).open("a/b", sealed.clone()).unwrap();
        assert_eq!(opened, (b"secret".to_vec(), Sealing::Under(key(1).id())));
        assert_eq!(ring(1, &[]).open("a/c", sealed.clone()), Err(SealError::Forged(key(1).id())));
        assert_eq!(ring(2, &[]).open("a/b", sealed.clone()), Err(SealError::UnknownKey(key(1).id())));
        assert_eq!(KeyRing::default().open("a/b", sealed), Err(SealError::UnknownKey(key(1).id())));
    }

    #[test]
    fn the_same_value_is_never_sealed_the_same_way() {
        assert_ne!(ring(1, &[]).seal("a", b"x"), ring(1, &[]).seal("a", b"x"));
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let ring = ring(1, &[]);
        let sealed = ring.seal("a", b"content");
        // A changed magic makes it plain by design: then nothing of it is trusted as ours.
        for position in MAGIC.len()..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(ring.open("a", changed).is_err(), "{position}");
        }
        for length in MAGIC.len()..sealed.len() {
            assert!(ring.open("a", sealed[..length].to_vec()).is_err(), "{length}");
        }
    }

    #[test]
    fn plain_values_pass_through_and_without_a_key_nothing_is_sealed() {
        let plain = br#"{"noiseKey":1}"#.to_vec();
        assert_eq!(ring(1, &[]).open("a", plain.clone()), Ok((plain.clone(), Sealing::Plain)));
        assert_eq!(KeyRing::default().seal("a", &plain), plain);
        assert_eq!(ring(1, &[]).open("a", Vec::new()), Ok((Vec::new(), Sealing::Plain)));
    }

    #[test]
    fn keys_are_hex_or_base64_of_32_bytes() {
        let id = key(0x0a).id();
        assert_eq!(SealKey::parse(&"0A".repeat(32)).unwrap().id(), id);
        assert_eq!(SealKey::parse(&STANDARD.encode([0x0a; 32])).unwrap().id(), id);
        for bad in ["", "0a", &"0g".repeat(32), &STANDARD.encode([1; 31]), &"ü".repeat(32)] {
            assert!(SealKey::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(id.to_string().len(), 16);
        assert!(!format!("{id:?}").contains("0a0a0a"));
    }
}
