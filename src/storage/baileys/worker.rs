//! Files of our own: what Baileys has no place for. Baileys never reads a name that begins with `worker-`.

use serde_json::{Map, Value, json};

use super::{
    creds::{signed_prekey, signed_prekey_json},
    json::{FileError, buffer, bytes_of, parse, write},
};
use crate::whatsapp::{jid::Jid, keys::KeyPair, rows::Credentials, signal::SignedPreKeyRecord};

/// All of them are small.
const MAX_BYTES: usize = 64 * 1024;
/// Format of `worker-account.json`.
const VERSION: u64 = 1;

/// `worker-account.json`: `{"version":1,"account":"<own user JID>","lidMigrated":…,"nctSalt":…,"propsHash":…}`.
pub(super) fn render_account(credentials: &Credentials) -> Option<Vec<u8>> {
    let account = credentials.jid.as_ref()?.to_user().to_string();
    Some(write(&json!({
        "version": VERSION,
        "account": account,
        "lidMigrated": credentials.lid_migrated,
        "nctSalt": credentials.nct_salt.as_deref().map(buffer),
        "propsHash": credentials.props_hash,
    })))
}

/// Completes credentials. False when the file speaks of another account: Baileys was linked anew in this folder.
pub(super) fn read_account(bytes: &[u8], credentials: &mut Credentials) -> Result<bool, FileError> {
    let map: Map<String, Value> = parse(bytes, MAX_BYTES)?;
    if map.get("version").and_then(Value::as_u64) != Some(VERSION) {
        return Err(FileError::Version);
    }
    let account = map.get("account").and_then(Value::as_str).and_then(|text| text.parse::<Jid>().ok());
    if account.is_none() || account != credentials.jid.as_ref().map(Jid::to_user) {
        return Ok(false);
    }
    credentials.lid_migrated = map.get("lidMigrated") == Some(&Value::Bool(true));
    credentials.nct_salt = map.get("nctSalt").and_then(bytes_of);
    credentials.props_hash = map.get("propsHash").and_then(Value::as_str).map(str::to_owned);
    Ok(true)
}

/// `worker-signed-pre-key-<id>.json`: Baileys keeps only the current one.
pub(super) fn render_signed_prekey(record: &SignedPreKeyRecord) -> Vec<u8> {
    write(&signed_prekey_json(record))
}

/// Reads a signed prekey; it must be signed by this identity.
pub(super) fn read_signed_prekey(bytes: &[u8], identity: &KeyPair) -> Result<SignedPreKeyRecord, FileError> {
    let value: Value = parse(bytes, MAX_BYTES)?;
    signed_prekey(Some(&value), identity)
}

/// `worker-name-<user jid>.json`: a push name, `{"name":…}`.
pub(super) fn render_name(name: &[u8]) -> Vec<u8> {
    write(&json!({ "name": String::from_utf8_lossy(name) }))
}

/// Reads a push name.
pub(super) fn read_name(bytes: &[u8]) -> Result<Vec<u8>, FileError> {
    let map: Map<String, Value> = parse(bytes, MAX_BYTES)?;
    let name = map.get("name").and_then(Value::as_str).ok_or(FileError::Field("name"))?;
    Ok(name.as_bytes().to_vec())
}

/// `worker-chat-<jid>.json`: a row as the engine keeps it, `{"row":…}`.
pub(super) fn render_row(row: &[u8]) -> Vec<u8> {
    write(&json!({ "row": buffer(row) }))
}

/// Reads such a row.
pub(super) fn read_row(bytes: &[u8]) -> Result<Vec<u8>, FileError> {
    let map: Map<String, Value> = parse(bytes, MAX_BYTES)?;
    map.get("row").and_then(bytes_of).ok_or(FileError::Field("row"))
}
