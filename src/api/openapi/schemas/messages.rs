//! Shapes of messages and events.

use serde_json::{Value, json};

#[expect(clippy::too_many_lines, reason = "one document, read from top to bottom")]
pub(super) fn all() -> Value {
    let status = json!({ "$ref": "#/components/schemas/MessageStatus" });
    let time = json!({ "$ref": "#/components/schemas/Time" });
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "minimum": 0 });
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
        "MessageProgress": {
            "allOf": [
                { "$ref": "#/components/schemas/Message" },
                {
                    "type": "object",
                    "required": ["history"],
                    "properties": {
                        "history": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["status", "timestamp"],
                                "properties": { "status": status, "timestamp": time, "error": text },
                            },
                        },
                        "receipts": {
                            "type": "object",
                            "description": "In groups, of messages of this account",
                            "required": ["delivered", "read", "played", "participants"],
                            "properties": {
                                "delivered": count,
                                "read": count,
                                "played": count,
                                "participants": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["participant", "status"],
                                        "properties": {
                                            "participant": text, "status": status, "deliveredAt": time,
                                            "readAt": time, "playedAt": time,
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            ],
            "example": {
                "id": "3EB0A1B2C3D4E5F60718AB", "from": "6281234567890@s.whatsapp.net",
                "to": "120363000000000001@g.us", "type": "text", "content": "Hello!",
                "timestamp": "2024-01-15T10:30:00Z", "status": "read", "chat": "120363000000000001@g.us",
                "fromMe": true, "deliveredAt": "2024-01-15T10:30:02Z", "readAt": "2024-01-15T10:31:00Z",
                "history": [
                    { "status": "pending", "timestamp": "2024-01-15T10:30:00Z" },
                    { "status": "sent", "timestamp": "2024-01-15T10:30:01Z" },
                    { "status": "delivered", "timestamp": "2024-01-15T10:30:02Z" },
                    { "status": "read", "timestamp": "2024-01-15T10:31:00Z" },
                ],
                "receipts": {
                    "delivered": 2, "read": 1, "played": 0,
                    "participants": [
                        {
                            "participant": "6281200000002@s.whatsapp.net", "status": "read",
                            "deliveredAt": "2024-01-15T10:30:02Z", "readAt": "2024-01-15T10:31:00Z",
                        },
                        {
                            "participant": "6281200000003@s.whatsapp.net", "status": "delivered",
                            "deliveredAt": "2024-01-15T10:30:03Z",
                        },
                    ],
                },
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
