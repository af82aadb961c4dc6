//! Asking our own phone for a message that does not open here.
//!
//! In parallel to the retry receipt, and the only way for messages that were never encrypted for this device: some
//! seconds later the phone is asked for those still missing, by a peer message `PLACEHOLDER_MESSAGE_RESEND`. The answer
//! is taken in like the message itself; whichever copy comes second is dropped.
//! Seen: whatsmeow `retry.go` `RequestFromPhoneDelay`, `send.go` `BuildUnavailableMessageRequest` @33cfac51;
//! whatsapp-rust `src/pdo.rs` @1489b7da.

use std::time::Duration;

use prost::Message as _;

use super::{content, padding::pad, receive::Incoming, source::ChatKind};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    messages::id,
    model::{MessageRecord, MessageStatus},
    proto::{
        Message, MessageKey, PeerDataOperationRequestMessage, PeerDataOperationRequestResponseMessage,
        ProtocolMessage, WebMessageInfo,
        peer_data_operation_request_message::PlaceholderMessageResendRequest, protocol_message::Type,
    },
    signal::{Address, CiphertextKind},
    state::Table,
    timers::Timer,
};

/// How long the sender has to send again before the phone is asked. Seen: whatsmeow, 5 s; Baileys, 3 to 5 s.
const DELAY: Duration = Duration::from_secs(5);
/// The phone is not asked for older messages. Seen: whatsapp-rust.
const MAX_AGE_S: u64 = 14 * 24 * 60 * 60;
/// Time for the phone's prekey bundle to arrive when there is no session with it.
const BUNDLE_WAIT: Duration = Duration::from_secs(1);
/// Messages waited for at once; more come again as history later.
const MAX_MISSING: usize = 128;
/// `PeerDataOperationRequestType.PLACEHOLDER_MESSAGE_RESEND`.
const PLACEHOLDER_MESSAGE_RESEND: i32 = 4;

/// Rows of the table `RetryCount` that remember a missing message begin like this; no JID does.
pub(super) const MISSING_PREFIX: &str = "missing/";

/// A message that is missing here, also after a restart.
#[derive(Debug)]
pub(super) struct Missing {
    key: MessageKey,
    at: Duration,
}

/// Stored form of a [`Missing`].
#[derive(Clone, PartialEq, prost::Message)]
struct StoredMissing {
    #[prost(message, optional, tag = "1")]
    key: Option<MessageKey>,
    /// The message's own time, Unix seconds.
    #[prost(uint64, tag = "2")]
    timestamp_s: u64,
}

impl Engine {
    /// A message did not open for the first time: the phone is asked for it, once, unless it arrives before.
    pub(super) fn miss(&mut self, ctx: &Ctx<'_>, incoming: &Incoming<'_>) {
        let source = &incoming.source;
        let is_shared = source.kind != ChatKind::Direct;
        let age_s = ctx.now.unix_s().saturating_sub(incoming.timestamp);
        let known = self.messages.missing.iter().any(|missing| missing.key.id() == incoming.id);
        if known || age_s > MAX_AGE_S || incoming.stanza.has("category", "peer") || source.sender.is_hosted()
        {
            return;
        }
        if self.messages.missing.len() >= MAX_MISSING {
            return;
        }
        let key = MessageKey {
            remote_jid: Some(source.chat.to_string()),
            from_me: Some(source.from_me),
            id: Some(incoming.id.clone()),
            participant: is_shared.then(|| source.sender.to_user().to_string()),
        };
        let stored = StoredMissing { key: Some(key.clone()), timestamp_s: incoming.timestamp };
        self.state.put(Table::RetryCount, row_of(&incoming.id), stored.encode_to_vec());
        self.await_missing(ctx, key);
    }

    /// A row of an earlier run, found at login: the phone is asked, unless the message arrives before.
    pub(super) fn still_miss(&mut self, ctx: &Ctx<'_>, row: &str) -> Result<(), EngineError> {
        let raw = self.state.get(ctx.store, Table::RetryCount, row)?.unwrap_or_default();
        let stored = StoredMissing::decode(raw.as_slice()).unwrap_or_default();
        let is_old = stored.timestamp_s + MAX_AGE_S < ctx.now.unix_s();
        match stored.key.filter(|_| !is_old) {
            Some(key) if self.messages.missing.iter().any(|missing| missing.key.id() == key.id()) => {}
            Some(key) if self.messages.missing.len() < MAX_MISSING => self.await_missing(ctx, key),
            _ => self.state.delete(Table::RetryCount, row),
        }
        Ok(())
    }

    fn await_missing(&mut self, ctx: &Ctx<'_>, key: MessageKey) {
        let at = ctx.now.mono + DELAY;
        self.messages.missing.push(Missing { key, at });
        if !self.timers.is_set(Timer::Placeholder) {
            self.arm(Timer::Placeholder, at);
        }
    }

    /// The message is here after all.
    pub(super) fn no_longer_missing(&mut self, id: &str) {
        let Some(place) = self.messages.missing.iter().position(|missing| missing.key.id() == id) else {
            return;
        };
        self.messages.missing.swap_remove(place);
        self.state.delete(Table::RetryCount, row_of(id));
    }

