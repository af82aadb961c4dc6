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

use std::{collections::VecDeque, fmt};

use rand_core::CryptoRngCore;
use serde::Serialize;

use super::violations::{Violation, Violations};
use crate::whatsapp::{
    ctx::Now,
    keys::{KeyPair, PublicKey},
};

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
    root: KeyPair,
    outputs: VecDeque<WorldOutput>,
    violations: Violations,
}

impl World {
    /// An empty world: no accounts, no connections.
    #[must_use]
    pub fn new(mut rng: Box<dyn CryptoRngCore + Send>, _now: Now) -> Self {
        let root = KeyPair::generate(&mut *rng);
        Self { rng, root, outputs: VecDeque::new(), violations: Violations::default() }
    }

    /// What clients must trust: `EngineConfig::noise_root`.
    #[must_use]
    pub fn noise_root(&self) -> PublicKey {
        self.root.public
    }

    /// Makes an account with its phone; gives back its number.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad number, [`SandboxError::Conflict`] when it is taken.
    pub fn add_phone(&mut self, phone: NewPhone, _now: Now) -> Result<String, SandboxError> {
        let _ = &mut self.rng;
        Ok(phone.number)
    }

    /// A client's websocket is open.
    pub fn open(&mut self, _now: Now) -> ConnId {
        ConnId(0)
    }

    /// Bytes of one binary websocket message from a client.
    pub fn receive(&mut self, _connection: ConnId, _bytes: &[u8], _now: Now) {}

    /// The client's socket is gone. What was not answered is delivered again at the next login.
    pub fn close(&mut self, _connection: ConnId, _now: Now) {}

    /// Lets the deadlines of the service pass; call it whenever the clock moved.
    pub fn tick(&mut self, _now: Now) {}

    /// The next thing to carry.
    pub fn next_output(&mut self) -> Option<WorldOutput> {
        self.outputs.pop_front()
    }

    /// A phone scans the QR text a client shows.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when the text is not a QR of a client that waits here.
    pub fn scan(&mut self, _phone: &str, _qr: &str, _now: Now) -> Result<(), SandboxError> {
        Ok(())
    }

    /// A pairing code is typed on a phone.
    ///
    /// # Errors
    /// [`SandboxError::Conflict`] when no client asked for one, [`SandboxError::Invalid`] when the code is wrong.
    pub fn pair_code(&mut self, _phone: &str, _code: &str, _now: Now) -> Result<(), SandboxError> {
        Ok(())
    }

    /// A phone sends a text; `to` is a phone number or a JID (user or group). Gives back the message id.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when the recipient does not exist.
    pub fn send_text(
        &mut self,
        _phone: &str,
        _to: &str,
        _text: &str,
        _now: Now,
    ) -> Result<String, SandboxError> {
        Ok(String::new())
    }

    /// A phone marks everything it received in this chat as read.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`], [`SandboxError::Invalid`].
    pub fn mark_read(&mut self, _phone: &str, _chat: &str, _now: Now) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Everything this phone sent and received, oldest first.
    #[must_use]
    pub fn messages(&self, _phone: &str) -> &[PhoneMessage] {
        &[]
    }

    /// Makes a group; gives back its JID.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`].
    pub fn create_group(
        &mut self,
        _creator: &str,
        _subject: &str,
        _participants: &[&str],
        _now: Now,
    ) -> Result<String, SandboxError> {
        Ok(String::new())
    }

    /// What clients did wrong so far.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter()
    }
}
