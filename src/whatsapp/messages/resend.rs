//! Answering retry receipts: a device could not open one of our messages.
//!
//! State is repaired first (sender key mark, session), even when the message itself is forgotten; then the stored
//! message goes to that device only, encrypted pairwise, with our sender key inside when it was a group message.
//! Seen: whatsmeow `retry.go` `handleRetryReceipt` @33cfac51; whatsapp-rust PR 1300; Baileys `Socket/messages-recv.js`
//! @7.0.0-rc14 (base key check).

use std::time::Duration;

use prost::Message as _;

use super::{
    bundle::parse_bundle,
    content,
    fanout::wrap_for_own,
    padding::pad,
    records::sender_key_name,
    retry::counter_key,
    source::{ChatKind, Source},
};
use crate::whatsapp::{
    binary::{Node, Value},
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    keys::PublicKey,
    model::MessageRecord,
    proto::Message,
    signal::{Address, CiphertextKind},
    tally::Counted,
};

/// A peer that asked this often has given up on it. Seen: WhatsApp Web.
const MAX_PEER_COUNT: u8 = 5;
/// Resends of one message to one device, whatever the peer counts. Seen: whatsmeow.
const MAX_OWN_COUNT: u8 = 10;
/// A session is rebuilt without the peer's keys at most once in this time. Seen: whatsmeow.
const RECREATE_INTERVAL: Duration = Duration::from_secs(3600);
/// Resends that may wait for bundles at once.
const MAX_WAITING: usize = 256;

/// One message to one device, once more.
#[derive(Debug)]
pub(super) struct Resend {
    device: Jid,
    address: Address,
    record_id: String,
    chat: Jid,
    kind: ChatKind,
    from_me: bool,
    count: u8,
    timestamp: Option<Value>,
    to: Option<Value>,
    participant: Option<Value>,
    recipient: Option<Value>,
}

impl Engine {
    /// A retry receipt. The caller acks it.
    pub(super) fn on_retry_receipt(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
        source: &Source,
    ) -> Result<(), EngineError> {
        let Some(retry) = stanza.find("retry") else { return Ok(()) };
        let Some(id) = retry.get("id").or_else(|| stanza.get("id")) else { return Ok(()) };
        let count = retry.number::<u8>("count").unwrap_or(1);
        let device = &source.sender;
        let is_other_device = device.is_user() && !self.own().is_none_or(|own| own.is_this_device(device));
        if count >= MAX_PEER_COUNT || !is_other_device {
            return Ok(());
        }
        // The server delivers twice what it thinks unanswered. On a new connection the answer may really be lost.
        let asked = format!("{device}/{id}/{count}");
        if self.messages.answered.get(&asked).is_some() {
            return Ok(());
        }
        self.messages.answered.insert(asked, ());
        self.tally.count(Counted::RetryReceived);
        let chat = self.display_name(ctx.store, &source.chat)?;
        let own_count = self.count_retry(ctx, &counter_key(device, &id), 0)?;
        if own_count > MAX_OWN_COUNT || !self.messages.answering.take(&chat, ctx.now.mono) {
            log::debug!("a retry receipt is beyond the budget");
            return Ok(());
        }
        let address = self.signal_address(ctx.store, device)?;
        self.repair(ctx, stanza, source, &address, &id, count)?;
        let resend = Resend {
            device: device.clone(),
            address,
            record_id: id.into_owned(),
            chat,
            kind: source.kind,
            from_me: source.from_me,
            count,
            timestamp: retry.value("t").cloned(),
            to: stanza.value("from").cloned(),
            participant: stanza.value("participant").cloned(),
            recipient: stanza.value("recipient").cloned(),
        };
        self.resend_or_wait(ctx, resend)
    }

    /// Brings marks and session into a state in which the device can open what comes next.
    fn repair(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
        source: &Source,
        address: &Address,
        id: &str,
        count: u8,
    ) -> Result<(), EngineError> {
        let device = &source.sender;
        if source.kind != ChatKind::Direct {
            self.unmark_device(ctx.store, &source.chat, address)?;
        }
        if !self.knows_device(ctx.store, device)? {
            self.forget_devices(ctx.store, device)?;
        }
        if let Some(keys) = stanza.find("keys") {
            if let Some(bundle) = parse_bundle(keys, stanza) {
                self.use_bundle(ctx, device, address, &bundle, keys.find_bytes("device-identity"))?;
            }
            return Ok(());
        }
        let Some((base_key, known_registration)) = self.session_marks(ctx.store, address)? else {
            return Ok(());
        };
        let registration = stanza.find_bytes("registration").and_then(|raw| raw.try_into().ok());
        let registration = registration.map(u32::from_be_bytes);
        let reinstalled =
            registration.is_some() && known_registration.is_some() && registration != known_registration;
        if reinstalled || self.is_stuck(ctx, address, id, count, base_key) {
            self.archive_session(ctx.store, address)?;
        }
        Ok(())
    }

    /// Whether retries go round in circles: the session is the one that was there at the last retry, or the peer has
    /// asked twice and the session was not rebuilt for an hour.
    fn is_stuck(
        &mut self,
        ctx: &Ctx<'_>,
        address: &Address,
        id: &str,
        count: u8,
        base_key: PublicKey,
    ) -> bool {
        if count < 2 {
            return false;
        }
        let key = format!("{address}/{id}");
        let same = self.messages.base_keys.get(&key).is_some_and(|seen| *seen == base_key);
        self.messages.base_keys.insert(key, base_key);
        let now = ctx.now.mono;
        let is_due = self.messages.recreated.get(address).is_none_or(|at| now >= *at + RECREATE_INTERVAL);
        if is_due {
            self.messages.recreated.insert(address.clone(), now);
        }
        same || is_due
    }

