//! The state machine of one account.
//!
//! The session thread calls `handle_*` with bytes, commands, time and randomness, then drains
//! [`Engine::next_output`] and obeys the outputs in order. It calls [`Engine::handle_timeout`] when
//! [`Engine::next_deadline`] has passed and [`Engine::handle_persisted`] when a batch is durable.
//!
//! This folder owns the connection; read on in `connection` (its states) and `dispatch` (who gets which stanza).
//! Pairing, IQs, messages and groups are in the folders of those names; each adds an `impl Engine` of its own.
//! Knows nothing of sockets, threads and files.
//!
//! Everything one call writes becomes one batch, and the batch goes out in front of everything else the call puts out.
//! So whatever a frame, an event or a reply depends on is durable before it happens.

use std::{collections::VecDeque, time::Duration};

use super::{
    binary::{self, Node},
    contacts::Contacts,
    ctx::Ctx,
    groups::Groups,
    iq::{IqKind, PendingIqs, PreKeyUploads},
    keys::PublicKey,
    limits::QUEUE_KEPT,
    messages::Messages,
    model::{Command, CommandId, DisconnectReason, Event, Output, Reply, Trouble},
    pairing::{Credentials, Pairing},
    state::{ReadError, StateRead, StateWriter, Write},
    tally::Tally,
    timers::{Timer, Timers},
};

mod ack;
mod command;
mod connection;
mod dispatch;
mod ib;
mod liveness;
mod login;
mod notification;
mod offline;
mod stream_error;

use connection::{Connection, Phase};
use offline::Offline;

pub(in crate::whatsapp) use dispatch::iq_result;

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
    #[error("{0}")]
    Read(#[from] ReadError),
    /// A stored record cannot be understood.
    #[error("damaged {what} in the local store: {why}")]
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
    /// Outputs of the current call, behind the batch it has yet to close.
    staged: Vec<Output>,
    connection: Connection,
    offline: Offline,
    /// Ids of stanzas the server says we never answered.
    owed_acks: VecDeque<String>,
    pub(in crate::whatsapp) state: StateWriter,
    pub(in crate::whatsapp) credentials: Option<Credentials>,
    pub(in crate::whatsapp) timers: Timers,
    pub(in crate::whatsapp) iqs: PendingIqs,
    pub(in crate::whatsapp) prekeys: PreKeyUploads,
    pub(in crate::whatsapp) pairing: Pairing,
    pub(in crate::whatsapp) messages: Messages,
    pub(in crate::whatsapp) groups: Groups,
    pub(in crate::whatsapp) contacts: Contacts,
    pub(in crate::whatsapp) tally: Tally,
}

