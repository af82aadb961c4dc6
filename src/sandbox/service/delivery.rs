//! What waits for a device: the offline queue, and stanzas it was sent but has not answered.
//!
//! A stanza leaves the queue only when it is answered (ack or receipt). After a disconnect everything unanswered is
//! delivered again at the next login, marked `offline`.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{DeviceRef, Service, ServiceOutput};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::Node,
        ctx::Now,
        jid::{Jid, Server},
    },
};

/// Queue of one device.
#[derive(Default)]
pub(super) struct DeviceQueue {
    waiting: VecDeque<Arc<Node>>,
    sent: BTreeMap<u64, Sent>,
    by_id: HashMap<String, Vec<u64>>,
    next: u64,
    /// Ids of stanzas that were sent at some time: answers to anything else are wrong.
    known: HashSet<String>,
    /// `known` was emptied once; answers cannot be judged any more.
    forgetful: bool,
    /// A fault made everything come twice.
    redelivered: bool,
    /// A fault lets messages of different chats overtake each other: the one that waits to be overtaken, since when.
    reordering: bool,
    held: Option<(Duration, Arc<Node>)>,
    phase: Phase,
}

/// Where a connection is with its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Logged in, but passive: nothing flows.
    #[default]
    Passive,
    /// Draining what waited; `credit` more stanzas were asked for.
    Offline {
        /// Stanzas the client may still get before it has to ask again.
        credit: usize,
        /// When a client that never asks gets the rest all the same (whatsmeow does not ask).
        patience: Duration,
        /// Stanzas delivered in this phase.
        delivered: usize,
    },
    /// Stanzas flow as they come.
    Live,
}

struct Sent {
    node: Arc<Node>,
    at: Duration,
    reported: bool,
}

/// Result of matching an answer with what was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It fits; the stanza is done. The attribute mismatch, if any, is an objection.
    Done(Option<&'static str>),
    /// It was answered before.
    Again,
    /// Nothing with this id was ever sent to this device.
    Unknown,
}

impl DeviceQueue {
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The stanza of this class and id that was sent and is not answered: the one this answer fits, or else any.
    fn position(&self, class: &str, id: &str, answer: &Node) -> Option<u64> {
        let sent = |seq: &u64| self.sent.get(seq).map(|sent| &sent.node);
        let of_class = |seq: &&u64| sent(seq).is_some_and(|node| node.tag == class);
        let fits = |seq: &&u64| sent(seq).is_some_and(|node| mismatch(node, answer).is_none());
        let is_exact = |seq: &&u64| sent(seq).is_some_and(|node| node.jid("from") == answer.jid("to"));
        let mut candidates = self.by_id.get(id)?.iter().filter(of_class);
        let mut fitting = candidates.clone().filter(fits);
        let fitting = fitting.clone().find(is_exact).or_else(|| fitting.next());
        // What was sent twice is answered twice, and then the second answer may fit nothing that is left.
        if fitting.is_none() && self.redelivered {
            return None;
        }
        fitting.or_else(|| candidates.next()).copied()
    }

    fn take(&mut self, seq: u64, id: &str) -> Option<Arc<Node>> {
        let sent = self.sent.remove(&seq)?;
        if let Some(list) = self.by_id.get_mut(id) {
            list.retain(|known| *known != seq);
            if list.is_empty() {
                self.by_id.remove(id);
            }
        }
        Some(sent.node)
    }

    /// Matches an ack or receipt with the stanza it answers.
    pub(super) fn answered(&mut self, class: &str, id: &str, answer: &Node) -> Answer {
        let Some(seq) = self.position(class, id, answer) else {
            return if self.forgetful || self.known.contains(id) { Answer::Again } else { Answer::Unknown };
        };
        let Some(node) = self.take(seq, id) else { return Answer::Unknown };
        Answer::Done(mismatch(&node, answer))
    }

    fn remember(&mut self, node: &Arc<Node>, now: Now) {
        let Some(id) = node.get("id") else { return };
        if self.known.len() >= MAX_KNOWN_IDS {
            self.known.clear();
            self.forgetful = true;
        }
        self.known.insert(id.clone().into_owned());
        self.next += 1;
        self.by_id.entry(id.into_owned()).or_default().push(self.next);
        self.sent.insert(self.next, Sent { node: node.clone(), at: now.mono, reported: false });
    }

    /// Messages of different chats overtake each other from now on, or no longer.
    pub(super) fn reorder(&mut self, on: bool) {
        self.reordering = on;
    }

    /// What goes out now that this stanza is there. Within a chat the order stays.
    fn shuffle(&mut self, node: Arc<Node>, now: Now) -> Vec<Arc<Node>> {
        let chat = |node: &Node| (node.jid("from").map(|from| from.to_user()), node.jid("recipient"));
        let is_message = node.tag == "message" && node.value("category").is_none();
        match self.held.take() {
            None if self.reordering && is_message => {
                self.held = Some((now.mono, node));
                Vec::new()
            }
            None => vec![node],
            Some((_, held)) if is_message && chat(&held) != chat(&node) => vec![node, held],
            Some((_, held)) if is_message && self.reordering => {
                self.held = Some((now.mono, node));
                vec![held]
            }
            Some((_, held)) => vec![held, node],
        }
    }

