//! A phone sends texts: to a contact and to its own companions, or to a group.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{
    Phone, PhoneCtx,
    sessions::{OwnSenderKey, enc_node, padded},
};
use crate::{
    sandbox::{
        service::participant_hash,
        world::{PhoneMessage, SandboxError},
    },
    whatsapp::{
        binary::Node,
        jid::Jid,
        proto::{DeviceSentMessage, Message, MessageContextInfo, SenderKeyDistributionMessage},
        signal::SenderKeyRecord,
    },
};

/// Messages kept for resends.
#[derive(Default)]
pub(super) struct Sent {
    by_id: HashMap<String, (Jid, Message)>,
    order: VecDeque<String>,
}

impl Sent {
    pub(super) fn insert(&mut self, id: String, to: Jid, message: Message) {
        self.order.push_back(id.clone());
        self.by_id.insert(id, (to, message));
        if self.order.len() > MAX_SENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<&(Jid, Message)> {
        self.by_id.get(id)
    }
}

impl Phone {
    /// Sends a text; `to` is a phone number or a JID. Gives back the message id.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when there is no such recipient.
    pub fn send_text(
        &mut self,
        to: &str,
        text: &str,
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<String, SandboxError> {
        let to = self.recipient(to, ctx)?;
        let id = Self::random_id(ctx.rng);
        let mut secret = vec![0; 32];
        ctx.rng.fill_bytes(&mut secret);
        let info = MessageContextInfo { message_secret: Some(secret), ..MessageContextInfo::default() };
        let message = Message {
            conversation: Some(text.to_owned()),
            message_context_info: Some(Box::new(info)),
            ..Message::default()
        };
        let node = if to.is_group() {
            self.group_stanza(&id, &to, &message, ctx)?
        } else {
            self.dm_stanza(&id, &to, &message, ctx)?
        };
        self.sent.insert(id.clone(), to.clone(), message);
        self.record(PhoneMessage {
            id: id.clone(),
            chat: to.to_string(),
            sender: self.own_jid().to_string(),
            from_me: true,
            text: text.to_owned(),
            quoted: None,
            timestamp: ctx.now.unix_s(),
            status: "sent",
        });
        ctx.directory.submit(self.account, node, ctx.now);
        self.give_token(&to, ctx);
        Ok(id)
    }

    /// Notes a message sent or received.
    pub(super) fn record(&mut self, message: PhoneMessage) {
        if self.messages.len() >= MAX_MESSAGES {
            self.messages.drain(..MAX_MESSAGES / 2);
            self.own_messages.clear();
            let own = self.messages.iter().enumerate().filter(|(_, message)| message.from_me);
            self.own_messages.extend(own.map(|(at, message)| (message.id.clone(), at)));
        }
        if message.from_me {
            self.own_messages.insert(message.id.clone(), self.messages.len());
        }
        self.messages.push(message);
    }

    /// A recipient in the namespace this account uses.
    pub(super) fn recipient(&self, text: &str, ctx: &mut PhoneCtx<'_>) -> Result<Jid, SandboxError> {
        let invalid = |reason: String| SandboxError::Invalid { field: "to", reason };
        let digits = text.trim_start_matches('+');
        let jid = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            Jid::pn(digits.to_owned())
        } else {
            text.parse::<Jid>().map_err(|error| invalid(error.to_string()))?
        };
        if jid.is_group() {
            return Ok(jid);
        }
        let jid = jid.to_user();
        let jid = if self.lid_migrated { ctx.directory.to_lid(&jid) } else { ctx.directory.to_pn(&jid) };
        if ctx.directory.devices(&jid).is_empty() {
            return Err(invalid(format!("{text} is not on WhatsApp")));
        }
        Ok(jid)
    }

