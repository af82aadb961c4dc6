//! Outgoing messages on their way: one lane per chat keeps its order, what is on the wire waits for its ack.
//!
//! A job is durable (the message is in the history as `pending`) before it gets here. It leaves a lane when it is on
//! the wire, and the table of those on the wire when the server has answered, or nobody will.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::whatsapp::{
    jid::Jid,
    messages::{content::StanzaKind, namespace::Namespace},
    model::CommandId,
    signal::Address,
};

/// One message to send.
#[derive(Debug)]
pub(super) struct Job {
    /// Order of acceptance; kept across reconnects.
    pub(super) seq: u64,
    /// Who waits for the outcome.
    pub(super) command: Option<CommandId>,
    /// Message id.
    pub(super) id: String,
    /// The chat under the name history uses.
    pub(super) chat: Jid,
    /// The protobuf `Message`, unpadded.
    pub(super) raw: Vec<u8>,
    /// What the stanza says about it.
    pub(super) stanza: StanzaKind,
    /// The namespace the last refusal asked for.
    pub(super) namespace: Option<Namespace>,
    /// Refused for want of a token: waits for one until then, and fails without.
    pub(super) token_until: Option<Duration>,
    /// What was tried after which refusal.
    pub(super) tries: Tries,
    /// How it was sent last.
    pub(super) sent: Sent,
}

/// How often each remedy was used.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tries {
    /// Other namespace.
    pub(super) flips: u8,
    /// Waited for a token.
    pub(super) tokens: u8,
    /// Devices or group metadata asked anew.
    pub(super) refreshes: u8,
    /// Server trouble or rate limit.
    pub(super) pauses: u8,
    /// No ack in time.
    pub(super) timeouts: u8,
}

/// How a job went onto the wire.
#[derive(Debug, Default, Clone)]
pub(super) struct Sent {
    /// When, in [`crate::whatsapp::ctx::Now::mono`] time.
    pub(super) at: Duration,
    /// Namespace of the stanza, 1:1 only.
    pub(super) namespace: Option<Namespace>,
    /// Our hash of the devices it went to.
    pub(super) phash: String,
    /// A `tctoken` or `cstoken` was attached.
    pub(super) had_token: bool,
    /// It carried our sender key with this id to these devices.
    pub(super) distribution: Option<(u32, Vec<Address>)>,
}

/// Lanes and the wire.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    next_seq: u64,
    lanes: HashMap<Jid, VecDeque<Job>>,
    wire: HashMap<String, Job>,
    /// Deadlines of what went onto the wire, in that order; entries of acked jobs are skipped when met.
    deadlines: VecDeque<(Duration, String)>,
}

impl Jobs {
    /// The place of the next accepted message.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    /// Whether something waits in this chat's lane.
    pub(super) fn is_waiting(&self, chat: &Jid) -> bool {
        self.lanes.contains_key(chat)
    }

    /// Puts a job into its lane, by its order.
    pub(super) fn queue(&mut self, job: Job) {
        let lane = self.lanes.entry(job.chat.clone()).or_default();
        let at = lane.iter().rposition(|other| other.seq < job.seq).map_or(0, |at| at + 1);
        lane.insert(at, job);
    }

