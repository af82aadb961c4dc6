//! One job onto the wire: namespace, devices, sessions, encryption, stanza.
//!
//! Everything that has to be asked first (usync, group metadata, prekey bundles) makes the job wait; the answer comes
//! back to [`Engine::pump`], which starts here anew. Nothing is encrypted before everything is there.
//!
//! Seen: whatsmeow `send.go` @33cfac51; whatsapp-rust `wacore/src/send/dm.rs` @1489b7da; Baileys
//! `Socket/messages-send.js` @7.0.0-rc14.

use prost::Message as _;

use super::{
    job::{Job, Sent},
    namespace::{Decision, Facts, Namespace, decide},
    padding::pad,
    phash::phash,
    records::sender_key_name,
    source::Own,
};
use crate::whatsapp::{
    binary::Node,
    contacts::DeviceSet,
    ctx::Ctx,
    engine::{Engine, EngineError},
    groups::GroupState,
    jid::Jid,
    model::{CommandError, GroupInfo},
    proto::{DeviceSentMessage, Message, SenderKeyDistributionMessage},
    signal::{Address, CiphertextKind},
};

/// A sender key is replaced after this many messages. Seen: whatsapp-rust `src/send/mod.rs` @1489b7da.
const SENDER_KEY_MESSAGES: u32 = 1000;

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Dispatch {
    /// On the wire.
    Sent,
    /// Something was asked; try again when the answer is in.
    Wait,
    /// Will never work.
    Failed(CommandError),
}

/// A device with the name it has in the stanza and the address of its Signal state.
pub(super) type Target = (Jid, Address);

impl Engine {
    /// Sends a job, or finds out why not now.
    pub(super) fn dispatch_job(&mut self, ctx: &mut Ctx<'_>, job: &mut Job) -> Result<Dispatch, EngineError> {
        let Some(own) = self.own() else {
            return Ok(Dispatch::Failed(CommandError::NotConnected));
        };
        if job.chat.is_group() {
            self.dispatch_group(ctx, &own, job)
        } else {
            self.dispatch_direct(ctx, &own, job)
        }
    }

    fn dispatch_direct(
        &mut self,
        ctx: &mut Ctx<'_>,
        own: &Own,
        job: &mut Job,
    ) -> Result<Dispatch, EngineError> {
        if let Some(dispatch) = self.token_verdict(ctx, job)? {
            return Ok(dispatch);
        }
        let (pn, lid) = if job.chat.is_lid() {
            (self.pn_of(ctx.store, &job.chat)?, Some(job.chat.clone()))
        } else {
            (Some(job.chat.clone()), self.lid_of(ctx.store, &job.chat)?)
        };
        let forced = match job.namespace {
            Some(namespace) => Some(namespace),
            None => self.chat_record(ctx.store, &job.chat)?.namespace(),
        };
        let facts = Facts {
            migrated: self.credentials.as_ref().is_some_and(|own| own.lid_migrated),
            own_lid: own.lid.is_some(),
            peer_pn: pn.is_some(),
            peer_lid: lid.is_some(),
            asked: self.was_asked(&job.chat, ctx.now.mono),
            forced,
        };
        let namespace = match decide(facts) {
            Decision::Use(namespace) => namespace,
            Decision::AskUsync => {
                self.ask_devices(ctx, vec![job.chat.clone()]);
                return Ok(Dispatch::Wait);
            }
        };
        let (to, me) = match (namespace, lid, &own.lid) {
            (Namespace::Lid, Some(lid), Some(own_lid)) => (lid, own_lid.to_user()),
            _ => (pn.clone().unwrap_or_else(|| job.chat.clone()), own.pn.to_user()),
        };
        let Addressed { devices, phash } = match self.direct_targets(ctx, own, &to, &me)? {
            Ok(addressed) => addressed,
            Err(dispatch) => return Ok(dispatch),
        };
        job.sent = Sent { namespace: Some(namespace), phash, ..Sent::default() };
        self.send_direct(ctx, job, &to, &me, pn.as_ref(), &devices)
    }

