//! The server side of the simulated WhatsApp, on stanza level: sans-IO, time and randomness handed in.
//!
//! [`Service`] knows accounts, their devices, the prekey directory, groups and queues. It takes stanzas of
//! connections ([`Service::handle_node`]) and of phones ([`Service::handle_phone_node`]) and gives stanzas back as
//! [`ServiceOutput`]s. It never decrypts anything and knows nothing of sockets, Noise, or what phones do inside.
//!
//! Read on: `connection` (login and pairing), `delivery` (queues), `route` (messages), `receipts`, `iq`.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand_core::CryptoRngCore;

use super::{
    violations::{Violation, Violations},
    world::ConnId,
};
use crate::whatsapp::{binary::Node, ctx::Now};

mod account;
mod ciphertext;
mod connection;
mod delivery;
mod directory;
mod errors;
mod faults;
mod groups;
mod iq;
mod linking;
mod notify;
mod outgoing;
mod prekeys;
mod receipts;
mod route;
mod route_group;
mod tokens;
mod usync;

#[cfg(test)]
mod tests;

pub use account::{AccountView, DeviceRef};
pub use connection::Login;
pub use directory::{Directory, GroupView};
pub use faults::Fault;
pub use groups::MemberChange;
pub use linking::{CodeHello, LinkRequest, LinkedDevice};
pub use prekeys::PublishedKeys;
pub(in crate::sandbox) use {
    notify::participant_hash,
    prekeys::{parse_prekey, parse_signed},
};

use account::Account;
use connection::Conn;
use groups::Group;

/// What can be set per service; the defaults are what the real one does.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// One-time prekeys left at which the server asks for more.
    pub low_prekeys: usize,
    /// Refuse 1:1 messages without a trusted-contact token to contacts that issued one (463).
    pub require_tokens: bool,
    /// Linking ends at the passkey step that some accounts meet since mid 2026.
    pub require_passkey: bool,
    /// Group delivery receipts travel aggregated.
    pub aggregate_receipts: bool,
    /// How long a stanza may stay unanswered before it is recorded as a violation.
    pub answer_deadline: Duration,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            low_prekeys: 10,
            require_tokens: false,
            require_passkey: false,
            aggregate_receipts: false,
            answer_deadline: Duration::from_secs(30),
        }
    }
}

/// What the layer around the service has to do, in this order.
#[derive(Debug)]
pub enum ServiceOutput {
    /// Send a stanza on a client connection.
    Node(ConnId, Arc<Node>),
    /// Give a stanza to the phone of this account.
    Phone(u32, Arc<Node>),
    /// Close a client connection in good order.
    Close(ConnId),
    /// Cut a client connection without a word.
    Cut(ConnId),
}

/// The simulated server. See the module documentation.
pub struct Service {
    options: ServiceOptions,
    rng: Box<dyn CryptoRngCore + Send>,
    accounts: Vec<Account>,
    by_pn: HashMap<String, u32>,
    by_lid: HashMap<String, u32>,
    conns: HashMap<ConnId, Conn>,
    refs: HashMap<String, ConnId>,
    groups: HashMap<String, Group>,
    aggregates: Vec<receipts::Aggregate>,
    outputs: VecDeque<ServiceOutput>,
    violations: Violations,
    /// Retry receipts of clients and phones: each is a message that somebody could not decrypt.
    retries_asked: u64,
    /// Changes with every device or group change; cached participant hashes depend on it.
    directory_version: u64,
    last_number: u64,
    last_tick: Duration,
}

impl Service {
    /// A service without accounts.
    #[must_use]
    pub fn new(options: ServiceOptions, rng: Box<dyn CryptoRngCore + Send>) -> Self {
        Self {
            options,
            rng,
            accounts: Vec::new(),
            by_pn: HashMap::new(),
            by_lid: HashMap::new(),
            conns: HashMap::new(),
            refs: HashMap::new(),
            groups: HashMap::new(),
            aggregates: Vec::new(),
            outputs: VecDeque::new(),
            violations: Violations::default(),
            retries_asked: 0,
            directory_version: 1,
            last_number: 0,
            last_tick: Duration::ZERO,
        }
    }

    /// The next thing to do.
    pub fn next_output(&mut self) -> Option<ServiceOutput> {
        self.outputs.pop_front()
    }

