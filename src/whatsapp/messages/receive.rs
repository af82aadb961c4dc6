//! Incoming `<message>`: who sent it, every `<enc>` opened in the right order, one answer.
//!
//! Everything a message causes (history, event, ratchet, names, keys) is in one batch, in front of the receipt: what
//! was receipted is durable, and what was not durable comes again.
//!
//! | what came | answer |
//! |---|---|
//! | decrypted, or decrypted before | delivery receipt |
//! | a text never seen, under a message key that was used before | retry receipt and plain ack |
//! | cannot be decrypted | retry receipt and plain ack: a nack would block the offline queue |
//! | decrypted to nonsense | nack 491 |
//! | no content for companions, channel, status | ack |
//!
//! Seen: whatsmeow `message.go` @33cfac51; Baileys `Socket/messages-recv.js` @7.0.0-rc14, PR 2779.

use prost::Message as _;

use super::{
    padding::unpad,
    receipt::ReceiptKind,
    records::sender_key_name,
    send::CACHE_IDLE,
    source::{self, ChatKind, Own, Source},
};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    keys::PublicKey,
    proto::Message,
    signal::{Address, CiphertextKind, Decrypted, SignalError},
    tally::Counted,
    timers::Timer,
};

/// The stanza lacks what every message has.
const NACK_PARSING: u16 = 487;
/// An `<enc>` of a kind this client does not know.
const NACK_UNKNOWN_TYPE: u16 = 490;
/// The plaintext is not a padded protobuf `Message`.
const NACK_BAD_PROTOBUF: u16 = 491;
/// A bot's answer, encrypted with the secret of the question.
const NACK_NO_SECRET: u16 = 495;

/// A message being received.
pub(super) struct Incoming<'a> {
    /// The whole stanza.
    pub(super) stanza: &'a Node,
    /// Message id.
    pub(super) id: String,
    /// Who and where.
    pub(super) source: Source,
    /// Our own names.
    pub(super) own: Own,
    /// The server's time, Unix seconds.
    pub(super) timestamp: u64,
}

/// Why an `<enc>` gave no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum OpenError {
    /// It was opened before.
    #[error("already opened")]
    Duplicate,
    /// It does not open with the keys we have.
    #[error("does not open")]
    Signal(#[source] SignalError),
    /// Asking again would bring the same: refused with this code.
    #[error("refused with {0}")]
    Nack(u16),
}

impl From<SignalError> for OpenError {
    fn from(error: SignalError) -> Self {
        if error == SignalError::Duplicate { Self::Duplicate } else { Self::Signal(error) }
    }
}

/// What all `<enc>`s of a stanza gave.
#[derive(Default)]
struct Opened {
    messages: Vec<Message>,
    duplicate: bool,
    failure: Option<SignalError>,
    nack: Option<u16>,
    hide: bool,
    is_new_session: bool,
}

impl Engine {
    /// `<message …>` from the server.
    pub(in crate::whatsapp) fn on_message(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        let Some(own) = self.own() else { return Ok(()) };
        let source = source::parse(stanza, &own, false);
        let (Some(id), Ok(source)) = (stanza.get("id"), source) else {
            self.nack(stanza, NACK_PARSING);
            return Ok(());
        };
        self.arm(Timer::CacheTrim, ctx.now.mono + CACHE_IDLE);
        self.learn_lids(ctx, source.pairs.iter().map(|(pn, lid)| (pn, lid)))?;
        let timestamp = stanza.number("t").unwrap_or_else(|| ctx.now.unix_s());
        let incoming = Incoming { stanza, id: id.into_owned(), source, own, timestamp };
        if incoming.source.kind == ChatKind::Newsletter {
            self.ack(stanza);
            return Ok(());
        }
        let encs = encs(stanza, &incoming.own);
        if encs.is_empty() {
            return self.on_without_content(ctx, &incoming);
        }
        let opened = self.open_all(ctx, &incoming, &encs)?;
        self.conclude(ctx, &incoming, opened)
    }

