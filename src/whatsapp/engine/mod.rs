//! The state machine of one account.
//!
//! The session thread calls `handle_*` with bytes, commands, time and randomness, then drains
//! [`Engine::next_output`] and obeys the outputs in order. It calls [`Engine::handle_timeout`] when
//! [`Engine::next_deadline`] has passed and [`Engine::handle_persisted`] when a batch is durable.
//!
//! This folder owns the connection: handshake, login, liveness, stanza dispatch. Pairing, IQs, messages and groups
//! are in the folders of those names; each adds an `impl Engine` of its own.

use std::{collections::VecDeque, time::Duration};

use super::{
    binary::Node,
    contacts::Contacts,
    ctx::Ctx,
    groups::Groups,
    iq::{IqKind, PendingIqs},
    keys::PublicKey,
    messages::Messages,
    model::{Command, CommandId, DisconnectReason, Event, Output, Reply},
    pairing::{Credentials, Pairing},
    state::{ReadError, StateRead, StateWriter, Write},
    timers::{Timer, Timers},
};

/// What does not change during the life of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Root of the Noise certificate chain: WhatsApp's own, or the sandbox's.
    pub noise_root: PublicKey,
    /// Client version announced to the server, e.g. `[2, 3000, 1045649367]`.
    pub version: [u32; 3],
    /// What the phone shows under "Linked devices". Read by the server at pairing only.
    pub device_name: String,
}

/// Why the engine cannot go on with this connection. Everything a peer can cause is handled before it gets here.
#[derive(Debug, thiserror::Error)]
pub(in crate::whatsapp) enum EngineError {
    /// The durable state cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored record cannot be understood.
    #[error("stored {what} is damaged: {why}")]
    Damaged {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// One account's protocol state. Owned by one thread; holds no lock, socket or clock.
pub struct Engine {
    pub(in crate::whatsapp) config: EngineConfig,
    pub(in crate::whatsapp) outputs: VecDeque<Output>,
    pub(in crate::whatsapp) state: StateWriter,
    pub(in crate::whatsapp) credentials: Option<Credentials>,
    pub(in crate::whatsapp) timers: Timers,
    pub(in crate::whatsapp) iqs: PendingIqs,
    pub(in crate::whatsapp) pairing: Pairing,
    pub(in crate::whatsapp) messages: Messages,
    pub(in crate::whatsapp) groups: Groups,
    pub(in crate::whatsapp) contacts: Contacts,
}

impl Engine {
    /// An engine that is not connected. Durable state is read on first use.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            outputs: VecDeque::new(),
            state: StateWriter::default(),
            credentials: None,
            timers: Timers::default(),
            iqs: PendingIqs::default(),
            pairing: Pairing::default(),
            messages: Messages::default(),
            groups: Groups::default(),
            contacts: Contacts::default(),
        }
    }

    /// Whether stored credentials can log in (else a connect starts pairing).
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read; damaged credentials are an error too, never a fresh identity.
    pub fn is_paired(store: &dyn StateRead) -> Result<bool, ReadError> {
        let _ = store;
        Ok(false)
    }

    /// The websocket is open: starts the Noise handshake.
    pub fn handle_connected(&mut self, ctx: &mut Ctx<'_>) {
        let _ = ctx;
    }

    /// Bytes of one binary websocket message; frames may start and end anywhere.
    pub fn handle_data(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) {
        let _ = (ctx, bytes);
    }

    /// The socket is gone. In-flight sends stay queued durably or fail; outputs for the old socket are dropped,
    /// `Persist` outputs are kept.
    pub fn handle_closed(&mut self, ctx: &mut Ctx<'_>) {
        let _ = ctx;
    }

    /// A caller asks for something; the answer comes as [`Output::Reply`] with this id.
    pub fn handle_command(&mut self, ctx: &mut Ctx<'_>, id: CommandId, command: Command) {
        let _ = (ctx, id, command);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let _ = ctx;
    }

    /// Every batch up to `number` is durable.
    pub fn handle_persisted(&mut self, number: u64) {
        self.state.persisted(number);
    }

    /// Last call before a clean stop: writes exact ratchet counters, so that no reservation is skipped next time.
    pub fn handle_shutdown(&mut self, ctx: &mut Ctx<'_>) {
        let _ = ctx;
    }

    /// The next thing to do, in order.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Engine::handle_timeout`] wants to be called, in [`super::ctx::Now::mono`] time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Closes the current batch of writes as a `Persist` output. Called before every output that depends on it.
    pub(in crate::whatsapp) fn flush_state(&mut self) {
        if let Some(batch) = self.state.take_batch() {
            self.outputs.push_back(Output::Persist(batch));
        }
    }

    /// Encrypts a stanza for the current connection and queues it behind everything written so far.
    /// Dropped silently when there is no connection: whoever waits for an answer is told by `handle_closed`.
    pub(in crate::whatsapp) fn send_node(&mut self, node: &Node) {
        let _ = node;
    }

    /// Sends an IQ (without `id`; one is added) and remembers what its answer is for.
    pub(in crate::whatsapp) fn send_iq(&mut self, ctx: &mut Ctx<'_>, iq: Node, kind: IqKind) {
        let _ = (ctx, iq, kind);
    }

    /// Tells the outside something that need not survive a crash.
    pub(in crate::whatsapp) fn emit(&mut self, event: Event) {
        self.flush_state();
        self.outputs.push_back(Output::Event(event));
    }

    /// Tells the outside something that must survive: it becomes durable with the current batch.
    pub(in crate::whatsapp) fn emit_durable(&mut self, event: Event) {
        self.state.push(Write::Event(Box::new(event)));
    }

    /// Answers a command.
    pub(in crate::whatsapp) fn reply(&mut self, id: CommandId, reply: Reply) {
        self.flush_state();
        self.outputs.push_back(Output::Reply(id, reply));
    }

    /// Asks the session thread to close the socket.
    pub(in crate::whatsapp) fn disconnect(&mut self, reason: DisconnectReason) {
        self.flush_state();
        self.outputs.push_back(Output::Disconnect(reason));
    }

    /// Whether we are logged in on a live connection.
    pub(in crate::whatsapp) fn is_logged_in(&self) -> bool {
        false
    }

    /// Arms a timer (replaces the earlier deadline of the same timer).
    pub(in crate::whatsapp) fn arm(&mut self, timer: Timer, at: Duration) {
        self.timers.set(timer, at);
    }
}
