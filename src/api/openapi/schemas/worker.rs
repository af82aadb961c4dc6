//! Shapes about the worker as a whole.

use serde_json::{Value, json};

pub(super) fn all() -> Value {
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
