//! From bytes to a [`Node`], for input nobody vouches for.
//!
//! Memory is bounded by [`limits::MAX_STANZA_MEMORY`]: every list and string is paid for from one budget before it is
//! allocated, so a few bytes cannot claim a huge count. Depth is bounded too, because decoding recurses.
//!
//! Seen: whatsmeow `binary/decoder.go`, `binary/unpack.go` @33cfac51; Baileys 7 `WABinary/decode.js`.

use std::{borrow::Cow, io::Read};

use flate2::bufread::ZlibDecoder;

use super::{
    node::{Attrs, Content, Node, Text, Value},
    tokens::{self, tag},
};
use crate::whatsapp::{
    jid::{Jid, Server},
    limits,
};

/// Why bytes are not a stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle.
    #[error("the stanza ends too early")]
    Truncated,
    /// Bytes are left behind the stanza.
    #[error("{0} bytes follow the stanza")]
    Leftover(usize),
    /// A byte that means nothing where it stands.
    #[error("tag byte {0} has no meaning here")]
    BadTag(u8),
    /// A node without tag.
    #[error("a node has no tag")]
    NoTag,
    /// Packed text with impossible digits or length.
    #[error("packed text is malformed")]
    BadPacked,
    /// A JID with an unknown form or with characters no JID has.
    #[error("a JID is malformed")]
    BadJid,
    /// Nested deeper than [`limits::MAX_STANZA_DEPTH`].
    #[error("nodes are nested too deeply")]
    TooDeep,
    /// More memory than [`limits::MAX_STANZA_MEMORY`], or inflates to more than [`limits::MAX_INFLATED`].
    #[error("the stanza is too large")]
    TooLarge,
    /// The compressed body does not inflate.
    #[error("the compressed stanza does not inflate")]
    BadCompression,
}

/// Decodes the plaintext of one frame: flag byte, then the body, deflated when bit 1 is set.
///
/// Texts that are not UTF-8 (names of contacts can be) get replacement characters; byte content stays as it is.
///
/// # Errors
///
/// A [`DecodeError`] for everything that is not exactly one node within the limits.
pub fn decode(frame: &[u8]) -> Result<Node, DecodeError> {
    let (flags, body) = frame.split_first().ok_or(DecodeError::Truncated)?;
    if flags & FLAG_COMPRESSED == 0 { decode_body(body) } else { decode_body(&inflate(body)?) }
}

fn inflate(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(limits::MAX_INFLATED));
    let cap = limits::MAX_INFLATED as u64 + 1;
    ZlibDecoder::new(body).take(cap).read_to_end(&mut out).map_err(|_| DecodeError::BadCompression)?;
    if out.len() > limits::MAX_INFLATED { Err(DecodeError::TooLarge) } else { Ok(out) }
}

