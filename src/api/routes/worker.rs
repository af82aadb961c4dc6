//! Routes about the worker as a whole.

use super::Route;
use crate::api::{
    health, metrics,
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