/// Called by the session thread.
impl Engine {
    /// An engine that is not connected. Durable state is read on first use.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            outputs: VecDeque::new(),
            staged: Vec::new(),
            connection: Connection::Closed,
            offline: Offline::default(),
            owed_acks: VecDeque::new(),
            state: StateWriter::default(),
            credentials: None,
            timers: Timers::default(),
            iqs: PendingIqs::default(),
            prekeys: PreKeyUploads::default(),
            pairing: Pairing::default(),
            messages: Messages::default(),
            groups: Groups::default(),
            contacts: Contacts::default(),
            tally: Tally::default(),
        }
    }

    /// Whether stored credentials can log in (else a connect starts pairing).
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read; damaged credentials are an error too, never a fresh identity.
    pub fn is_paired(store: &dyn StateRead) -> Result<bool, ReadError> {
        match Self::stored_credentials(&StateWriter::default(), store) {
            Ok(credentials) => Ok(credentials.is_some_and(|credentials| credentials.is_paired())),
            Err(EngineError::Read(error)) => Err(error),
            Err(error @ EngineError::Damaged { .. }) => Err(ReadError(error.to_string())),
        }
    }

    /// The websocket is open: starts the Noise handshake.
    pub fn handle_connected(&mut self, ctx: &mut Ctx<'_>) {
        self.run(ctx, Self::start_handshake);
    }

    /// Bytes of one binary websocket message; frames may start and end anywhere.
    pub fn handle_data(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) {
        self.run(ctx, |engine, ctx| engine.read(ctx, bytes));
    }

    /// The socket is gone. In-flight sends stay queued durably or fail; frames for the old socket are dropped. A
    /// `Disconnect` that was not obeyed yet stays: it says what comes next.
    pub fn handle_closed(&mut self, ctx: &mut Ctx<'_>) {
        self.run(ctx, |engine, ctx| {
            engine.close(ctx);
            Ok(())
        });
        self.outputs.retain(|output| !matches!(output, Output::Transmit(_)));
    }

    /// A caller asks for something; the answer comes as [`Output::Reply`] with this id.
    pub fn handle_command(&mut self, ctx: &mut Ctx<'_>, id: CommandId, command: Command) {
        self.run(ctx, |engine, ctx| engine.on_command(ctx, id, command));
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx<'_>) {
        self.run(ctx, |engine, ctx| {
            while let Some(timer) = engine.timers.expired(ctx.now.mono) {
                engine.on_timer(ctx, timer)?;
            }
            Ok(())
        });
    }

    /// Every batch up to `number` is durable.
    pub fn handle_persisted(&mut self, number: u64) {
        self.state.persisted(number);
    }

    /// Last call before a clean stop: writes exact ratchet counters, so that no reservation is skipped next time.
    pub fn handle_shutdown(&mut self, ctx: &mut Ctx<'_>) {
        self.run(ctx, Self::on_messages_shutdown);
    }

    /// The next thing to do, in order.
    pub fn next_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() && self.outputs.capacity() > QUEUE_KEPT {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// What was counted since the last time; `None` when nothing was.
    pub fn take_tally(&mut self) -> Option<Tally> {
        (!self.tally.is_empty()).then(|| std::mem::take(&mut self.tally))
    }

    /// Messages that are accepted and not answered by the server.
    #[must_use]
    pub fn pending_sends(&self) -> usize {
        self.messages.pending()
    }

    /// One-time prekeys the server has left, as far as we know; `None` before it said so.
    #[must_use]
    pub fn prekeys_left(&self) -> Option<u32> {
        self.prekeys.left()
    }

    /// When [`Engine::handle_timeout`] wants to be called, in [`super::ctx::Now::mono`] time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }
}

/// Called by the folders of the protocol.
impl Engine {
    /// Closes the current batch of writes as a `Persist` output, in front of everything staged by this call.
    /// Happens by itself at the end of each call; asked for when writes must not share a batch with later ones.
    pub(in crate::whatsapp) fn flush_state(&mut self) {
        if let Some(batch) = self.state.take_batch() {
            self.outputs.push_back(Output::Persist(batch));
        }
    }

    /// Encrypts a stanza for the current connection and queues it behind everything written so far.
    /// Dropped silently when there is no connection: whoever waits for an answer is told by `handle_closed`.
    pub(in crate::whatsapp) fn send_node(&mut self, node: &Node) {
        if let Connection::Open { transport, .. } = &mut self.connection {
            log::debug!("send {}", node.tag);
            let frame = transport.encrypt(&binary::encode(node));
            self.staged.push(Output::Transmit(frame));
        }
    }

    /// Sends an IQ (without `id`; one is added) and remembers what its answer is for. Without a connection the
    /// question is lost, which its handler learns when the current call ends.
    pub(in crate::whatsapp) fn send_iq(&mut self, ctx: &mut Ctx<'_>, iq: Node, kind: IqKind) {
        if !matches!(self.connection, Connection::Open { .. }) {
            self.iqs.add_lost(kind);
            return;
        }
        let id = self.iqs.add(ctx.now.mono, ctx.rng, kind);
        self.arm_iq_timer();
        self.send_node(&iq.attr("id", id));
    }

    /// Tells the outside something that need not survive a crash.
    pub(in crate::whatsapp) fn emit(&mut self, event: Event) {
        self.staged.push(Output::Event(event));
    }

    /// Tells the outside something that must survive: it becomes durable with the current batch.
    pub(in crate::whatsapp) fn emit_durable(&mut self, event: Event) {
        self.state.push(Write::Event(Box::new(event)));
    }

