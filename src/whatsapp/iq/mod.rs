//! Questions to the server and their answers.
//!
//! Every IQ we send is remembered with its [`IqKind`]; the answer, an error or a timeout goes to the handler of that
//! kind exactly once.

use crate::whatsapp::{contacts::ContactQuery, groups::GroupQuery, messages::MessageQuery, model::CommandId};

/// What an outstanding IQ is for. Each kind has one handler, called with the answer or an [`IqError`].
#[derive(Debug)]
pub(in crate::whatsapp) enum IqKind {
    /// Liveness.
    Ping,
    /// How many prekeys the server still has.
    PreKeyCount,
    /// Prekey upload; ids up to and including this one become "uploaded".
    PreKeyUpload {
        /// Highest id in the upload.
        last_id: u32,
    },
    /// Self-check of what the server holds of our keys.
    PreKeyDigest,
    /// `active` after login, `clean` after a dirty notice: nothing depends on the answer.
    Ignore,
    /// AB props.
    Props,
    /// Pair-code stage 1 for this command.
    PairCode(CommandId),
    /// Pair-code stage 3.
    PairCodeFinish,
    /// `remove-companion-device` for this command.
    Logout(CommandId),
    /// Asked by `messages` (prekey bundles, …): `Engine::on_message_query`.
    Message(MessageQuery),
    /// Asked by `groups` (metadata, create): `Engine::on_group_query`.
    Group(GroupQuery),
    /// Asked by `contacts` (usync, tokens): `Engine::on_contact_query`.
    Contact(ContactQuery),
}

/// An IQ that was not answered with `type="result"`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::whatsapp) enum IqError {
    /// `type="error"`.
    #[error("the server answered {code} {text}")]
    Server {
        /// 400, 401, 403, 404, …
        code: u16,
        /// The server's word.
        text: String,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection went away.
    #[error("the connection was lost")]
    ConnectionLost,
}

/// Outstanding IQs by id.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct PendingIqs {}
