//! From method and path to a handler: one `match`.
//!
//! The guide's seven routes are `/health`, `/session/create`, `/session/{id}` (DELETE) and
//! `/session/{id}/{connect,status,send,messages}`; the others are ours. The backend's `/api/…` family joins here
//! later as more arms onto the same handlers.

use super::{
    Api, connect, events, health,
    http::Request,
    messages, metrics, qr,
    respond::{Answer, ApiError},
    send, sessions,
};

/// Checks who asks, finds the handler and runs it.
pub(super) fn answer(api: &Api, request: &Request) -> Answer {
    let path = request.path();
    if path.as_slice() != ["health"] {
        api.auth.check(request)?;
    }
    // The server leaves out the body of an answer to HEAD.
    let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
    match (method, path.as_slice()) {
        ("GET", ["health"]) => health::health(api),
        ("GET", ["ready"]) => health::ready(api),
        ("GET", ["metrics"]) => metrics::show(api),
        ("GET", ["sessions"]) => sessions::list(api, request),
        ("POST", ["session", "create"]) => sessions::create(api, request),
        ("DELETE", ["session", id]) => sessions::delete(api, id),
        ("GET", ["session", id, "status"]) => sessions::status(api, id),
        ("POST", ["session", id, "connect"]) => connect::connect(api, id, request),
        ("POST", ["session", id, "restart"]) => connect::restart(api, id, request),
        ("POST", ["session", id, "pair-code"]) => connect::pair_code(api, id, request),
        ("POST", ["session", id, "disconnect"]) => sessions::disconnect(api, id, request),
        ("POST", ["session", id, "logout"]) => sessions::logout(api, id, request),
        ("GET", ["session", id, "qr"]) => qr::show(api, id, request),
        ("POST", ["session", id, "send"]) => send::send(api, id, request),
        ("GET", ["session", id, "messages"]) => messages::list(api, id, request),
        ("GET", ["session", id, "events"]) => events::list(api, id, request),
        (_, path) => Err(no_route(path)),
    }
}

/// 405 for a path that exists, 404 for one that does not.
fn no_route(path: &[&str]) -> ApiError {
    let allow = match path {
        ["health" | "ready" | "metrics" | "sessions"] => "GET, HEAD",
        ["session", "create"] => "POST",
        ["session", _] => "DELETE",
        ["session", _, "status" | "qr" | "messages" | "events"] => "GET, HEAD",
        ["session", _, "connect" | "restart" | "pair-code" | "disconnect" | "logout" | "send"] => "POST",
        _ => return ApiError::new(404, "ROUTE_NOT_FOUND", "there is nothing at this path"),
    };
    ApiError::method_not_allowed(allow)
}
