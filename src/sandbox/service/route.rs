//! Messages from a device to its recipients: checks, ack, fan-out. Groups are in `route_group`.
//!
//! Seen: what clients send: whatsmeow `send.go` @33cfac51, Baileys `Socket/messages-send.js` @7.0.0-rc14; what they
//! expect to get: whatsmeow `message.go` `parseMessageSource`, Baileys `Utils/decode-wa-message.js`.

use std::time::Duration;

use prost::Message as _;

use super::{DeviceRef, Service, notify::participant_hash, outgoing::Parts};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::{Content, Node},
        ctx::Now,
        jid::Jid,
        proto::AdvSignedDeviceIdentity,
    },
};

impl Service {
    /// A `<message>` of a client or a phone.
    pub(super) fn route_message(&mut self, sender: DeviceRef, conn: Option<ConnId>, node: Node, now: Now) {
        let (Some(id), Some(to)) = (node.get("id").map(|id| id.into_owned()), node.jid("to")) else {
            return self.violate_opt(conn, now, "message-incomplete", "a message needs id and to", &node);
        };
        if let Err(error) = self.check_shape(sender, conn, &node, now) {
            return self.ack(conn, &node, Some(error), None, now);
        }
        let acked = conn.and_then(|conn| self.conns.get(&conn)).is_some_and(|conn| conn.acked.contains(&id));
        let known = self.device(sender).is_some_and(|device| device.sent_ids.contains(&id));
        let asked = self.device(sender).is_some_and(|device| device.sent_ids.has_askers(&id));
        if acked && known && !asked && node.find("enc").is_none_or(|enc| enc.value("count").is_none()) {
            self.violate_opt(conn, now, "duplicate-message-id", "this id was acknowledged already", &node);
        }
        if node.has("category", "peer") {
            self.route_peer(sender, conn, node, (id, to), now);
        } else if to.is_group() {
            self.route_group(sender, conn, node, (id, to), now);
        } else if to.is_user() && node.find("participants").is_none() && node.find("enc").is_some() {
            self.route_directed(sender, conn, node, (id, to), now);
        } else if to.is_user() {
            self.route_dm(sender, conn, node, (id, to), now);
        } else {
            // Status and channels: taken, shown to nobody.
            self.ack(conn, &node, None, None, now);
        }
    }

    /// What every message must have, whoever it is for.
    fn check_shape(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: &Node,
        now: Now,
    ) -> Result<(), u16> {
        if node.value("type").is_none() {
            self.violate_opt(conn, now, "message-type", "a message needs a type", node);
        }
        let fanout = node.find("participants").map(Node::children).unwrap_or_default();
        let direct = node.find_all("enc");
        let mut pkmsg = false;
        for enc in direct.chain(fanout.iter().flat_map(Node::children)) {
            if enc.tag != "enc" || !matches!(enc.content, Content::Bytes(_)) {
                self.violate_opt(conn, now, "enc-not-bytes", "ciphertexts are bytes inside <enc>", node);
                return Err(479);
            }
            let kind = enc.get("type").unwrap_or_default();
            if !enc.has("v", "2") || !matches!(&*kind, "msg" | "pkmsg" | "skmsg") {
                self.violate_opt(conn, now, "enc-type", "enc needs v=2 and type msg, pkmsg or skmsg", node);
                return Err(479);
            }
            pkmsg |= kind == "pkmsg";
        }
        if pkmsg && conn.is_some() {
            self.check_device_identity(sender, conn, node, now);
        }
        Ok(())
    }

    /// A companion's first message to a device proves whose companion it is.
    fn check_device_identity(&mut self, sender: DeviceRef, conn: Option<ConnId>, node: &Node, now: Now) {
        let Some(sent) = node.find_bytes("device-identity").filter(|bytes| !bytes.is_empty()) else {
            let detail = "a companion's pkmsg needs its device-identity";
            return self.violate_opt(conn, now, "missing-device-identity", detail, node);
        };
        let known = self.device(sender).and_then(|device| device.keys.device_identity.as_deref());
        let parse = |bytes| AdvSignedDeviceIdentity::decode(bytes).ok();
        if known.is_some_and(|known| parse(known) != parse(sent)) {
            let detail = "this is not the device identity the phone and the device signed";
            self.violate_opt(conn, now, "false-device-identity", detail, node);
        }
    }

