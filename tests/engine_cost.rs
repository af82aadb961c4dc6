//! What a text costs inside the engine, without sockets and disk: run it alone, in release.
//!
//! `cargo test --release --test engine_cost -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod joined;

use std::time::{Duration, Instant};

use joined::Joined;
use whatsapp_worker::{
    sandbox::world::NewPhone,
    whatsapp::{
        jid::Jid,
        model::{Command, Event, OutgoingContent, SendId, SendRequest},
    },
};

const ANNA: &str = "4915100000001";
const BUDI: &str = "6281200000002";
const TEXTS: u64 = 6000;

fn text(body: String) -> Command {
    let content = OutgoingContent::Text { body, quote: None, mentions: vec![] };
    Command::Send(SendRequest { to: Jid::pn(BUDI), id: SendId::Generate, content })
}

#[test]
#[ignore = "a measurement"]
fn a_text_sent_and_received_between_warm_sessions() {
    let mut joined = Joined::new(3);
    joined.world.add_phone(NewPhone::number(ANNA), joined.now).unwrap();
    joined.world.add_phone(NewPhone::number(BUDI), joined.now).unwrap();
    let (anna, budi) = (joined.add_linked(ANNA), joined.add_linked(BUDI));
    for n in 0..20 {
        joined.command(anna, n, text("warm".to_owned()));
        joined.world.send_text(BUDI, ANNA, "warm", joined.now).unwrap();
        joined.pass(Duration::from_millis(200));
    }
    joined.spent = vec![Duration::ZERO; 2];
    let start = Instant::now();
    let mut accepting = Duration::ZERO;
    for n in 0..TEXTS {
        let before = joined.spent[anna];
        joined.queue_command(anna, 100 + n, text(format!("text number {n} of a usual length")));
        accepting += joined.spent[anna] - before;
        joined.settle();
    }
    let all = start.elapsed();
    let received = joined.clients[budi].store.events();
    let received = received.iter().filter(|event| matches!(event, Event::Message(..))).count();
    assert_eq!(received as u64, TEXTS + 40);
    let per = |spent: Duration| spent.as_secs_f64() * 1e6 / TEXTS as f64;
    println!("sender, until the stanza is ready: {:.1} us per text (3 copies)", per(accepting));
    println!("sender: {:.1} us per text, with its ack and 3 receipts", per(joined.spent[anna]));
    println!("receiver: {:.1} us per text (message, receipt)", per(joined.spent[budi]));
    println!("everything, service and phones included: {:.1} us", per(all));
}
