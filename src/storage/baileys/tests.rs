//! Folders that real Baileys clients left (see `tests/vectors/baileys_auth/ORIGIN.md`) go through our rows and back.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::whatsapp::{
    keys::{KeyPair, PrivateKey},
    rows::{Credentials, MarksRecord},
    signal::{LocalIdentity, PreKeySource, SenderKeyRecord, SessionRecord},
    state::{Batch, Table},
    testing::MemoryStore,
};

mod damage;
mod random;

fn vector(name: &str) -> Value {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/baileys_auth");
    serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
}

fn folder(name: &str) -> Folder {
    let vector = vector(name);
    let files = vector["files"].as_object().unwrap().iter();
    files.map(|(name, text)| (name.clone(), text.as_str().unwrap().as_bytes().to_vec())).collect()
}

const FOLDERS: [&str; 4] = ["seven_lid.json", "seven_pn.json", "six_lid.json", "six_pn.json"];

fn loaded(folder: &Folder, freshness: Freshness) -> (Loaded, MemoryStore) {
    let mut loaded = load(folder.clone().into_iter(), freshness).unwrap();
    let mut store = MemoryStore::default();
    store.put(Table::Session, "left.0", b"from an earlier account".to_vec());
    store.apply(Batch { number: 0, writes: std::mem::take(&mut loaded.writes) });
    assert_eq!(store.get(Table::Session, "left.0").unwrap(), None);
    (loaded, store)
}

fn rendered(store: &MemoryStore) -> Folder {
    let names = names(store).unwrap();
    assert_eq!(names.last().map(FileName::as_str), Some("creds.json"));
    let files = names.into_iter().filter_map(|name| Some((name.to_string(), render(&name, store).unwrap()?)));
    files.collect()
}

/// What a file means: sender keys unpacked, without the keys Baileys leaves behind in its own; the index as a set.
fn meaning(name: &str, bytes: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let inner = |value: &Value| -> Value {
        serde_json::from_slice(&STANDARD.decode(value["data"].as_str().unwrap()).unwrap()).unwrap()
    };
    if name.starts_with("sender-key-1") {
        value = inner(&value);
        for key in value.as_array_mut().unwrap() {
            let private = key["senderSigningKey"]["private"]["data"].as_array();
            if private.is_some_and(|bytes| !bytes.is_empty()) {
                key["senderMessageKeys"] = json!([]);
            } else {
                // Absent and empty mean the same: somebody else's key.
                key["senderSigningKey"]["private"] = json!(null);
            }
        }
    } else if name.starts_with("tctoken-__") {
        let mut jids: Vec<String> = serde_json::from_value(inner(&value["token"])).unwrap();
        jids.sort();
        value = json!(jids);
    }
    value
}

