//! A folder becomes state rows.
//!
//! Credentials first, then who is who, then everything else. Whatever cannot be read costs only what it held and is
//! named in the report.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use serde_json::Value;

use super::{
    Folder, Freshness, LoadError, Loaded, Report, app_state,
    creds::{self, MAX_PREKEY_ID},
    identity,
    json::{FileError, parse, write},
    name::{self, CREDS, FileName, Kind},
    people::People,
    prekey, sender_key, session, token, worker,
};
use crate::whatsapp::{
    jid::Jid,
    rows::{Credentials, MarksRecord},
    signal::{Address, SenderKeyRecord, SessionRecord, sender_key::parts::SenderKeyParts},
    state::{Table, Write},
};

/// More than any account has: ten thousand contacts make a hundred thousand small files.
const MAX_FILES: usize = 1_000_000;
/// All files together.
const MAX_TOTAL_BYTES: usize = 1 << 30;
/// A device list is a short array.
const MAX_DEVICE_LIST_BYTES: usize = 64 * 1024;
/// Ids a lost owner may have given out since the folder was written: several full uploads of 812.
const STALE_PREKEY_JUMP: u32 = 10_000;

pub(super) fn load(
    files: impl Iterator<Item = (String, Vec<u8>)>,
    freshness: Freshness,
) -> Result<Loaded, LoadError> {
    let files = collect(files)?;
    let creds = creds::read(files.get(CREDS).ok_or(LoadError::NoCreds)?).map_err(LoadError::Creds)?;
    let people = people(&files, &creds);
    let mut loader = Loader {
        freshness,
        people,
        report: Report::default(),
        rows: BTreeMap::new(),
        sessions: BTreeMap::new(),
        kept: HashMap::new(),
        sender_keys: BTreeMap::new(),
        superseded: Vec::new(),
        highest_prekey: 0,
        retired: 0,
        credentials: creds.credentials,
    };
    loader.credentials(creds.signed_prekey, creds.account_key, creds.kept);
    for (name, bytes) in &files {
        loader.file(name, bytes);
    }
    for (name, bytes) in &files {
        if let Some((Kind::SenderKeyMemory, group)) = Kind::of(name) {
            let result = loader.memory(group, bytes);
            loader.note(name, Kind::SenderKeyMemory, result);
        }
    }
    Ok(loader.finish())
}

fn collect(files: impl Iterator<Item = (String, Vec<u8>)>) -> Result<Folder, LoadError> {
    let (mut all, mut total) = (Folder::new(), 0usize);
    for (name, bytes) in files {
        total = total.saturating_add(bytes.len());
        all.insert(name, bytes);
        if all.len() > MAX_FILES || total > MAX_TOTAL_BYTES {
            return Err(LoadError::TooLarge);
        }
    }
    Ok(all)
}

/// Pairs and evidence from all over the folder; files that cannot be read are reported later.
fn people(files: &Folder, creds: &creds::Creds) -> People {
    let kinds = || files.keys().filter_map(|name| Kind::of(name));
    let only_seven = [Kind::LidMapping, Kind::DeviceList, Kind::TcToken, Kind::Identity];
    let seven = kinds().any(|(kind, id)| {
        only_seven.contains(&kind) || matches!(kind, Kind::Session | Kind::SenderKey) && id.contains("_1")
    });
    let own = creds.credentials.jid.clone().unwrap_or_else(Jid::service);
    let mut people = People::new(&own, creds.credentials.lid.as_ref(), seven);
    people.see_history(&creds.kept);
    for (name, bytes) in files {
        match Kind::of(name) {
            Some((Kind::LidMapping, id)) => drop(people.learn_file(id, bytes)),
            Some((Kind::SenderKeyMemory, _)) => {
                for jid in sender_key::read_memory(bytes).unwrap_or_default() {
                    people.see(&jid);
                }
            }
            _ => {}
        }
    }
    people
}

