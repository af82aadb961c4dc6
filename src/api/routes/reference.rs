//! Routes that describe the API itself.

use super::Route;
use crate::api::openapi::{self, Operation, Tag};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/openapi.json",
        run: |_, _| openapi::json(),
        doc: || {
            Operation::new(Tag::Reference, "openapi", "This description, as OpenAPI 3.1")
                .about("For generators of clients, for Postman (Import → Link or File) and for tests.")
                .bare("application/json", serde_json::json!({ "type": "object" }), "The document")
        },
    },
    Route {
        method: "GET",
        path: "/docs",
        run: |_, _| openapi::html(),
        doc: || {
            Operation::new(Tag::Reference, "docs", "This description, for people").bare(
                "text/html",
                serde_json::json!({ "type": "string" }),
                "A page that needs nothing else",
            )
        },
    },
];