    fn route_dm(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: Node,
        (id, to): (String, Jid),
        now: Now,
    ) {
        let Some(recipient) = self.account_of(&to) else {
            return self.ack(conn, &node, Some(404), None, now);
        };
        if let Err(error) = self.check_dm(sender, recipient, &to, conn, &node, now) {
            return self.ack(conn, &node, Some(error), None, now);
        }
        if let Some(error) = self.check_token(sender, recipient, conn, &node, now) {
            return self.ack(conn, &node, Some(error), None, now);
        }
        let hash = match self.check_fanout(sender, recipient, &to, conn, &node, now) {
            Ok(hash) => hash,
            Err(error) => return self.ack(conn, &node, Some(error), None, now),
        };
        self.ack(conn, &node, None, hash, now);
        let repeated = self.device(sender).is_some_and(|device| device.sent_ids.contains(&id));
        if let Some(device) = self.device_mut(sender) {
            device.sent_ids.insert(&id);
        }
        let mut parts = Parts::split(node, id, to);
        for (jid, enc) in std::mem::take(&mut parts.fanout) {
            let Some(target) = self.device_of(&jid).filter(|target| self.device(*target).is_some()) else {
                continue;
            };
            self.log_keys(sender, target, &enc, conn, now);
            if repeated
                && !self.device_mut(sender).is_some_and(|own| own.sent_ids.reach_asker(&parts.id, target))
            {
                continue;
            }
            let stanza = parts.stanza(self.dm_head(sender, target, &parts, now), enc);
            self.deliver(target, stanza, now);
        }
    }

    /// Namespace rules of 1:1 chats.
    fn check_dm(
        &mut self,
        sender: DeviceRef,
        recipient: u32,
        to: &Jid,
        conn: Option<ConnId>,
        node: &Node,
        now: Now,
    ) -> Result<(), u16> {
        let lid = to.is_lid();
        let fanout = node.find("participants").map(Node::children).unwrap_or_default();
        if fanout.iter().filter_map(|entry| entry.jid("jid")).any(|jid| jid.is_lid() != lid) {
            let detail = "to and all participants must share one namespace";
            self.violate_opt(conn, now, "mixed-namespaces", detail, node);
            return Err(400);
        }
        if node.value("addressing_mode").is_some() {
            let detail = "addressing_mode is for groups only";
            self.violate_opt(conn, now, "addressing-mode-in-dm", detail, node);
            return Err(479);
        }
        let migrated = self.account(sender.account).lid_migrated;
        if conn.is_some() && lid && !migrated {
            let detail = "this account is not migrated: 1:1 chats are PN-addressed";
            self.violate_opt(conn, now, "lid-dm-not-migrated", detail, node);
            return Err(400);
        }
        if conn.is_some() && !lid && migrated && recipient != sender.account {
            let detail = "this account is migrated: 1:1 chats are LID-addressed";
            self.violate_opt(conn, now, "pn-dm-migrated", detail, node);
            return Err(463);
        }
        Ok(())
    }

    /// Whether every device gets its copy. Gives back the true participant hash when one does not.
    fn check_fanout(
        &mut self,
        sender: DeviceRef,
        recipient: u32,
        to: &Jid,
        conn: Option<ConnId>,
        node: &Node,
        now: Now,
    ) -> Result<Option<String>, u16> {
        let fanout = node.find("participants").map(Node::children).unwrap_or_default();
        let named: Vec<Jid> = fanout.iter().filter_map(|entry| entry.jid("jid")).collect();
        let mut targets = Vec::with_capacity(named.len());
        for jid in &named {
            let target = self.device_of(jid);
            match target.filter(|target| [sender.account, recipient].contains(&target.account)) {
                Some(target) if target == sender => {
                    let detail = "the sending device must not get a copy";
                    self.violate_opt(conn, now, "copy-to-self", detail, node);
                    return Err(400);
                }
                Some(target) if targets.contains(&target) => {
                    let detail = "a device is listed twice";
                    self.violate_opt(conn, now, "device-twice", detail, node);
                    return Err(400);
                }
                Some(target) if self.device(target).is_some() => targets.push(target),
                Some(target) if self.account(target.account).removed.contains(&target.device) => {}
                _ => {
                    let detail = "a copy for a device that never existed";
                    self.violate_opt(conn, now, "unknown-device", detail, node);
                    return Err(406);
                }
            }
        }
        let reaches = targets.iter().any(|target| target.account == recipient);
        if !reaches && recipient != sender.account {
            let detail = "no device of the recipient gets a copy";
            self.violate_opt(conn, now, "no-recipient-device", detail, node);
            return Err(479);
        }
        self.complain_of_missing(sender, recipient, &targets, conn, node, now);
        let all = || self.devices_of(recipient).chain(self.devices_of(sender.account));
        if all().all(|device| device == sender || targets.contains(&device)) {
            return Ok(None);
        }
        let mut jids = self.device_jids(recipient, to.is_lid());
        if recipient != sender.account {
            jids.extend(self.device_jids(sender.account, to.is_lid()));
        }
        Ok(Some(participant_hash(&jids)))
    }

