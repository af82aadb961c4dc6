//! The server's side of the handshake, for the sandbox.
//!
//! Takes clients that begin with XX and, by falling back, clients that begin with IK (whatsapp-rust does when it
//! knows the server from before). What the chain says is the caller's business: a test that lies passes a wrong one.

use std::fmt;

use prost::Message as _;

use super::{
    frame::write_frame,
    handshake::{HandshakeError, about, public_key},
    symmetric::{EDGE_ROUTING_HEADER, PROTOCOL_XX, PROTOCOL_XX_FALLBACK, Symmetric, WA_HEADER},
    transport::Transport,
};
use crate::whatsapp::{
    keys::{KeyPair, PublicKey},
    proto::{HandshakeMessage, handshake_message::ServerHello},
};

/// What a client says before its first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intro<'a> {
    /// Edge-routing info, if it sent some.
    pub routing_info: Option<&'a [u8]>,
    /// Everything behind the stream header.
    pub rest: &'a [u8],
}

/// The stream does not begin as a WhatsApp client's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream does not begin with WA, protocol 6, dictionary 3")]
pub struct BadIntro;

/// Takes the routing intro and the stream header off the beginning of a connection; `None` when more bytes are
/// needed.
///
/// # Errors
///
/// [`BadIntro`] when this is no client of the protocol version we speak.
pub fn strip_intro(bytes: &[u8]) -> Result<Option<Intro<'_>>, BadIntro> {
    let Some((start, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if *start == WA_HEADER {
        return Ok(Some(Intro { routing_info: None, rest }));
    }
    if *start != EDGE_ROUTING_HEADER {
        return Err(BadIntro);
    }
    let Some(([high, middle, low], rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    let Some((info, rest)) = rest.split_at_checked(len) else {
        return Ok(None);
    };
    let Some((header, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    if *header == WA_HEADER { Ok(Some(Intro { routing_info: Some(info), rest })) } else { Err(BadIntro) }
}

/// One handshake as the server sees it.
pub struct ServerHandshake {
    static_key: KeyPair,
    chain: Vec<u8>,
    ephemeral: Option<KeyPair>,
    noise: Option<Symmetric>,
}

impl ServerHandshake {
    /// `chain`: an encoded `CertChain`, e.g. from [`super::cert::issue_chain`].
    #[must_use]
    pub fn new(static_key: KeyPair, chain: Vec<u8>) -> Self {
        Self { static_key, chain, ephemeral: None, noise: None }
    }

    /// Answers `ClientHello` with a whole `ServerHello` frame.
    ///
    /// # Errors
    ///
    /// A [`HandshakeError`] when the frame is no `ClientHello` with a usable key.
    pub fn on_client_hello(&mut self, frame: &[u8], ephemeral: KeyPair) -> Result<Vec<u8>, HandshakeError> {
        let hello = HandshakeMessage::decode(frame).map_err(HandshakeError::Malformed)?.client_hello;
        let hello = hello.ok_or(HandshakeError::Missing("ClientHello"))?;
        let client_ephemeral = public_key(hello.ephemeral(), CLIENT_EPHEMERAL)?;
        let protocol = if hello.r#static.is_some() { PROTOCOL_XX_FALLBACK } else { PROTOCOL_XX };

        let mut noise = Symmetric::new(protocol, &WA_HEADER);
        noise.mix_hash(&client_ephemeral.0);
        noise.mix_hash(&ephemeral.public.0);
        noise.mix_key(&ephemeral.private, &client_ephemeral).map_err(about(CLIENT_EPHEMERAL))?;
        let our_static = noise.encrypt(&self.static_key.public.0);
        noise.mix_key(&self.static_key.private, &client_ephemeral).map_err(about(CLIENT_EPHEMERAL))?;
        let hello = ServerHello {
            ephemeral: Some(ephemeral.public.0.to_vec()),
            r#static: Some(our_static),
            payload: Some(noise.encrypt(&self.chain)),
        };
        self.noise = Some(noise);
        self.ephemeral = Some(ephemeral);
        let hello = HandshakeMessage { server_hello: Some(hello), ..Default::default() };
        let mut out = Vec::new();
        write_frame(&mut out, &hello.encode_to_vec());
        Ok(out)
    }

    /// Takes `ClientFinish`: the encoded `ClientPayload`, the client's Noise key, the established connection.
    ///
    /// # Errors
    ///
    /// A [`HandshakeError`] when the frame is not the end of this handshake.
    pub fn on_client_finish(self, frame: &[u8]) -> Result<(Vec<u8>, PublicKey, Transport), HandshakeError> {
        let (mut noise, ephemeral) = self
            .noise
            .zip(self.ephemeral)
            .ok_or(HandshakeError::Missing("ClientHello before ClientFinish"))?;
        let finish = HandshakeMessage::decode(frame).map_err(HandshakeError::Malformed)?.client_finish;
        let finish = finish.ok_or(HandshakeError::Missing("ClientFinish"))?;

        let client_static = noise.decrypt(finish.r#static()).map_err(about(CLIENT_STATIC))?;
        let client_static = public_key(&client_static, CLIENT_STATIC)?;
        noise.mix_key(&ephemeral.private, &client_static).map_err(about(CLIENT_STATIC))?;
        let payload = noise.decrypt(finish.payload()).map_err(about("client payload"))?;
        let (read, write) = noise.split();
        Ok((payload, client_static, Transport::new(&write, &read)))
    }
}

impl fmt::Debug for ServerHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerHandshake(..)")
    }
}

const CLIENT_EPHEMERAL: &str = "client ephemeral";
const CLIENT_STATIC: &str = "client static";
