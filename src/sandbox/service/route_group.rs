//! Group messages: membership, addressing mode, participant hash, fan-out of sender-key messages.

use super::{DeviceRef, Service, notify::participant_hash, outgoing::Parts};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::{Content, Node},
        ctx::Now,
        jid::Jid,
    },
};

impl Service {
    pub(super) fn route_group(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: Node,
        (id, to): (String, Jid),
        now: Now,
    ) {
        let lid = match self.check_group_message(sender, conn, &node, &to, now) {
            Ok(lid) => lid,
            Err(error) => return self.ack(conn, &node, Some(error), None, now),
        };
        if node.value("participant").is_some() {
            return self.route_group_resend(sender, conn, node, (id, to), lid, now);
        }
        let hash = self.check_participant_hash(conn, &node, &to, now);
        self.ack(conn, &node, None, hash, now);
        let repeated = self.note_sent(sender, &id);
        let mut parts = Parts::split(node, id, to);
        self.log_group_key(sender, &parts, conn, now);
        let mut pairwise: Vec<(DeviceRef, Vec<Node>)> = Vec::with_capacity(parts.fanout.len());
        for (jid, enc) in std::mem::take(&mut parts.fanout) {
            if let Some(target) = self.device_of(&jid) {
                self.log_keys(sender, target, &enc, conn, now);
                pairwise.push((target, enc));
            }
        }
        let group_enc = std::mem::take(&mut parts.enc);
        for target in self.group_devices(&parts.to) {
            if target == sender || repeated && !self.reach_asker(sender, &parts.id, target) {
                continue;
            }
            let mut enc = match pairwise.iter_mut().find(|(known, _)| *known == target) {
                Some((_, enc)) => std::mem::take(enc),
                None => Vec::new(),
            };
            enc.extend(group_enc.iter().cloned());
            let stanza = parts.stanza(self.group_head(sender, &parts, lid, now), enc);
            self.deliver(target, stanza, now);
        }
    }

    /// Gives back whether the group is LID-addressed.
    fn check_group_message(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: &Node,
        to: &Jid,
        now: Now,
    ) -> Result<bool, u16> {
        let Some(group) = self.groups.get(&*to.user) else { return Err(404) };
        let (lid, member) = (group.lid, group.participants.contains_key(&sender.account));
        if !member {
            return Err(403);
        }
        if let Some(token) = node.children().iter().find(|child| matches!(&*child.tag, "tctoken" | "cstoken"))
        {
            let detail = format!("no {} on group messages", token.tag);
            self.violate_opt(conn, now, "token-on-group", detail, node);
            return Err(479);
        }
        match node.get("addressing_mode").as_deref() {
            Some("lid") if lid => {}
            Some("pn") if !lid => {}
            Some("lid" | "pn") => return Err(421),
            _ if node.value("participant").is_some() => {}
            _ => {
                let detail = "group messages need addressing_mode";
                self.violate_opt(conn, now, "group-without-addressing-mode", detail, node);
            }
        }
        let fanout = node.find("participants").map(Node::children).unwrap_or_default();
        if fanout.iter().filter_map(|entry| entry.jid("jid")).any(|jid| jid.is_lid() != lid) {
            let detail = "participants must be in the group's namespace";
            self.violate_opt(conn, now, "mixed-namespaces", detail, node);
            return Err(400);
        }
        if !node.find_all("enc").any(|enc| enc.has("type", "skmsg")) && node.value("participant").is_none() {
            let detail = "a group message needs an skmsg";
            self.violate_opt(conn, now, "group-without-skmsg", detail, node);
        }
        Ok(lid)
    }

