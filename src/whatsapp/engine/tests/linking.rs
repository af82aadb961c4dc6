//! Linking: QR, pairing code, everything a phone or an impostor may answer, the restart after it, and passkeys.

use aes::cipher::{KeyIvInit, StreamCipher};
use aes_gcm::{Aes256Gcm, KeyInit, aead::Aead};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hkdf::Hkdf;
use prost::Message;
use sha2::Sha256;

use super::*;
use crate::whatsapp::{
    model::CommandError,
    proto::{AdvDeviceIdentity, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac, ClientPairingProps},
    signal::adv::{self, AdvType},
    state::StateRead,
};

pub(super) fn pair_device(refs: usize) -> Node {
    let refs = (0..refs).map(|n| Node::new("ref").bytes(format!("2@ref{n}")));
    Node::new("iq")
        .attr("id", "PD")
        .attr("from", Jid::service())
        .attr("type", "set")
        .attr("xmlns", "md")
        .child(Node::new("pair-device").nodes(refs))
}

/// A phone that has read our QR or code.
struct Phone {
    account: KeyPair,
    kind: AdvType,
    secret: Vec<u8>,
    identity: PublicKey,
}

impl Phone {
    fn scans(scene: &mut Scene, qr: &str) -> Self {
        let parts: Vec<&str> = qr.rsplit_once('#').unwrap().1.split(',').collect();
        let key = |at: usize| BASE64_STANDARD.decode(parts[at]).unwrap();
        Self {
            account: KeyPair::generate(&mut scene.rng),
            kind: AdvType::E2ee,
            secret: key(3),
            identity: PublicKey::from_slice(&key(2)).unwrap(),
        }
    }

    fn pair_success(&self, scene: &mut Scene) -> Node {
        let kind = Some(i32::from(self.kind == AdvType::Hosted));
        let inner = AdvDeviceIdentity { key_index: Some(3), device_type: kind, ..Default::default() };
        let details = inner.encode_to_vec();
        let signature = adv::sign_account(&self.account, self.kind, &details, &self.identity, &mut scene.rng);
        let signed = AdvSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(self.account.public.0.to_vec()),
            account_signature: Some(signature.to_vec()),
            device_signature: None,
        };
        let details = signed.encode_to_vec();
        let tag = adv::hmac(&self.secret, self.kind, &details).to_vec();
        let container =
            AdvSignedDeviceIdentityHmac { details: Some(details), hmac: Some(tag), account_type: kind };
        let device = Node::new("device")
            .attr("jid", jid("6281200000001:7@s.whatsapp.net"))
            .attr("lid", jid("100000000000001:7@lid"));
        let props = ClientPairingProps { is_chat_db_lid_migrated: Some(true), ..Default::default() };
        let success = Node::new("pair-success")
            .child(Node::new("device-identity").bytes(container.encode_to_vec()))
            .child(device)
            .child(Node::new("platform").attr("name", "android"))
            .child(Node::new("client-props").bytes(props.encode_to_vec()));
        Node::new("iq").attr("id", "PS").attr("from", Jid::service()).attr("type", "set").child(success)
    }
}

fn pairing() -> Scene {
    let mut scene = Scene::new();
    scene.connect();
    scene.deliver(&pair_device(6));
    scene
}

fn last_qr(scene: &Scene) -> String {
    let qrs = scene.events.iter().rev();
    let code = qrs.clone().find_map(|event| match event {
        Event::Qr { code, .. } => Some(code.clone()),
        _ => None,
    });
    code.expect("a QR was shown")
}

#[test]
fn a_scanned_qr_leads_over_a_restart_to_a_login_with_fresh_prekeys() {
    for kind in [AdvType::E2ee, AdvType::Hosted] {
        let mut scene = pairing();
        assert!(!Engine::is_paired(&scene.store).unwrap());
        assert!(scene.payload.as_ref().unwrap().device_pairing_data.is_some());
        assert!(scene.received[0].has("id", "PD") && scene.received[0].has("type", "result"));
        let qr = last_qr(&scene);
        let phone = Phone { kind, ..Phone::scans(&mut scene, &qr) };
        let success = phone.pair_success(&mut scene);
        scene.received.clear();
        scene.deliver(&success);

        let sign = scene.received[0].find("pair-device-sign").expect("a signed answer");
        let shown = sign.find("device-identity").unwrap();
        assert!(shown.has("key-index", "3") && scene.received[0].has("id", "PS"));
        let signed = AdvSignedDeviceIdentity::decode(shown.content_bytes().unwrap()).unwrap();
        assert_eq!(signed.account_signature_key, None);
        let account = &phone.account.public;
        let ours = signed.device_signature();
        assert!(adv::verify_device_signature(&phone.identity, kind, signed.details(), account, ours));
        assert!(matches!(scene.events.last(), Some(Event::Paired { lid: Some(_), .. })));
        let primary = scene.store.get(Table::Identity, "100000000000001_1.0").unwrap();
        assert_eq!(primary, Some(account.0.to_vec()));
        assert!(Engine::is_paired(&scene.store).unwrap());
        assert!(scene.credentials().unwrap().lid_migrated);

        scene.deliver(&Node::new("stream:error").attr("code", "515"));
        assert_eq!(scene.ended, [DisconnectReason::RestartRequired]);
        scene.cut();
        scene.connect();
        assert_eq!(scene.payload.as_ref().unwrap().device, Some(7));
        scene.deliver(&super::success());
        let upload = scene.received.iter().find(|iq| asks("encrypt", "list")(iq)).expect("an upload");
        assert_eq!(upload.find("list").unwrap().children().len(), 200);
        assert_eq!(key_of(upload, "identity"), phone.identity);
        assert_eq!(scene.store.count(Table::PreKey), 200);
    }
}

