//! Every number of the protocol core, with its reason.

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
