//! Sessions, their connections and their messages.

use super::Api;
use crate::{
    metrics::Exposition,
    session::{Meters, SessionStatus},
    whatsapp::tally::{Counted, Family},
};

pub(super) fn write(out: &mut Exposition, api: &Api) {
    states(out, api);
    let meters = api.registry.meters();
    connections(out, meters);
    for (family, name, help, label) in MESSAGES {
        out.counters(name, help);
        of_family(out, meters, family, label);
    }
    for (what, name, help) in SINGLE {
        let count = meters.counted().find(|(other, _)| *other == what).map_or(0, |(_, count)| count);
        out.counters(name, help).sample(&[], count);
    }
    out.histograms(
        "whatsapp_worker_send_duration_seconds",
        "Time from the request of a message to WhatsApp's ack, waits for devices and keys included",
    )
    .distribution(&[], &meters.send_took);
    out.histograms(
        "whatsapp_worker_ack_duration_seconds",
        "Time from the wire to WhatsApp's ack of a message",
    )
    .distribution(&[], &meters.ack_took);
}

fn states(out: &mut Exposition, api: &Api) {
    out.gauges("whatsapp_worker_sessions_max", "Most sessions this worker takes")
        .sample(&[], api.settings.max_sessions);
    out.gauges("whatsapp_worker_sessions", "Sessions by status");
    let counts = api.registry.counts_by_status();
    for (status, count) in SessionStatus::ALL.iter().zip(counts) {
        out.sample(&[("status", status.as_str())], count);
    }
    let stock = api.registry.stock();
    out.gauges("whatsapp_worker_sends_pending", "Messages taken in that WhatsApp has not answered")
        .sample(&[], stock.pending);
    out.gauges(
        "whatsapp_worker_prekeys_lowest",
        "One-time prekeys WhatsApp has left for the connected session with the fewest; NaN when none is known",
    )
    .sample(&[], stock.prekeys_lowest.map_or_else(|| "NaN".to_owned(), |left| left.to_string()));
    out.gauges("whatsapp_worker_prekeys_low_sessions", "Connected sessions with fewer than 20 of them")
        .sample(&[], stock.prekeys_low);
}

fn connections(out: &mut Exposition, meters: &Meters) {
    out.counters("whatsapp_worker_logins_total", "Logins that succeeded").sample(&[], meters.logins.value());
    let families = [
        (
            false,
            "whatsapp_worker_reconnects_total",
            "Ends of connections, and tries to make one, that led to another try",
        ),
        (
            true,
            "whatsapp_worker_session_ends_total",
            "Ends of connections after which a session rests until somebody asks",
        ),
    ];
    for (is_final, name, help) in families {
        out.counters(name, help);
        for (end, count) in meters.ends().filter(|(end, _)| end.is_final() == is_final) {
            out.sample(&[("reason", end.as_str())], count);
        }
    }
}

/// Family, name, help, label.
const MESSAGES: [(Family, &str, &str, &str); 5] = [
    (
        Family::Sends,
        "whatsapp_worker_sends_total",
        "Messages to send, each once, by how they ended",
        "outcome",
    ),
    (
        Family::Refusals,
        "whatsapp_worker_send_refusals_total",
        "Refusals of messages by WhatsApp, whether another try helped or not, by its code",
        "code",
    ),
    (
        Family::Received,
        "whatsapp_worker_messages_received_total",
        "Messages that came, by where from; repeat: stored before, and dropped",
        "from",
    ),
    (
        Family::Undecryptable,
        "whatsapp_worker_decrypt_failures_total",
        "Messages that came and could not be opened, by why",
        "reason",
    ),
    (
        Family::Retries,
        "whatsapp_worker_retry_receipts_total",
        "Messages asked for once more; out: by us, in: from us",
        "direction",
    ),
];

const SINGLE: [(Counted, &str, &str); 3] = [
    (Counted::Resent, "whatsapp_worker_resends_total", "Messages sent once more to a device that asked"),
    (Counted::Accepted, "whatsapp_worker_sends_accepted_total", "Messages taken in for sending"),
    (
        Counted::Queued,
        "whatsapp_worker_sends_queued_total",
        "Of them those that had to wait: the session was offline, or asked to slow down",
    ),
];

fn of_family(out: &mut Exposition, meters: &Meters, family: Family, label: &str) {
    for (what, count) in meters.counted().filter(|(what, _)| what.family() == family) {
        out.sample(&[(label, what.word())], count);
    }
}
