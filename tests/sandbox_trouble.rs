//! Sessions in trouble that only the sandbox can make: a phone that lies, forged bundles, migration, reinstalled
//! phones, demanded tokens and passkeys, answers that get lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod joined;

use std::time::Duration;

use joined::Joined;
use whatsapp_worker::{
    sandbox::{phone::LinkLie, service::Fault, world::NewPhone},
    whatsapp::{
        engine::Engine,
        jid::Jid,
        model::{Command, CommandError, Event, OutgoingContent, Reply, SendId, SendRequest},
    },
};

const ANNA: &str = "4915100000001";
const BUDI: &str = "6281200000002";
const CARO: &str = "4915100000003";

fn joined(phones: &[NewPhone]) -> Joined {
    let mut joined = Joined::new(11);
    for phone in phones {
        joined.world.add_phone(phone.clone(), joined.now).unwrap();
    }
    joined
}

fn text(to: &str, body: &str) -> Command {
    let to = if to.contains('@') { to.parse().unwrap() } else { Jid::pn(to.to_owned()) };
    let content = OutgoingContent::Text { body: body.to_owned(), quote: None, mentions: vec![] };
    Command::Send(SendRequest { to, id: SendId::Generate, content })
}

fn texts(joined: &Joined, phone: &str) -> Vec<String> {
    let received = joined.world.messages(phone).iter().filter(|message| !message.from_me);
    received.map(|message| message.text.clone()).collect()
}

/// What the session was told of, in order.
fn told(joined: &Joined, client: usize) -> Vec<String> {
    let events = joined.clients[client].store.events().iter();
    events
        .filter_map(|event| match event {
            Event::Message(record, _) => Some(record.content.clone()),
            _ => None,
        })
        .collect()
}

fn reply(joined: &Joined, client: usize, command: u64) -> &Reply {
    let replies = &joined.clients[client].replies;
    &replies.iter().find(|(id, _)| *id == command).expect("a reply").1
}

#[test]
fn a_phone_with_a_false_signature_links_nothing() {
    for lie in [LinkLie::BadHmac, LinkLie::BadAccountSignature] {
        let mut joined = joined(&[NewPhone::number(ANNA)]);
        joined.world.lie_when_linking(ANNA, lie).unwrap();
        let client = joined.add_client();
        joined.connect(client);
        let qr = joined.clients[client].last_qr().unwrap();
        joined.world.scan(ANNA, &qr, joined.now).unwrap();
        joined.settle();
        let client = &joined.clients[client];
        assert!(!client.events.iter().any(|event| matches!(event, Event::Paired { .. })), "{lie:?}");
        assert!(!Engine::is_paired(&client.store).unwrap(), "{lie:?}");
    }
}

#[test]
fn a_demanded_passkey_is_reported() {
    let mut joined = joined(&[NewPhone::number(ANNA)]);
    joined.world.service().options_mut().require_passkey = true;
    let client = joined.add_client();
    joined.connect(client);
    let qr = joined.clients[client].last_qr().unwrap();
    assert!(joined.world.scan(ANNA, &qr, joined.now).is_err());
    joined.settle();
    let events = &joined.clients[client].events;
    let options = events.iter().find_map(|event| match event {
        Event::PasskeyRequired { options } => Some(options),
        _ => None,
    });
    assert!(options.is_some_and(|options| options.contains("whatsapp.com")), "{events:?}");
    assert!(joined.clients[client].connection.is_some());
}

#[test]
fn nothing_is_encrypted_for_a_forged_bundle() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI)]);
    let client = joined.add_linked(ANNA);
    joined.world.fault(BUDI, 0, &Fault::FalseBundles { on: true }, joined.now).unwrap();
    joined.command(client, 1, text(BUDI, "to whom?"));
    joined.pass(Duration::from_secs(2));
    assert!(matches!(reply(&joined, client, 1), Reply::Failed(_)), "{:?}", reply(&joined, client, 1));
    assert!(texts(&joined, BUDI).is_empty());
    joined.world.fault(BUDI, 0, &Fault::FalseBundles { on: false }, joined.now).unwrap();
    // A device without a usable bundle is left out for a while.
    joined.pass(Duration::from_secs(120));
    joined.command(client, 2, text(BUDI, "to you"));
    joined.pass(Duration::from_secs(2));
    assert_eq!(texts(&joined, BUDI), ["to you"], "{:?}", reply(&joined, client, 2));
    joined.assert_no_violations();
}

