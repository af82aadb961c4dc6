//! Reading test vectors: JSON lists under `tests/vectors`, made by other implementations.

use serde_json::Value;

/// The vectors of one file, e.g. `binary/nodes.json`.
pub(in crate::whatsapp) fn read(path: &str) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("vector files are JSON lists")
}

/// A field of hex digits.
pub(crate) fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    let text = vector[field].as_str().unwrap_or_else(|| panic!("{vector} has no {field}"));
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