    /// Takes the first job of a lane.
    pub(super) fn next_of(&mut self, chat: &Jid) -> Option<Job> {
        let lane = self.lanes.get_mut(chat)?;
        let job = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(chat);
        }
        job
    }

    /// The chats in which something waits, oldest first.
    pub(super) fn waiting_chats(&self) -> Vec<Jid> {
        let mut chats: Vec<(u64, &Jid)> =
            self.lanes.iter().filter_map(|(chat, lane)| Some((lane.front()?.seq, chat))).collect();
        chats.sort_unstable_by_key(|(seq, _)| *seq);
        chats.into_iter().map(|(_, chat)| chat.clone()).collect()
    }

    /// Notes a job as being on the wire until `deadline`.
    pub(super) fn put_on_wire(&mut self, job: Job, deadline: Duration) {
        self.deadlines.push_back((deadline, job.id.clone()));
        self.wire.insert(job.id.clone(), job);
    }

    /// Takes a job off the wire: its ack is here.
    pub(super) fn take_from_wire(&mut self, id: &str) -> Option<Job> {
        let job = self.wire.remove(id);
        // Acks come in order, so that what is answered is at the front: the queue never outgrows the wire by much.
        while self.deadlines.front().is_some_and(|(_, id)| !self.wire.contains_key(id)) {
            self.deadlines.pop_front();
        }
        job
    }

    /// Takes one job off the wire whose ack is overdue.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<Job> {
        while let Some((deadline, _)) = self.deadlines.front() {
            if *deadline > now {
                return None;
            }
            let (_, id) = self.deadlines.pop_front()?;
            // A job sent again has a later deadline of its own further back.
            let sent_again = self.deadlines.iter().any(|(_, other)| *other == id);
            if !sent_again && let Some(job) = self.wire.remove(&id) {
                return Some(job);
            }
        }
        None
    }

    /// When the first message that waits for a token gives up.
    pub(super) fn next_token_deadline(&self) -> Option<Duration> {
        self.lanes.values().filter_map(|lane| lane.front()?.token_until).min()
    }

    /// Messages that are accepted and not answered.
    pub(super) fn count(&self) -> usize {
        self.wire.len() + self.lanes.values().map(VecDeque::len).sum::<usize>()
    }

    /// When the oldest ack is overdue.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// The connection is gone: everything on the wire goes back into its lane, in order.
    pub(super) fn requeue_wire(&mut self) {
        self.deadlines.clear();
        for (_, job) in std::mem::take(&mut self.wire) {
            self.queue(job);
        }
    }

    /// Everything under way, for a session that ends.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        self.requeue_wire();
        std::mem::take(&mut self.lanes).into_values().flatten().collect()
    }

    /// A job by message id, wherever it is.
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Job> {
        if let Some(job) = self.wire.get_mut(id) {
            return Some(job);
        }
        self.lanes.values_mut().flatten().find(|job| job.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(jobs: &mut Jobs, chat: &str) -> Job {
        let seq = jobs.next_seq();
        Job {
            seq,
            command: None,
            id: seq.to_string(),
            chat: chat.parse().unwrap(),
            raw: Vec::new(),
            stanza: StanzaKind { kind: "text", media: None, edit: None, hide: false },
            namespace: None,
            token_until: None,
            tries: Tries::default(),
            sent: Sent::default(),
        }
    }

    #[test]
    fn after_a_reconnect_every_chat_goes_on_in_its_order() {
        let mut jobs = Jobs::default();
        let chat: Jid = "1@lid".parse().unwrap();
        for _ in 0..3 {
            let job = job(&mut jobs, "1@lid");
            jobs.put_on_wire(job, Duration::from_secs(75));
        }
        let waiting = job(&mut jobs, "1@lid");
        jobs.queue(waiting);
        jobs.take_from_wire("2");
        jobs.requeue_wire();
        let order: Vec<String> = std::iter::from_fn(|| jobs.next_of(&chat)).map(|job| job.id).collect();
        assert_eq!(order, ["1", "3", "4"]);
        assert!(!jobs.is_waiting(&chat));
    }

    #[test]
    fn only_unanswered_jobs_become_overdue_and_a_resend_counts_from_its_own_time() {
        let mut jobs = Jobs::default();
        let second = Duration::from_secs;
        let (one, two) = (job(&mut jobs, "1@lid"), job(&mut jobs, "2@lid"));
        jobs.put_on_wire(one, second(75));
        jobs.put_on_wire(two, second(76));
        assert!(jobs.overdue(second(74)).is_none());
        let again = jobs.take_from_wire("1").unwrap();
        jobs.put_on_wire(again, second(90));
        assert_eq!(jobs.overdue(second(80)).unwrap().id, "2");
        assert_eq!(jobs.next_deadline(), Some(second(90)));
        assert_eq!(jobs.overdue(second(90)).unwrap().id, "1");
        assert!(jobs.overdue(second(99)).is_none());
    }
}