    /// The devices of recipient and self, each with a session; or what to wait for.
    fn direct_targets(
        &mut self,
        ctx: &mut Ctx<'_>,
        own: &Own,
        to: &Jid,
        me: &Jid,
    ) -> Result<Result<Addressed, Dispatch>, EngineError> {
        let mut users = vec![to.clone()];
        if !to.same_user(me) {
            users.push(me.clone());
        }
        let all = self.audience(ctx, &users, |user| {
            // Our own phone is always there, whatever the answer to the question was.
            if user == to { Err(CommandError::NoSuchRecipient) } else { Ok(Some(me.clone())) }
        })?;
        let all = match all {
            Ok(all) => all,
            Err(dispatch) => return Ok(Err(dispatch)),
        };
        let mut addressed = self.addressed(ctx, own, all)?;
        if !self.sessions_ready(ctx, &mut addressed.devices)? {
            return Ok(Err(Dispatch::Wait));
        }
        let is_self_chat = to.same_user(me);
        if !is_self_chat && !addressed.devices.iter().any(|(device, _)| device.same_user(to)) {
            return Ok(Err(Dispatch::Failed(CommandError::NoSuchRecipient)));
        }
        Ok(Ok(addressed))
    }

    /// All devices of these users, or what to wait for. `nobody` says what stands for a user without any.
    fn audience(
        &mut self,
        ctx: &mut Ctx<'_>,
        users: &[Jid],
        nobody: impl Fn(&Jid) -> Result<Option<Jid>, CommandError>,
    ) -> Result<Result<Vec<Jid>, Dispatch>, EngineError> {
        let mut all = Vec::new();
        let mut waiting = false;
        let sets = self.devices_of(ctx, users)?;
        for (user, set) in users.iter().zip(sets) {
            match set {
                DeviceSet::Known(devices) => all.extend(devices.iter().map(|device| device.of(user))),
                DeviceSet::Asked => waiting = true,
                DeviceSet::Failed(error) => return Ok(Err(Dispatch::Failed(error))),
                DeviceSet::Nobody => match nobody(user) {
                    Ok(stand_in) => all.extend(stand_in),
                    Err(error) => return Ok(Err(Dispatch::Failed(error))),
                },
            }
        }
        Ok(if waiting { Err(Dispatch::Wait) } else { Ok(all) })
    }

    /// The hash over all devices, and where their Signal state is; without this device itself.
    fn addressed(&mut self, ctx: &Ctx<'_>, own: &Own, all: Vec<Jid>) -> Result<Addressed, EngineError> {
        let phash = phash(&all);
        let mut devices = Vec::with_capacity(all.len());
        for device in all.into_iter().filter(|device| !own.is_this_device(device)) {
            let address = self.signal_address(ctx.store, &device)?;
            devices.push((device, address));
        }
        Ok(Addressed { devices, phash })
    }

    fn send_direct(
        &mut self,
        ctx: &mut Ctx<'_>,
        job: &mut Job,
        to: &Jid,
        me: &Jid,
        pn: Option<&Jid>,
        devices: &[Target],
    ) -> Result<Dispatch, EngineError> {
        let theirs = pad(job.raw.clone(), ctx.rng);
        let ours = if devices.iter().any(|(device, _)| device.same_user(me)) {
            pad(wrap_for_own(&job.raw, to), ctx.rng)
        } else {
            Vec::new()
        };
        let mut copies = Copies::default();
        for (device, address) in devices {
            let is_ours = device.same_user(me);
            let plaintext = if is_ours { &ours } else { &theirs };
            if self.encrypt_copy(ctx, &mut copies, job, device, address, plaintext)? && !is_ours {
                copies.for_recipient += 1;
            }
        }
        if copies.for_recipient == 0 && !to.same_user(me) {
            return Ok(Dispatch::Failed(CommandError::NoSuchRecipient));
        }
        let token = if to.same_user(me) { None } else { self.token_node(ctx.store, to, ctx.now.unix_s())? };
        job.sent.had_token = token.is_some();
        let peer_pn = pn.filter(|_| to.is_lid());
        let stanza = Node::new("message")
            .attr("id", job.id.clone())
            .attr("to", to)
            .attr("type", job.stanza.kind)
            .attr_opt("edit", job.stanza.edit)
            .attr_opt("peer_recipient_pn", peer_pn)
            .child(Node::new("participants").nodes(copies.nodes))
            .child_opt(self.device_identity_node(copies.needs_identity))
            .child_opt(token);
        self.send_node(&stanza);
        if !to.same_user(me) {
            self.issue_token_if_due(ctx, to)?;
        }
        Ok(Dispatch::Sent)
    }

