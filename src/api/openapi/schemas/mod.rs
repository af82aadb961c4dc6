//! The named shapes of bodies and answers, each with an example.

mod family;
mod messages;
mod sessions;
mod webhooks;
mod worker;

use serde_json::{Map, Value, json};

/// All of them, by name.
pub(super) fn all() -> Map<String, Value> {
    let groups = [common(), worker::all(), sessions::all(), messages::all(), webhooks::all(), family::all()];
    groups
        .into_iter()
        .flat_map(|group| match group {
            Value::Object(map) => map,
            _ => Map::new(),
        })
        .collect()
}

fn common() -> Value {
    json!({
        "Error": {
            "type": "object",
            "required": ["success", "error", "code"],
            "properties": {
                "success": { "const": false },
                "error": { "type": "string", "minLength": 1, "description": "One sentence for people" },
                "code": { "type": "string", "pattern": "^[A-Z][A-Z_]+$", "description": "Stable word for programs" },
                "details": {
                    "type": "object",
                    "properties": {
                        "field": { "type": "string", "description": "The field, parameter or header at fault" },
                    },
                },
            },
            "example": {
                "success": false, "error": "to: is required", "code": "INVALID_FIELD", "details": { "field": "to" },
            },
        },
        "Time": {
            "type": "string", "format": "date-time", "description": "RFC 3339 in UTC",
            "example": "2024-01-15T10:30:00Z",
        },
        "Moment": {
            "type": "string",
            "description": "RFC 3339, or Unix seconds",
            "pattern": MOMENT,
            "example": "2024-01-15T10:30:00Z",
        },
        "Nothing": { "type": "object", "description": "An empty object, or no body at all", "maxProperties": 0, "example": {} },
        "Anything": { "type": "object", "description": "Fields are ignored; no body is needed", "example": {} },
        "Recipient": {
            "type": "string",
            "description": "A phone number in international form, or the JID of a person (`…@s.whatsapp.net`, `…@lid`) or \
                            a group (`…@g.us`)",
            "pattern": RECIPIENT,
            "examples": ["6281200000002", "+62 812-0000-0002", "6281200000002@s.whatsapp.net", "120363000000000001@g.us"],
        },
        "Chat": {
            "type": "string",
            "description": "As `Recipient`, or `status@broadcast`",
            "pattern": CHAT,
            "example": "6281200000002@s.whatsapp.net",
        },
        "SessionId": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,100}$", "example": "user123-personal" },
        "SessionStatus": {
            "type": "string",
            "enum": [
                "disconnected", "connecting", "qr_required", "passkey_required", "connected", "reconnecting",
                "logged_out", "error",
            ],
        },
        "MessageStatus": { "type": "string", "enum": ["pending", "sent", "delivered", "read", "played", "failed"] },
    })
}

/// Separators people put between the digits of a phone number.
macro_rules! phone {
    () => {
        "\\+?[ .()\\u00a0-]*[1-9](?:[ .()\\u00a0-]*[0-9]){6,14}[ .()\\u00a0-]*"
    };
}

macro_rules! jid {
    () => {
        "[0-9]{5,20}@(?:s\\.whatsapp\\.net|c\\.us|lid)|[0-9]{5,30}@g\\.us|[0-9]{5,20}-[0-9]{5,20}@g\\.us"
    };
}

const PHONE: &str = concat!("^\\s*", phone!(), "\\s*$");
const RECIPIENT: &str = concat!("^\\s*(?:", phone!(), "|", jid!(), ")\\s*$");
const CHAT: &str = concat!("^\\s*(?:", phone!(), "|", jid!(), "|status@broadcast)\\s*$");

/// Something that can be read, without control characters.
const WORDS: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$";

const MOMENT: &str = "^(?:[0-9]{1,18}|(?:19[7-9][0-9]|[2-9][0-9]{3})-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:[Zz]|[+-](?:0[0-9]|1[0-4]):[0-5][0-9]))$";
