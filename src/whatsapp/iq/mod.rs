//! Questions to the server and their answers.
//!
//! Every IQ we send is remembered with its [`IqKind`]; the answer, an error or a timeout goes to the handler of that
//! kind exactly once. [`pending`] is the table of outstanding ones, `prekeys`, `rotation` and `props` are families of
//! questions. Knows nothing of what messages, groups and contacts ask: their kinds are passed through.

use crate::whatsapp::{
    binary::Node,
    contacts::ContactQuery,
    ctx::Ctx,
    engine::{Engine, EngineError},
    groups::GroupQuery,
    jid::Jid,
    messages::MessageQuery,
    model::{CommandError, CommandId},
    timers::Timer,
};

mod pending;
mod prekeys;
mod props;
mod rotation;

pub(in crate::whatsapp) use pending::PendingIqs;
pub(in crate::whatsapp) use prekeys::{PreKeyUploads, prekey_node, signed_prekey_node};

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
    /// The signed prekey of this id was offered.
    SignedPreKey {
        /// Which.
        id: u32,
    },
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

impl IqError {
    /// What a caller is told when the question behind its command failed like this.
    pub(in crate::whatsapp) fn to_command_error(&self) -> CommandError {
        match self {
            Self::Server { code: 429, .. } => CommandError::RateLimited,
            Self::Server { code, .. } => {
                CommandError::Refused { code: *code, reason: "the server refused the request" }
            }
            Self::Timeout => CommandError::Timeout,
            Self::ConnectionLost => CommandError::ConnectionLost,
        }
    }

    fn of(answer: &Node) -> Self {
        let error = answer.find("error");
        Self::Server {
            code: error.and_then(|error| error.number("code")).unwrap_or_default(),
            text: error.and_then(|error| error.get("text")).unwrap_or_default().into_owned(),
        }
    }
}

/// `<iq to=s.whatsapp.net type= xmlns=>`, still without id and content.
pub(in crate::whatsapp) fn iq(kind: &'static str, xmlns: &'static str) -> Node {
    Node::new("iq").attr("to", Jid::service()).attr("type", kind).attr("xmlns", xmlns)
}

impl Engine {
    /// `<iq type="result|error" id=…>`: hands it to whoever asked. An answer nobody waits for is dropped.
    pub(in crate::whatsapp) fn on_iq_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        answer: &Node,
    ) -> Result<(), EngineError> {
        let Some(kind) = answer.get("id").and_then(|id| self.iqs.take(&id)) else {
            log::debug!("an IQ answer nobody waits for");
            return Ok(());
        };
        self.arm_iq_timer();
        let outcome = if answer.has("type", "error") { Err(IqError::of(answer)) } else { Ok(answer) };
        self.on_iq_outcome(ctx, kind, outcome)
    }

    /// [`Timer::Iq`]: everything overdue fails.
    pub(in crate::whatsapp) fn on_iq_timer(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        while let Some(kind) = self.iqs.expired(ctx.now.mono) {
            self.on_iq_outcome(ctx, kind, Err(IqError::Timeout))?;
        }
        self.arm_iq_timer();
        Ok(())
    }

    /// Questions that could not be asked, or whose connection is gone, get their outcome; all of them, also when one
    /// handler fails. What a handler asks anew is lost as well, and settled by the next call: this one has an end.
    pub(in crate::whatsapp) fn settle_lost_iqs(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        let mut result = Ok(());
        for kind in self.iqs.take_lost() {
            let outcome = self.on_iq_outcome(ctx, kind, Err(IqError::ConnectionLost));
            result = result.and(outcome);
        }
        result
    }

    pub(in crate::whatsapp) fn arm_iq_timer(&mut self) {
        match self.iqs.next_deadline() {
            Some(at) => self.timers.set(Timer::Iq, at),
            None => self.timers.clear(Timer::Iq),
        }
    }

    fn on_iq_outcome(
        &mut self,
        ctx: &mut Ctx<'_>,
        kind: IqKind,
        outcome: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        match kind {
            // Liveness looks at received data, whatever it is.
            IqKind::Ping | IqKind::Ignore => Ok(()),
            IqKind::PreKeyCount => self.on_prekey_count(ctx, outcome),
            IqKind::PreKeyUpload { last_id } => self.on_prekey_upload(ctx, last_id, outcome),
            IqKind::PreKeyDigest => self.on_prekey_digest(ctx, outcome),
            IqKind::SignedPreKey { id } => self.on_signed_prekey_answer(ctx, id, outcome),
            IqKind::Props => {
                self.on_props(outcome);
                Ok(())
            }
            IqKind::PairCode(id) => {
                self.on_pair_code_answer(ctx, id, outcome);
                Ok(())
            }
            IqKind::PairCodeFinish => {
                self.on_pair_code_finished(outcome);
                Ok(())
            }
            IqKind::Logout(id) => {
                self.on_logout_answer(ctx, id, outcome);
                Ok(())
            }
            IqKind::Message(query) => self.on_message_query(ctx, query, outcome),
            IqKind::Group(query) => self.on_group_query(ctx, query, outcome),
            IqKind::Contact(query) => self.on_contact_query(ctx, query, outcome),
        }
    }
}
