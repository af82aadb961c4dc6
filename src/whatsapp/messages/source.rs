//! Who a stanza is from: chat, author, direction, and the LID/PN pairs its attributes reveal.
//!
//! Seen: whatsmeow `message.go` `parseMessageSource` @33cfac51; whatsapp-rust `wacore/src/stanza/message.rs`
//! @1489b7da.

use crate::whatsapp::{
    binary::Node,
    jid::{Jid, Server},
};

/// Our own names, with device.
#[derive(Debug, Clone)]
pub(in crate::whatsapp) struct Own {
    /// Phone-number form.
    pub(in crate::whatsapp) pn: Jid,
    /// LID form.
    pub(in crate::whatsapp) lid: Option<Jid>,
}

impl Own {
    /// Whether this is one of our devices, in either form.
    pub(in crate::whatsapp) fn is(&self, jid: &Jid) -> bool {
        self.pn.same_user(jid) || self.lid.as_ref().is_some_and(|lid| lid.same_user(jid))
    }

    /// Whether this is exactly this device.
    pub(in crate::whatsapp) fn is_this_device(&self, jid: &Jid) -> bool {
        jid.device == self.pn.device && self.is(jid)
    }
}

/// What kind of chat a stanza belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChatKind {
    /// One person.
    Direct,
    /// A group.
    Group,
    /// `status@broadcast`.
    Status,
    /// A broadcast list: shown in the author's own chat.
    Broadcast,
    /// A channel.
    Newsletter,
}

/// Where a `<message>` or `<receipt>` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// What kind of chat it is.
    pub(super) kind: ChatKind,
    /// The chat as the stanza names it, without device.
    pub(super) chat: Jid,
    /// The author with device; in aggregated group receipts the group itself.
    pub(super) sender: Jid,
    /// From another device of this account.
    pub(super) from_me: bool,
    /// Pairs (PN, LID) without device, from the attributes.
    pub(super) pairs: Vec<(Jid, Jid)>,
}

/// A required attribute is missing or is not a JID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stanza does not say who it is from")]
pub(super) struct SourceError;

/// Reads the source. `participant` may be missing only when `aggregated` is allowed (group receipts).
pub(super) fn parse(stanza: &Node, own: &Own, aggregated: bool) -> Result<Source, SourceError> {
    let from = stanza.jid("from").ok_or(SourceError)?;
    match &from.server {
        Server::Group | Server::Broadcast => parse_shared(stanza, own, from, aggregated),
        Server::Newsletter => Ok(Source {
            kind: ChatKind::Newsletter,
            chat: from.to_user(),
            sender: from,
            from_me: false,
            pairs: Vec::new(),
        }),
        _ if from.is_user() => Ok(parse_direct(stanza, own, from)),
        // Bots and the service itself: a chat of their own.
        _ => Ok(Source {
            kind: ChatKind::Direct,
            chat: from.to_user(),
            sender: from,
            from_me: false,
            pairs: Vec::new(),
        }),
    }
}

fn parse_shared(stanza: &Node, own: &Own, from: Jid, aggregated: bool) -> Result<Source, SourceError> {
    let participant = match stanza.jid("participant") {
        Some(participant) if participant.is_user() => participant,
        Some(_) => return Err(SourceError),
        None if aggregated => from.clone(),
        None => return Err(SourceError),
    };
    let kind = match (&from.server, from.is_status_broadcast()) {
        (Server::Group, _) => ChatKind::Group,
        (_, true) => ChatKind::Status,
        (_, false) => ChatKind::Broadcast,
    };
    let from_me = own.is(&participant);
    let mut pairs = Vec::new();
    add_pair(&mut pairs, &participant, stanza, "participant_pn", "participant_lid");
    add_pair(&mut pairs, &participant, stanza, "sender_pn", "sender_lid");
    let chat = match kind {
        ChatKind::Broadcast if !from_me && participant.is_user() => participant.to_user(),
        _ => from,
    };
    Ok(Source { kind, chat, sender: participant, from_me, pairs })
}