    /// The connection is gone: everything unanswered waits again, in its order.
    pub(super) fn disconnected(&mut self) {
        self.by_id.clear();
        if let Some((_, held)) = self.held.take() {
            self.waiting.push_front(held);
        }
        for (_, sent) in std::mem::take(&mut self.sent).into_iter().rev() {
            self.waiting.push_front(sent.node);
        }
        self.phase = Phase::Passive;
    }

    /// Sends everything unanswered once more on the live connection (a fault for tests).
    pub(super) fn redeliver(&mut self) -> Vec<Arc<Node>> {
        self.redelivered = true;
        self.sent.values().map(|sent| sent.node.clone()).collect()
    }

    /// What waits, by stanza tag: messages, receipts, notifications, calls.
    pub(super) fn counts(&self) -> [usize; 4] {
        let count = |tag: &str| self.waiting.iter().filter(|node| node.tag == tag).count();
        [count("message"), count("receipt"), count("notification"), count("call")]
    }
}

impl Service {
    /// Gives a stanza to a device: now when it is live, at its next login otherwise.
    pub(super) fn deliver(&mut self, device: DeviceRef, node: Node, now: Now) {
        let node = Arc::new(node);
        if device.device == 0 {
            self.outputs.push_back(ServiceOutput::Phone(device.account, node));
            return;
        }
        let Some(target) = self.device_mut(device) else { return };
        if let (Some(conn), Phase::Live) = (target.conn, target.queue.phase) {
            for node in target.queue.shuffle(node, now) {
                self.send_live(device, conn, node, now);
            }
        } else if target.queue.waiting.len() < MAX_WAITING {
            target.queue.waiting.push_back(node);
        }
    }

    fn send_live(&mut self, device: DeviceRef, conn: ConnId, node: Arc<Node>, now: Now) {
        if let Some(target) = self.device_mut(device) {
            target.queue.remember(&node, now);
        }
        self.send_shared(conn, node, now);
    }

    /// What was held back for so long that nothing will overtake it any more goes out.
    pub(super) fn release_held(&mut self, device: DeviceRef, now: Now, patience: Duration) {
        let Some(target) = self.device_mut(device) else { return };
        let is_due = |(since, _): &mut (Duration, Arc<Node>)| now.mono.saturating_sub(*since) >= patience;
        if let (Some(conn), Some((_, node))) = (target.conn, target.queue.held.take_if(is_due)) {
            self.send_live(device, conn, node, now);
        }
    }

    /// The client may have stanzas now: announces what waits, or goes live when nothing does.
    pub(super) fn start_offline(&mut self, device: DeviceRef, conn: ConnId, now: Now) {
        let Some(target) = self.device_mut(device) else { return };
        if target.queue.phase != Phase::Passive {
            return;
        }
        let [message, receipt, notification, call] = target.queue.counts();
        let total = target.queue.waiting.len();
        if total == 0 {
            target.queue.phase = Phase::Live;
            self.send(conn, offline_done(0), now);
            return;
        }
        let patience = now.mono + OFFLINE_PATIENCE;
        target.queue.phase = Phase::Offline { credit: 0, patience, delivered: 0 };
        let preview = Node::new("offline_preview")
            .attr("count", total.to_string())
            .attr("message", message.to_string())
            .attr("receipt", receipt.to_string())
            .attr("notification", notification.to_string())
            .attr("call", call.to_string())
            .attr("appdata", "0");
        self.send(conn, from_service("ib").child(preview), now);
    }

    /// The client pulls the next part of its queue.
    pub(super) fn offline_batch(&mut self, device: DeviceRef, conn: ConnId, count: usize, now: Now) {
        let Some(target) = self.device_mut(device) else { return };
        if let Phase::Offline { credit, .. } = &mut target.queue.phase {
            *credit = credit.saturating_add(count);
            self.drain_offline(device, conn, now);
        }
    }

    fn drain_offline(&mut self, device: DeviceRef, conn: ConnId, now: Now) {
        loop {
            let Some(target) = self.device_mut(device) else { return };
            let Phase::Offline { credit, delivered, .. } = &mut target.queue.phase else { return };
            let Some(node) = target.queue.waiting.front().cloned() else {
                let delivered = *delivered;
                target.queue.phase = Phase::Live;
                self.send(conn, offline_done(delivered), now);
                return;
            };
            if *credit == 0 {
                return;
            }
            *credit -= 1;
            *delivered += 1;
            target.queue.waiting.pop_front();
            let mut marked = Arc::unwrap_or_clone(node);
            if marked.value("offline").is_none() {
                marked = marked.attr("offline", "1");
            }
            let marked = Arc::new(marked);
            target.queue.remember(&marked, now);
            self.send_shared(conn, marked, now);
        }
    }

