//! The statuses of a session and the moves between them, in one place.

/// What a session is doing, as the REST contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionStatus {
    /// Not connected and not trying to.
    Disconnected,
    /// On the way to the first QR or login.
    Connecting,
    /// Waits for a phone to scan.
    QrRequired,
    /// WhatsApp wants a passkey step that only a browser can do.
    PasskeyRequired,
    /// Logged in.
    Connected,
    /// The connection was lost; trying again.
    Reconnecting,
    /// Unlinked; connect pairs anew.
    LoggedOut,
    /// Stopped by something a person must look at; connect tries again.
    Error,
}

impl SessionStatus {
    /// The word of the REST contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::QrRequired => "qr_required",
            Self::PasskeyRequired => "passkey_required",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::LoggedOut => "logged_out",
            Self::Error => "error",
        }
    }
}
