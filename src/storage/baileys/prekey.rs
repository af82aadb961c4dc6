//! `pre-key-<id>.json`: one-time prekeys, `{"private":…,"public":…}`.
//!
//! Whether a key was uploaded is not in the file: those below `firstUnuploadedPreKeyId` in `creds.json` were.

use serde_json::Value;

use super::json::{FileError, key_pair, key_pair_json, parse, write};
use crate::whatsapp::signal::PreKeyRecord;

/// Ordinary files have under 200 bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Reads the key with this id.
pub(super) fn read(id: u32, bytes: &[u8], first_unuploaded: u32) -> Result<PreKeyRecord, FileError> {
    let value: Value = parse(bytes, MAX_BYTES)?;
    let pair = key_pair(Some(&value), "public")?;
    Ok(PreKeyRecord { id, pair, uploaded: id < first_unuploaded })
}

/// Writes a key.
pub(super) fn render(record: &PreKeyRecord) -> Vec<u8> {
    write(&key_pair_json(&record.pair))
}
