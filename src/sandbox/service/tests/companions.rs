//! Pairing, fan-out, offline queue, device lists: what a client that behaves sees.

use std::time::Duration;

use super::bench::{Bench, answer, copy, dm};
use crate::{
    sandbox::{
        service::{Fault, LinkRequest},
        world::NewPhone,
    },
    whatsapp::{binary::Node, jid::Jid},
};

const ANNA: &str = "4915100000001";
const BERT: &str = "4915100000002";

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.add(NewPhone::number(ANNA));
    bench.add(NewPhone::number(BERT));
    bench
}

#[test]
fn a_companion_is_linked_restarted_logged_in_and_greeted() {
    let mut bench = bench();
    let (mut companion, qr) = bench.register();
    bench.phone(ANNA, |phone, ctx| phone.scan(&qr, ctx)).unwrap();
    bench.accept_pairing(&mut companion);
    let end = bench.inbox(companion.conn).remove(0);
    assert!(end.tag == "stream:error" && end.has("code", "515"));
    assert_eq!(bench.closed, [companion.conn]);
    bench.log_in(&mut companion, true);
    let inbox = bench.inbox(companion.conn);
    assert_eq!(inbox[0].tag, "success");
    assert_eq!(inbox[0].jid("lid"), Some(companion.lid.clone()));
    bench.upload(&companion, 1..30);
    let active = Node::new("iq")
        .attr("id", "a")
        .attr("to", Jid::service())
        .attr("type", "set")
        .attr("xmlns", "passive")
        .child(Node::new("active"));
    bench.send(companion.conn, active);
    let preview = bench.got(companion.conn, "ib");
    let preview = preview.iter().find_map(|ib| ib.find("offline_preview")).unwrap();
    assert_eq!(preview.number("count"), Some(4), "app-state key and three parts of history");
    let pull = Node::new("ib").child(Node::new("offline_batch").attr("count", "100"));
    bench.send(companion.conn, pull);
    let inbox = bench.inbox(companion.conn);
    assert_eq!(inbox.iter().filter(|node| node.tag == "message" && node.has("category", "peer")).count(), 4);
    assert!(inbox.last().unwrap().find("offline").is_some_and(|offline| offline.has("count", "4")));
    assert!(bench.rules().is_empty());
}

#[test]
fn a_reference_is_good_once_and_only_for_its_client() {
    let mut bench = bench();
    let (mut companion, qr) = bench.register();
    let (_, other) = bench.register();
    let mixed = format!("{},{}", qr.split_once(',').unwrap().0, other.split_once(',').unwrap().1);
    assert!(bench.phone(ANNA, |phone, ctx| phone.scan(&mixed, ctx)).is_err());
    bench.phone(ANNA, |phone, ctx| phone.scan(&qr, ctx)).unwrap();
    bench.accept_pairing(&mut companion);
    assert!(bench.phone(BERT, |phone, ctx| phone.scan(&qr, ctx)).is_err());
    let request = LinkRequest {
        reference: "2@nobody".to_owned(),
        device_identity: Vec::new(),
        account_key: companion.identity.public,
        details: Vec::new(),
        key_index: 1,
        key_index_list: (0, Vec::new()),
    };
    assert!(bench.service.link(0, request, bench.now).is_err());
}

#[test]
fn an_account_that_needs_a_passkey_is_not_linked_and_the_client_is_told() {
    let mut bench = bench();
    bench.service.options_mut().require_passkey = true;
    let (companion, qr) = bench.register();
    assert!(bench.phone(ANNA, |phone, ctx| phone.scan(&qr, ctx)).is_err());
    let told = bench.got(companion.conn, "notification").remove(0);
    assert!(told.has("type", "passkey_prologue_request"));
    assert!(told.find_bytes("passkey_request_options").is_some());
    assert!(bench.closed.is_empty());
}

