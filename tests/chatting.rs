//! Sessions chat with phones and with each other through the simulated WhatsApp: texts, receipts, retries, groups.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod joined;

use std::time::Duration;

use joined::Joined;
use whatsapp_worker::{
    sandbox::{service::MemberChange, world::NewPhone},
    whatsapp::{
        jid::Jid,
        model::{
            Command, Event, MessageRecord, MessageStatus, OutgoingContent, QuotedMessage, Reply, SendId,
            SendRequest,
        },
        state::Table,
    },
};

const ANNA: &str = "4915100000001";
const BUDI: &str = "6281200000002";
const CARO: &str = "4915100000003";

fn text(to: &str, body: &str) -> Command {
    let to = if to.contains('@') { to.parse().unwrap() } else { Jid::pn(to.to_owned()) };
    let content = OutgoingContent::Text { body: body.to_owned(), quote: None, mentions: vec![] };
    Command::Send(SendRequest { to, id: SendId::Generate, content })
}

/// The messages a session was told of, as (sender, text).
fn received(joined: &Joined, client: usize) -> Vec<(String, String)> {
    let told = joined.clients[client].store.events().iter().filter_map(|event| match event {
        Event::Message(record, _) => Some((record.sender.user.to_string(), record.content.clone())),
        _ => None,
    });
    told.collect()
}

fn sent_id(joined: &Joined, client: usize, command: u64) -> String {
    match joined.clients[client].replies.iter().find(|(id, _)| *id == command) {
        Some((_, Reply::Sent { id, .. })) => id.clone(),
        other => panic!("command {command}: {other:?}"),
    }
}

fn status_of(joined: &Joined, client: usize, id: &str) -> MessageStatus {
    record(joined, client, id).status
}

fn record<'a>(joined: &'a Joined, client: usize, id: &str) -> &'a MessageRecord {
    joined.clients[client].store.messages().iter().find(|record| record.id == id).unwrap()
}

/// Phones of both kinds of account, and a session linked to the first.
fn anna_and(others: &[NewPhone], anna: NewPhone) -> (Joined, usize) {
    let mut joined = Joined::new(7);
    joined.world.add_phone(anna, joined.now).unwrap();
    for phone in others {
        joined.world.add_phone(phone.clone(), joined.now).unwrap();
    }
    let client = joined.add_linked(ANNA);
    (joined, client)
}

#[test]
fn texts_go_both_ways_between_a_session_and_a_phone_in_both_namespaces() {
    for anna in [NewPhone::number(ANNA), NewPhone::number(ANNA).not_migrated()] {
        let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], anna);
        joined.command(client, 1, text(BUDI, "hello"));
        joined.pass(Duration::from_secs(1));
        let id = sent_id(&joined, client, 1);
        let theirs = joined.world.messages(BUDI);
        assert_eq!(theirs.last().map(|message| message.text.as_str()), Some("hello"));
        assert_eq!(theirs.last().map(|message| message.id.clone()), Some(id.clone()));
        // Our own phone shows it in the same chat.
        let own = joined.world.messages(ANNA).last().cloned().unwrap();
        assert!(own.from_me && own.text == "hello", "{own:?}");
        assert_eq!(status_of(&joined, client, &id), MessageStatus::Delivered);

        joined.world.send_text(BUDI, ANNA, "hi Anna", joined.now).unwrap();
        joined.settle();
        assert_eq!(received(&joined, client), [(BUDI.to_owned(), "hi Anna".to_owned())]);
        joined.world.mark_read(BUDI, ANNA, joined.now).unwrap();
        joined.settle();
        assert_eq!(status_of(&joined, client, &id), MessageStatus::Read);
        for n in 0..5 {
            joined.command(client, 10 + n, text(BUDI, &n.to_string()));
            joined.world.send_text(BUDI, ANNA, &n.to_string(), joined.now).unwrap();
            joined.settle();
        }
        assert_eq!(received(&joined, client).len(), 6);
        assert_eq!(joined.world.messages(BUDI).iter().filter(|message| !message.from_me).count(), 6);
        joined.assert_no_violations();
    }
}

