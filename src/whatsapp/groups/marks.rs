//! Which devices hold our current sender key of a group.
//!
//! A device is marked when a message that carried the key to it was accepted by the server. A mark that is wrong
//! means "waiting for this message" for ever on that device, so marks go on every doubt: identity change, retry
//! receipt, stale addressing or device hash, another key. Seen: whatsapp-rust PR 1300; Baileys issue 2704.

use std::collections::HashSet;

use prost::Message;

use crate::whatsapp::{
    engine::{Engine, EngineError},
    jid::Jid,
    messages::sender_key_name,
    signal::Address,
    state::{StateRead, Table},
};

/// Who holds the key with this id.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    key_id: u32,
    devices: HashSet<String>,
}

/// Stored form.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MarksRecord {
    /// Id of the sender key the devices hold.
    #[prost(uint32, tag = "1")]
    pub(crate) key_id: u32,
    /// Signal addresses.
    #[prost(string, repeated, tag = "2")]
    pub(crate) devices: Vec<String>,
}

impl Engine {
    /// The devices among `devices` that do not hold the key with this id.
    pub(in crate::whatsapp) fn without_sender_key(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        key_id: u32,
        devices: Vec<(Jid, Address)>,
    ) -> Result<Vec<(Jid, Address)>, EngineError> {
        let marks = self.marks(store, group)?;
        if marks.key_id != key_id || marks.devices.is_empty() {
            return Ok(devices);
        }
        Ok(devices.into_iter().filter(|(_, address)| !marks.devices.contains(address.as_str())).collect())
    }

    /// The server accepted a message that carried the key to these devices.
    pub(in crate::whatsapp) fn mark_sender_key(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        key_id: u32,
        devices: &[Address],
    ) -> Result<(), EngineError> {
        let marks = self.marks(store, group)?;
        if marks.key_id != key_id {
            marks.key_id = key_id;
            marks.devices.clear();
        }
        marks.devices.extend(devices.iter().map(|address| address.as_str().to_owned()));
        self.put_marks(group);
        Ok(())
    }

    /// One device lacks the key after all.
    pub(in crate::whatsapp) fn unmark_device(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        device: &Address,
    ) -> Result<(), EngineError> {
        if self.marks(store, group)?.devices.remove(device.as_str()) {
            self.put_marks(group);
        }
        Ok(())
    }

    /// Nobody is known to hold the key.
    pub(in crate::whatsapp) fn clear_group_marks(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
    ) -> Result<(), EngineError> {
        let marks = self.marks(store, group)?;
        if !marks.devices.is_empty() {
            marks.devices.clear();
            self.put_marks(group);
        }
        Ok(())
    }

    /// A person's devices lack our keys, in every group.
    pub(in crate::whatsapp) fn clear_sender_key_marks(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
    ) -> Result<(), EngineError> {
        let names = [Some(user.to_user()), self.alternate(store, &user.to_user())?];
        let prefixes: Vec<String> = names.iter().flatten().map(Address::user_prefix).collect();
        for key in self.state.keys(store, Table::SenderKeyDevices, "")? {
            let Ok(group) = key.parse::<Jid>() else { continue };
            let marks = self.marks(store, &group)?;
            let before = marks.devices.len();
            marks.devices.retain(|device| !prefixes.iter().any(|prefix| device.starts_with(prefix)));
            if marks.devices.len() != before {
                self.put_marks(&group);
            }
        }
        Ok(())
    }

    /// Somebody left: what is said from now on must be encrypted with a key they do not have.
    pub(in crate::whatsapp) fn rotate_sender_key(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
    ) -> Result<(), EngineError> {
        let Some(own) = self.own() else { return Ok(()) };
        for name in std::iter::once(&own.pn).chain(own.lid.as_ref()) {
            let name = sender_key_name(group, &Address::from(name));
            if self.state.get(store, Table::SenderKey, &name)?.is_some() {
                self.delete_sender_key(&name);
            }
        }
        self.clear_group_marks(store, group)
    }

    fn marks(&mut self, store: &dyn StateRead, group: &Jid) -> Result<&mut Marks, EngineError> {
        if self.groups.marks.get(group).is_none() {
            let raw = self.state.get(store, Table::SenderKeyDevices, &group.to_string())?;
            // Unreadable marks are no marks: the key is sent once more.
            let record = raw.and_then(|raw| MarksRecord::decode(raw.as_slice()).ok()).unwrap_or_default();
            let marks = Marks { key_id: record.key_id, devices: record.devices.into_iter().collect() };
            self.groups.marks.insert(group.clone(), marks);
        }
        Ok(self.groups.marks.get(group).expect("inserted above, and the newest entry never leaves"))
    }

    fn put_marks(&mut self, group: &Jid) {
        let Some(marks) = self.groups.marks.get(group) else { return };
        let record = MarksRecord { key_id: marks.key_id, devices: marks.devices.iter().cloned().collect() };
        self.state.put(Table::SenderKeyDevices, group.to_string(), record.encode_to_vec());
    }
}
