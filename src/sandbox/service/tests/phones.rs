use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::{
    sandbox::world::{NewPhone, World},
    whatsapp::ctx::Now,
};

const NOW: Now = Now { mono: Duration::from_secs(1), unix_ms: 1_780_000_000_000 };

fn world(phones: &[&str]) -> World {
    let mut world = World::new(Box::new(ChaCha20Rng::seed_from_u64(7)), NOW);
    for number in phones {
        world.add_phone(NewPhone::number(number), NOW).unwrap();
    }
    world
}

#[test]
fn phones_chat_and_see_what_was_delivered_and_read() {
    let mut world = world(&["4915100000001", "4915100000002"]);
    for round in 0..5 {
        world.send_text("4915100000001", "4915100000002", &format!("a{round}"), NOW).unwrap();
        world.send_text("4915100000002", "+4915100000001", &format!("b{round}"), NOW).unwrap();
    }
    world.mark_read("4915100000002", "4915100000001", NOW).unwrap();
    let texts = |phone| {
        let received = world.messages(phone).iter().filter(|message| !message.from_me);
        received.map(|message| message.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(texts("4915100000002"), ["a0", "a1", "a2", "a3", "a4"]);
    assert_eq!(texts("4915100000001"), ["b0", "b1", "b2", "b3", "b4"]);
    let status = |phone| {
        let sent = world.messages(phone).iter().filter(|message| message.from_me);
        sent.map(|message| message.status).collect::<Vec<_>>()
    };
    assert_eq!(status("4915100000001"), ["read"; 5]);
    assert_eq!(status("4915100000002"), ["delivered"; 5]);
}

#[test]
fn phones_chat_in_a_group_also_after_somebody_left() {
    let numbers = ["4915100000001", "4915100000002", "4915100000003"];
    let mut world = world(&numbers);
    let group = world.create_group(numbers[0], "Trio", &numbers[1..], NOW).unwrap();
    for number in numbers {
        world.send_text(number, &group, &format!("from {number}"), NOW).unwrap();
    }
    world
        .change_member(numbers[0], &group, crate::sandbox::service::MemberChange::Remove, numbers[2], NOW)
        .unwrap();
    world.send_text(numbers[0], &group, "just us", NOW).unwrap();
    assert!(world.send_text(numbers[2], &group, "me too?", NOW).is_err());
    let count = |number| world.messages(number).iter().filter(|message| !message.from_me).count();
    assert_eq!(numbers.map(count), [2, 3, 2]);
}

#[test]
fn a_phone_that_lost_its_sessions_gets_messages_again() {
    let mut world = world(&["4915100000001", "4915100000002"]);
    world.send_text("4915100000001", "4915100000002", "one", NOW).unwrap();
    world.send_text("4915100000002", "4915100000001", "two", NOW).unwrap();
    world.forget_sessions("4915100000002", NOW).unwrap();
    world.send_text("4915100000001", "4915100000002", "three", NOW).unwrap();
    world.send_text("4915100000002", "4915100000001", "four", NOW).unwrap();
    let texts = |phone| {
        let received = world.messages(phone).iter().filter(|message| !message.from_me);
        received.map(|message| message.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(texts("4915100000002"), ["one", "three"]);
    assert_eq!(texts("4915100000001"), ["two", "four"]);
}

#[test]
fn numbers_are_checked_and_unique() {
    let mut world = world(&["4915100000001"]);
    assert!(world.add_phone(NewPhone::number("4915100000001"), NOW).is_err());
    assert!(world.add_phone(NewPhone::number("12x45"), NOW).is_err());
    assert!(world.send_text("4915100000001", "4915100000009", "x", NOW).is_err());
}