#[test]
fn what_the_phone_sends_itself_appears_in_the_chat_of_its_recipient() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    joined.world.send_text(ANNA, BUDI, "from the phone", joined.now).unwrap();
    joined.settle();
    let record = joined.clients[client].store.messages().last().cloned().unwrap();
    assert!(record.from_me);
    assert_eq!(record.chat, Jid::pn(BUDI));
    assert_eq!(record.sender, Jid::pn(ANNA));
    assert_eq!(record.content, "from the phone");
    joined.assert_no_violations();
}

#[test]
fn hundreds_of_texts_are_on_the_wire_at_once_and_arrive_in_order() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    for n in 0..300 {
        joined.queue_command(client, n, text(BUDI, &n.to_string()));
    }
    joined.settle();
    joined.pass(Duration::from_secs(1));
    let texts: Vec<String> = joined.world.messages(BUDI).iter().map(|message| message.text.clone()).collect();
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(texts, expected);
    assert!((0..300).all(|n| !sent_id(&joined, client, n).is_empty()));
    joined.assert_no_violations();
}

#[test]
fn a_message_to_nobody_fails_and_is_kept_as_failed() {
    let (mut joined, client) = anna_and(&[], NewPhone::number(ANNA));
    joined.command(client, 1, text("6281299999999", "anybody?"));
    joined.pass(Duration::from_secs(1));
    let replies = &joined.clients[client].replies;
    assert!(matches!(replies.last(), Some((1, Reply::Failed(_)))), "{replies:?}");
    let record = joined.clients[client].store.messages().last().unwrap();
    assert_eq!(record.status, MessageStatus::Failed);
    joined.assert_no_violations();
}

#[test]
fn what_is_sent_while_offline_waits_for_the_connection_and_survives_a_crash() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    joined.cut(client);
    joined.command(client, 1, text(BUDI, "one"));
    joined.crash(client);
    joined.command(client, 2, text(BUDI, "two"));
    joined.connect(client);
    joined.pass(Duration::from_secs(2));
    let texts: Vec<&str> = joined.world.messages(BUDI).iter().map(|message| message.text.as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(joined.clients[client].store.messages()[0].status, MessageStatus::Delivered);
    joined.assert_no_violations();
}

#[test]
fn what_waited_offline_is_received_once_with_batched_receipts() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    joined.cut(client);
    for n in 0..20 {
        joined.world.send_text(BUDI, ANNA, &n.to_string(), joined.now).unwrap();
    }
    joined.connect(client);
    joined.pass(Duration::from_secs(2));
    assert_eq!(received(&joined, client).len(), 20);
    joined.cut(client);
    joined.connect(client);
    joined.pass(Duration::from_secs(2));
    assert_eq!(received(&joined, client).len(), 20);
    assert!(joined.world.messages(BUDI).iter().all(|message| message.status == "delivered"));
    joined.assert_no_violations();
}

#[test]
fn a_phone_that_lost_its_sessions_gets_the_message_again() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    joined.command(client, 1, text(BUDI, "one"));
    joined.world.send_text(BUDI, ANNA, "answer", joined.now).unwrap();
    joined.settle();
    joined.world.forget_sessions(BUDI, joined.now).unwrap();
    joined.command(client, 2, text(BUDI, "two"));
    joined.pass(Duration::from_secs(5));
    let texts: Vec<&str> = joined.world.messages(BUDI).iter().map(|m| m.text.as_str()).collect();
    assert_eq!(texts, ["one", "answer", "two"]);
    joined.assert_no_violations();
}

#[test]
fn a_session_that_lost_its_ratchets_asks_and_gets_the_message_again() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    joined.command(client, 1, text(BUDI, "one"));
    joined.world.send_text(BUDI, ANNA, "two", joined.now).unwrap();
    joined.settle();
    joined.crash(client);
    joined.clients[client].store.clear(Table::Session);
    joined.connect(client);
    joined.world.send_text(BUDI, ANNA, "three", joined.now).unwrap();
    joined.pass(Duration::from_secs(5));
    let texts: Vec<String> = received(&joined, client).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["two", "three"]);
    joined.assert_no_violations();
}

