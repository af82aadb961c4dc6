//! Accounts and their devices, and who a JID means.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use serde::Serialize;

use super::{Service, ciphertext::KeyLog, delivery::DeviceQueue, outgoing::SentIds, prekeys::PublishedKeys};
use crate::{
    sandbox::world::{ConnId, SandboxError},
    whatsapp::{
        ctx::Now,
        jid::{Jid, Server},
        keys::PublicKey,
    },
};

/// One device of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceRef {
    /// Position in the list of accounts.
    pub account: u32,
    /// 0 is the phone.
    pub device: u16,
}

/// An account as the control API shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Phone number, digits.
    pub phone: String,
    /// LID, digits.
    pub lid: String,
    /// Push name.
    pub name: String,
    /// Whether 1:1 chats are LID-addressed.
    pub lid_migrated: bool,
    /// Linked devices besides the phone.
    pub devices: Vec<DeviceView>,
}

/// A linked device as the control API shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceView {
    /// Device index.
    pub id: u16,
    /// Its live connection.
    pub connection: Option<u64>,
    /// One-time prekeys the directory still holds.
    pub prekeys: usize,
    /// Stanzas that wait for it.
    pub queued: usize,
    /// Stanzas it has not answered.
    pub unanswered: usize,
}

/// An account.
pub(super) struct Account {
    pub(super) pn: String,
    pub(super) lid: String,
    pub(super) name: String,
    pub(super) lid_migrated: bool,
    pub(super) devices: BTreeMap<u16, Device>,
    /// Devices that once existed.
    pub(super) removed: HashSet<u16>,
    pub(super) next_device: u16,
    /// `ADVSignedKeyIndexList` and its time, as the phone signed it last.
    pub(super) key_index_list: Option<(u64, Vec<u8>)>,
    /// When the device list changed last.
    pub(super) changed_at: Duration,
    /// Trusted-contact tokens this account gave out, by contact.
    pub(super) tokens: HashMap<u32, Vec<u8>>,
    /// Versions of app-state collections.
    pub(super) collections: HashMap<String, u64>,
    /// Accounts that asked for the device list and are told when it changes.
    pub(super) watchers: HashSet<u32>,
}

/// A device: what is published about it and what waits for it.
pub(super) struct Device {
    pub(super) keys: PublishedKeys,
    /// Position in the phone's key index list; 0 for the phone.
    pub(super) key_index: u32,
    /// Companions prove themselves with it at login.
    pub(super) noise_static: Option<PublicKey>,
    pub(super) conn: Option<ConnId>,
    pub(super) queue: DeviceQueue,
    /// Handed out at the first login, expected back at the next ones.
    pub(super) routing_info: Option<Vec<u8>>,
    /// `<failure reason/>` for the next login.
    pub(super) refuse_login: Option<u16>,
    /// Message keys it used.
    pub(super) key_log: KeyLog,
    /// Ids of messages it sent, newest last, to tell a resend from a new message.
    pub(super) sent_ids: SentIds,
}

impl Device {
    pub(super) fn new(keys: PublishedKeys, key_index: u32, noise_static: Option<PublicKey>) -> Self {
        Self {
            keys,
            key_index,
            noise_static,
            conn: None,
            queue: DeviceQueue::default(),
            routing_info: None,
            refuse_login: None,
            key_log: KeyLog::default(),
            sent_ids: SentIds::default(),
        }
    }
}

impl Account {
    /// `user@lid` or `user@s.whatsapp.net`.
    pub(super) fn jid(&self, lid: bool) -> Jid {
        if lid { Jid::lid(self.lid.clone()) } else { Jid::pn(self.pn.clone()) }
    }
}

impl Service {
    /// Makes an account with its phone (device 0), whose keys are given. Gives back its position.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad number, [`SandboxError::Conflict`] when it is taken.
    pub fn add_account(
        &mut self,
        number: &str,
        name: &str,
        lid_migrated: bool,
        keys: PublishedKeys,
        now: Now,
    ) -> Result<u32, SandboxError> {
        if !(5..=15).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            let reason = "must be 5 to 15 digits, international form without +".to_owned();
            return Err(SandboxError::Invalid { field: "phone", reason });
        }
        if self.by_pn.contains_key(number) {
            return Err(SandboxError::Conflict(format!("phone {number} exists already")));
        }
        let id = u32::try_from(self.accounts.len())
            .map_err(|_| SandboxError::Conflict("too many phones".to_owned()))?;
        // Real LIDs are 15-digit numbers; sequential ones make logs readable.
        let lid = (100_000_000_000_001 + u64::from(id)).to_string();
        self.by_pn.insert(number.to_owned(), id);
        self.by_lid.insert(lid.clone(), id);
        self.accounts.push(Account {
            pn: number.to_owned(),
            lid,
            name: name.to_owned(),
            lid_migrated,
            devices: BTreeMap::from([(0, Device::new(keys, 0, None))]),
            removed: HashSet::new(),
            next_device: 1,
            key_index_list: None,
            changed_at: now.mono,
            tokens: HashMap::new(),
            collections: HashMap::new(),
            watchers: HashSet::new(),
        });
        self.directory_version += 1;
        Ok(id)
    }

    /// The account with this phone number.
    #[must_use]
    pub fn account_of_number(&self, number: &str) -> Option<u32> {
        self.by_pn.get(number).copied()
    }

    /// All accounts.
    #[must_use]
    pub fn views(&self) -> Vec<AccountView> {
        self.accounts.iter().map(view).collect()
    }

    /// One account.
    #[must_use]
    pub fn view(&self, account: u32) -> AccountView {
        view(self.account(account))
    }

    /// The account a user or device JID means.
    #[must_use]
    pub fn account_of(&self, jid: &Jid) -> Option<u32> {
        match jid.server {
            Server::Pn | Server::LegacyPn => self.by_pn.get(&*jid.user).copied(),
            Server::Lid => self.by_lid.get(&*jid.user).copied(),
            _ => None,
        }
    }

    /// The device a JID means, when the account exists.
    pub(super) fn device_of(&self, jid: &Jid) -> Option<DeviceRef> {
        Some(DeviceRef { account: self.account_of(jid)?, device: jid.device })
    }

    pub(super) fn device(&self, device: DeviceRef) -> Option<&Device> {
        self.account(device.account).devices.get(&device.device)
    }

    pub(super) fn device_mut(&mut self, device: DeviceRef) -> Option<&mut Device> {
        self.account_mut(device.account).devices.get_mut(&device.device)
    }

    /// The JID of a device in one of the namespaces.
    pub(super) fn device_jid(&self, device: DeviceRef, lid: bool) -> Jid {
        self.account(device.account).jid(lid).with_device(device.device)
    }

    /// All devices of an account, phone first.
    pub(super) fn devices_of(&self, account: u32) -> impl Iterator<Item = DeviceRef> + '_ {
        self.account(account).devices.keys().map(move |&device| DeviceRef { account, device })
    }
}

fn view(account: &Account) -> AccountView {
    let devices = account.devices.iter().filter(|(id, _)| **id != 0).map(|(&id, device)| DeviceView {
        id,
        connection: device.conn.map(|conn| conn.0),
        prekeys: device.keys.count(),
        queued: device.queue.waiting(),
        unanswered: device.queue.unanswered(),
    });
    AccountView {
        phone: account.pn.clone(),
        lid: account.lid.clone(),
        name: account.name.clone(),
        lid_migrated: account.lid_migrated,
        devices: devices.collect(),
    }
}
