//! JSON as Baileys writes it: binary values in several forms, and maps whose order means something.
//!
//! Its `BufferJSON` writes `{"type":"Buffer","data":"<base64>"}`; plain `JSON.stringify` of a Buffer gives
//! `{"type":"Buffer","data":[1,2]}`; revived files have `{"0":1,"1":2}`; libsignal and protobufs write bare base64. All of
//! them are read. Seen: Baileys `Utils/generics.js` `BufferJSON` @7.0.0-rc14 and @6.7.24.

use std::{fmt, marker::PhantomData};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

use crate::whatsapp::keys::{KeyPair, PublicKey};

/// Why one file cannot be taken. Never shows what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Longer than any file of its kind.
    #[error("it is too large ({0} bytes)")]
    TooLarge(usize),
    /// Empty: a writer was interrupted.
    #[error("it is empty")]
    Empty,
    /// Not JSON, or not of the shape its kind has.
    #[error("it is not the JSON it should be (line {line}, column {column})")]
    Shape {
        /// Where reading stopped.
        line: usize,
        /// Where reading stopped.
        column: usize,
    },
    /// One field is missing or cannot be right.
    #[error("its field {0} is missing or malformed")]
    Field(&'static str),
    /// Public and private key, or key and signature, do not belong together.
    #[error("its {0} does not fit its other keys")]
    Mismatch(&'static str),
    /// The name says nothing that can be understood.
    #[error("its name is not one Baileys writes")]
    Name,
    /// A format that is not known.
    #[error("its format is unknown")]
    Version,
}

/// Reads one file of at most `limit` bytes.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, FileError> {
    if bytes.len() > limit {
        return Err(FileError::TooLarge(bytes.len()));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(FileError::Empty);
    }
    serde_json::from_slice(bytes)
        .map_err(|error| FileError::Shape { line: error.line(), column: error.column() })
}

/// The bytes of a file. Values are made here and have string keys only.
pub(super) fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of strings, numbers and maps with string keys can be written")
}

/// Bytes in any of the forms; `None` when the value is not bytes.
pub(super) fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => STANDARD.decode(text).ok(),
        Value::Array(items) => items.iter().map(byte).collect(),
        Value::Object(map) if map.get("type").is_some_and(|kind| kind == "Buffer") => {
            map.get("data").or_else(|| map.get("value")).map_or(Some(Vec::new()), bytes_of)
        }
        Value::Object(map) => numbered(map),
        _ => None,
    }
}

/// `{"0":1,"1":2}`, in the order of the numbers.
fn numbered(map: &Map<String, Value>) -> Option<Vec<u8>> {
    let mut items = map
        .iter()
        .map(|(place, value)| Some((place.parse::<usize>().ok()?, byte(value)?)))
        .collect::<Option<Vec<_>>>()?;
    items.sort_unstable();
    Some(items.into_iter().map(|(_, byte)| byte).collect())
}

fn byte(value: &Value) -> Option<u8> {
    value.as_u64().and_then(|number| u8::try_from(number).ok())
}

/// What `BufferJSON` writes.
pub(super) fn buffer(bytes: &[u8]) -> Value {
    json!({ "type": "Buffer", "data": STANDARD.encode(bytes) })
}

/// What `JSON.stringify` alone writes.
pub(super) fn buffer_of_numbers(bytes: &[u8]) -> Value {
    json!({ "type": "Buffer", "data": bytes })
}

/// Bare base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// `{"private":…,"public":…}` of 32 bytes each.
pub(super) fn key_pair(value: Option<&Value>, field: &'static str) -> Result<KeyPair, FileError> {
    let half = |name| value.and_then(|pair| pair.get(name)).and_then(bytes_of);
    let private = half("private").ok_or(FileError::Field(field))?;
    let public = half("public").and_then(|bytes| PublicKey::from_slice(&bytes));
    let pair = KeyPair::from_private_slice(&private).ok_or(FileError::Field(field))?;
    match public {
        Some(public) if public == pair.public => Ok(pair),
        Some(_) => Err(FileError::Mismatch(field)),
        None => Err(FileError::Field(field)),
    }
}

pub(super) fn key_pair_json(pair: &KeyPair) -> Value {
    json!({ "private": buffer(&pair.private.0), "public": buffer(&pair.public.0) })
}

/// Bytes that are read in any form and written as bare base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl Base64 {
    pub(super) fn public_key(&self, field: &'static str) -> Result<PublicKey, FileError> {
        PublicKey::from_slice(&self.0).ok_or(FileError::Field(field))
    }

    pub(super) fn array(&self, field: &'static str) -> Result<[u8; 32], FileError> {
        self.0.as_slice().try_into().map_err(|_| FileError::Field(field))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        bytes_of(&value).map(Self).ok_or_else(|| D::Error::custom("not bytes"))
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64(&self.0))
    }
}

/// A JSON object in the order it was written. A name that comes twice counts once, as in JavaScript.
#[derive(Debug, Clone)]
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

struct InOrder<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
    type Value = Ordered<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
        let mut entries: Vec<(String, T)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            let place = *places.entry(key.clone()).or_insert(entries.len());
            match entries.get_mut(place) {
                Some((_, known)) => *known = value,
                None => entries.push((key, value)),
            }
        }
        Ok(Ordered(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_every_form_baileys_and_its_stores_have_left() {
        for value in [
            json!({ "type": "Buffer", "data": "AQL/" }),
            json!({ "type": "Buffer", "data": [1, 2, 255] }),
            json!({ "type": "Buffer", "data": { "0": 1, "1": 2, "2": 255 } }),
            json!({ "0": 1, "2": 255, "1": 2 }),
            json!("AQL/"),
            json!([1, 2, 255]),
        ] {
            assert_eq!(bytes_of(&value), Some(vec![1, 2, 255]), "{value}");
        }
        for value in [json!(7), json!(null), json!({ "type": "Buffer", "data": 5 }), json!([256]), json!("*")]
        {
            assert_eq!(bytes_of(&value), None, "{value}");
        }
        assert_eq!(bytes_of(&buffer(&[1, 2])), Some(vec![1, 2]));
        assert_eq!(bytes_of(&buffer_of_numbers(&[])), Some(Vec::new()));
    }

    #[test]
    fn maps_keep_their_order_and_the_last_of_two_equal_names_counts() {
        let map: Ordered<u8> = serde_json::from_str(r#"{"z":1,"a":2,"m":3,"a":4}"#).unwrap();
        assert_eq!(map.0, [("z".to_owned(), 1), ("a".to_owned(), 4), ("m".to_owned(), 3)]);
        assert_eq!(write(&map), br#"{"z":1,"a":4,"m":3}"#);
    }

    #[test]
    fn a_bad_file_is_named_without_showing_its_content() {
        let error = parse::<Vec<u32>>(br#"["a secret"]"#, 100).unwrap_err();
        assert!(!error.to_string().contains("secret") && error.to_string().contains("column"), "{error}");
        assert_eq!(parse::<Value>(b"", 9), Err(FileError::Empty));
        assert_eq!(parse::<Value>(b"[1,2,3,4,5]", 9), Err(FileError::TooLarge(11)));
    }
}