fn decode_body(body: &[u8]) -> Result<Node, DecodeError> {
    let mut reader = Reader { rest: body, budget: limits::MAX_STANZA_MEMORY };
    let node = reader.node(limits::MAX_STANZA_DEPTH)?;
    if reader.rest.is_empty() { Ok(node) } else { Err(DecodeError::Leftover(reader.rest.len())) }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Memory that may still be allocated, in bytes.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn node(&mut self, depth: usize) -> Result<Node, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let list_tag = self.byte()?;
        let size = self.list_size(list_tag)?.ok_or(DecodeError::BadTag(list_tag))?;
        if size == 0 {
            return Err(DecodeError::NoTag);
        }
        let tag = self.text()?;
        if tag.is_empty() {
            return Err(DecodeError::NoTag);
        }
        let attrs = self.attrs((size - 1) / 2)?;
        let content = if size % 2 == 0 { self.content(depth)? } else { Content::Empty };
        Ok(Node { tag, attrs, content })
    }

    fn attrs(&mut self, count: usize) -> Result<Attrs, DecodeError> {
        self.expect_items(count, 2)?;
        self.pay(count, size_of::<(Text, Value)>())?;
        let mut attrs = Attrs::with_capacity(count);
        for _ in 0..count {
            let key = self.text()?;
            attrs.push((key, self.value()?));
        }
        Ok(attrs)
    }

    fn content(&mut self, depth: usize) -> Result<Content, DecodeError> {
        let form = self.byte()?;
        if let Some(count) = self.list_size(form)? {
            return self.nodes(count, depth).map(Content::Nodes);
        }
        if let Some(bytes) = self.raw(form)? {
            self.pay_bytes(bytes.len())?;
            return Ok(Content::Bytes(bytes.to_vec()));
        }
        match self.value_of(form)? {
            Value::Text(text) => Ok(Content::Text(text)),
            Value::Jid(jid) => Ok(Content::Text(Cow::Owned(jid.to_string()))),
        }
    }

    fn nodes(&mut self, count: usize, depth: usize) -> Result<Vec<Node>, DecodeError> {
        self.expect_items(count, SMALLEST_NODE)?;
        self.pay(count, size_of::<Node>())?;
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(self.node(depth)?);
        }
        Ok(nodes)
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        let form = self.byte()?;
        self.value_of(form)
    }

    fn value_of(&mut self, form: u8) -> Result<Value, DecodeError> {
        match form {
            tag::AD_JID => self.ad_jid().map(Value::Jid),
            tag::JID_PAIR => self.jid_pair().map(Value::Jid),
            tag::FB_JID => self.fb_jid().map(Value::Jid),
            tag::INTEROP_JID => self.interop_jid().map(Value::Jid),
            _ => self.text_of(form).map(Value::Text),
        }
    }

    fn text(&mut self) -> Result<Text, DecodeError> {
        let form = self.byte()?;
        self.text_of(form)
    }

    fn text_of(&mut self, form: u8) -> Result<Text, DecodeError> {
        if let Some(token) = tokens::single(form) {
            return Ok(Cow::Borrowed(token));
        }
        match form {
            tag::LIST_EMPTY => Ok(Cow::Borrowed("")),
            tag::DICTIONARY_0..=tag::DICTIONARY_3 => {
                let index = self.byte()?;
                tokens::double(form, index).map(Cow::Borrowed).ok_or(DecodeError::BadTag(form))
            }
            tag::NIBBLE_8 => self.packed(NIBBLES),
            tag::HEX_8 => self.packed(HEX_DIGITS),
            _ => {
                let bytes = self.raw(form)?.ok_or(DecodeError::BadTag(form))?;
                self.pay_bytes(bytes.len())?;
                Ok(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
    }

    fn packed(&mut self, digits: &[u8]) -> Result<Text, DecodeError> {
        let start = self.byte()?;
        let bytes = self.take(usize::from(start & !ODD))?;
        self.pay_bytes(2 * bytes.len())?;
        let mut text = String::with_capacity(2 * bytes.len());
        for nibble in
            bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).take(2 * bytes.len() - odd(start, bytes)?)
        {
            let digit = digits.get(usize::from(nibble)).ok_or(DecodeError::BadPacked)?;
            text.push(char::from(*digit));
        }
        Ok(Cow::Owned(text))
    }

    fn ad_jid(&mut self) -> Result<Jid, DecodeError> {
        let server = match self.byte()? {
            0 => Server::Pn,
            1 => Server::Lid,
            128 => Server::Hosted,
            129 => Server::HostedLid,
            _ => return Err(DecodeError::BadJid),
        };
        let device = u16::from(self.byte()?);
        jid(self.text()?, device, server)
    }

    fn jid_pair(&mut self) -> Result<Jid, DecodeError> {
        let user = self.text()?;
        let server = self.server()?;
        match user.split_once(':') {
            Some((user, device)) => {
                let device = device.parse().map_err(|_| DecodeError::BadJid)?;
                jid(Cow::Owned(user.to_owned()), device, server)
            }
            None => jid(user, 0, server),
        }
    }

    fn fb_jid(&mut self) -> Result<Jid, DecodeError> {
        let user = self.text()?;
        let device = self.u16()?;
        match self.server()? {
            Server::Messenger => jid(user, device, Server::Messenger),
            _ => Err(DecodeError::BadJid),
        }
    }

    fn interop_jid(&mut self) -> Result<Jid, DecodeError> {
        let user = self.text()?;
        let device = self.u16()?;
        let integrator = self.u16()?;
        match self.server()? {
            Server::Interop => jid(Cow::Owned(format!("{integrator}-{user}")), device, Server::Interop),
            _ => Err(DecodeError::BadJid),
        }
    }

    fn server(&mut self) -> Result<Server, DecodeError> {
        let text = self.text()?;
        if text.is_empty() || !is_jid_part(&text) {
            Err(DecodeError::BadJid)
        } else {
            Ok(Server::from(&*text))
        }
    }

    /// The entry count of a list; `None` when `form` does not start a list.
    fn list_size(&mut self, form: u8) -> Result<Option<usize>, DecodeError> {
        match form {
            tag::LIST_EMPTY => Ok(Some(0)),
            tag::LIST_8 => Ok(Some(usize::from(self.byte()?))),
            tag::LIST_16 => Ok(Some(usize::from(self.u16()?))),
            _ => Ok(None),
        }
    }

    /// A byte string; `None` when `form` does not start one.
    fn raw(&mut self, form: u8) -> Result<Option<&'a [u8]>, DecodeError> {
        let len = match form {
            tag::BINARY_8 => u32::from(self.byte()?),
            tag::BINARY_20 => {
                let [high, middle, low] = self.array()?;
                u32::from_be_bytes([0, high & 0x0f, middle, low])
            }
            tag::BINARY_32 => u32::from_be_bytes(self.array()?),
            _ => return Ok(None),
        };
        self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?).map(Some)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Refuses a count that the remaining bytes cannot hold, before anything is allocated for it.
    fn expect_items(&self, count: usize, bytes_each: usize) -> Result<(), DecodeError> {
        if count > self.rest.len() / bytes_each { Err(DecodeError::Truncated) } else { Ok(()) }
    }

    fn pay_bytes(&mut self, len: usize) -> Result<(), DecodeError> {
        self.pay(len.saturating_add(ALLOCATION_OVERHEAD), 1)
    }

    fn pay(&mut self, count: usize, bytes_each: usize) -> Result<(), DecodeError> {
        let cost = count.checked_mul(bytes_each).ok_or(DecodeError::TooLarge)?;
        self.budget = self.budget.checked_sub(cost).ok_or(DecodeError::TooLarge)?;
        Ok(())
    }
}

