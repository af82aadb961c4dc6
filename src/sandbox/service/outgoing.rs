//! A message stanza on its way through the service: its parts, and the memory of what a device sent.

use std::collections::{HashMap, VecDeque};

use super::DeviceRef;
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::{Attrs, Content, Node},
        jid::Jid,
    },
};

/// Messages a device sent, to recognise resends.
#[derive(Default)]
pub(super) struct SentIds {
    by_id: HashMap<String, Vec<Asker>>,
    order: VecDeque<String>,
}

impl SentIds {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn insert(&mut self, id: &str) {
        if self.by_id.contains_key(id) {
            return;
        }
        self.by_id.insert(id.to_owned(), Vec::new());
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX_SENT_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    /// A device asks for the message again.
    pub(super) fn asked_again(&mut self, id: &str, by: DeviceRef) {
        let Some(askers) = self.by_id.get_mut(id) else { return };
        match askers.iter_mut().find(|asker| asker.device == by) {
            Some(asker) => asker.asked += 1,
            None => askers.push(Asker { device: by, asked: 1, served: 0, total: 0, on: None }),
        }
    }

    /// Whether this device asked for it; one question is answered by asking this. On another connection all may be
    /// answered once more: questions are delivered again to a client that lost its connection before its acks.
    pub(super) fn take_asker(&mut self, id: &str, by: DeviceRef, on: Option<ConnId>) -> bool {
        let mut askers = self.by_id.get_mut(id).into_iter().flatten();
        let Some(asker) = askers.find(|asker| asker.device == by) else { return false };
        if asker.on != on {
            asker.on = on;
            asker.served = 0;
        }
        asker.served += 1;
        asker.total += 1;
        asker.served <= asker.asked
    }

    /// Whether this device ever asked for it: then the whole message sent again reaches it too.
    pub(super) fn reach_asker(&mut self, id: &str, by: DeviceRef) -> bool {
        let mut askers = self.by_id.get_mut(id).into_iter().flatten();
        let asker = askers.find(|asker| asker.device == by);
        asker.is_some_and(|asker| {
            asker.total += 1;
            true
        })
    }

    pub(super) fn has_askers(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|askers| askers.iter().any(|asker| asker.total < asker.asked))
    }
}

/// A device that asked for a message again: how often, and how often it was served, on the latest connection and in
/// total.
struct Asker {
    device: DeviceRef,
    asked: u32,
    served: u32,
    total: u32,
    on: Option<ConnId>,
}

/// A message stanza taken apart; ciphertexts are moved, never copied.
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) to: Jid,
    kept: Attrs,
    pub(super) fanout: Vec<(Jid, Vec<Node>)>,
    pub(super) enc: Vec<Node>,
    device_identity: Option<Node>,
    extra: Vec<Node>,
}

impl Parts {
    pub(super) fn split(node: Node, id: String, to: Jid) -> Self {
        let Node { attrs, content, .. } = node;
        let kept = attrs.into_iter().filter(|(key, _)| KEPT_ATTRS.contains(&&**key)).collect();
        let mut parts = Self {
            id,
            to,
            kept,
            fanout: Vec::new(),
            enc: Vec::new(),
            device_identity: None,
            extra: Vec::new(),
        };
        let Content::Nodes(children) = content else { return parts };
        for child in children {
            match &*child.tag {
                "participants" => parts.fanout = take_fanout(child),
                "enc" => parts.enc.push(child),
                "device-identity" => parts.device_identity = Some(child),
                // Between client and server only.
                "tctoken" | "cstoken" => {}
                _ => parts.extra.push(child),
            }
        }
        parts
    }

    /// What this device gets: attributes of the incoming stanza so far, then its ciphertexts.
    pub(super) fn stanza(&self, head: Node, enc: Vec<Node>) -> Node {
        let mut node = head;
        node.attrs.extend(self.kept.iter().cloned());
        let identity = enc.iter().any(|enc| enc.has("type", "pkmsg")).then(|| self.device_identity.clone());
        let children = enc.into_iter().chain(identity.flatten()).chain(self.extra.iter().cloned());
        node.nodes(children)
    }
}

fn take_fanout(participants: Node) -> Vec<(Jid, Vec<Node>)> {
    let Content::Nodes(children) = participants.content else { return Vec::new() };
    let entry = |child: Node| {
        let jid = child.jid("jid")?;
        let Content::Nodes(enc) = child.content else { return Some((jid, Vec::new())) };
        Some((jid, enc))
    };
    children.into_iter().filter_map(entry).collect()
}

/// Attributes that travel from the sender's stanza to the receivers' as they are.
const KEPT_ATTRS: [&str; 3] = ["type", "edit", "expiration"];

/// Resends come within minutes; a day of a busy sender is plenty.
const MAX_SENT_IDS: usize = 20_000;
