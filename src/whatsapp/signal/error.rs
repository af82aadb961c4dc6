//! What can go wrong in the Signal layer, and which code a retry receipt gives for it.

/// Why something could not be encrypted, decrypted, set up or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// There is no session with this device.
    #[error("there is no session with this device")]
    NoSession,
    /// The sender's key for this group has not arrived.
    #[error("there is no sender key for this message")]
    NoSenderKey,
    /// Not a message of this protocol version, or a required part is missing or of the wrong size.
    #[error("the message is malformed")]
    InvalidMessage,
    /// The message was not made with the keys of any session we have.
    #[error("the message authentication code is wrong")]
    BadMac,
    /// The message was decrypted before, or is older than everything we still hold keys for.
    #[error("the message was already decrypted")]
    Duplicate,
    /// The message uses a one-time prekey we do not have (any more).
    #[error("the message uses an unknown one-time prekey")]
    InvalidPreKeyId,
    /// The message uses a signed prekey we do not have (any more).
    #[error("the message uses an unknown signed prekey")]
    InvalidSignedPreKeyId,
    /// A signature does not verify.
    #[error("a signature is wrong")]
    BadSignature,
    /// The message counter is too far ahead of the chain.
    #[error("the message is too far ahead")]
    TooFarAhead,
    /// A public key is malformed, or of low order.
    #[error("a public key is invalid")]
    InvalidKey,
    /// The chain can give no further message key; a new session or sender key is needed.
    #[error("the sending chain is used up")]
    ChainExhausted,
    /// Our own stored record cannot be read.
    #[error("the stored record is damaged")]
    DamagedRecord,
    /// Our own stored record was written by a newer version of this program.
    #[error("the stored record has the unknown format version {0}")]
    UnknownRecordVersion(u32),
}

impl SignalError {
    /// The `error` code of a retry receipt. A duplicate must not be answered by a retry receipt at all; it and
    /// faults of our own have the code 0 ("unknown").
    ///
    /// Seen: whatsapp-rust `wacore/src/protocol/retry.rs` @1489b7da.
    #[must_use]
    pub fn retry_code(&self) -> u8 {
        match self {
            Self::Duplicate | Self::ChainExhausted | Self::DamagedRecord | Self::UnknownRecordVersion(_) => 0,
            Self::NoSession | Self::NoSenderKey => 1,
            Self::InvalidKey => 2,
            Self::InvalidPreKeyId | Self::InvalidSignedPreKeyId => 3,
            Self::InvalidMessage => 4,
            Self::BadSignature => 5,
            Self::TooFarAhead => 6,
            Self::BadMac => 7,
        }
    }
}