    /// The settings, changeable at any time.
    pub fn options_mut(&mut self) -> &mut ServiceOptions {
        &mut self.options
    }

    /// What clients did wrong.
    #[must_use]
    pub fn violations(&self) -> &Violations {
        &self.violations
    }

    /// How often somebody could not decrypt a message and asked its author to send it again.
    #[must_use]
    pub fn retries_asked(&self) -> u64 {
        self.retries_asked
    }

    /// Forgets the violations so far.
    pub fn clear_violations(&mut self) {
        self.violations.clear();
    }

    /// A stanza from a client connection.
    pub fn handle_node(&mut self, conn: ConnId, node: Node, now: Now) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.last_rx = now.mono;
        if state.loses(&node) {
            return;
        }
        match state.device {
            Some(device) => self.handle_device_node(conn, device, node, now),
            None => self.handle_unregistered_node(conn, &node, now),
        }
    }

    /// A stanza from an account's phone.
    pub fn handle_phone_node(&mut self, account: u32, node: Node, now: Now) {
        let device = DeviceRef { account, device: 0 };
        match &*node.tag {
            "message" => self.route_message(device, None, node, now),
            "receipt" => self.route_receipt(device, None, &node, now),
            "iq" => self.handle_iq(device, None, &node, now),
            _ => {}
        }
    }

    /// Lets deadlines pass: unanswered stanzas, delayed stanzas, logins without `active`, aggregated receipts.
    pub fn tick(&mut self, now: Now) {
        self.last_tick = now.mono;
        self.tick_connections(now);
        self.tick_queues(now);
        self.tick_receipts(now);
    }

    fn handle_device_node(&mut self, conn: ConnId, device: DeviceRef, node: Node, now: Now) {
        match &*node.tag {
            "message" => self.route_message(device, Some(conn), node, now),
            "receipt" => self.route_receipt(device, Some(conn), &node, now),
            "ack" => self.handle_ack(device, conn, &node, now),
            "iq" => self.handle_iq(device, Some(conn), &node, now),
            "ib" => self.handle_ib(device, conn, &node, now),
            "presence" | "chatstate" | "call" => self.handle_presence(device, conn, &node, now),
            _ => self.violate(conn, now, "unknown-stanza", "no such stanza exists", &node),
        }
    }

    /// A client sent bytes that are no stanzas.
    pub fn protocol_error(&mut self, conn: ConnId, detail: &str, now: Now) {
        self.violate(conn, now, "protocol", detail, &Node::new("frame"));
    }

    /// Records an objection against a connection.
    fn violate(
        &mut self,
        conn: ConnId,
        now: Now,
        rule: &'static str,
        detail: impl Into<String>,
        node: &Node,
    ) {
        let phone = self
            .conns
            .get(&conn)
            .and_then(|conn| conn.device)
            .and_then(|device| self.accounts.get(device.account as usize))
            .map(|account| account.pn.clone());
        self.violations.record(Violation {
            number: 0,
            at_ms: now.unix_ms,
            connection: conn.0,
            phone,
            rule,
            detail: detail.into(),
            stanza: node.to_string(),
        });
    }

    /// Records an objection when a client (not a phone) is behind it.
    fn violate_opt(
        &mut self,
        conn: Option<ConnId>,
        now: Now,
        rule: &'static str,
        detail: impl Into<String>,
        node: &Node,
    ) {
        if let Some(conn) = conn {
            self.violate(conn, now, rule, detail, node);
        }
    }

    /// Sends a stanza that needs no answer (IQs, acks, `ib`).
    fn send(&mut self, conn: ConnId, node: Node, now: Now) {
        self.send_shared(conn, Arc::new(node), now);
    }

    /// Answers an IQ, or drops the answer when a phone asked (phones use [`Directory`] instead).
    fn send_opt(&mut self, conn: Option<ConnId>, node: Node, now: Now) {
        if let Some(conn) = conn {
            self.send(conn, node, now);
        }
    }

    /// A number that was not used before, for ids.
    fn fresh_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn account(&self, id: u32) -> &Account {
        &self.accounts[id as usize]
    }

    fn account_mut(&mut self, id: u32) -> &mut Account {
        &mut self.accounts[id as usize]
    }
}
