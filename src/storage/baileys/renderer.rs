//! State rows become files.

use prost::Message as _;
use serde_json::{Map, Value};

use super::{
    RenderError, app_state, creds, identity,
    json::write,
    name::{self, CREDS, FileName, Kind, from_hex},
    prekey, sender_key, session, token, worker,
};
use crate::whatsapp::{
    jid::Jid,
    keys::PublicKey,
    proto::AppStateSyncKeyData,
    rows::{Credentials, DeviceRecord, MarksRecord, TokenRecord},
    signal::{Address, PreKeyRecord, SenderKeyRecord, SessionRecord, SignedPreKeyRecord},
    state::{StateRead, Table},
};

/// What a file is rendered from.
pub(super) struct Renderer<'a> {
    pub(super) state: &'a dyn StateRead,
    pub(super) name: &'a FileName,
}

type Rendered = Result<Option<Vec<u8>>, RenderError>;

impl Renderer<'_> {
    pub(super) fn render(&self) -> Rendered {
        let Some((kind, id)) = Kind::of(self.name.as_str()) else {
            return Err(RenderError::NotOurs(self.name.clone()));
        };
        match kind {
            Kind::Creds => self.creds(),
            Kind::WorkerAccount => Ok(self.credentials()?.as_ref().and_then(worker::render_account)),
            Kind::PreKey => {
                self.row(Table::PreKey, id, |raw| Some(prekey::render(&PreKeyRecord::decode(raw).ok()?)))
            }
            Kind::Session => self.session(id),
            Kind::Identity => {
                self.row(Table::Identity, id, |raw| Some(identity::render(&PublicKey::from_slice(raw)?)))
            }
            Kind::SenderKey => self.sender_key(id),
            Kind::SenderKeyMemory => self.memory(id),
            Kind::LidMapping => self.mapping(id),
            Kind::DeviceList => self.device_list(id),
            Kind::TcToken if id == "__index" => Ok(token::render_index(&self.keys(Table::TcToken)?)),
            Kind::TcToken => {
                self.row(Table::TcToken, id, |raw| Some(token::render(&TokenRecord::decode(raw).ok()?)))
            }
            Kind::AppStateKey => self.app_state_key(id),
            Kind::WorkerSignedPreKey => self.signed_prekey(id),
            Kind::WorkerName => self.row(Table::PushName, id, |raw| Some(worker::render_name(raw))),
            Kind::WorkerChat => self.row(Table::Chat, id, |raw| Some(worker::render_row(raw))),
        }
    }

    fn get(&self, table: Table, key: &str) -> Rendered {
        self.state.get(table, key).map_err(|error| RenderError::Read(self.name.clone(), error))
    }

    fn keys(&self, table: Table) -> Result<Vec<String>, RenderError> {
        self.state.keys(table, "").map_err(|error| RenderError::Read(self.name.clone(), error))
    }

    fn damaged(&self) -> RenderError {
        RenderError::Damaged(self.name.clone())
    }

    /// A file made of one row.
    fn row(&self, table: Table, key: &str, render: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Rendered {
        let Some(raw) = self.get(table, key)? else { return Ok(None) };
        render(&raw).map(Some).ok_or_else(|| self.damaged())
    }

    fn credentials(&self) -> Result<Option<Credentials>, RenderError> {
        let Some(raw) = self.get(Table::Credentials, Credentials::KEY)? else { return Ok(None) };
        Credentials::decode(&raw).map(Some).map_err(|_| self.damaged())
    }

    fn foreign<T: serde::de::DeserializeOwned + Default>(&self, name: &str) -> Result<T, RenderError> {
        let raw = self.get(Table::Foreign, name)?;
        // What is not ours and cannot be read any more is not worth losing what is.
        Ok(raw.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default())
    }

    fn creds(&self) -> Rendered {
        let Some(credentials) = self.credentials()? else { return Ok(None) };
        let key = credentials.signed_prekey_id.to_string();
        let Some(raw) = self.get(Table::SignedPreKey, &key)? else { return Err(self.damaged()) };
        let signed = SignedPreKeyRecord::decode(&raw).map_err(|_| self.damaged())?;
        let kept: Map<String, Value> = self.foreign(CREDS)?;
        let newest = self.newest_app_state_key(kept.get("myAppStateKeyId"))?;
        Ok(creds::render(&credentials, &signed, newest.as_deref(), kept))
    }

    /// Id of the newest app-state key, unless Baileys named one that is as new.
    fn newest_app_state_key(&self, named: Option<&Value>) -> Result<Option<Vec<u8>>, RenderError> {
        let named = named.and_then(super::json::bytes_of);
        let mut newest: Option<(i64, Vec<u8>)> = None;
        let mut named_at = None;
        for key in self.keys(Table::AppStateKey)? {
            let (Some(id), Some(raw)) = (from_hex(&key), self.get(Table::AppStateKey, &key)?) else {
                continue;
            };
            let Ok(data) = AppStateSyncKeyData::decode(raw.as_slice()) else { continue };
            let at = data.timestamp();
            if named.as_ref() == Some(&id) {
                named_at = Some(at);
            }
            if newest.as_ref().is_none_or(|(best, _)| at > *best) {
                newest = Some((at, id));
            }
        }
        Ok(newest.filter(|(at, _)| named_at.is_none_or(|named_at| *at > named_at)).map(|(_, id)| id))
    }

    fn session(&self, id: &str) -> Rendered {
        let Some(raw) = self.get(Table::Session, id)? else { return Ok(None) };
        let record = SessionRecord::decode(&raw).map_err(|_| self.damaged())?;
        Ok(session::render(&record.to_parts(), &self.foreign(self.name.as_str())?))
    }

    fn sender_key(&self, id: &str) -> Rendered {
        let Some((group, address)) = name::sender_key_parts(id) else { return Ok(None) };
        let Some(raw) = self.get(Table::SenderKey, &format!("{group}::{address}"))? else { return Ok(None) };
        let record = SenderKeyRecord::decode(&raw).map_err(|_| self.damaged())?;
        Ok(sender_key::render(&record.to_parts()))
    }

    /// Marks of another key than the one that is there are worth nothing.
    fn memory(&self, group: &str) -> Rendered {
        let (Some(raw), Some(credentials)) = (self.get(Table::SenderKeyDevices, group)?, self.credentials()?)
        else {
            return Ok(None);
        };
        let marks = MarksRecord::decode(raw.as_slice()).map_err(|_| self.damaged())?;
        for own in credentials.lid.iter().chain(&credentials.jid) {
            let Some(raw) = self.get(Table::SenderKey, &format!("{group}::{}", Address::from(own)))? else {
                continue;
            };
            if SenderKeyRecord::decode(&raw).is_ok_and(|record| record.key_id() == Some(marks.key_id)) {
                let devices: Vec<Jid> = marks
                    .devices
                    .iter()
                    .filter_map(|address| Some(address.parse::<Address>().ok()?.to_jid()))
                    .collect();
                let by_number = if own.is_pn() { self.by_number(&devices)? } else { None };
                let names = by_number.unwrap_or(devices);
                return Ok(sender_key::render_memory(names.iter().map(Jid::to_string)));
            }
        }
        Ok(None)
    }

    /// The devices by their phone numbers, as they are called in a group that is addressed so: then each is known.
    fn by_number(&self, devices: &[Jid]) -> Result<Option<Vec<Jid>>, RenderError> {
        let mut names = Vec::with_capacity(devices.len());
        for device in devices {
            if !device.is_lid() {
                names.push(device.clone());
                continue;
            }
            let pn = self.get(Table::PnOfLid, &device.user)?.and_then(|raw| String::from_utf8(raw).ok());
            let Some(pn) = pn else { return Ok(None) };
            names.push(Jid::pn(pn).with_device(device.device));
        }
        Ok(Some(names))
    }

    fn mapping(&self, id: &str) -> Rendered {
        let (table, user) = match id.strip_suffix("_reverse") {
            Some(lid) => (Table::PnOfLid, lid),
            None => (Table::LidOfPn, id),
        };
        self.row(table, user, |raw| Some(write(&std::str::from_utf8(raw).ok()?)))
    }

    fn device_list(&self, user: &str) -> Rendered {
        for jid in [Jid::lid(user.to_owned()), Jid::pn(user.to_owned())] {
            if let Some(raw) = self.get(Table::DeviceList, &jid.to_string())? {
                let record = DeviceRecord::decode(raw.as_slice()).map_err(|_| self.damaged())?;
                let ids: Vec<String> = record.ids.iter().map(u32::to_string).collect();
                return Ok(Some(write(&ids)));
            }
        }
        self.get(Table::Foreign, self.name.as_str())
    }

    fn app_state_key(&self, id: &str) -> Rendered {
        let Some(key) = app_state::row_key(id) else { return Ok(None) };
        self.row(Table::AppStateKey, &key, |raw| {
            Some(app_state::render(&AppStateSyncKeyData::decode(raw).ok()?))
        })
    }

    /// The current one is in `creds.json`.
    fn signed_prekey(&self, id: &str) -> Rendered {
        if self.credentials()?.is_some_and(|credentials| credentials.signed_prekey_id.to_string() == id) {
            return Ok(None);
        }
        self.row(Table::SignedPreKey, id, |raw| {
            Some(worker::render_signed_prekey(&SignedPreKeyRecord::decode(raw).ok()?))
        })
    }
}

/// Every file of the account, `creds.json` last.
pub(super) fn names(state: &dyn StateRead) -> Result<Vec<FileName>, RenderError> {
    let mut names = std::collections::BTreeSet::new();
    for table in Table::ALL {
        let keys = state.keys(table, "").map_err(|error| RenderError::Read(FileName::creds(), error))?;
        names.extend(keys.iter().flat_map(|key| name::files_of(table, key)));
    }
    let has_creds = names.remove(&FileName::creds());
    Ok(names.into_iter().chain(has_creds.then(FileName::creds)).collect())
}
