//! Routes for messages and events of a session.

use serde_json::json;

use super::Route;
use crate::api::{
    events, messages,
    openapi::{Operation, Tag},
    progress, send,
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/session/{id}/send",
        run: |api, call| send::send(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Messages, "sendMessage", "Send a message")
                .about(
                    "200 `sent`: WhatsApp's server has the message. 202 `pending`: it is stored and under way, the \
                     outcome comes as an event and in the message's status. Once a message may have left, the answer \
                     is never a 5xx, so repeating on 5xx never sends twice.",
                )
                .idempotency_key()
                .body("SendMessage")
                .ok("Sent", "WhatsApp's server has the message")
                .answer(202, "Sent", "The message is stored and under way")
                .ignores_unknown_fields()
                .replays()
                .session()
                .errors(SEND_ERRORS)
                .store_errors()
        },
    },
    Route {
        method: "GET",
        path: "/session/{id}/messages",
        run: |api, call| messages::list(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Messages, "listMessages", "History, newest first")
                .query(
                    "limit",
                    "Page size",
                    json!({ "type": "integer", "minimum": 1, "maximum": 500, "default": 50 }),
                    50,
                )
                .query(
                    "offset",
                    "Messages to skip",
                    json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX, "default": 0 }),
                    0,
                )
                .query(
                    "chat",
                    "Only this chat: a phone number or a JID",
                    json!({ "$ref": "#/components/schemas/Chat" }),
                    "6281200000002",
                )
                .query(
                    "before",
                    "Only messages before this time (RFC 3339 or Unix seconds)",
                    json!({ "$ref": "#/components/schemas/Moment" }),
                    "2030-01-15T10:30:00Z",
                )
                .query(
                    "after",
                    "Only messages after this time (RFC 3339 or Unix seconds)",
                    json!({ "$ref": "#/components/schemas/Moment" }),
                    "2024-01-15T10:30:00Z",
                )
                .ok("MessagePage", "A page of messages; `total` counts everything that matches")
                .session()
                .store_errors()
        },
    },
    Route {
        method: "GET",
        path: "/session/{id}/messages/{messageId}",
        run: |api, call| progress::show(api, call.id, call.message_id, call.request),
        doc: || {
            Operation::new(Tag::Messages, "messageStatus", "One message and everything known of its way")
                .about(
                    "`history` is every status that was reached and when. In a group, `receipts` counts members and \
                     lists what each of them did; there the message's own `status` is the best of all.",
                )
                .query(
                    "chat",
                    "Only in this chat; ids are unique within one",
                    json!({ "$ref": "#/components/schemas/Chat" }),
                    "6281200000002",
                )
                .ok("MessageProgress", "The message")
                .session()
                .errors(&["MESSAGE_NOT_FOUND"])
                .store_errors()
        },
    },
    Route {
        method: "GET",
        path: "/session/{id}/events",
        run: |api, call| events::list(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Messages, "listEvents", "Everything that happened, without gaps")
                .about(
                    "Give the `lastSeq` of an answer as `after` of the next request. With `wait` the answer comes as \
                     soon as there is something new.",
                )
                .query(
                    "after",
                    "Events with a greater number",
                    json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX - 1, "default": 0 }),
                    0,
                )
                .query(
                    "wait",
                    "Seconds to wait for the first event",
                    json!({ "type": "integer", "minimum": 0, "maximum": 60, "default": 0 }),
                    0,
                )
                .query(
                    "limit",
                    "Most events in the answer",
                    json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
                    100,
                )
                .ok("EventPage", "The events")
                .session()
                .store_errors()
        },
    },
];

/// What can keep a message from being sent.
pub(super) const SEND_ERRORS: &[&str] = &[
    "NOT_SUPPORTED",
    "MESSAGE_FAILED",
    "SESSION_NOT_CONNECTED",
    "WRONG_STATE",
    "REQUEST_UNDER_WAY",
    "RECIPIENT_NOT_ON_WHATSAPP",
    "RECIPIENT_REFUSED",
    "RECIPIENT_RESTRICTED",
    "WHATSAPP_REFUSED",
    "WHATSAPP_FORBIDDEN",
    "IDEMPOTENCY_KEY_REUSED",
    "RATE_LIMITED",
    "INVALID_REQUEST",
    "SESSION_BUSY",
    "QUEUE_FULL",
];