#[test]
fn the_credentials_are_durable_before_the_phone_is_answered() {
    let mut scene = pairing();
    let qr = last_qr(&scene);
    let success = Phone::scans(&mut scene, &qr).pair_success(&mut scene);
    let Link::Open(_, transport) = &mut scene.link else { panic!("open") };
    let frame = transport.encrypt(&encode(&success));
    let mut ctx = Ctx { now: scene.now, rng: &mut scene.rng, store: &scene.store };
    scene.engine.handle_data(&mut ctx, &frame);
    assert!(matches!(scene.engine.next_output(), Some(Output::Persist(_))));
    assert!(matches!(scene.engine.next_output(), Some(Output::Transmit(_))));
}

#[test]
fn an_impostor_is_refused_and_gets_no_credentials() {
    type Change = fn(&mut Phone, &mut Scene);
    let change: [(&str, Change); 2] = [
        ("hmac-mismatch", |phone, _| phone.secret[0] ^= 1),
        ("signature-mismatch", |phone, scene| phone.identity = KeyPair::generate(&mut scene.rng).public),
    ];
    for (text, change) in change {
        let mut scene = pairing();
        let qr = last_qr(&scene);
        let mut phone = Phone::scans(&mut scene, &qr);
        change(&mut phone, &mut scene);
        let success = phone.pair_success(&mut scene);
        scene.deliver(&success);
        let answer = scene.received.last().unwrap();
        let error = answer.find("error").unwrap();
        assert!(answer.has("type", "error") && error.has("code", "401") && error.has("text", text));
        assert!(retry_reason(&scene).contains(text));
        assert!(!Engine::is_paired(&scene.store).unwrap());
    }
    let mut scene = pairing();
    let empty = Node::new("iq").attr("id", "PS").attr("type", "set").child(Node::new("pair-success"));
    scene.deliver(&empty);
    assert!(scene.received.last().unwrap().find("error").unwrap().has("code", "500"));
}

#[test]
fn qrs_follow_each_other_and_end_with_the_refs() {
    let mut scene = pairing();
    scene.idle(59);
    assert_eq!(scene.events.len(), 1);
    for shown in 2..=6 {
        scene.idle(if shown == 2 { 1 } else { 20 });
        assert_eq!(scene.events.len(), shown);
        assert!(last_qr(&scene).contains(&format!("2@ref{}", shown - 1)));
    }
    scene.idle(20);
    assert_eq!(scene.ended, [DisconnectReason::QrTimeout]);
}

#[test]
fn a_second_pair_device_starts_over_and_a_refresh_changes_the_secret() {
    let mut scene = pairing();
    scene.pass(30 * SECOND);
    scene.deliver(&pair_device(1));
    let before = last_qr(&scene);
    assert!(before.contains("2@ref0"));
    scene.pass(10 * SECOND);
    scene.deliver(&notification("companion_reg_refresh", Node::new("pair-device-rotate-qr")));
    let after = last_qr(&scene);
    assert_ne!(before, after);
    assert!(after.contains("2@ref0"));
    assert!(matches!(scene.events.last(), Some(Event::Qr { expires_in, .. }) if *expires_in == 50 * SECOND));
    assert_eq!(scene.acks().len(), 1);
    let phone = Phone::scans(&mut scene, &after);
    let success = phone.pair_success(&mut scene);
    scene.deliver(&success);
    assert!(Engine::is_paired(&scene.store).unwrap());
}

#[test]
fn a_passkey_request_is_reported_and_stops_the_clock() {
    let mut scene = pairing();
    let options = Node::new("passkey_request_options").bytes("{\"rpId\":\"whatsapp.com\"}");
    scene.deliver(&notification("passkey_prologue_request", options));
    let expected = Event::PasskeyRequired { options: "{\"rpId\":\"whatsapp.com\"}".to_owned() };
    assert_eq!(scene.events.last(), Some(&expected));
    assert_eq!(scene.acks().len(), 1);
    scene.idle(400);
    assert!(scene.ended.is_empty(), "{:?}", scene.ended);
}

