//! `tctoken-<user jid>.json`: trusted-contact tokens, `{"token":…,"timestamp":"s","senderTimestamp":s}`; and
//! `tctoken-__index.json`, the list of their JIDs. Baileys 7 only.
//!
//! Seen: Baileys `Utils/tc-token-utils.js` @7.0.0-rc14.

use serde_json::{Map, Value, json};

use super::json::{FileError, buffer, bytes_of, parse, write};
use crate::whatsapp::rows::TokenRecord;

/// Tokens have some tens of bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Reads a token.
pub(super) fn read(bytes: &[u8]) -> Result<TokenRecord, FileError> {
    let map: Map<String, Value> = parse(bytes, MAX_BYTES)?;
    Ok(TokenRecord {
        token: map.get("token").and_then(bytes_of).ok_or(FileError::Field("token"))?,
        issued_s: seconds(map.get("timestamp")),
        sent_s: seconds(map.get("senderTimestamp")),
    })
}

/// Text or number; nothing is 0.
fn seconds(value: Option<&Value>) -> u64 {
    let value = value.unwrap_or(&Value::Null);
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// Writes a token.
pub(super) fn render(record: &TokenRecord) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("token".to_owned(), buffer(&record.token));
    if record.issued_s > 0 {
        map.insert("timestamp".to_owned(), record.issued_s.to_string().into());
    }
    if record.sent_s > 0 {
        map.insert("senderTimestamp".to_owned(), record.sent_s.into());
    }
    write(&map)
}

/// Writes the index; `None` without tokens.
pub(super) fn render_index(jids: &[String]) -> Option<Vec<u8>> {
    (!jids.is_empty()).then(|| write(&json!({ "token": buffer(&write(&jids)) })))
}
