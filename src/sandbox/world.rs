//! Service, phones and client connections joined in memory: sans-IO, one thread, virtual clock, seeded randomness.
//!
//! A test owns the clock and the wires. It opens a connection, carries bytes both ways, and asks phones to act:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use rand_core::OsRng;
//! # use whatsapp_worker::{sandbox::world::{NewPhone, World, WorldOutput}, whatsapp::ctx::Now};
//! let mut now = Now { mono: Duration::ZERO, unix_ms: 1_780_000_000_000 };
//! let mut world = World::new(Box::new(OsRng), now);
//! let anna = world.add_phone(NewPhone::number("4915100000001"), now).unwrap();
//! let connection = world.open(now);                    // a client's websocket is open
//! # let (bytes_from_engine, qr_from_engine) = (Vec::new(), String::new());
//! world.receive(connection, &bytes_from_engine, now);  // Output::Transmit of the engine
//! while let Some(output) = world.next_output() {
//!     match output {
//!         WorldOutput::Transmit(_connection, _bytes) => { /* engine.handle_data(ctx, &bytes) */ }
//!         WorldOutput::Close(_connection) => { /* engine.handle_closed(ctx) */ }
//!     }
//! }
//! world.scan(&anna, &qr_from_engine, now).unwrap();    // Event::Qr of the engine
//! world.send_text(&anna, "4915100000002", "hello", now).unwrap();
//! now.mono += Duration::from_secs(1);
//! world.tick(now);                                     // lets deadlines of the service pass
//! assert_eq!(world.violations().count(), 0);
//! ```

use std::{
    collections::{HashMap, VecDeque},
    fmt,
};

use rand_core::CryptoRngCore;
use serde::Serialize;

use super::{
    link::{ChainLie, Link, LinkEvent, NoiseIdentity},
    phone::{LinkLie, Phone, PhoneCtx, Phones},
    rng::StreamRng,
    service::{DeviceRef, Fault, MemberChange, Service, ServiceOptions, ServiceOutput},
    violations::Violation,
};
use crate::whatsapp::{ctx::Now, jid::Jid, keys::PublicKey};

/// A client connection, numbered from 1 and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A phone to be made.
#[derive(Debug, Clone)]
pub struct NewPhone {
    /// Phone number, digits only.
    pub number: String,
    /// Push name.
    pub name: String,
    /// Whether 1:1 chats of this account are LID-addressed (else PN-addressed).
    pub lid_migrated: bool,
}

impl NewPhone {
    /// A migrated account, named after its number.
    #[must_use]
    pub fn number(number: &str) -> Self {
        Self { number: number.to_owned(), name: format!("Phone {number}"), lid_migrated: true }
    }

    /// The same, but its 1:1 chats are still PN-addressed.
    #[must_use]
    pub fn not_migrated(mut self) -> Self {
        self.lid_migrated = false;
        self
    }
}

/// What the test has to carry to the clients.
#[derive(Debug)]
pub enum WorldOutput {
    /// Bytes of one binary websocket message.
    Transmit(ConnId, Vec<u8>),
    /// The service closes the connection.
    Close(ConnId),
}

/// A message as a phone has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhoneMessage {
    /// Message id.
    pub id: String,
    /// Peer or group, as text JID without device, in the namespace the stanza used.
    pub chat: String,
    /// Author, text JID with device.
    pub sender: String,
    /// Sent by this account.
    pub from_me: bool,
    /// Text; empty for other kinds.
    pub text: String,
    /// Text of the message this one quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quoted: Option<String>,
    /// Unix seconds.
    pub timestamp: u64,
    /// For outgoing messages: `sent`, `delivered`, `read`.
    pub status: &'static str,
}

/// Why the sandbox cannot do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// No phone with this number.
    #[error("there is no phone {0}")]
    NoSuchPhone(String),
    /// A field has a value that cannot be used.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// Not possible now.
    #[error("{0}")]
    Conflict(String),
}

/// The simulated WhatsApp in memory.
pub struct World {
    rng: Box<dyn CryptoRngCore + Send>,
    identity: NoiseIdentity,
    lie: ChainLie,
    service: Service,
    phones: Phones,
    links: HashMap<ConnId, Link>,
    last_conn: u64,
    outputs: VecDeque<WorldOutput>,
}

impl World {
    /// An empty world: no accounts, no connections. `rng` feeds everything that is random.
    #[must_use]
    pub fn new(mut rng: Box<dyn CryptoRngCore + Send>, now: Now) -> Self {
        let identity = NoiseIdentity::new(now.unix_s(), &mut *rng);
        let service_rng = Box::new(StreamRng::fork(&mut *rng));
        Self {
            rng,
            identity,
            lie: ChainLie::None,
            service: Service::new(ServiceOptions::default(), service_rng),
            phones: Phones::default(),
            links: HashMap::new(),
            last_conn: 0,
            outputs: VecDeque::new(),
        }
    }

