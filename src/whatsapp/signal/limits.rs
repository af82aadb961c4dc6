//! Every number of the Signal layer, with its reason.

/// Sending counters made durable ahead of use: one write per this many messages instead of one per message.
/// After a crash up to this many message keys are skipped, far below the 2,000 every receiver tolerates.
pub(super) const SEND_RESERVATION: u32 = 64;

/// Messages received on unchanged chains before the record asks to be written. A crash replays at most this many
/// chain steps; nothing is lost by it.
pub(super) const RECEIVES_PER_PERSIST: u32 = 32;

/// Receiving chains kept per session: late messages of older ratchet keys stay readable.
/// Seen: libsignal `rust/protocol/src/consts.rs`; go-libsignal keeps the same number.
pub(super) const MAX_RECEIVER_CHAINS: usize = 5;

/// Keys of skipped messages kept per chain. Seen: libsignal `consts.rs`.
pub(super) const MAX_SKIPPED_KEYS: usize = 2000;

/// How far ahead of a chain a message may be. A forged counter costs at most this many HMACs.
/// Seen: libsignal-node `session_cipher.js` `fillMessageKeys`.
pub(super) const MAX_FORWARD_JUMP: u32 = 2000;

/// Replaced sessions kept per peer device, for messages still under way. Seen: libsignal `consts.rs`.
pub(super) const MAX_ARCHIVED_STATES: usize = 40;

/// Sender key states kept per sender and group. Seen: Baileys `Signal/Group/sender-key-record.ts`.
pub(super) const MAX_SENDER_KEY_STATES: usize = 5;
