//! `GET /metrics`: everything the worker counts, as Prometheus text. The only place that knows names and labels.
//!
//! Labels are bounded: statuses, outcomes, reasons, route templates and HTTP codes are fixed lists. No metric carries
//! a session's id: a thousand sessions times every family would cost the scraper more than it tells; which session is
//! in trouble is in `GET /sessions` and in the log.
//!
//! `backend` has the link to the gateway, `sessions` what sessions and their engines count, `storage` the local store and
//! the object store.

mod backend;
mod sessions;
mod storage;

use super::{Api, http::Response, respond::Answer};
use crate::metrics::{Exposition, ProcessStats};

/// Everything, measured now.
pub(super) fn show(api: &Api) -> Answer {
    let mut out = Exposition::new();
    worker(&mut out, api);
    sessions::write(&mut out, api);
    storage::write(&mut out, api);
    backend::write(&mut out, api);
    api.traffic.write(&mut out);
    process(&mut out, api, &ProcessStats::measure());
    Ok(Response::bytes(200, Exposition::CONTENT_TYPE, out.finish().into_bytes()))
}

fn worker(out: &mut Exposition, api: &Api) {
    out.gauges("whatsapp_worker_build_info", "Always 1; the version is a label")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.gauges("whatsapp_worker_draining", "1 while sessions are given away and no new ones are taken")
        .sample(&[], u8::from(api.registry.is_draining()));
}

fn process(out: &mut Exposition, api: &Api, process: &ProcessStats) {
    let meters = api.registry.meters();
    let (sessions, dials) = (meters.threads.value(), meters.dials.value());
    out.gauges("whatsapp_worker_threads", "Threads by what they do; process_threads is their sum")
        .sample(&[("kind", "session")], sessions)
        .sample(&[("kind", "dial")], dials)
        .sample(&[("kind", "other")], process.threads.saturating_sub(sessions + dials));
    out.counters("process_cpu_seconds_total", "CPU time of this process").sample(&[], process.cpu_seconds);
    out.gauges("process_resident_memory_bytes", "Memory of this process in RAM")
        .sample(&[], process.resident_bytes);
    out.gauges("process_threads", "Threads of this process").sample(&[], process.threads);
    out.gauges("process_open_fds", "Open file descriptors").sample(&[], process.open_fds);
    out.gauges("process_max_fds", "Most file descriptors allowed").sample(&[], process.max_fds);
    out.gauges("process_start_time_seconds", "Start of this process, Unix time")
        .sample(&[], process.start_unix_s);
}
