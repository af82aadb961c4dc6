//! A decrypted message becomes history: admitted once, unwrapped, named, stored with its event.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

use prost::Message as _;

use super::{
    content::{self, Ephemeral, Extract},
    receive::Incoming,
    source::ChatKind,
};
use crate::whatsapp::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    model::{Arrival, Event, MessageRecord, MessageStatus},
    proto::{Message, protocol_message},
    state::StateRead,
    tally::Counted,
};

/// Messages remembered as admitted without asking the store.
const ADMITTED: usize = 256;

/// The last admitted messages by hash of (chat, id, sender).
#[derive(Debug, Default)]
pub(super) struct Admitted(VecDeque<u64>);

impl Admitted {
    fn hash(record: &MessageRecord) -> u64 {
        // Keys are fixed: collisions are possible by intent, but then only hide the sender's own messages.
        let mut hasher = DefaultHasher::new();
        (&record.chat, &record.id, &record.sender).hash(&mut hasher);
        hasher.finish()
    }

    fn contains(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }

    fn add(&mut self, hash: u64) {
        if self.0.len() >= ADMITTED {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }
}

impl Engine {
    /// Takes in one decrypted message. True when it was a history notification.
    ///
    /// `is_suspect`: the message may have been taken in before, so the store is asked.
    pub(super) fn take_in(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        message: Message,
        is_suspect: bool,
    ) -> Result<bool, EngineError> {
        let (message, destination) = match message.device_sent_message {
            // Only our own devices may say what was sent in our name.
            Some(sent) if incoming.source.from_me => {
                let destination = sent.destination_jid.as_deref().and_then(|jid| jid.parse::<Jid>().ok());
                (sent.message.map(|inner| *inner).unwrap_or_default(), destination)
            }
            Some(_) => return Ok(false),
            None => (message, None),
        };
        let message = content::unwrap(message);
        if let Some(protocol) = message.protocol_message.as_deref()
            && self.on_protocol_message(ctx, incoming, protocol)?
        {
            use protocol_message::Type;
            let is_history = protocol.r#type == Some(Type::HistorySyncNotification as i32);
            return Ok(is_history && incoming.source.from_me);
        }
        let Some(extract) = content::extract(&message) else { return Ok(false) };
        let chat = self.chat_of(ctx.store, incoming, destination.as_ref())?;
        let record = self.record_of(ctx.store, incoming, chat, extract, message.encode_to_vec())?;
        self.note_ephemeral(ctx.store, &record, &message)?;
        self.admit(ctx.store, &incoming.source.sender, record, is_suspect)?;
        Ok(false)
    }

    /// Content that companions do not get: the place it would have taken.
    pub(super) fn store_placeholder(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        kind: &'static str,
    ) -> Result<(), EngineError> {
        let chat = self.chat_of(ctx.store, incoming, None)?;
        let extract = Extract { kind, content: String::new(), target_id: None };
        let record = self.record_of(ctx.store, incoming, chat, extract, Vec::new())?;
        self.admit(ctx.store, &incoming.source.sender, record, true)
    }

    /// The chat's one name. A message sent from our phone says itself who it went to, when the stanza does not.
    pub(super) fn chat_of(
        &mut self,
        store: &dyn StateRead,
        incoming: &Incoming<'_>,
        destination: Option<&Jid>,
    ) -> Result<Jid, EngineError> {
        let source = &incoming.source;
        let chat = match destination {
            Some(to) if source.kind == ChatKind::Direct && incoming.stanza.value("recipient").is_none() => to,
            _ => &source.chat,
        };
        self.display_name(store, chat)
    }

