//! The engine against the simulated WhatsApp: linking, login, what ends a session. No stanza of ours breaks a rule.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod joined;

use std::time::Duration;

use joined::Joined;
use whatsapp_worker::{
    sandbox::{link::ChainLie, service::Fault, world::NewPhone},
    whatsapp::{
        engine::Engine,
        model::{Command, DisconnectReason, Event, Reply},
        state::Table,
    },
};

const ANNA: &str = "4915100000001";

fn world() -> Joined {
    let mut joined = Joined::new(1);
    joined.world.add_phone(NewPhone::number(ANNA), joined.now).expect("the number is free");
    joined
}

#[test]
fn a_session_is_linked_by_qr_and_logs_in_again_after_a_cut_and_a_crash() {
    let mut joined = world();
    let session = joined.add_linked(ANNA);
    for crash in [false, true] {
        if crash {
            joined.crash(session);
        } else {
            joined.cut(session);
        }
        joined.clients[session].events.clear();
        joined.connect(session);
        joined.pass(Duration::from_secs(1));
        let events = &joined.clients[session].events;
        assert!(matches!(events.first(), Some(Event::Connected { lid: Some(_), .. })), "{events:?}");
        assert!(events.contains(&Event::Ready), "{events:?}");
    }
    joined.pass(Duration::from_secs(600));
    assert!(joined.clients[session].ended.is_empty(), "{:?}", joined.clients[session].ended);
    joined.assert_no_violations();
}

#[test]
fn a_server_that_cannot_prove_itself_is_left_and_told_nothing() {
    for lie in [
        ChainLie::WrongRoot,
        ChainLie::ForgedLeaf,
        ChainLie::OtherKey,
        ChainLie::Expired,
        ChainLie::WrongSerial,
        ChainLie::MissingLeaf,
        ChainLie::MissingIntermediate,
    ] {
        let mut joined = world();
        let session = joined.add_linked(ANNA);
        joined.cut(session);
        joined.clients[session].events.clear();
        joined.world.lie(lie);
        joined.connect(session);
        let client = &joined.clients[session];
        assert!(matches!(&client.ended[..], [DisconnectReason::Retry { .. }]), "{lie:?}: {:?}", client.ended);
        assert!(client.events.is_empty() && Engine::is_paired(&client.store).unwrap());
        joined.clients[session].ended.clear();
        joined.world.lie(ChainLie::None);
        joined.connect(session);
        assert!(matches!(joined.clients[session].events.first(), Some(Event::Connected { .. })), "{lie:?}");
    }
}

#[test]
fn a_crash_between_any_two_outputs_of_a_linking_can_be_recovered_from() {
    let mut recovered = [0; 3];
    for outputs in 0..40 {
        let mut joined = world();
        let session = joined.add_client();
        joined.crash_after(session, outputs);
        joined.connect(session);
        if let Some(qr) = joined.clients[session].last_qr() {
            // Fails when the client is dead already.
            let _ = joined.world.scan(ANNA, &qr, joined.now);
            joined.settle();
        }
        joined.pass(Duration::from_secs(1));
        if joined.clients[session].connection.is_some() {
            recovered[0] += 1;
            continue;
        }
        joined.clients[session].events.clear();
        joined.connect(session);
        if matches!(joined.clients[session].ended.last(), Some(DisconnectReason::LoggedOut { .. })) {
            // Our credentials were durable, but the phone never got our answer.
            recovered[1] += 1;
            joined.connect(session);
        }
        if let Some(qr) = joined.clients[session].last_qr() {
            recovered[2] += 1;
            joined.world.scan(ANNA, &qr, joined.now).unwrap();
            joined.settle();
        }
        joined.pass(Duration::from_secs(1));
        let events = &joined.clients[session].events;
        assert!(events.contains(&Event::Ready), "crash after {outputs} outputs: {events:?}");
        joined.assert_no_violations();
    }
    assert!(recovered.iter().all(|count| *count > 0), "the fuse is too short or too long: {recovered:?}");
}

#[test]
fn a_session_is_linked_by_code() {
    let mut joined = world();
    let session = joined.add_client();
    joined.command(session, 1, Command::PairCode { phone: ANNA.to_owned() });
    joined.connect(session);
    let [(1, Reply::PairCode { code, .. })] = &joined.clients[session].replies[..] else {
        panic!("{:?}", joined.clients[session].replies)
    };
    let code = code.clone();
    joined.world.pair_code(ANNA, &code, joined.now).unwrap();
    joined.settle();
    joined.pass(Duration::from_secs(2));
    assert!(joined.clients[session].events.contains(&Event::Ready));
    assert_eq!(joined.clients[session].ended, [DisconnectReason::RestartRequired]);
    joined.assert_no_violations();
}

#[test]
fn an_unscanned_qr_times_out() {
    let mut joined = world();
    let session = joined.add_client();
    joined.connect(session);
    joined.pass(Duration::from_secs(200));
    let qrs = joined.clients[session].events.iter().filter(|event| matches!(event, Event::Qr { .. }));
    assert!(qrs.count() > 3);
    assert_eq!(joined.clients[session].ended, [DisconnectReason::QrTimeout]);
    joined.assert_no_violations();
}

#[test]
fn a_low_pool_is_filled() {
    let mut joined = world();
    let session = joined.add_linked(ANNA);
    let before = joined.clients[session].store.count(Table::PreKey);
    joined.world.fault(ANNA, 1, &Fault::LowPrekeys { count: 3 }, joined.now).unwrap();
    joined.settle();
    assert!(joined.clients[session].store.count(Table::PreKey) >= before + 200);
    joined.assert_no_violations();
}

#[test]
fn a_frozen_connection_is_noticed_within_sixty_seconds() {
    let mut joined = world();
    let session = joined.add_linked(ANNA);
    joined.world.fault(ANNA, 1, &Fault::Freeze, joined.now).unwrap();
    joined.pass(Duration::from_secs(60));
    let ended = &joined.clients[session].ended;
    assert!(matches!(&ended[..], [DisconnectReason::Retry { .. }]), "{ended:?}");
}

#[test]
fn a_logout_unlinks_and_a_replaced_session_keeps_its_link() {
    let mut joined = world();
    let session = joined.add_linked(ANNA);
    joined.world.fault(ANNA, 1, &Fault::Replaced, joined.now).unwrap();
    joined.settle();
    assert_eq!(joined.clients[session].ended, [DisconnectReason::Replaced]);
    assert!(Engine::is_paired(&joined.clients[session].store).unwrap());
    joined.connect(session);
    joined.command(session, 7, Command::Logout);
    assert!(matches!(&joined.clients[session].replies[..], [(7, Reply::Done)]));
    assert!(!Engine::is_paired(&joined.clients[session].store).unwrap());
    joined.assert_no_violations();
}