struct Loader {
    freshness: Freshness,
    people: People,
    report: Report,
    rows: BTreeMap<(Table, String), Vec<u8>>,
    /// By row key; those whose file already has the row's name first.
    sessions: BTreeMap<String, Vec<(bool, SessionRecord)>>,
    /// What session files say beyond sessions, by row key.
    kept: HashMap<String, session::Kept>,
    sender_keys: BTreeMap<String, Vec<SenderKeyParts>>,
    superseded: Vec<String>,
    highest_prekey: u32,
    retired: usize,
    credentials: Credentials,
}

impl Loader {
    fn credentials(
        &mut self,
        signed: crate::whatsapp::signal::SignedPreKeyRecord,
        account_key: crate::whatsapp::keys::PublicKey,
        kept: serde_json::Map<String, Value>,
    ) {
        self.put(Table::SignedPreKey, signed.id.to_string(), signed.encode());
        if !kept.is_empty() {
            self.put(Table::Foreign, CREDS, write(&kept));
        }
        let phone = self.people.own_lid.as_ref().unwrap_or(&self.people.own).to_user();
        self.put(Table::Identity, Address::from(&phone).as_str(), account_key.0.to_vec());
        self.count(Kind::Creds);
    }

    /// One file of any kind but those that were read before or are read after all others.
    fn file(&mut self, name: &str, bytes: &[u8]) {
        let Some((kind, id)) = Kind::of(name) else {
            self.report.kept.push(name.to_owned());
            return;
        };
        let result = match kind {
            Kind::Creds | Kind::SenderKeyMemory => return,
            // Made of the tokens.
            Kind::TcToken if id == "__index" => return,
            Kind::PreKey => self.prekey(id, bytes),
            Kind::Session => self.session(name, id, bytes),
            Kind::Identity => self.identity(id, bytes),
            Kind::SenderKey => self.sender_key(id, bytes),
            Kind::LidMapping => self.people.learn_file(id, bytes),
            Kind::DeviceList => self.device_list(name, bytes),
            Kind::TcToken => self.token(id, bytes),
            Kind::AppStateKey => self.app_state_key(id, bytes),
            Kind::WorkerAccount => self.account(bytes),
            Kind::WorkerSignedPreKey => self.signed_prekey(bytes),
            Kind::WorkerName => worker::read_name(bytes).map(|row| self.put(Table::PushName, id, row)),
            Kind::WorkerChat => worker::read_row(bytes).map(|row| self.put(Table::Chat, id, row)),
        };
        self.note(name, kind, result);
    }

    fn note(&mut self, name: &str, kind: Kind, result: Result<(), FileError>) {
        match result {
            Ok(()) => self.count(kind),
            Err(error) => self.report.refused.push((name.to_owned(), error.to_string())),
        }
    }

    fn count(&mut self, kind: Kind) {
        *self.report.taken.entry(kind.word()).or_default() += 1;
    }

    fn put(&mut self, table: Table, key: impl Into<String>, value: Vec<u8>) {
        self.rows.insert((table, key.into()), value);
    }

    fn prekey(&mut self, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let id: u32 = id.parse().map_err(|_| FileError::Name)?;
        if !(1..=MAX_PREKEY_ID).contains(&id) {
            return Err(FileError::Name);
        }
        let record = prekey::read(id, bytes, self.credentials.first_unuploaded_prekey_id)?;
        self.highest_prekey = self.highest_prekey.max(id);
        self.put(Table::PreKey, id.to_string(), record.encode());
        Ok(())
    }

    fn session(&mut self, name: &str, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let address = self.people.address(id)?;
        let (parts, kept) = session::read(bytes)?;
        let key = self.people.canonical(&address).to_string();
        let mut record = SessionRecord::from_parts(parts);
        if self.freshness == Freshness::Stale {
            record.retire_sending();
            self.retired += 1;
        }
        let is_own_name = FileName::of("session", &key).as_str() == name;
        if !is_own_name {
            self.superseded.push(name.to_owned());
        }
        self.kept.entry(key.clone()).or_default().join(kept);
        self.sessions.entry(key).or_default().push((is_own_name, record));
        Ok(())
    }

