mod malformed;

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::whatsapp::{
    jid::{Jid, Server},
    vectors,
};

/// What a node looks like after a trip over the wire: empty attributes are gone, texts that look like JIDs are JIDs,
/// text without a short form is bytes.
fn over_the_wire(node: &Node) -> Node {
    let attrs = node.attrs.iter().filter(|(_, value)| *value != Value::Text(Cow::Borrowed("")));
    let attrs = attrs.map(|(key, value)| match value {
        Value::Text(text) if looks_like_a_jid(text) => (key.clone(), Value::Jid(text.parse().unwrap())),
        value => (key.clone(), value.clone()),
    });
    let content = match &node.content {
        Content::Nodes(nodes) => Content::Nodes(nodes.iter().map(over_the_wire).collect()),
        Content::Text(text) if !has_short_form(text) => Content::Bytes(text.as_bytes().to_vec()),
        content => content.clone(),
    };
    Node { tag: node.tag.clone(), attrs: attrs.collect(), content }
}

fn has_short_form(text: &str) -> bool {
    let packs = |set: &str| !text.is_empty() && text.len() <= 127 && text.chars().all(|c| set.contains(c));
    tokens::find(text).is_some() || packs("0123456789-.") || packs("0123456789ABCDEF")
}

fn looks_like_a_jid(text: &str) -> bool {
    text.contains('@') && text.parse::<Jid>().is_ok_and(|jid| !matches!(jid.server, Server::Other(_)))
}

/// A node of a vector file.
fn from_json(json: &serde_json::Value) -> Node {
    let text = |json: &serde_json::Value| json.as_str().unwrap().to_owned();
    let mut node = Node::new(text(&json["tag"]));
    for attr in json["attrs"].as_array().unwrap() {
        node = node.attr(text(&attr[0]), text(&attr[1]));
    }
    if let Some(nodes) = json["nodes"].as_array() {
        node = node.nodes(nodes.iter().map(from_json));
    } else if json["bytes"].is_string() {
        node = node.bytes(vectors::bytes(json, "bytes"));
    } else if json["text"].is_string() {
        node = node.text(text(&json["text"]));
    }
    node
}

/// The common form of what we and Baileys read: Baileys knows neither typed JIDs nor our name of the service.
fn comparable(node: &Node) -> Node {
    let attrs = node.attrs.iter().map(|(key, value)| {
        let text = match value {
            Value::Text(text) if text == "@s.whatsapp.net" => "s.whatsapp.net".to_owned(),
            Value::Text(text) => text.to_string(),
            Value::Jid(jid) => jid.to_string(),
        };
        (key.clone(), Value::from(text))
    });
    let content = match &node.content {
        Content::Nodes(nodes) => Content::Nodes(nodes.iter().map(comparable).collect()),
        content => content.clone(),
    };
    Node { tag: node.tag.clone(), attrs: attrs.collect(), content }
}

#[test]
fn what_baileys_writes_is_read_as_baileys_reads_it() {
    for vector in vectors::read("binary/nodes.json") {
        let expected = if vector["read"].is_object() { &vector["read"] } else { &vector["sent"] };
        let read =
            decode(&vectors::bytes(&vector, "wire")).unwrap_or_else(|e| panic!("{}: {e}", vector["name"]));
        assert_eq!(comparable(&read), comparable(&from_json(expected)), "{}", vector["name"]);
    }
}