/// How many nibbles of packed text are padding: 1 when its start byte says so.
fn odd(start: u8, bytes: &[u8]) -> Result<usize, DecodeError> {
    match (start & ODD != 0, bytes.is_empty()) {
        (false, _) => Ok(0),
        (true, false) => Ok(1),
        (true, true) => Err(DecodeError::BadPacked),
    }
}

fn jid(user: Text, device: u16, server: Server) -> Result<Jid, DecodeError> {
    let jid = Jid { user, device, server }.without_agent();
    let sound = is_jid_part(&jid.user) && (device == 0 || !jid.user.is_empty());
    if sound { Ok(jid) } else { Err(DecodeError::BadJid) }
}

/// No separators, blanks or control characters, so that the text form means the same JID; not longer than any real
/// one. Users and servers become keys of tables.
fn is_jid_part(text: &str) -> bool {
    text.len() <= LONGEST_JID_PART
        && text.bytes().all(|byte| byte > b' ' && !matches!(byte, b'@' | b':' | 0x7f))
}

/// Bit of the flag byte: the body is deflated with a zlib header.
const FLAG_COMPRESSED: u8 = 2;
/// Marks packed text with an odd number of characters.
const ODD: u8 = 0x80;
const NIBBLES: &[u8] = b"0123456789-.";
const HEX_DIGITS: &[u8] = b"0123456789ABCDEF";
/// A list start, its size and a token.
const SMALLEST_NODE: usize = 3;
const LONGEST_JID_PART: usize = 128;
/// What a small heap allocation costs beside its bytes.
const ALLOCATION_OVERHEAD: usize = 24;
