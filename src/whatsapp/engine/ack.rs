//! Acks: every stanza with an id that is not answered otherwise gets one.
//!
//! `<ack class=TAG id to=FROM [participant] [recipient] [type] [error]/>`. A missing `participant` or `recipient` makes
//! the server doubt the ack and end the stream. Seen: whatsmeow `receipt.go` @33cfac51; whatsapp-rust
//! `src/client/node_io.rs` @1489b7da.

use super::Engine;
use crate::whatsapp::{
    binary::{Node, Value},
    limits::OWED_ACKS,
};

/// The stanza was understood as a stanza, but not what it wants. Seen: whatsapp-rust `wacore/src/protocol/nack.rs`.
pub(super) const UNRECOGNIZED_STANZA: u16 = 488;
/// Something the stanza must have is missing.
pub(super) const PARSING_ERROR: u16 = 487;

/// The ack of a stanza, or with `error` its nack. `None` when it has no id or sender: nothing can refer to it.
/// `type` is repeated except for messages.
fn build_ack(stanza: &Node, error: Option<u16>) -> Option<Node> {
    let id = stanza.value("id")?.clone();
    let from = stanza.value("from")?.clone();
    let copy = |key: &'static str| stanza.value(key).cloned();
    let kind: Option<Value> = if stanza.tag == "message" { None } else { copy("type") };
    Some(
        Node::new("ack")
            .attr("class", stanza.tag.clone())
            .attr("id", id)
            .attr("to", from)
            .attr_opt("participant", copy("participant"))
            .attr_opt("recipient", copy("recipient"))
            .attr_opt("type", kind)
            .attr_opt("error", error.map(|code| code.to_string())),
    )
}

impl Engine {
    /// Acks a stanza behind everything it made us write.
    pub(in crate::whatsapp) fn ack(&mut self, stanza: &Node) {
        self.answer(stanza, None);
    }

    /// Refuses a stanza, so that the server does not send it again for ever.
    pub(in crate::whatsapp) fn nack(&mut self, stanza: &Node, error: u16) {
        log::warn!("refused with {error}: {stanza}");
        self.answer(stanza, Some(error));
    }

    fn answer(&mut self, stanza: &Node, error: Option<u16>) {
        match build_ack(stanza, error) {
            Some(ack) => self.send_node(&ack),
            None => log::debug!("cannot be acked: {stanza}"),
        }
    }

    /// The server ended the stream over a stanza we never acked: it gets a plain ack when it comes again.
    pub(super) fn owe_ack(&mut self, id: &str) {
        if self.owed_acks.len() >= OWED_ACKS {
            self.owed_acks.pop_front();
        }
        self.owed_acks.push_back(id.to_owned());
    }

    /// Pays what [`Engine::owe_ack`] noted.
    pub(super) fn pay_owed_ack(&mut self, stanza: &Node) {
        if self.owed_acks.is_empty() {
            return;
        }
        let Some(id) = stanza.get("id") else {
            return;
        };
        if let Some(at) = self.owed_acks.iter().position(|owed| *owed == id) {
            self.owed_acks.remove(at);
            self.ack(stanza);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::jid::Jid;

    fn stanza(tag: &'static str) -> Node {
        Node::new(tag)
            .attr("id", "N1")
            .attr("from", Jid::new("120363000000000001", crate::whatsapp::jid::Server::Group))
            .attr("participant", Jid::lid("100000000000001"))
            .attr("recipient", Jid::lid("100000000000002"))
            .attr("type", "w:gp2")
            .attr("t", "1780000000")
    }

    #[test]
    fn an_ack_repeats_id_sender_participant_recipient_and_type() {
        let ack = build_ack(&stanza("notification"), None).unwrap();
        let expected = Node::new("ack")
            .attr("class", "notification")
            .attr("id", "N1")
            .attr("to", "120363000000000001@g.us".parse::<Jid>().unwrap())
            .attr("participant", Jid::lid("100000000000001"))
            .attr("recipient", Jid::lid("100000000000002"))
            .attr("type", "w:gp2");
        assert_eq!(ack, expected);
    }

    #[test]
    fn the_ack_of_a_message_has_no_type_and_a_nack_its_code() {
        let ack = build_ack(&stanza("message"), Some(487)).unwrap();
        assert!(ack.has("class", "message") && ack.has("error", "487"));
        assert!(ack.value("type").is_none());
    }

    #[test]
    fn without_id_or_sender_there_is_no_ack() {
        assert_eq!(build_ack(&Node::new("receipt").attr("id", "1"), None), None);
        assert_eq!(build_ack(&Node::new("receipt").attr("from", Jid::service()), None), None);
    }
}
