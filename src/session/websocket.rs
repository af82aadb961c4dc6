//! The client side of a websocket (RFC 6455), sans-IO: what to send, what the bytes that came mean.
//!
//! Written for one purpose: to keep next to nothing in memory. Data frames are passed on in the pieces in which they
//! arrive, never collected, so there is no buffer that could grow; control frames fit into 125 bytes. Text messages
//! are skipped (protocol-facts 1.1). Knows nothing of TLS or of what the data means.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand_core::{OsRng, RngCore};
use sha1::{Digest, Sha1};

/// A larger message ends the connection: the protocol's own maximum (protocol-facts 1.1).
pub(super) const MAX_MESSAGE_BYTES: u64 = 16 << 20;
/// A longer answer to the upgrade request is none of ours.
const MAX_RESPONSE_BYTES: usize = 16 << 10;
const MAX_RESPONSE_HEADERS: usize = 64;
const MAX_CONTROL_BYTES: u8 = 125;
/// RFC 6455 §1.3: joined to the key before hashing.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why the other side cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WebSocketError {
    /// The upgrade was answered with another status than 101.
    #[error("the websocket was refused with HTTP status {0}")]
    Refused(u16),
    /// The answer to the upgrade is not what the standard asks for.
    #[error("the answer to the websocket request is wrong: {0}")]
    BadResponse(&'static str),
    /// A frame breaks the standard.
    #[error("websocket frame broken: {0}")]
    BadFrame(&'static str),
    /// A message above [`MAX_MESSAGE_BYTES`].
    #[error("websocket message of {0} bytes is too large")]
    TooLarge(u64),
}

/// An upgrade request and the answer it must get.
pub(super) struct Handshake {
    request: String,
    accept: String,
    response: Vec<u8>,
}

impl Handshake {
    /// For `wss://{authority}{path}`.
    pub(super) fn new(authority: &str, path: &str, origin: &str) -> Self {
        let mut nonce = [0u8; 16];
        OsRng.fill_bytes(&mut nonce);
        let key = BASE64_STANDARD.encode(nonce);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nOrigin: {origin}\r\n\
             Cache-Control: no-cache\r\nPragma: no-cache\r\n\r\n"
        );
        let accept =
            BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize());
        Self { request, accept, response: Vec::new() }
    }

    /// The bytes to send first.
    pub(super) fn request(&self) -> &[u8] {
        self.request.as_bytes()
    }

    /// Bytes of the answer. `None`: more is needed. Else the bytes behind the answer: the first frames.
    pub(super) fn response(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, WebSocketError> {
        self.response.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(&self.response) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.response.len() > MAX_RESPONSE_BYTES => {
                return Err(WebSocketError::BadResponse("too long"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(WebSocketError::BadResponse("not HTTP")),
        };
        match response.code {
            Some(101) => {}
            code => return Err(WebSocketError::Refused(code.unwrap_or(0))),
        }
        let header = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        if !header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
            return Err(WebSocketError::BadResponse("no upgrade to websocket"));
        }
        let has_upgrade =
            |value: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
        if !header("connection").is_some_and(has_upgrade) {
            return Err(WebSocketError::BadResponse("connection is not upgraded"));
        }
        if header("sec-websocket-accept") != Some(self.accept.as_str()) {
            return Err(WebSocketError::BadResponse("wrong Sec-WebSocket-Accept"));
        }
        if header("sec-websocket-extensions").is_some() || header("sec-websocket-protocol").is_some() {
            return Err(WebSocketError::BadResponse("extension or protocol that was not asked for"));
        }
        Ok(Some(self.response.get(length..).unwrap_or_default().to_vec()))
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// A piece of a binary message.
    Data(&'a [u8]),
    /// To be answered with a pong of the same content.
    Ping(&'a [u8]),
    /// The other side closes, with its code.
    Close(Option<u16>),
}

/// Takes frames apart.
#[derive(Default)]
pub(super) struct Decoder {
    head: Head,
    /// Payload bytes of the current frame that are still to come.
    left: u64,
    opcode: u8,
    /// The message that continuation frames belong to.
    message: Option<Message>,
    control: Vec<u8>,
}

struct Message {
    binary: bool,
    length: u64,
}

/// The first bytes of a frame: 2, 4 or 10 of them.
#[derive(Default)]
struct Head {
    bytes: [u8; 10],
    have: usize,
}

impl Decoder {
    /// Works through `bytes`, calling `on` for everything that is complete enough.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(Incoming<'_>),
    ) -> Result<(), WebSocketError> {
        loop {
            if self.left == 0 {
                if bytes.is_empty() || !self.head(&mut bytes)? {
                    return Ok(());
                }
                if self.left > 0 {
                    continue;
                }
            }
            let piece = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (now, rest) = bytes.split_at(piece);
            self.left -= piece as u64;
            bytes = rest;
            self.payload(now, &mut on);
            if self.left > 0 {
                return Ok(());
            }
        }
    }

    fn payload(&mut self, bytes: &[u8], on: &mut impl FnMut(Incoming<'_>)) {
        if self.opcode < CLOSE {
            if !bytes.is_empty() && self.message.as_ref().is_some_and(|message| message.binary) {
                on(Incoming::Data(bytes));
            }
        } else {
            self.control.extend_from_slice(bytes);
            if self.left == 0 {
                match self.opcode {
                    PING => on(Incoming::Ping(&self.control)),
                    CLOSE => {
                        let code = self.control.first_chunk().map(|code| u16::from_be_bytes(*code));
                        on(Incoming::Close(code));
                    }
                    _ => {}
                }
                self.control.clear();
            }
        }
        if self.left == 0 && self.head.is_final() && self.opcode < CLOSE {
            self.message = None;
        }
        if self.left == 0 {
            self.head.have = 0;
        }
    }

    /// Collects the head of a frame; whether it is complete and checked.
    fn head(&mut self, bytes: &mut &[u8]) -> Result<bool, WebSocketError> {
        while let Some((byte, rest)) = bytes.split_first() {
            self.head.push(*byte);
            *bytes = rest;
            if let Some(length) = self.head.payload_length()? {
                self.start(length)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn start(&mut self, length: u64) -> Result<(), WebSocketError> {
        let [first, ..] = self.head.bytes;
        self.opcode = first & 0x0f;
        self.left = length;
        match self.opcode {
            TEXT | BINARY if self.message.is_some() => {
                return Err(WebSocketError::BadFrame("a message inside a message"));
            }
            TEXT | BINARY => {
                self.message = Some(Message { binary: self.opcode == BINARY, length: 0 });
            }
            CONTINUATION if self.message.is_none() => {
                return Err(WebSocketError::BadFrame("nothing to continue"));
            }
            CONTINUATION => {}
            CLOSE | PING | PONG if first & FIN == 0 || length > u64::from(MAX_CONTROL_BYTES) => {
                return Err(WebSocketError::BadFrame("control frame too long or in pieces"));
            }
            CLOSE | PING | PONG => return Ok(()),
            _ => return Err(WebSocketError::BadFrame("unknown opcode")),
        }
        if let Some(message) = &mut self.message {
            message.length = message.length.saturating_add(length);
            if message.length > MAX_MESSAGE_BYTES {
                return Err(WebSocketError::TooLarge(message.length));
            }
        }
        Ok(())
    }
}

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.have) {
            *slot = byte;
            self.have += 1;
        }
    }

    fn is_final(&self) -> bool {
        let [first, ..] = self.bytes;
        first & FIN != 0
    }

    /// The payload's length once all bytes of the head are there.
    fn payload_length(&self) -> Result<Option<u64>, WebSocketError> {
        let [first, second, l0, l1, ..] = self.bytes;
        if self.have >= 1 && first & 0x70 != 0 {
            return Err(WebSocketError::BadFrame("reserved bits are set"));
        }
        if self.have >= 2 && second & MASKED != 0 {
            return Err(WebSocketError::BadFrame("a server must not mask"));
        }
        Ok(match (self.have, second) {
            (0 | 1, _) => None,
            (4, 126) => Some(u64::from(u16::from_be_bytes([l0, l1]))),
            (10, 127) => {
                let mut length = [0u8; 8];
                length.copy_from_slice(&self.bytes[2..]);
                Some(u64::from_be_bytes(length))
            }
            (_, 126 | 127) => None,
            (_, length) => Some(u64::from(length)),
        })
    }
}

/// Builds frames.
pub(super) struct Encoder {
    /// Mask keys in stock, so that a frame does not cost a system call.
    keys: [u8; 64],
    used: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { keys: [0; 64], used: 64 }
    }
}

impl Encoder {
    /// Appends one binary message.
    pub(super) fn binary(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, BINARY, payload);
    }

    /// Appends the answer to a ping.
    pub(super) fn pong(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, PONG, payload);
    }

    /// Appends a close frame.
    pub(super) fn close(&mut self, out: &mut Vec<u8>, code: u16) {
        self.frame(out, CLOSE, &code.to_be_bytes());
    }

    fn frame(&mut self, out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
        let key = self.mask_key();
        out.reserve(payload.len() + 14);
        out.push(FIN | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length), _) if length <= MAX_CONTROL_BYTES => out.push(MASKED | length),
            (_, Ok(length)) => {
                out.push(MASKED | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                out.push(MASKED | 127);
                out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&key);
        let start = out.len();
        out.extend_from_slice(payload);
        for four in out[start..].chunks_mut(key.len()) {
            four.iter_mut().zip(key).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    fn mask_key(&mut self) -> [u8; 4] {
        if self.used == self.keys.len() {
            OsRng.fill_bytes(&mut self.keys);
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.keys[self.used..self.used + 4]);
        self.used += 4;
        key
    }
}

#[cfg(test)]
mod tests;
