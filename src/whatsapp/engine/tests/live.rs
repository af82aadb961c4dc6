//! From the handshake to a live session: certificates, login, prekeys, liveness, the offline queue, notifications.

use super::*;
use crate::whatsapp::{
    iq::IqKind,
    model::CommandError,
    signal::{PreKeyRecord, PreKeySource, curve},
    state::StateRead,
    timers::Timer,
};

#[test]
fn a_chain_of_another_root_is_a_network_failure_and_costs_no_credentials() {
    let other = KeyPair::generate(&mut ChaCha20Rng::seed_from_u64(7));
    let mut scene = Scene::with_certificate(|_| other.clone(), START_S - 10, START_S + 10);
    scene.connect();
    assert!(retry_reason(&scene).contains("handshake"), "{:?}", scene.ended);
    assert!(scene.payload.is_none(), "nothing about us reached the wrong server");
    assert!(scene.credentials().is_some());
}

#[test]
fn an_expired_chain_is_a_network_failure() {
    let mut scene = Scene::with_certificate(KeyPair::clone, START_S - 864_000, START_S - 500_000);
    scene.connect();
    assert!(retry_reason(&scene).contains("handshake"));
}

#[test]
fn a_server_that_stays_silent_is_left_after_the_deadline() {
    let mut scene = Scene::linked();
    scene.link = Link::Closed;
    scene.call(|engine, ctx| engine.handle_connected(ctx));
    scene.pass(19 * SECOND);
    assert!(scene.ended.is_empty());
    scene.pass(2 * SECOND);
    assert!(retry_reason(&scene).contains("handshake"));

    let mut scene = Scene::linked();
    scene.connect();
    scene.pass(31 * SECOND);
    assert!(retry_reason(&scene).contains("login"));
}

#[test]
fn damaged_credentials_stop_the_session_instead_of_making_a_new_identity() {
    let mut scene = Scene::linked();
    let mut bytes = scene.store.get(Table::Credentials, Credentials::KEY).unwrap().unwrap();
    bytes.truncate(bytes.len() - 3);
    scene.store.put(Table::Credentials, Credentials::KEY, bytes.clone());
    assert!(Engine::is_paired(&scene.store).is_err());
    scene.connect();
    assert!(matches!(&scene.ended[..], [DisconnectReason::Stop { .. }]), "{:?}", scene.ended);
    assert_eq!(scene.store.get(Table::Credentials, Credentials::KEY).unwrap(), Some(bytes));
    scene.command(1, Command::Logout);
    assert!(
        matches!(&scene.replies[..], [(1, Reply::Failed(CommandError::Store(_)))]),
        "{:?}",
        scene.replies
    );
}

#[test]
fn a_login_announces_itself_asks_for_what_it_needs_and_makes_no_keys() {
    let mut scene = Scene::linked();
    assert!(Engine::is_paired(&scene.store).unwrap());
    scene.connect();
    let payload = scene.payload.clone().unwrap();
    assert_eq!((payload.username, payload.device), (Some(6_281_200_000_001), Some(7)));
    scene.deliver(&success());
    assert!(matches!(&scene.events[..], [Event::Connected { lid: Some(_), .. }]), "{:?}", scene.events);
    assert!(scene.received.iter().any(asks("passive", "active")));
    assert!(scene.received.iter().any(asks("abt", "props")));
    scene.answer(asks("encrypt", "count"), "result", Some(Node::new("count").attr("value", "180")));
    assert!(!scene.received.iter().any(asks("encrypt", "list")));
    assert_eq!(scene.store.count(Table::PreKey), 0);
}

#[test]
fn the_lid_of_the_success_is_kept_with_our_device() {
    let mut scene = Scene::linked();
    let mut credentials = scene.credentials().unwrap();
    credentials.lid = None;
    scene.store.put(Table::Credentials, Credentials::KEY, credentials.encode());
    scene.log_in();
    assert_eq!(scene.credentials().unwrap().lid, Some(jid("100000000000001:7@lid")));
}

#[test]
fn the_migration_prop_is_learned_once_and_never_lowered() {
    let mut scene = Scene::linked();
    scene.connect();
    scene.deliver(&success());
    let props = |value: &'static str| {
        let prop = Node::new("prop").attr("config_code", "9435").attr("config_value", value);
        Node::new("props").attr("hash", "H1").child(prop)
    };
    scene.answer(asks("abt", "props"), "result", Some(props("1")));
    assert!(scene.credentials().unwrap().lid_migrated);
    scene.cut();
    scene.connect();
    scene.deliver(&success());
    assert!(scene.received.iter().any(|iq| iq.find("props").is_some_and(|props| props.has("hash", "H1"))));
    scene.answer(asks("abt", "props"), "result", Some(props("0")));
    assert!(scene.credentials().unwrap().lid_migrated);
}