#[test]
fn we_write_what_baileys_writes() {
    let mut compared = 0;
    for vector in vectors::read("binary/nodes.json") {
        if vector["sent"].is_object() && !vector["differs"].is_string() {
            let wire = encode(&from_json(&vector["sent"]));
            assert_eq!(wire, vectors::bytes(&vector, "wire"), "{}", vector["name"]);
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} vectors compared");
}

#[test]
fn what_was_read_is_written_and_read_again_unchanged() {
    for vector in vectors::read("binary/nodes.json") {
        let read = decode(&vectors::bytes(&vector, "wire")).unwrap();
        let again = decode(&encode(&read)).unwrap();
        assert_eq!(over_the_wire(&read), again, "{}", vector["name"]);
    }
}

#[test]
fn tokens_are_borrowed_after_decoding() {
    let sent = Node::new("message")
        .attr("type", "text")
        .child(Node::new("enc").attr("v", "2").attr("type", "pkmsg"));
    let read = decode(&encode(&sent)).unwrap();
    assert!(matches!(read.tag, Cow::Borrowed(_)));
    assert!(read.children()[0].attrs.iter().all(|(key, _)| matches!(key, Cow::Borrowed(_))));
    assert!(matches!(read.value("type"), Some(Value::Text(Cow::Borrowed(_)))));
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
fn an_agent_part_on_the_wire_is_dropped() {
    let sent = Node::new("x").attr("from", Jid::pn("123_1")).attr("to", Jid::new("a_b", Server::Newsletter));
    let read = decode(&encode(&sent)).unwrap();
    assert_eq!(read.jid("from"), Some(Jid::pn("123")));
    assert_eq!(read.jid("to"), Some(Jid::new("a_b", Server::Newsletter)));
}

#[test]
fn empty_attributes_are_left_out() {
    let sent = Node::new("iq").attr("a", "").attr("id", "1");
    assert_eq!(decode(&encode(&sent)), Ok(Node::new("iq").attr("id", "1")));
}

#[test]
fn bytes_of_a_mebibyte_take_the_longest_length_form() {
    for len in [(1 << 20) - 1, 1 << 20] {
        let node = Node::new("enc").bytes(vec![7; len]);
        let wire = encode(&node);
        assert_eq!(wire[4], if len < 1 << 20 { 253 } else { 254 });
        assert_eq!(decode(&wire), Ok(node));
    }
}

fn any_text() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof![
        Just("type").prop_map(Cow::Borrowed),
        "[0-9.-]{1,20}".prop_map(Cow::Owned),
        "[0-9A-F]{1,20}".prop_map(Cow::Owned),
        "\\PC{1,40}".prop_map(Cow::Owned),
        "[0-9]{1,130}".prop_map(Cow::Owned),
    ]
}

fn any_jid() -> impl Strategy<Value = Jid> {
    let server = prop_oneof![
        Just(Server::Pn),
        Just(Server::Lid),
        Just(Server::Group),
        Just(Server::Broadcast),
        Just(Server::Newsletter),
        Just(Server::Hosted),
        Just(Server::HostedLid),
        Just(Server::Messenger),
        Just(Server::Bot),
        Just(Server::Other("example".into())),
    ];
    ("[0-9a-z.-]{1,20}", any::<u16>(), server).prop_map(|(user, device, server)| {
        // Without device where the pair form is the only one, as for every JID of today.
        let device = if matches!(server, Server::Group | Server::Broadcast) { 0 } else { device };
        Jid::new(user, server).with_device(device)
    })
}

fn node_with(content: impl Strategy<Value = Content>) -> impl Strategy<Value = Node> {
    let value = prop_oneof![any_text().prop_map(Value::Text), any_jid().prop_map(Value::Jid)];
    let attrs = prop::collection::vec((any_text(), value), 0..6);
    (any_text(), attrs, content).prop_map(|(tag, attrs, content)| Node { tag, attrs, content })
}

fn any_node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Content::Empty),
        any_text().prop_map(Content::Text),
        prop::collection::vec(any::<u8>(), 0..600).prop_map(Content::Bytes),
    ];
    node_with(leaf).prop_recursive(5, 60, 8, |inner| {
        node_with(prop::collection::vec(inner, 0..8).prop_map(Content::Nodes))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_node_survives_the_wire(node in any_node()) {
        prop_assert_eq!(decode(&encode(&node)), Ok(over_the_wire(&node)));
    }
}