    /// Encrypts one copy and adds its `<to>`. A device that fails is left out: the others still get theirs.
    fn encrypt_copy(
        &mut self,
        ctx: &mut Ctx<'_>,
        copies: &mut Copies,
        job: &Job,
        device: &Jid,
        address: &Address,
        plaintext: &[u8],
    ) -> Result<bool, EngineError> {
        match self.encrypt_for(ctx.store, address, plaintext)? {
            Ok(encrypted) => {
                copies.needs_identity |= encrypted.kind == CiphertextKind::PkMsg;
                let enc = enc_node(encrypted.kind.as_str(), encrypted.bytes, job);
                copies.nodes.push(Node::new("to").attr("jid", device).child(enc));
                Ok(true)
            }
            Err(error) => {
                log::warn!("a device is left out of a message: {error}");
                Ok(false)
            }
        }
    }

    /// `<device-identity>`: proves to the receiver of a `pkmsg` that this companion belongs to our account.
    pub(super) fn device_identity_node(&self, needed: bool) -> Option<Node> {
        let account = self.credentials.as_ref()?.account.as_ref().filter(|_| needed)?;
        Some(Node::new("device-identity").bytes(account.clone()))
    }

    fn dispatch_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        own: &Own,
        job: &mut Job,
    ) -> Result<Dispatch, EngineError> {
        let info = match self.group_state(ctx, &job.chat)? {
            GroupState::Known(info) => info,
            GroupState::Asked => return Ok(Dispatch::Wait),
            GroupState::Failed(error) => return Ok(Dispatch::Failed(error)),
        };
        // Until the server took the message that carries the key, a second one would carry it again.
        if self.messages.distributing.contains(&job.chat) {
            return Ok(Dispatch::Wait);
        }
        let me = match (&own.lid, info.lid_addressed) {
            (Some(lid), true) => lid.clone(),
            _ => own.pn.clone(),
        };
        let Addressed { devices, phash } = match self.group_targets(ctx, own, &me, &info)? {
            Ok(addressed) => addressed,
            Err(dispatch) => return Ok(dispatch),
        };
        let name = sender_key_name(&job.chat, &Address::from(&me));
        let key_id = match self.own_sender_key(ctx.store, &name)? {
            Some((id, iteration)) if iteration < SENDER_KEY_MESSAGES => id,
            _ => self.create_sender_key(ctx, &name)?,
        };
        let mut lacking = self.without_sender_key(ctx.store, &job.chat, key_id, devices)?;
        if !self.sessions_ready(ctx, &mut lacking)? {
            return Ok(Dispatch::Wait);
        }
        job.sent = Sent { phash, ..Sent::default() };
        self.send_group(ctx, job, &info, &name, key_id, &lacking)
    }

    /// All devices of all members (hosted ones get no sender keys) except this one.
    fn group_targets(
        &mut self,
        ctx: &mut Ctx<'_>,
        own: &Own,
        me: &Jid,
        info: &GroupInfo,
    ) -> Result<Result<Addressed, Dispatch>, EngineError> {
        let mut users: Vec<Jid> = info.participants.iter().map(|member| member.jid.to_user()).collect();
        if !users.iter().any(|user| own.is(user)) {
            users.push(me.to_user());
        }
        // A member without a device is no reason to keep the message from the others.
        let mut all = match self.audience(ctx, &users, |_| Ok(None))? {
            Ok(all) => all,
            Err(dispatch) => return Ok(Err(dispatch)),
        };
        all.retain(|device| !device.is_hosted());
        if !all.iter().any(|device| own.is_this_device(device)) {
            all.push(me.clone());
        }
        self.addressed(ctx, own, all).map(Ok)
    }

    fn send_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        job: &mut Job,
        info: &GroupInfo,
        name: &str,
        key_id: u32,
        lacking: &[Target],
    ) -> Result<Dispatch, EngineError> {
        let failed = |error| Ok(Dispatch::Failed(CommandError::Invalid(format!("cannot encrypt: {error}"))));
        let mut copies = Copies::default();
        let mut reached = Vec::with_capacity(lacking.len());
        if !lacking.is_empty() {
            let keys = match self.sender_key_message(ctx, &job.chat, name)? {
                Ok(keys) => pad(keys.encode_to_vec(), ctx.rng),
                Err(error) => return failed(error),
            };
            for (device, address) in lacking {
                if self.encrypt_copy(ctx, &mut copies, job, device, address, &keys)? {
                    reached.push(address.clone());
                }
            }
        }
        let plaintext = pad(job.raw.clone(), ctx.rng);
        let encrypted = match self.encrypt_for_group(ctx, name, &plaintext)? {
            Ok(encrypted) => encrypted,
            Err(error) => return failed(error),
        };
        let participants = (!copies.nodes.is_empty()).then(|| Node::new("participants").nodes(copies.nodes));
        let stanza = Node::new("message")
            .attr("id", job.id.clone())
            .attr("to", &job.chat)
            .attr("type", job.stanza.kind)
            .attr_opt("edit", job.stanza.edit)
            .attr("phash", job.sent.phash.clone())
            .attr("addressing_mode", if info.lid_addressed { "lid" } else { "pn" })
            .child_opt(participants)
            .child(enc_node("skmsg", encrypted.bytes, job))
            .child_opt(self.device_identity_node(copies.needs_identity));
        self.send_node(&stanza);
        if !reached.is_empty() {
            self.messages.distributing.insert(job.chat.clone());
            job.sent.distribution = Some((key_id, reached));
        }
        Ok(Dispatch::Sent)
    }

    /// A message that carries nothing but our sender key of a group.
    pub(super) fn sender_key_message(
        &mut self,
        ctx: &Ctx<'_>,
        group: &Jid,
        name: &str,
    ) -> Result<Result<Message, crate::whatsapp::signal::SignalError>, EngineError> {
        Ok(self.sender_key_distribution(ctx.store, name)?.map(|keys| Message {
            sender_key_distribution_message: Some(Box::new(SenderKeyDistributionMessage {
                group_id: Some(group.to_string()),
                axolotl_sender_key_distribution_message: Some(keys),
            })),
            ..Default::default()
        }))
    }

    /// A job that carried our sender key is off the wire: the group's lane may go on.
    pub(super) fn release_distribution(&mut self, job: &Job) {
        if job.sent.distribution.is_some() {
            self.messages.distributing.remove(&job.chat);
        }
    }
}

