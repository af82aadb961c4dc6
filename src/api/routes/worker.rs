//! Routes about the worker as a whole.

use super::Route;
use crate::api::{
    drain, health, metrics,
    openapi::{Operation, Tag},
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/health",
        run: |api, _| health::health(api),
        doc: || {
            Operation::new(Tag::Worker, "health", "Is the worker alive, and how busy is it")
                .about(
                    "Needs no token and is answered even while every other thread is busy. `cpuUsage` and \
                     `memoryUsage` are percent, `uptime` is seconds.",
                )
                .open()
                .ok("Health", "The worker is alive")
        },
    },
    Route {
        method: "GET",
        path: "/ready",
        run: |api, _| health::ready(api),
        doc: || {
            Operation::new(Tag::Worker, "ready", "Does the worker take new work")
                .about("For load balancers: 503 while the worker stops or its store refuses writes.")
                .ok("Ready", "The worker takes new work")
                .store_errors()
        },
    },
    Route {
        method: "POST",
        path: "/drain",
        run: |api, call| drain::drain(api, call.request),
        doc: || {
            Operation::new(Tag::Worker, "drain", "Give all sessions away")
                .about(
                    "From now on nothing new is taken and `/ready` says no. Waits for messages under way, uploads \
                     what is left and releases every session, so that other workers can connect them. Repeating the \
                     request is harmless; only a restart of the worker ends it.",
                )
                .optional_body("Nothing")
                .ok("Drained", "What became of each session")
                .store_errors()
        },
    },
    Route {
        method: "GET",
        path: "/metrics",
        run: |api, _| metrics::show(api),
        doc: || {
            Operation::new(Tag::Worker, "metrics", "Everything the worker counts, for Prometheus").bare(
                "text/plain",
                serde_json::json!({ "type": "string" }),
                "Prometheus text format 0.0.4",
            )
        },
    },
];
