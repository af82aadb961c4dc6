//! Ciphertexts, distributions and stored records of any bytes: no panic, nothing accepted that nobody encrypted, and
//! a record that refused something still works.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use whatsapp_worker::whatsapp::{
    keys::KeyPair,
    signal::{
        CiphertextKind, LocalIdentity, PreKeyBundle, PreKeyRecord, PreKeySource, SenderKeyRecord,
        SessionRecord, SignedPreKeyRecord,
    },
};

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let world = &*WORLD;
    let local = LocalIdentity { registration_id: 2, pair: &world.bob.identity };
    match mode % 8 {
        0 => {
            let mut record = SessionRecord::decode(&world.bob_session).expect("a record of ours");
            assert!(record.decrypt_msg(&local, data, &mut rng).is_err());
            assert_eq!(
                record.decrypt_msg(&local, &world.msg, &mut rng).expect("still works").plaintext,
                b"second"
            );
        }
        1 => {
            let mut record = SessionRecord::decode(&world.bob_session).expect("a record of ours");
            let changed = changed(&world.msg, data);
            if changed != world.msg {
                assert!(record.decrypt_msg(&local, &changed, &mut rng).is_err());
            }
            assert!(record.decrypt_msg(&local, &world.msg, &mut rng).is_ok());
        }
        2 | 3 => {
            let mut record = SessionRecord::default();
            let bytes = if mode % 8 == 2 { data.to_vec() } else { changed(&world.pkmsg, data) };
            let _ = record.decrypt_pkmsg(&local, &bytes, &world.bob, &mut rng);
            let mut record = SessionRecord::default();
            assert!(record.decrypt_pkmsg(&local, &world.pkmsg, &world.bob, &mut rng).is_ok());
        }
        4 => {
            let mut record = SenderKeyRecord::decode(&world.group).expect("a record of ours");
            let bytes = changed(&world.skmsg, data);
            if bytes != world.skmsg {
                assert!(record.decrypt(&bytes).is_err());
            }
            assert_eq!(record.decrypt(&world.skmsg).expect("still works").plaintext, b"to all");
        }
        5 => {
            let mut record = SenderKeyRecord::decode(&world.group).expect("a record of ours");
            let _ = record.process_distribution(data);
            let _ = record.process_distribution(&changed(&world.distribution, data));
            let _ = record.decrypt(data);
            let _ = SenderKeyRecord::decode(&record.encode()).expect("what we write can be read");
        }
        6 => {
            if let Ok(mut record) = SessionRecord::decode(data) {
                let _ = record.decrypt_msg(&local, &world.msg, &mut rng);
                let _ = record.encrypt(&local, b"x");
                let _ = SessionRecord::decode(&record.encode()).expect("what we write can be read");
            }
            if let Ok(mut record) = SessionRecord::decode(&changed(&world.bob_session, data)) {
                let _ = record.decrypt_msg(&local, &world.msg, &mut rng);
            }
        }
        _ => {
            if let Ok(mut record) = SenderKeyRecord::decode(data) {
                let _ = record.decrypt(&world.skmsg);
                let _ = record.encrypt(b"x", &mut rng);
            }
            let _ = PreKeyRecord::decode(data);
            let _ = SignedPreKeyRecord::decode(data);
        }
    }
});

/// Bob, who decrypts, and what Alice sent him.
struct World {
    bob: Keys,
    /// After the first message.
    bob_session: Vec<u8>,
    pkmsg: Vec<u8>,
    msg: Vec<u8>,
    group: Vec<u8>,
    distribution: Vec<u8>,
    skmsg: Vec<u8>,
}

struct Keys {
    identity: KeyPair,
    prekey: KeyPair,
    signed_prekey: SignedPreKeyRecord,
}

impl PreKeySource for Keys {
    fn prekey(&self, id: u32) -> Option<KeyPair> {
        (id == 7).then(|| self.prekey.clone())
    }

    fn signed_prekey(&self, id: u32) -> Option<KeyPair> {
        (id == 1).then(|| self.signed_prekey.pair.clone())
    }
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let alice = KeyPair::generate(&mut rng);
    let identity = KeyPair::generate(&mut rng);
    let prekey = KeyPair::generate(&mut rng);
    let signed_prekey = SignedPreKeyRecord::generate(1, &identity, 0, &mut rng);
    let bob = Keys { identity, prekey, signed_prekey };
    let bundle = PreKeyBundle {
        registration_id: 2,
        identity: bob.identity.public,
        signed_prekey_id: 1,
        signed_prekey: bob.signed_prekey.pair.public,
        signed_prekey_signature: bob.signed_prekey.signature,
        prekey: Some((7, bob.prekey.public)),
    };
    let alice_local = LocalIdentity { registration_id: 1, pair: &alice };
    let bob_local = LocalIdentity { registration_id: 2, pair: &bob.identity };

    let mut alices = SessionRecord::default();
    alices.process_bundle(&alice_local, &bundle, &mut rng).expect("a sound bundle");
    let first = alices.encrypt(&alice_local, b"first").expect("a session");
    let mut bobs = SessionRecord::default();
    bobs.decrypt_pkmsg(&bob_local, &first.bytes, &bob, &mut rng).expect("the first message");
    let reply = bobs.encrypt(&bob_local, b"reply").expect("a session");
    alices.decrypt_msg(&alice_local, &reply.bytes, &mut rng).expect("the reply");
    let bob_session = bobs.encode_clean();
    let second = alices.encrypt(&alice_local, b"second").expect("a session");
    assert_eq!(second.kind, CiphertextKind::Msg);

    let mut alices_group = SenderKeyRecord::create(&mut rng);
    let distribution = alices_group.distribution().expect("a fresh chain");
    let mut group = SenderKeyRecord::default();
    group.process_distribution(&distribution).expect("a sound distribution");
    let skmsg = alices_group.encrypt(b"to all", &mut rng).expect("a chain").bytes;
    World {
        bob_session,
        pkmsg: first.bytes,
        msg: second.bytes,
        group: group.encode_clean(),
        distribution,
        skmsg,
        bob,
    }
});

/// `good` with bytes exclusive-ored at places that `data` names: pairs of a place and a mask, the rest is appended.
fn changed(good: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = good.to_vec();
    let (changes, tail) = data.split_at(data.len().min(6));
    for change in changes.chunks_exact(2) {
        let place = usize::from(change[0]) % out.len();
        out[place] ^= change[1];
    }
    out.extend_from_slice(tail);
    out
}