    /// An `<ack>` from a client.
    pub(super) fn handle_ack(&mut self, device: DeviceRef, conn: ConnId, node: &Node, now: Now) {
        let (Some(class), Some(id)) = (node.get("class"), node.get("id")) else {
            return self.violate(conn, now, "ack-incomplete", "an ack needs class and id", node);
        };
        if !matches!(&*class, "message" | "receipt" | "notification" | "call") {
            let detail = format!("class {class} is never acknowledged");
            return self.violate(conn, now, "ack-class", detail, node);
        }
        if node.value("to").is_none() {
            self.violate(conn, now, "ack-without-to", "an ack names the sender of the stanza in `to`", node);
        }
        let Some(target) = self.device_mut(device) else { return };
        match target.queue.answered(&class, &id, node) {
            Answer::Done(None) | Answer::Again => {}
            Answer::Done(Some(rule)) => {
                self.violate(conn, now, rule, "the answer does not repeat what the stanza said", node);
            }
            Answer::Unknown => {
                let detail = format!("no {class} with this id was sent to this device");
                self.violate(conn, now, "ack-of-nothing", detail, node);
            }
        }
    }

    /// Overdue answers are objections; clients that never pull their queue get it after a while.
    pub(super) fn tick_queues(&mut self, now: Now) {
        let deadline = self.options.answer_deadline;
        let mut overdue = Vec::new();
        let mut impatient = Vec::new();
        let mut holding = Vec::new();
        for (account, entry) in self.accounts.iter_mut().enumerate() {
            for (&index, device) in &mut entry.devices {
                let Some(conn) = device.conn else { continue };
                let account = u32::try_from(account).expect("accounts are numbered with u32");
                if device.queue.held.is_some() {
                    holding.push(DeviceRef { account, device: index });
                }
                for sent in device.queue.sent.values_mut() {
                    if now.mono.saturating_sub(sent.at) < deadline {
                        break;
                    }
                    if !std::mem::replace(&mut sent.reported, true) {
                        overdue.push((conn, sent.node.clone()));
                    }
                }
                if let Phase::Offline { credit, patience, .. } = &mut device.queue.phase
                    && now.mono >= *patience
                {
                    *credit = usize::MAX;
                    impatient.push((DeviceRef { account, device: index }, conn));
                }
            }
        }
        for device in holding {
            self.release_held(device, now, HELD_AT_MOST);
        }
        for (conn, node) in overdue {
            let detail = format!("no answer within {} s", deadline.as_secs());
            self.violate(conn, now, "unanswered", detail, &node);
        }
        for (device, conn) in impatient {
            let detail = "the announced queue was not pulled to its end";
            self.violate(conn, now, "offline-not-pulled", detail, &Node::new("offline_preview"));
            self.drain_offline(device, conn, now);
        }
    }
}

/// A stanza of the service itself. Its `from` must be a JID with an empty user: Baileys compares it as text.
pub(super) fn from_service(tag: &'static str) -> Node {
    Node::new(tag).attr("from", Jid::new("", Server::Pn))
}

fn offline_done(count: usize) -> Node {
    from_service("ib").child(Node::new("offline").attr("count", count.to_string()))
}

/// What an answer has to repeat and does not.
fn mismatch(stanza: &Node, answer: &Node) -> Option<&'static str> {
    // The answer to a message of our own goes back to the sending device; `to` without device is what phones get.
    let (from, to) = (stanza.jid("from"), answer.jid("to"));
    let same = match (&from, &to) {
        (Some(from), Some(to)) => from == to || from.to_user() == *to,
        _ => false,
    };
    if !same && !is_own_copy_receipt(stanza, answer) {
        return Some("answer-to-other-sender");
    }
    if answer.tag == "ack" {
        for (key, rule) in
            [("participant", "ack-without-participant"), ("recipient", "ack-without-recipient")]
        {
            if let Some(expected) = stanza.jid(key)
                && answer.jid(key).as_ref() != Some(&expected)
            {
                return Some(rule);
            }
        }
        if stanza.tag != "message"
            && let Some(expected) = stanza.get("type")
            && answer.get("type").as_deref() != Some(&*expected)
        {
            return Some("ack-type");
        }
    } else if stanza.value("participant").is_some() && answer.value("participant").is_none() {
        return Some("receipt-without-participant");
    } else if stanza.value("recipient").is_some() && answer.value("recipient").is_none() {
        return Some("receipt-without-recipient");
    }
    None
}

/// Baileys answers history notifications of its phone without the device part or to the other namespace.
fn is_own_copy_receipt(stanza: &Node, answer: &Node) -> bool {
    answer.tag == "receipt" && stanza.has("category", "peer")
}

/// A client that keeps the ids of a day apart at 1 message/s; beyond that unknown ids are not judged.
const MAX_KNOWN_IDS: usize = 100_000;

/// Stanzas kept for a device that stays away.
const MAX_WAITING: usize = 100_000;

/// With nothing to overtake it, a message that is held back for the fault goes out after this.
const HELD_AT_MOST: Duration = Duration::from_millis(300);

/// How long a client may leave its announced queue alone before it gets everything unasked.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(15);
