//! What a client that misbehaves gets: an objection on record and the real server's error.

use std::time::Duration;

use super::bench::{Bench, Companion, answer, copy, dm, enc};
use crate::{
    sandbox::world::NewPhone,
    whatsapp::{
        binary::{Content, Node},
        jid::Jid,
        proto::signal::SignalMessage,
    },
};
use prost::Message as _;

const ANNA: &str = "4915100000001";
const BERT: &str = "4915100000002";

/// A migrated and a not migrated account; Anna has a companion, Bert only his phone.
fn bench(anna: NewPhone) -> (Bench, Companion, Jid) {
    let mut bench = Bench::new();
    bench.add(anna);
    bench.add(NewPhone::number(BERT));
    let companion = bench.companion(ANNA);
    // Long enough ago for everybody to know the device lists.
    bench.pass(Duration::from_secs(120));
    let (phone, conn) = (Jid::service(), companion.conn);
    for ping in bench.got(conn, "iq") {
        let id = ping.get("id").unwrap().into_owned();
        bench.send(conn, Node::new("iq").attr("type", "result").attr("to", &phone).attr("id", id));
    }
    (bench, companion, Jid::lid("100000000000002"))
}

fn error_of(bench: &mut Bench, companion: &Companion) -> Option<u16> {
    bench.got(companion.conn, "ack").first().expect("an ack").number("error")
}

fn msg(counter: u32, ciphertext: &[u8]) -> Vec<u8> {
    let message = SignalMessage {
        ratchet_key: Some(vec![5; 33]),
        counter: Some(counter),
        previous_counter: Some(0),
        ciphertext: Some(ciphertext.to_vec()),
    };
    [&[0x33], &*message.encode_to_vec(), &[0; 8]].concat()
}

#[test]
fn namespaces_that_do_not_fit_are_refused_as_the_real_server_does() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let own = anna.lid.to_user();
    let pn = Jid::pn(BERT.to_owned());
    bench.send(anna.conn, dm("M1", &bert, [copy(&pn, "msg", b"x"), copy(&own, "msg", b"x")]));
    assert_eq!(error_of(&mut bench, &anna), Some(400));
    bench.send(anna.conn, dm("M2", &pn, [copy(&pn, "msg", b"x"), copy(&anna.pn.to_user(), "msg", b"x")]));
    assert_eq!(error_of(&mut bench, &anna), Some(463));
    assert_eq!(bench.rules(), ["mixed-namespaces", "pn-dm-migrated"]);
}

#[test]
fn an_account_that_is_not_migrated_must_use_phone_numbers() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA).not_migrated());
    let own = anna.lid.to_user();
    bench.send(anna.conn, dm("M1", &bert, [copy(&bert, "msg", b"x"), copy(&own, "msg", b"x")]));
    assert_eq!(error_of(&mut bench, &anna), Some(400));
    assert_eq!(bench.rules(), ["lid-dm-not-migrated"]);
}

#[test]
fn copies_must_reach_the_recipient_and_the_own_devices() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let own = anna.lid.to_user();
    bench.send(anna.conn, dm("M1", &bert, [copy(&own, "msg", b"x")]));
    assert_eq!(error_of(&mut bench, &anna), Some(479));
    bench.send(anna.conn, dm("M2", &bert, [copy(&bert, "msg", b"x")]));
    let ack = bench.got(anna.conn, "ack").remove(0);
    assert!(ack.value("error").is_none() && ack.value("phash").is_some());
    let ghost = bert.with_device(9);
    bench.send(anna.conn, dm("M3", &bert, [copy(&bert, "msg", b"x"), copy(&ghost, "msg", b"x")]));
    assert_eq!(error_of(&mut bench, &anna), Some(406));
    assert_eq!(bench.rules(), ["no-recipient-device", "missing-own-fanout", "unknown-device"]);
}

