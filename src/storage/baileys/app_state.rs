//! `app-state-sync-key-<id>.json`: the keys of app state, which only the phone could give us again.
//!
//! `{"keyData":"<base64>","fingerprint":{"rawId","currentIndex","deviceIndexes"},"timestamp":"ms"}`, a protobuf's JSON.
//! Versions (`app-state-sync-version-*.json`) are not read: they stay as they are and Baileys goes on from them.
//! Seen: Baileys `Utils/use-multi-file-auth-state.js`, `Utils/process-message.js` @7.0.0-rc14.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::json::{FileError, base64, bytes_of, parse, write};
use crate::whatsapp::proto::{AppStateSyncKeyData, AppStateSyncKeyFingerprint};

/// Ordinary files have under 300 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Ids have six bytes; this is what the engine takes.
const MAX_ID_BYTES: usize = 64;

/// The row key (hex) of a key by the id in its file name.
pub(super) fn row_key(id: &str) -> Option<String> {
    let bytes = STANDARD.decode(id.replace("__", "/")).ok()?;
    let fits = !bytes.is_empty() && bytes.len() <= MAX_ID_BYTES;
    fits.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads a key.
pub(super) fn read(bytes: &[u8]) -> Result<AppStateSyncKeyData, FileError> {
    let map: Map<String, Value> = parse(bytes, MAX_BYTES)?;
    let key_data = map.get("keyData").and_then(bytes_of).filter(|key| key.len() == 32);
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let fingerprint = map.get("fingerprint").and_then(Value::as_object).map(|print| {
        let indexes = print.get("deviceIndexes").and_then(Value::as_array);
        AppStateSyncKeyFingerprint {
            raw_id: number(print.get("rawId")),
            current_index: number(print.get("currentIndex")),
            device_indexes: indexes.into_iter().flatten().filter_map(|index| number(Some(index))).collect(),
        }
    });
    Ok(AppStateSyncKeyData {
        key_data: Some(key_data.ok_or(FileError::Field("keyData"))?),
        fingerprint,
        timestamp: map.get("timestamp").and_then(integer),
    })
}

/// Text or number.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Writes a key.
pub(super) fn render(key: &AppStateSyncKeyData) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("keyData".to_owned(), base64(key.key_data()).into());
    if let Some(print) = &key.fingerprint {
        let mut json = Map::new();
        if let Some(id) = print.raw_id {
            json.insert("rawId".to_owned(), id.into());
        }
        if let Some(index) = print.current_index {
            json.insert("currentIndex".to_owned(), index.into());
        }
        json.insert("deviceIndexes".to_owned(), json!(print.device_indexes));
        map.insert("fingerprint".to_owned(), json.into());
    }
    if let Some(at) = key.timestamp {
        map.insert("timestamp".to_owned(), at.to_string().into());
    }
    write(&map)
}
