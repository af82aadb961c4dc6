//! Shapes of events on their way to the backend.

use serde_json::{Value, json};

pub(super) fn all() -> Value {
    let session = json!({ "$ref": "#/components/schemas/SessionId" });
    let time = json!({ "$ref": "#/components/schemas/Time" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let text = json!({ "type": "string" });
    json!({
        "FailedWebhook": {
            "type": "object",
            "required": [
                "number", "eventId", "sessionId", "seq", "type", "timestamp", "failedAt", "status", "reason", "attempts",
                "replaying", "data",
            ],
            "properties": {
                "number": { "type": "integer", "description": "Grows with each refusal; for `after`" },
                "eventId": text,
                "sessionId": session,
                "seq": count,
                "type": text,
                "timestamp": time,
                "failedAt": time,
                "status": { "type": "integer", "description": "What the backend answered" },
                "reason": text,
                "attempts": count,
                "replaying": { "type": "boolean", "description": "It is on its way again" },
                "data": { "type": "object", "description": "The event's own fields" },
            },
            "example": {
                "number": 3, "eventId": "5f0c1e7a9b2d4c68-17", "sessionId": "user123-personal", "seq": 17,
                "type": "message", "timestamp": "2024-01-15T10:30:00Z", "failedAt": "2024-01-15T10:30:01Z",
                "status": 422, "reason": "unknown field", "attempts": 1, "replaying": false,
                "data": { "id": "3EB0A1B2C3D4E5F60718AB" },
            },
        },
        "FailedWebhooks": {
            "type": "object",
            "required": ["failed", "total", "last"],
            "properties": {
                "failed": { "type": "array", "items": { "$ref": "#/components/schemas/FailedWebhook" } },
                "total": count,
                "last": { "type": "integer", "description": "Give this as `after` next time" },
            },
            "example": { "failed": [], "total": 0, "last": 0 },
        },
        "ReplayWebhooks": {
            "type": "object",
            "properties": {
                "sessionId": session,
                "eventIds": { "type": "array", "items": text, "minItems": 1, "maxItems": 1000 },
            },
            "additionalProperties": false,
            "example": { "sessionId": "user123-personal" },
        },
        "ReplayingWebhooks": {
            "type": "object",
            "required": ["replaying"],
            "properties": { "replaying": { "type": "integer", "minimum": 0, "description": "How many were taken" } },
            "example": { "replaying": 1 },
        },
    })
}