    /// Takes in what was opened and answers the stanza.
    fn conclude(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        opened: Opened,
    ) -> Result<(), EngineError> {
        let is_resend = incoming.stanza.find_all("enc").any(|enc| enc.value("count").is_some());
        let is_suspect = opened.is_new_session
            || !self.is_drained()
            || incoming.stanza.value("offline").is_some()
            || is_resend;
        let taken_in = !opened.messages.is_empty();
        let any = opened.duplicate || taken_in;
        let mut history = false;
        for message in opened.messages {
            history |= self.take_in(ctx, incoming, message, is_suspect)?;
        }
        if let Some(error) = opened.failure {
            self.tally.count(Counted::undecryptable(error));
            return self.ask_resend(ctx, incoming, error.retry_code(), opened.hide);
        }
        if opened.duplicate && !taken_in && self.is_unheard_of(ctx, incoming)? {
            self.tally.count(Counted::KeyReused);
            return self.ask_resend(ctx, incoming, SignalError::Duplicate.retry_code(), opened.hide);
        }
        if is_resend {
            self.forget_counter(ctx.store, &incoming.source.sender, &incoming.id)?;
        }
        match opened.nack {
            Some(code) if !any => {
                self.tally.count(Counted::Unreadable);
                self.nack(incoming.stanza, code);
            }
            _ if incoming.source.kind == ChatKind::Status => self.ack(incoming.stanza),
            _ => self.send_delivery(ctx, incoming, history),
        }
        Ok(())
    }

    /// A message key that was used before, in a message that never was: its sender used the key twice, as Baileys
    /// does when it sends and receives at the same moment. Without a resend the text would be lost.
    fn is_unheard_of(&mut self, ctx: &mut Ctx<'_>, incoming: &Incoming<'_>) -> Result<bool, EngineError> {
        let source = &incoming.source;
        let is_chat = matches!(source.kind, ChatKind::Direct | ChatKind::Group);
        if source.from_me || !is_chat || !incoming.stanza.has("type", "text") {
            return Ok(false);
        }
        let chat = self.chat_of(ctx.store, incoming, None)?;
        let sender = self.display_name(ctx.store, &source.sender)?;
        Ok(self.state.message(ctx.store, &chat, &incoming.id, Some(&sender))?.is_none())
    }

    fn open_all(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        encs: &[&Node],
    ) -> Result<Opened, EngineError> {
        let mut opened = Opened::default();
        // Pairwise first: they may carry the sender key the group part needs.
        let (group, pairwise): (Vec<&Node>, Vec<&Node>) =
            encs.iter().partition(|enc| enc.has("type", "skmsg"));
        for enc in pairwise {
            let result = self.open_pairwise(ctx, incoming, enc, &mut opened.is_new_session)?;
            self.note_opened(ctx, incoming, enc, result, &mut opened)?;
        }
        for enc in group {
            // Without the keys of the failed part this one cannot open either; the resend brings both.
            if opened.failure.is_some() {
                break;
            }
            let result = self.open_group(ctx, incoming, enc)?;
            self.note_opened(ctx, incoming, enc, result, &mut opened)?;
        }
        Ok(opened)
    }

    fn note_opened(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        enc: &Node,
        result: Result<Vec<u8>, OpenError>,
        opened: &mut Opened,
    ) -> Result<(), EngineError> {
        let message = result.and_then(|plaintext| {
            let plaintext = unpad(&plaintext).map_err(|_| OpenError::Nack(NACK_BAD_PROTOBUF))?;
            Message::decode(plaintext).map_err(|_| OpenError::Nack(NACK_BAD_PROTOBUF))
        });
        match message {
            Ok(message) => {
                // At once: the `skmsg` behind it needs the key.
                self.take_in_sender_key(ctx, incoming, &message)?;
                opened.messages.push(message);
            }
            Err(OpenError::Duplicate) => opened.duplicate = true,
            Err(OpenError::Signal(error)) => {
                log::debug!("a message does not open: {error}");
                opened.failure = Some(error);
                opened.hide |= enc.has("decrypt-fail", "hide");
            }
            Err(OpenError::Nack(code)) => opened.nack = Some(code),
        }
        Ok(())
    }