    fn identity(&mut self, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let address = self.people.address(id)?;
        let key = identity::read(bytes)?;
        let row = self.people.canonical(&address);
        if row == address {
            self.put(Table::Identity, row.as_str(), key.0.to_vec());
        } else {
            self.rows.entry((Table::Identity, row.to_string())).or_insert_with(|| key.0.to_vec());
        }
        Ok(())
    }

    fn sender_key(&mut self, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let (group, address) = name::sender_key_parts(id).ok_or(FileError::Name)?;
        let group: Jid = group.parse().map_err(|_| FileError::Name)?;
        let address = self.people.address(&address)?;
        let mut keys = sender_key::read(bytes)?;
        let own = self.people.own_address(&address);
        let is_ours = own.is_some() && keys.first().is_some_and(|key| key.private.is_some());
        if is_ours && self.freshness == Freshness::Stale {
            self.retired += 1;
            return Ok(());
        }
        let row = match own {
            Some(own) if is_ours => own,
            _ => {
                keys.iter_mut().for_each(|key| key.private = None);
                // Groups are addressed by phone number or by LID, and so are their sender keys.
                address
            }
        };
        if !keys.is_empty() {
            let known = self.sender_keys.entry(format!("{group}::{row}")).or_default();
            keys.retain(|key| !known.iter().any(|known| known.key_id == key.key_id));
            known.extend(keys);
        }
        Ok(())
    }

    /// Devices that hold our key, unless the key itself is not used again.
    fn memory(&mut self, group: &str, bytes: &[u8]) -> Result<(), FileError> {
        let group: Jid = group.parse().map_err(|_| FileError::Name)?;
        let devices = sender_key::read_memory(bytes)?;
        let own = self.people.own_lid.iter().chain(std::iter::once(&self.people.own));
        let mut keys =
            own.filter_map(|own| self.sender_keys.get(&format!("{group}::{}", Address::from(own))));
        let Some(key_id) = keys.find_map(|keys| Some(keys.first()?.key_id)) else { return Ok(()) };
        let mut devices: Vec<String> = devices
            .iter()
            .filter_map(|jid| jid.parse::<Jid>().ok().filter(Jid::is_user))
            .map(|jid| Address::from(&self.people.canonical_jid(&jid)).to_string())
            .collect();
        devices.sort_unstable();
        devices.dedup();
        let row = MarksRecord { key_id, devices }.encode_to_vec();
        self.put(Table::SenderKeyDevices, group.to_string(), row);
        Ok(())
    }

    /// Baileys' list may be as old as its last question, and does not follow notifications: kept for Baileys, while the
    /// engine asks the server.
    fn device_list(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let list: Vec<String> = parse(bytes, MAX_DEVICE_LIST_BYTES)?;
        self.put(Table::Foreign, name, write(&list));
        Ok(())
    }

    fn token(&mut self, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let user = id.parse::<Jid>().ok().filter(Jid::is_user).ok_or(FileError::Name)?;
        let record = token::read(bytes)?;
        let row = self.people.canonical_jid(&user.to_user());
        let value = record.encode_to_vec();
        if row == user {
            self.put(Table::TcToken, row.to_string(), value);
        } else {
            self.rows.entry((Table::TcToken, row.to_string())).or_insert(value);
        }
        Ok(())
    }

    fn app_state_key(&mut self, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let key = app_state::row_key(id).ok_or(FileError::Name)?;
        let data = app_state::read(bytes)?;
        self.put(Table::AppStateKey, key, data.encode_to_vec());
        Ok(())
    }

    fn account(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if !worker::read_account(bytes, &mut self.credentials)? {
            self.change("worker-account.json is of another account and was not used".to_owned());
        }
        Ok(())
    }

