//! Contacts against a store, without a connection: pairs move records, notifications patch device lists.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::Device;
use crate::whatsapp::{
    binary::Node,
    ctx::{Ctx, Now},
    engine::{Engine, EngineConfig},
    jid::Jid,
    keys::PublicKey,
    messages::phash,
    model::Output,
    pairing::Credentials,
    signal::prekey::SignedPreKeyRecord,
    state::{StateRead, Table},
    testing::MemoryStore,
};

/// An engine that is linked but not connected.
pub(in crate::whatsapp) struct Bench {
    pub(in crate::whatsapp) engine: Engine,
    pub(in crate::whatsapp) store: MemoryStore,
    pub(in crate::whatsapp) rng: ChaCha20Rng,
}

impl Bench {
    pub(in crate::whatsapp) fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let config = EngineConfig {
            noise_root: PublicKey([1; 32]),
            version: [2, 3000, 1],
            device_name: "test".into(),
        };
        let mut engine = Engine::new(config);
        let credentials = Credentials::generate(&mut rng);
        let id = credentials.signed_prekey_id;
        let signed = SignedPreKeyRecord::generate(id, &credentials.identity, 1_780_000_000, &mut rng);
        let mut store = MemoryStore::default();
        store.put(Table::SignedPreKey, id.to_string(), signed.encode());
        engine.credentials = Some(Credentials {
            jid: Some(Jid::pn("6281200000001").with_device(7)),
            lid: Some(Jid::lid("900").with_device(7)),
            account: Some(vec![1]),
            lid_migrated: true,
            ..credentials
        });
        Self { engine, store, rng }
    }

    /// One call, made durable.
    pub(in crate::whatsapp) fn call<T>(&mut self, call: impl FnOnce(&mut Engine, &mut Ctx<'_>) -> T) -> T {
        let now = Now { mono: Duration::from_secs(1000), unix_ms: 1_780_000_000_000 };
        let result = call(&mut self.engine, &mut Ctx { now, rng: &mut self.rng, store: &self.store });
        self.engine.flush_state();
        while let Some(output) = self.engine.next_output() {
            if let Output::Persist(batch) = output {
                let number = batch.number;
                self.store.apply(batch);
                self.engine.handle_persisted(number);
            }
        }
        result
    }
}

fn devices(bench: &mut Bench, user: &Jid) -> Option<Vec<u16>> {
    let user = user.clone();
    let set = bench.call(|engine, ctx| engine.devices_of(ctx, &[user])).unwrap().remove(0);
    match set {
        super::DeviceSet::Known(devices) => Some(devices.iter().map(|device| device.id).collect()),
        _ => None,
    }
}

#[test]
fn a_learnt_pair_moves_everything_to_the_lid_and_leaves_what_is_there() {
    let mut bench = Bench::new(1);
    let (pn, lid) = (Jid::pn("6281200000002"), Jid::lid("222"));
    bench.store.put(Table::Session, "6281200000002.0", b"phone".to_vec());
    bench.store.put(Table::Session, "6281200000002.5", b"old".to_vec());
    bench.store.put(Table::Session, "222_1.5", b"new".to_vec());
    bench.store.put(Table::Session, "62812000000021.0", b"a longer number".to_vec());
    bench.store.put(Table::Identity, "6281200000002.0", b"identity".to_vec());
    bench.store.put(Table::SenderKey, "1@g.us::6281200000002.5", b"key".to_vec());
    bench.store.put(Table::SenderKey, "2@g.us::333_1.0", b"other".to_vec());
    bench.call(|engine, ctx| engine.learn_lid(ctx, &pn.with_device(5), &lid)).unwrap();

    let store = &bench.store;
    let get = |table, key: &str| store.get(table, key).unwrap();
    assert_eq!(store.keys(Table::Session, "").unwrap(), ["222_1.0", "222_1.5", "62812000000021.0"]);
    assert_eq!(get(Table::Session, "222_1.0").unwrap(), b"phone");
    assert_eq!(get(Table::Session, "222_1.5").unwrap(), b"new");
    assert_eq!(get(Table::Identity, "222_1.0").unwrap(), b"identity");
    assert_eq!(store.keys(Table::SenderKey, "").unwrap(), ["1@g.us::6281200000002.5", "2@g.us::333_1.0"]);
    assert_eq!(bench.engine.lid_of(&bench.store, &pn).unwrap(), Some(lid.clone()));
    assert_eq!(bench.engine.display_name(&bench.store, &lid.with_device(3)).unwrap(), pn);
}

