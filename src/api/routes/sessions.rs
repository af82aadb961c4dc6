//! Routes that make, link, watch and remove sessions.

use serde_json::json;

use super::Route;
use crate::api::{
    connect,
    openapi::{Operation, Tag},
    qr, sessions,
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/sessions",
        run: |api, call| sessions::list(api, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "listSessions", "All sessions")
                .query("userId", "Only sessions of this user", json!({ "type": "string" }), "user123")
                .ok("SessionList", "The sessions, by id")
        },
    },
    Route {
        method: "POST",
        path: "/session/create",
        run: |api, call| sessions::create(api, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "createSession", "Make a session")
                .about(
                    "The session exists afterwards but is not connected. Repeating the request is harmless: the \
                     same user finds the session it made before.",
                )
                .body("CreateSession")
                .ok("SessionChanged", "The session is there")
                .ignores_unknown_fields()
                .errors(&["SESSION_OF_OTHER_USER", "SESSION_DELETING", "WORKER_FULL"])
                .store_errors()
        },
    },
    Route {
        method: "DELETE",
        path: "/session/{id}",
        run: |api, call| sessions::delete(api, call.id),
        doc: || {
            Operation::new(Tag::Sessions, "deleteSession", "Unlink the device and remove the session")
                .about(
                    "Everything that was stored under exactly this id is removed: keys, history, events, and every \
                     object. While the object store cannot be reached, its part follows later; the id is free then.",
                )
                .plain_ok("Deleted", "The session is gone")
                .session()
                .errors(&["SESSION_BUSY", "SESSION_DELETING", "SESSION_HELD_ELSEWHERE", "STORAGE_UNAVAILABLE"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/session/{id}/connect",
        run: |api, call| connect::connect(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "connectSession", "Connect to WhatsApp")
                .about(
                    "Waits up to 20 seconds for the first QR or for the login. `qr_required` comes with `qrCode`, \
                     a picture as data URL. `connecting` means: ask again. Repeating the request is harmless.",
                )
                .optional_body("Anything")
                .ok("Connection", "Where the session stands")
                .ignores_unknown_fields()
                .session()
                .errors(&["SESSION_DELETING", "SESSION_BUSY", "WORKER_EXHAUSTED", "QR_UNDRAWABLE"])
                .errors(CUSTODY_ERRORS)
                .store_errors()
        },
    },
    Route {
        method: "GET",
        path: "/session/{id}/status",
        run: |api, call| sessions::status(api, call.id),
        doc: || {
            Operation::new(Tag::Sessions, "sessionStatus", "What a session is doing")
                .ok("Session", "The session")
                .session()
        },
    },
    Route {
        method: "GET",
        path: "/session/{id}/qr",
        run: |api, call| qr::show(api, call.id, call.request),
        doc: || {
            let format = json!({ "type": "string", "enum": ["png", "raw", "json"], "default": "png" });
            Operation::new(Tag::Sessions, "sessionQr", "The QR that waits to be scanned")
                .about("A picture, the text to draw, or both with the time until which it is valid.")
                .query("format", "`png`, `raw` (plain text) or `json`", format, "json")
                .ok("Qr", "The QR, for `format=json`")
                .bare(
                    "image/png",
                    json!({ "type": "string", "contentMediaType": "image/png" }),
                    "The QR as picture",
                )
                .bare("text/plain", json!({ "type": "string" }), "The QR as text, for `format=raw`")
                .session()
                .errors(&["NO_QR", "QR_UNDRAWABLE"])
        },
    },
    Route {
        method: "POST",
        path: "/session/{id}/pair-code",
        run: |api, call| connect::pair_code(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "pairCode", "Link by a code instead of a QR")
                .about("The code is typed on the phone: Linked devices → Link with phone number instead.")
                .body("PairCodeRequest")
                .ok("PairCode", "The code to type")
                .session()
                .errors(&[
                    "WRONG_STATE",
                    "SESSION_DELETING",
                    "SESSION_NOT_CONNECTED",
                    "SESSION_BUSY",
                    "WORKER_EXHAUSTED",
                    "WHATSAPP_TIMEOUT",
                    "CONNECTION_LOST",
                    "RATE_LIMITED",
                    "RECIPIENT_NOT_ON_WHATSAPP",
                    "RECIPIENT_REFUSED",
                    "WHATSAPP_FORBIDDEN",
                    "WHATSAPP_REFUSED",
                    "INVALID_REQUEST",
                ])
                .errors(CUSTODY_ERRORS)
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/session/{id}/disconnect",
        run: |api, call| sessions::disconnect(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "disconnectSession", "Close the connection, keep the pairing")
                .optional_body("Nothing")
                .ok("SessionChanged", "The connection is closed")
                .session()
                .errors(&["SESSION_BUSY"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/session/{id}/release",
        run: |api, call| sessions::release(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "releaseSession", "Give the session away")
                .about(
                    "Disconnects, uploads what is left and releases the session's lease: any worker that shares the \
                     object store can connect it at once, without a QR. This one too.",
                )
                .optional_body("Nothing")
                .ok("SessionChanged", "The session is free")
                .session()
                .errors(&["SESSION_BUSY", "STORAGE_UNAVAILABLE"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/session/{id}/restart",
        run: |api, call| connect::restart(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "restartSession", "Disconnect and connect again")
                .about("Waits as connect does.")
                .optional_body("Nothing")
                .ok("Connection", "Where the session stands")
                .session()
                .errors(&["SESSION_DELETING", "SESSION_BUSY", "WORKER_EXHAUSTED", "QR_UNDRAWABLE"])
                .errors(CUSTODY_ERRORS)
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/session/{id}/logout",
        run: |api, call| sessions::logout(api, call.id, call.request),
        doc: || {
            Operation::new(Tag::Sessions, "logoutSession", "Unlink the device, keep the history")
                .about("Connecting afterwards needs a new scan.")
                .optional_body("Nothing")
                .ok("SessionChanged", "The device is unlinked")
                .session()
                .errors(&["SESSION_BUSY"])
                .store_errors()
        },
    },
];

/// What the object store can have against a connection.
const CUSTODY_ERRORS: &[&str] = &["SESSION_HELD_ELSEWHERE", "STORAGE_UNAVAILABLE", "ACCOUNT_DAMAGED"];
