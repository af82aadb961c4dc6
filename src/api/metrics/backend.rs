//! The link to the backend: registration, heartbeats, delivery of events. Nothing without a backend.

use super::Api;
use crate::{api::time, metrics::Exposition};

pub(super) fn write(out: &mut Exposition, api: &Api) {
    let Some(stats) = api.backend.as_ref().map(|backend| backend.stats()) else { return };
    let age_ms = stats.oldest_ms.map_or(0, |since| time::now_millis().saturating_sub(since));
    out.gauges("whatsapp_worker_backend_registered", "1 while the backend knows this worker")
        .sample(&[], u8::from(stats.is_registered));
    out.gauges("whatsapp_worker_backend_circuit_open", "1 while all webhooks wait for the backend")
        .sample(&[], u8::from(stats.is_circuit_open));
    out.gauges("whatsapp_worker_outbox_events", "Events that are not delivered yet")
        .sample(&[], stats.waiting);
    out.gauges("whatsapp_worker_outbox_oldest_event_seconds", "Age of the oldest of them")
        .sample(&[], format!("{}.{:03}", age_ms / 1000, age_ms % 1000));
    out.counters("whatsapp_worker_webhooks_total", "Deliveries of events by outcome");
    for (outcome, count) in stats.deliveries {
        out.sample(&[("outcome", outcome)], count);
    }
    out.counters("whatsapp_worker_heartbeats_total", "Heartbeats by outcome");
    for (outcome, count) in stats.heartbeats {
        out.sample(&[("outcome", outcome)], count);
    }
}
