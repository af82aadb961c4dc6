//! The local store and the object store behind it.

use super::Api;
use crate::{
    metrics::Exposition,
    storage::{local::LocalStore, sync::SyncStats},
};

pub(super) fn write(out: &mut Exposition, api: &Api) {
    local(out, api.store());
    if let Some(sync) = api.registry.sync() {
        objects(out, &sync.stats());
    }
}

fn local(out: &mut Exposition, store: &LocalStore) {
    let stats = store.stats();
    out.gauges("whatsapp_worker_store_up", "1 while the local store takes writes")
        .sample(&[], u8::from(store.health().is_none()));
    out.gauges("whatsapp_worker_store_queue_depth", "Pieces of work that wait for the store's thread")
        .sample(&[], store.queue_depth());
    out.counters("whatsapp_worker_store_jobs_total", "Pieces of work made durable")
        .sample(&[], stats.jobs.value());
    out.histograms(
        "whatsapp_worker_store_group_duration_seconds",
        "Time to make a group of them durable, the disk's sync included",
    )
    .distribution(&[], &stats.group_took);
    out.histograms(
        "whatsapp_worker_store_commit_duration_seconds",
        "Time of a commit of the database, which takes in many groups",
    )
    .distribution(&[], &stats.commit_took);
    out.counters("whatsapp_worker_store_failures_total", "Groups and commits that failed, by why")
        .sample(&[("reason", "disk_full")], stats.full.value())
        .sample(&[("reason", "broken")], stats.broken.value());
    if let Some((free, total)) = store.disk_bytes() {
        out.gauges("whatsapp_worker_state_disk_free_bytes", "Space left on the disk of the state directory")
            .sample(&[], free);
        out.gauges("whatsapp_worker_state_disk_size_bytes", "Size of that disk").sample(&[], total);
    }
}

fn objects(out: &mut Exposition, stats: &SyncStats) {
    out.gauges("whatsapp_worker_storage_pending_changes", "Changes the object store lacks")
        .sample(&[], stats.lag);
    out.gauges("whatsapp_worker_storage_oldest_change_seconds", "Age of the oldest of them")
        .sample(&[], format!("{}.{:03}", stats.oldest_ms / 1000, stats.oldest_ms % 1000));
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