    /// [`Timer::Placeholder`]: asks for everything that is due.
    pub(super) fn on_placeholder_timer(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if !self.is_logged_in() {
            // Armed again at the next login.
            return Ok(());
        }
        let now = ctx.now.mono;
        let Some((phone, address)) = self.own_phone(ctx)? else { return Ok(()) };
        if !self.has_session(ctx.store, &address)? {
            if self.is_left_out(&address, now) {
                for missing in std::mem::take(&mut self.messages.missing) {
                    self.state.delete(Table::RetryCount, row_of(missing.key.id()));
                }
            } else {
                self.fetch_bundles(ctx, vec![(phone, address)]);
                self.arm(Timer::Placeholder, now + BUNDLE_WAIT);
            }
            return Ok(());
        }
        let (due, later): (Vec<Missing>, Vec<Missing>) =
            std::mem::take(&mut self.messages.missing).into_iter().partition(|missing| missing.at <= now);
        self.messages.missing = later;
        for missing in &due {
            self.state.delete(Table::RetryCount, row_of(missing.key.id()));
        }
        let wanted: Vec<_> = due
            .into_iter()
            .map(|missing| PlaceholderMessageResendRequest { message_key: Some(missing.key) })
            .collect();
        if !wanted.is_empty() {
            let request = PeerDataOperationRequestMessage {
                peer_data_operation_request_type: Some(PLACEHOLDER_MESSAGE_RESEND),
                placeholder_message_resend_request: wanted,
                ..Default::default()
            };
            let protocol = ProtocolMessage {
                r#type: Some(Type::PeerDataOperationRequestMessage as i32),
                peer_data_operation_request_message: Some(request),
                ..Default::default()
            };
            self.send_peer(ctx, phone, &address, protocol)?;
        }
        if let Some(at) = self.messages.missing.iter().map(|missing| missing.at).min() {
            self.arm(Timer::Placeholder, at);
        }
        Ok(())
    }

    /// Our phone as it is addressed, and the address of its Signal state.
    fn own_phone(&mut self, ctx: &Ctx<'_>) -> Result<Option<(Jid, Address)>, EngineError> {
        let Some(own) = self.own() else { return Ok(None) };
        let by_lid = self.credentials.as_ref().is_some_and(|own| own.lid_migrated);
        let phone = match (&own.lid, by_lid) {
            (Some(lid), true) => lid.to_user(),
            _ => own.pn.to_user(),
        };
        let address = self.signal_address(ctx.store, &phone)?;
        Ok(Some((phone, address)))
    }

    /// Sends a protocol message to a device of our own: exactly one `<enc>`, no token.
    pub(super) fn send_peer(
        &mut self,
        ctx: &mut Ctx<'_>,
        device: Jid,
        address: &Address,
        protocol: ProtocolMessage,
    ) -> Result<(), EngineError> {
        let message = Message { protocol_message: Some(Box::new(protocol)), ..Default::default() };
        let plaintext = pad(message.encode_to_vec(), ctx.rng);
        let encrypted = match self.encrypt_for(ctx.store, address, &plaintext)? {
            Ok(encrypted) => encrypted,
            Err(error) => {
                log::warn!("a message to a device of our own cannot be encrypted: {error}");
                return Ok(());
            }
        };
        let enc =
            Node::new("enc").attr("v", "2").attr("type", encrypted.kind.as_str()).bytes(encrypted.bytes);
        let stanza = Node::new("message")
            .attr("id", id::generate(&device.user, ctx.now.unix_s(), ctx.rng))
            .attr("to", device)
            .attr("type", "text")
            .attr("category", "peer")
            .attr("push_priority", "high_force")
            .child(Node::new("meta").attr("appdata", "default"))
            .child(enc)
            .child_opt(self.device_identity_node(encrypted.kind == CiphertextKind::PkMsg));
        self.send_node(&stanza);
        Ok(())
    }

    /// The phone's answer. The caller has checked that it is from our phone.
    pub(super) fn on_placeholders(
        &mut self,
        ctx: &mut Ctx<'_>,
        response: &PeerDataOperationRequestResponseMessage,
    ) -> Result<(), EngineError> {
        for result in &response.peer_data_operation_result {
            let resent = result.placeholder_message_resend_response.as_ref();
            let Some(bytes) = resent.and_then(|resent| resent.web_message_info_bytes.as_deref()) else {
                continue;
            };
            match WebMessageInfo::decode(bytes) {
                Ok(info) => self.take_in_resent(ctx, info)?,
                Err(_) => log::warn!("a message resent by our phone cannot be read"),
            }
        }
        Ok(())
    }

    fn take_in_resent(&mut self, ctx: &mut Ctx<'_>, info: WebMessageInfo) -> Result<(), EngineError> {
        let (Some(key), Some(message), Some(own)) = (info.key, info.message, self.own()) else {
            return Ok(());
        };
        let parse = |text: Option<&str>| text?.parse::<Jid>().ok();
        let (Some(chat), Some(id)) = (parse(key.remote_jid.as_deref()), key.id) else { return Ok(()) };
        let from_me = key.from_me == Some(true);
        let participant = parse(key.participant.as_deref()).or_else(|| parse(info.participant.as_deref()));
        let author = participant.unwrap_or_else(|| chat.clone());
        let message = content::unwrap(message);
        let Some(extract) = content::extract(&message) else { return Ok(()) };
        let record = MessageRecord {
            id,
            chat: self.display_name(ctx.store, &chat)?,
            sender: if from_me { own.pn.to_user() } else { self.display_name(ctx.store, &author)? },
            from_me,
            kind: extract.kind.to_owned(),
            content: extract.content,
            push_name: info.push_name,
            target_id: extract.target_id,
            timestamp: info.message_timestamp.unwrap_or_else(|| ctx.now.unix_s()),
            status: if from_me { MessageStatus::Sent } else { MessageStatus::Delivered },
            raw: message.encode_to_vec(),
        };
        self.admit(ctx.store, &author, record, true)
    }
}

fn row_of(id: &str) -> String {
    format!("{MISSING_PREFIX}{id}")
}
