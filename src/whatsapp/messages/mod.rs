//! Messages out and in: fan-out, encryption, server acks, receipts, retries.

use super::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::IqError,
    jid::Jid,
    model::{CommandId, SendRequest},
    timers::Timer,
};

/// IQs asked on behalf of messages.
#[derive(Debug)]
pub(in crate::whatsapp) enum MessageQuery {
    /// Prekey bundles of these devices.
    Bundles(Vec<Jid>),
}

/// Sends under way, caches of decoded records, retry budgets.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct Messages {}

/// Called by the engine. Each handler answers (receipt, ack) what it was given.
impl Engine {
    /// `Command::Send`.
    pub(in crate::whatsapp) fn on_send(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _id: CommandId,
        _request: SendRequest,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `Command::MarkRead`.
    pub(in crate::whatsapp) fn on_mark_read(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _id: CommandId,
        _chat: &Jid,
        _participant: Option<&Jid>,
        _ids: &[String],
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<message …>` from the server.
    pub(in crate::whatsapp) fn on_message(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<receipt …>` from the server (retry receipts included).
    pub(in crate::whatsapp) fn on_receipt(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<ack class="message" …>` from the server.
    pub(in crate::whatsapp) fn on_message_ack(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Answer to a [`MessageQuery`].
    pub(in crate::whatsapp) fn on_message_query(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _query: MessageQuery,
        _answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Logged in on a new connection: sends that wait for one go on.
    pub(in crate::whatsapp) fn on_messages_connected(
        &mut self,
        _ctx: &mut Ctx<'_>,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// The connection is gone: sends that wait for an ack are kept for a resend with the same id, or fail.
    pub(in crate::whatsapp) fn on_messages_disconnected(&mut self, _ctx: &mut Ctx<'_>) {}

    /// The device was unlinked: every send that waits fails, and all caches are dropped.
    pub(in crate::whatsapp) fn on_messages_logged_out(&mut self, ctx: &mut Ctx<'_>) {
        self.on_messages_disconnected(ctx);
        self.messages = Messages::default();
    }

    /// The offline queue is drained.
    pub(in crate::whatsapp) fn on_messages_offline_done(
        &mut self,
        _ctx: &mut Ctx<'_>,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// One of the timers `MessageAck`, `Receipts`, `CacheTrim` fired.
    pub(in crate::whatsapp) fn on_message_timer(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _timer: Timer,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Clean stop: writes exact counters of every cached record.
    pub(in crate::whatsapp) fn on_messages_shutdown(
        &mut self,
        _ctx: &mut Ctx<'_>,
    ) -> Result<(), EngineError> {
        Ok(())
    }
}
