//! The states of a connection, from the first byte to the login, and the way of a frame to its stanza.
//!
//! ```text
//! Closed → ExpectServerHello → Open(ExpectLogin) → Open(LoggedIn)
//!                                      └────────→ Open(Pairing) → 515, next connection
//! ```
//!
//! Knows nothing of what stanzas mean.

use super::{Engine, EngineError};
use crate::whatsapp::{
    binary,
    ctx::Ctx,
    keys::KeyPair,
    limits::{HANDSHAKE_TIMEOUT, LOGIN_TIMEOUT},
    model::{DisconnectReason, Output, Trouble},
    noise::{
        frame::{FrameError, FrameReader},
        handshake::ExpectServerHello,
        payload,
        transport::Transport,
    },
    pairing::Credentials,
    proto::device_props::PlatformType,
    signal::SignedPreKeyRecord,
    state::StateRead,
    timers::Timer,
};

/// What the connection waits for.
#[derive(Default)]
pub(super) enum Connection {
    /// No socket, or one that is about to be closed.
    #[default]
    Closed,
    /// `ClientHello` is out.
    ExpectServerHello {
        /// Puts frames together.
        reader: FrameReader,
        /// Our half of the handshake.
        handshake: Box<ExpectServerHello>,
    },
    /// The Noise channel is up.
    Open {
        /// Puts frames together.
        reader: FrameReader,
        /// Both directions' keys.
        transport: Transport,
        /// How far the login is.
        phase: Phase,
    },
}

/// How far the login on an open channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The server must say `success`, `failure` or `pair-device`.
    ExpectLogin,
    /// The server wants a phone to accept us.
    Pairing,
    /// Everything may come.
    LoggedIn,
}

impl Connection {
    fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Closed => {}
            Self::ExpectServerHello { reader, .. } | Self::Open { reader, .. } => reader.push(bytes),
        }
    }

    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        match self {
            Self::Closed => Ok(None),
            Self::ExpectServerHello { reader, .. } | Self::Open { reader, .. } => reader.next(),
        }
    }
}

impl Engine {
    /// How far the login is; `None` without an open channel.
    pub(super) fn phase(&self) -> Option<Phase> {
        match &self.connection {
            Connection::Open { phase, .. } => Some(*phase),
            Connection::Closed | Connection::ExpectServerHello { .. } => None,
        }
    }

    pub(in crate::whatsapp) fn is_pairing(&self) -> bool {
        self.phase() == Some(Phase::Pairing)
    }

    pub(super) fn enter(&mut self, next: Phase) {
        if let Connection::Open { phase, .. } = &mut self.connection {
            *phase = next;
        }
    }

    /// [`Phase::ExpectLogin`] → [`Phase::Pairing`].
    pub(in crate::whatsapp) fn enter_pairing(&mut self) {
        self.timers.clear(Timer::Login);
        self.enter(Phase::Pairing);
    }

    /// A new socket: `ClientHello` behind the routing info of the last connection.
    pub(super) fn start_handshake(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        // A socket the caller replaced without telling us.
        if !matches!(self.connection, Connection::Closed) {
            self.close(ctx);
        }
        self.ensure_credentials(ctx)?;
        let routing_info =
            self.credentials.as_ref().and_then(|credentials| credentials.routing_info.as_deref());
        let (hello, handshake) = ExpectServerHello::start(KeyPair::generate(ctx.rng), routing_info);
        self.connection =
            Connection::ExpectServerHello { reader: FrameReader::default(), handshake: Box::new(handshake) };
        self.staged.push(Output::Transmit(hello));
        self.arm(Timer::Handshake, ctx.now.mono + HANDSHAKE_TIMEOUT);
        Ok(())
    }

