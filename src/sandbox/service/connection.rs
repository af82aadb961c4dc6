//! Connections: login, registration, liveness, closing.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    DeviceRef, Service, ServiceOutput,
    delivery::{Phase, from_service},
    linking::Registering,
};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{binary::Node, ctx::Now, keys::PublicKey, proto::ClientPayload},
};

/// What the Noise handshake told about a client.
#[derive(Debug, Clone)]
pub struct Login {
    /// The client payload.
    pub payload: ClientPayload,
    /// The client's proven Noise static key.
    pub noise_static: PublicKey,
    /// Edge-routing information it sent in front.
    pub routing_info: Option<Vec<u8>>,
}

/// One client connection after the handshake.
pub(super) struct Conn {
    pub(super) device: Option<DeviceRef>,
    pub(super) registering: Option<Box<Registering>>,
    pub(super) last_rx: Duration,
    since: Duration,
    /// Logged in with `passive=true` and not switched to active yet.
    passive: bool,
    reported_passive: bool,
    reported_prekeys: bool,
    next_ping: Duration,
    /// Id of our ping and when it was sent.
    ping: Option<(String, Duration)>,
    pub(super) frozen: bool,
    pub(super) delay: Duration,
    pub(super) lose_receipts: bool,
    pub(super) lose_answers: bool,
    delayed: VecDeque<(Duration, Arc<Node>)>,
    /// Messages acknowledged without error on this connection.
    pub(super) acked: HashSet<String>,
}

impl Conn {
    fn new(now: Now) -> Self {
        Self {
            device: None,
            registering: None,
            last_rx: now.mono,
            since: now.mono,
            passive: false,
            reported_passive: false,
            reported_prekeys: false,
            next_ping: now.mono + PING_INTERVAL,
            ping: None,
            frozen: false,
            delay: Duration::ZERO,
            lose_receipts: false,
            lose_answers: false,
            delayed: VecDeque::new(),
            acked: HashSet::new(),
        }
    }

    /// Whether a fault makes this stanza of the client vanish.
    pub(super) fn loses(&self, node: &Node) -> bool {
        self.frozen || self.lose_answers && matches!(&*node.tag, "receipt" | "ack")
    }
}

impl Service {
    /// A client finished the Noise handshake: it registers or logs in.
    pub fn connected(&mut self, conn: ConnId, login: Login, now: Now) {
        self.conns.insert(conn, Conn::new(now));
        match &login.payload.device_pairing_data {
            Some(data) if login.payload.username.is_none() => {
                self.start_registration(conn, data, login.noise_static, now);
            }
            _ => self.log_in(conn, &login, now),
        }
    }

    /// The client's socket is gone.
    pub fn disconnected(&mut self, conn: ConnId) {
        let Some(state) = self.conns.remove(&conn) else { return };
        if let Some(registering) = &state.registering {
            for reference in &registering.refs {
                self.refs.remove(reference);
            }
        }
        if let Some(device) = state.device
            && let Some(target) = self.device_mut(device)
            && target.conn == Some(conn)
        {
            target.conn = None;
            target.queue.disconnected();
        }
    }

    fn log_in(&mut self, conn: ConnId, login: &Login, now: Now) {
        let device = login.payload.username.and_then(|number| self.account_of_number(&number.to_string()));
        let index = login.payload.device.and_then(|index| u16::try_from(index).ok()).unwrap_or_default();
        let device = device.map(|account| DeviceRef { account, device: index });
        let known = device.filter(|device| {
            device.device != 0
                && self
                    .device(*device)
                    .is_some_and(|known| known.noise_static.as_ref() == Some(&login.noise_static))
        });
        let Some(device) = known else { return self.fail(conn, 401, now) };
        if let Some(reason) = self.device_mut(device).and_then(|target| target.refuse_login.take()) {
            return self.fail(conn, reason, now);
        }
        let old = self.device_mut(device).and_then(|target| target.conn.replace(conn));
        if let Some(old) = old {
            self.replace(old, now);
            if let Some(target) = self.device_mut(device) {
                target.conn = Some(conn);
            }
        }
        let passive = login.payload.passive == Some(true);
        if let Some(state) = self.conns.get_mut(&conn) {
            state.device = Some(device);
            state.passive = passive;
        }
        self.check_routing_info(conn, device, login, now);
        let success = Node::new("success")
            .attr("t", now.unix_s().to_string())
            .attr("lid", self.device_jid(device, true))
            .attr("display_name", self.account(device.account).name.clone())
            .attr("location", "sbx")
            .attr("props", "27")
            .attr("abprops", "1");
        self.send(conn, success, now);
        self.send_routing_info(conn, device, now);
        if !passive {
            self.start_offline(device, conn, now);
        }
    }