/// The devices a message goes to.
struct Addressed {
    devices: Vec<Target>,
    phash: String,
}

/// The pairwise part of a stanza as it grows.
#[derive(Default)]
struct Copies {
    nodes: Vec<Node>,
    needs_identity: bool,
    for_recipient: usize,
}

fn enc_node(kind: &'static str, bytes: Vec<u8>, job: &Job) -> Node {
    Node::new("enc")
        .attr("v", "2")
        .attr("type", kind)
        .attr_opt("mediatype", job.stanza.media)
        .attr_opt("decrypt-fail", job.stanza.hide.then_some("hide"))
        .bytes(bytes)
}

/// The copy our own devices get: `deviceSentMessage` says who the message went to; the context with the message
/// secret is repeated outside.
pub(super) fn wrap_for_own(raw: &[u8], to: &Jid) -> Vec<u8> {
    let message = Message::decode(raw).unwrap_or_default();
    let context = message.message_context_info.clone();
    Message {
        device_sent_message: Some(Box::new(DeviceSentMessage {
            destination_jid: Some(to.to_user().to_string()),
            message: Some(Box::new(message)),
            phash: None,
        })),
        message_context_info: context,
        ..Default::default()
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::proto::MessageContextInfo;

    #[test]
    fn our_own_devices_are_told_who_the_message_went_to_and_its_secret() {
        let context = MessageContextInfo { message_secret: Some(vec![5; 32]), ..Default::default() };
        let message = Message {
            conversation: Some("hi".into()),
            message_context_info: Some(Box::new(context.clone())),
            ..Default::default()
        };
        let wrapped = wrap_for_own(&message.encode_to_vec(), &Jid::lid("5").with_device(2));
        let wrapped = Message::decode(wrapped.as_slice()).unwrap();
        assert_eq!(wrapped.message_context_info.as_deref(), Some(&context));
        let sent = wrapped.device_sent_message.unwrap();
        assert_eq!(sent.destination_jid.as_deref(), Some("5@lid"));
        assert_eq!(sent.message.as_deref(), Some(&message));
    }
}