    fn signed_prekey(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let record = worker::read_signed_prekey(bytes, &self.credentials.identity)?;
        if record.id != self.credentials.signed_prekey_id {
            self.put(Table::SignedPreKey, record.id.to_string(), record.encode());
        }
        Ok(())
    }

    fn change(&mut self, sentence: String) {
        self.report.changes.push(sentence);
    }

    fn finish(mut self) -> Loaded {
        self.raise_prekey_ids();
        let pairs: Vec<(String, String)> =
            self.people.pairs().map(|(pn, lid)| (pn.clone(), lid.clone())).collect();
        for (pn, lid) in pairs {
            self.put(Table::LidOfPn, pn.as_str(), lid.as_bytes().to_vec());
            self.put(Table::PnOfLid, lid, pn.into_bytes());
        }
        self.finish_sessions();
        for (key, keys) in std::mem::take(&mut self.sender_keys) {
            let row = SenderKeyRecord::from_parts(keys).encode_clean();
            self.put(Table::SenderKey, key, row);
        }
        let row = self.credentials.encode();
        self.put(Table::Credentials, Credentials::KEY, row);
        self.say_what_changed();
        let clear = Table::ALL.map(Write::Clear);
        let puts = self.rows.into_iter().map(|((table, key), value)| Write::Put(table, key, value));
        Loaded {
            account: self.people.own.to_user(),
            lid: self.people.own_lid.map(|lid| lid.to_user()),
            name: self.credentials.push_name,
            writes: clear.into_iter().chain(puts).collect(),
            report: self.report,
            superseded: self.superseded,
        }
    }

    /// The next id must be one that was never given out.
    fn raise_prekey_ids(&mut self) {
        let written = self.credentials.next_prekey_id;
        let mut next = written.max(self.highest_prekey.saturating_add(1));
        if self.freshness == Freshness::Stale {
            next = next.saturating_add(STALE_PREKEY_JUMP);
            // Which of the older ones were uploaded meanwhile is not known: none is uploaded again.
            self.credentials.first_unuploaded_prekey_id = next;
        }
        // At the end of the 24 bits the count begins again.
        if next > MAX_PREKEY_ID {
            next = 1;
            self.credentials.first_unuploaded_prekey_id = 1;
        }
        self.credentials.next_prekey_id = next;
        if next != written {
            self.change(format!("the next prekey gets the id {next} instead of {written}"));
        }
    }

    fn finish_sessions(&mut self) {
        for (key, mut records) in std::mem::take(&mut self.sessions) {
            records.sort_by_key(|(is_own_name, _)| !is_own_name);
            let mut records = records.into_iter().map(|(_, record)| record);
            let Some(mut record) = records.next() else { continue };
            for other in records {
                if record.absorb(other).is_err() {
                    let sentence = "a session kept under a phone number belongs to another identity than the one \
                                    under its LID and was dropped";
                    self.change(sentence.to_owned());
                }
            }
            let name = FileName::of("session", &key);
            if let Some(kept) = self.kept.remove(&key) {
                self.put(Table::Foreign, name.as_str(), write(&kept));
            }
            self.put(Table::Session, key, record.encode_clean());
        }
    }

    fn say_what_changed(&mut self) {
        if self.retired > 0 {
            let retired = self.retired;
            self.change(format!(
                "{retired} sessions and sender keys are not sent on again, only received on"
            ));
        }
        if !self.superseded.is_empty() {
            let renamed = self.superseded.len();
            self.change(format!("{renamed} sessions are kept under the LID of their user from now on"));
        }
        let guessed = self.people.guessed.len();
        if guessed > 0 {
            self.change(format!(
                "{guessed} users were taken for a phone number or a LID by the length of their name alone"
            ));
        }
        let lists = self.report.taken.get(Kind::DeviceList.word()).copied().unwrap_or(0);
        if lists > 0 {
            self.change(format!(
                "{lists} device lists stay for Baileys; the server is asked for the devices"
            ));
        }
    }
}
