//! Receipts: those we owe, batched while the offline queue drains, and those about our own messages.
//!
//! `<receipt id to [type] [participant] [recipient] [t]><list><item id/>…</list></receipt>`; `to`, `participant` and
//! `recipient` are those of the stanza answered. Seen: whatsmeow `receipt.go` @33cfac51; whatsapp-rust
//! `wacore/src/stanza/receipt.rs` @1489b7da.

use std::time::Duration;

use super::source::{self, ChatKind, Source};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    model::{CommandError, CommandId, Event, MessageStatus, Reply},
    state::{StateRead, Write},
    timers::Timer,
};

/// Ids in one receipt. Seen: WhatsApp Web.
const MAX_IDS: usize = 256;
/// How long a receipt may be held back while the offline queue drains.
const HELD_BACK: Duration = Duration::from_millis(100);
/// The receipt lacks what every receipt has.
const NACK_PARSING: u16 = 487;

/// What a receipt of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiptKind {
    /// Delivered while our presence is unavailable.
    Inactive,
    /// Delivered: a message another device of ours sent.
    Sender,
    /// Delivered: a message between our own devices.
    Peer,
    /// A history notification was taken in.
    History,
}

impl ReceiptKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Sender => "sender",
            Self::Peer => "peer_msg",
            Self::History => "hist_sync",
        }
    }
}

/// Where a receipt goes and what it says; receipts that agree in this can share a stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    to: Jid,
    participant: Option<Jid>,
    recipient: Option<Jid>,
    kind: &'static str,
}

/// Receipts held back.
#[derive(Debug, Default)]
pub(super) struct HeldReceipts(Vec<(Address, Vec<String>)>);

impl HeldReceipts {
    /// They answered stanzas of a connection that is gone: those will come again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds one; returns a full receipt when there is one.
    fn add(&mut self, address: Address, id: String) -> Option<Node> {
        let at = self.0.iter().position(|(held, _)| *held == address);
        let at = at.unwrap_or_else(|| {
            self.0.push((address, Vec::new()));
            self.0.len() - 1
        });
        let (_, ids) = self.0.get_mut(at)?;
        ids.push(id);
        if ids.len() < MAX_IDS {
            return None;
        }
        let (address, ids) = self.0.swap_remove(at);
        build(&address, &ids, None)
    }

    fn drain(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.0).iter().filter_map(|(address, ids)| build(address, ids, None)).collect()
    }
}

fn build(address: &Address, ids: &[String], timestamp: Option<u64>) -> Option<Node> {
    let (first, rest) = ids.split_first()?;
    let receipt = Node::new("receipt")
        .attr("id", first.clone())
        .attr("to", &address.to)
        .attr("type", address.kind)
        .attr_opt("participant", address.participant.as_ref())
        .attr_opt("recipient", address.recipient.as_ref())
        .attr_opt("t", timestamp.map(|t| t.to_string()));
    if rest.is_empty() {
        return Some(receipt);
    }
    let items = rest.iter().map(|id| Node::new("item").attr("id", id.clone()));
    Some(receipt.child(Node::new("list").nodes(items)))
}

/// The ids a receipt is about: its own and those of its `<list>`.
fn ids(stanza: &Node) -> Vec<String> {
    let listed = stanza.find("list").map(Node::children).unwrap_or_default();
    let listed = listed.iter().filter(|item| item.tag == "item").filter_map(|item| item.get("id"));
    stanza.get("id").into_iter().chain(listed).map(|id| id.into_owned()).collect()
}

/// What a receipt of this type says about our message; `None` when it says nothing of the kind.
fn status(kind: Option<&str>) -> Option<MessageStatus> {
    match kind {
        None | Some("" | "inactive" | "delivery") => Some(MessageStatus::Delivered),
        Some("read") => Some(MessageStatus::Read),
        Some("played") => Some(MessageStatus::Played),
        Some(_) => None,
    }
}

