//! The named shapes of bodies and answers, each with an example.

use serde_json::{Map, Value, json};

/// All of them, by name.
pub(super) fn all() -> Map<String, Value> {
    let groups = [common(), worker(), sessions(), messages()];
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

fn worker() -> Value {
    let percent = json!({ "type": "number", "minimum": 0, "maximum": 100 });
    let count = json!({ "type": "integer", "minimum": 0 });
    json!({
        "Health": {
            "type": "object",
            "required": ["status", "sessionCount", "cpuUsage", "memoryUsage", "uptime", "maxSessions"],
            "properties": {
                "status": { "type": "string", "enum": ["online", "draining", "degraded"] },
                "sessionCount": count,
                "cpuUsage": percent,
                "memoryUsage": percent,
                "uptime": count,
                "maxSessions": count,
            },
            "example": {
                "status": "online", "sessionCount": 25, "cpuUsage": 45.5, "memoryUsage": 67.8, "uptime": 3600,
                "maxSessions": 50,
            },
        },
        "Ready": {
            "type": "object",
            "required": ["ready", "sessionCount", "connectedCount"],
            "properties": { "ready": { "const": true }, "sessionCount": count, "connectedCount": count },
            "example": { "ready": true, "sessionCount": 25, "connectedCount": 24 },
        },
    })
}

fn sessions() -> Value {
    let words = json!({ "type": "string", "pattern": WORDS, "maxLength": 255 });
    let or_null = json!({ "type": ["string", "null"], "pattern": WORDS, "maxLength": 255 });
    let id = json!({ "$ref": "#/components/schemas/SessionId" });
    let status = json!({ "$ref": "#/components/schemas/SessionStatus" });
    let time = json!({ "$ref": "#/components/schemas/Time" });
    let phone = json!({ "type": "string", "pattern": "^\\+[0-9]{5,20}$" });
    let unlinked = json!({
        "type": "boolean",
        "description": "After a logout or deletion: WhatsApp confirmed that the device is unlinked. `false`: remove it \
                        on the phone",
    });
    let qr = json!({ "type": "string", "pattern": "^data:image/png;base64,", "maxLength": 2000 });
    json!({
        "CreateSession": {
            "type": "object",
            "required": ["sessionId", "userId"],
            "properties": { "sessionId": id, "userId": words, "sessionName": or_null },
            "example": { "sessionId": "user123-personal", "userId": "user123", "sessionName": "Personal WhatsApp" },
        },
        "SessionChanged": {
            "type": "object",
            "required": ["sessionId", "status", "message"],
            "properties": {
                "sessionId": id, "status": status, "message": { "type": "string" }, "unlinked": unlinked,
            },
            "example": {
                "sessionId": "user123-personal", "status": "disconnected", "message": "Session created successfully",
            },
        },
        "Deleted": {
            "type": "object",
            "required": ["success", "message"],
            "properties": { "success": { "const": true }, "message": { "type": "string" }, "unlinked": unlinked },
            "example": { "success": true, "message": "Session deleted successfully", "unlinked": true },
        },
        "Connection": {
            "type": "object",
            "required": ["sessionId", "status"],
            "properties": {
                "sessionId": id,
                "status": status,
                "qrCode": qr,
                "qrExpiresAt": time,
                "phoneNumber": phone,
                "error": { "type": "string", "description": "Why the status is what it is, in words" },
            },
            "example": {
                "sessionId": "user123-personal", "status": "qr_required",
                "qrCode": "data:image/png;base64,iVBORw0KGgo=", "qrExpiresAt": "2024-01-15T10:31:00Z",
            },
        },
        "Session": {
            "type": "object",
            "required": ["sessionId", "status", "userId", "ready", "createdAt", "updatedAt"],
            "properties": {
                "sessionId": id,
                "status": status,
                "phoneNumber": phone,
                "lastActivity": time,
                "userId": { "type": "string" },
                "sessionName": { "type": "string" },
                "displayName": { "type": "string", "description": "The account's own name on WhatsApp" },
                "lid": { "type": "string" },
                "connectedSince": time,
                "qrExpiresAt": time,
                "passkeyOptions": { "description": "WebAuthn request options, while WhatsApp waits for a passkey" },
                "error": { "type": "string", "description": "Why the status is what it is, in words" },
                "ready": { "type": "boolean", "description": "What waited while we were offline has been delivered" },
                "createdAt": time,
                "updatedAt": time,
            },
            "example": {
                "sessionId": "user123-personal", "status": "connected", "phoneNumber": "+6281234567890",
                "lastActivity": "2024-01-15T10:30:00Z", "userId": "user123", "ready": true,
                "createdAt": "2024-01-15T10:00:00Z", "updatedAt": "2024-01-15T10:29:00Z",
            },
        },
        "SessionList": {
            "type": "object",
            "required": ["total", "sessions"],
            "properties": {
                "total": { "type": "integer", "minimum": 0 },
                "sessions": { "type": "array", "items": { "$ref": "#/components/schemas/Session" } },
            },
            "example": { "total": 0, "sessions": [] },
        },
        "Qr": {
            "type": "object",
            "required": ["sessionId", "status", "qr", "qrCode", "expiresAt"],
            "properties": {
                "sessionId": id, "status": status, "qr": { "type": "string" }, "qrCode": qr, "expiresAt": time,
            },
            "example": {
                "sessionId": "demo", "status": "qr_required", "qr": "2@AbCdEf,GhIjKl,MnOpQr,StUvWx",
                "qrCode": "data:image/png;base64,iVBORw0KGgo=", "expiresAt": "2024-01-15T10:31:00Z",
            },
        },
        "PairCodeRequest": {
            "type": "object",
            "required": ["phoneNumber"],
            "properties": { "phoneNumber": { "type": "string", "pattern": PHONE } },
            "additionalProperties": false,
            "example": { "phoneNumber": "+6281200000001" },
        },
        "PairCode": {
            "type": "object",
            "required": ["sessionId", "pairingCode", "expiresAt"],
            "properties": {
                "sessionId": id,
                "pairingCode": { "type": "string", "pattern": "^[0-9A-Z]{4}-[0-9A-Z]{4}$" },
                "expiresAt": time,
            },
            "example": { "sessionId": "demo", "pairingCode": "ABCD-1234", "expiresAt": "2024-01-15T10:33:00Z" },
        },
    })
}

fn messages() -> Value {
    let status = json!({ "$ref": "#/components/schemas/MessageStatus" });
    let time = json!({ "$ref": "#/components/schemas/Time" });
    let text = json!({ "type": "string" });
    json!({
        "SendMessage": {
            "type": "object",
            "required": ["to", "type", "message"],
            "properties": {
                "to": { "$ref": "#/components/schemas/Recipient" },
                "type": { "const": "text", "description": "This version sends text" },
                "message": {
                    "type": "string", "minLength": 1, "maxLength": 65_536,
                    "description": "At most 65,536 bytes of UTF-8",
                },
            },
            "example": { "to": "6281200000002@s.whatsapp.net", "type": "text", "message": "Hello World!" },
        },
        "Sent": {
            "type": "object",
            "required": ["messageId", "status", "timestamp"],
            "properties": {
                "messageId": text,
                "status": { "type": "string", "enum": ["sent", "pending"] },
                "timestamp": time,
            },
            "example": {
                "messageId": "3EB0A1B2C3D4E5F60718AB", "status": "sent", "timestamp": "2024-01-15T10:30:00Z",
            },
        },
        "Message": {
            "type": "object",
            "required": ["id", "from", "to", "type", "content", "timestamp", "status", "chat", "fromMe"],
            "properties": {
                "id": text,
                "from": text,
                "to": text,
                "type": { "type": "string", "description": "`text`, `image`, `reaction`, `edit`, `revoke`, …" },
                "content": { "type": "string", "description": "Text, caption or emoji; empty when there is none" },
                "timestamp": time,
                "status": status,
                "chat": text,
                "fromMe": { "type": "boolean" },
                "senderName": text,
                "targetId": { "type": "string", "description": "The message that is edited, revoked or reacted to" },
                "deliveredAt": time,
                "readAt": time,
                "playedAt": time,
                "error": { "type": "string", "description": "Why it failed" },
            },
            "example": {
                "id": "3EB0A1B2C3D4E5F60718AB", "from": "6281234567890@s.whatsapp.net",
                "to": "6289876543210@s.whatsapp.net", "type": "text", "content": "Hello!",
                "timestamp": "2024-01-15T10:30:00Z", "status": "delivered", "chat": "6289876543210@s.whatsapp.net",
                "fromMe": true, "deliveredAt": "2024-01-15T10:30:01Z",
            },
        },
        "MessagePage": {
            "type": "object",
            "required": ["messages", "pagination"],
            "properties": {
                "messages": { "type": "array", "items": { "$ref": "#/components/schemas/Message" } },
                "pagination": {
                    "type": "object",
                    "required": ["total", "limit", "offset"],
                    "properties": {
                        "total": { "type": "integer", "minimum": 0 },
                        "limit": { "type": "integer", "minimum": 1 },
                        "offset": { "type": "integer", "minimum": 0 },
                    },
                },
            },
            "example": { "messages": [], "pagination": { "total": 0, "limit": 50, "offset": 0 } },
        },
        "Event": {
            "type": "object",
            "required": ["seq", "eventId", "type", "timestamp", "data"],
            "properties": {
                "seq": { "type": "integer", "minimum": 1, "description": "1, 2, 3, … without gaps" },
                "eventId": { "type": "string", "description": "The same in every delivery" },
                "type": { "type": "string", "description": "`session-status`, `message`, `message-status`, …" },
                "timestamp": time,
                "data": { "type": ["object", "null"] },
            },
            "example": {
                "seq": 7, "eventId": "0123456789abcdef-7", "type": "session-status",
                "timestamp": "2024-01-15T10:30:00Z", "data": { "status": "connected" },
            },
        },
        "EventPage": {
            "type": "object",
            "required": ["events", "lastSeq"],
            "properties": {
                "events": { "type": "array", "items": { "$ref": "#/components/schemas/Event" } },
                "gone": {
                    "type": "object",
                    "description": "Numbers after `after` that are no longer kept",
                    "required": ["from", "to"],
                    "properties": { "from": { "type": "integer" }, "to": { "type": "integer" } },
                },
                "lastSeq": { "type": "integer", "minimum": 0 },
            },
            "example": { "events": [], "lastSeq": 7 },
        },
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
