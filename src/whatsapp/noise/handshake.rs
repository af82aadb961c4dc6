//! Our side of the Noise XX handshake.
//!
//! ```text
//! [ED 00 01 len3 routing] WA 06 03  frame(ClientHello{e})          →
//!                                   ← frame(ServerHello{e, s, certificate chain})
//! frame(ClientFinish{s, ClientPayload})                            →
//! ```
//!
//! Spec: Noise rev 34 §7.5 (XX). Seen: whatsmeow `handshake.go`, `socket/noisehandshake.go` @33cfac51; Baileys 7
//! `Utils/noise-handler.js` (routing intro).

use std::fmt;

use prost::Message as _;

use super::{
    cert::{self, CertError},
    frame::write_frame,
    symmetric::{EDGE_ROUTING_HEADER, PROTOCOL_XX, Symmetric, SymmetricError, WA_HEADER},
    transport::Transport,
};
use crate::whatsapp::{
    keys::{KeyPair, PublicKey},
    proto::{
        HandshakeMessage,
        handshake_message::{ClientFinish, ClientHello},
    },
};

/// Why the handshake ended. A failure of the network or of somebody in it, never a logout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not protobuf.
    #[error("the handshake message is malformed")]
    Malformed(#[source] prost::DecodeError),
    /// A part of the expected message is missing.
    #[error("the handshake message has no {0}")]
    Missing(&'static str),
    /// A public key has a wrong length or is of low order.
    #[error("the {0} key is no usable key")]
    BadKey(&'static str),
    /// A ciphertext was changed or belongs to another handshake.
    #[error("the {0} does not decrypt")]
    BadCiphertext(&'static str),
    /// The server is not who it should be.
    #[error("the server's certificates do not prove its key")]
    Certificate(#[source] CertError),
}

/// `ClientHello` is sent; the next frame must be `ServerHello`.
pub struct ExpectServerHello {
    noise: Symmetric,
    ephemeral: KeyPair,
}

impl ExpectServerHello {
    /// Begins a connection. The bytes are the first ones on the socket: edge-routing intro (when the server gave us
    /// routing info on an earlier connection), stream header, `ClientHello` frame.
    #[must_use]
    pub fn start(ephemeral: KeyPair, routing_info: Option<&[u8]>) -> (Vec<u8>, Self) {
        let mut noise = Symmetric::new(PROTOCOL_XX, &WA_HEADER);
        noise.mix_hash(&ephemeral.public.0);
        let hello = ClientHello { ephemeral: Some(ephemeral.public.0.to_vec()), ..Default::default() };
        let hello = HandshakeMessage { client_hello: Some(hello), ..Default::default() };
        let mut out = routing_info.map(routing_intro).unwrap_or_default();
        out.extend(WA_HEADER);
        write_frame(&mut out, &hello.encode_to_vec());
        (out, Self { noise, ephemeral })
    }

    /// Checks the server's certificates and answers with `ClientFinish`.
    ///
    /// `frame`: one `HandshakeMessage` without its length. `noise_static`: this device's long-term Noise key.
    /// `client_payload`: an encoded `ClientPayload`, see [`super::payload`]. The answer is a whole frame.
    ///
    /// # Errors
    ///
    /// A [`HandshakeError`] when the server cannot prove that it is the one under `root`.
    pub fn on_server_hello(
        self,
        frame: &[u8],
        noise_static: &KeyPair,
        client_payload: &[u8],
        root: &PublicKey,
        now_unix_s: u64,
    ) -> Result<(Vec<u8>, Transport), HandshakeError> {
        let Self { mut noise, ephemeral } = self;
        let hello = HandshakeMessage::decode(frame).map_err(HandshakeError::Malformed)?.server_hello;
        let hello = hello.ok_or(HandshakeError::Missing("ServerHello"))?;

        let server_ephemeral = public_key(hello.ephemeral(), SERVER_EPHEMERAL)?;
        noise.mix_hash(&server_ephemeral.0);
        noise.mix_key(&ephemeral.private, &server_ephemeral).map_err(about(SERVER_EPHEMERAL))?;
        let server_static = noise.decrypt(hello.r#static()).map_err(about(SERVER_STATIC))?;
        let server_static = public_key(&server_static, SERVER_STATIC)?;
        noise.mix_key(&ephemeral.private, &server_static).map_err(about(SERVER_STATIC))?;
        let chain = noise.decrypt(hello.payload()).map_err(about("certificate chain"))?;
        cert::verify_chain(&chain, &server_static, root, now_unix_s).map_err(HandshakeError::Certificate)?;

        let our_static = noise.encrypt(&noise_static.public.0);
        noise.mix_key(&noise_static.private, &server_ephemeral).map_err(about(SERVER_EPHEMERAL))?;
        let payload = noise.encrypt(client_payload);
        let finish = ClientFinish { r#static: Some(our_static), payload: Some(payload) };
        let finish = HandshakeMessage { client_finish: Some(finish), ..Default::default() };
        let mut out = Vec::new();
        write_frame(&mut out, &finish.encode_to_vec());
        let (write, read) = noise.split();
        Ok((out, Transport::new(&write, &read)))
    }
}

impl fmt::Debug for ExpectServerHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpectServerHello(..)")
    }
}

/// Tells the server's front end where this account lives. Nothing when the info has an impossible length: routing
/// only saves time.
fn routing_intro(info: &[u8]) -> Vec<u8> {
    match u32::try_from(info.len()).map(u32::to_be_bytes) {
        Ok([0, len @ ..]) => [&EDGE_ROUTING_HEADER[..], &len, info].concat(),
        _ => Vec::new(),
    }
}

pub(super) fn public_key(bytes: &[u8], name: &'static str) -> Result<PublicKey, HandshakeError> {
    bytes.try_into().map(PublicKey).map_err(|_| HandshakeError::BadKey(name))
}

pub(super) fn about(name: &'static str) -> impl Fn(SymmetricError) -> HandshakeError {
    move |error| match error {
        SymmetricError::BadCiphertext => HandshakeError::BadCiphertext(name),
        SymmetricError::LowOrderKey => HandshakeError::BadKey(name),
    }
}

const SERVER_EPHEMERAL: &str = "server ephemeral";
const SERVER_STATIC: &str = "server static";

#[cfg(test)]
mod tests;