#[test]
fn a_session_follows_its_account_when_it_migrates() {
    let mut joined = joined(&[NewPhone::number(ANNA).not_migrated(), NewPhone::number(BUDI).not_migrated()]);
    let client = joined.add_linked(ANNA);
    joined.command(client, 1, text(BUDI, "before"));
    joined.pass(Duration::from_secs(2));
    joined.world.send_text(BUDI, ANNA, "answer", joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    joined.world.migrate(ANNA, joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    joined.command(client, 2, text(BUDI, "after"));
    joined.pass(Duration::from_secs(2));
    joined.world.migrate(BUDI, joined.now).unwrap();
    joined.world.send_text(BUDI, ANNA, "answer after", joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    assert_eq!(texts(&joined, BUDI), ["before", "after"]);
    assert_eq!(told(&joined, client), ["answer", "answer after"]);
    // One chat under one name, whatever the stanzas said.
    let chats: std::collections::HashSet<_> =
        joined.clients[client].store.messages().iter().map(|record| record.chat.clone()).collect();
    assert_eq!(chats, [Jid::pn(BUDI)].into());
    joined.assert_no_violations();
}

#[test]
fn a_contact_with_a_new_phone_gets_the_next_messages() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI), NewPhone::number(CARO)]);
    let client = joined.add_linked(ANNA);
    let group = joined.world.create_group(ANNA, "Trio", &[BUDI, CARO], joined.now).unwrap();
    joined.settle();
    joined.command(client, 1, text(BUDI, "one"));
    joined.command(client, 2, text(&group, "all one"));
    joined.pass(Duration::from_secs(2));
    assert_eq!(texts(&joined, BUDI), ["one", "all one"]);
    joined.world.reinstall(BUDI, joined.now).unwrap();
    joined.pass(Duration::from_secs(10));
    joined.command(client, 3, text(BUDI, "two"));
    joined.command(client, 4, text(&group, "all two"));
    joined.pass(Duration::from_secs(5));
    assert_eq!(texts(&joined, BUDI), ["two", "all two"]);
    joined.world.send_text(BUDI, ANNA, "new here", joined.now).unwrap();
    joined.world.send_text(BUDI, &group, "new here, all", joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    assert_eq!(told(&joined, client), ["new here", "new here, all"]);
    assert_eq!(texts(&joined, CARO), ["all one", "all two", "new here, all"]);
    joined.assert_no_violations();
}

#[test]
fn a_demanded_token_is_sent_once_it_is_known() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI)]);
    joined.world.service().options_mut().require_tokens = true;
    let client = joined.add_linked(ANNA);
    joined.command(client, 1, text(BUDI, "unasked"));
    joined.pass(Duration::from_secs(6));
    let refused = matches!(reply(&joined, client, 1), Reply::Failed(CommandError::Refused { code: 463, .. }));
    assert!(refused, "{:?}", reply(&joined, client, 1));
    joined.world.send_text(BUDI, ANNA, "do write to me", joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    joined.command(client, 2, text(BUDI, "gladly"));
    joined.pass(Duration::from_secs(2));
    assert_eq!(texts(&joined, BUDI), ["gladly"]);
    assert!(matches!(reply(&joined, client, 2), Reply::Sent { .. }), "{:?}", reply(&joined, client, 2));
}

#[test]
fn a_message_refused_for_want_of_a_token_waits_for_it_and_goes_out_once() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI)]);
    joined.world.service().options_mut().require_tokens = true;
    let client = joined.add_linked(ANNA);
    joined.command(client, 1, text(BUDI, "may I?"));
    joined.command(client, 2, text(BUDI, "and this?"));
    joined.pass(Duration::from_secs(3));
    assert!(joined.clients[client].replies.is_empty(), "{:?}", joined.clients[client].replies);
    joined.world.send_text(BUDI, ANNA, "please do", joined.now).unwrap();
    joined.pass(Duration::from_secs(1));
    assert_eq!(texts(&joined, BUDI), ["may I?", "and this?"]);
    for command in [1, 2] {
        assert!(matches!(reply(&joined, client, command), Reply::Sent { .. }));
    }
    joined.assert_no_violations();
}

