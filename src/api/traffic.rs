//! Counts requests by route template and status code, and how long they took.
//!
//! A path is counted under its route's template, so there are never more series than routes, whatever callers ask
//! for.

use std::time::Duration;

use super::routes;
use crate::metrics::{Counter, Exposition, Gauge, Histogram};

/// The counts of all routes.
pub(super) struct Traffic {
    /// One per template, and one for everything else at the end.
    routes: Vec<RouteTraffic>,
    in_flight: Gauge,
}

struct RouteTraffic {
    template: &'static str,
    codes: [Counter; CODES.len() + 1],
    took: Histogram,
}

impl Traffic {
    pub(super) fn new() -> Self {
        let route = |template| RouteTraffic {
            template,
            codes: [const { Counter::new() }; CODES.len() + 1],
            took: Histogram::new(),
        };
        let mut templates: Vec<&'static str> = routes::all().map(|route| route.path).collect();
        templates.dedup();
        Self { routes: templates.into_iter().chain([OTHER]).map(route).collect(), in_flight: Gauge::new() }
    }

    /// A request is handled until the guard is dropped.
    pub(super) fn enter(&self) -> InFlight<'_> {
        self.in_flight.increment();
        InFlight(&self.in_flight)
    }

    /// One more request was answered; `template` is the path of its route.
    pub(super) fn count(&self, template: &str, status: u16, took: Duration) {
        let place = self.routes.iter().position(|route| route.template == template);
        if let Some(route) = place.map_or_else(|| self.routes.last(), |place| self.routes.get(place)) {
            let code = CODES.iter().position(|code| *code == status).unwrap_or(CODES.len());
            route.codes.get(code).into_iter().for_each(Counter::increment);
            route.took.observe(took);
        }
    }

    /// Routes nobody asked for are left out.
    pub(super) fn write(&self, out: &mut Exposition) {
        out.gauges("whatsapp_worker_http_requests_in_flight", "Requests being answered now, waits included")
            .sample(&[], self.in_flight.value());
        out.counters("whatsapp_worker_http_requests_total", "Answered requests by route template and status");
        for route in &self.routes {
            for (at, counter) in route.codes.iter().enumerate().filter(|(_, counter)| counter.value() > 0) {
                let code = CODES.get(at).map_or_else(|| OTHER.to_owned(), u16::to_string);
                out.sample(&[("route", route.template), ("code", &code)], counter.value());
            }
        }
        out.histograms(
            "whatsapp_worker_http_request_duration_seconds",
            "Time from a complete request to its answer, waits for WhatsApp included",
        );
        for route in self.routes.iter().filter(|route| route.codes.iter().any(|code| code.value() > 0)) {
            out.distribution(&[("route", route.template)], &route.took);
        }
    }
}

/// One request under way. A panic in its handler drops it too.
pub(super) struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

/// What is none of the routes or codes below.
const OTHER: &str = "other";

/// Every status an answer can have.
const CODES: &[u16] = &[
    200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 405, 408, 409, 410, 411, 413, 415, 416, 422, 429, 500,
    501, 502, 503, 504, 507,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_counted_under_its_template_and_never_as_itself() {
        let traffic = Traffic::new();
        for path in ["/session/{id}/send", "/session/{id}/send", "/session/create", "*", "/nothing/of/mine"] {
            traffic.count(path, 200, Duration::from_millis(3));
        }
        traffic.count("/session/{id}/send", 499, Duration::ZERO);
        let mut out = Exposition::new();
        traffic.write(&mut out);
        let text = out.finish();
        let requests: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("whatsapp_worker_http_requests_total"))
            .collect();
        let expected = [
            "{route=\"/session/create\",code=\"200\"} 1",
            "{route=\"/session/{id}/send\",code=\"200\"} 2",
            "{route=\"/session/{id}/send\",code=\"other\"} 1",
            "{route=\"other\",code=\"200\"} 2",
        ];
        assert_eq!(requests, expected);
        assert!(text.contains("_count{route=\"/session/{id}/send\"} 3"), "{text}");
    }
}
