//! Seeded random chats whose records go through Baileys' format at every step.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use super::*;
use crate::whatsapp::signal::{Encrypted, PreKeyBundle, PreKeyRecord, SignedPreKeyRecord};

struct Device {
    identity: KeyPair,
    signed: SignedPreKeyRecord,
    prekeys: BTreeMap<u32, KeyPair>,
    record: SessionRecord,
}

impl PreKeySource for Device {
    fn prekey(&self, id: u32) -> Option<KeyPair> {
        self.prekeys.get(&id).cloned()
    }

    fn signed_prekey(&self, id: u32) -> Option<KeyPair> {
        (id == self.signed.id).then(|| self.signed.pair.clone())
    }
}

impl Device {
    fn new(rng: &mut ChaCha20Rng) -> Self {
        let identity = KeyPair::generate(rng);
        let signed = SignedPreKeyRecord::generate(1, &identity, 0, rng);
        let prekeys = (1..=99).map(|id| (id, PreKeyRecord::generate(id, rng).pair)).collect();
        Self { identity, signed, prekeys, record: SessionRecord::default() }
    }

    fn bundle(&self, id: u32) -> PreKeyBundle {
        PreKeyBundle {
            registration_id: 7,
            identity: self.identity.public,
            signed_prekey_id: self.signed.id,
            signed_prekey: self.signed.pair.public,
            signed_prekey_signature: self.signed.signature,
            prekey: self.prekeys.get(&id).map(|pair| (id, pair.public)),
        }
    }

    /// As if it was handed to Baileys and back.
    fn go_through_a_file(&mut self) {
        let (parts, kept) = (self.record.to_parts(), session::Kept::default());
        let Some(file) = session::render(&parts, &kept) else { return };
        let (parts, kept) = session::read(&file).unwrap();
        assert_eq!(session::render(&parts, &kept).unwrap(), file);
        self.record = SessionRecord::decode(&SessionRecord::from_parts(parts).encode_clean()).unwrap();
    }

    fn read(&mut self, message: &Encrypted, rng: &mut ChaCha20Rng) -> Vec<u8> {
        let mut record = std::mem::take(&mut self.record);
        let identity = self.identity.clone();
        let local = LocalIdentity { registration_id: 7, pair: &identity };
        let read = match message.kind.as_str() {
            "pkmsg" => record.decrypt_pkmsg(&local, &message.bytes, self, rng),
            _ => record.decrypt_msg(&local, &message.bytes, rng),
        };
        self.record = record;
        let read = read.unwrap();
        self.prekeys.retain(|id, _| Some(*id) != read.used_prekey);
        read.plaintext
    }
}

#[test]
fn random_chats_lose_nothing_when_records_go_through_files_at_every_step() {
    for seed in 0..24 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut devices = [Device::new(&mut rng), Device::new(&mut rng)];
        let mut under_way: [Vec<(Encrypted, u32)>; 2] = [Vec::new(), Vec::new()];
        let mut next_prekey = [1, 1];
        for step in 0..120u32 {
            let from = (rng.next_u32() % 2) as usize;
            let to = 1 - from;
            let must_start = !devices[from].record.has_session() || rng.next_u32() % 30 == 0;
            let local = devices[from].identity.clone();
            let local = LocalIdentity { registration_id: 7, pair: &local };
            if must_start {
                let bundle = devices[to].bundle(next_prekey[to]);
                next_prekey[to] += 1;
                devices[from].record.process_bundle(&local, &bundle, &mut rng).unwrap();
            }
            let message = devices[from].record.encrypt(&local, &step.to_be_bytes()).unwrap();
            under_way[to].push((message, step));
            if rng.next_u32() % 3 > 0 && !under_way[from].is_empty() {
                let at = rng.next_u32() as usize % under_way[from].len().min(4);
                let (message, step) = under_way[from].remove(at);
                let text = devices[from].read(&message, &mut rng);
                assert_eq!(text, step.to_be_bytes(), "seed {seed}, step {step}");
            }
            devices.iter_mut().for_each(Device::go_through_a_file);
        }
    }
}

#[test]
fn random_edits_of_a_folder_never_panic_and_what_loads_renders() {
    for file in FOLDERS {
        let before = folder(file);
        let names: Vec<&String> = before.keys().collect();
        for seed in 0..400 {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut folder = before.clone();
            for _ in 0..3 {
                let name = names[rng.next_u32() as usize % names.len()];
                let bytes = folder.get_mut(name).unwrap();
                let at = rng.next_u32() as usize % bytes.len().max(1);
                match rng.next_u32() % 4 {
                    0 => bytes.truncate(at),
                    1 => drop(bytes.splice(at..at, b"9999999999".iter().copied())),
                    _ => bytes[at] ^= 1 << (rng.next_u32() % 7),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let Ok(loaded) = load(folder.into_iter(), Freshness::Clean) else { continue };
            let mut store = MemoryStore::default();
            store.apply(Batch { number: 0, writes: loaded.writes });
            for name in super::super::names(&store).unwrap() {
                render(&name, &store).unwrap_or_else(|error| panic!("{file} seed {seed}: {error}"));
            }
        }
    }
}