/// Receipts we send.
impl Engine {
    /// Answers a stanza with a receipt; held back while the offline queue drains.
    pub(super) fn send_receipt(&mut self, ctx: &mut Ctx<'_>, stanza: &Node, kind: ReceiptKind) {
        let (Some(id), Some(to)) = (stanza.get("id"), stanza.jid("from")) else { return };
        let address = Address {
            to,
            participant: stanza.jid("participant"),
            recipient: stanza.jid("recipient"),
            kind: kind.as_str(),
        };
        if stanza.value("offline").is_none() || self.is_drained() {
            if let Some(receipt) = build(&address, &[id.into_owned()], None) {
                self.send_node(&receipt);
            }
            return;
        }
        if let Some(full) = self.messages.receipts.add(address, id.into_owned()) {
            self.send_node(&full);
        }
        if !self.timers.is_set(Timer::Receipts) {
            self.arm(Timer::Receipts, ctx.now.mono + HELD_BACK);
        }
    }

    /// Sends what was held back.
    pub(super) fn flush_receipts(&mut self) {
        self.timers.clear(Timer::Receipts);
        for receipt in self.messages.receipts.drain() {
            self.send_node(&receipt);
        }
    }

    /// `Command::MarkRead`.
    pub(in crate::whatsapp) fn on_mark_read(
        &mut self,
        ctx: &mut Ctx<'_>,
        command: CommandId,
        chat: &Jid,
        participant: Option<&Jid>,
        ids: &[String],
    ) -> Result<(), EngineError> {
        if ids.is_empty() || (chat.is_group() && participant.is_none()) {
            let why = "needs message ids, and in a group their author".to_owned();
            self.reply_failed(command, CommandError::Invalid(why));
            return Ok(());
        }
        if !self.is_logged_in() {
            self.reply_failed(command, CommandError::NotConnected);
            return Ok(());
        }
        let by_lid = if chat.is_group() {
            self.known_group(ctx.store, chat)?.is_none_or(|info| info.lid_addressed)
        } else {
            self.credentials.as_ref().is_some_and(|own| own.lid_migrated)
        };
        let to = if chat.is_group() { chat.clone() } else { self.named(ctx.store, chat, by_lid)? };
        let participant = match participant.filter(|_| !to.is_user()) {
            Some(author) => Some(self.named(ctx.store, author, by_lid)?),
            None => None,
        };
        let address = Address { to, participant, recipient: None, kind: "read" };
        for ids in ids.chunks(MAX_IDS) {
            if let Some(receipt) = build(&address, ids, Some(ctx.now.unix_s())) {
                self.send_node(&receipt);
            }
        }
        self.reply(command, Reply::Done);
        Ok(())
    }

    /// A person in the wanted namespace, as far as the name is known. Without device.
    fn named(&mut self, store: &dyn StateRead, user: &Jid, by_lid: bool) -> Result<Jid, EngineError> {
        let user = user.to_user();
        if user.is_lid() == by_lid {
            return Ok(user);
        }
        Ok(self.alternate(store, &user)?.unwrap_or(user))
    }
}

/// Receipts we get.
impl Engine {
    /// `<receipt …>` from the server (retry receipts included).
    pub(in crate::whatsapp) fn on_receipt(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        let Some(own) = self.own() else { return Ok(()) };
        let (Ok(source), Some(_)) = (source::parse(stanza, &own, true), stanza.get("id")) else {
            self.nack(stanza, NACK_PARSING);
            return Ok(());
        };
        self.learn_lids(ctx, source.pairs.iter().map(|(pn, lid)| (pn, lid)))?;
        let kind = stanza.get("type");
        if kind.as_deref() == Some("retry") {
            self.on_retry_receipt(ctx, stanza, &source)?;
        } else if let (Some(status), false) = (status(kind.as_deref()), source.from_me) {
            self.on_progress(ctx, stanza, &source, status)?;
        }
        self.ack(stanza);
        Ok(())
    }

    fn on_progress(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
        source: &Source,
        status: MessageStatus,
    ) -> Result<(), EngineError> {
        let chat = self.display_name(ctx.store, &source.chat)?;
        let timestamp = stanza.number("t").unwrap_or_else(|| ctx.now.unix_s());
        for group in stanza.find_all("participants") {
            let Some(id) = group.get("key") else { continue };
            for user in group.find_all("user") {
                let Some(reader) = user.jid("jid").filter(Jid::is_user) else { continue };
                let reader = self.display_name(ctx.store, &reader)?;
                let timestamp = user.number("t").unwrap_or(timestamp);
                self.progress(ctx.store, &chat, &id, status, Some(reader), timestamp)?;
            }
        }
        let is_shared = source.kind != ChatKind::Direct;
        // An aggregated receipt names nobody but those in its children.
        if is_shared && !source.sender.is_user() {
            return Ok(());
        }
        let participant = match is_shared {
            true => Some(self.display_name(ctx.store, &source.sender)?),
            false => None,
        };
        for id in ids(stanza) {
            self.progress(ctx.store, &chat, &id, status, participant.clone(), timestamp)?;
        }
        Ok(())
    }

