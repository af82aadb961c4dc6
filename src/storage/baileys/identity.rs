//! `identity-key-<address>.json`: a peer device's identity key, 33 bytes with the type prefix. Baileys 7 only.

use serde_json::Value;

use super::json::{FileError, buffer, bytes_of, parse, write};
use crate::whatsapp::keys::PublicKey;

/// Ordinary files have under 100 bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Reads the key.
pub(super) fn read(bytes: &[u8]) -> Result<PublicKey, FileError> {
    let value: Value = parse(bytes, MAX_BYTES)?;
    let key = bytes_of(&value).and_then(|bytes| PublicKey::from_slice(&bytes));
    key.ok_or(FileError::Field("data"))
}

/// Writes a key.
pub(super) fn render(key: &PublicKey) -> Vec<u8> {
    write(&buffer(&key.serialize()))
}
