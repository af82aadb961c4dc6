//! Who gets which stanza, by the phase of the login and the tag.

use super::{Engine, EngineError, Phase, ack::UNRECOGNIZED_STANZA};
use crate::whatsapp::{binary::Node, ctx::Ctx, jid::Jid, model::Trouble};

impl Engine {
    /// One decoded stanza.
    pub(super) fn on_node(&mut self, ctx: &mut Ctx<'_>, node: &Node) -> Result<(), EngineError> {
        log::debug!("received {}", node.tag);
        let Some(phase) = self.phase() else {
            return Ok(());
        };
        match (node.tag.as_ref(), phase) {
            ("success", Phase::ExpectLogin) => self.on_success(ctx, node),
            ("failure", _) => {
                self.on_failure(ctx, node);
                Ok(())
            }
            ("stream:error", _) => {
                self.on_stream_error(ctx, node);
                Ok(())
            }
            ("xmlstreamend", _) => {
                self.retry_later(Trouble::StreamEnd, "the server ended the stream");
                Ok(())
            }
            ("iq", _) => self.on_iq(ctx, node),
            ("ib", _) => self.on_ib(ctx, node),
            ("notification", Phase::Pairing | Phase::LoggedIn) => self.on_notification(ctx, node),
            (_, Phase::LoggedIn) => self.on_live_stanza(ctx, node),
            (tag, Phase::ExpectLogin | Phase::Pairing) => {
                log::debug!("passed over <{tag}> before the login");
                Ok(())
            }
        }?;
        if node.value("offline").is_some() {
            self.on_offline_stanza(ctx);
        }
        Ok(())
    }

    fn on_live_stanza(&mut self, ctx: &mut Ctx<'_>, node: &Node) -> Result<(), EngineError> {
        match node.tag.as_ref() {
            "message" => self.on_message(ctx, node)?,
            "receipt" => self.on_receipt(ctx, node)?,
            "ack" if node.has("class", "message") => return self.on_message_ack(ctx, node),
            // Acks of our receipts, and what others are doing right now: nothing to do, nothing to answer.
            "ack" | "presence" | "chatstate" | "success" => return Ok(()),
            "call" => self.ack(node),
            _ => self.on_unknown(node),
        }
        self.pay_owed_ack(node);
        Ok(())
    }

    /// A class of stanza this program does not know is acked, as clients do; one that does not even say who sent it
    /// is refused.
    fn on_unknown(&mut self, node: &Node) {
        log::debug!("unknown stanza {node}");
        if node.value("id").is_none() {
            return;
        }
        match node.jid("from") {
            Some(_) => self.ack(node),
            None => self.nack(&node.clone().attr("from", Jid::service()), UNRECOGNIZED_STANZA),
        }
    }

    fn on_iq(&mut self, ctx: &mut Ctx<'_>, iq: &Node) -> Result<(), EngineError> {
        match iq.get("type").as_deref() {
            Some("result" | "error") => self.on_iq_answer(ctx, iq),
            Some("get") if iq.has("xmlns", "urn:xmpp:ping") => {
                self.send_node(&iq_result(iq));
                Ok(())
            }
            Some("set") if iq.find("pair-device").is_some() => self.on_pair_device(ctx, iq),
            Some("set") if iq.find("pair-success").is_some() => self.on_pair_success(ctx, iq),
            _ => {
                log::debug!("unknown request {iq}");
                Ok(())
            }
        }
    }
}

/// `<iq type=result>` to whoever asked.
pub(in crate::whatsapp) fn iq_result(request: &Node) -> Node {
    Node::new("iq")
        .attr("to", request.jid("from").unwrap_or_else(Jid::service))
        .attr("type", "result")
        .attr_opt("id", request.value("id").cloned())
}