    /// One message of ours made progress; told once per step and, in groups, per member.
    fn progress(
        &mut self,
        store: &dyn StateRead,
        chat: &Jid,
        id: &str,
        status: MessageStatus,
        participant: Option<Jid>,
        timestamp: u64,
    ) -> Result<(), EngineError> {
        let known = match self.messages.progress.get(id).copied() {
            Some(known) => known,
            None => match self.state.message(store, chat, id, None)?.filter(|record| record.from_me) {
                Some(record) => record.status,
                // Not ours, or forgotten.
                None => return Ok(()),
            },
        };
        let key = match &participant {
            Some(participant) => {
                self.messages.progress.insert(id.to_owned(), known);
                format!("{id} {participant}")
            }
            None => id.to_owned(),
        };
        let reached = match &participant {
            Some(_) => self.messages.progress.get(&key).copied(),
            None => Some(known),
        };
        if reached.is_some_and(|reached| reached >= status) {
            return Ok(());
        }
        self.messages.progress.insert(key, status);
        self.state.push(Write::Status {
            chat: chat.clone(),
            id: id.to_owned(),
            status,
            participant: participant.clone(),
            timestamp,
            error: None,
        });
        self.emit_durable(Event::MessageStatus {
            chat: chat.clone(),
            id: id.to_owned(),
            status,
            participant,
            timestamp,
            error: None,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(kind: &'static str) -> Address {
        Address { to: Jid::lid("222"), participant: None, recipient: None, kind }
    }

    #[test]
    fn a_receipt_has_the_shape_of_the_wire_sketches() {
        let one = build(&address("inactive"), &["A5".into()], None).unwrap();
        let expected =
            Node::new("receipt").attr("id", "A5").attr("to", Jid::lid("222")).attr("type", "inactive");
        assert_eq!(one, expected);

        let read = build(&address("read"), &["A5".into(), "A6".into()], Some(1_780_000_000)).unwrap();
        let expected = Node::new("receipt")
            .attr("id", "A5")
            .attr("to", Jid::lid("222"))
            .attr("type", "read")
            .attr("t", "1780000000")
            .child(Node::new("list").child(Node::new("item").attr("id", "A6")));
        assert_eq!(read, expected);

        let own = Address {
            to: Jid::lid("111"),
            recipient: Some(Jid::lid("222")),
            ..address(ReceiptKind::Sender.as_str())
        };
        let own = build(&own, &["B7".into()], None).unwrap();
        assert!(own.has("type", "sender") && own.has("recipient", "222@lid") && own.has("to", "111@lid"));
    }

    #[test]
    fn held_back_receipts_go_out_256_at_a_time_and_apart_by_addressee() {
        let mut held = HeldReceipts::default();
        for n in 0..255 {
            assert_eq!(held.add(address("inactive"), n.to_string()), None);
        }
        assert_eq!(held.add(address("sender"), "other".into()), None);
        let full = held.add(address("inactive"), "255".into()).unwrap();
        assert_eq!(ids(&full).len(), 256);
        let rest = held.drain();
        assert_eq!(rest.len(), 1);
        assert_eq!(ids(&rest[0]), ["other"]);
    }

    #[test]
    fn types_map_to_progress() {
        assert_eq!(status(None), Some(MessageStatus::Delivered));
        assert_eq!(status(Some("inactive")), Some(MessageStatus::Delivered));
        assert_eq!(status(Some("read")), Some(MessageStatus::Read));
        assert_eq!(status(Some("played")), Some(MessageStatus::Played));
        for other in ["sender", "read-self", "peer_msg", "hist_sync", "server-error", "retry"] {
            assert_eq!(status(Some(other)), None);
        }
    }
}
