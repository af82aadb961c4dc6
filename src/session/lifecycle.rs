//! The statuses of a session, the moves between them, and what follows when a connection ends: all in one place.
//!
//! | from | to | because |
//! |---|---|---|
//! | disconnected, logged_out, error | connecting | connect was asked |
//! | connecting | qr_required, passkey_required, connected | the server says so |
//! | qr_required, passkey_required | connecting | the phone accepted (the stream restarts), or the socket broke |
//! | connected | reconnecting | the socket broke, or the server restarts the stream |
//! | reconnecting | connected, qr_required | the server says so |
//! | connecting, reconnecting | each other, error | a pause before the next try; a problem that a later try may solve |
//! | any | logged_out | unlinked, by the phone or because logout was asked |
//! | any | disconnected | disconnect was asked, nobody scanned, or the worker was stopped |
//! | any | error | a person must look |

use std::time::Duration;

use crate::whatsapp::model::DisconnectReason;

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
    /// Stopped by something a person must look at, or held up by trouble of our own; connect tries again.
    Error,
}

impl SessionStatus {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Disconnected,
        Self::Connecting,
        Self::QrRequired,
        Self::PasskeyRequired,
        Self::Connected,
        Self::Reconnecting,
        Self::LoggedOut,
        Self::Error,
    ];

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

    /// The status a stored word means for a session that has no thread: whatever was under way is over.
    pub(super) fn at_rest(word: &str) -> Self {
        match word {
            "logged_out" => Self::LoggedOut,
            "error" => Self::Error,
            _ => Self::Disconnected,
        }
    }

    /// Whether the table above has this move. Staying is always allowed.
    pub(super) fn may_become(self, next: Self) -> bool {
        use SessionStatus::{
            Connected, Connecting, Disconnected, Error, LoggedOut, PasskeyRequired, QrRequired, Reconnecting,
        };
        match (self, next) {
            (from, to) if from == to => true,
            (_, Disconnected | LoggedOut | Error) => true,
            (Disconnected | LoggedOut, to) => to == Connecting,
            (Error, to) => matches!(to, Connecting | Reconnecting),
            (Connecting, _) => true,
            (QrRequired, to) => matches!(to, Connecting | PasskeyRequired | Connected),
            (PasskeyRequired, to) => matches!(to, Connecting | QrRequired | Connected),
            (Connected, to) => to == Reconnecting,
            (Reconnecting, to) => matches!(to, Connected | Connecting | QrRequired | PasskeyRequired),
        }
    }

    /// The status while the next connection is made.
    pub(super) fn retrying(was_logged_in: bool) -> Self {
        if was_logged_in { Self::Reconnecting } else { Self::Connecting }
    }
}

/// What follows the end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// At once, without a pause.
    Reconnect,
    /// After the usual pause, advanced by `extra_steps`.
    Retry { error: String, extra_steps: u32 },
    /// After exactly this time.
    Wait { error: String, pause: Duration },
    /// Not again before somebody asks for it.
    Stop { status: SessionStatus, error: Option<String> },
}

/// protocol-facts 1.8 and 1.9: every reason and what follows it.
pub(super) fn next(reason: DisconnectReason) -> Next {
    let stop = |status, error: Option<String>| Next::Stop { status, error };
    match reason {
        DisconnectReason::RestartRequired => Next::Reconnect,
        DisconnectReason::Retry { reason, extra_steps, .. } => Next::Retry { error: reason, extra_steps },
        DisconnectReason::Replaced => stop(
            SessionStatus::Error,
            Some("the same account was connected elsewhere; only one worker may hold it".into()),
        ),
        DisconnectReason::LoggedOut { reason } => stop(SessionStatus::LoggedOut, Some(reason)),
        DisconnectReason::Banned { code, expires_in } => Next::Wait {
            error: format!("temporarily banned by WhatsApp (code {code}) for {} s", expires_in.as_secs()),
            pause: expires_in,
        },
        DisconnectReason::ClientOutdated => Next::Retry {
            error: "WhatsApp asks for a newer client version; set WHATSAPP_VERSION or update the worker"
                .into(),
            extra_steps: OUTDATED_STEPS,
        },
        DisconnectReason::Stop { reason } => stop(SessionStatus::Error, Some(reason)),
        DisconnectReason::QrTimeout => {
            stop(SessionStatus::Disconnected, Some("no phone scanned the QR in time; connect again".into()))
        }
        DisconnectReason::Requested => stop(SessionStatus::LoggedOut, None),
    }
}

/// The first pause after "client outdated" is about a minute and a half: the version does not change by itself.
const OUTDATED_STEPS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::model::Trouble;

    #[test]
    fn the_table_of_moves_is_the_one_in_the_documentation() {
        use SessionStatus::{
            Connected, Connecting, Disconnected, Error, LoggedOut, PasskeyRequired, QrRequired, Reconnecting,
        };
        let documented = |from, to| {
            match from {
                Disconnected => vec![Connecting, LoggedOut, Error],
                Connecting => {
                    vec![Disconnected, QrRequired, PasskeyRequired, Connected, Reconnecting, LoggedOut, Error]
                }
                QrRequired => vec![Disconnected, Connecting, PasskeyRequired, Connected, LoggedOut, Error],
                PasskeyRequired => vec![Disconnected, Connecting, QrRequired, Connected, LoggedOut, Error],
                Connected => vec![Disconnected, Reconnecting, LoggedOut, Error],
                Reconnecting => {
                    vec![Disconnected, Connecting, QrRequired, PasskeyRequired, Connected, LoggedOut, Error]
                }
                LoggedOut => vec![Disconnected, Connecting, Error],
                Error => vec![Disconnected, Connecting, Reconnecting, LoggedOut],
            }
            .contains(&to)
        };
        for from in SessionStatus::ALL {
            for to in SessionStatus::ALL {
                assert_eq!(from.may_become(to), from == to || documented(from, to), "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_takeover_by_another_connection_is_never_answered_by_reconnecting() {
        let Next::Stop { status, error } = next(DisconnectReason::Replaced) else { panic!("must stop") };
        assert_eq!(status, SessionStatus::Error);
        assert!(error.unwrap().contains("elsewhere"));
    }

    #[test]
    fn only_network_trouble_a_restart_and_a_ban_connect_again() {
        let logged_out = next(DisconnectReason::LoggedOut { reason: "unlinked".into() });
        let expected = Next::Stop { status: SessionStatus::LoggedOut, error: Some("unlinked".into()) };
        assert_eq!(logged_out, expected);
        assert_eq!(next(DisconnectReason::RestartRequired), Next::Reconnect);
        let ban = next(DisconnectReason::Banned { code: 101, expires_in: Duration::from_secs(60) });
        assert!(matches!(ban, Next::Wait { pause, .. } if pause == Duration::from_secs(60)));
        let busy =
            DisconnectReason::Retry { trouble: Trouble::RateLimited, reason: "429".into(), extra_steps: 5 };
        assert_eq!(next(busy), Next::Retry { error: "429".into(), extra_steps: 5 });
        for reason in [DisconnectReason::QrTimeout, DisconnectReason::Stop { reason: "400".into() }] {
            assert!(matches!(next(reason), Next::Stop { .. }));
        }
    }

    #[test]
    fn a_stored_status_of_something_under_way_is_at_rest_after_a_restart() {
        for status in SessionStatus::ALL {
            let expected = match status {
                SessionStatus::LoggedOut | SessionStatus::Error => status,
                _ => SessionStatus::Disconnected,
            };
            assert_eq!(SessionStatus::at_rest(status.as_str()), expected);
        }
    }
}
