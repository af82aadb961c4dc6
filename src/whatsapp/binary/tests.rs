use std::borrow::Cow;

use super::*;
use crate::whatsapp::jid::{Jid, Server};

/// What a node looks like after a trip over the wire: empty attributes are gone, text without a short form is bytes.
fn over_the_wire(node: &Node) -> Node {
    let attrs = node.attrs.iter().filter(|(_, value)| *value != Value::Text(Cow::Borrowed("")));
    let content = match &node.content {
        Content::Nodes(nodes) => Content::Nodes(nodes.iter().map(over_the_wire).collect()),
        Content::Text(text) if !has_short_form(text) => Content::Bytes(text.as_bytes().to_vec()),
        content => content.clone(),
    };
    Node { tag: node.tag.clone(), attrs: attrs.cloned().collect(), content }
}

fn has_short_form(text: &str) -> bool {
    let packs = |set: &str| !text.is_empty() && text.len() <= 127 && text.chars().all(|c| set.contains(c));
    tokens::find(text).is_some() || packs("0123456789-.") || packs("0123456789ABCDEF")
}

fn message() -> Node {
    Node::new("message")
        .attr("id", "3EB0A1B2C3D4E5F60718")
        .attr("to", Jid::pn("6281200000001").with_device(7))
        .attr("type", "text")
        .child(Node::new("enc").attr("v", "2").attr("type", "pkmsg").bytes(vec![0x33; 300]))
        .child(Node::new("device-identity").bytes(vec![1, 2, 3]))
}

#[test]
fn a_stanza_survives_the_wire() {
    assert_eq!(decode(&encode(&message())), Ok(message()));
}

#[test]
fn tokens_are_borrowed_after_decoding() {
    let node = decode(&encode(&message())).unwrap();
    assert!(matches!(node.tag, Cow::Borrowed(_)));
    assert!(node.attrs.iter().all(|(key, _)| matches!(key, Cow::Borrowed(_))));
}

#[test]
fn every_jid_form_survives_the_wire() {
    let device = |user: &'static str, server, device| Jid::new(user, server).with_device(device);
    for jid in [
        Jid::service(),
        Jid::pn("6281200000001"),
        device("6281200000001", Server::Pn, 17),
        device("6281200000001", Server::Pn, 300),
        device("100000000000001", Server::Lid, 0),
        device("100000000000001", Server::Lid, 255),
        device("6281200000001", Server::Hosted, 99),
        device("100000000000001", Server::HostedLid, 0),
        device("1234567890", Server::Messenger, 40_000),
        device("77-1234567890", Server::Interop, 2),
        Jid::new("6281200000001-1600000000", Server::Group),
        Jid::new("120363000000000000", Server::Newsletter),
        Jid::status_broadcast(),
        device("123", Server::Bot, 5),
        Jid::new("123", Server::Other("future.example".into())),
    ] {
        let node = Node::new("x").attr("from", &jid);
        assert_eq!(decode(&encode(&node)), Ok(node), "{jid}");
    }
}

#[test]
fn a_text_that_looks_like_a_jid_is_sent_as_one() {
    let sent = Node::new("iq").attr("to", "6281200000001:3@s.whatsapp.net").attr("note", "me@example.org");
    let read = decode(&encode(&sent)).unwrap();
    assert_eq!(read.value("to"), Some(&Value::Jid(Jid::pn("6281200000001").with_device(3))));
    assert_eq!(read.value("note"), Some(&Value::Text(Cow::Borrowed("me@example.org"))));
}

#[test]
fn empty_attributes_are_left_out() {
    let sent = Node::new("iq").attr("a", "").attr("id", "1");
    assert_eq!(decode(&encode(&sent)), Ok(Node::new("iq").attr("id", "1")));
}