#[test]
fn a_quote_and_a_mention_reach_the_other_side() {
    let (mut joined, client) = anna_and(&[NewPhone::number(BUDI)], NewPhone::number(ANNA));
    joined.world.send_text(BUDI, ANNA, "question", joined.now).unwrap();
    joined.settle();
    let question = joined.clients[client].store.messages().last().unwrap().id.clone();
    let content = OutgoingContent::Text {
        body: format!("@{BUDI} answer"),
        quote: Some(QuotedMessage { id: question, participant: Jid::pn(BUDI) }),
        mentions: vec![Jid::pn(BUDI)],
    };
    joined.command(
        client,
        1,
        Command::Send(SendRequest { to: Jid::pn(BUDI), id: SendId::Generate, content }),
    );
    joined.pass(Duration::from_secs(1));
    let shown = joined.world.messages(BUDI).last().unwrap();
    assert_eq!(shown.text, format!("@{BUDI} answer"));
    assert_eq!(shown.quoted.as_deref(), Some("question"));
    joined.assert_no_violations();
}

/// Three accounts, each with a phone and a session.
fn three(migrated: bool) -> (Joined, [usize; 3]) {
    let mut joined = Joined::new(11);
    for number in [ANNA, BUDI, CARO] {
        let phone = NewPhone::number(number);
        let phone = if migrated { phone } else { phone.not_migrated() };
        joined.world.add_phone(phone, joined.now).unwrap();
    }
    let clients = [joined.add_linked(ANNA), joined.add_linked(BUDI), joined.add_linked(CARO)];
    (joined, clients)
}

#[test]
fn two_sessions_talk_to_each_other_and_their_phones_see_it() {
    for migrated in [true, false] {
        let (mut joined, [anna, budi, _]) = three(migrated);
        for n in 0..10 {
            joined.command(anna, n, text(BUDI, &format!("a{n}")));
            joined.command(budi, n, text(ANNA, &format!("b{n}")));
        }
        joined.pass(Duration::from_secs(1));
        let expected: Vec<_> = (0..10).map(|n| (ANNA.to_owned(), format!("a{n}"))).collect();
        assert_eq!(received(&joined, budi), expected);
        assert_eq!(received(&joined, anna).len(), 10);
        assert_eq!(joined.world.messages(ANNA).len(), 20);
        assert_eq!(joined.world.messages(BUDI).len(), 20);
        joined.assert_no_violations();
    }
}

#[test]
fn a_group_of_three_works_in_both_namespaces_and_keeps_leavers_out() {
    for migrated in [true, false] {
        let (mut joined, [anna, budi, caro]) = three(migrated);
        let create =
            Command::CreateGroup { subject: "Trip".into(), participants: vec![Jid::pn(BUDI), Jid::pn(CARO)] };
        joined.command(anna, 1, create);
        let group = match joined.clients[anna].replies.last() {
            Some((1, Reply::Group(info))) => info.jid.to_string(),
            other => panic!("{other:?}"),
        };
        for (n, client) in [anna, budi, caro].into_iter().cycle().take(9).enumerate() {
            joined.command(client, 100 + n as u64, text(&group, &format!("m{n}")));
            joined.pass(Duration::from_millis(300));
        }
        for client in [anna, budi, caro] {
            assert_eq!(received(&joined, client).len(), 6, "migrated {migrated}");
        }
        assert_eq!(joined.world.messages(CARO).len(), 9);
        joined.assert_no_violations();

        joined.world.change_member(ANNA, &group, MemberChange::Remove, CARO, joined.now).unwrap();
        joined.settle();
        joined.command(anna, 200, text(&group, "without Caro"));
        joined.pass(Duration::from_secs(1));
        assert_eq!(received(&joined, budi).last().unwrap().1, "without Caro");
        assert_eq!(received(&joined, caro).len(), 6);
        assert_eq!(joined.world.messages(CARO).len(), 9);
        joined.world.change_member(ANNA, &group, MemberChange::Add, CARO, joined.now).unwrap();
        joined.settle();
        joined.command(budi, 201, text(&group, "with Caro"));
        joined.pass(Duration::from_secs(1));
        assert_eq!(received(&joined, caro).last().unwrap().1, "with Caro");
        joined.assert_no_violations();
    }
}

