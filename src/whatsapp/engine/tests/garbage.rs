//! Whatever the server sends: no panic, and the engine goes on or ends the connection in order.

use proptest::prelude::*;

use super::*;
use crate::whatsapp::binary::{Content, Value};

const TAGS: [&str; 48] = [
    "message",
    "receipt",
    "notification",
    "ack",
    "iq",
    "ib",
    "call",
    "success",
    "failure",
    "stream:error",
    "presence",
    "chatstate",
    "enc",
    "participants",
    "to",
    "item",
    "list",
    "retry",
    "keys",
    "count",
    "digest",
    "identity",
    "devices",
    "device",
    "add",
    "remove",
    "group",
    "participant",
    "tokens",
    "token",
    "offline",
    "offline_preview",
    "edge_routing",
    "routing_info",
    "dirty",
    "pair-device",
    "pair-success",
    "ref",
    "device-identity",
    "link_code_companion_reg",
    "error",
    "conflict",
    "props",
    "prop",
    "user",
    "usync",
    "unavailable",
    "registration",
];

const KEYS: [&str; 24] = [
    "id",
    "from",
    "to",
    "type",
    "participant",
    "recipient",
    "t",
    "class",
    "code",
    "reason",
    "count",
    "value",
    "offline",
    "xmlns",
    "jid",
    "lid",
    "stage",
    "sender_lid",
    "sender_pn",
    "notify",
    "v",
    "phash",
    "error",
    "addressing_mode",
];

const VALUES: [&str; 26] = [
    "",
    "1",
    "0",
    "99999999999999999999",
    "-1",
    "set",
    "get",
    "result",
    "error",
    "encrypt",
    "devices",
    "w:gp2",
    "account_sync",
    "privacy_token",
    "retry",
    "read",
    "pkmsg",
    "msg",
    "skmsg",
    "text",
    "message",
    "md",
    "urn:xmpp:ping",
    "primary_hello",
    "companion_reg_refresh",
    "3EB0AAAAAAAAAAAAAAAA",
];

const JIDS: [&str; 8] = [
    "s.whatsapp.net",
    "6281200000001@s.whatsapp.net",
    "6281200000002:3@s.whatsapp.net",
    "100000000000002@lid",
    "100000000000001:7@lid",
    "120363000000000001@g.us",
    "status@broadcast",
    "1@newsletter",
];

fn node() -> impl Strategy<Value = Node> {
    let value = prop_oneof![
        proptest::sample::select(&VALUES[..]).prop_map(Value::from),
        proptest::sample::select(&JIDS[..]).prop_map(|text| Value::from(jid(text))),
    ];
    let attrs = proptest::collection::vec((proptest::sample::select(&KEYS[..]), value), 0..7);
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let leaf = (proptest::sample::select(&TAGS[..]), attrs.clone(), proptest::option::of(bytes)).prop_map(
        |(tag, attrs, bytes)| Node {
            tag: tag.into(),
            attrs: attrs.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            content: bytes.map_or(Content::Empty, Content::Bytes),
        },
    );
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let children = proptest::collection::vec(inner, 0..4);
        (proptest::sample::select(&TAGS[..]), attrs.clone(), children).prop_map(|(tag, attrs, children)| {
            Node {
                tag: tag.into(),
                attrs: attrs.into_iter().map(|(key, value)| (key.into(), value)).collect(),
                content: Content::Nodes(children),
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_stanzas_never_panic_a_live_session(nodes in proptest::collection::vec(node(), 1..6)) {
        let mut scene = Scene::ready();
        for node in nodes {
            scene.deliver(&node);
            scene.pass(SECOND);
        }
    }

    #[test]
    fn random_stanzas_never_panic_a_pairing(nodes in proptest::collection::vec(node(), 1..6)) {
        let mut scene = Scene::new();
        scene.connect();
        scene.deliver(&linking::pair_device(2));
        for node in nodes {
            scene.deliver(&node);
            scene.pass(SECOND);
        }
    }

    #[test]
    fn random_bytes_never_panic_a_connection(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut scene = Scene::linked();
        scene.link = Link::Closed;
        scene.call(|engine, ctx| engine.handle_connected(ctx));
        scene.call(|engine, ctx| engine.handle_data(ctx, &bytes));
    }
}