#[test]
fn a_message_reaches_every_device_and_own_ones_learn_whom_it_went_to() {
    let mut bench = bench();
    let anna = bench.companion(ANNA);
    let sibling = bench.companion(ANNA);
    let bert = bench.companion(BERT);
    bench.answer_all(&anna);
    let to = bert.lid.to_user();
    let copies = [&to, &bert.lid, &anna.lid.to_user(), &sibling.lid].map(|jid| copy(jid, "msg", b"x"));
    bench.send(anna.conn, dm("M1", &to, copies));
    let ack = bench.got(anna.conn, "ack").remove(0);
    assert!(ack.has("id", "M1") && ack.value("error").is_none() && ack.value("phash").is_none());
    let message = bench.got(bert.conn, "message").remove(0);
    assert_eq!(message.jid("from"), Some(anna.lid.clone()));
    assert_eq!(message.jid("sender_pn"), Some(anna.pn.to_user()));
    let own = bench.got(sibling.conn, "message").remove(0);
    assert_eq!((own.jid("from"), own.jid("recipient")), (Some(anna.lid.clone()), Some(to)));
    assert_eq!(own.jid("peer_recipient_pn"), Some(bert.pn.to_user()));
    bench.send(bert.conn, answer(&message));
    bench.send(sibling.conn, answer(&own));
    let receipts = bench.got(anna.conn, "receipt");
    assert!(receipts.iter().any(|receipt| receipt.jid("from") == Some(bert.lid.clone())));
    assert!(receipts.iter().any(|receipt| receipt.has("type", "sender")));
    assert!(bench.rules().is_empty(), "{:?}", bench.rules());
}

#[test]
fn unanswered_stanzas_come_again_in_order_and_answered_ones_do_not() {
    let mut bench = bench();
    let mut anna = bench.companion(ANNA);
    let pull = || Node::new("ib").child(Node::new("offline_batch").attr("count", "3"));
    for text in ["one", "two", "three"] {
        bench.phone(BERT, |phone, ctx| phone.send_text(ANNA, text, ctx)).unwrap();
    }
    let live = bench.got(anna.conn, "message");
    let ids =
        |nodes: &[Node]| nodes.iter().map(|node| node.get("id").unwrap().into_owned()).collect::<Vec<_>>();
    let sent = ids(&live);
    assert_eq!(sent.len(), 3);
    bench.send(anna.conn, answer(&live[0]));
    bench.service.disconnected(anna.conn);
    let last = bench.phone(BERT, |phone, ctx| phone.send_text(ANNA, "four", ctx)).unwrap();
    bench.log_in(&mut anna, false);
    bench.inbox(anna.conn);
    bench.send(anna.conn, pull());
    // Between the first message and the others waits the token that came with it.
    let first = bench.got(anna.conn, "message");
    assert!(first.iter().all(|node| node.value("offline").is_some()));
    assert_eq!(ids(&first), sent[1..]);
    bench.send(anna.conn, pull());
    let second = bench.inbox(anna.conn);
    let messages: Vec<_> = second.iter().filter(|node| node.tag == "message").cloned().collect();
    assert_eq!(ids(&messages), [last]);
    assert!(bench.rules().is_empty(), "{:?}", bench.rules());
}

#[test]
fn a_client_that_never_pulls_gets_its_queue_after_a_while() {
    let mut bench = bench();
    let mut anna = bench.companion(ANNA);
    bench.service.disconnected(anna.conn);
    bench.phone(BERT, |phone, ctx| phone.send_text(ANNA, "hello", ctx)).unwrap();
    bench.log_in(&mut anna, false);
    bench.pass(Duration::from_secs(5));
    assert!(bench.got(anna.conn, "message").is_empty());
    bench.pass(Duration::from_secs(15));
    assert_eq!(bench.got(anna.conn, "message").len(), 1);
    assert_eq!(bench.rules(), ["offline-not-pulled"]);
}

#[test]
fn what_was_answered_in_vain_comes_again() {
    let mut bench = bench();
    let mut anna = bench.companion(ANNA);
    bench.service.inject(0, anna.pn.device, &Fault::LoseAnswers { on: true }, bench.now).unwrap();
    let id = bench.phone(BERT, |phone, ctx| phone.send_text(ANNA, "hello", ctx)).unwrap();
    bench.answer_all(&anna);
    bench.service.disconnected(anna.conn);
    bench.log_in(&mut anna, false);
    bench.send(anna.conn, Node::new("ib").child(Node::new("offline_batch").attr("count", "10")));
    let again = bench.got(anna.conn, "message").remove(0);
    assert_eq!(again.get("id").as_deref(), Some(&*id));
}