#[test]
fn routing_info_is_kept_and_opens_the_next_connection() {
    let mut scene = Scene::logged_in();
    assert_eq!(scene.routing_info, None);
    let info = Node::new("edge_routing").child(Node::new("routing_info").bytes([1, 2, 3]));
    scene.deliver(&ib(info));
    scene.cut();
    scene.connect();
    assert_eq!(scene.routing_info.as_deref(), Some(&[1, 2, 3][..]));
}

#[test]
fn frames_may_be_cut_and_joined_anywhere() {
    let mut scene = Scene::ready();
    let Link::Open(_, transport) = &mut scene.link else { panic!("open") };
    let mut bytes = transport.encrypt(&encode(&notification("psa", Node::new("x")).attr("n", "1")));
    bytes.extend(transport.encrypt(&encode(&notification("psa", Node::new("y")).attr("n", "2"))));
    for byte in bytes {
        scene.call(|engine, ctx| engine.handle_data(ctx, &[byte]));
    }
    assert_eq!(scene.acks().len(), 2);
}

#[test]
fn a_frame_that_does_not_decrypt_ends_the_connection() {
    let mut scene = Scene::ready();
    scene.call(|engine, ctx| {
        engine.handle_data(
            ctx,
            &[0, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        )
    });
    assert!(retry_reason(&scene).contains("decrypt"));
    let unheard = scene.engine.outputs.len();
    scene.call(|engine, ctx| engine.handle_data(ctx, &[1; 100]));
    assert_eq!((unheard, scene.ended.len()), (0, 1), "nothing is read behind the end");
}

#[test]
fn a_dead_socket_is_noticed_within_sixty_seconds() {
    let mut scene = Scene::ready();
    // The longest pause before a ping, then the rest of the minute.
    scene.pass(36 * SECOND);
    assert!(scene.received.iter().any(|iq| iq.has("xmlns", "w:p")));
    scene.pass(24 * SECOND);
    assert!(retry_reason(&scene).contains("dead"));
}

#[test]
fn answered_pings_and_other_traffic_keep_a_silent_session_alive() {
    let mut scene = Scene::ready();
    for _ in 0..40 {
        scene.pass(15 * SECOND);
        if scene.received.iter().any(|iq| iq.has("xmlns", "w:p")) {
            scene.answer(|iq| iq.has("xmlns", "w:p"), "result", None);
        }
    }
    for _ in 0..40 {
        scene.pass(15 * SECOND);
        scene.deliver(&Node::new("presence").attr("from", jid("6281200000002@s.whatsapp.net")));
    }
    assert!(scene.ended.is_empty(), "{:?}", scene.ended);
}

#[test]
fn an_iq_without_an_answer_does_not_hide_a_dead_socket() {
    let mut scene = Scene::ready();
    scene.call(|engine, ctx| {
        engine.send_iq(ctx, Node::new("iq").attr("type", "get"), IqKind::Ignore);
        engine.run(ctx, |_, _| Ok(()));
    });
    scene.pass(60 * SECOND);
    assert!(retry_reason(&scene).contains("dead"));
}

#[test]
fn a_ping_of_the_server_is_answered() {
    let mut scene = Scene::ready();
    let ping = Node::new("iq").attr("from", Jid::service()).attr("id", "P").attr("type", "get");
    scene.deliver(&ping.attr("xmlns", "urn:xmpp:ping"));
    let expected = Node::new("iq").attr("to", Jid::service()).attr("type", "result").attr("id", "P");
    assert_eq!(scene.received, [expected]);
}

fn batches(scene: &Scene) -> usize {
    scene.received.iter().filter(|node| node.find("offline_batch").is_some()).count()
}

#[test]
fn the_offline_queue_is_pulled_to_its_end_and_again_after_a_reconnect() {
    let mut scene = Scene::logged_in();
    for round in 0..2 {
        let preview = ib(Node::new("offline_preview").attr("count", "400"));
        scene.deliver(&preview);
        assert_eq!(batches(&scene), 1, "round {round}");
        for _ in 0..3 {
            scene.deliver(&notification("psa", Node::new("x")).attr("offline", "1"));
        }
        assert_eq!(batches(&scene), 1, "the next batch waits a moment");
        scene.pass(Duration::from_millis(100));
        assert_eq!(batches(&scene), 2);
        assert!(!scene.events.contains(&Event::Ready));
        scene.cut();
        scene.log_in();
    }
    scene.deliver(&ib(Node::new("thread_metadata")));
    assert!(!scene.events.contains(&Event::Ready), "only <offline> ends the drain");
    scene.deliver(&ib(Node::new("offline").attr("count", "6")));
    scene.deliver(&ib(Node::new("offline").attr("count", "6")));
    assert_eq!(scene.events, [Event::Ready]);
}

#[test]
fn a_drain_that_stalls_goes_live_after_a_minute() {
    let mut scene = Scene::logged_in();
    scene.deliver(&ib(Node::new("offline_preview").attr("count", "5")));
    for _ in 0..4 {
        scene.pass(15 * SECOND);
        scene.deliver(&Node::new("presence"));
    }
    assert!(scene.events.contains(&Event::Ready));
}

#[test]
fn a_low_pool_is_filled_after_the_drain_and_marked_after_the_result() {
    let mut scene = Scene::logged_in();
    scene.deliver(&notification("encrypt", Node::new("count").attr("value", "9")));
    assert_eq!(scene.acks().len(), 1);
    assert!(!scene.received.iter().any(asks("encrypt", "list")), "not during the drain");
    scene.deliver(&ib(Node::new("offline").attr("count", "1")));
    let upload = scene.received.iter().find(|iq| asks("encrypt", "list")(iq)).unwrap().clone();
    let ids: Vec<&[u8]> =
        upload.find("list").unwrap().find_all("key").filter_map(|key| key.find_bytes("id")).collect();
    assert_eq!((ids.len(), ids[0], ids[811]), (812, &[0, 0, 201][..], &[0, 3, 244][..]));
    assert_eq!(scene.store.count(Table::PreKey), 812, "written before they were offered");
    assert_eq!(scene.credentials().unwrap().first_unuploaded_prekey_id, 201);

    // A second notice while the upload is under way starts no second one.
    scene.deliver(&notification("encrypt", Node::new("count").attr("value", "9")));
    assert_eq!(scene.received.iter().filter(|iq| asks("encrypt", "list")(iq)).count(), 1);
    scene.answer(asks("encrypt", "list"), "result", None);
    let credentials = scene.credentials().unwrap();
    assert_eq!((credentials.first_unuploaded_prekey_id, credentials.next_prekey_id), (1013, 1825));
}

#[test]
fn a_failed_upload_offers_the_same_keys_again_later() {
    let mut scene = Scene::ready();
    scene.deliver(&notification("encrypt", Node::new("count").attr("value", "9")));
    let error = Node::new("error").attr("code", "500").attr("text", "internal");
    let first = scene.received.iter().find(|iq| asks("encrypt", "list")(iq)).unwrap().find("list").cloned();
    scene.answer(asks("encrypt", "list"), "error", Some(error));
    assert!(!scene.received.iter().any(asks("encrypt", "list")));
    scene.pass(SECOND);
    let second = scene.received.iter().find(|iq| asks("encrypt", "list")(iq)).unwrap().find("list").cloned();
    let head = |list: &Option<Node>| list.as_ref().unwrap().children()[..803].to_vec();
    assert_eq!(head(&first), head(&second));
}

#[test]
fn a_digest_that_is_not_ours_leads_to_a_new_upload() {
    for (answer, uploads) in [("ours", 0), ("other", 1), ("404", 1), ("500", 0)] {
        let mut scene = Scene::logged_in();
        scene.deliver(&ib(Node::new("offline").attr("count", "0")));
        let credentials = scene.credentials().unwrap();
        let registration = credentials.registration_id + u32::from(answer == "other");
        let digest = Node::new("digest")
            .child(Node::new("registration").bytes(registration.to_be_bytes()))
            .child(Node::new("identity").bytes(credentials.identity.public.0))
            .child(Node::new("skey").child(Node::new("id").bytes([0, 0, 1])));
        match answer {
            "ours" | "other" => scene.answer(asks("encrypt", "digest"), "result", Some(digest)),
            code => {
                let error = Node::new("error").attr("code", code);
                scene.answer(asks("encrypt", "digest"), "error", Some(error));
            }
        }
        assert_eq!(
            scene.received.iter().filter(|iq| asks("encrypt", "list")(iq)).count(),
            uploads,
            "{answer}"
        );
    }
}

#[test]
fn a_prekey_for_a_retry_receipt_is_never_uploaded_as_well() {
    let mut scene = Scene::ready();
    let mut ids = Vec::new();
    scene.call(|engine, ctx| {
        for _ in 0..2 {
            let record = engine.fresh_prekey(ctx).unwrap();
            assert!(engine.prekey_source(ctx.store).prekey(record.id).is_some());
            assert!(engine.prekey_source(ctx.store).signed_prekey(1).is_some());
            ids.push(record.id);
        }
        engine.run(ctx, |_, _| Ok(()));
    });
    assert_eq!(ids, [201, 202]);
    assert!(PreKeyRecord::decode(&scene.store.get(Table::PreKey, "201").unwrap().unwrap()).unwrap().uploaded);
    scene.deliver(&notification("encrypt", Node::new("count").attr("value", "9")));
    let upload = scene.received.iter().find(|iq| asks("encrypt", "list")(iq)).unwrap();
    let first = upload.find("list").unwrap().children()[0].find_bytes("id").unwrap();
    assert_eq!(first, [0, 0, 203]);
}

#[test]
fn every_class_of_stanza_is_acked_and_a_notification_without_a_type_refused() {
    let mut scene = Scene::ready();
    let from = jid("6281200000002@s.whatsapp.net");
    let stanza = |tag: &'static str, id: &'static str| Node::new(tag).attr("id", id).attr("from", &from);
    scene.deliver(&stanza("call", "C1").child(Node::new("offer")));
    scene.deliver(&stanza("brand-new", "U1").attr("type", "t"));
    scene.deliver(&stanza("notification", "N0"));
    scene.deliver(&stanza("notification", "N2").attr("type", "server_sync"));
    scene.deliver(&Node::new("brand-new"));
    scene.deliver(&stanza("presence", "X"));
    let expected = [("C1", None), ("U1", None), ("N0", Some("487")), ("N2", None)];
    let expected: Vec<_> =
        expected.iter().map(|(id, error)| ((*id).to_owned(), error.map(str::to_owned))).collect();
    assert_eq!(scene.acks(), expected);
    assert!(scene.received[1].has("class", "brand-new") && scene.received[1].has("type", "t"));
}

#[test]
fn a_dirty_notice_is_cleaned() {
    let mut scene = Scene::ready();
    scene.deliver(&ib(Node::new("dirty").attr("type", "account_sync").attr("timestamp", "5")));
    let clean = scene.received[0].find("clean").unwrap();
    assert!(clean.has("type", "account_sync") && clean.has("timestamp", "5"));
}

#[test]
fn an_iq_that_cannot_be_sent_or_loses_its_connection_still_has_an_outcome() {
    let mut scene = Scene::ready();
    scene.command(5, Command::Logout);
    assert!(scene.replies.is_empty());
    scene.cut();
    scene.command(6, Command::Logout);
    assert!(
        matches!(
            &scene.replies[..],
            [
                (5, Reply::Failed(CommandError::ConnectionLost)),
                (6, Reply::Failed(CommandError::NotConnected))
            ]
        ),
        "{:?}",
        scene.replies
    );
}

#[test]
fn an_idle_engine_is_small() {
    let mut scene = Scene::ready();
    scene.deliver(&notification("encrypt", Node::new("count").attr("value", "9")));
    scene.answer(asks("encrypt", "list"), "result", None);
    assert!(scene.engine.outputs.capacity() <= 16 && scene.engine.staged.capacity() <= 16);
    assert!(size_of::<Engine>() < 4096, "{}", size_of::<Engine>());
}

const DAY: u64 = 24 * 3600;

/// Days pass without a connection, then the session logs in and drains.
fn back_after(scene: &mut Scene, days: u64) {
    scene.cut();
    scene.set_time(scene.now.mono + Duration::from_secs(days * DAY));
    let now_s = scene.now.unix_s();
    scene.chain =
        issue_chain(&scene.root, &scene.server_key.public, now_s - DAY, now_s + DAY, &mut scene.rng);
    scene.log_in();
    scene.deliver(&ib(Node::new("offline").attr("count", "0")));
}

fn offered(scene: &Scene) -> Option<Node> {
    scene.received.iter().find(|iq| asks("encrypt", "rotate")(iq))?.find("rotate")?.find("skey").cloned()
}

fn signed_prekeys(scene: &Scene) -> Vec<u32> {
    (0..9).filter(|id| scene.engine.prekey_source(&scene.store).signed_prekey(*id).is_some()).collect()
}

#[test]
fn an_old_signed_prekey_is_replaced_and_the_last_three_still_open_messages() {
    let mut scene = Scene::ready();
    back_after(&mut scene, 26);
    assert_eq!(offered(&scene), None, "not old enough");
    for id in 2..=5 {
        back_after(&mut scene, 28);
        let skey = offered(&scene).expect("it is time");
        assert_eq!(skey.find_bytes("id"), Some(&[0, 0, id][..]));
        let identity = scene.credentials().unwrap().identity.public;
        let signed = key_of(&skey, "value").serialize();
        assert!(curve::verify(&identity, &signed, skey.find_bytes("signature").unwrap()));
        assert!(signed_prekeys(&scene).contains(&id.into()), "durable before it is offered");
        assert_eq!(scene.credentials().unwrap().signed_prekey_id, u32::from(id) - 1);
        scene.answer(asks("encrypt", "rotate"), "result", None);
        assert_eq!(scene.credentials().unwrap().signed_prekey_id, u32::from(id));
    }
    assert_eq!(signed_prekeys(&scene), [3, 4, 5]);
    // On a connection that lasts, the timer does it.
    scene.engine.timers.clear(Timer::Ping);
    scene.engine.timers.clear(Timer::Iq);
    scene.pass(Duration::from_secs(27 * DAY));
    assert_eq!(offered(&scene).unwrap().find_bytes("id"), Some(&[0, 0, 6][..]));
}

#[test]
fn a_new_signed_prekey_whose_answer_was_lost_is_recognised_in_the_digest() {
    let mut scene = Scene::ready();
    back_after(&mut scene, 28);
    let first = offered(&scene).unwrap();
    back_after(&mut scene, 1);
    assert_eq!(offered(&scene), Some(first), "the same key again");
    let credentials = scene.credentials().unwrap();
    let digest = Node::new("digest")
        .child(Node::new("registration").bytes(credentials.registration_id.to_be_bytes()))
        .child(Node::new("identity").bytes(credentials.identity.public.0))
        .child(Node::new("skey").child(Node::new("id").bytes([0, 0, 2])));
    scene.answer(asks("encrypt", "digest"), "result", Some(digest));
    assert_eq!(scene.credentials().unwrap().signed_prekey_id, 2);
    assert!(!scene.received.iter().any(asks("encrypt", "list")), "nothing is uploaded again");
}

#[test]
fn a_refused_signed_prekey_leaves_the_old_one_in_place() {
    for (code, left) in [("406", vec![1]), ("500", vec![1, 2])] {
        let mut scene = Scene::ready();
        back_after(&mut scene, 28);
        scene.answer(asks("encrypt", "rotate"), "error", Some(Node::new("error").attr("code", code)));
        assert_eq!(scene.credentials().unwrap().signed_prekey_id, 1, "{code}");
        assert_eq!(signed_prekeys(&scene), left, "{code}");
    }
}

#[test]
fn a_message_that_is_missing_is_asked_for_after_a_restart_too() {
    let mut scene = Scene::ready();
    let enc = Node::new("enc").attr("v", "2").attr("type", "msg").bytes([0x33; 60]);
    let message = Node::new("message")
        .attr("id", "LOST")
        .attr("from", jid("100000000000002@lid"))
        .attr("type", "text")
        .attr("t", START_S.to_string())
        .child(enc);
    scene.deliver(&message);
    assert_eq!(scene.received.iter().filter(|node| node.has("type", "retry")).count(), 1);
    scene.cut();
    scene.engine = Engine::new(scene.engine.config.clone());
    scene.log_in();
    scene.deliver(&ib(Node::new("offline").attr("count", "0")));
    scene.received.clear();
    scene.pass(Duration::from_secs(6));
    let wanted = scene.received.iter().find(|iq| asks("encrypt", "key")(iq)).expect("the phone's keys");
    let phone = wanted.find("key").unwrap().find("user").unwrap().jid("jid").unwrap();
    assert_eq!((phone.device, phone.to_user()), (0, jid("6281200000001@s.whatsapp.net")));
    // The phone has no keys to give: it is not asked again, neither now nor after the next restart.
    let error = Node::new("error").attr("code", "406");
    let list = Node::new("list").child(Node::new("user").attr("jid", phone).child(error));
    scene.answer(asks("encrypt", "key"), "result", Some(list));
    scene.pass(Duration::from_secs(6));
    let missing = scene.store.keys(Table::RetryCount, "missing/").unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}
