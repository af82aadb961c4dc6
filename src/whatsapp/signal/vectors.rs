//! What other implementations made, read and made again here. See `tests/vectors/signal/ORIGIN.md`.

use std::collections::{HashMap, VecDeque};

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_core::{CryptoRng, RngCore};
use serde_json::Value;

use super::{
    LocalIdentity, PreKeyBundle, PreKeySource, SenderKeyRecord, SessionRecord, SignalError,
    adv::{self, AdvType},
    chain::{ChainKey, ReceivingChain, SendingChain},
    curve,
    session::CiphertextKind,
    wire::{self, SenderKeyDistribution, SenderKeyMessage},
};
use crate::whatsapp::keys::{KeyPair, PrivateKey, PublicKey};

fn load(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn pair(value: &Value) -> KeyPair {
    PrivateKey(array(value)).into()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// Gives the keys another implementation drew, in its order.
struct Recorded(VecDeque<Vec<u8>>);

impl Recorded {
    fn new(keys: &Value) -> Self {
        Self(items(keys).iter().map(bytes).collect())
    }
}

impl RngCore for Recorded {
    fn next_u32(&mut self) -> u32 {
        unreachable!("only keys are drawn")
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("only keys are drawn")
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.pop_front().expect("the other side drew as many keys"));
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Recorded {}

struct Replayed {
    registration_id: u32,
    identity: KeyPair,
    signed_prekey: KeyPair,
    signature: [u8; 64],
    prekeys: HashMap<u32, KeyPair>,
    record: SessionRecord,
}

impl Replayed {
    fn new(party: &Value) -> Self {
        let prekeys = party["prekeys"].as_object().unwrap();
        Self {
            registration_id: number(&party["registration_id"]),
            identity: pair(&party["identity"]),
            signed_prekey: pair(&party["signed_prekey"]),
            signature: array(&party["signed_prekey_signature"]),
            prekeys: prekeys.iter().map(|(id, key)| (id.parse().unwrap(), pair(key))).collect(),
            record: SessionRecord::default(),
        }
    }

    fn bundle(&self, prekey_id: Option<u32>) -> PreKeyBundle {
        PreKeyBundle {
            registration_id: self.registration_id,
            identity: self.identity.public,
            signed_prekey_id: 1,
            signed_prekey: self.signed_prekey.public,
            signed_prekey_signature: self.signature,
            prekey: prekey_id.map(|id| (id, self.prekeys[&id].public)),
        }
    }
}

struct Keys<'a>(&'a KeyPair, &'a HashMap<u32, KeyPair>);

impl PreKeySource for Keys<'_> {
    fn prekey(&self, id: u32) -> Option<KeyPair> {
        self.1.get(&id).cloned()
    }

    fn signed_prekey(&self, id: u32) -> Option<KeyPair> {
        (id == 1).then(|| self.0.clone())
    }
}

/// Plays both parties. `store` is what happens to a record between two steps.
fn replay(vector: &Value, store: impl Fn(&mut SessionRecord)) -> HashMap<&'static str, Replayed> {
    let name = vector["name"].as_str().unwrap();
    let mut parties = HashMap::from([
        ("alice", Replayed::new(&vector["parties"]["alice"])),
        ("bob", Replayed::new(&vector["parties"]["bob"])),
    ]);
    let mut messages = Vec::new();
    for (number_of_step, step) in items(&vector["steps"]).iter().enumerate() {
        let who = if step["who"] == "alice" { "alice" } else { "bob" };
        let other = if who == "alice" { "bob" } else { "alice" };
        let bundle = parties[other].bundle(step["prekey_id"].as_u64().map(|id| id.try_into().unwrap()));
        let party = parties.get_mut(who).unwrap();
        let local = LocalIdentity { registration_id: party.registration_id, pair: &party.identity };
        match step["do"].as_str().unwrap() {
            "start" => {
                party.record.process_bundle(&local, &bundle, &mut Recorded::new(&step["fresh"])).unwrap();
            }
            "encrypt" => {
                let ours = party.record.encrypt(&local, &bytes(&step["plaintext"])).unwrap();
                assert_eq!(ours.kind.as_str(), step["kind"], "{name}, step {number_of_step}");
                assert_eq!(ours.bytes, bytes(&step["ciphertext"]), "{name}, step {number_of_step}");
                messages.push((ours, bytes(&step["plaintext"])));
            }
            _ => {
                let (message, plaintext) = &messages[number(&step["message"]) as usize];
                let mut rng = Recorded::new(&step["fresh"]);
                let read = match message.kind {
                    CiphertextKind::PkMsg => {
                        let keys = Keys(&party.signed_prekey, &party.prekeys);
                        party.record.decrypt_pkmsg(&local, &message.bytes, &keys, &mut rng)
                    }
                    CiphertextKind::Msg => party.record.decrypt_msg(&local, &message.bytes, &mut rng),
                };
                assert_eq!(&read.unwrap().plaintext, plaintext, "{name}, step {number_of_step}");
                assert!(rng.0.is_empty(), "{name}, step {number_of_step}: fewer keys drawn");
            }
        }
        store(&mut party.record);
    }
    parties
}

#[test]
fn conversations_of_libsignal_are_reproduced_byte_for_byte_from_both_sides() {
    for vector in items(&load(include_str!("../../../tests/vectors/signal/sessions.json"))) {
        replay(vector, |_| {});
    }
}

#[test]
fn conversations_of_libsignal_survive_a_clean_stop_after_every_step() {
    for vector in items(&load(include_str!("../../../tests/vectors/signal/sessions.json"))) {
        replay(vector, |record| *record = SessionRecord::decode(&record.encode_clean()).unwrap());
    }
}

#[test]
fn sessions_end_with_the_keys_libsignal_stored() {
    let decode = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    for vector in items(&load(include_str!("../../../tests/vectors/signal/sessions.json"))) {
        for (who, party) in replay(vector, |_| {}) {
            let stored = &vector["final"][who]["_sessions"];
            let theirs = stored.as_object().unwrap().values().next().unwrap();
            let (ours, _) = super::stored::decode(&party.record.clone().encode_clean()).unwrap();
            let ours = ours.unwrap();
            let ratchet = &theirs["currentRatchet"];
            assert_eq!(ours.root.0.to_vec(), decode(&ratchet["rootKey"]));
            assert_eq!(ours.ratchet.private.0.to_vec(), decode(&ratchet["ephemeralKeyPair"]["privKey"]));
            assert_eq!(ours.remote_ratchet.serialize().to_vec(), decode(&ratchet["lastRemoteEphemeralKey"]));
            assert_eq!(ours.previous_counter, number(&ratchet["previousCounter"]));
            assert_eq!(ours.base_key.serialize().to_vec(), decode(&theirs["indexInfo"]["baseKey"]));
            assert_eq!(ours.initiator, theirs["indexInfo"]["baseKeyType"] == 1);
            assert_eq!(ours.remote_registration_id, Some(number(&theirs["registrationId"])));
            assert_eq!(ours.pending.is_some(), theirs.get("pendingPreKey").is_some());
            for (key, chain) in theirs["_chains"].as_object().unwrap() {
                let key = PublicKey::from_slice(&STANDARD.decode(key).unwrap()).unwrap();
                // libsignal counts the last key given, from -1; we count the next one, from 0.
                let counter = u32::try_from(chain["chainKey"]["counter"].as_i64().unwrap() + 1).unwrap();
                if chain["chainType"] == 1 {
                    let sending = ours.sending.as_ref().unwrap();
                    assert_eq!((ours.ratchet.public, sending.counter), (key, counter));
                    assert_eq!(sending.key.0.to_vec(), decode(&chain["chainKey"]["key"]));
                } else if let Some((_, receiving)) = ours.receiving.iter().find(|(known, _)| *known == key) {
                    assert_receiving(receiving, chain, counter);
                } else {
                    // Beyond the five chains that we keep; libsignal keeps all.
                    assert_eq!(ours.receiving.len(), super::limits::MAX_RECEIVER_CHAINS);
                }
            }
        }
    }
}

fn assert_receiving(ours: &ReceivingChain, theirs: &Value, counter: u32) {
    for (index, seed) in theirs["messageKeys"].as_object().unwrap() {
        let found = ours.find(index.parse().unwrap()).unwrap();
        assert_eq!(found.seed.0.to_vec(), STANDARD.decode(seed.as_str().unwrap()).unwrap());
    }
    if let Some(key) = theirs["chainKey"].get("key") {
        assert_eq!(ours.counter, counter);
        let ours = ours.key.as_ref().unwrap();
        assert_eq!(ours.0.to_vec(), STANDARD.decode(key.as_str().unwrap()).unwrap());
    }
}

#[test]
fn sender_key_messages_of_baileys_are_read_in_any_order() {
    let parts = load(include_str!("../../../tests/vectors/signal/sender_keys.json"));
    let mut theirs = SenderKeyRecord::default();
    for part in items(&parts) {
        theirs.process_distribution(&bytes(&part["distribution"])).unwrap();
        for index in [3, 0, 5, 4, 1, 2] {
            let message = &part["messages"][index];
            let ciphertext = bytes(&message["ciphertext"]);
            assert_eq!(theirs.decrypt(&ciphertext).unwrap().plaintext, bytes(&message["plaintext"]));
            assert_eq!(theirs.decrypt(&ciphertext).unwrap_err(), SignalError::Duplicate);
        }
    }
}

#[test]
fn our_sender_key_messages_are_those_of_baileys_but_for_the_random_signature() {
    let parts = load(include_str!("../../../tests/vectors/signal/sender_keys.json"));
    for part in items(&parts) {
        let distribution = bytes(&part["distribution"]);
        let skdm = SenderKeyDistribution::parse(&distribution).unwrap();
        let signing = pair(&part["signing_private"]);
        assert_eq!(signing.public, skdm.signing_key);
        let chain = SendingChain::new(ChainKey(*skdm.chain_key), skdm.iteration);
        let mut own = SenderKeyRecord::own(skdm.key_id, chain, signing);
        assert_eq!(own.distribution().unwrap(), distribution);
        for message in items(&part["messages"]) {
            let ciphertext = bytes(&message["ciphertext"]);
            let iteration = SenderKeyMessage::parse(&ciphertext).unwrap().iteration;
            let rng = &mut super::testing::rng(1);
            while own.iteration() < iteration {
                own.encrypt(b"a gap", rng).unwrap();
            }
            let ours = own.encrypt(&bytes(&message["plaintext"]), rng).unwrap().bytes;
            let signed = ours.len() - wire::SIGNATURE_LEN;
            assert_eq!(ours[..signed], ciphertext[..signed]);
        }
    }
}

#[test]
fn signatures_of_curve25519_js_verify_and_are_reproduced() {
    for vector in items(&load(include_str!("../../../tests/vectors/signal/signatures.json"))) {
        let (pair, message) = (pair(&vector["private"]), bytes(&vector["message"]));
        assert_eq!(pair.public.0, array(&vector["public"]));
        assert!(curve::verify(&pair.public, &message, &bytes(&vector["deterministic"])));
        assert!(curve::verify(&pair.public, &message, &bytes(&vector["randomised"])));
        let mut rng = Recorded(VecDeque::from([bytes(&vector["random"])]));
        assert_eq!(curve::sign(&pair.private, &message, &mut rng), array(&vector["randomised"]));
    }
}

#[test]
fn device_identities_made_with_baileys_verify() {
    for vector in items(&load(include_str!("../../../tests/vectors/signal/adv.json"))) {
        let kind = if vector["type"] == "HOSTED" { AdvType::Hosted } else { AdvType::E2ee };
        let (account, identity) =
            (PublicKey(array(&vector["account"])), PublicKey(array(&vector["identity"])));
        let details = bytes(&vector["details"]);
        let (by_account, by_device) =
            (bytes(&vector["account_signature"]), bytes(&vector["device_signature"]));
        assert!(adv::verify_account_signature(&account, kind, &details, &identity, &by_account));
        assert!(adv::verify_device_signature(&identity, kind, &details, &account, &by_device));
        assert!(adv::verify_device_identity(&account, &details, &identity, &by_account, &by_device));
        let (secret, outer) = (bytes(&vector["secret"]), bytes(&vector["outer"]));
        assert!(adv::verify_hmac(&secret, kind, &outer, &bytes(&vector["hmac"])));
    }
}

#[test]
fn published_vectors_hold() {
    let published = load(include_str!("../../../tests/vectors/signal/published.json"));
    for vector in items(&published["x25519"]) {
        let shared = pair(&vector["private"]).private.diffie_hellman(&PublicKey(array(&vector["public"])));
        assert_eq!(shared.unwrap().0, array(&vector["shared"]), "{}", vector["origin"]);
    }
    for vector in items(&published["x25519_public"]) {
        assert_eq!(pair(&vector["private"]).public.0, array(&vector["public"]), "{}", vector["origin"]);
    }
    for vector in items(&published["xeddsa"]) {
        let public = PublicKey(array(&vector["public"]));
        assert_eq!(pair(&vector["private"]).public, public);
        assert!(curve::verify(&public, &bytes(&vector["message"]), &bytes(&vector["signature"])));
    }
    for vector in items(&published["chain_key"]) {
        let mut chain = ChainKey(array(&vector["chain_key"]));
        let keys: [u8; 80] = chain.advance().expand(b"WhisperMessageKeys");
        assert_eq!(keys[..32], bytes(&vector["cipher_key"]));
        assert_eq!(keys[32..64], bytes(&vector["mac_key"]));
        assert_eq!(chain.0, array(&vector["next"]));
    }
}