    /// Bytes from the socket: every complete frame in them is handled.
    pub(super) fn read(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) -> Result<(), EngineError> {
        self.note_received();
        self.connection.push(bytes);
        loop {
            // A frame may end the connection, so the state is looked at anew each time.
            match self.connection.next_frame() {
                Ok(Some(frame)) => self.on_frame(ctx, frame)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.retry_later(Trouble::Protocol, &format!("bad framing: {error}"));
                    return Ok(());
                }
            }
        }
    }

    fn on_frame(&mut self, ctx: &mut Ctx<'_>, frame: Vec<u8>) -> Result<(), EngineError> {
        let plain = match &mut self.connection {
            Connection::Closed => return Ok(()),
            Connection::ExpectServerHello { .. } => return self.on_server_hello(ctx, &frame),
            Connection::Open { transport, .. } => transport.decrypt(frame),
        };
        let Ok(plain) = plain else {
            self.retry_later(Trouble::Protocol, "a frame could not be decrypted");
            return Ok(());
        };
        match binary::decode(&plain) {
            Ok(node) => self.on_node(ctx, &node),
            // It cannot be answered, not even refused, for want of an id. The channel itself is sound.
            Err(error) => {
                log::warn!("dropped a frame of {} bytes that is no stanza: {error}", plain.len());
                Ok(())
            }
        }
    }

    fn on_server_hello(&mut self, ctx: &mut Ctx<'_>, frame: &[u8]) -> Result<(), EngineError> {
        let payload = self.client_payload(ctx.store)?;
        let (connection, credentials) = (std::mem::take(&mut self.connection), self.credentials.as_ref());
        let (Connection::ExpectServerHello { reader, handshake }, Some(credentials)) =
            (connection, credentials)
        else {
            return Ok(());
        };
        let root = &self.config.noise_root;
        let answer = handshake.on_server_hello(frame, &credentials.noise, &payload, root, ctx.now.unix_s());
        self.timers.clear(Timer::Handshake);
        match answer {
            Ok((finish, transport)) => {
                self.connection = Connection::Open { reader, transport, phase: Phase::ExpectLogin };
                self.staged.push(Output::Transmit(finish));
                self.arm(Timer::Login, ctx.now.mono + LOGIN_TIMEOUT);
                self.start_liveness(ctx);
            }
            // Perhaps a proxy in between. Never a reason to doubt our credentials.
            Err(error) => {
                let reason = format!("the Noise handshake failed: {}", with_causes(&error));
                log::debug!("{reason}");
                self.hang_up(DisconnectReason::Retry { trouble: Trouble::Handshake, reason, extra_steps: 0 });
            }
        }
        Ok(())
    }

    /// Registration for an identity no phone has accepted, login for the others.
    fn client_payload(&self, store: &dyn StateRead) -> Result<Vec<u8>, EngineError> {
        let credentials = self.credentials.as_ref().ok_or_else(|| damaged("they are missing"))?;
        let version = self.config.version;
        if let (true, Some(jid)) = (credentials.is_paired(), &credentials.jid) {
            return payload::login(version, jid, credentials.lid_migrated)
                .ok_or_else(|| damaged("their JID is no phone number"));
        }
        let signed = self.signed_prekey(store)?;
        Ok(payload::registration(version, &self.registration(credentials, &signed)))
    }

    fn registration<'a>(
        &'a self,
        credentials: &'a Credentials,
        signed: &'a SignedPreKeyRecord,
    ) -> payload::Registration<'a> {
        payload::Registration {
            registration_id: credentials.registration_id,
            identity: &credentials.identity.public,
            signed_prekey_id: signed.id,
            signed_prekey: &signed.pair.public,
            signed_prekey_signature: &signed.signature,
            device_name: &self.config.device_name,
            platform: PlatformType::Chrome,
        }
    }

    /// The connection is gone: whoever waited on it is told. Messages keep timers of their own.
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>) {
        self.connection = Connection::Closed;
        self.clear_connection_timers();
        self.offline = super::Offline::default();
        self.iqs.lose_all();
        self.prekeys = super::PreKeyUploads::default();
        self.close_pairing();
        self.on_messages_disconnected(ctx);
    }

    pub(super) fn clear_connection_timers(&mut self) {
        for timer in [
            Timer::Handshake,
            Timer::Login,
            Timer::Ping,
            Timer::Pong,
            Timer::Qr,
            Timer::Iq,
            Timer::Offline,
            Timer::PreKeys,
            Timer::SignedPreKey,
        ] {
            self.timers.clear(timer);
        }
    }
}

fn damaged(why: &str) -> EngineError {
    EngineError::Damaged { what: "credentials", why: why.to_owned() }
}

/// An error with everything behind it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
