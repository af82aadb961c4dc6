//! The description of the API: OpenAPI 3.1, built from the route table.
//!
//! [`Operation`] is what a route says about itself; `codes` lists every word an error can carry, `schemas` every
//! named shape. The document has no facts of its own, so it cannot disagree with the routes.

mod codes;
mod operation;
mod page;
mod schemas;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::{
    http::Response,
    respond::Answer,
    routes::{self, Route},
};
pub(super) use operation::{Operation, Tag};

/// `GET /openapi.json`.
#[expect(clippy::unnecessary_wraps, reason = "every handler has this shape")]
pub(super) fn json() -> Answer {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    let text = TEXT.get_or_init(|| serde_json::to_vec(&document()).unwrap_or_default());
    Ok(Response::bytes(200, "application/json", text.clone()))
}

/// `GET /docs`.
#[expect(clippy::unnecessary_wraps, reason = "every handler has this shape")]
pub(super) fn html() -> Answer {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page = PAGE.get_or_init(|| page::page(&document()));
    let response = Response::bytes(200, "text/html; charset=utf-8", page.clone().into_bytes());
    Ok(response.with_header("Content-Security-Policy", PAGE_POLICY))
}

/// The page has its style in itself and needs nothing else.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The whole document.
fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "whatsapp-worker",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Many WhatsApp accounts in one process, driven over REST",
            "description": ABOUT,
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/", "description": "This worker" }],
        "tags": Tag::ALL.map(|tag| json!({ "name": tag.name(), "description": tag.about() })),
        "security": [{ "token": [] }],
        "paths": paths(routes::all()),
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`WORKER_AUTH_TOKEN`. With `WORKER_API_AUTH=auto` (the default) programs on the \
                                    same machine need none.",
                },
            },
            "schemas": schemas::all(),
        },
    })
}

fn paths<'a>(routes: impl Iterator<Item = &'a Route>) -> Map<String, Value> {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = (route.doc)().render(route.path);
        paths.entry(route.path).or_insert_with(|| json!({}))[route.method.to_ascii_lowercase()] = operation;
    }
    paths
}

const ABOUT: &str = "Answers are `{\"success\":true,\"data\":…}`. Errors are `{\"success\":false,\"error\":\"<sentence>\",\
\"code\":\"<STABLE_WORD>\",\"details\":{…}}`, where `details.field` names the field at fault. 4xx is the caller's fault, \
409 the wrong state, 429 and 503 come with `Retry-After`, 507 means that the worker's disk is full. A request that may \
already have sent a message is never answered with 5xx. Times are RFC 3339 in UTC.\n\nNew fields may appear in answers \
at any time; words of `code` never change their meaning.";

#[cfg(test)]
mod tests;
