use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::whatsapp::noise::{
    cert::{CertError, issue_chain},
    responder::{ServerHandshake, strip_intro},
    symmetric::PROTOCOL_XX_FALLBACK,
};

const NOW: u64 = 1_800_000_000;

struct Server {
    root: KeyPair,
    handshake: ServerHandshake,
    ephemeral: KeyPair,
}

fn server(seed: u64) -> Server {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let [root, static_key, ephemeral] = std::array::from_fn(|_| KeyPair::generate(&mut rng));
    let chain = issue_chain(&root, &static_key.public, NOW - 1000, NOW + 1000, &mut rng);
    Server { root, handshake: ServerHandshake::new(static_key, chain), ephemeral }
}

fn key(byte: u8) -> KeyPair {
    KeyPair::from_private_slice(&[byte; 32]).unwrap()
}

#[test]
fn client_and_server_agree_and_can_talk() {
    let mut server = server(1);
    let (hello, client) = ExpectServerHello::start(key(9), None);
    let intro = strip_intro(&hello).unwrap().unwrap();
    let reply = server.handshake.on_client_hello(&intro.rest[3..], server.ephemeral).unwrap();
    let (finish, mut ours) =
        client.on_server_hello(&reply[3..], &key(8), b"payload", &server.root.public, NOW).unwrap();
    let (payload, client_static, mut theirs) = server.handshake.on_client_finish(&finish[3..]).unwrap();

    assert_eq!(payload, b"payload");
    assert_eq!(client_static, key(8).public);
    assert_eq!(theirs.decrypt(&ours.encrypt(b"to server")[3..]).unwrap(), b"to server");
    assert_eq!(ours.decrypt(&theirs.encrypt(b"to client")[3..]).unwrap(), b"to client");
}

#[test]
fn routing_info_goes_in_front_of_the_stream_header() {
    let (hello, _) = ExpectServerHello::start(key(9), Some(&[1, 2, 3]));
    assert_eq!(&hello[..14], [b'E', b'D', 0, 1, 0, 0, 3, 1, 2, 3, b'W', b'A', 6, 3]);
    let (plain, _) = ExpectServerHello::start(key(9), None);
    let intro = strip_intro(&hello).unwrap().unwrap();
    assert_eq!(intro.routing_info, Some(&[1, 2, 3][..]));
    assert_eq!(intro.rest, &plain[4..]);
    for len in 0..14 {
        assert_eq!(strip_intro(&hello[..len]), Ok(None), "{len} bytes");
    }
    assert!(strip_intro(b"GET / HTTP/1.1").is_err());
    assert!(strip_intro(b"WA\x06\x02rest").is_err());
}

#[test]
fn a_server_under_another_root_is_refused() {
    let mut server = server(1);
    let (hello, client) = ExpectServerHello::start(key(9), None);
    let reply = server.handshake.on_client_hello(&hello[7..], server.ephemeral).unwrap();
    let result = client.on_server_hello(&reply[3..], &key(8), b"", &key(1).public, NOW);
    assert!(matches!(result, Err(HandshakeError::Certificate(CertError::BadSignature(_)))));
}

#[test]
fn every_changed_byte_of_the_server_hello_is_noticed() {
    let mut server = server(1);
    let (hello, _) = ExpectServerHello::start(key(9), None);
    let reply = server.handshake.on_client_hello(&hello[7..], server.ephemeral).unwrap();
    for i in 3..reply.len() {
        let mut changed = reply[3..].to_vec();
        changed[i - 3] ^= 1;
        let (_, client) = ExpectServerHello::start(key(9), None);
        assert!(
            client.on_server_hello(&changed, &key(8), b"", &server.root.public, NOW).is_err(),
            "byte {i}"
        );
    }
    for len in 0..reply.len() - 3 {
        let (_, client) = ExpectServerHello::start(key(9), None);
        let result = client.on_server_hello(&reply[3..3 + len], &key(8), b"", &server.root.public, NOW);
        assert!(result.is_err(), "{len} bytes");
    }
}

#[test]
fn a_low_order_server_key_is_refused() {
    let (_, client) = ExpectServerHello::start(key(9), None);
    let hello = crate::whatsapp::proto::handshake_message::ServerHello {
        ephemeral: Some(vec![0; 32]),
        r#static: Some(vec![0; 48]),
        payload: Some(vec![0; 100]),
    };
    let frame = HandshakeMessage { server_hello: Some(hello), ..Default::default() }.encode_to_vec();
    let result = client.on_server_hello(&frame, &key(8), b"", &key(1).public, NOW);
    assert_eq!(result.err(), Some(HandshakeError::BadKey(SERVER_EPHEMERAL)));
}

#[test]
fn a_finish_from_another_handshake_is_refused() {
    let (mut first, mut second) = (server(1), server(2));
    let (hello, client) = ExpectServerHello::start(key(9), None);
    let reply = first.handshake.on_client_hello(&hello[7..], first.ephemeral).unwrap();
    second.handshake.on_client_hello(&hello[7..], second.ephemeral).unwrap();
    let (finish, _) = client.on_server_hello(&reply[3..], &key(8), b"", &first.root.public, NOW).unwrap();
    assert!(matches!(
        second.handshake.on_client_finish(&finish[3..]),
        Err(HandshakeError::BadCiphertext("client static"))
    ));
}

/// Spec: Noise rev 34 §10.2. The client's first message counts as a pre-message: its ephemeral key is hashed, the rest
/// of the IK attempt is forgotten. Seen: whatsapp-rust `wacore/noise/src/handshake.rs` @1489b7da.
#[test]
fn a_client_that_began_with_ik_is_answered_with_the_fallback() {
    let mut server = server(3);
    let (ephemeral, client_static) = (key(9), key(8));
    let ik = ClientHello {
        ephemeral: Some(ephemeral.public.0.to_vec()),
        r#static: Some(vec![1; 48]),
        payload: Some(vec![2; 40]),
    };
    let ik = HandshakeMessage { client_hello: Some(ik), ..Default::default() };
    let reply = server.handshake.on_client_hello(&ik.encode_to_vec(), server.ephemeral).unwrap();
    let hello = HandshakeMessage::decode(&reply[3..]).unwrap().server_hello.unwrap();

    let mut noise = Symmetric::new(PROTOCOL_XX_FALLBACK, &WA_HEADER);
    noise.mix_hash(&ephemeral.public.0);
    let theirs = PublicKey::from_slice(hello.ephemeral()).unwrap();
    noise.mix_hash(&theirs.0);
    noise.mix_key(&ephemeral.private, &theirs).unwrap();
    let server_static = PublicKey::from_slice(&noise.decrypt(hello.r#static()).unwrap()).unwrap();
    noise.mix_key(&ephemeral.private, &server_static).unwrap();
    noise.decrypt(hello.payload()).unwrap();
    let sealed = noise.encrypt(&client_static.public.0);
    noise.mix_key(&client_static.private, &theirs).unwrap();
    let payload = Some(noise.encrypt(b"payload"));
    let finish = ClientFinish { r#static: Some(sealed), payload };
    let finish = HandshakeMessage { client_finish: Some(finish), ..Default::default() };
    let (payload, seen, mut transport) = server.handshake.on_client_finish(&finish.encode_to_vec()).unwrap();
    assert_eq!((payload.as_slice(), seen), (&b"payload"[..], client_static.public));
    let (write, read) = noise.split();
    let mut ours = Transport::new(&write, &read);
    assert_eq!(transport.decrypt(ours.encrypt(b"to server")[3..].to_vec()).unwrap(), b"to server");
}
