//! The power goes out: of what SQLite has written since the last sync, the disk keeps some blocks, all or none. That the
//! log is synced before the journal starts over is taken for granted here.

use std::{fs, path::Path};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use super::{super::schema, *};

/// Long enough for the journal to start over several times, and for SQLite's log, too.
const WRITES: u64 = 400;
const VALUE_BYTES: usize = 50_000;
const BLOCK_BYTES: usize = 4096;

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let key = session(&store, "a");
    let mut random = ChaCha20Rng::seed_from_u64(7);
    let (mut on_disk, mut restarts, mut checkpoints) = (Synced::read(dir.path()), 0, 0);
    let mut before = on_disk.clone();
    for number in 1..=WRITES {
        let value = [&number.to_be_bytes()[..], &number.to_le_bytes().repeat(VALUE_BYTES / 8)].concat();
        write(&store, key, vec![put("counter", &value), event("62811")]).unwrap();
        let now = Synced::read(dir.path());
        if now.database != before.database {
            // SQLite moved its log into the database, which it does with syncs of its own.
            (on_disk, checkpoints) = (now.clone(), checkpoints + 1);
        } else if now.first_group() != before.first_group() {
            // The journal started over behind the write before this one, after a sync.
            (on_disk.log, restarts) = (before.log, restarts + 1);
        }
        before = now;
        for survival in [0, 50, 100] {
            if number % 19 == 0 {
                let torn = torn(&on_disk.log, &before.log, |_| random.next_u32() % 100 < survival);
                assert_eq!(found(&before, &torn), number, "{survival} % of the blocks are left");
            }
        }
    }
    assert!(restarts > 2 && checkpoints > 0, "{restarts} restarts, {checkpoints} checkpoints");
}

/// What a disk has.
#[derive(Clone)]
struct Synced {
    database: Vec<u8>,
    log: Vec<u8>,
    journal: Vec<u8>,
}

impl Synced {
    fn read(dir: &Path) -> Self {
        let read = |name: &str| fs::read(dir.join(name)).unwrap();
        let database = read(schema::FILE);
        Self { database, log: read(&format!("{}-wal", schema::FILE)), journal: read(journal::FILE) }
    }

    /// Number of the first group in the journal.
    fn first_group(&self) -> u64 {
        u64::from_le_bytes(self.journal[4..12].try_into().unwrap())
    }
}

/// `old` with those blocks of `new` that survive.
fn torn(old: &[u8], new: &[u8], mut survives: impl FnMut(usize) -> bool) -> Vec<u8> {
    let mut torn = old.to_vec();
    torn.resize(new.len().max(old.len()), 0);
    for (number, block) in new.chunks(BLOCK_BYTES).enumerate() {
        if survives(number) {
            torn[number * BLOCK_BYTES..][..block.len()].copy_from_slice(block);
        }
    }
    torn
}

/// The counter, and the number of events, that a worker finds which starts after the cut.
fn found(disk: &Synced, log: &[u8]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(schema::FILE), &disk.database).unwrap();
    fs::write(dir.path().join(format!("{}-wal", schema::FILE)), log).unwrap();
    fs::write(dir.path().join(journal::FILE), &disk.journal).unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let key = store.sessions().unwrap()[0].key;
    let value = SessionStore::new(store.clone(), key).get(Table::Session, "counter").unwrap().unwrap();
    let counter = u64::from_be_bytes(value[..8].try_into().unwrap());
    assert_eq!(store.event_span(key).unwrap(), Some((1, counter)));
    counter
}
