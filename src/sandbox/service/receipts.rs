//! Receipts: they answer messages, and travel on to the author's devices.

use super::{DeviceRef, Service, delivery::Answer};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{binary::Node, ctx::Now, jid::Jid},
};

/// Group delivery receipts that wait to travel together.
pub(super) struct Aggregate {
    author: u32,
    group: Jid,
    id: String,
    users: Vec<(Jid, u64)>,
}

impl Service {
    /// A `<receipt>` of a client or a phone.
    pub(super) fn route_receipt(&mut self, sender: DeviceRef, conn: Option<ConnId>, node: &Node, now: Now) {
        let (Some(id), Some(to)) = (node.get("id"), node.jid("to")) else {
            return self.violate_opt(conn, now, "receipt-incomplete", "a receipt needs id and to", node);
        };
        let kind = node.get("type").map(|kind| kind.into_owned());
        let kind = kind.as_deref().unwrap_or_default();
        if !KNOWN_TYPES.contains(&kind) {
            let detail = format!("there is no receipt of type {kind}");
            return self.violate_opt(conn, now, "receipt-type", detail, node);
        }
        if let Some(conn) = conn {
            self.check_receipt(sender, conn, kind, &id, &to, node, now);
        }
        match kind {
            "retry" => self.relay_retry(sender, conn, &id, &to, node, now),
            "sender" => self.relay_sender(sender, &to, node, now),
            "peer_msg" | "hist_sync" | "server-error" => {
                let phone = DeviceRef { account: sender.account, device: 0 };
                let receipt = self.receipt_head(self.device_jid(sender, to.is_lid()), node, now);
                self.deliver(phone, receipt, now);
            }
            "enc_rekey_retry" | "view" | "played-self" => {}
            _ => self.relay_receipt(sender, kind, &to, node, now),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one stanza, already taken apart by the caller")]
    fn check_receipt(
        &mut self,
        sender: DeviceRef,
        conn: ConnId,
        kind: &str,
        id: &str,
        to: &Jid,
        node: &Node,
        now: Now,
    ) {
        let own = self.account_of(to) == Some(sender.account);
        if kind == "sender" && !own && !to.is_group() {
            self.violate(conn, now, "receipt-type", "type sender is for copies of own messages", node);
        }
        if matches!(kind, "read" | "played") && node.value("t").is_none() {
            self.violate(conn, now, "receipt-without-t", "read receipts carry their time", node);
        }
        let Some(device) = self.device_mut(sender) else { return };
        match device.queue.answered("message", id, node) {
            Answer::Done(None) | Answer::Again => {}
            Answer::Done(Some(rule)) => {
                self.violate(conn, now, rule, "the receipt does not fit the message it answers", node);
            }
            Answer::Unknown if kind == "server-error" => {}
            Answer::Unknown => {
                let detail = "no message with this id was sent to this device";
                self.violate(conn, now, "receipt-of-nothing", detail, node);
            }
        }
        for item in node.find("list").map(Node::children).unwrap_or_default() {
            if let (Some(id), Some(device)) = (item.get("id"), self.device_mut(sender)) {
                device.queue.answered("message", &id, node);
            }
        }
    }

    fn receipt_head(&mut self, from: Jid, node: &Node, now: Now) -> Node {
        Node::new("receipt")
            .attr("from", from)
            .attr_opt("id", node.value("id").cloned())
            .attr_opt("type", node.value("type").cloned())
            .attr("t", now.unix_s().to_string())
            .nodes(node.children().to_vec())
    }

    /// Delivery, read and played receipts go to all devices of the author; read ones to the reader's siblings too.
    fn relay_receipt(&mut self, sender: DeviceRef, kind: &str, to: &Jid, node: &Node, now: Now) {
        if to.is_group() {
            return self.relay_group_receipt(sender, kind, to, node, now);
        }
        let own = self.account_of(to) == Some(sender.account);
        if !matches!(kind, "read-self") && !own {
            let from = self.device_jid(sender, to.is_lid());
            let from = if kind.is_empty() || kind == "inactive" { from } else { from.to_user() };
            let receipt = self.receipt_head(from, node, now);
            self.deliver_to_account(to, receipt, now);
        }
        if matches!(kind, "read" | "read-self" | "played") {
            let from = self.account(sender.account).jid(to.is_lid());
            let copy = self.receipt_head(from, node, now).attr("recipient", to.to_user());
            self.deliver_to_siblings(sender, &copy, now);
        }
    }

    fn relay_group_receipt(&mut self, sender: DeviceRef, kind: &str, to: &Jid, node: &Node, now: Now) {
        let Some(author) = node.jid("participant") else { return };
        let Some(account) = self.account_of(&author) else { return };
        let reader = self.device_jid(sender, author.is_lid());
        if matches!(kind, "read" | "read-self" | "played") {
            let copy = self.receipt_head(to.clone(), node, now).attr("participant", reader.to_user());
            self.deliver_to_siblings(sender, &copy, now);
        }
        if kind == "read-self" || account == sender.account {
            return;
        }
        if self.options.aggregate_receipts && matches!(kind, "" | "inactive") {
            let id = node.get("id").unwrap_or_default();
            let entry = (reader.to_user(), now.unix_s());
            let known = self.aggregates.iter_mut().find(|known| known.id == id && known.group == *to);
            match known {
                Some(known) => known.users.push(entry),
                None => self.aggregates.push(Aggregate {
                    author: account,
                    group: to.clone(),
                    id: id.into_owned(),
                    users: vec![entry],
                }),
            }
            return;
        }
        let participant = if kind.is_empty() || kind == "inactive" { reader } else { reader.to_user() };
        let receipt = self.receipt_head(to.clone(), node, now).attr("participant", participant);
        self.deliver_to_account(&author, receipt, now);
    }

    /// Sends what was collected: `<receipt><participants key><user jid t/>…`.
    pub(super) fn tick_receipts(&mut self, now: Now) {
        for aggregate in std::mem::take(&mut self.aggregates) {
            let users = aggregate
                .users
                .into_iter()
                .map(|(jid, t)| Node::new("user").attr("jid", jid).attr("t", t.to_string()));
            let receipt = Node::new("receipt")
                .attr("from", &aggregate.group)
                .attr("id", aggregate.id.clone())
                .attr("t", now.unix_s().to_string())
                .child(Node::new("participants").attr("key", aggregate.id).nodes(users));
            let author = self.account(aggregate.author).jid(true);
            self.deliver_to_account(&author, receipt, now);
        }
    }

    /// The author's device is asked to send the message again.
    fn relay_retry(
        &mut self,
        sender: DeviceRef,
        conn: Option<ConnId>,
        id: &str,
        to: &Jid,
        node: &Node,
        now: Now,
    ) {
        self.retries_asked += 1;
        let Some(retry) = node.find("retry") else {
            return self.violate_opt(conn, now, "retry-shape", "a retry receipt needs <retry>", node);
        };
        let count = retry.number::<u8>("count").unwrap_or(0);
        if count == 0 || retry.value("id").is_none() || retry.value("t").is_none() || !retry.has("v", "1") {
            self.violate_opt(conn, now, "retry-shape", "retry needs count from 1, id, t and v=1", node);
        }
        if node.find_bytes("registration").is_none_or(|bytes| bytes.len() != 4) {
            let detail = "a retry receipt carries the 4-byte registration id";
            self.violate_opt(conn, now, "retry-shape", detail, node);
        }
        if count >= 2 && node.find("keys").is_none() {
            self.violate_opt(conn, now, "retry-without-keys", "from the second retry on keys are sent", node);
        }
        let author = if to.is_group() { node.jid("participant") } else { Some(to.clone()) };
        let Some(author) = author.and_then(|author| self.device_of(&author).map(|device| (author, device)))
        else {
            return self.violate_opt(conn, now, "retry-shape", "nobody is asked", node);
        };
        let (jid, device) = author;
        let Some(target) = self.device_mut(device) else { return };
        target.sent_ids.asked_again(id, sender);
        let asker = self.device_jid(sender, jid.is_lid());
        let receipt = if to.is_group() {
            self.receipt_head(to.clone(), node, now).attr("participant", asker)
        } else {
            self.receipt_head(asker, node, now).attr_opt("recipient", node.value("recipient").cloned())
        };
        self.deliver(device, receipt, now);
    }

    /// A copy of an own message arrived at another own device.
    fn relay_sender(&mut self, sender: DeviceRef, to: &Jid, node: &Node, now: Now) {
        let author = if to.is_group() { node.jid("participant") } else { Some(to.clone()) };
        let Some(device) = author.and_then(|author| self.device_of(&author)) else { return };
        if device.account != sender.account || device == sender {
            return;
        }
        let receipt = if to.is_group() {
            let participant = node.jid("participant").is_some_and(|jid| jid.is_lid());
            let from = self.device_jid(sender, participant);
            self.receipt_head(to.clone(), node, now).attr("participant", from)
        } else {
            self.receipt_head(self.device_jid(sender, to.is_lid()), node, now)
                .attr_opt("recipient", node.value("recipient").cloned())
        };
        self.deliver(device, receipt, now);
    }

    fn deliver_to_account(&mut self, user: &Jid, receipt: Node, now: Now) {
        let Some(account) = self.account_of(user) else { return };
        let devices: Vec<_> = self.devices_of(account).collect();
        let Some((last, others)) = devices.split_last() else { return };
        for device in others {
            self.deliver(*device, receipt.clone(), now);
        }
        self.deliver(*last, receipt, now);
    }

    fn deliver_to_siblings(&mut self, sender: DeviceRef, receipt: &Node, now: Now) {
        let siblings: Vec<_> = self.devices_of(sender.account).filter(|device| *device != sender).collect();
        for sibling in siblings {
            self.deliver(sibling, receipt.clone(), now);
        }
    }
}

/// What clients may send. Seen: whatsmeow `types/presence.go` @33cfac51.
const KNOWN_TYPES: [&str; 14] = [
    "",
    "delivery",
    "inactive",
    "sender",
    "read",
    "read-self",
    "played",
    "played-self",
    "peer_msg",
    "hist_sync",
    "server-error",
    "retry",
    "view",
    "enc_rekey_retry",
];
