//! Every route of the API: one table, shared by dispatch and by `/openapi.json`.
//!
//! A route is a method, a path, a handler and its documentation, written together in the file of its area; a route
//! without documentation does not compile. To add one: write the handler in the file of its resource, and a
//! [`Route`] in the table of its area.
//!
//! The guide's seven routes are `/health`, `/session/create`, `/session/{id}` (DELETE) and
//! `/session/{id}/{connect,status,send,messages}`; the others are ours.

mod family;
mod messages;
mod reference;
mod sessions;
mod webhooks;
mod worker;

use super::{
    Api,
    http::{Request, Response},
    openapi::Operation,
    respond::{Answer, ApiError},
};

/// One method of one path.
pub(super) struct Route {
    /// `GET` answers `HEAD` too.
    pub(super) method: &'static str,
    /// A name in braces stands for one segment: `/session/{id}/send`. [`Call`] has what stood there.
    pub(super) path: &'static str,
    /// The handler.
    pub(super) run: fn(&Api, &Call<'_>) -> Answer,
    /// What `/openapi.json` says about it.
    pub(super) doc: fn() -> Operation,
}

/// A request and what the braces of the path stood for.
pub(super) struct Call<'a> {
    pub(super) request: &'a Request,
    /// `{id}`: the session.
    pub(super) id: &'a str,
    /// `{messageId}`.
    pub(super) message_id: &'a str,
}

/// Every route, in the order of the documentation.
pub(super) fn all() -> impl Iterator<Item = &'static Route> {
    [worker::ROUTES, sessions::ROUTES, messages::ROUTES, webhooks::ROUTES, family::ROUTES, reference::ROUTES]
        .into_iter()
        .flatten()
}

/// The routes with their paths split once.
pub(super) struct Table(Vec<(Vec<&'static str>, &'static Route)>);

/// What a request is about.
pub(super) enum Found<'a> {
    /// A route.
    Route(&'static Route, Call<'a>),
    /// A path that answers other methods only: these.
    OtherMethods(String),
    /// Nothing.
    Nothing,
}

impl Table {
    pub(super) fn new() -> Self {
        Self(all().map(|route| (route.path.split('/').skip(1).collect(), route)).collect())
    }

    pub(super) fn find<'a>(&self, request: &'a Request) -> Found<'a> {
        // The server leaves out the body of an answer to HEAD.
        let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
        let mut others = Vec::new();
        for (pattern, route) in &self.0 {
            let Some(call) = matched(pattern, request) else { continue };
            if route.method == method {
                return Found::Route(route, call);
            }
            others.push(route.method);
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(allow(&others)) }
    }
}

impl Found<'_> {
    /// The session in the path; empty when there is none.
    pub(super) fn session(&self) -> &str {
        match self {
            Self::Route(_, call) => call.id,
            Self::OtherMethods(_) | Self::Nothing => "",
        }
    }

    /// The path with the braces still in it, so that it holds nothing a caller wrote; `*` when there is no route.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Route(route, _) => route.path,
            Self::OtherMethods(_) | Self::Nothing => "*",
        }
    }
}

/// Checks who asks, then runs the handler.
pub(super) fn answer(api: &Api, request: &Request, found: &Found<'_>) -> Answer {
    if found.path() != "/health" {
        api.auth.check(request)?;
    }
    match found {
        Found::Route(route, call) => (route.run)(api, call),
        Found::OtherMethods(allow) if request.method == "OPTIONS" => {
            Ok(Response { status: 204, headers: vec![("Allow", allow.clone())], body: Vec::new() })
        }
        Found::OtherMethods(allow) => Err(ApiError::method_not_allowed(allow.clone())),
        Found::Nothing => Err(ApiError::new(404, "ROUTE_NOT_FOUND", "there is nothing at this path")),
    }
}

/// What the braces stood for, when the path fits.
fn matched<'a>(pattern: &[&str], request: &'a Request) -> Option<Call<'a>> {
    let mut call = Call { request, id: "", message_id: "" };
    if pattern.len() != request.segments.len() {
        return None;
    }
    for (wanted, given) in pattern.iter().zip(&request.segments) {
        match *wanted {
            "{id}" => call.id = given,
            "{messageId}" => call.message_id = given,
            literal if literal == given => {}
            _ => return None,
        }
    }
    Some(call)
}

/// The value of `Allow` for a path with these methods.
fn allow(methods: &[&str]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for method in methods {
        all.push(method);
        all.extend((*method == "GET").then_some("HEAD"));
    }
    all.push("OPTIONS");
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> Request {
        let (segments, query) = Request::split_target(path).unwrap();
        Request { method: method.to_owned(), segments, query, ..Request::default() }
    }

    #[test]
    fn no_two_routes_are_the_same() {
        let mut known: Vec<_> = all().map(|route| (route.method, route.path)).collect();
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), count);
    }

    #[test]
    fn every_brace_is_one_the_call_knows() {
        for route in all() {
            for segment in route.path.split('/').filter(|segment| segment.contains(['{', '}'])) {
                assert!(matches!(segment, "{id}" | "{messageId}"), "{}", route.path);
            }
        }
    }

    #[test]
    fn a_path_is_found_whatever_slashes_surround_it() {
        let table = Table::new();
        for path in ["/session/a/send", "//session/a/send", "/session/a/send/"] {
            let request = request("POST", path);
            let Found::Route(route, call) = table.find(&request) else { panic!("{path}") };
            assert_eq!((route.path, call.id), ("/session/{id}/send", "a"));
        }
        assert!(matches!(table.find(&request("GET", "/session/a/b/c/d")), Found::Nothing));
        let other = request("GET", "/session/create");
        let Found::OtherMethods(allow) = table.find(&other) else { panic!("no such route") };
        assert_eq!(allow, "POST, DELETE, OPTIONS");
        for (path, route) in [
            ("/api/message/send", "/api/{id}/send"),
            ("/api/message/message/manage", "/api/message/{id}/manage"),
        ] {
            assert_eq!(table.find(&request("POST", path)).path(), route);
        }
    }
}
