//! Shapes of the public backend's routes.

use serde_json::{Value, json};

#[expect(clippy::too_many_lines, reason = "one document, read from top to bottom")]
pub(super) fn all() -> Value {
    let id = json!({ "$ref": "#/components/schemas/SessionId" });
    let status = json!({ "$ref": "#/components/schemas/FamilyStatus" });
    let time = json!({ "$ref": "#/components/schemas/Time" });
    let recipient = json!({ "$ref": "#/components/schemas/Recipient" });
    let phone = json!({ "type": "string", "pattern": "^\\+[0-9]{5,20}$" });
    let qr = json!({ "type": "string", "maxLength": 2000, "description": "The raw text to draw" });
    let text = json!({ "type": "string" });
    let message_id = json!({ "type": "string", "pattern": "^[!-.0-~]{1,128}$" });
    json!({
        "FamilyStatus": {
            "type": "string", "enum": ["QR_REQUIRED", "CONNECTED", "DISCONNECTED", "RECONNECTING", "ERROR"],
        },
        "FamilyConnection": {
            "type": "object",
            "required": ["sessionId", "status", "message"],
            "properties": {
                "sessionId": id, "status": status, "message": text, "qrCode": qr, "qrExpiresAt": time,
                "phoneNumber": phone, "displayName": text, "lastActivity": time, "error": text,
            },
            "example": {
                "sessionId": "u-1", "status": "QR_REQUIRED", "message": "Session started", "qrCode": "2@AbCdEf,GhIj",
                "qrExpiresAt": "2024-01-15T10:31:00Z",
            },
        },
        "FamilySession": {
            "type": "object",
            "required": ["sessionId", "status", "userId", "ready", "createdAt", "updatedAt"],
            "properties": {
                "sessionId": id, "status": status, "userId": text, "sessionName": text, "phoneNumber": phone,
                "displayName": text, "lastActivity": time, "lid": text, "connectedSince": time, "qrCode": qr,
                "qrExpiresAt": time, "passkeyOptions": {}, "ready": { "type": "boolean" }, "createdAt": time,
                "updatedAt": time, "error": text,
            },
            "example": {
                "sessionId": "u-1", "status": "CONNECTED", "userId": "u", "phoneNumber": "+6281234567890",
                "lastActivity": "2024-01-15T10:30:00Z", "ready": true, "createdAt": "2024-01-15T10:00:00Z",
                "updatedAt": "2024-01-15T10:29:00Z",
            },
        },
        "FamilySessionList": {
            "type": "object",
            "required": ["total", "sessions"],
            "properties": {
                "total": { "type": "integer", "minimum": 0 },
                "sessions": { "type": "array", "items": { "$ref": "#/components/schemas/FamilySession" } },
            },
            "example": { "total": 0, "sessions": [] },
        },
        "FamilyChanged": {
            "type": "object",
            "required": ["sessionId", "status", "message"],
            "properties": {
                "sessionId": id, "status": status, "message": text, "unlinked": { "type": "boolean" },
            },
            "example": {
                "sessionId": "u-1", "status": "DISCONNECTED", "message": "Session disconnected; the pairing is kept",
            },
        },
        "FamilySend": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["to", "type", "message"],
                    "properties": {
                        "to": recipient,
                        "type": { "const": "text" },
                        "message": { "type": "string", "minLength": 1, "maxLength": 65_536 },
                    },
                },
                {
                    "type": "object",
                    "required": ["to", "type", "messageId"],
                    "properties": { "to": recipient, "type": { "const": "seen" }, "messageId": message_id },
                },
            ],
            "example": { "to": "6281200000002@s.whatsapp.net", "type": "text", "message": "Hello World!" },
        },
        "FamilySent": {
            "type": "object",
            "required": ["messageId", "status", "timestamp", "to", "type"],
            "properties": {
                "messageId": text,
                "status": { "type": "string", "enum": ["sent", "pending", "seen"] },
                "timestamp": time,
                "to": text,
                "type": { "type": "string", "enum": ["TEXT", "SEEN"] },
                "message": text,
            },
            "example": {
                "messageId": "3EB0A1B2C3D4E5F60718AB", "status": "sent", "timestamp": "2024-01-15T10:30:00Z",
                "to": "6281200000002@s.whatsapp.net", "type": "TEXT", "message": "Hello World!",
            },
        },
        "FamilyManage": {
            "type": "object",
            "required": ["action", "messageId", "phone"],
            "properties": {
                "action": { "const": "read" },
                "messageId": message_id,
                "phone": recipient,
                "jid": { "description": "Says what `phone` says; ignored" },
                "messageKey": { "description": "Says what `phone` and `messageId` say; ignored" },
            },
            "example": {
                "action": "read", "messageId": "3EB0A1B2C3D4E5F60718AB", "phone": "6281200000002@s.whatsapp.net",
            },
        },
        "FamilyManaged": {
            "type": "object",
            "required": ["messageId", "action", "status", "success", "remoteJid", "timestamp"],
            "properties": {
                "messageId": text, "action": { "const": "read" }, "status": { "const": "read" },
                "success": { "const": true }, "remoteJid": text, "timestamp": time,
            },
            "example": {
                "messageId": "3EB0A1B2C3D4E5F60718AB", "action": "read", "status": "read", "success": true,
                "remoteJid": "6281200000002@s.whatsapp.net", "timestamp": "2024-01-15T10:30:00Z",
            },
        },
    })
}