    fn complain_of_missing(
        &mut self,
        sender: DeviceRef,
        recipient: u32,
        targets: &[DeviceRef],
        conn: Option<ConnId>,
        node: &Node,
        now: Now,
    ) {
        for (account, rule) in
            [(sender.account, "missing-own-fanout"), (recipient, "missing-recipient-device")]
        {
            let missing =
                self.devices_of(account).any(|device| device != sender && !targets.contains(&device));
            if missing && !self.changed_recently(account, now) {
                self.violate_opt(conn, now, rule, "a device of the account gets no copy", node);
            }
        }
    }

    /// Clients may work with the old device list for a while.
    pub(super) fn changed_recently(&self, account: u32, now: Now) -> bool {
        now.mono.saturating_sub(self.account(account).changed_at) < DEVICE_LIST_GRACE
    }

    /// The incoming stanza of a 1:1 message for one device, without content.
    fn dm_head(&self, sender: DeviceRef, target: DeviceRef, parts: &Parts, now: Now) -> Node {
        let lid = parts.to.is_lid();
        let head = self.head(self.device_jid(sender, lid), sender, &parts.id, now);
        if target.account == sender.account {
            let other = self.account_of(&parts.to).map(|account| self.account(account).jid(!lid));
            let key = if lid { "peer_recipient_pn" } else { "peer_recipient_lid" };
            head.attr("recipient", parts.to.to_user()).attr_opt(key, other)
        } else {
            let key = if lid { "sender_pn" } else { "sender_lid" };
            head.attr(key, self.account(sender.account).jid(!lid))
        }
    }

    pub(super) fn head(&self, from: Jid, sender: DeviceRef, id: &str, now: Now) -> Node {
        Node::new("message")
            .attr("from", from)
            .attr("id", id.to_owned())
            .attr("t", now.unix_s().to_string())
            .attr("notify", self.account(sender.account).name.clone())
    }

    /// A resend to one device that asked for it.
    fn route_directed(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: Node,
        (id, to): (String, Jid),
        now: Now,
    ) {
        let target = self.device_of(&to).filter(|target| self.device(*target).is_some());
        let Some(target) = target else { return self.ack(conn, &node, Some(406), None, now) };
        if node.find("enc").is_none_or(|enc| enc.value("count").is_none()) {
            let detail = "a message to one device is a resend and needs enc count";
            self.violate_opt(conn, now, "resend-without-count", detail, &node);
        }
        let asked = self.device_mut(sender).is_some_and(|own| own.sent_ids.take_asker(&id, target, conn));
        if !asked {
            self.violate_opt(conn, now, "resend-unasked", "this device did not ask for it", &node);
        }
        let own = target.account == sender.account;
        let chat = if own { node.jid("recipient").unwrap_or(to) } else { to };
        if own && node.value("recipient").is_none() {
            let detail = "a resend to an own device names the chat in `recipient`";
            self.violate_opt(conn, now, "resend-without-recipient", detail, &node);
        }
        self.ack(conn, &node, None, None, now);
        let mut parts = Parts::split(node, id, chat);
        let enc = std::mem::take(&mut parts.enc);
        self.log_keys(sender, target, &enc, conn, now);
        let stanza = parts.stanza(self.dm_head(sender, target, &parts, now), enc);
        self.deliver(target, stanza, now);
    }

