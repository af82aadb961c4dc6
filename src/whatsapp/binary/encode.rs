//! From a [`Node`] to bytes.
//!
//! Every string takes the shortest form there is: token, packed nibbles, packed hex, raw. JIDs have forms of their
//! own, and an attribute text that looks like a JID of a known server is sent as one, as all clients do.
//!
//! Seen: whatsmeow `binary/encoder.go` @33cfac51; Baileys 7 `WABinary/encode.js`.

use super::{
    node::{Content, Node, Value},
    tokens::{self, Token, tag},
};
use crate::whatsapp::jid::{Jid, Server};

/// The plaintext of one frame: a zero flag byte (nothing is compressed) and the node.
///
/// Attributes with empty text are left out: the wire cannot tell them from absent ones.
///
/// # Panics
///
/// When a list of ours has more than 65,535 entries or a byte string 4 GiB: both are far beyond a frame.
#[must_use]
pub fn encode(node: &Node) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_SIZE);
    out.push(0);
    write_node(&mut out, node);
    out
}

fn write_node(out: &mut Vec<u8>, node: &Node) {
    let attrs = node.attrs.iter().filter(|(_, value)| !matches!(value, Value::Text(text) if text.is_empty()));
    let has_content = node.content != Content::Empty;
    write_list_start(out, 1 + 2 * attrs.clone().count() + usize::from(has_content));
    write_text(out, &node.tag);
    for (key, value) in attrs {
        write_text(out, key);
        match value {
            Value::Jid(jid) => write_jid(out, jid),
            Value::Text(text) => match as_jid(text) {
                Some(jid) => write_jid(out, &jid),
                None => write_text(out, text),
            },
        }
    }
    match &node.content {
        Content::Empty => {}
        Content::Nodes(nodes) => {
            write_list_start(out, nodes.len());
            nodes.iter().for_each(|node| write_node(out, node));
        }
        Content::Bytes(bytes) => write_bytes(out, bytes),
        Content::Text(text) => write_text(out, text),
    }
}

fn write_list_start(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(0) => out.push(tag::LIST_EMPTY),
        Ok(len) => out.extend([tag::LIST_8, len]),
        Err(_) => {
            let len = u16::try_from(len).expect("no stanza of ours has a list of 65,536 entries");
            out.push(tag::LIST_16);
            out.extend(len.to_be_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    match tokens::find(text) {
        Some(Token::Single(byte)) => out.push(byte),
        Some(Token::Double(table, index)) => out.extend([table, index]),
        None if text.is_empty() || text.len() > LONGEST_PACKED => write_bytes(out, text.as_bytes()),
        None if text.bytes().all(|byte| nibble(byte).is_some()) => {
            write_packed(out, tag::NIBBLE_8, text, nibble)
        }
        None if text.bytes().all(|byte| hex(byte).is_some()) => write_packed(out, tag::HEX_8, text, hex),
        None => write_bytes(out, text.as_bytes()),
    }
}

/// Two characters per byte, high nibble first; an odd last one is paired with 15.
fn write_packed(out: &mut Vec<u8>, form: u8, text: &str, digit: fn(u8) -> Option<u8>) {
    let odd = text.len() % 2 == 1;
    let len = u8::try_from(text.len().div_ceil(2)).expect("packed text is at most 127 bytes");
    out.extend([form, len | if odd { ODD } else { 0 }]);
    let digit = |byte| digit(byte).unwrap_or(PAD);
    for pair in text.as_bytes().chunks(2) {
        match *pair {
            [high, low] => out.push(digit(high) << 4 | digit(low)),
            [high] => out.push(digit(high) << 4 | PAD),
            _ => {}
        }
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("no byte string of ours has 4 GiB");
    match len.to_be_bytes() {
        [0, 0, 0, len] => out.extend([tag::BINARY_8, len]),
        [0, high, middle, low] if high < 16 => out.extend([tag::BINARY_20, high, middle, low]),
        len => {
            out.push(tag::BINARY_32);
            out.extend(len);
        }
    }
    out.extend_from_slice(bytes);
}

fn write_jid(out: &mut Vec<u8>, jid: &Jid) {
    match (ad_domain(jid), u8::try_from(jid.device)) {
        (Some(domain), Ok(device)) => {
            out.extend([tag::AD_JID, domain, device]);
            return write_text(out, &jid.user);
        }
        // A device that the short form cannot hold keeps its text form.
        (Some(_), Err(_)) => return write_jid_pair(out, jid),
        (None, _) => {}
    }
    let integrator =
        jid.user.split_once('-').and_then(|(number, user)| Some((number.parse::<u16>().ok()?, user)));
    match (&jid.server, integrator) {
        (Server::Messenger, _) => {
            out.push(tag::FB_JID);
            write_text(out, &jid.user);
            out.extend(jid.device.to_be_bytes());
            write_text(out, jid.server.as_str());
        }
        (Server::Interop, Some((integrator, user))) => {
            out.push(tag::INTEROP_JID);
            write_text(out, user);
            out.extend(jid.device.to_be_bytes());
            out.extend(integrator.to_be_bytes());
            write_text(out, jid.server.as_str());
        }
        _ => write_jid_pair(out, jid),
    }
}

fn write_jid_pair(out: &mut Vec<u8>, jid: &Jid) {
    out.push(tag::JID_PAIR);
    match (jid.user.is_empty(), jid.device) {
        (true, _) => out.push(tag::LIST_EMPTY),
        (false, 0) => write_text(out, &jid.user),
        (false, device) => write_text(out, &format!("{}:{device}", jid.user)),
    }
    write_text(out, jid.server.as_str());
}

/// The domain byte of JIDs that have the device form.
fn ad_domain(jid: &Jid) -> Option<u8> {
    match jid.server {
        Server::Pn if jid.device > 0 => Some(0),
        Server::Lid if jid.device > 0 => Some(1),
        Server::Hosted => Some(128),
        Server::HostedLid => Some(129),
        _ => None,
    }
}

/// Reads `user@server` when the server is one of WhatsApp's: other texts with an `@` are text.
fn as_jid(text: &str) -> Option<Jid> {
    if !text.as_bytes().contains(&b'@') {
        return None;
    }
    text.parse::<Jid>().ok().filter(|jid| !matches!(jid.server, Server::Other(_)))
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'-' => Some(10),
        b'.' => Some(11),
        _ => None,
    }
}

/// Upper case only: reading gives upper case back.
fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Room for most stanzas we send without growing.
const USUAL_SIZE: usize = 512;
/// Longer texts are not packed, because the count of bytes has seven bits and others stop here.
const LONGEST_PACKED: usize = 127;
/// Marks packed text with an odd number of characters.
const ODD: u8 = 0x80;
/// Fills the last nibble of such text.
const PAD: u8 = 15;