    /// Compares the sender's idea of the group's devices with the truth; gives back the truth when they differ.
    fn check_participant_hash(
        &mut self,
        conn: Option<ConnId>,
        node: &Node,
        to: &Jid,
        now: Now,
    ) -> Option<String> {
        let sent = node.get("phash")?.into_owned();
        let truth = self.group_hash(to)?;
        if sent == truth {
            return None;
        }
        let group = self.groups.get(&*to.user)?;
        let recent = now.mono.saturating_sub(group.changed_at).as_secs() < GROUP_GRACE_S
            || group.participants.keys().any(|account| self.changed_recently(*account, now));
        if !recent {
            let detail = format!("phash is {sent}, the devices of the group hash to {truth}");
            self.violate_opt(conn, now, "phash", detail, node);
        }
        Some(truth)
    }

    /// The participant hash of a group, remembered until the directory changes.
    fn group_hash(&mut self, to: &Jid) -> Option<String> {
        let version = self.directory_version;
        let group = self.groups.get(&*to.user)?;
        if let Some((known, hash)) = &group.hash
            && *known == version
        {
            return Some(hash.clone());
        }
        let lid = group.lid;
        let jids: Vec<Jid> =
            self.group_devices(to).into_iter().map(|device| self.device_jid(device, lid)).collect();
        let hash = participant_hash(&jids);
        self.groups.get_mut(&*to.user)?.hash = Some((version, hash.clone()));
        Some(hash)
    }

    /// All devices of all members.
    pub(super) fn group_devices(&self, to: &Jid) -> Vec<DeviceRef> {
        let Some(group) = self.groups.get(&*to.user) else { return Vec::new() };
        group.participants.keys().flat_map(|account| self.devices_of(*account)).collect()
    }

    fn group_head(&self, sender: DeviceRef, parts: &Parts, lid: bool, now: Now) -> Node {
        let key = if lid { "participant_pn" } else { "participant_lid" };
        self.head(parts.to.clone(), sender, &parts.id, now)
            .attr("participant", self.device_jid(sender, lid))
            .attr(key, self.account(sender.account).jid(!lid))
            .attr("addressing_mode", if lid { "lid" } else { "pn" })
    }

    /// A resend to one device of the group, pairwise encrypted.
    fn route_group_resend(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        node: Node,
        (id, to): (String, Jid),
        lid: bool,
        now: Now,
    ) {
        let target = node.jid("participant").and_then(|jid| self.device_of(&jid));
        let Some(target) = target.filter(|target| self.device(*target).is_some()) else {
            return self.ack(conn, &node, Some(406), None, now);
        };
        if !self.take_asker(sender, &id, target, conn) {
            self.violate_opt(conn, now, "resend-unasked", "this device did not ask for it", &node);
        }
        if node.find_all("enc").any(|enc| enc.has("type", "skmsg")) {
            let detail = "a resend in a group is pairwise encrypted";
            self.violate_opt(conn, now, "resend-skmsg", detail, &node);
        }
        self.ack(conn, &node, None, None, now);
        let mut parts = Parts::split(node, id, to);
        let enc = std::mem::take(&mut parts.enc);
        self.log_keys(sender, target, &enc, conn, now);
        let stanza = parts.stanza(self.group_head(sender, &parts, lid, now), enc);
        self.deliver(target, stanza, now);
    }

    fn log_group_key(&mut self, sender: DeviceRef, parts: &Parts, conn: Option<ConnId>, now: Now) {
        if conn.is_none() {
            return;
        }
        let mut reused = false;
        if let Some(device) = self.device_mut(sender) {
            for enc in parts.enc.iter().filter(|enc| enc.has("type", "skmsg")) {
                if let Content::Bytes(bytes) = &enc.content {
                    reused |= !device.key_log.note_group(&parts.to.user, bytes);
                }
            }
        }
        if reused {
            let node = Node::new("enc").attr("type", "skmsg");
            self.violate_opt(conn, now, "message-key-reused", "one sender key, two ciphertexts", &node);
        }
    }
}

/// A group that changed less than this ago need not be known to a client yet.
const GROUP_GRACE_S: u64 = 60;
