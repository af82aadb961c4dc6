//! A message stanza on its way through the service: its parts, and the memory of what a device sent.

use std::collections::{HashMap, VecDeque};

use super::DeviceRef;
use crate::whatsapp::{
    binary::{Attrs, Content, Node},
    jid::Jid,
};

/// Messages a device sent, to recognise resends.
#[derive(Default)]
pub(super) struct SentIds {
    by_id: HashMap<String, Vec<DeviceRef>>,
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
        if let Some(askers) = self.by_id.get_mut(id)
            && !askers.contains(&by)
        {
            askers.push(by);
        }
    }

    /// Whether this device asked for it; the question is answered by asking this.
    pub(super) fn take_asker(&mut self, id: &str, by: DeviceRef) -> bool {
        let Some(askers) = self.by_id.get_mut(id) else { return false };
        let before = askers.len();
        askers.retain(|asker| *asker != by);
        askers.len() < before
    }

    pub(super) fn has_askers(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|askers| !askers.is_empty())
    }
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