    fn record_of(
        &mut self,
        store: &dyn StateRead,
        incoming: &Incoming<'_>,
        chat: Jid,
        extract: Extract,
        raw: Vec<u8>,
    ) -> Result<MessageRecord, EngineError> {
        let from_me = incoming.source.from_me;
        let sender = if from_me {
            incoming.own.pn.to_user()
        } else {
            self.display_name(store, &incoming.source.sender)?
        };
        let push_name = incoming.stanza.get("notify").filter(|name| !name.is_empty() && !from_me);
        if let Some(name) = &push_name {
            self.learn_push_name(store, &sender, name)?;
        }
        Ok(MessageRecord {
            id: incoming.id.clone(),
            chat,
            sender,
            from_me,
            kind: extract.kind.to_owned(),
            content: extract.content,
            push_name: push_name.map(|name| name.into_owned()),
            target_id: extract.target_id,
            timestamp: incoming.timestamp,
            status: if from_me { MessageStatus::Sent } else { MessageStatus::Delivered },
            raw,
        })
    }

    /// Stores a message and its event, once.
    pub(super) fn admit(
        &mut self,
        store: &dyn StateRead,
        author: &Jid,
        record: MessageRecord,
        is_suspect: bool,
    ) -> Result<(), EngineError> {
        self.no_longer_missing(&record.id);
        let hash = Admitted::hash(&record);
        if self.messages.admitted.contains(hash)
            || is_suspect
                && self.state.message(store, &record.chat, &record.id, Some(&record.sender))?.is_some()
        {
            log::debug!("a message came again");
            self.tally.count(Counted::ReceivedRepeat);
            return Ok(());
        }
        if !self.may_change_target(store, author, &record)? {
            log::warn!("dropped a {} of somebody else's message", record.kind);
            return Ok(());
        }
        self.messages.admitted.add(hash);
        self.tally.count(match &record {
            record if record.from_me => Counted::ReceivedOwn,
            record if record.chat.is_group() => Counted::ReceivedGroup,
            record if record.chat.is_status_broadcast() => Counted::ReceivedStatus,
            _ => Counted::ReceivedDirect,
        });
        self.state.add_message(record.clone());
        let arrival = Arrival {
            sender_alt: self.alternate(store, &record.sender)?,
            chat_alt: self.alternate(store, &record.chat)?,
            offline: !self.is_drained(),
        };
        self.emit_durable(Event::Message(Box::new(record), Box::new(arrival)));
        Ok(())
    }

    /// An edit must come from the author; a revoke from the author or an admin of the group.
    fn may_change_target(
        &mut self,
        store: &dyn StateRead,
        author: &Jid,
        record: &MessageRecord,
    ) -> Result<bool, EngineError> {
        let Some(target_id) = record.target_id.as_deref() else { return Ok(true) };
        let is_revoke = record.kind == "revoke";
        if !is_revoke && record.kind != "edit" {
            return Ok(true);
        }
        let Some(target) = self.state.message(store, &record.chat, target_id, None)? else { return Ok(true) };
        if target.sender.same_user(&record.sender) {
            return Ok(true);
        }
        Ok(is_revoke && record.chat.is_group() && self.is_group_admin(store, &record.chat, author)?)
    }

    /// Keeps the chat's timer: set by a protocol message, repeated in every message of the chat.
    fn note_ephemeral(
        &mut self,
        store: &dyn StateRead,
        record: &MessageRecord,
        message: &Message,
    ) -> Result<(), EngineError> {
        let ephemeral = if record.kind == "ephemeral_setting" {
            message.protocol_message.as_deref().map(|protocol| Ephemeral {
                expiration_s: protocol.ephemeral_expiration.unwrap_or_default(),
                set_at_s: i64::try_from(record.timestamp).unwrap_or_default(),
            })
        } else {
            content::context_info(message).and_then(|info| {
                Some(Ephemeral {
                    expiration_s: info.expiration?,
                    set_at_s: info.ephemeral_setting_timestamp.unwrap_or_default(),
                })
            })
        };
        match ephemeral {
            Some(ephemeral) => self.set_ephemeral(store, &record.chat, ephemeral),
            None => Ok(()),
        }
    }
}
