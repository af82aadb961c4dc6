//! Stanzas nobody should send: none of them may panic.

use prost::Message as _;
use rand_core::RngCore;

use crate::whatsapp::{
    binary::Node,
    contacts::tests::Bench,
    jid::Jid,
    proto::{DeviceSentMessage, Message, ProtocolMessage},
};

const TAGS: &[&str] = &[
    "message",
    "receipt",
    "ack",
    "enc",
    "list",
    "item",
    "participants",
    "to",
    "user",
    "retry",
    "keys",
    "registration",
    "identity",
    "key",
    "skey",
    "id",
    "value",
    "signature",
    "device-identity",
    "unavailable",
    "plaintext",
    "group",
    "participant",
    "add",
    "remove",
    "create",
    "modify",
    "subject",
    "devices",
    "device",
    "device-list",
    "key-index-list",
    "usync",
    "lid",
    "tokens",
    "token",
    "error",
    "promote",
    "leave",
];
const KEYS: &[&str] = &[
    "id",
    "from",
    "to",
    "participant",
    "recipient",
    "type",
    "t",
    "v",
    "count",
    "key",
    "jid",
    "lid",
    "error",
    "phash",
    "offline",
    "category",
    "notify",
    "sender_pn",
    "sender_lid",
    "participant_lid",
    "phone_number",
    "addressing_mode",
    "code",
    "key-index",
    "val",
    "device_hash",
    "dhash",
    "decrypt-fail",
    "subject",
    "edit",
];
const VALUES: &[&str] = &[
    "A1",
    "0",
    "1",
    "2",
    "5",
    "99",
    "65536",
    "-1",
    "",
    "msg",
    "pkmsg",
    "skmsg",
    "msmsg",
    "retry",
    "read",
    "peer",
    "lid",
    "pn",
    "hide",
    "trusted_contact",
    "6281200000001@s.whatsapp.net",
    "6281200000001:7@s.whatsapp.net",
    "900@lid",
    "222@lid",
    "222:3@lid",
    "222:99@hosted.lid",
    "6281200000002@s.whatsapp.net",
    "1203@g.us",
    "status@broadcast",
    "77@broadcast",
    "5@newsletter",
    "@s.whatsapp.net",
    "@@",
    "421",
    "463",
    "admin",
];

fn pick<'a>(bench: &mut Bench, of: &[&'a str]) -> &'a str {
    of[bench.rng.next_u32() as usize % of.len()]
}

fn node(bench: &mut Bench, tag: Option<&'static str>, depth: u32) -> Node {
    let mut node = Node::new(tag.unwrap_or_else(|| pick(bench, TAGS)));
    for _ in 0..bench.rng.next_u32() % 8 {
        let (key, value) = (pick(bench, KEYS), pick(bench, VALUES));
        node = node.attr(key, value);
    }
    match bench.rng.next_u32() % 3 {
        0 if depth > 0 => {
            let children = bench.rng.next_u32() % 5;
            let children: Vec<Node> = (0..children).map(|_| self::node(bench, None, depth - 1)).collect();
            node.nodes(children)
        }
        1 => {
            let mut bytes = vec![0; bench.rng.next_u32() as usize % 70];
            bench.rng.fill_bytes(&mut bytes);
            // Often the right version byte, so that parsing goes on behind it.
            if let Some(first) = bytes.first_mut() {
                *first = 0x33;
            }
            node.bytes(bytes)
        }
        _ => node,
    }
}

#[test]
fn no_stanza_makes_a_handler_panic() {
    let mut bench = Bench::new(5);
    for round in 0..30_000 {
        if round % 1000 == 0 {
            bench = Bench::new(round);
        }
        let stanza = match round % 8 {
            0..=2 => node(&mut bench, Some("message"), 3).attr("from", Jid::lid("222")).attr("id", "A1"),
            3 => node(&mut bench, Some("message"), 3),
            4 => node(&mut bench, Some("receipt"), 3).attr("id", "A1"),
            5 => node(&mut bench, Some("notification"), 3).attr("from", "1203@g.us"),
            _ => node(&mut bench, None, 4),
        };
        bench
            .call(|engine, ctx| {
                engine.on_message(ctx, &stanza)?;
                engine.on_receipt(ctx, &stanza)?;
                engine.on_message_ack(ctx, &stanza)?;
                engine.on_group_notification(ctx, &stanza)?;
                engine.on_devices_notification(ctx, &stanza)?;
                engine.on_identity_notification(ctx, &stanza)?;
                engine.on_privacy_token_notification(ctx, &stanza)?;
                let users = vec![Jid::lid("222"), Jid::pn("6281200000002")];
                engine.on_bundles(ctx, &users, Ok(&stanza))
            })
            .unwrap();
    }
}

#[test]
fn what_only_our_own_devices_may_say_is_not_taken_from_others() {
    use super::{
        receive::Incoming,
        source::{ChatKind, Source},
    };

    let mut bench = Bench::new(6);
    let stanza = Node::new("message");
    let own = bench.engine.own().unwrap();
    let sent = DeviceSentMessage {
        destination_jid: Some("333@lid".into()),
        message: Some(Box::new(Message { conversation: Some("in your name".into()), ..Default::default() })),
        phash: None,
    };
    let forged = Message { device_sent_message: Some(Box::new(sent)), ..Default::default() };
    let untyped =
        Message { protocol_message: Some(Box::new(ProtocolMessage::default())), ..Default::default() };
    for (message, from_me, expected) in [(&forged, false, 0), (&untyped, false, 0), (&forged, true, 1)] {
        let sender = if from_me { own.pn.to_user() } else { Jid::lid("222") };
        let chat = sender.to_user();
        let source = Source { kind: ChatKind::Direct, chat, sender, from_me, pairs: vec![] };
        let incoming =
            Incoming { stanza: &stanza, id: "A1".into(), source, own: own.clone(), timestamp: 1_780_000_000 };
        let message = Message::decode(message.encode_to_vec().as_slice()).unwrap();
        bench.call(|engine, ctx| engine.take_in(ctx, &incoming, message, true)).unwrap();
        assert_eq!(bench.store.messages().len(), expected);
    }
    assert_eq!(bench.store.messages()[0].chat, Jid::lid("333"));
}