    fn open_pairwise(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        enc: &Node,
        is_new_session: &mut bool,
    ) -> Result<Result<Vec<u8>, OpenError>, EngineError> {
        let kind = match enc.get("type").as_deref() {
            Some("msg") => CiphertextKind::Msg,
            Some("pkmsg") => CiphertextKind::PkMsg,
            Some("msmsg") => return Ok(Err(OpenError::Nack(NACK_NO_SECRET))),
            _ => return Ok(Err(OpenError::Nack(NACK_UNKNOWN_TYPE))),
        };
        let (Some(bytes), true) = (enc.content_bytes(), enc.has("v", "2")) else {
            return Ok(Err(OpenError::Nack(NACK_UNKNOWN_TYPE)));
        };
        let sender = self.canonical(ctx.store, &incoming.source.sender)?;
        let address = Address::from(&sender);
        let mut result = self.decrypt_checked(ctx, incoming, &address, kind, bytes)?;
        if result.as_ref().is_err_and(is_worth_another_name)
            && let Some(other) = self.alternate(ctx.store, &sender)?
            && let Ok(decrypted) = self.decrypt_checked(ctx, incoming, &Address::from(&other), kind, bytes)?
        {
            result = Ok(decrypted);
        }
        if let Ok(decrypted) = &result
            && decrypted.new_session
        {
            *is_new_session = true;
            if self.note_identity(ctx.store, &address, &decrypted.identity)? {
                self.identity_changed(ctx, &incoming.source.sender)?;
            }
        }
        Ok(result.map(|decrypted| decrypted.plaintext).map_err(OpenError::from))
    }

    /// Decrypts; a new session is kept only when its identity is vouched for, where the stanza brings a voucher.
    fn decrypt_checked(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        address: &Address,
        kind: CiphertextKind,
        bytes: &[u8],
    ) -> Result<Result<Decrypted, SignalError>, EngineError> {
        let voucher = incoming.stanza.find_bytes("device-identity");
        let sender = &incoming.source.sender;
        let store = ctx.store;
        let accept = |engine: &mut Self, identity: &PublicKey| match voucher {
            Some(blob) if sender.device != 0 => engine.device_identity_holds(store, sender, identity, blob),
            _ => Ok(true),
        };
        self.decrypt_with(ctx, address, kind, bytes, accept)
    }