    /// What clients must trust: `EngineConfig::noise_root`.
    #[must_use]
    pub fn noise_root(&self) -> PublicKey {
        self.identity.root()
    }

    /// What is wrong with the certificates of connections opened from now on.
    pub fn lie(&mut self, lie: ChainLie) {
        self.lie = lie;
    }

    /// What is wrong with the signatures this phone makes when it links a device from now on.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`].
    pub fn lie_when_linking(&mut self, phone: &str, lie: LinkLie) -> Result<(), SandboxError> {
        let phone = self.phones.find_mut(phone).ok_or_else(|| SandboxError::NoSuchPhone(phone.to_owned()))?;
        phone.lie = lie;
        Ok(())
    }

    /// The service itself: options, faults, groups, views. Call [`World::tick`] after changing something.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// Makes an account with its phone; gives back its number.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad number, [`SandboxError::Conflict`] when it is taken.
    pub fn add_phone(&mut self, phone: NewPhone, now: Now) -> Result<String, SandboxError> {
        let number = phone.number.clone();
        let mut ctx = PhoneCtx { directory: &mut self.service, rng: &mut *self.rng, now };
        self.phones.add(&phone, &mut ctx)?;
        self.run(now);
        Ok(number)
    }

    /// A client's websocket is open.
    pub fn open(&mut self, _now: Now) -> ConnId {
        self.last_conn += 1;
        let connection = ConnId(self.last_conn);
        self.links.insert(connection, self.identity.link(self.lie, &mut *self.rng));
        connection
    }