    /// Between devices of one account: keys, history, requests to the phone.
    fn route_peer(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: Node,
        (id, to): (String, Jid),
        now: Now,
    ) {
        let target = self.device_of(&to).filter(|target| target.account == sender.account);
        let complaint = if target.is_none() {
            Some("a peer message goes to the own account")
        } else if node.find("participants").is_some() || node.find_all("enc").count() != 1 {
            Some("a peer message has exactly one enc and no participants")
        } else if node.find("tctoken").is_some() {
            Some("no tctoken on peer messages")
        } else {
            None
        };
        let (Some(target), None) = (target, complaint) else {
            self.violate_opt(conn, now, "peer-message", complaint.unwrap_or_default(), &node);
            return self.ack(conn, &node, Some(479), None, now);
        };
        self.ack(conn, &node, None, None, now);
        let mut parts = Parts::split(node, id, to);
        let enc = std::mem::take(&mut parts.enc);
        self.log_keys(sender, target, &enc, conn, now);
        let head = self.head(self.device_jid(sender, parts.to.is_lid()), sender, &parts.id, now);
        let stanza = parts.stanza(head.attr("category", "peer"), enc);
        self.deliver(target, stanza, now);
    }

    /// Objects when a message key was used twice.
    pub(super) fn log_keys(
        &mut self,
        sender: DeviceRef,
        target: DeviceRef,
        enc: &[Node],
        conn: Option<ConnId>,
        now: Now,
    ) {
        if conn.is_none() {
            return;
        }
        let mut reused = None;
        if let Some(device) = self.device_mut(sender) {
            for enc in enc {
                let kind = enc.get("type").unwrap_or_default();
                let bytes = enc.content_bytes().unwrap_or_default();
                if kind != "skmsg" && !device.key_log.note_pairwise(&kind, target, bytes) {
                    reused = Some(enc);
                }
            }
        }
        if let Some(enc) = reused {
            self.violate_opt(conn, now, "message-key-reused", "one message key, two ciphertexts", enc);
        }
    }

    /// The server's answer to a message of a client.
    pub(super) fn ack(
        &mut self,
        conn: Option<ConnId>,
        message: &Node,
        error: Option<u16>,
        hash: Option<String>,
        now: Now,
    ) {
        let Some(conn) = conn else { return };
        let id = message.get("id").unwrap_or_default().into_owned();
        let ack = Node::new("ack")
            .attr("class", "message")
            .attr("id", id.clone())
            .attr_opt("from", message.value("to").cloned())
            .attr_opt("participant", message.value("participant").cloned())
            .attr("t", now.unix_s().to_string())
            .attr_opt("phash", hash)
            .attr_opt("error", error.map(|code| code.to_string()));
        if error.is_none()
            && let Some(state) = self.conns.get_mut(&conn)
        {
            if state.acked.len() > MAX_ACKED {
                state.acked.clear();
            }
            state.acked.insert(id);
        }
        self.send(conn, ack, now);
    }

    /// Remembers a group message; whether it was known.
    pub(super) fn note_sent(&mut self, sender: DeviceRef, id: &str) -> bool {
        let Some(device) = self.device_mut(sender) else { return false };
        let known = device.sent_ids.contains(id);
        device.sent_ids.insert(id);
        known
    }

    /// Whether `by` ever asked for this message of `sender`.
    pub(super) fn reach_asker(&mut self, sender: DeviceRef, id: &str, by: DeviceRef) -> bool {
        self.device_mut(sender).is_some_and(|device| device.sent_ids.reach_asker(id, by))
    }

    /// Whether `by` asked for this message of `sender`.
    pub(super) fn take_asker(
        &mut self,
        sender: DeviceRef,
        id: &str,
        by: DeviceRef,
        on: Option<ConnId>,
    ) -> bool {
        self.device_mut(sender).is_some_and(|device| device.sent_ids.take_asker(id, by, on))
    }
}

/// Messages remembered per connection; beyond it duplicates are not judged.
const MAX_ACKED: usize = 20_000;

/// A device list that changed less than this ago need not be known to a client yet.
const DEVICE_LIST_GRACE: Duration = Duration::from_secs(60);