    fn open_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        enc: &Node,
    ) -> Result<Result<Vec<u8>, OpenError>, EngineError> {
        let shared = matches!(incoming.source.kind, ChatKind::Group | ChatKind::Status);
        let (Some(bytes), true, true) = (enc.content_bytes(), enc.has("v", "2"), shared) else {
            return Ok(Err(OpenError::Nack(NACK_UNKNOWN_TYPE)));
        };
        // Kept under the name the group's addressing gives the sender, as Baileys does: a folder handed to it reads on.
        let sender = &incoming.source.sender;
        let name = sender_key_name(&incoming.source.chat, &Address::from(sender));
        let mut result = self.decrypt_from_group(ctx.store, &name, bytes)?;
        if result.as_ref().is_err_and(is_worth_another_name)
            && let Some(other) = self.alternate(ctx.store, sender)?
        {
            let name = sender_key_name(&incoming.source.chat, &Address::from(&other));
            if let Ok(decrypted) = self.decrypt_from_group(ctx.store, &name, bytes)? {
                result = Ok(decrypted);
            }
        }
        Ok(result.map(|decrypted| decrypted.plaintext).map_err(OpenError::from))
    }

    /// The SKDM of a message, wherever it is in it.
    fn take_in_sender_key(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        message: &Message,
    ) -> Result<(), EngineError> {
        let inner = message.device_sent_message.as_ref().and_then(|sent| sent.message.as_deref());
        let keys = message
            .sender_key_distribution_message
            .as_deref()
            .or_else(|| inner?.sender_key_distribution_message.as_deref());
        let Some(keys) = keys else { return Ok(()) };
        let group = keys.group_id.as_deref().and_then(|id| id.parse::<Jid>().ok());
        let Some(group) = group.filter(|group| group.is_group() || group.is_status_broadcast()) else {
            return Ok(());
        };
        let bytes = keys.axolotl_sender_key_distribution_message.as_deref().unwrap_or_default();
        let name = sender_key_name(&group, &Address::from(&incoming.source.sender));
        if let Err(error) = self.learn_sender_key(ctx.store, &name, bytes)? {
            log::warn!("a sender key is unusable: {error}");
        }
        Ok(())
    }

    /// No `<enc>` for us: content that companions do not get, or a fan-out that missed us.
    fn on_without_content(&mut self, ctx: &mut Ctx<'_>, incoming: &Incoming<'_>) -> Result<(), EngineError> {
        match incoming.stanza.find("unavailable") {
            Some(unavailable) => {
                match unavailable.get("type").as_deref() {
                    Some("view_once" | "view_once_unavailable_fanout") => {
                        self.store_placeholder(ctx, incoming, "view_once")?;
                    }
                    Some("bot_unavailable_fanout" | "hosted_unavailable_fanout") => {
                        self.store_placeholder(ctx, incoming, "unavailable")?;
                    }
                    // Only our phone has it, e.g. the first message after a click on an ad.
                    _ => self.miss(ctx, incoming),
                }
                self.ack(incoming.stanza);
                Ok(())
            }
            // Plain text (channels, ads) and anything else without encryption is not for a chat.
            None if incoming.stanza.find("plaintext").is_some() => {
                self.ack(incoming.stanza);
                Ok(())
            }
            None => {
                self.tally.count(Counted::undecryptable(SignalError::NoSession));
                self.ask_resend(ctx, incoming, SignalError::NoSession.retry_code(), false)
            }
        }
    }

    /// The answer to a message that is ours now.
    fn send_delivery(&mut self, ctx: &mut Ctx<'_>, incoming: &Incoming<'_>, history: bool) {
        let source = &incoming.source;
        let is_peer = incoming.stanza.has("category", "peer");
        let kind = match (is_peer, source.from_me, source.kind) {
            (true, _, _) => ReceiptKind::Peer,
            (_, true, ChatKind::Direct | ChatKind::Broadcast) => ReceiptKind::Sender,
            // We never say that we are online, so that phones keep ringing.
            _ => ReceiptKind::Inactive,
        };
        self.send_receipt(ctx, incoming.stanza, kind);
        if history {
            self.send_receipt(ctx, incoming.stanza, ReceiptKind::History);
        }
    }
}

/// The `<enc>`s for this device: at the top, or under our own `<to>` of a broadcast fan-out.
fn encs<'a>(stanza: &'a Node, own: &Own) -> Vec<&'a Node> {
    let mut encs: Vec<&Node> = stanza.find_all("enc").collect();
    if let Some(participants) = stanza.find("participants") {
        let ours = participants
            .find_all("to")
            .filter(|to| to.jid("jid").is_some_and(|jid| own.is_this_device(&jid)));
        encs.extend(ours.flat_map(|to| to.find_all("enc")));
    }
    encs
}

/// Failures that a record kept under the sender's other name may cure.
fn is_worth_another_name(error: &SignalError) -> bool {
    matches!(
        error,
        SignalError::NoSession
            | SignalError::NoSenderKey
            | SignalError::BadMac
            | SignalError::InvalidPreKeyId
            | SignalError::InvalidSignedPreKeyId
    )
}