    fn check_routing_info(&mut self, conn: ConnId, device: DeviceRef, login: &Login, now: Now) {
        let expected = self.device(device).and_then(|target| target.routing_info.clone());
        if let (Some(expected), Some(sent)) = (expected, &login.routing_info)
            && expected != *sent
        {
            let node = Node::new("edge_routing");
            self.violate(conn, now, "edge-routing", "the routing info is not what was handed out", &node);
        }
    }

    fn send_routing_info(&mut self, conn: ConnId, device: DeviceRef, now: Now) {
        let fresh = self.random_bytes::<8>();
        let Some(target) = self.device_mut(device) else { return };
        let info = target.routing_info.get_or_insert_with(|| fresh.to_vec()).clone();
        let routing = Node::new("edge_routing").child(Node::new("routing_info").bytes(info));
        self.send(conn, from_service("ib").child(routing), now);
    }

    /// `<failure reason/>`, then the end.
    pub(super) fn fail(&mut self, conn: ConnId, reason: u16, now: Now) {
        let mut failure = Node::new("failure").attr("reason", reason.to_string()).attr("location", "sbx");
        if reason == 402 {
            failure = failure.attr("code", "101").attr("expire", "3600");
        }
        self.send(conn, failure, now);
        self.close(conn);
    }

    /// `<stream:error/>`, then the end.
    pub(super) fn end_stream(&mut self, conn: ConnId, code: Option<u16>, child: Option<Node>, now: Now) {
        let error =
            Node::new("stream:error").attr_opt("code", code.map(|code| code.to_string())).child_opt(child);
        self.send(conn, error, now);
        self.close(conn);
    }

    /// The same credentials connected elsewhere.
    pub(super) fn replace(&mut self, conn: ConnId, now: Now) {
        self.end_stream(conn, None, Some(Node::new("conflict").attr("type", "replaced")), now);
    }