    fn resend_or_wait(&mut self, ctx: &mut Ctx<'_>, resend: Resend) -> Result<(), EngineError> {
        if self.has_session(ctx.store, &resend.address)? {
            return self.resend(ctx, &resend);
        }
        if self.messages.resends.len() >= MAX_WAITING || self.is_left_out(&resend.address, ctx.now.mono) {
            return Ok(());
        }
        // The device may ask again while its bundle is on the way: one answer is enough.
        let same = |other: &Resend| other.address == resend.address && other.record_id == resend.record_id;
        self.messages.resends.retain(|other| !same(other));
        let target = (resend.device.clone(), resend.address.clone());
        self.messages.resends.push(resend);
        self.fetch_bundles(ctx, vec![target]);
        Ok(())
    }

    /// Bundles of these devices are here, or are known not to come.
    pub(super) fn resend_after_bundles(
        &mut self,
        ctx: &mut Ctx<'_>,
        devices: &[Jid],
    ) -> Result<(), EngineError> {
        if self.messages.resends.is_empty() {
            return Ok(());
        }
        let mut addresses = Vec::with_capacity(devices.len());
        for device in devices {
            addresses.push(self.signal_address(ctx.store, device)?);
        }
        let (due, waiting) = std::mem::take(&mut self.messages.resends)
            .into_iter()
            .partition(|resend: &Resend| addresses.contains(&resend.address));
        self.messages.resends = waiting;
        let due: Vec<Resend> = due;
        for resend in due {
            if self.has_session(ctx.store, &resend.address)? {
                self.resend(ctx, &resend)?;
            }
        }
        Ok(())
    }

    /// The message as we sent it; `None` when it is forgotten or was never ours. Nothing is made up in its place.
    fn sent_message(&mut self, ctx: &Ctx<'_>, resend: &Resend) -> Result<Option<MessageRecord>, EngineError> {
        let mut record = self.state.message(ctx.store, &resend.chat, &resend.record_id, None)?;
        if record.is_none()
            && let Some(other) = self.alternate(ctx.store, &resend.chat)?
        {
            record = self.state.message(ctx.store, &other, &resend.record_id, None)?;
        }
        Ok(record.filter(|record| record.from_me && !record.raw.is_empty()))
    }

    fn resend(&mut self, ctx: &mut Ctx<'_>, resend: &Resend) -> Result<(), EngineError> {
        let Some(record) = self.sent_message(ctx, resend)? else {
            log::debug!("a retry receipt for a message that is not kept");
            return Ok(());
        };
        let Ok(message) = Message::decode(record.raw.as_slice()) else { return Ok(()) };
        let stanza_kind = content::stanza_kind(&message);
        let plaintext = if resend.kind != ChatKind::Direct {
            self.with_sender_key(ctx, &resend.chat, message)?.encode_to_vec()
        } else if resend.from_me {
            let recipient = resend.recipient.clone().and_then(|value| match value {
                Value::Jid(jid) => Some(jid),
                Value::Text(text) => text.parse().ok(),
            });
            wrap_for_own(&record.raw, recipient.as_ref().unwrap_or(&resend.chat))
        } else {
            record.raw
        };
        let plaintext = pad(plaintext, ctx.rng);
        let encrypted = match self.encrypt_for(ctx.store, &resend.address, &plaintext)? {
            Ok(encrypted) => encrypted,
            Err(error) => {
                log::warn!("a resend cannot be encrypted: {error}");
                return Ok(());
            }
        };
        let is_direct = resend.kind == ChatKind::Direct;
        let token = if is_direct && !resend.from_me {
            self.issue_token_if_due(ctx, &resend.device)?;
            self.token_node(ctx.store, &resend.device, ctx.now.unix_s())?
        } else {
            None
        };
        let enc = Node::new("enc")
            .attr("v", "2")
            .attr("type", encrypted.kind.as_str())
            .attr("count", resend.count.to_string())
            .attr_opt("mediatype", stanza_kind.media)
            .attr_opt("decrypt-fail", stanza_kind.hide.then_some("hide"))
            .bytes(encrypted.bytes);
        let stanza = Node::new("message")
            .attr("id", resend.record_id.clone())
            .attr_opt("to", resend.to.clone())
            .attr("type", stanza_kind.kind)
            .attr_opt("t", resend.timestamp.clone())
            .attr_opt("participant", resend.participant.clone())
            .attr_opt("recipient", resend.recipient.clone())
            .attr_opt("edit", stanza_kind.edit)
            .attr_opt("device_fanout", is_direct.then_some("false"))
            .child(enc)
            .child_opt(self.device_identity_node(encrypted.kind == CiphertextKind::PkMsg))
            .child_opt(token);
        self.send_node(&stanza);
        self.tally.count(Counted::Resent);
        Ok(())
    }

    /// Adds our current sender key, so that the device can open what follows in the group.
    fn with_sender_key(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &Jid,
        mut message: Message,
    ) -> Result<Message, EngineError> {
        let Some(own) = self.own() else { return Ok(message) };
        let lid_addressed = self.known_group(ctx.store, group)?.is_some_and(|info| info.lid_addressed);
        let me = match (&own.lid, lid_addressed) {
            (Some(lid), true) => lid,
            _ => &own.pn,
        };
        let name = sender_key_name(group, &Address::from(me));
        if self.own_sender_key(ctx.store, &name)?.is_some()
            && let Ok(keys) = self.sender_key_message(ctx, group, &name)?
        {
            message.sender_key_distribution_message = keys.sender_key_distribution_message;
        }
        Ok(message)
    }
}