fn parse_direct(stanza: &Node, own: &Own, from: Jid) -> Source {
    let mut pairs = Vec::new();
    add_pair(&mut pairs, &from, stanza, "sender_pn", "sender_lid");
    let from_me = own.is(&from);
    let recipient = stanza.jid("recipient").filter(|_| from_me);
    if let Some(recipient) = &recipient {
        add_pair(&mut pairs, recipient, stanza, "recipient_pn", "recipient_lid");
        add_pair(&mut pairs, recipient, stanza, "peer_recipient_pn", "peer_recipient_lid");
    }
    Source {
        kind: ChatKind::Direct,
        chat: recipient.as_ref().unwrap_or(&from).to_user(),
        sender: from,
        from_me,
        pairs,
    }
}

fn add_pair(pairs: &mut Vec<(Jid, Jid)>, jid: &Jid, stanza: &Node, pn_key: &str, lid_key: &str) {
    if !jid.is_user() {
        return;
    }
    let other = stanza.jid(if jid.is_lid() { pn_key } else { lid_key });
    if let Some(pair) = other.and_then(|other| pair(jid, &other)) {
        pairs.push(pair);
    }
}

/// (PN, LID) without devices, when the two are one of each.
pub(in crate::whatsapp) fn pair(one: &Jid, other: &Jid) -> Option<(Jid, Jid)> {
    if !one.is_user() || !other.is_user() {
        return None;
    }
    match (one.is_lid(), other.is_lid()) {
        (false, true) => Some((one.to_user(), other.to_user())),
        (true, false) => Some((other.to_user(), one.to_user())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own { pn: Jid::pn("100").with_device(7), lid: Some(Jid::lid("900").with_device(7)) }
    }

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn message(attrs: &[(&'static str, &str)]) -> Source {
        let node = attrs
            .iter()
            .fold(Node::new("message"), |node, (key, value)| node.attr(*key, (*value).to_owned()));
        parse(&node, &own(), false).unwrap()
    }

    #[test]
    fn a_direct_message_is_in_the_chat_of_its_author() {
        let source = message(&[("from", "222:3@lid"), ("sender_pn", "4915@s.whatsapp.net")]);
        assert_eq!(source.chat, jid("222@lid"));
        assert_eq!(source.sender, jid("222:3@lid"));
        assert!(!source.from_me);
        assert_eq!(source.pairs, [(jid("4915@s.whatsapp.net"), jid("222@lid"))]);
    }

    #[test]
    fn a_message_of_our_own_phone_is_in_the_chat_of_its_recipient() {
        let source = message(&[
            ("from", "900@lid"),
            ("recipient", "222@lid"),
            ("peer_recipient_pn", "4915@s.whatsapp.net"),
        ]);
        assert!(source.from_me);
        assert_eq!(source.chat, jid("222@lid"));
        assert_eq!(source.pairs, [(jid("4915@s.whatsapp.net"), jid("222@lid"))]);
        assert_eq!(message(&[("from", "100@s.whatsapp.net")]).chat, jid("100@s.whatsapp.net"));
    }

    #[test]
    fn a_group_message_is_from_its_participant() {
        let source = message(&[
            ("from", "1203@g.us"),
            ("participant", "100:2@s.whatsapp.net"),
            ("participant_lid", "900:2@lid"),
        ]);
        assert_eq!((source.kind, source.from_me), (ChatKind::Group, true));
        assert_eq!(source.pairs, [(jid("100@s.whatsapp.net"), jid("900@lid"))]);
        let list = message(&[("from", "77@broadcast"), ("participant", "222@lid")]);
        assert_eq!((list.kind, list.chat), (ChatKind::Broadcast, jid("222@lid")));
        let status = message(&[("from", "status@broadcast"), ("participant", "222@lid")]);
        assert_eq!((status.kind, status.chat), (ChatKind::Status, jid("status@broadcast")));
    }

    #[test]
    fn a_stanza_without_an_author_is_an_error() {
        let own = own();
        assert_eq!(parse(&Node::new("message"), &own, false), Err(SourceError));
        let group = Node::new("message").attr("from", jid("1@g.us"));
        assert_eq!(parse(&group, &own, false), Err(SourceError));
        assert!(parse(&group, &own, true).is_ok());
        let odd = group.attr("participant", jid("2@g.us"));
        assert_eq!(parse(&odd, &own, true), Err(SourceError));
    }

    #[test]
    fn two_names_in_one_namespace_are_no_pair() {
        let source = message(&[("from", "222@lid"), ("sender_pn", "333@lid")]);
        assert_eq!(source.pairs, []);
    }
}
