//! Its validators: unknown fields are dropped and never wrong, numbers may come as text, null only where it is named.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::common::backend::rules::{Checks, endpoint, name, one_of, or_null, phone, text, time};

const SESSION_WORDS: [&str; 6] =
    ["INIT", "QR_REQUIRED", "CONNECTED", "DISCONNECTED", "RECONNECTING", "ERROR"];
const ENVIRONMENTS: [&str; 4] = ["DEVELOPMENT", "STAGING", "TESTING", "PRODUCTION"];

pub(super) fn register(body: &mut Checks<'_>) {
    body.required("workerId", name(3..=50), "3 to 50 of A-Z a-z 0-9 _ -")
        .required("endpoint", endpoint, "a URI of http or https")
        .optional("maxSessions", integer(1..=1000), "a whole number from 1 to 1000")
        .optional("description", text(1..=255), "1 to 255 characters")
        .optional("version", version, "three numbers and two dots")
        .optional("environment", one_of(ENVIRONMENTS), "one of its words");
}

pub(super) fn heartbeat(body: &mut Checks<'_>) {
    body.each("sessions", |session| {
        session
            .required("sessionId", text(1..=100), "1 to 100 characters")
            .required("status", one_of(SESSION_WORDS), "one of its words")
            .optional("phoneNumber", phone, "a phone number")
            .optional("lastActivity", time, "a time");
    })
    .inside("capabilities", |capabilities| {
        capabilities
            .optional("maxSessions", integer(1..=1000), "a whole number from 1 to 1000")
            .optional("version", version, "three numbers and two dots")
            .optional("environment", one_of(ENVIRONMENTS), "one of its words")
            .optional("supportedFeatures", texts, "a list of texts");
    })
    .inside("metrics", |metrics| {
        metrics
            .optional("cpuUsage", percent, "0 to 100")
            .optional("memoryUsage", percent, "0 to 100")
            .optional("uptime", integer(0..=u64::MAX), "a whole number")
            .optional("messageCount", integer(0..=u64::MAX), "a whole number")
            .optional("totalSessions", integer(0..=u64::MAX), "a whole number")
            .optional("activeSessions", integer(0..=u64::MAX), "a whole number");
    })
    .optional("lastActivity", time, "a time");
}

pub(super) fn recovery_status(body: &mut Checks<'_>) {
    body.each("recoveryResults", |result| {
        result
            .required("sessionId", text(1..=100), "a session id")
            .required("status", one_of(["SUCCESS", "FAILED", "SKIPPED"]), "one of its words")
            .optional("error", text(0..=usize::MAX), "a text")
            .optional("recoveredAt", time, "a time");
    })
    .required("totalSessions", integer(0..=u64::MAX), "a whole number")
    .required("successfulRecoveries", integer(0..=u64::MAX), "a whole number")
    .required("failedRecoveries", integer(0..=u64::MAX), "a whole number");
}

pub(super) fn session_status(body: &mut Checks<'_>) {
    let trimmed =
        |value: &Value| value.as_str().is_some_and(|text| (1..=100).contains(&text.trim().chars().count()));
    body.required("sessionId", name(1..=100), "1 to 100 of A-Z a-z 0-9 _ -")
        .required("status", one_of(SESSION_WORDS), "one of its words")
        .optional("qrCode", or_null(text(1..=2000)), "1 to 2000 characters or null")
        .optional("phoneNumber", or_null(phone), "a phone number or null")
        .optional("displayName", or_null(trimmed), "1 to 100 characters or null")
        .optional("workerId", or_null(name(1..=50)), "at most 50 of A-Z a-z 0-9 _ - or null")
        .optional("timestamp", or_null(time), "a time or null");
}

pub(super) fn message_status(body: &mut Checks<'_>) {
    body.required("sessionId", name(1..=100), "a session id")
        .required("messageId", name(1..=100), "1 to 100 of A-Z a-z 0-9 _ -")
        .required("status", one_of(["PENDING", "SENT", "DELIVERED", "READ", "FAILED"]), "one of its words")
        .optional("timestamp", time, "a time")
        .optional("deliveredAt", time, "a time")
        .optional("readAt", time, "a time")
        .optional("errorMessage", text(0..=500), "at most 500 characters");
}

pub(super) fn worker_heartbeat(body: &mut Checks<'_>) {
    body.required("workerId", name(1..=50), "a worker id")
        .required("status", one_of(["ONLINE", "OFFLINE", "MAINTENANCE"]), "one of its words")
        .optional("sessionCount", integer(0..=10_000), "0 to 10000")
        .optional("cpuUsage", percent, "0 to 100")
        .optional("memoryUsage", percent, "0 to 100")
        .optional("uptime", integer(0..=u64::MAX), "a whole number")
        .optional("activeConnections", integer(0..=10_000), "0 to 10000")
        .optional("timestamp", time, "a time");
}

/// A whole number, also as text.
fn integer(range: RangeInclusive<u64>) -> impl Fn(&Value) -> bool {
    move |value| {
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        number.is_some_and(|number| range.contains(&number))
    }
}

fn percent(value: &Value) -> bool {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.is_some_and(|number| (0.0..=100.0).contains(&number))
}

fn version(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        let parts: Vec<&str> = text.split('.').collect();
        parts.len() == 3
            && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn texts(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
}
