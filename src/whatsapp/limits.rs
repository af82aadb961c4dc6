//! Every number of the protocol core, with its reason.

use std::time::Duration;

// ---- Frames and stanzas: what a peer may make us allocate ----

/// Longest Noise frame, in bytes: its length has 24 bits.
pub const MAX_FRAME: usize = (1 << 24) - 1;
/// A reassembly buffer that grew beyond this gives its memory back once it is empty.
pub const FRAME_BUFFER_KEPT: usize = 4 * 1024;
/// A compressed stanza may inflate to this many bytes; twice the longest uncompressed one. Others do not cap it.
pub const MAX_INFLATED: usize = 32 * 1024 * 1024;
/// Memory of one decoded stanza, in bytes. The largest real ones list every group of an account with all members,
/// roughly 300 bytes each.
pub const MAX_STANZA_MEMORY: usize = 192 * 1024 * 1024;
/// Nesting of nodes in one stanza. Real ones stay below ten; decoding recurses, and session stacks are small.
pub const MAX_STANZA_DEPTH: usize = 32;

// ---- Connection and login ----

/// The server's half of the Noise handshake must arrive within this. Seen: whatsmeow `socket/noisehandshake.go`, 20 s.
pub(in crate::whatsapp) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// After the handshake the server must say `success`, `failure` or `pair-device` within this; it takes it below one
/// second, so a silent server is noticed and the back-off goes on.
pub(in crate::whatsapp) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// An IQ without an answer fails after this. Seen: whatsmeow `request.go`, 75 s.
pub(in crate::whatsapp) const IQ_TIMEOUT: Duration = Duration::from_secs(75);
/// Time between pings, the shortest and the longest; random in between, so that sessions do not ping in step.
/// Seen: whatsmeow `keepalive.go`, 20 to 30 s; Baileys `socket.js`, 30 s.
pub(in crate::whatsapp) const PING_INTERVAL: (Duration, Duration) =
    (Duration::from_secs(25), Duration::from_secs(35));
/// Pings leave at multiples of this.
pub(in crate::whatsapp) const PING_TICK: Duration = Duration::from_secs(1);
/// Nothing received for this long after a ping: the socket is dead. Together with the longest [`PING_INTERVAL`] a
/// dead path is noticed within 56 s, inside the promised 60.
pub(in crate::whatsapp) const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// Back-off steps a 429 adds to the usual one. Seen: WhatsApp Web through whatsapp-rust.
pub(in crate::whatsapp) const RATE_LIMIT_EXTRA_STEPS: u32 = 5;
/// How long a temporary ban lasts when the server does not say.
pub(in crate::whatsapp) const DEFAULT_BAN: Duration = Duration::from_secs(3600);
/// Stanzas the server claims we owe an ack, kept until they are redelivered; more than these are forgotten, oldest
/// first. The server names one per stream.
pub(in crate::whatsapp) const OWED_ACKS: usize = 16;

// ---- Pairing ----

/// Life of the first QR ref. Seen: whatsmeow `qrchan.go`.
pub(in crate::whatsapp) const FIRST_QR: Duration = Duration::from_secs(60);
/// Life of every further QR ref. Seen: whatsmeow `qrchan.go`.
pub(in crate::whatsapp) const NEXT_QR: Duration = Duration::from_secs(20);
/// QR refs kept of one `pair-device`; the server sends six.
pub(in crate::whatsapp) const MAX_QR_REFS: usize = 16;
/// Longest QR ref accepted, in bytes; real ones are below 200, and a QR code ends at 2,953.
pub(in crate::whatsapp) const MAX_QR_REF_LEN: usize = 1024;
/// How long a shown pairing code can be used. Seen: whatsmeow `pair-code.go`, about 160 to 180 s.
pub(in crate::whatsapp) const PAIR_CODE_LIFETIME: Duration = Duration::from_secs(180);
/// PBKDF2 rounds of the pairing code: part of the protocol.
pub(in crate::whatsapp) const PAIR_CODE_ROUNDS: u32 = 2 << 16;
/// Largest registration id: 14 bits. Spec: Signal.
pub(in crate::whatsapp) const MAX_REGISTRATION_ID: u32 = 16_380;
/// Longest passkey request accepted, in bytes; real ones are a few hundred.
pub(in crate::whatsapp) const MAX_PASSKEY_OPTIONS: usize = 64 * 1024;

// ---- One-time prekeys ----

/// Largest prekey id: 24 bits.
pub(in crate::whatsapp) const MAX_PREKEY_ID: u32 = 0x00ff_ffff;
/// One-time prekeys of the upload right after pairing. WhatsApp Web uploads 812 here; one costs about 20 µs, and
/// pairing has to stay below 20 ms of CPU. 200 is what refills of other clients consider plenty, and the first low
/// notice fills the pool to [`PREKEYS_FULL`].
pub(in crate::whatsapp) const PREKEYS_FIRST: u32 = 200;
/// A refill brings the server's pool up to this: WhatsApp Web's own number. Also the largest batch.
pub(in crate::whatsapp) const PREKEYS_FULL: u32 = 812;
/// A login that finds fewer on the server refills; above it, a login makes no keys.
pub(in crate::whatsapp) const PREKEYS_LOW: u32 = 100;
/// Longest wait between two tries of a failing upload. Seen: WhatsApp Web through whatsapp-rust, 610 s.
pub(in crate::whatsapp) const PREKEY_RETRY_CAP: Duration = Duration::from_secs(610);

// ---- Signed prekeys ----

/// A signed prekey is replaced when it is this old. Seen: WhatsApp Web through whatsapp-rust, 27 days.
pub(in crate::whatsapp) const SIGNED_PREKEY_LIFE: Duration = Duration::from_secs(27 * 24 * 3600);
/// A server in trouble is offered the new one again after this. Seen: as above, 24 h.
pub(in crate::whatsapp) const SIGNED_PREKEY_RETRY: Duration = Duration::from_secs(24 * 3600);
/// Signed prekeys that still open messages, the current one included: two further lives. With one less, whatsapp-rust
/// met messages to keys that were gone (PR 1237).
pub(in crate::whatsapp) const SIGNED_PREKEYS_KEPT: usize = 3;

// ---- Offline queue ----

/// Stanzas asked for at a time. Seen: WhatsApp Web through whatsapp-rust `offline_resume.rs`.
pub(in crate::whatsapp) const OFFLINE_BATCH: u32 = 200;
/// From the first stanza of a batch to the request of the next. Seen: as above.
pub(in crate::whatsapp) const OFFLINE_BATCH_DELAY: Duration = Duration::from_millis(100);
/// Without a stanza for this long the drain counts as over. Seen: WhatsApp Web `OFFLINE_STANZA_TIMEOUT_MS`.
pub(in crate::whatsapp) const OFFLINE_STALL: Duration = Duration::from_secs(60);

// ---- Memory of an idle engine ----

/// Output queues with room for more entries than this give their memory back once they are empty.
pub(in crate::whatsapp) const QUEUE_KEPT: usize = 16;