#[test]
fn a_member_that_lost_everything_gets_the_group_message_by_retry() {
    let (mut joined, [anna, budi, _]) = three(true);
    let group = joined.world.create_group(ANNA, "Trip", &[BUDI, CARO], joined.now).unwrap();
    joined.settle();
    joined.command(anna, 1, text(&group, "one"));
    joined.pass(Duration::from_secs(1));
    joined.crash(budi);
    joined.clients[budi].store.clear(Table::Session);
    joined.clients[budi].store.clear(Table::SenderKey);
    joined.connect(budi);
    joined.command(anna, 2, text(&group, "two"));
    joined.pass(Duration::from_secs(5));
    let texts: Vec<String> = received(&joined, budi).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one", "two"]);
    joined.command(anna, 3, text(&group, "three"));
    joined.pass(Duration::from_secs(1));
    assert_eq!(received(&joined, budi).last().unwrap().1, "three");
    joined.assert_no_violations();
}

#[test]
fn our_phone_gives_what_the_sender_cannot_send_again() {
    let (mut joined, [anna, budi, _]) = three(true);
    joined.command(anna, 1, text(BUDI, "one"));
    joined.command(budi, 1, text(ANNA, "two"));
    joined.pass(Duration::from_secs(1));
    joined.crash(budi);
    joined.clients[budi].store.clear(Table::Session);
    joined.command(anna, 2, text(BUDI, "three"));
    joined.cut(anna);
    joined.connect(budi);
    joined.pass(Duration::from_secs(3));
    assert_eq!(received(&joined, budi).len(), 1);
    joined.pass(Duration::from_secs(5));
    assert_eq!(received(&joined, budi).last().unwrap(), &(ANNA.to_owned(), "three".to_owned()));
    // The sender's own resend comes second and is dropped.
    joined.connect(anna);
    joined.pass(Duration::from_secs(5));
    assert_eq!(received(&joined, budi).len(), 2);
    joined.assert_no_violations();
}

#[test]
fn a_new_companion_takes_part_from_its_first_minute() {
    let (mut joined, [anna, budi, _]) = three(true);
    let group = joined.world.create_group(ANNA, "Trip", &[BUDI, CARO], joined.now).unwrap();
    joined.settle();
    joined.command(anna, 1, text(&group, "one"));
    joined.command(anna, 2, text(BUDI, "direct one"));
    joined.pass(Duration::from_secs(1));
    let second = joined.add_linked(BUDI);
    joined.command(anna, 3, text(&group, "two"));
    joined.command(anna, 4, text(BUDI, "direct two"));
    joined.pass(Duration::from_secs(5));
    let mut texts: Vec<String> = received(&joined, second).into_iter().map(|(_, text)| text).collect();
    texts.sort();
    assert_eq!(texts, ["direct two", "two"]);
    assert_eq!(received(&joined, budi).len(), 4);
    joined.assert_no_violations();
}

#[test]
fn reading_is_told_to_the_author() {
    let (mut joined, [anna, budi, _]) = three(true);
    joined.command(anna, 1, text(BUDI, "read me"));
    joined.pass(Duration::from_secs(1));
    let id = sent_id(&joined, anna, 1);
    let read = Command::MarkRead { chat: Jid::pn(ANNA), participant: None, ids: vec![id.clone()] };
    joined.command(budi, 1, read);
    assert!(matches!(joined.clients[budi].replies.last(), Some((1, Reply::Done))));
    assert_eq!(status_of(&joined, anna, &id), MessageStatus::Read);
    let progress: Vec<MessageStatus> = joined.clients[anna]
        .store
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::MessageStatus { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(progress, [MessageStatus::Sent, MessageStatus::Delivered, MessageStatus::Read]);
    joined.assert_no_violations();
}
