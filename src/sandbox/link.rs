//! The server's end of one client connection: stream header, Noise handshake, frames, stanza codec. Sans-IO.
//!
//! [`NoiseIdentity`] is what the sandbox proves itself with: an own root and a really signed chain. A test can make
//! it lie ([`ChainLie`]).

use prost::Message as _;
use rand_core::CryptoRngCore;
use serde::Deserialize;

use super::service::Login;
use crate::whatsapp::{
    binary::{Node, decode, encode},
    keys::{KeyPair, PublicKey},
    noise::{
        cert::{CertDetails, ROOT_SERIAL, encode_chain, issue},
        frame::FrameReader,
        responder::{ServerHandshake, strip_intro},
        transport::Transport,
    },
    proto::ClientPayload,
};

/// What is wrong with the certificate chain the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainLie {
    /// Nothing.
    #[default]
    None,
    /// Signed by another root.
    WrongRoot,
    /// The leaf's signature is not the intermediate's.
    ForgedLeaf,
    /// A sound chain for another server key.
    OtherKey,
    /// Valid until long ago.
    Expired,
    /// The leaf names another issuer.
    WrongSerial,
    /// No leaf.
    MissingLeaf,
    /// No intermediate.
    MissingIntermediate,
}

/// The keys with which the sandbox plays the server.
pub struct NoiseIdentity {
    root: KeyPair,
    static_key: KeyPair,
    /// Chains are valid around this time.
    issued_s: u64,
}

impl NoiseIdentity {
    /// Fresh keys.
    pub fn new(now_s: u64, rng: &mut dyn CryptoRngCore) -> Self {
        Self { root: KeyPair::generate(rng), static_key: KeyPair::generate(rng), issued_s: now_s }
    }

    /// What clients must trust.
    #[must_use]
    pub fn root(&self) -> PublicKey {
        self.root.public
    }

    /// The server's end of a new connection.
    pub fn link(&self, lie: ChainLie, rng: &mut dyn CryptoRngCore) -> Link {
        let chain = self.chain(lie, rng);
        Link {
            state: State::Intro(Vec::new(), ServerHandshake::new(self.static_key.clone(), chain)),
            frames: FrameReader::with_limit(MAX_FRAME),
            routing_info: None,
        }
    }

    fn chain(&self, lie: ChainLie, rng: &mut dyn CryptoRngCore) -> Vec<u8> {
        let other = KeyPair::generate(rng);
        let root = if lie == ChainLie::WrongRoot { &other } else { &self.root };
        let key = if lie == ChainLie::OtherKey { other.public } else { self.static_key.public };
        let (from, to) = match lie {
            ChainLie::Expired => (self.issued_s - 90 * DAY_S, self.issued_s - 30 * DAY_S),
            _ => (self.issued_s - DAY_S, self.issued_s + 3650 * DAY_S),
        };
        let details = |serial, issuer_serial, key| CertDetails {
            serial,
            issuer_serial,
            key,
            not_before: from,
            not_after: to,
        };
        let middle = KeyPair::generate(rng);
        let intermediate = issue(root, &details(1, ROOT_SERIAL, middle.public), rng);
        let issuer_serial = if lie == ChainLie::WrongSerial { 7 } else { 1 };
        let leaf_issuer = if lie == ChainLie::ForgedLeaf { &other } else { &middle };
        let leaf = issue(leaf_issuer, &details(2, issuer_serial, key), rng);
        encode_chain(
            (lie != ChainLie::MissingIntermediate).then_some(intermediate),
            (lie != ChainLie::MissingLeaf).then_some(leaf),
        )
    }
}

/// What came out of a client's bytes.
#[derive(Debug)]
pub enum LinkEvent {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// The handshake is done.
    Login(Box<Login>),
    /// A stanza.
    Node(Node),
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(String);

/// The server's end of one connection.
pub struct Link {
    state: State,
    frames: FrameReader,
    routing_info: Option<Vec<u8>>,
}

enum State {
    /// Bytes so far, until the stream header is complete.
    Intro(Vec<u8>, ServerHandshake),
    Hello(ServerHandshake),
    Finish(ServerHandshake),
    Open(Box<Transport>),
    Broken,
}

impl Link {
    /// Takes the bytes of one websocket message.
    ///
    /// # Errors
    /// [`LinkError`] when the client does not speak the protocol; the connection is of no more use.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Vec<LinkEvent>, LinkError> {
        self.push(bytes)?;
        let mut events = Vec::new();
        while let Some(frame) = self.next_frame()? {
            events.push(self.handle(frame, rng)?);
        }
        Ok(events)
    }

    /// A stanza as bytes to send; empty before the handshake is done.
    pub fn encrypt(&mut self, node: &Node) -> Vec<u8> {
        match &mut self.state {
            State::Open(transport) => transport.encrypt(&encode(node)),
            _ => Vec::new(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let State::Intro(buffer, _) = &mut self.state else {
            self.frames.push(bytes);
            return Ok(());
        };
        buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(buffer);
        match strip_intro(&buffer).map_err(broken)? {
            Some(intro) => {
                self.routing_info = intro.routing_info.map(<[u8]>::to_vec);
                self.frames.push(intro.rest);
                if let State::Intro(_, handshake) = std::mem::replace(&mut self.state, State::Broken) {
                    self.state = State::Hello(handshake);
                }
            }
            None if buffer.len() > MAX_INTRO => return Err(broken("the stream header never ends")),
            None => {
                if let State::Intro(kept, _) = &mut self.state {
                    *kept = buffer;
                }
            }
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        if matches!(self.state, State::Intro(..)) {
            return Ok(None);
        }
        self.frames.next().map_err(broken)
    }

    fn handle(&mut self, frame: Vec<u8>, rng: &mut dyn CryptoRngCore) -> Result<LinkEvent, LinkError> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Open(mut transport) => {
                let plain = transport.decrypt(frame).map_err(broken)?;
                let node = decode(&plain).map_err(broken)?;
                self.state = State::Open(transport);
                Ok(LinkEvent::Node(node))
            }
            State::Hello(mut handshake) => {
                let reply = handshake.on_client_hello(&frame, KeyPair::generate(rng)).map_err(broken)?;
                self.state = State::Finish(handshake);
                Ok(LinkEvent::Reply(reply))
            }
            State::Finish(handshake) => {
                let (payload, noise_static, transport) =
                    handshake.on_client_finish(&frame).map_err(broken)?;
                let payload = ClientPayload::decode(&*payload).map_err(broken)?;
                self.state = State::Open(Box::new(transport));
                let routing_info = self.routing_info.take();
                Ok(LinkEvent::Login(Box::new(Login { payload, noise_static, routing_info })))
            }
            State::Intro(..) | State::Broken => Err(broken("nothing was expected")),
        }
    }
}

fn broken(error: impl std::fmt::Display) -> LinkError {
    LinkError(error.to_string())
}

const DAY_S: u64 = 24 * 60 * 60;

/// Clients send nothing near this.
const MAX_FRAME: usize = 4 << 20;

/// Header and routing info are a few dozen bytes.
const MAX_INTRO: usize = 4096;
