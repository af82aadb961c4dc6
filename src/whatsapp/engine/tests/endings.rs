//! How connections and links end: both tables, row by row, and what they leave behind.

use super::*;
use crate::whatsapp::{
    model::MessageRecord,
    state::{ReadError, StateRead},
};

fn gone(scene: &Scene) -> bool {
    Table::ALL.iter().all(|table| scene.store.count(*table) == 0)
        && matches!(scene.store.events(), [Event::LoggedOut { .. }])
}

fn kept(scene: &Scene) -> bool {
    scene.credentials().is_some_and(|credentials| credentials.is_paired()) && scene.store.events().is_empty()
}

/// What a row of the tables must lead to.
#[derive(Debug, Clone, Copy)]
enum Expected {
    LoggedOut,
    Banned,
    Outdated,
    Stop,
    Retry(u32),
    Restart,
    Replaced,
    Stay,
}

fn check(scene: &Scene, expected: Expected, row: &str) {
    let right = match (expected, scene.ended.as_slice()) {
        (Expected::LoggedOut, [DisconnectReason::LoggedOut { .. }]) => return assert!(gone(scene), "{row}"),
        (Expected::Banned, [DisconnectReason::Banned { code: 104, expires_in }]) => {
            *expires_in == Duration::from_secs(600)
        }
        (Expected::Outdated, [DisconnectReason::ClientOutdated])
        | (Expected::Stop, [DisconnectReason::Stop { .. }])
        | (Expected::Restart, [DisconnectReason::RestartRequired])
        | (Expected::Replaced, [DisconnectReason::Replaced])
        | (Expected::Stay, []) => true,
        (Expected::Retry(steps), [DisconnectReason::Retry { extra_steps, .. }]) => steps == *extra_steps,
        _ => false,
    };
    assert!(right && kept(scene), "{row}: {expected:?}, got {:?}", scene.ended);
}

#[test]
fn each_connect_failure_has_its_reaction() {
    let rows = [
        ("400", Expected::Stop),
        ("401", Expected::LoggedOut),
        ("402", Expected::Banned),
        ("403", Expected::LoggedOut),
        ("405", Expected::Outdated),
        ("406", Expected::LoggedOut),
        ("409", Expected::Stop),
        ("413", Expected::Stop),
        ("414", Expected::Stop),
        ("415", Expected::Stop),
        ("418", Expected::Stop),
        ("429", Expected::Retry(5)),
        ("500", Expected::Retry(0)),
        ("501", Expected::Stop),
        ("503", Expected::Retry(0)),
        ("999", Expected::Stop),
        ("nonsense", Expected::Stop),
    ];
    for (reason, expected) in rows {
        let mut scene = Scene::linked();
        scene.connect();
        let failure = Node::new("failure").attr("reason", reason).attr("code", "104").attr("expire", "600");
        scene.deliver(&failure);
        check(&scene, expected, reason);
    }
}

#[test]
fn each_stream_error_has_its_reaction() {
    let error = || Node::new("stream:error");
    let conflict = |kind: &'static str| Node::new("conflict").attr("type", kind);
    let rows = [
        (error().attr("code", "515"), Expected::Restart),
        (error().attr("code", "516"), Expected::LoggedOut),
        (error().attr("code", "401").child(conflict("device_removed")), Expected::LoggedOut),
        (error().attr("code", "401"), Expected::Retry(0)),
        (error().child(conflict("replaced")), Expected::Replaced),
        (error().attr("code", "409"), Expected::Replaced),
        (error().attr("code", "429"), Expected::Retry(5)),
        (error().attr("code", "500"), Expected::Retry(0)),
        (error().attr("code", "503"), Expected::Retry(0)),
        (error().child(Node::new("ping").attr("id", "1")), Expected::Retry(0)),
        (error().child(Node::new("xml-not-well-formed")), Expected::Retry(0)),
        (error().child(Node::new("ack").attr("class", "message").attr("id", "M1")), Expected::Stay),
        (error().attr("code", "777"), Expected::Stay),
        (error(), Expected::Stay),
        (Node::new("xmlstreamend"), Expected::Retry(0)),
    ];
    for (node, expected) in rows {
        let mut scene = Scene::ready();
        scene.deliver(&node);
        check(&scene, expected, &node.to_string());
    }
}

#[test]
fn a_ban_without_a_time_lasts_an_hour() {
    let mut scene = Scene::linked();
    scene.connect();
    scene.deliver(&Node::new("failure").attr("reason", "402"));
    let hour = Duration::from_secs(3600);
    assert_eq!(scene.ended, [DisconnectReason::Banned { code: 0, expires_in: hour }]);
}

#[test]
fn a_stanza_the_server_misses_an_ack_for_is_acked_when_it_comes_again() {
    let mut scene = Scene::ready();
    let owed = Node::new("ack").attr("class", "receipt").attr("id", "R1");
    scene.deliver(&Node::new("stream:error").child(owed));
    scene.cut();
    scene.log_in();
    let receipt = Node::new("receipt").attr("id", "R1").attr("from", jid("6281200000002@s.whatsapp.net"));
    scene.deliver(&receipt);
    assert!(scene.acks().contains(&("R1".to_owned(), None)));
}

