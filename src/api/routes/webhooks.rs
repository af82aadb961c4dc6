//! Routes about events on their way to the backend.

use serde_json::json;

use super::Route;
use crate::api::{
    openapi::{Operation, Tag},
    webhooks,
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/webhooks/failed",
        run: |api, call| webhooks::failed(api, call.request),
        doc: || {
            Operation::new(Tag::Messages, "failedWebhooks", "Events the backend refused for good")
                .about(
                    "The backend answered 4xx, so repeating would not help by itself. Kept for 30 days, at most 1,000 \
                     per session. Give `last` as `after` for the next page.",
                )
                .query(
                    "sessionId",
                    "Only of this session",
                    json!({ "$ref": "#/components/schemas/SessionId" }),
                    "user123-personal",
                )
                .query("after", "Only refusals after this one", json!({ "type": "integer", "minimum": 0 }), 0)
                .query(
                    "limit",
                    "Page size",
                    json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
                    100,
                )
                .ok("FailedWebhooks", "The refused events, oldest refusal first")
                .session()
                .errors(&["NO_BACKEND"])
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/webhooks/replay",
        run: |api, call| webhooks::replay(api, call.request),
        doc: || {
            Operation::new(Tag::Messages, "replayWebhooks", "Send refused events again")
                .about(
                    "Once whatever made the backend refuse them is corrected: of a session, of a list, or all. They \
                     go out before newer events of their session, with the same ids.",
                )
                .optional_body("ReplayWebhooks")
                .ok("ReplayingWebhooks", "They are on their way")
                .session()
                .errors(&["NO_BACKEND"])
                .store_errors()
        },
    },
];