#[test]
fn a_new_pair_replaces_every_pair_with_the_same_name() {
    let mut bench = Bench::new(2);
    let learn = |bench: &mut Bench, pn: &'static str, lid: &'static str| {
        bench.call(|engine, ctx| engine.learn_lid(ctx, &Jid::pn(pn), &Jid::lid(lid))).unwrap();
    };
    learn(&mut bench, "1", "11");
    learn(&mut bench, "2", "22");
    learn(&mut bench, "1", "22");
    assert_eq!(bench.store.keys(Table::LidOfPn, "").unwrap(), ["1"]);
    assert_eq!(bench.store.keys(Table::PnOfLid, "").unwrap(), ["22"]);
    assert_eq!(bench.engine.lid_of(&bench.store, &Jid::pn("2")).unwrap(), None);
    assert_eq!(bench.engine.pn_of(&bench.store, &Jid::lid("11")).unwrap(), None);
}

#[test]
fn a_device_notification_patches_the_list_only_when_the_hash_agrees() {
    let mut bench = Bench::new(3);
    let user = Jid::lid("222");
    let change = |tag: &'static str, device: u16, hash: String| {
        let device = Node::new("device").attr("jid", Jid::lid("222").with_device(device));
        let change = Node::new(tag).attr("device_lid_hash", hash).child(device);
        Node::new("notification").attr("from", Jid::lid("222")).child(change)
    };
    let hash = |ids: &[u16]| {
        let jids: Vec<Jid> = ids.iter().map(|id| Device { id: *id, hosted: false }.of(&user)).collect();
        phash(&jids)
    };
    let usync = |ids: &[u16]| {
        let list = ids
            .iter()
            .map(|id| Node::new("device").attr("id", id.to_string()).attr("key-index", id.to_string()));
        let devices = Node::new("devices").child(Node::new("device-list").nodes(list));
        let user = Node::new("user").attr("jid", Jid::lid("222")).child(devices);
        Node::new("iq").child(Node::new("usync").child(Node::new("list").child(user)))
    };
    let answer = usync(&[0, 3]);
    let users = vec![user.clone()];
    bench.call(|engine, ctx| engine.on_devices_answer(ctx, users, Ok(&answer))).unwrap();
    assert_eq!(devices(&mut bench, &user), Some(vec![0, 3]));

    let notify = |bench: &mut Bench, stanza: Node| {
        bench.call(|engine, ctx| engine.on_devices_notification(ctx, &stanza)).unwrap();
    };
    notify(&mut bench, change("add", 5, hash(&[0, 3, 5])));
    assert_eq!(devices(&mut bench, &user), Some(vec![0, 3, 5]));
    notify(&mut bench, change("remove", 3, hash(&[0, 5])));
    assert_eq!(devices(&mut bench, &user), Some(vec![0, 5]));
    notify(&mut bench, change("add", 6, hash(&[0, 1])));
    assert_eq!(devices(&mut bench, &user), None, "a list the server does not have is dropped");
}

#[test]
fn an_identity_notification_drops_sessions_and_marks_of_all_devices() {
    let mut bench = Bench::new(4);
    let (pn, lid) = (Jid::pn("6281200000002"), Jid::lid("222"));
    bench.call(|engine, ctx| engine.learn_lid(ctx, &pn, &lid)).unwrap();
    bench.store.put(Table::Session, "222_1.0", vec![1]);
    bench.store.put(Table::Session, "222_1.5", vec![1]);
    bench.store.put(Table::Session, "333_1.0", vec![1]);
    let group: Jid = "1@g.us".parse().unwrap();
    let address = |text: &str| text.parse().unwrap();
    let marked = [address("222_1.5"), address("333_1.0")];
    bench.call(|engine, ctx| engine.mark_sender_key(ctx.store, &group, 9, &marked)).unwrap();
    let stanza = Node::new("notification").attr("from", pn.clone()).child(Node::new("identity"));
    bench.call(|engine, ctx| engine.on_identity_notification(ctx, &stanza)).unwrap();

    assert_eq!(bench.store.keys(Table::Session, "").unwrap(), ["333_1.0"]);
    let both = vec![(lid.with_device(5), address("222_1.5")), (Jid::lid("333"), address("333_1.0"))];
    let lacking = bench.call(|engine, ctx| engine.without_sender_key(ctx.store, &group, 9, both)).unwrap();
    assert_eq!(lacking.len(), 1);
    assert_eq!(lacking[0].1, address("222_1.5"));
    assert_eq!(bench.store.events().len(), 1);

    // Companions and our own account say nothing about anybody else's phone.
    for from in [pn.with_device(4), Jid::lid("900")] {
        let stanza = Node::new("notification").attr("from", from).child(Node::new("identity"));
        bench.call(|engine, ctx| engine.on_identity_notification(ctx, &stanza)).unwrap();
    }
    assert_eq!(bench.store.events().len(), 1);
}