#[test]
fn messages_of_chats_that_overtake_each_other_all_arrive() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI), NewPhone::number(CARO)]);
    let client = joined.add_linked(ANNA);
    // With the first message comes a token, which overtakes nothing.
    for phone in [BUDI, CARO] {
        joined.world.send_text(phone, ANNA, "hello", joined.now).unwrap();
        joined.pass(Duration::from_secs(1));
    }
    joined.world.fault(ANNA, 1, &Fault::Reorder { on: true }, joined.now).unwrap();
    for n in 0..3 {
        joined.world.send_text(BUDI, ANNA, &format!("b{n}"), joined.now).unwrap();
        joined.world.send_text(CARO, ANNA, &format!("c{n}"), joined.now).unwrap();
    }
    joined.pass(Duration::from_secs(2));
    assert_eq!(told(&joined, client), ["hello", "hello", "c0", "b0", "c1", "b1", "c2", "b2"]);
    joined.assert_no_violations();
}

#[test]
fn another_device_of_ours_that_asks_for_app_state_keys_gets_those_we_have() {
    let mut joined = joined(&[NewPhone::number(ANNA)]);
    let _client = joined.add_linked(ANNA);
    joined.world.ask_app_state_keys(ANNA, 1, &[None, Some(vec![9; 6])], joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    let phone = joined.world.phone(ANNA).unwrap();
    let [(known, Some(data)), (unknown, None)] = phone.shared_app_state_keys() else {
        panic!("{:?}", phone.shared_app_state_keys());
    };
    assert!(phone.is_app_state_key(known, data));
    assert_eq!(unknown, &[9; 6]);
    joined.assert_no_violations();
}

#[test]
fn while_whatsapp_is_away_only_so_many_messages_are_taken() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI)]);
    let client = joined.add_linked(ANNA);
    joined.command(client, 1, text(BUDI, "hello"));
    joined.pass(Duration::from_secs(1));
    joined.cut(client);
    for n in 0..1002 {
        joined.queue_command(client, 10 + n, text(BUDI, &format!("{n}")));
    }
    joined.settle();
    let refused: Vec<_> = joined.clients[client].replies.iter().filter(|(id, _)| *id >= 10).collect();
    let [(1010, first), (1011, second)] = refused.as_slice() else { panic!("{refused:?}") };
    assert!(matches!(first, Reply::Failed(CommandError::QueueFull)));
    assert!(matches!(second, Reply::Failed(CommandError::QueueFull)));
    assert_eq!(joined.clients[client].store.messages().len(), 1001, "nothing of the others is kept");
    joined.connect(client);
    joined.pass(Duration::from_secs(5));
    assert_eq!(texts(&joined, BUDI).len(), 1001);
    joined.command(client, 2000, text(BUDI, "again"));
    joined.pass(Duration::from_secs(1));
    assert!(matches!(reply(&joined, client, 2000), Reply::Sent { .. }));
    joined.assert_no_violations();
}

#[test]
fn what_comes_again_because_its_answer_got_lost_is_answered_and_told_once() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI)]);
    let client = joined.add_linked(ANNA);
    joined.world.fault(ANNA, 1, &Fault::LoseAnswers { on: true }, joined.now).unwrap();
    joined.world.send_text(BUDI, ANNA, "hello?", joined.now).unwrap();
    joined.pass(Duration::from_secs(2));
    joined.cut(client);
    joined.connect(client);
    joined.pass(Duration::from_secs(5));
    assert_eq!(told(&joined, client), ["hello?"]);
    let view = joined.world.service().views().swap_remove(0);
    assert_eq!((view.devices[0].queued, view.devices[0].unanswered), (0, 0));
    assert_eq!(joined.world.messages(BUDI)[0].status, "delivered");
    joined.assert_no_violations();
}

#[test]
fn aggregated_receipts_count_for_everybody_in_them() {
    let mut joined = joined(&[NewPhone::number(ANNA), NewPhone::number(BUDI), NewPhone::number(CARO)]);
    joined.world.service().options_mut().aggregate_receipts = true;
    let client = joined.add_linked(ANNA);
    let group = joined.world.create_group(ANNA, "Trio", &[BUDI, CARO], joined.now).unwrap();
    joined.settle();
    joined.command(client, 1, text(&group, "all"));
    joined.pass(Duration::from_secs(2));
    let id = match reply(&joined, client, 1) {
        Reply::Sent { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    let from: std::collections::HashSet<_> = joined.clients[client]
        .store
        .events()
        .iter()
        .chain(&joined.clients[client].events)
        .filter_map(|event| match event {
            Event::MessageStatus { id: about, participant, .. } if *about == id => participant.clone(),
            _ => None,
        })
        .map(|jid| jid.to_user().user)
        .collect();
    assert_eq!(from.len(), 2, "{from:?}");
    joined.assert_no_violations();
}
