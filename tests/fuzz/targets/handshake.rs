//! Nothing a server says in the handshake panics the client or is accepted without a sound certificate chain, and
//! nothing a client says panics the sandbox's server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use whatsapp_worker::whatsapp::{
    keys::{KeyPair, PublicKey},
    noise::{
        cert::{issue_chain, verify_chain},
        handshake::ExpectServerHello,
        responder::ServerHandshake,
    },
};

const NOW: u64 = 1_800_000_000;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let [root, server_static, server_ephemeral, client_ephemeral, client_static] =
        std::array::from_fn(|_| KeyPair::generate(&mut rng));
    let chain = issue_chain(&root, &server_static.public, NOW - 10, NOW + 10, &mut rng);
    let (first, client) = ExpectServerHello::start(client_ephemeral, None);
    let finish = |client: ExpectServerHello, frame: &[u8], root: &PublicKey| {
        client.on_server_hello(frame, &client_static, b"payload", root, NOW)
    };
    match mode % 5 {
        // Any frame for a client.
        0 => assert!(finish(client, data, &root.public).is_err()),
        // Any chain from a server that really has its key.
        1 => {
            let mut server = ServerHandshake::new(server_static, data.to_vec());
            let hello = server.on_client_hello(&first[7..], server_ephemeral).expect("our own hello");
            let accepted = finish(client, &hello[3..], &root.public).is_ok();
            assert!(
                !accepted || data.len() >= chain.len(),
                "only a sound chain, perhaps with unknown fields"
            );
        }
        // A real hello with changed bytes.
        2 => {
            let mut server = ServerHandshake::new(server_static, chain);
            let hello = server.on_client_hello(&first[7..], server_ephemeral).expect("our own hello");
            let changed = changed(&hello[3..], data);
            if finish(client, &changed, &root.public).is_ok() {
                assert!(changed.len() >= hello.len() - 3, "nothing of the hello may be missing");
            }
        }
        // Any frames for a server.
        3 => {
            let mut server = ServerHandshake::new(server_static, chain);
            let (hello, finish) = data.split_at(data.len() / 2);
            if server.on_client_hello(hello, server_ephemeral).is_ok() {
                let _ = server.on_client_finish(finish);
            }
        }
        // A chain by itself.
        _ => {
            let changed = changed(&chain, data);
            let accepted = verify_chain(&changed, &server_static.public, &root.public, NOW).is_ok();
            assert!(!accepted || changed.len() >= chain.len());
        }
    }
});

/// `good` with bytes exclusive-ored at places that `data` names: pairs of a place and a mask, the rest is appended.
fn changed(good: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = good.to_vec();
    let (changes, tail) = data.split_at(data.len().min(6));
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]]));
        if let Some(byte) = out.get_mut(place) {
            *byte ^= change[2];
        }
    }
    out.extend_from_slice(tail);
    out
}