    /// Answers a command.
    pub(in crate::whatsapp) fn reply(&mut self, id: CommandId, reply: Reply) {
        self.staged.push(Output::Reply(id, reply));
    }

    /// Asks the session thread to close the socket. Nothing is read from or sent to this connection any more.
    pub(in crate::whatsapp) fn disconnect(&mut self, reason: DisconnectReason) {
        if !matches!(self.connection, Connection::Closed) {
            self.hang_up(reason);
        }
    }

    /// Whether we are logged in on a live connection.
    pub(in crate::whatsapp) fn is_logged_in(&self) -> bool {
        self.phase() == Some(Phase::LoggedIn)
    }

    /// Arms a timer (replaces the earlier deadline of the same timer).
    pub(in crate::whatsapp) fn arm(&mut self, timer: Timer, at: Duration) {
        self.timers.set(timer, at);
    }
}

impl Engine {
    /// One call from outside: does it, gives lost questions their outcome, and puts the outputs in order.
    fn run(
        &mut self,
        ctx: &mut Ctx<'_>,
        call: impl FnOnce(&mut Self, &mut Ctx<'_>) -> Result<(), EngineError>,
    ) {
        let done = call(self, ctx).and_then(|()| self.settle_lost_iqs(ctx));
        if let Err(error) = done {
            self.fail(ctx, &error);
        }
        self.flush_state();
        self.outputs.extend(self.staged.drain(..));
        if self.staged.capacity() > QUEUE_KEPT {
            self.staged = Vec::new();
        }
    }

    /// Our own store failed in the middle of a call. What the call did so far is undone by forgetting everything that
    /// is not durable: the next connection starts from the store.
    fn fail(&mut self, ctx: &mut Ctx<'_>, error: &EngineError) {
        log::error!("the session stops: {error}");
        // What was about to leave may rest on the writes just dropped.
        self.staged.retain(|output| matches!(output, Output::Reply(..) | Output::Disconnect(_)));
        self.hang_up(DisconnectReason::Stop { reason: error.to_string() });
        self.close(ctx);
        // Commands that wait get their answers; nothing else of it is kept.
        if let Err(error) = self.settle_lost_iqs(ctx) {
            log::debug!("and again: {error}");
        }
        self.staged.retain(|output| matches!(output, Output::Reply(..) | Output::Disconnect(_)));
        self.state.discard();
        self.forget();
    }

    fn hang_up(&mut self, reason: DisconnectReason) {
        self.connection = Connection::Closed;
        self.clear_connection_timers();
        self.staged.push(Output::Disconnect(reason));
    }

    /// Drops everything that is known from the store.
    fn forget(&mut self) {
        self.credentials = None;
        self.messages = Messages::default();
        self.groups = Groups::default();
        self.contacts = Contacts::default();
    }

    fn on_timer(&mut self, ctx: &mut Ctx<'_>, timer: Timer) -> Result<(), EngineError> {
        match timer {
            Timer::Handshake => self.retry_later(Trouble::Handshake, "no answer to the handshake"),
            Timer::Login => self.retry_later(Trouble::Handshake, "no answer to the login"),
            Timer::Ping => self.on_ping_timer(ctx),
            Timer::Pong => self.retry_later(Trouble::Silence, "the connection is dead: no answer to a ping"),
            Timer::Qr => self.on_qr_timer(ctx),
            Timer::Iq => self.on_iq_timer(ctx)?,
            Timer::Offline => self.on_offline_timer(ctx)?,
            Timer::PreKeys => self.on_prekey_timer(ctx)?,
            Timer::SignedPreKey => self.check_signed_prekey(ctx)?,
            Timer::MessageAck | Timer::Receipts | Timer::Placeholder | Timer::CacheTrim => {
                self.on_message_timer(ctx, timer)?
            }
        }
        Ok(())
    }

    /// Network-level trouble: the session thread connects again with back-off.
    fn retry_later(&mut self, trouble: Trouble, reason: &str) {
        log::debug!("closing the connection: {reason}");
        self.disconnect(DisconnectReason::Retry { trouble, reason: reason.to_owned(), extra_steps: 0 });
    }
}

#[cfg(test)]
mod tests;