#[test]
fn ciphertexts_and_tokens_are_bytes() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let mut text = copy(&bert, "msg", b"x");
    if let Content::Nodes(children) = &mut text.content {
        children[0].content = Content::Text("x".into());
    }
    bench.send(anna.conn, dm("M1", &bert, [text]));
    assert_eq!(error_of(&mut bench, &anna), Some(479));
    let good = || [copy(&bert, "msg", b"x"), copy(&anna.lid.to_user(), "msg", b"x")];
    bench.send(anna.conn, dm("M2", &bert, good()).child(Node::new("tctoken").text("abc")));
    assert_eq!(error_of(&mut bench, &anna), Some(479));
    assert_eq!(bench.rules(), ["enc-not-bytes", "tctoken-as-text"]);
}

#[test]
fn one_message_key_for_two_ciphertexts_is_noticed() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let own = anna.lid.to_user();
    for (id, text) in [("M1", b"a"), ("M2", b"a"), ("M3", b"b")] {
        let copies = [copy(&bert, "msg", &msg(0, text)), copy(&own, "msg", id.as_bytes())];
        bench.send(anna.conn, dm(id, &bert, copies));
    }
    assert_eq!(bench.rules(), ["message-key-reused"]);
}

#[test]
fn a_companions_first_message_needs_its_device_identity() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let mut message = dm("M1", &bert, [copy(&bert, "pkmsg", b"x"), copy(&anna.lid.to_user(), "msg", b"x")]);
    if let Content::Nodes(children) = &mut message.content {
        children.pop();
    }
    bench.send(anna.conn, message);
    assert_eq!(bench.rules(), ["missing-device-identity"]);
}

#[test]
fn an_id_is_used_once_per_connection() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let good = || [copy(&bert, "msg", b"x"), copy(&anna.lid.to_user(), "msg", b"x")];
    // The phones cannot decrypt it and ask for it again, five times; nobody asked for the last one.
    for _ in 0..7 {
        assert!(bench.rules().is_empty());
        bench.send(anna.conn, dm("M1", &bert, good()));
    }
    assert_eq!(bench.rules(), ["duplicate-message-id"]);
}

#[test]
fn answers_must_repeat_what_the_stanza_said() {
    let (mut bench, anna, _) = bench(NewPhone::number(ANNA));
    bench.phone(ANNA, |phone, ctx| phone.send_text(BERT, "from the phone", ctx)).unwrap();
    let own = bench.got(anna.conn, "message").remove(0);
    let mut wrong = Node::new("ack").attr("class", "message");
    wrong = wrong.attr_opt("id", own.value("id").cloned()).attr_opt("to", own.value("from").cloned());
    bench.send(anna.conn, wrong);
    assert_eq!(bench.rules(), ["ack-without-recipient"]);
    bench.send(anna.conn, Node::new("ack").attr("class", "message").attr("id", "X").attr("to", &anna.pn));
    bench.send(anna.conn, Node::new("ack").attr("class", "iq").attr("id", "X").attr("to", &anna.pn));
    bench.send(anna.conn, Node::new("receipt").attr("id", "X").attr("to", &anna.pn).attr("type", "seen"));
    assert_eq!(bench.rules()[1..], ["ack-of-nothing", "ack-class", "receipt-type"]);
}

#[test]
fn silence_is_noticed() {
    let (mut bench, anna, _) = bench(NewPhone::number(ANNA));
    bench.phone(BERT, |phone, ctx| phone.send_text(ANNA, "hello?", ctx)).unwrap();
    let message = bench.got(anna.conn, "message").remove(0);
    bench.pass(Duration::from_secs(31));
    // The message, and the token that came with it.
    assert_eq!(bench.rules(), ["unanswered", "unanswered"]);
    bench.send(anna.conn, answer(&message));
    bench.pass(Duration::from_secs(60));
    bench.pass(Duration::from_secs(25));
    assert!(bench.rules().contains(&"ping-unanswered"), "{:?}", bench.rules());
}