    fn dm_stanza(
        &mut self,
        id: &str,
        to: &Jid,
        message: &Message,
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<Node, SandboxError> {
        let own_user = if to.is_lid() { self.lid.clone() } else { self.pn.clone() };
        let for_them = padded(message, ctx.rng);
        let for_us = padded(&device_sent(to, message), ctx.rng);
        let mut entries = Vec::new();
        let theirs = if self.is_own(to) { Vec::new() } else { ctx.directory.devices(to) };
        let ours = ctx.directory.devices(&own_user).into_iter().filter(|device| device.device != 0);
        for (devices, bytes) in [(theirs, for_them), (ours.collect(), for_us)] {
            for device in devices {
                if let Some(enc) = self.encrypt(&device, &bytes, ctx) {
                    entries.push(Node::new("to").attr("jid", device).child(enc));
                }
            }
        }
        if entries.is_empty() && !self.is_own(to) {
            return Err(SandboxError::Conflict("no device of the recipient has keys".to_owned()));
        }
        Ok(Node::new("message")
            .attr("id", id.to_owned())
            .attr("to", to)
            .attr("type", "text")
            .child(Node::new("participants").nodes(entries)))
    }

    fn group_stanza(
        &mut self,
        id: &str,
        to: &Jid,
        message: &Message,
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<Node, SandboxError> {
        let invalid = |reason: &str| SandboxError::Invalid { field: "to", reason: reason.to_owned() };
        let group = ctx.directory.group(to).ok_or_else(|| invalid("there is no such group"))?;
        let own = if group.lid { self.lid.clone() } else { self.pn.clone() };
        if !group.participants.contains(&own) {
            return Err(invalid("this phone is not in the group"));
        }
        let devices: Vec<Jid> =
            group.participants.iter().flat_map(|member| ctx.directory.devices(member)).collect();
        let mut key = self.take_own_sender_key(to, &group.participants, ctx);
        let distribution = Message {
            sender_key_distribution_message: Some(Box::new(distribution(to, &key.record))),
            ..Message::default()
        };
        let bytes = padded(&distribution, ctx.rng);
        let mut entries = Vec::new();
        for device in devices.iter().filter(|device| **device != own && !key.holders.contains(device)) {
            if let Some(enc) = self.encrypt(device, &bytes, ctx) {
                entries.push(Node::new("to").attr("jid", device).child(enc));
            }
        }
        key.holders.extend(devices.iter().cloned());
        let encrypted = key
            .record
            .encrypt(&padded(message, ctx.rng), ctx.rng)
            .map_err(|error| SandboxError::Conflict(error.to_string()))?;
        self.own_sender_keys.insert(to.user.to_string(), key);
        let participants = (!entries.is_empty()).then(|| Node::new("participants").nodes(entries));
        Ok(Node::new("message")
            .attr("id", id.to_owned())
            .attr("to", to)
            .attr("type", "text")
            .attr("phash", participant_hash(&devices))
            .attr("addressing_mode", if group.lid { "lid" } else { "pn" })
            .child_opt(participants)
            .child(enc_node("skmsg", encrypted.bytes)))
    }

    /// Our sender key in a group; a new one when somebody left.
    fn take_own_sender_key(&mut self, group: &Jid, members: &[Jid], ctx: &mut PhoneCtx<'_>) -> OwnSenderKey {
        let now: HashSet<Jid> = members.iter().cloned().collect();
        let known = self.own_sender_keys.remove(&*group.user);
        match known.filter(|known| known.members.is_subset(&now)) {
            Some(known) => OwnSenderKey { members: now, ..known },
            None => OwnSenderKey {
                record: SenderKeyRecord::create(ctx.rng),
                holders: HashSet::new(),
                members: now,
            },
        }
    }

    /// Phones give a contact a token when they write to it.
    fn give_token(&mut self, to: &Jid, ctx: &mut PhoneCtx<'_>) {
        if to.is_group() || self.is_own(to) || !self.token_given.insert(to.clone()) {
            return;
        }
        let token = Node::new("token")
            .attr("jid", to)
            .attr("t", ctx.now.unix_s().to_string())
            .attr("type", "trusted_contact");
        let iq = Node::new("iq")
            .attr("id", "token")
            .attr("to", Jid::service())
            .attr("type", "set")
            .attr("xmlns", "privacy")
            .child(Node::new("tokens").child(token));
        ctx.directory.submit(self.account, iq, ctx.now);
    }
}

/// What own devices get: the message and whom it went to.
pub(super) fn device_sent(to: &Jid, message: &Message) -> Message {
    let inner = DeviceSentMessage {
        destination_jid: Some(to.to_string()),
        message: Some(Box::new(message.clone())),
        phash: None,
    };
    Message {
        device_sent_message: Some(Box::new(inner)),
        message_context_info: message.message_context_info.clone(),
        ..Message::default()
    }
}

/// Our sender key as it travels.
pub(super) fn distribution(group: &Jid, record: &SenderKeyRecord) -> SenderKeyDistributionMessage {
    SenderKeyDistributionMessage {
        group_id: Some(group.to_string()),
        axolotl_sender_key_distribution_message: record.distribution().ok(),
    }
}

/// Resends are asked for within minutes.
const MAX_SENT: usize = 5_000;

/// A load test must not eat the memory.
const MAX_MESSAGES: usize = 200_000;