fn pair_code(scene: &mut Scene, id: CommandId) {
    scene.command(id, Command::PairCode { phone: "6281200000001".to_owned() });
}

fn hello_answer() -> Node {
    Node::new("link_code_companion_reg").child(Node::new("link_code_pairing_ref").bytes("REF"))
}

fn under_code(code: &str, salt: &[u8], iv: &[u8], body: &[u8]) -> Vec<u8> {
    let mut key = [0u8; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(code.as_bytes(), salt, 131_072, &mut key);
    let mut body = body.to_vec();
    ctr::Ctr128BE::<aes::Aes256>::new_from_slices(&key, iv).unwrap().apply_keystream(&mut body);
    body
}

/// The phone's half of linking by code, written from the protocol and not from our half.
struct CodePhone {
    account: KeyPair,
    ephemeral: KeyPair,
    companion_ephemeral: PublicKey,
}

impl CodePhone {
    fn types(scene: &mut Scene, code: &str, hello: &Node) -> (Self, Node) {
        let wrapped = hello.find_bytes("link_code_pairing_wrapped_companion_ephemeral_pub").unwrap();
        assert_eq!(wrapped.len(), 80);
        let companion = under_code(code, &wrapped[..32], &wrapped[32..48], &wrapped[48..]);
        let phone = Self {
            account: KeyPair::generate(&mut scene.rng),
            ephemeral: KeyPair::generate(&mut scene.rng),
            companion_ephemeral: PublicKey::from_slice(&companion).unwrap(),
        };
        let sealed = under_code(code, &[8; 32], &[9; 16], &phone.ephemeral.public.0);
        let wrapped = [&[8; 32][..], &[9; 16], &sealed].concat();
        let reg = Node::new("link_code_companion_reg")
            .attr("stage", "primary_hello")
            .child(Node::new("link_code_pairing_wrapped_primary_ephemeral_pub").bytes(wrapped))
            .child(Node::new("primary_identity_pub").bytes(phone.account.public.0))
            .child(Node::new("link_code_pairing_ref").bytes("REF"));
        (phone, reg)
    }

    /// What `companion_finish` tells: our identity key and, derived, the ADV secret.
    fn finish(self, finish: &Node) -> Phone {
        let identity = key_of(finish, "companion_identity_public");
        let wrapped = finish.find_bytes("link_code_pairing_wrapped_key_bundle").unwrap();
        let shared = self.ephemeral.private.diffie_hellman(&self.companion_ephemeral).unwrap();
        let mut key = [0u8; 32];
        let info = b"link_code_pairing_key_bundle_encryption_key";
        Hkdf::<Sha256>::new(Some(&wrapped[..32]), &shared.0).expand(info, &mut key).unwrap();
        let iv: [u8; 12] = wrapped[32..44].try_into().unwrap();
        let bundle = Aes256Gcm::new(&key.into()).decrypt(&iv.into(), &wrapped[44..]).unwrap();
        assert_eq!(bundle[..32], identity.0);
        assert_eq!(bundle[32..64], self.account.public.0);
        let identity_shared = self.account.private.diffie_hellman(&identity).unwrap();
        let mut secret = vec![0u8; 32];
        let input = [&shared.0[..], &identity_shared.0, &bundle[64..]].concat();
        Hkdf::<Sha256>::new(None, &input).expand(b"adv_secret", &mut secret).unwrap();
        Phone { account: self.account, kind: AdvType::E2ee, secret, identity }
    }
}

#[test]
fn a_code_asked_for_before_the_server_is_ready_links_the_phone() {
    let mut scene = Scene::new();
    pair_code(&mut scene, 3);
    scene.connect();
    assert!(scene.replies.is_empty());
    scene.deliver(&pair_device(6));
    let hello = scene.received.iter().find_map(|iq| iq.find("link_code_companion_reg")).unwrap().clone();
    assert_eq!(hello.jid("jid"), Some(jid("6281200000001@s.whatsapp.net")));
    assert_eq!(hello.find_bytes("companion_platform_display"), Some(&b"Chrome (Linux)"[..]));
    assert!(scene.replies.is_empty(), "the code waits for the server's word");
    scene.answer(asks("md", "link_code_companion_reg"), "result", Some(hello_answer()));
    let [(3, Reply::PairCode { code, .. })] = &scene.replies[..] else { panic!("{:?}", scene.replies) };
    let code = code.replace('-', "");

    let (phone, reg) = CodePhone::types(&mut scene, &code, &hello);
    scene.deliver(&notification("link_code_companion_reg", reg));
    let finish = scene.received.iter().find_map(|iq| iq.find("link_code_companion_reg")).unwrap().clone();
    assert!(finish.has("stage", "companion_finish"));
    // Even if the server now wants the secret changed: the phone has derived this one.
    scene.deliver(&notification("companion_reg_refresh", Node::new("companion_reg_refresh")));
    let success = phone.finish(&finish).pair_success(&mut scene);
    scene.deliver(&success);
    assert!(Engine::is_paired(&scene.store).unwrap());
}

#[test]
fn a_refused_code_is_an_error_and_the_qr_goes_on() {
    for (code, expected) in [
        ("429", CommandError::RateLimited),
        ("400", CommandError::Refused { code: 400, reason: "the server refused the request" }),
    ] {
        let mut scene = pairing();
        pair_code(&mut scene, 4);
        let error = Node::new("error").attr("code", code).attr("text", "bad-request");
        scene.answer(asks("md", "link_code_companion_reg"), "error", Some(error));
        let [(4, Reply::Failed(error))] = &scene.replies[..] else { panic!("{:?}", scene.replies) };
        assert_eq!(*error, expected);
        scene.idle(60);
        assert_eq!(scene.events.len(), 2);
    }
}

#[test]
fn a_code_for_another_attempt_or_without_its_parts_is_not_answered() {
    let mut scene = pairing();
    pair_code(&mut scene, 5);
    let hello = scene.received.iter().find_map(|iq| iq.find("link_code_companion_reg")).unwrap().clone();
    scene.answer(asks("md", "link_code_companion_reg"), "result", Some(hello_answer()));
    let (_, good) = CodePhone::types(&mut scene, "AAAAAAAA", &hello);
    let without = |tag: &str| {
        let keep = good.children().iter().filter(|child| child.tag != tag).cloned();
        Node::new("link_code_companion_reg").attr("stage", "primary_hello").nodes(keep)
    };
    let other = without("link_code_pairing_ref").child(Node::new("link_code_pairing_ref").bytes("OTHER"));
    let zero = without("primary_identity_pub").child(Node::new("primary_identity_pub").bytes([0; 32]));
    for reg in [
        without("link_code_pairing_wrapped_primary_ephemeral_pub"),
        without("primary_identity_pub"),
        without("link_code_pairing_ref"),
        other,
        zero,
    ] {
        scene.deliver(&notification("link_code_companion_reg", reg));
    }
    assert!(!scene.received.iter().any(asks("md", "link_code_companion_reg")));
    assert_eq!(scene.acks().len(), 5);
    scene.idle(180);
    assert_eq!(scene.ended, [DisconnectReason::QrTimeout], "an unused code ends like an unused QR");
}

#[test]
fn a_code_is_refused_for_bad_numbers_linked_sessions_and_lost_connections() {
    let failed = |scene: &Scene| match &scene.replies[..] {
        [(_, Reply::Failed(error))] => error.clone(),
        other => panic!("{other:?}"),
    };
    for phone in ["", "+6281200000001", "12345", "1234567890123456"] {
        let mut scene = pairing();
        scene.command(1, Command::PairCode { phone: phone.to_owned() });
        assert!(matches!(failed(&scene), CommandError::Invalid(_)), "{phone}");
    }
    let mut scene = Scene::ready();
    pair_code(&mut scene, 1);
    assert!(matches!(failed(&scene), CommandError::WrongState(_)));
    let mut scene = Scene::new();
    scene.connect();
    pair_code(&mut scene, 1);
    scene.cut();
    assert_eq!(failed(&scene), CommandError::ConnectionLost);
    let mut scene = pairing();
    pair_code(&mut scene, 1);
    scene.cut();
    assert_eq!(failed(&scene), CommandError::ConnectionLost);
    let mut scene = pairing();
    scene.command(1, Command::Logout);
    assert!(matches!(failed(&scene), CommandError::WrongState(_)));
}

#[test]
fn a_new_identity_inherits_nothing_from_an_earlier_account() {
    let mut scene = Scene::new();
    scene.store.put(Table::Session, "1.0", vec![1]);
    scene.store.put(Table::PreKey, "7", vec![1]);
    scene.store.put(Table::LidOfPn, "1", vec![1]);
    scene.connect();
    let left = Table::ALL.iter().map(|table| scene.store.count(*table)).sum::<usize>();
    assert_eq!(left, 2, "credentials and signed prekey");
}

#[test]
fn an_identity_survives_reconnects_until_it_is_paired() {
    let mut scene = pairing();
    let identity = scene.credentials().unwrap().identity.public;
    scene.cut();
    scene.connect();
    assert_eq!(scene.credentials().unwrap().identity.public, identity);
    scene.deliver(&pair_device(1));
    assert!(last_qr(&scene).contains("2@ref0"));
}