/// The name a file of Baileys 6 has in our folder.
fn own_name(name: &str, seven: bool, renamed: &[(&str, &str)]) -> String {
    if seven {
        return name.to_owned();
    }
    renamed.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

#[test]
fn what_baileys_left_comes_back_equal_where_nothing_changed() {
    for file in FOLDERS {
        let (before, seven) = (folder(file), file.starts_with("seven"));
        let (loaded, store) = loaded(&before, Freshness::Clean);
        assert_eq!(loaded.report.refused, [], "{file}");
        assert_eq!(loaded.report.kept, Vec::<String>::new(), "{file}");
        let after = rendered(&store);
        // Our account and Carol, and everybody else whose LID the folder shows.
        let renamed: Vec<(String, String)> =
            (1..=12).map(|n| (format!("-1000000000000{n:02}"), format!("-1000000000000{n:02}_1"))).collect();
        let mut renamed: Vec<(&str, &str)> = renamed.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        if file == "six_pn.json" {
            renamed.push(("session-6281200000080", "session-100000000000010_1"));
        }
        for (name, bytes) in &before {
            let own = own_name(name, seven, &renamed);
            let now = after.get(&own).unwrap_or_else(|| panic!("{file}: {name} is missing as {own}"));
            assert_eq!(meaning(&own, now), meaning(name, bytes), "{file}: {name}");
        }
        // What Baileys lacks, and what the LID of our own account adds.
        let new: Vec<&String> = after
            .keys()
            .filter(|name| !before.keys().any(|old| own_name(old, seven, &renamed) == **name))
            .filter(|name| !name.starts_with("worker-"))
            .filter(|name| !(name.starts_with("lid-mapping-") || name.starts_with("identity-key-") && !seven))
            .collect();
        assert!(new.is_empty(), "{file}: {new:?}");
    }
}

#[test]
fn a_second_load_of_what_we_wrote_changes_nothing_and_needs_no_guessing() {
    for file in FOLDERS {
        let (_, store) = loaded(&folder(file), Freshness::Clean);
        let once = rendered(&store);
        let (loaded, store) = loaded(&once, Freshness::Clean);
        assert_eq!((loaded.report.refused.len(), loaded.superseded.len()), (0, 0), "{file}");
        assert!(!loaded.report.changes.iter().any(|change| change.contains("length")), "{file}");
        let twice = rendered(&store);
        assert_eq!(
            twice.iter().map(|(name, bytes)| (name, meaning(name, bytes))).collect::<Vec<_>>(),
            once.iter().map(|(name, bytes)| (name, meaning(name, bytes))).collect::<Vec<_>>(),
            "{file}"
        );
    }
}

#[test]
fn what_we_do_not_know_is_kept_where_we_write_and_left_where_we_do_not() {
    let mut before = folder("seven_lid.json");
    let change = |before: &mut Folder, name: &str, edit: &dyn Fn(&mut Value)| {
        let mut value = serde_json::from_slice(&before[name]).unwrap();
        edit(&mut value);
        before.insert(name.to_owned(), value.to_string().into_bytes());
    };
    change(&mut before, "creds.json", &|creds| {
        creds["additionalData"] = json!({ "of": ["the", "operator"] });
        creds["me"]["verifiedName"] = json!("Friends Ltd");
        creds["fromTheFuture"] = json!({ "type": "Buffer", "data": "AQI=" });
    });
    let session = "session-100000000000003_1.0.json";
    change(&mut before, session, &|record| {
        let sessions = record["_sessions"].as_object_mut().unwrap();
        for state in sessions.values_mut() {
            state["fromTheFuture"] = json!([1]);
            state["indexInfo"]["alsoNew"] = json!("x");
        }
    });
    before.insert("app-state-sync-version-regular.json".to_owned(), b"{\"version\":3}".to_vec());
    before.insert("notes.txt".to_owned(), b"not JSON".to_vec());
    let (loaded, store) = loaded(&before, Freshness::Clean);
    assert_eq!(loaded.report.kept, ["app-state-sync-version-regular.json", "notes.txt"]);
    let after = rendered(&store);
    for name in ["creds.json", session] {
        assert_eq!(meaning(name, &after[name]), meaning(name, &before[name]));
    }
    for name in &loaded.report.kept {
        assert!(!after.contains_key(name));
        let name = FileName::parse(name).unwrap();
        assert!(matches!(render(&name, &store), Err(RenderError::NotOurs(_))));
    }
}

#[test]
fn credentials_become_ours() {
    let (loaded, store) = loaded(&folder("seven_lid.json"), Freshness::Clean);
    assert_eq!(loaded.account.to_string(), "6281200000050@s.whatsapp.net");
    assert_eq!(loaded.lid.unwrap().to_string(), "100000000000001@lid");
    assert_eq!(loaded.name.as_deref(), Some("Phone 6281200000050"));
    let raw = store.get(Table::Credentials, Credentials::KEY).unwrap().unwrap();
    let credentials = Credentials::decode(&raw).unwrap();
    assert!(credentials.is_paired());
    assert_eq!((credentials.next_prekey_id, credentials.first_unuploaded_prekey_id), (813, 813));
    assert_eq!(credentials.jid.unwrap().device, 1);
    assert_eq!(credentials.props_hash, None);
    assert_eq!(store.keys(Table::PreKey, "").unwrap().len(), 5);
    assert_eq!(store.count(Table::DeviceList), 0);
    assert_eq!(loaded.report.taken["session"], 5);
}

#[test]
fn worker_files_complete_the_account_they_belong_to_and_no_other() {
    let (_, mut store) = loaded(&folder("seven_lid.json"), Freshness::Clean);
    let raw = store.get(Table::Credentials, Credentials::KEY).unwrap().unwrap();
    let mut credentials = Credentials::decode(&raw).unwrap();
    credentials.lid_migrated = true;
    credentials.nct_salt = Some(vec![7; 16]);
    credentials.props_hash = Some("hash".to_owned());
    store.put(Table::Credentials, Credentials::KEY, credentials.encode());
    store.put(Table::PushName, "100000000000003@lid", "Carol ♥".as_bytes().to_vec());
    store.put(Table::Chat, "4915100000003@s.whatsapp.net", vec![8, 1]);
    let written = rendered(&store);
    let again = |folder: &Folder| {
        let (loaded, store) = loaded(folder, Freshness::Clean);
        let raw = store.get(Table::Credentials, Credentials::KEY).unwrap().unwrap();
        (loaded, Credentials::decode(&raw).unwrap(), store)
    };
    let (_, read, store) = again(&written);
    assert_eq!(
        (read.lid_migrated, read.nct_salt, read.props_hash),
        (true, Some(vec![7; 16]), Some("hash".into()))
    );
    assert_eq!(store.get(Table::PushName, "100000000000003@lid").unwrap().unwrap(), "Carol ♥".as_bytes());
    assert_eq!(store.get(Table::Chat, "4915100000003@s.whatsapp.net").unwrap().unwrap(), [8, 1]);
    // Baileys was linked to another account in the same folder meanwhile.
    let mut other = folder("six_pn.json");
    other.insert("worker-account.json".to_owned(), written["worker-account.json"].clone());
    let (loaded, read, _) = again(&other);
    assert!(!read.lid_migrated && read.nct_salt.is_none());
    assert!(loaded.report.changes.iter().any(|change| change.contains("another account")));
}

#[test]
fn a_stale_folder_is_received_on_but_never_sent_on_again() {
    for file in FOLDERS {
        let (clean, fresh) = loaded(&folder(file), Freshness::Clean);
        let (stale, store) = loaded(&folder(file), Freshness::Stale);
        let keys = store.keys(Table::Session, "").unwrap();
        assert_eq!(keys, fresh.keys(Table::Session, "").unwrap());
        for key in &keys {
            let read = |store: &MemoryStore| {
                SessionRecord::decode(&store.get(Table::Session, key).unwrap().unwrap()).unwrap()
            };
            assert!(read(&fresh).has_session(), "{file} {key}");
            assert!(!read(&store).has_session(), "{file} {key}");
            let (ours, theirs) = (read(&store).to_parts(), read(&fresh).to_parts());
            assert_eq!(ours.current.unwrap().receiving.len(), theirs.current.unwrap().receiving.len());
        }
        let own_keys = |store: &MemoryStore| {
            let keys = store.keys(Table::SenderKey, "").unwrap().into_iter();
            let read = |key: &String| {
                SenderKeyRecord::decode(&store.get(Table::SenderKey, key).unwrap().unwrap()).unwrap()
            };
            keys.filter(|key| read(key).distribution().is_ok()).count()
        };
        assert_eq!((own_keys(&fresh), own_keys(&store)), (1, 0), "{file}");
        assert_eq!((fresh.count(Table::SenderKeyDevices), store.count(Table::SenderKeyDevices)), (1, 0));
        let next = |store: &MemoryStore| {
            let raw = store.get(Table::Credentials, Credentials::KEY).unwrap().unwrap();
            Credentials::decode(&raw).unwrap().next_prekey_id
        };
        assert!(next(&store) >= next(&fresh) + 10 * 812);
        assert!(clean.report.changes.len() < stale.report.changes.len());
        // Baileys must not find an open session it cannot send on.
        for (name, bytes) in rendered(&store).iter().filter(|(name, _)| name.starts_with("session-")) {
            let record: Value = serde_json::from_slice(bytes).unwrap();
            let states = record["_sessions"].as_object().unwrap();
            assert!(states.values().all(|state| state["indexInfo"]["closed"] != -1), "{file} {name}");
        }
    }
}

#[test]
fn marks_of_who_holds_our_sender_key_follow_the_key() {
    let (_, mut store) = loaded(&folder("seven_lid.json"), Freshness::Clean);
    let group = store.keys(Table::SenderKeyDevices, "").unwrap().remove(0);
    let raw = store.get(Table::SenderKeyDevices, &group).unwrap().unwrap();
    let mut marks: MarksRecord = prost::Message::decode(raw.as_slice()).unwrap();
    assert!(marks.devices.contains(&"100000000000003_1.0".to_owned()), "{marks:?}");
    marks.key_id ^= 1;
    store.put(Table::SenderKeyDevices, group.as_str(), prost::Message::encode_to_vec(&marks));
    assert!(!rendered(&store).contains_key(&format!("sender-key-memory-{group}.json")));
}

struct NoPreKeys;

impl PreKeySource for NoPreKeys {
    fn prekey(&self, _: u32) -> Option<KeyPair> {
        None
    }

    fn signed_prekey(&self, _: u32) -> Option<KeyPair> {
        None
    }
}

#[test]
fn sessions_of_libsignal_decrypt_what_is_still_under_way() {
    for vector in vector("sessions.json").as_array().unwrap() {
        let name = &vector["name"];
        let record = vector["record"].to_string();
        let (parts, kept) = session::read(record.as_bytes()).unwrap();
        // Through both formats before it is used.
        let written = session::render(&parts, &kept).unwrap();
        let (parts, _) = session::read(&written).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&written).unwrap()["_sessions"],
            vector["record"]["_sessions"]
        );
        let mut record = SessionRecord::from_parts(parts);
        let private = crate::whatsapp::vectors::bytes(vector, "identityPrivate");
        let pair = KeyPair::from(PrivateKey(private.try_into().unwrap()));
        let local = LocalIdentity { registration_id: 1, pair: &pair };
        for message in vector["arriving"].as_array().unwrap() {
            let bytes = STANDARD.decode(message["body"].as_str().unwrap()).unwrap();
            let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(1);
            let read = match message["kind"].as_str().unwrap() {
                "pkmsg" => record.decrypt_pkmsg(&local, &bytes, &NoPreKeys, &mut rng),
                _ => record.decrypt_msg(&local, &bytes, &mut rng),
            };
            let read = read.unwrap_or_else(|error| panic!("{name}: {}: {error}", message["text"]));
            assert_eq!(read.plaintext, message["text"].as_str().unwrap().as_bytes(), "{name}");
        }
        assert!(record.has_session(), "{name}");
    }
}
