//! Shapes of sessions.

use serde_json::{Value, json};

use super::{PHONE, WORDS};

#[expect(clippy::too_many_lines, reason = "one document, read from top to bottom")]
pub(super) fn all() -> Value {
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
        "Drained": {
            "type": "object",
            "required": ["drained", "failed", "sessions"],
            "properties": {
                "drained": { "type": "integer", "minimum": 0 },
                "failed": { "type": "integer", "minimum": 0 },
                "sessions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["sessionId", "released", "pendingMessages"],
                        "properties": {
                            "sessionId": id,
                            "released": { "type": "boolean" },
                            "pendingMessages": {
                                "type": "integer", "minimum": 0,
                                "description": "Messages WhatsApp has not taken yet; the next owner sends them",
                            },
                            "error": { "type": "string", "description": "Why it could not be released" },
                        },
                    },
                },
            },
            "example": {
                "drained": 1, "failed": 0,
                "sessions": [{ "sessionId": "demo", "released": true, "pendingMessages": 0 }],
            },
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
