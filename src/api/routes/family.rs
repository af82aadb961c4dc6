//! The `/api/…` routes of the public backend.

use super::{Route, messages::SEND_ERRORS};
use crate::api::{
    family,
    openapi::{Operation, Tag},
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/sessions",
        run: |api, _| family::list(api),
        doc: || {
            Operation::new(Tag::Family, "familyList", "All sessions")
                .mirrored("FamilySessionList", "The sessions")
        },
    },
    Route {
        method: "POST",
        path: "/api/sessions/start",
        run: |api, call| family::start(api, call.request),
        doc: || {
            Operation::new(Tag::Family, "familyStart", "Make a session if need be, and connect it")
                .about(
                    "Waits up to 15 seconds for the first QR or for the login. Repeating the request is harmless. \
                     `RECONNECTING` means: on the way, the state follows by webhook.",
                )
                .body("CreateSession")
                .mirrored("FamilyConnection", "The session was there")
                .mirrored_as(201, "FamilyConnection", "The session is new")
                .ignores_unknown_fields()
                .errors(&["SESSION_OF_OTHER_USER", "WORKER_FULL"])
                .errors(START_ERRORS)
                .store_errors()
        },
    },
    Route {
        method: "GET",
        path: "/api/sessions/{id}/status",
        run: |api, call| family::status(api, call.id),
        doc: || {
            Operation::new(Tag::Family, "familyStatus", "What a session is doing")
                .mirrored("FamilySession", "The session")
                .session()
        },
    },
    Route {
        method: "POST",
        path: "/api/sessions/{id}/restart",
        run: |api, call| family::restart(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Family, "familyRestart", "Disconnect and connect again")
                .about("Waits as start does.")
                .optional_body("Anything")
                .mirrored("FamilyConnection", "Where the session stands")
                .ignores_unknown_fields()
                .session()
                .errors(START_ERRORS)
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/api/sessions/{id}/disconnect",
        run: |api, call| family::disconnect(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Family, "familyDisconnect", "Close the connection, keep the pairing")
                .optional_body("Anything")
                .mirrored("FamilyChanged", "The connection is closed")
                .ignores_unknown_fields()
                .session()
                .errors(&["SESSION_BUSY"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/api/sessions/{id}/logout",
        run: |api, call| family::logout(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Family, "familyLogout", "Unlink the device, keep the history")
                .optional_body("Anything")
                .mirrored("FamilyChanged", "The device is unlinked")
                .ignores_unknown_fields()
                .session()
                .errors(&["SESSION_BUSY"])
                .store_errors()
        },
    },
    Route {
        method: "DELETE",
        path: "/api/sessions/{id}",
        run: |api, call| family::delete(api, call.id),
        doc: || {
            Operation::new(Tag::Family, "familyDelete", "Unlink the device and remove the session")
                .plain_ok("Deleted", "The session is gone")
                .session()
                .errors(&["SESSION_BUSY"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/api/{id}/send",
        run: |api, call| family::send(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Family, "familySend", "Send a message")
                .about(
                    "`text` and `seen`; the other ten types of the backend are answered with `NOT_SUPPORTED`. Equal \
                     bodies within `SEND_DEDUPE_WINDOW` (100 seconds) are one message and get the same answer.",
                )
                .idempotency_key()
                .body("FamilySend")
                .mirrored("FamilySent", "WhatsApp's server has the message")
                .mirrored_as(202, "FamilySent", "The message is stored and under way")
                .ignores_unknown_fields()
                .replays()
                .session()
                .errors(SEND_ERRORS)
                .errors(&["MESSAGE_NOT_FOUND", "WHATSAPP_TIMEOUT", "CONNECTION_LOST"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/api/message/{id}/manage",
        run: |api, call| family::manage(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Family, "familyManage", "Do something with a message")
                .about("`read`; the other six actions of the backend are answered with `NOT_SUPPORTED`.")
                .body("FamilyManage")
                .mirrored("FamilyManaged", "Done")
                .ignores_unknown_fields()
                .session()
                .errors(&[
                    "NOT_SUPPORTED",
                    "MESSAGE_NOT_FOUND",
                    "SESSION_NOT_CONNECTED",
                    "WRONG_STATE",
                    "INVALID_REQUEST",
                    "SESSION_BUSY",
                    "WHATSAPP_TIMEOUT",
                    "CONNECTION_LOST",
                ])
                .store_errors()
        },
    },
];

/// What can keep a session from being started.
const START_ERRORS: &[&str] = &["SESSION_DELETING", "SESSION_BUSY", "WORKER_EXHAUSTED"];
