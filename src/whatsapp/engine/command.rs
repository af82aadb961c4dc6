//! Commands: each goes to whoever can do it, or is answered at once when this is not the time.

use super::{Engine, EngineError};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    iq::{IqError, IqKind, iq},
    model::{Command, CommandError, CommandId, DisconnectReason, Event, Reply},
};

impl Engine {
    pub(super) fn on_command(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: CommandId,
        command: Command,
    ) -> Result<(), EngineError> {
        let paired = match self.load_credentials(ctx.store) {
            Ok(()) => self.is_linked(),
            Err(error) => {
                self.reply_failed(id, CommandError::Store(error.to_string()));
                return Err(error);
            }
        };
        if let Command::PairCode { phone } = command {
            self.on_pair_code(ctx, id, phone);
            return Ok(());
        }
        if !paired {
            let error = CommandError::WrongState("the session is not linked to a phone");
            if matches!(command, Command::Send(_)) {
                self.refuse_send(id, error);
            } else {
                self.reply_failed(id, error);
            }
            return Ok(());
        }
        match command {
            Command::PairCode { .. } => Ok(()),
            Command::Send(request) => self.on_send(ctx, id, request),
            Command::MarkRead { chat, participant, ids } => {
                self.on_mark_read(ctx, id, &chat, participant.as_ref(), &ids)
            }
            Command::Logout => {
                self.on_logout(ctx, id);
                Ok(())
            }
            Command::GroupInfo { group } => self.on_group_info(ctx, id, &group),
            Command::CreateGroup { subject, participants } => {
                self.on_create_group(ctx, id, &subject, &participants)
            }
        }
    }

    /// A command that did not work.
    pub(in crate::whatsapp) fn reply_failed(&mut self, id: CommandId, error: CommandError) {
        self.reply(id, Reply::Failed(error));
    }

    /// `<remove-companion-device jid reason=user_initiated/>`.
    fn on_logout(&mut self, ctx: &mut Ctx<'_>, id: CommandId) {
        let jid = self.credentials.as_ref().and_then(|credentials| credentials.jid.clone());
        let (true, Some(jid)) = (self.is_logged_in(), jid) else {
            self.reply_failed(id, CommandError::NotConnected);
            return;
        };
        let remove = Node::new("remove-companion-device").attr("jid", jid).attr("reason", "user_initiated");
        self.send_iq(ctx, iq("set", "md").child(remove), IqKind::Logout(id));
    }

    /// The phone no longer lists us: nothing of the link is kept.
    pub(in crate::whatsapp) fn on_logout_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: CommandId,
        outcome: Result<&Node, IqError>,
    ) {
        if let Err(error) = outcome {
            self.reply_failed(id, error.to_command_error());
            return;
        }
        self.clear_link(ctx);
        self.emit_durable(Event::LoggedOut { reason: "logged out on request".to_owned() });
        self.reply(id, Reply::Done);
        self.disconnect(DisconnectReason::Requested);
    }
}