#[test]
fn a_reinstalled_phone_has_a_new_identity_and_no_companions() {
    let mut bench = bench();
    let mut anna = bench.companion(ANNA);
    let bert = bench.companion(BERT);
    // Bert's companion knows Anna's devices.
    bench.service.account_mut(0).watchers.insert(1);
    let phone = bench.service.device_of(&anna.lid.to_user()).unwrap();
    let before = bench.service.take_bundle(phone, bench.now).unwrap();
    bench
        .phone(ANNA, |phone, ctx| {
            phone.reinstall(ctx);
            Ok(())
        })
        .unwrap();
    let after = bench.service.take_bundle(phone, bench.now).unwrap();
    assert_ne!(before.identity, after.identity);
    assert!(after.verify().is_ok());
    let told = bench.got(bert.conn, "notification");
    assert!(told.iter().any(|node| node.has("type", "encrypt") && node.find("identity").is_some()));
    assert!(bench.got(anna.conn, "stream:error")[0].has("code", "401"));
    bench.log_in(&mut anna, false);
    assert_eq!(bench.got(anna.conn, "failure").len(), 1);
}

#[test]
fn an_account_migrates_while_a_companion_is_linked() {
    let mut bench = Bench::new();
    bench.add(NewPhone::number(ANNA).not_migrated());
    bench.add(NewPhone::number(BERT));
    let anna = bench.companion(ANNA);
    bench
        .phone(ANNA, |phone, ctx| {
            phone.migrate(ctx);
            Ok(())
        })
        .unwrap();
    let told = bench.got(anna.conn, "message").remove(0);
    assert!(told.has("category", "peer"));
    bench.send(anna.conn, answer(&told));
    let (to, own) = (Jid::lid("100000000000002"), anna.lid.to_user());
    bench.send(anna.conn, dm("M1", &to, [copy(&to, "msg", b"x"), copy(&own, "msg", b"x")]));
    assert!(bench.got(anna.conn, "ack")[0].value("error").is_none());
    assert!(bench.rules().is_empty(), "{:?}", bench.rules());
}

#[test]
fn a_second_login_replaces_the_first_and_an_unlinked_device_is_told_and_refused() {
    let mut bench = bench();
    let mut anna = bench.companion(ANNA);
    let old = anna.conn;
    bench.log_in(&mut anna, false);
    let end = bench.got(old, "stream:error").remove(0);
    assert!(end.find("conflict").is_some_and(|conflict| conflict.has("type", "replaced")));
    assert_eq!(bench.got(anna.conn, "success").len(), 1);
    bench.service.inject(0, anna.pn.device, &Fault::Unlink, bench.now).unwrap();
    bench.pass(Duration::ZERO);
    let end = bench.got(anna.conn, "stream:error").remove(0);
    assert!(end.has("code", "401") && end.find("conflict").is_some());
    bench.log_in(&mut anna, false);
    assert!(bench.got(anna.conn, "failure")[0].has("reason", "401"));
}

#[test]
fn those_who_asked_for_a_device_list_hear_of_its_change() {
    let mut bench = bench();
    let anna = bench.companion(ANNA);
    let user = Node::new("user").attr("jid", Jid::pn(BERT.to_owned()));
    let usync = Node::new("usync")
        .attr("sid", "1")
        .attr("mode", "query")
        .attr("last", "true")
        .attr("index", "0")
        .attr("context", "message")
        .child(Node::new("query").child(Node::new("devices").attr("version", "2")))
        .child(Node::new("list").child(user));
    let iq = Node::new("iq")
        .attr("id", "u")
        .attr("to", Jid::service())
        .attr("type", "get")
        .attr("xmlns", "usync")
        .child(usync);
    bench.send(anna.conn, iq);
    let answer = bench.got(anna.conn, "iq").remove(0);
    let devices = answer.find("usync").and_then(|usync| usync.find("list")?.find("user")?.find("devices"));
    assert_eq!(devices.unwrap().find("device-list").unwrap().children().len(), 1);
    let bert = bench.companion(BERT);
    let told = bench.got(anna.conn, "notification").remove(0);
    let device = told.find("add").unwrap().find("device").unwrap();
    assert_eq!((device.jid("jid"), device.jid("lid")), (Some(bert.pn), Some(bert.lid)));
}