    /// Bytes of one binary websocket message from a client.
    pub fn receive(&mut self, connection: ConnId, bytes: &[u8], now: Now) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        match link.receive(bytes, &mut *self.rng) {
            Ok(events) => {
                for event in events {
                    match event {
                        LinkEvent::Reply(bytes) => {
                            self.outputs.push_back(WorldOutput::Transmit(connection, bytes));
                        }
                        LinkEvent::Login(login) => self.service.connected(connection, *login, now),
                        LinkEvent::Node(node) => self.service.handle_node(connection, node, now),
                    }
                }
            }
            Err(_) => {
                self.service.disconnected(connection);
                self.links.remove(&connection);
                self.outputs.push_back(WorldOutput::Close(connection));
            }
        }
        self.run(now);
    }

    /// The client's socket is gone. What was not answered is delivered again at the next login.
    pub fn close(&mut self, connection: ConnId, now: Now) {
        self.links.remove(&connection);
        self.service.disconnected(connection);
        self.run(now);
    }

    /// Lets the deadlines of the service pass; call it whenever the clock moved.
    pub fn tick(&mut self, now: Now) {
        self.service.tick(now);
        self.run(now);
    }

    /// The next thing to carry.
    pub fn next_output(&mut self) -> Option<WorldOutput> {
        self.outputs.pop_front()
    }

    /// A phone scans the QR text a client shows.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when the text is not a QR of a client that waits here.
    pub fn scan(&mut self, phone: &str, qr: &str, now: Now) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, ctx| phone.scan(qr, ctx))
    }

    /// A pairing code is typed on a phone.
    ///
    /// # Errors
    /// [`SandboxError::Conflict`] when no client asked for one, [`SandboxError::Invalid`] when it is malformed.
    pub fn pair_code(&mut self, phone: &str, code: &str, now: Now) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, ctx| phone.type_code(code, ctx))
    }

    /// A phone sends a text; `to` is a phone number or a JID (user or group). Gives back the message id.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when the recipient does not exist.
    pub fn send_text(&mut self, phone: &str, to: &str, text: &str, now: Now) -> Result<String, SandboxError> {
        self.with_phone(phone, now, |phone, ctx| phone.send_text(to, text, ctx))
    }

    /// A phone marks everything it received in this chat (number or JID) as read.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`], [`SandboxError::Invalid`].
    pub fn mark_read(&mut self, phone: &str, chat: &str, now: Now) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, ctx| phone.mark_read(chat, ctx))
    }

    /// A phone loses its sessions, as after restoring an old backup: retry receipts follow.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`].
    pub fn forget_sessions(&mut self, phone: &str, now: Now) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, _| {
            phone.forget_sessions();
            Ok(())
        })
    }

    /// An account that was not migrated is now: its 1:1 chats are LID-addressed, its companions are told.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`].
    pub fn migrate(&mut self, phone: &str, now: Now) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, ctx| {
            phone.migrate(ctx);
            Ok(())
        })
    }

    /// The app on a phone is installed anew: new identity, companions unlinked, contacts told.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`].
    pub fn reinstall(&mut self, phone: &str, now: Now) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, ctx| {
            phone.reinstall(ctx);
            Ok(())
        })
    }

    /// A phone asks a companion for app-state keys; `None` stands for the one it shared itself.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`].
    pub fn ask_app_state_keys(
        &mut self,
        phone: &str,
        device: u16,
        ids: &[Option<Vec<u8>>],
        now: Now,
    ) -> Result<(), SandboxError> {
        self.with_phone(phone, now, |phone, ctx| {
            phone.ask_app_state_keys(device, ids, ctx);
            Ok(())
        })
    }

    /// A phone, to look at.
    #[must_use]
    pub fn phone(&self, number: &str) -> Option<&Phone> {
        self.phones.find(number)
    }

    /// Everything this phone sent and received, oldest first.
    #[must_use]
    pub fn messages(&self, phone: &str) -> &[PhoneMessage] {
        self.phones.find(phone).map(Phone::messages).unwrap_or_default()
    }

    /// Makes a group in the namespace of its creator; gives back its JID.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`], [`SandboxError::Invalid`].
    pub fn create_group(
        &mut self,
        creator: &str,
        subject: &str,
        participants: &[&str],
        now: Now,
    ) -> Result<String, SandboxError> {
        let account = self.account(creator)?;
        let lid = self.service.view(account).lid_migrated;
        let members: Vec<Jid> = participants.iter().map(|number| Jid::pn((*number).to_owned())).collect();
        let device = DeviceRef { account, device: 0 };
        let group = self.service.create_group(device, subject, &members, lid, now)?;
        self.run(now);
        Ok(group.to_string())
    }

    /// Changes who is in a group, in the name of the phone `actor`.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`], [`SandboxError::Invalid`].
    pub fn change_member(
        &mut self,
        actor: &str,
        group: &str,
        change: MemberChange,
        member: &str,
        now: Now,
    ) -> Result<(), SandboxError> {
        let actor = DeviceRef { account: self.account(actor)?, device: 0 };
        let group: Jid = group.parse().map_err(|error: crate::whatsapp::jid::JidError| {
            SandboxError::Invalid { field: "group", reason: error.to_string() }
        })?;
        self.service.change_member(actor, &group, change, &Jid::pn(member.to_owned()), now)?;
        self.run(now);
        Ok(())
    }

    /// Brings a fault over a linked device (1 is the first that was linked).
    ///
    /// # Errors
    /// [`SandboxError`] when there is no such device, or it is not connected and the fault needs a connection.
    pub fn fault(&mut self, phone: &str, device: u16, fault: &Fault, now: Now) -> Result<(), SandboxError> {
        let account = self.account(phone)?;
        self.service.inject(account, device, fault, now)?;
        self.run(now);
        Ok(())
    }

    /// What clients did wrong so far.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.service.violations().iter()
    }

    fn account(&self, phone: &str) -> Result<u32, SandboxError> {
        self.service.account_of_number(phone).ok_or_else(|| SandboxError::NoSuchPhone(phone.to_owned()))
    }

    fn with_phone<T>(
        &mut self,
        phone: &str,
        now: Now,
        act: impl FnOnce(&mut Phone, &mut PhoneCtx<'_>) -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        let account = self.account(phone)?;
        let mut ctx = PhoneCtx { directory: &mut self.service, rng: &mut *self.rng, now };
        let phone =
            self.phones.get_mut(account).ok_or_else(|| SandboxError::NoSuchPhone(phone.to_owned()))?;
        let result = act(phone, &mut ctx);
        self.run(now);
        result
    }

    /// Carries stanzas between service, phones and links until nothing moves.
    fn run(&mut self, now: Now) {
        while let Some(output) = self.service.next_output() {
            match output {
                ServiceOutput::Node(connection, node) => {
                    let bytes = self.links.get_mut(&connection).map(|link| link.encrypt(&node));
                    if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                        self.outputs.push_back(WorldOutput::Transmit(connection, bytes));
                    }
                }
                ServiceOutput::Phone(account, node) => {
                    let mut ctx = PhoneCtx { directory: &mut self.service, rng: &mut *self.rng, now };
                    if let Some(phone) = self.phones.get_mut(account) {
                        phone.handle(&node, &mut ctx);
                    }
                }
                ServiceOutput::Close(connection) | ServiceOutput::Cut(connection) => {
                    self.links.remove(&connection);
                    self.outputs.push_back(WorldOutput::Close(connection));
                }
            }
        }
    }
}