#[test]
fn an_account_without_linked_devices_is_logged_out() {
    let mut scene = Scene::ready();
    scene.deliver(&ib(Node::new("downgrade_webclient")));
    check(&scene, Expected::LoggedOut, "downgrade_webclient");
}

#[test]
fn a_logout_on_request_leaves_nothing_behind() {
    let mut scene = Scene::ready();
    scene.command(9, Command::Logout);
    let remove = scene.received[0].find("remove-companion-device").unwrap();
    assert_eq!(remove.jid("jid"), Some(jid("6281200000001:7@s.whatsapp.net")));
    scene.answer(asks("md", "remove-companion-device"), "result", None);
    assert!(matches!(&scene.replies[..], [(9, Reply::Done)]));
    assert_eq!(scene.ended, [DisconnectReason::Requested]);
    assert!(gone(&scene));
}

#[test]
fn a_logout_is_done_even_when_the_server_ends_the_stream_before_the_answer() {
    let mut scene = Scene::ready();
    scene.command(9, Command::Logout);
    scene.deliver(&Node::new("stream:error").attr("code", "516"));
    scene.cut();
    assert!(matches!(&scene.replies[..], [(9, Reply::Done)]), "{:?}", scene.replies);
    assert!(gone(&scene));
}

#[test]
fn a_refused_logout_keeps_the_link() {
    let mut scene = Scene::ready();
    scene.command(9, Command::Logout);
    let error = Node::new("error").attr("code", "500");
    scene.answer(asks("md", "remove-companion-device"), "error", Some(error));
    assert!(matches!(&scene.replies[..], [(9, Reply::Failed(_))]));
    assert!(scene.ended.is_empty() && kept(&scene));
}

#[test]
fn the_identity_after_a_logout_is_a_new_one() {
    let mut scene = Scene::ready();
    let old = scene.credentials().unwrap().identity.public;
    scene.deliver(&Node::new("stream:error").attr("code", "516"));
    scene.cut();
    scene.connect();
    assert!(scene.payload.as_ref().unwrap().device_pairing_data.is_some());
    assert_ne!(scene.credentials().unwrap().identity.public, old);
}

#[test]
fn what_was_written_when_the_socket_went_is_still_persisted() {
    let mut scene = Scene::ready();
    // The frame is handled, but nobody drains the outputs before the socket is gone.
    let info = Node::new("edge_routing").child(Node::new("routing_info").bytes([7]));
    let Link::Open(_, transport) = &mut scene.link else { panic!("open") };
    let frames = [
        transport.encrypt(&encode(&ib(info))),
        transport.encrypt(&encode(&notification("psa", Node::new("x")))),
    ];
    let mut ctx = Ctx { now: scene.now, rng: &mut scene.rng, store: &scene.store };
    scene.engine.handle_data(&mut ctx, &frames.concat());
    scene.engine.handle_closed(&mut ctx);
    scene.call(|_, _| {});
    assert!(scene.received.is_empty(), "the old socket's frames are dropped");
    assert_eq!(scene.credentials().unwrap().routing_info, Some(vec![7]));
}

/// A store that cannot be read any more.
struct Broken;

impl StateRead for Broken {
    fn get(&self, _: Table, _: &str) -> Result<Option<Vec<u8>>, ReadError> {
        Err(ReadError("disk on fire".to_owned()))
    }

    fn keys(&self, _: Table, _: &str) -> Result<Vec<String>, ReadError> {
        Err(ReadError("disk on fire".to_owned()))
    }

    fn pending_messages(&self) -> Result<Vec<MessageRecord>, ReadError> {
        Err(ReadError("disk on fire".to_owned()))
    }

    fn message(&self, _: &Jid, _: &str, _: Option<&Jid>) -> Result<Option<MessageRecord>, ReadError> {
        Err(ReadError("disk on fire".to_owned()))
    }
}

#[test]
fn a_broken_store_stops_the_session_says_nothing_to_the_server_and_answers_every_command() {
    let mut scene = Scene::ready();
    scene.command(9, Command::Logout);
    scene.received.clear();
    let low = notification("encrypt", Node::new("count").attr("value", "9"));
    let Link::Open(_, transport) = &mut scene.link else { panic!("open") };
    let frame = transport.encrypt(&encode(&low));
    let mut ctx = Ctx { now: scene.now, rng: &mut scene.rng, store: &Broken };
    scene.engine.handle_data(&mut ctx, &frame);
    scene.call(|_, _| {});
    assert!(scene.received.is_empty(), "{:?}", scene.received);
    assert!(matches!(&scene.ended[..], [DisconnectReason::Stop { reason }] if reason.contains("on fire")));
    assert!(matches!(&scene.replies[..], [(9, Reply::Failed(_))]), "{:?}", scene.replies);

    // Once it can be read again, everything is as it was.
    scene.ended.clear();
    scene.log_in();
    assert!(scene.ended.is_empty() && kept(&scene));
}
