//! What the server's `<ack class="message" error=…>` means, as one table.
//!
//! Seen: protocol notes of whatsmeow `send.go` @33cfac51 and whatsapp-rust `wacore/src/protocol/nack.rs` @1489b7da;
//! Baileys issues 2683, 2794.

use crate::whatsapp::model::CommandError;

/// How to go on after an ack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AckAction {
    /// The server has the message.
    Accepted,
    /// Address the chat in the other namespace and try once more.
    FlipNamespace,
    /// Address by LID, or attach a token that came meanwhile, and try once more.
    FlipToLid,
    /// Ask for the devices again and resend once with the same id.
    RefreshDevices,
    /// Fetch the group's metadata again and resend once with the same id.
    RefetchGroup,
    /// Slow the whole session down, then resend with the same id.
    BackOff,
    /// The server is in trouble: resend with the same id after a pause.
    Again,
    /// Nothing helps.
    Fail,
}

/// The table. `code` is the `error` attribute; absent or 0 means accepted.
pub(super) fn action(code: u16) -> AckAction {
    match code {
        0 => AckAction::Accepted,
        400 => AckAction::FlipNamespace,
        406 | 479 => AckAction::RefreshDevices,
        421 => AckAction::RefetchGroup,
        429 => AckAction::BackOff,
        463 => AckAction::FlipToLid,
        500 | 503 => AckAction::Again,
        _ => AckAction::Fail,
    }
}

/// What the caller is told when the retry of the table is used up, or there is none.
pub(super) fn refusal(code: u16) -> CommandError {
    let reason = match code {
        400 => "the message is malformed or addressed in the wrong namespace",
        403 => "not allowed to write to this chat",
        404 => return CommandError::NoSuchRecipient,
        405 => "not allowed in this chat",
        406 => "a device of the recipient is not registered",
        420 => "refused without an explanation",
        421 => "the group's addressing changed",
        429 => return CommandError::RateLimited,
        463 => "new chats are restricted for this account, or the contact has not granted a token",
        475 => "the quota of new chats is used up",
        479 => "the message has a shape the server does not accept",
        500 | 503 => "the server is in trouble",
        _ => "unknown reason",
    };
    CommandError::Refused { code, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_has_its_reaction() {
        for (code, expected) in [
            (0, AckAction::Accepted),
            (400, AckAction::FlipNamespace),
            (403, AckAction::Fail),
            (404, AckAction::Fail),
            (405, AckAction::Fail),
            (406, AckAction::RefreshDevices),
            (420, AckAction::Fail),
            (421, AckAction::RefetchGroup),
            (429, AckAction::BackOff),
            (463, AckAction::FlipToLid),
            (475, AckAction::Fail),
            (479, AckAction::RefreshDevices),
            (500, AckAction::Again),
            (503, AckAction::Again),
            (999, AckAction::Fail),
        ] {
            assert_eq!(action(code), expected, "{code}");
        }
    }

    #[test]
    fn the_caller_is_told_what_it_can_do() {
        assert_eq!(refusal(404), CommandError::NoSuchRecipient);
        assert_eq!(refusal(429), CommandError::RateLimited);
        assert!(matches!(refusal(463), CommandError::Refused { code: 463, .. }));
        assert!(matches!(refusal(700), CommandError::Refused { code: 700, .. }));
    }
}
