//! Every word an error can carry, with its status and what it means.

/// One word.
pub(super) struct Code {
    /// HTTP status it comes with.
    pub(super) status: u16,
    /// The stable word.
    pub(super) word: &'static str,
    /// What it means, and what helps.
    pub(super) meaning: &'static str,
}

/// The entry of a word.
#[cfg(test)]
pub(super) fn find(word: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.word == word)
}

const fn code(status: u16, word: &'static str, meaning: &'static str) -> Code {
    Code { status, word, meaning }
}

/// All words, by status.
pub(super) const CODES: &[Code] = &[
    code(400, "BAD_REQUEST", "The request is not well-formed HTTP"),
    code(400, "BAD_PATH", "The path or query holds a broken or forbidden percent escape"),
    code(400, "INVALID_JSON", "The body is not a JSON object"),
    code(
        400,
        "INVALID_FIELD",
        "A field, parameter or id is missing or not as it must be; `details.field` names it",
    ),
    code(
        400,
        "NOT_SUPPORTED",
        "A type or action that this version does not have; `details.supported` lists those it has",
    ),
    code(400, "INVALID_REQUEST", "WhatsApp's protocol has no way to do this"),
    code(401, "UNAUTHORIZED", "The bearer token is missing or wrong"),
    code(403, "FORBIDDEN_ORIGIN", "Without a token only direct local requests are answered"),
    code(403, "WHATSAPP_FORBIDDEN", "WhatsApp forbids this to this account"),
    code(404, "ROUTE_NOT_FOUND", "There is nothing at this path"),
    code(404, "SESSION_NOT_FOUND", "There is no session of this id"),
    code(404, "MESSAGE_NOT_FOUND", "There is no message of this id"),
    code(405, "METHOD_NOT_ALLOWED", "The path answers other methods; `Allow` lists them"),
    code(408, "REQUEST_TIMEOUT", "The request did not arrive in time"),
    code(409, "SESSION_OF_OTHER_USER", "The session id belongs to another user"),
    code(409, "NO_BACKEND", "No backend is configured, so nothing is sent anywhere"),
    code(409, "SESSION_NOT_CONNECTED", "The session has no connection to WhatsApp; connect it first"),
    code(409, "SESSION_DELETING", "The session is being deleted"),
    code(
        409,
        "SESSION_HELD_ELSEWHERE",
        "Another worker holds the session; `details` names it and says until when",
    ),
    code(
        409,
        "ACCOUNT_DAMAGED",
        "What is stored of the account cannot be used; a copy is kept under `quarantine/`",
    ),
    code(409, "WRONG_STATE", "Not possible in the session's state; `error` says why"),
    code(409, "NO_QR", "No QR waits to be scanned; `details.status` says where the session stands"),
    code(409, "REQUEST_UNDER_WAY", "The first request with this key is still under way"),
    code(413, "BODY_TOO_LARGE", "The body is longer than `WORKER_HTTP_MAX_BODY`"),
    code(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be `application/json`"),
    code(417, "EXPECTATION_FAILED", "Only `Expect: 100-continue` is understood"),
    code(422, "IDEMPOTENCY_KEY_REUSED", "This `Idempotency-Key` was used for another request"),
    code(422, "MESSAGE_FAILED", "The message of an earlier, equal request failed; `error` says why"),
    code(422, "RECIPIENT_NOT_ON_WHATSAPP", "The recipient has no WhatsApp device"),
    code(422, "RECIPIENT_REFUSED", "WhatsApp does not accept this recipient"),
    code(422, "RECIPIENT_RESTRICTED", "WhatsApp does not let this account write to this recipient now"),
    code(422, "WHATSAPP_REFUSED", "WhatsApp refused; `details.whatsappCode` is its number"),
    code(429, "RATE_LIMITED", "WhatsApp asks to slow down; wait for `Retry-After` seconds"),
    code(431, "HEAD_TOO_LARGE", "The request head is longer than 16 KiB or has more than 100 fields"),
    code(500, "INTERNAL_ERROR", "A bug of the worker; its log has the details"),
    code(503, "OVERLOADED", "Too many requests at this moment; nothing was started"),
    code(503, "WORKER_FULL", "The worker has as many sessions as it may"),
    code(503, "WORKER_STOPPING", "The worker is stopping"),
    code(503, "WORKER_EXHAUSTED", "The operating system refused a thread"),
    code(503, "SESSION_BUSY", "The session has too much to do; nothing was started"),
    code(503, "QUEUE_FULL", "Too many messages of this session wait for WhatsApp; nothing was accepted"),
    code(503, "STORE_FAILED", "The worker's local store failed; nothing was accepted"),
    code(503, "STORAGE_UNAVAILABLE", "The object store cannot be used; nothing was started"),
    code(503, "QR_UNDRAWABLE", "The QR cannot be drawn; wait for the next one"),
    code(503, "WHATSAPP_TIMEOUT", "WhatsApp did not answer in time; nothing was sent"),
    code(503, "CONNECTION_LOST", "The connection to WhatsApp went away before the answer; nothing was sent"),
    code(505, "HTTP_VERSION", "Only HTTP/1.0 and HTTP/1.1 are understood"),
    code(507, "DISK_FULL", "The worker's disk is full; nothing was accepted"),
];
