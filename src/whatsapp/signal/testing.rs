//! Two parties for the tests of this folder.

use std::collections::HashMap;

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRngCore, SeedableRng};

use super::{
    Decrypted, Encrypted, LocalIdentity, PreKeyBundle, PreKeyRecord, PreKeySource, SessionRecord,
    SignalError, SignedPreKeyRecord, session::CiphertextKind,
};
use crate::whatsapp::keys::KeyPair;

pub(super) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A device with its prekeys and its record of one peer.
#[derive(Clone)]
pub(super) struct Party {
    pub(super) identity: KeyPair,
    pub(super) registration_id: u32,
    pub(super) signed: SignedPreKeyRecord,
    pub(super) prekeys: HashMap<u32, KeyPair>,
    pub(super) record: SessionRecord,
    pub(super) rng: ChaCha20Rng,
}

impl Party {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let identity = KeyPair::generate(&mut rng);
        let signed = SignedPreKeyRecord::generate(1, &identity, 0, &mut rng);
        let prekeys = (1..=50).map(|id| (id, PreKeyRecord::generate(id, &mut rng).pair)).collect();
        let registration_id = 100 + u32::try_from(seed).unwrap();
        Self { identity, registration_id, signed, prekeys, record: SessionRecord::default(), rng }
    }

    /// What the server would hand out, with the one-time prekey `id`.
    pub(super) fn bundle(&self, id: Option<u32>) -> PreKeyBundle {
        PreKeyBundle {
            registration_id: self.registration_id,
            identity: self.identity.public,
            signed_prekey_id: self.signed.id,
            signed_prekey: self.signed.pair.public,
            signed_prekey_signature: self.signed.signature,
            prekey: id.map(|id| (id, self.prekeys[&id].public)),
        }
    }

    pub(super) fn start(&mut self, bundle: &PreKeyBundle) -> Result<(), SignalError> {
        let local = LocalIdentity { registration_id: self.registration_id, pair: &self.identity };
        self.record.process_bundle(&local, bundle, &mut self.rng)
    }

    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Result<Encrypted, SignalError> {
        let local = LocalIdentity { registration_id: self.registration_id, pair: &self.identity };
        self.record.encrypt(&local, plaintext)
    }

    pub(super) fn decrypt(&mut self, message: &Encrypted) -> Result<Decrypted, SignalError> {
        self.decrypt_bytes(message.kind, &message.bytes)
    }

    pub(super) fn decrypt_bytes(
        &mut self,
        kind: CiphertextKind,
        bytes: &[u8],
    ) -> Result<Decrypted, SignalError> {
        let local = LocalIdentity { registration_id: self.registration_id, pair: &self.identity };
        let keys = Keys { signed: &self.signed, prekeys: &self.prekeys };
        let rng: &mut dyn CryptoRngCore = &mut self.rng;
        let decrypted = match kind {
            CiphertextKind::PkMsg => self.record.decrypt_pkmsg(&local, bytes, &keys, rng)?,
            CiphertextKind::Msg => self.record.decrypt_msg(&local, bytes, rng)?,
        };
        if let Some(id) = decrypted.used_prekey {
            self.prekeys.remove(&id);
        }
        Ok(decrypted)
    }

    /// The stored form without touching the record's own bookkeeping.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        self.record.clone().encode()
    }
}

struct Keys<'a> {
    signed: &'a SignedPreKeyRecord,
    prekeys: &'a HashMap<u32, KeyPair>,
}

impl PreKeySource for Keys<'_> {
    fn prekey(&self, id: u32) -> Option<KeyPair> {
        self.prekeys.get(&id).cloned()
    }

    fn signed_prekey(&self, id: u32) -> Option<KeyPair> {
        (id == self.signed.id).then(|| self.signed.pair.clone())
    }
}

/// Alice has written, Bob has read and answered, Alice has read the answer.
pub(super) fn established() -> (Party, Party) {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    let first = alice.encrypt(b"first").unwrap();
    bob.decrypt(&first).unwrap();
    let answer = bob.encrypt(b"answer").unwrap();
    alice.decrypt(&answer).unwrap();
    (alice, bob)
}