#[test]
fn prekeys_are_handed_out_once_asked_for_in_time_and_their_ids_not_used_again() {
    let (mut bench, anna, _) = bench(NewPhone::number(ANNA));
    let device = anna.lid.clone();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..25 {
        let bundle = bench.service.take_bundle(bench.service.device_of(&device).unwrap(), bench.now).unwrap();
        assert!(seen.insert(bundle.prekey.unwrap().0));
    }
    bench.pass(Duration::ZERO);
    let low = bench.got(anna.conn, "notification");
    assert!(low.iter().any(|node| node.find("count").is_some_and(|count| count.has("value", "9"))));
    bench.upload(&anna, 20..22);
    assert_eq!(bench.rules(), ["prekey-reused"]);
}

#[test]
fn a_passive_login_must_become_active_and_upload_keys() {
    let (mut bench, mut anna, _) = bench(NewPhone::number(ANNA));
    bench.log_in(&mut anna, true);
    bench.pass(Duration::from_secs(25));
    assert_eq!(bench.rules(), ["login-without-active"]);
    let (mut fresh, qr) = bench.register();
    bench.phone(ANNA, |phone, ctx| phone.scan(&qr, ctx)).unwrap();
    bench.accept_pairing(&mut fresh);
    bench.log_in(&mut fresh, false);
    bench.pass(Duration::from_secs(31));
    assert!(bench.rules().contains(&"prekeys-not-uploaded"), "{:?}", bench.rules());
}

#[test]
fn group_messages_are_checked() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    let device = bench.service.device_of(&anna.lid).unwrap();
    let now = bench.now;
    let group = bench.service.create_group(device, "Two", &[bert], true, now).unwrap();
    bench.pass(Duration::from_secs(120));
    bench.answer_all(&anna);
    let message = |id: &'static str, mode: Option<&'static str>| {
        Node::new("message")
            .attr("id", id)
            .attr("to", &group)
            .attr("type", "text")
            .attr_opt("addressing_mode", mode)
            .child(enc("skmsg", b"x"))
    };
    bench.send(anna.conn, message("G1", Some("pn")));
    assert_eq!(error_of(&mut bench, &anna), Some(421));
    bench.send(anna.conn, message("G2", None));
    assert_eq!(error_of(&mut bench, &anna), None);
    bench.send(anna.conn, message("G3", Some("lid")).attr("phash", "2:AAAAAAAA"));
    assert!(bench.got(anna.conn, "ack")[0].value("phash").is_some());
    bench.send(anna.conn, message("G4", Some("lid")).child(Node::new("tctoken").bytes([1])));
    assert_eq!(error_of(&mut bench, &anna), Some(479));
    let rules: Vec<_> = bench.rules().into_iter().filter(|rule| *rule != "ping-unanswered").collect();
    assert_eq!(rules, ["group-without-addressing-mode", "phash", "token-on-group"]);
}

#[test]
fn a_contact_who_gave_a_token_wants_to_see_it_when_the_service_is_told_so() {
    let (mut bench, anna, bert) = bench(NewPhone::number(ANNA));
    bench.service.options_mut().require_tokens = true;
    let good = || [copy(&bert, "msg", b"x"), copy(&anna.lid.to_user(), "msg", b"x")];
    bench.send(anna.conn, dm("M1", &bert, good()));
    assert_eq!(error_of(&mut bench, &anna), Some(463));
    bench.phone(BERT, |phone, ctx| phone.send_text(ANNA, "hi", ctx)).unwrap();
    let notifications = bench.got(anna.conn, "notification");
    let token = notifications[0].find("tokens").and_then(|tokens| tokens.find_bytes("token")).unwrap();
    bench.send(anna.conn, dm("M2", &bert, good()).child(Node::new("tctoken").bytes(token)));
    assert_eq!(error_of(&mut bench, &anna), None);
    assert!(bench.rules().is_empty());
}
