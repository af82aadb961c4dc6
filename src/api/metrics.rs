//! `GET /metrics`: everything the worker counts, as Prometheus text. The only place that knows names and labels.
//!
//! Labels are bounded: statuses, outcomes, reasons, route templates and HTTP codes are fixed lists. No metric carries
//! a session's id: a thousand sessions times every family would cost the scraper more than it tells; which session is
//! in trouble is in `GET /sessions` and in the log.

use super::{Api, http::Response, respond::Answer};
use crate::{
    metrics::{Exposition, ProcessStats},
    session::SessionStatus,
    storage::sync::SyncStats,
};

/// Everything, measured now.
pub(super) fn show(api: &Api) -> Answer {
    let mut out = Exposition::new();
    worker(&mut out, api);
    api.traffic.write(&mut out);
    if let Some(sync) = api.registry.sync() {
        objects(&mut out, &sync.stats());
    }
    process(&mut out, &ProcessStats::measure());
    Ok(Response::bytes(200, Exposition::CONTENT_TYPE, out.finish().into_bytes()))
}

fn worker(out: &mut Exposition, api: &Api) {
    out.gauges("whatsapp_worker_build_info", "Always 1; the version is a label")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.gauges("whatsapp_worker_sessions_max", "Most sessions this worker takes")
        .sample(&[], api.settings.max_sessions);
    out.gauges("whatsapp_worker_sessions", "Sessions by status");
    let counts = api.registry.counts_by_status();
    for (status, count) in SessionStatus::ALL.iter().zip(counts) {
        out.sample(&[("status", status.as_str())], count);
    }
}

fn objects(out: &mut Exposition, stats: &SyncStats) {
    out.gauges("whatsapp_worker_storage_pending_changes", "Changes the object store lacks")
        .sample(&[], stats.lag);
    out.gauges("whatsapp_worker_storage_oldest_change_milliseconds", "Age of the oldest of them")
        .sample(&[], stats.oldest_ms);
    out.gauges("whatsapp_worker_storage_up", "1 while the object store works")
        .sample(&[], u8::from(stats.error.is_none()));
    out.gauges("whatsapp_worker_storage_leases", "Sessions whose lease this worker holds")
        .sample(&[], stats.leases);
    out.counters("whatsapp_worker_storage_uploads_total", "Objects written").sample(&[], stats.uploads);
    out.counters("whatsapp_worker_storage_upload_bytes_total", "Bytes written").sample(&[], stats.bytes);
    out.counters("whatsapp_worker_storage_failures_total", "Writes that failed").sample(&[], stats.failures);
    out.counters("whatsapp_worker_storage_sessions_lost_total", "Sessions that other workers took")
        .sample(&[], stats.lost);
    out.counters("whatsapp_worker_storage_quarantined_total", "Objects that could not be read")
        .sample(&[], stats.quarantined);
}

fn process(out: &mut Exposition, process: &ProcessStats) {
    out.counters("process_cpu_seconds_total", "CPU time of this process").sample(&[], process.cpu_seconds);
    out.gauges("process_resident_memory_bytes", "Memory of this process in RAM")
        .sample(&[], process.resident_bytes);
    out.gauges("process_threads", "Threads of this process").sample(&[], process.threads);
    out.gauges("process_open_fds", "Open file descriptors").sample(&[], process.open_fds);
    out.gauges("process_max_fds", "Most file descriptors allowed").sample(&[], process.max_fds);
    out.gauges("process_start_time_seconds", "Start of this process, Unix time")
        .sample(&[], process.start_unix_s);
}