    /// Closes a connection from our side.
    pub(super) fn close(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            // What was delayed belongs in front of the end.
            for (_, node) in std::mem::take(&mut state.delayed) {
                self.outputs.push_back(ServiceOutput::Node(conn, node));
            }
        }
        self.outputs.push_back(ServiceOutput::Close(conn));
        self.disconnected(conn);
    }

    /// Ends a connection as a broken network does.
    pub(super) fn cut(&mut self, conn: ConnId) {
        self.outputs.push_back(ServiceOutput::Cut(conn));
        self.disconnected(conn);
    }

    /// The client switches between active and passive.
    pub(super) fn set_active(&mut self, device: DeviceRef, conn: ConnId, active: bool, now: Now) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.passive = !active;
        }
        if active {
            self.start_offline(device, conn, now);
        } else if let Some(target) = self.device_mut(device) {
            target.queue.set_phase(Phase::Passive);
        }
    }

    /// An `<ib>` from a client.
    pub(super) fn handle_ib(&mut self, device: DeviceRef, conn: ConnId, node: &Node, now: Now) {
        for child in node.children() {
            if child.tag == "offline_batch" {
                let count = child.number("count").unwrap_or(0);
                if count == 0 {
                    self.violate(conn, now, "offline-batch", "offline_batch needs a count", node);
                }
                self.offline_batch(device, conn, count, now);
            }
        }
    }

    /// Presence, chat state and call signalling go to whoever they name; nobody's phone shows them here.
    pub(super) fn handle_presence(&mut self, device: DeviceRef, conn: ConnId, node: &Node, now: Now) {
        if node.tag == "presence"
            && node.has("type", "available")
            && node.get("name").is_none_or(|name| name.is_empty() || name.contains('@'))
        {
            self.violate(conn, now, "presence-name", "available needs a name without @", node);
        }
        if node.tag != "chatstate" {
            return;
        }
        let Some(to) = node.jid("to").and_then(|to| self.account_of(&to).map(|account| (to, account))) else {
            return;
        };
        let from = self.account(device.account).jid(to.0.is_lid());
        let targets: Vec<_> = self.devices_of(to.1).filter(|device| device.device != 0).collect();
        for target in targets {
            if let Some(conn) = self.device(target).and_then(|target| target.conn) {
                let state = Node::new("chatstate").attr("from", &from).nodes(node.children().to_vec());
                self.send(conn, state, now);
            }
        }
    }

    /// Queues a stanza for a connection; held back while a delay is set, lost while frozen.
    pub(super) fn send_shared(&mut self, conn: ConnId, node: Arc<Node>, now: Now) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if state.frozen || state.lose_receipts && node.tag == "receipt" {
            return;
        }
        if state.delay.is_zero() {
            self.outputs.push_back(ServiceOutput::Node(conn, node));
        } else {
            state.delayed.push_back((now.mono + state.delay, node));
        }
    }

    /// An answer to one of our own IQs.
    pub(super) fn handle_iq_answer(&mut self, conn: ConnId, node: &Node, now: Now) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let (Some((id, _)), Some(answer)) = (&state.ping, node.get("id"))
            && *id == answer
        {
            state.ping = None;
            return;
        }
        self.violate(conn, now, "iq-answer", "there was no question with this id", node);
    }

    /// When something held back wants to leave.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.conns.values().filter_map(|state| state.delayed.front().map(|(due, _)| *due)).min()
    }

    /// Liveness, delays, and what a client owes after login.
    pub(super) fn tick_connections(&mut self, now: Now) {
        let mut pings = Vec::new();
        let mut objections = Vec::new();
        for (&conn, state) in &mut self.conns {
            while let Some((due, _)) = state.delayed.front()
                && *due <= now.mono
            {
                if let Some((_, node)) = state.delayed.pop_front() {
                    self.outputs.push_back(ServiceOutput::Node(conn, node));
                }
            }
            let (Some(device), false) = (state.device, state.frozen) else { continue };
            let age = now.mono.saturating_sub(state.since);
            if state.passive
                && age >= ACTIVE_DEADLINE
                && !std::mem::replace(&mut state.reported_passive, true)
            {
                objections.push((conn, "login-without-active", "a passive login must switch to active"));
            }
            if age >= PREKEY_DEADLINE && !std::mem::replace(&mut state.reported_prekeys, true) {
                let device = self.accounts[device.account as usize].devices.get(&device.device);
                if device.is_some_and(|device| device.keys.count() < MIN_PREKEYS) {
                    objections.push((conn, "prekeys-not-uploaded", "too few one-time prekeys after login"));
                }
            }
            if let Some((_, at)) = &state.ping {
                if now.mono.saturating_sub(*at) >= PONG_DEADLINE {
                    state.ping = None;
                    objections.push((conn, "ping-unanswered", "the service's ping was not answered"));
                }
            } else if now.mono >= state.next_ping {
                state.next_ping = now.mono + PING_INTERVAL;
                pings.push(conn);
            }
        }
        for (conn, rule, detail) in objections {
            self.violate(conn, now, rule, detail, &Node::new("connection"));
        }
        for conn in pings {
            self.ping(conn, now);
        }
    }

    fn ping(&mut self, conn: ConnId, now: Now) {
        let id = format!("ping-{}", self.fresh_number());
        let ping =
            from_service("iq").attr("id", id.clone()).attr("type", "get").attr("xmlns", "urn:xmpp:ping");
        if let Some(state) = self.conns.get_mut(&conn) {
            state.ping = Some((id, now.mono));
        }
        self.send(conn, ping, now);
    }
}

/// Well above what clients need; only those that forget it are caught.
const ACTIVE_DEADLINE: Duration = Duration::from_secs(20);

/// Time for a first upload of 812 keys on a slow machine.
const PREKEY_DEADLINE: Duration = Duration::from_secs(30);

/// Below this nobody can start a session with a one-time prekey for long.
const MIN_PREKEYS: usize = 5;

/// The real service pings now and then; once a minute costs nothing and proves the answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);

const PONG_DEADLINE: Duration = Duration::from_secs(20);
