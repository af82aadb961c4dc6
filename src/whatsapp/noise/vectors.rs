//! Handshakes that Baileys did, repeated with the same keys: every byte we send must be the same.

use prost::Message as _;

use super::{
    cert::{self, WHATSAPP_ROOT},
    frame::FrameReader,
    handshake::ExpectServerHello,
    payload::{self, Registration},
    responder::{ServerHandshake, strip_intro},
    symmetric::WA_HEADER,
};
use crate::whatsapp::{
    keys::{KeyPair, PublicKey},
    proto::{ClientPayload, DeviceProps, device_props::PlatformType},
    vectors::{bytes, read},
};

fn pair(vector: &serde_json::Value, field: &str) -> KeyPair {
    KeyPair::from_private_slice(&bytes(vector, field)).unwrap()
}

fn public(vector: &serde_json::Value, field: &str) -> PublicKey {
    PublicKey::from_slice(&bytes(vector, field)).unwrap()
}

fn version(vector: &serde_json::Value) -> [u32; 3] {
    serde_json::from_value(vector["version"].clone()).unwrap()
}

#[test]
fn our_client_sends_what_baileys_sends() {
    for vector in read("noise/handshakes.json") {
        let routing_info = vector["routing_info"].is_string().then(|| bytes(&vector, "routing_info"));
        let (first, client) =
            ExpectServerHello::start(pair(&vector, "client_ephemeral_private"), routing_info.as_deref());
        assert_eq!(first, bytes(&vector, "first"), "intro and ClientHello");
        let (finish, mut transport) = client
            .on_server_hello(
                &bytes(&vector, "server_hello"),
                &pair(&vector, "client_static_private"),
                &bytes(&vector, "client_payload"),
                &public(&vector, "root_public"),
                vector["now"].as_u64().unwrap(),
            )
            .unwrap();
        assert_eq!(finish, bytes(&vector, "finish"), "ClientFinish");
        for frame in vector["transport"].as_array().unwrap() {
            assert_eq!(transport.encrypt(&bytes(frame, "up")), bytes(frame, "up_frame"));
            assert_eq!(transport.decrypt(bytes(frame, "down_frame")), Ok(bytes(frame, "down")));
        }
    }
}

#[test]
fn our_server_understands_baileys() {
    for vector in read("noise/handshakes.json") {
        let mut server =
            ServerHandshake::new(pair(&vector, "server_static_private"), bytes(&vector, "chain"));
        let first = bytes(&vector, "first");
        let intro = strip_intro(&first).unwrap().unwrap();
        let routing_info = vector["routing_info"].is_string().then(|| bytes(&vector, "routing_info"));
        assert_eq!(intro.routing_info, routing_info.as_deref());

        let mut frames = FrameReader::default();
        frames.push(intro.rest);
        let hello = frames.next().unwrap().unwrap();
        let reply = server.on_client_hello(&hello, pair(&vector, "server_ephemeral_private")).unwrap();
        assert_eq!(reply[3..], bytes(&vector, "server_hello"));
        frames.push(&bytes(&vector, "finish"));
        let finish = frames.next().unwrap().unwrap();
        let (payload, client_static, mut transport) = server.on_client_finish(&finish).unwrap();
        assert_eq!(payload, bytes(&vector, "client_payload"));
        assert_eq!(client_static, public(&vector, "client_static_public"));
        for frame in vector["transport"].as_array().unwrap() {
            assert_eq!(transport.decrypt(&bytes(frame, "up_frame")[3..]), Ok(bytes(frame, "up")));
            assert_eq!(transport.encrypt(&bytes(frame, "down"))[3..], bytes(frame, "down_frame"));
        }
    }
}

#[test]
fn a_chain_signed_by_another_implementation_is_verified() {
    for vector in read("noise/handshakes.json") {
        let server = pair(&vector, "server_static_private").public;
        let now = vector["now"].as_u64().unwrap();
        let mut chain = bytes(&vector, "chain");
        assert_eq!(cert::verify_chain(&chain, &server, &public(&vector, "root_public"), now), Ok(()));
        assert!(cert::verify_chain(&chain, &server, &WHATSAPP_ROOT, now).is_err());
        for i in 0..chain.len() {
            chain[i] ^= 0x40;
            let verdict = cert::verify_chain(&chain, &server, &public(&vector, "root_public"), now);
            assert!(verdict.is_err(), "byte {i}");
            chain[i] ^= 0x40;
        }
    }
}

#[test]
fn the_constants_are_those_of_baileys() {
    for vector in read("noise/constants.json") {
        assert_eq!(bytes(&vector, "stream_header"), WA_HEADER);
        assert_eq!(public(&vector, "root_public"), WHATSAPP_ROOT);
        assert_eq!(vector["root_serial"], cert::ROOT_SERIAL);
    }
}

#[test]
fn our_registration_says_of_the_keys_what_baileys_says() {
    let vectors = read("noise/payloads.json");
    let vector = vectors.iter().find(|vector| vector["name"] == "registration").unwrap();
    let theirs = ClientPayload::decode(bytes(vector, "payload").as_slice()).unwrap();
    let signature = bytes(vector, "signature").try_into().unwrap();
    let device = Registration {
        registration_id: vector["registration_id"].as_u64().unwrap() as u32,
        identity: &public(vector, "identity"),
        signed_prekey_id: vector["signed_prekey_id"].as_u64().unwrap() as u32,
        signed_prekey: &public(vector, "signed_prekey"),
        signed_prekey_signature: &signature,
        device_name: "Ubuntu",
        platform: PlatformType::Chrome,
    };
    let ours = ClientPayload::decode(payload::registration(version(vector), &device).as_slice()).unwrap();

    // What the phone is shown is ours to choose; everything else is the same.
    let props = |payload: &ClientPayload| {
        let data = payload.device_pairing_data.as_ref().unwrap();
        DeviceProps::decode(data.device_props()).unwrap()
    };
    assert_eq!((props(&ours).os(), props(&theirs).os()), ("Ubuntu", "Ubuntu"));
    assert_eq!(props(&ours).platform_type(), props(&theirs).platform_type());
    assert_eq!(without_choices(ours), without_choices(theirs));
}

#[test]
fn our_login_says_what_baileys_says() {
    let vectors = read("noise/payloads.json");
    let vector = vectors.iter().find(|vector| vector["name"] == "login").unwrap();
    let theirs = ClientPayload::decode(bytes(vector, "payload").as_slice()).unwrap();
    let jid = vector["jid"].as_str().unwrap().parse().unwrap();
    let ours = payload::login(version(vector), &jid, false).unwrap();
    // The login counter is whatsmeow's.
    let theirs = ClientPayload { lc: Some(1), ..theirs };
    assert_eq!(without_choices(ClientPayload::decode(ours.as_slice()).unwrap()), without_choices(theirs));
}

fn without_choices(mut payload: ClientPayload) -> ClientPayload {
    if let Some(data) = &mut payload.device_pairing_data {
        data.device_props = None;
    }
    if let Some(agent) = &mut payload.user_agent {
        // Absent and empty are the same here.
        agent.manufacturer = None;
    }
    payload
}
