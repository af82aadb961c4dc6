//! `sender-key-<group>--<sender>--<device>.json` and `sender-key-memory-<group>.json`.
//!
//! A sender key file is a Buffer of JSON: an array of keys, newest last. Baileys 6.17 wrote the array itself, with bare
//! base64 inside; that is read too. Memory is the set of devices that were given our key.
//! Seen: Baileys `Signal/Group/sender-key-record.js`, `sender-key-state.js`, `Socket/messages-send.js` @7.0.0-rc14 and
//! @6.7.24.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::json::{FileError, buffer, buffer_of_numbers, bytes_of, parse, write};
use crate::whatsapp::{
    keys::{KeyPair, PublicKey},
    signal::sender_key::parts::SenderKeyParts,
};

/// Five keys with 2,000 skipped ones each, every byte written as a number and all of it in base64.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// A field of ours that Baileys carries along: where the distribution message began.
const FIRST: &str = "workerFirstIteration";

/// Reads a sender key file: the keys, newest first. Skipped keys of our own are left out: Baileys leaves one behind for
/// every message it sends.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<SenderKeyParts>, FileError> {
    let outer: Value = parse(bytes, MAX_BYTES)?;
    let inner = match &outer {
        Value::Array(keys) => keys.clone(),
        other => {
            let text = bytes_of(other).ok_or(FileError::Field("data"))?;
            parse::<Vec<Value>>(&text, MAX_BYTES)?
        }
    };
    inner.iter().rev().map(read_key).collect()
}

fn read_key(key: &Value) -> Result<SenderKeyParts, FileError> {
    let number = |value: Option<&Value>, field| {
        let number = value.and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        number.ok_or(FileError::Field(field))
    };
    let chain = key.get("senderChainKey");
    let signing = key.get("senderSigningKey");
    let public = signing.and_then(|signing| signing.get("public")).and_then(bytes_of);
    let public = public.and_then(|bytes| PublicKey::from_slice(&bytes));
    let public = public.ok_or(FileError::Field("senderSigningKey"))?;
    let private = signing.and_then(|signing| signing.get("private")).and_then(bytes_of).unwrap_or_default();
    let private = match private.as_slice() {
        [] => None,
        bytes => Some(KeyPair::from_private_slice(bytes).ok_or(FileError::Field("senderSigningKey"))?),
    };
    if private.as_ref().is_some_and(|pair| pair.public != public) {
        return Err(FileError::Mismatch("senderSigningKey"));
    }
    let skipped = match key.get("senderMessageKeys") {
        Some(Value::Array(keys)) if private.is_none() => keys.iter().filter_map(skipped_key).collect(),
        _ => Vec::new(),
    };
    Ok(SenderKeyParts {
        key_id: number(key.get("senderKeyId"), "senderKeyId")?,
        signing: public,
        private: private.map(|pair| pair.private),
        chain_key: Some(seed(chain).ok_or(FileError::Field("senderChainKey"))?),
        iteration: number(chain.and_then(|chain| chain.get("iteration")), "senderChainKey")?,
        first: number(key.get(FIRST), FIRST).unwrap_or(0),
        skipped,
    })
}

fn seed(value: Option<&Value>) -> Option<Zeroizing<[u8; 32]>> {
    let bytes: [u8; 32] = bytes_of(value?.get("seed")?)?.try_into().ok()?;
    Some(Zeroizing::new(bytes))
}

/// Baileys 6.17 loses skipped keys by writing them as `{}`.
fn skipped_key(value: &Value) -> Option<(u32, Zeroizing<[u8; 32]>)> {
    let iteration = value.get("iteration")?.as_u64().and_then(|number| u32::try_from(number).ok())?;
    Some((iteration, seed(Some(value))?))
}

/// Writes a sender key file; `None` without a key.
pub(super) fn render(keys: &[SenderKeyParts]) -> Option<Vec<u8>> {
    let inner: Vec<Value> = keys.iter().rev().filter_map(key_json).collect();
    if inner.is_empty() { None } else { Some(write(&buffer(&write(&inner)))) }
}

fn key_json(key: &SenderKeyParts) -> Option<Value> {
    let private = key.private.as_ref().map_or(&[][..], |private| &private.0);
    let skipped = key.skipped.iter();
    let skipped: Vec<Value> =
        skipped.map(|(at, seed)| json!({ "iteration": at, "seed": buffer_of_numbers(&**seed) })).collect();
    let mut json = json!({
        "senderKeyId": key.key_id,
        "senderChainKey": {
            "iteration": key.iteration,
            "seed": buffer_of_numbers(&**key.chain_key.as_ref()?),
        },
        "senderSigningKey": {
            "public": buffer_of_numbers(&key.signing.serialize()),
            "private": buffer_of_numbers(private),
        },
        "senderMessageKeys": skipped,
    });
    if key.first > 0 {
        json[FIRST] = key.first.into();
    }
    Some(json)
}

/// Reads a memory file: the JIDs of the devices.
pub(super) fn read_memory(bytes: &[u8]) -> Result<Vec<String>, FileError> {
    let map: BTreeMap<String, bool> = parse(bytes, MAX_BYTES)?;
    Ok(map.into_iter().filter(|(_, has)| *has).map(|(jid, _)| jid).collect())
}

/// Writes a memory file; `None` when nobody has the key.
pub(super) fn render_memory(devices: impl Iterator<Item = String>) -> Option<Vec<u8>> {
    let map: Map<String, Value> = devices.map(|jid| (jid, true.into())).collect();
    if map.is_empty() { None } else { Some(write(&map)) }
}
