//! Device lists: which devices a user has, asked by usync once and then kept until something says they changed.
//!
//! Kept under the user's canonical name; device numbers are the same in both namespaces. Sends that wait for a list
//! are woken by `Engine::pump` when an answer is in.
//!
//! Seen: whatsmeow `user.go` `GetUserDevices`, `notification.go` @33cfac51; whatsapp-rust `wacore/src/usync.rs`
//! @1489b7da; Baileys `WAUSync` @7.0.0-rc14.

use std::time::Duration;

use prost::Message;

use super::ContactQuery;
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::{IqError, IqKind, iq},
    jid::{Jid, Server},
    messages::{id, pair, phash},
    model::CommandError,
    proto::{AdvKeyIndexList, AdvSignedKeyIndexList},
    signal::adv,
    state::{StateRead, Table},
};

/// How long "this user has no device" or "the server did not say" counts before the next send asks again.
const ANSWER_COUNTS: Duration = Duration::from_secs(10);
/// Users per usync. WhatsApp Web asks for whole groups at once; this bounds the stanza.
const USERS_PER_QUERY: usize = 512;
/// More devices than any account can have: what is beyond is ignored.
const MAX_DEVICES: usize = 64;

/// One device of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::whatsapp) struct Device {
    /// Device number; 0 is the phone.
    pub(in crate::whatsapp) id: u16,
    /// Runs at a Cloud-API provider.
    pub(in crate::whatsapp) hosted: bool,
}

impl Device {
    /// This device of `user`, in the namespace of `user`.
    pub(in crate::whatsapp) fn of(self, user: &Jid) -> Jid {
        let jid = user.with_device(self.id);
        match (self.hosted, user.is_lid()) {
            (false, _) => jid,
            (true, true) => Jid { server: Server::HostedLid, ..jid },
            (true, false) => Jid { server: Server::Hosted, ..jid },
        }
    }
}

/// What is known of the devices of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::whatsapp) enum DeviceSet {
    /// The list; never empty.
    Known(Vec<Device>),
    /// The server has been asked; the answer wakes the senders.
    Asked,
    /// The server knows no device.
    Nobody,
    /// The server gave no list.
    Failed(CommandError),
}

/// Stored form: ids, and which of them are hosted.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeviceRecord {
    /// Device numbers.
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) ids: Vec<u32>,
    /// Those among them that run at a Cloud-API provider.
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) hosted: Vec<u32>,
}

impl DeviceRecord {
    fn from_devices(devices: &[Device]) -> Self {
        let ids = devices.iter().map(|device| u32::from(device.id)).collect();
        let hosted =
            devices.iter().filter(|device| device.hosted).map(|device| u32::from(device.id)).collect();
        Self { ids, hosted }
    }

    fn into_devices(self) -> Vec<Device> {
        self.ids
            .iter()
            .filter_map(|id| Some(Device { id: u16::try_from(*id).ok()?, hosted: self.hosted.contains(id) }))
            .collect()
    }
}

impl Engine {
    /// The devices of each user, in order; asks the server, once for all, for those that are not known.
    pub(in crate::whatsapp) fn devices_of(
        &mut self,
        ctx: &mut Ctx<'_>,
        users: &[Jid],
    ) -> Result<Vec<DeviceSet>, EngineError> {
        let mut sets = Vec::with_capacity(users.len());
        let mut ask = Vec::new();
        for user in users {
            let set = self.known_devices(ctx, user)?;
            if set == DeviceSet::Asked && !self.contacts.asking.contains(user) {
                ask.push(user.clone());
            }
            sets.push(set);
        }
        self.ask_devices(ctx, ask);
        Ok(sets)
    }

    fn known_devices(&mut self, ctx: &Ctx<'_>, user: &Jid) -> Result<DeviceSet, EngineError> {
        if let Some(devices) = self.stored_devices(ctx.store, user)? {
            return Ok(DeviceSet::Known(devices));
        }
        match self.answer_about(user, ctx.now.mono) {
            Some(Some(error)) => Ok(DeviceSet::Failed(error.clone())),
            Some(None) => Ok(DeviceSet::Nobody),
            None => Ok(DeviceSet::Asked),
        }
    }

    /// The list from cache or store.
    fn stored_devices(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
    ) -> Result<Option<Vec<Device>>, EngineError> {
        let key = self.canonical(store, &user.to_user())?.to_string();
        if let Some(devices) = self.contacts.devices.get(&key) {
            return Ok(Some(devices.clone()));
        }
        let Some(raw) = self.state.get(store, Table::DeviceList, &key)? else { return Ok(None) };
        let devices =
            DeviceRecord::decode(raw.as_slice()).map(DeviceRecord::into_devices).unwrap_or_default();
        if devices.is_empty() {
            return Ok(None);
        }
        self.contacts.devices.insert(key, devices.clone());
        Ok(Some(devices))
    }

    /// Whether a usync about this user was answered a moment ago without giving a list.
    fn answer_about(&self, user: &Jid, now: Duration) -> Option<&Option<CommandError>> {
        let (until, answer) = self.contacts.answers.get(user)?;
        (*until > now).then_some(answer)
    }

    /// Whether asking for this user's other name is pointless now: the server was asked a moment ago.
    pub(in crate::whatsapp) fn was_asked(&self, user: &Jid, now: Duration) -> bool {
        self.answer_about(user, now).is_some()
    }

    /// Asks for devices and LIDs of these users, unless a question is under way.
    pub(in crate::whatsapp) fn ask_devices(&mut self, ctx: &mut Ctx<'_>, mut users: Vec<Jid>) {
        users.retain(|user| !self.contacts.asking.contains(user));
        users.sort_unstable();
        users.dedup();
        if !self.is_logged_in() {
            return;
        }
        for users in users.chunks(USERS_PER_QUERY) {
            self.contacts.asking.extend(users.iter().cloned());
            let own = self.own().map(|own| own.pn.user).unwrap_or_default();
            let sid = id::generate(&own, ctx.now.unix_s(), ctx.rng);
            self.send_iq(
                ctx,
                build_usync(users, sid),
                IqKind::Contact(ContactQuery::Devices(users.to_vec())),
            );
        }
    }

    /// Answer to a usync.
    pub(super) fn on_devices_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        users: Vec<Jid>,
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        let now = ctx.now.mono;
        self.contacts.answers.retain(|_, (until, _)| *until > now);
        let failure = match answer {
            Ok(node) => {
                self.store_usync(ctx, node)?;
                None
            }
            Err(error) => {
                log::debug!("usync failed: {error}");
                Some(error.to_command_error())
            }
        };
        for user in users {
            self.contacts.asking.remove(&user);
            if failure != Some(CommandError::ConnectionLost) {
                self.contacts.answers.insert(user, (now + ANSWER_COUNTS, failure.clone()));
            }
        }
        self.pump(ctx)
    }

    fn store_usync(&mut self, ctx: &mut Ctx<'_>, answer: &Node) -> Result<(), EngineError> {
        let list = answer.find("usync").and_then(|usync| usync.find("list"));
        for node in list.map(Node::children).unwrap_or_default().iter().filter(|node| node.tag == "user") {
            let Some(user) = node.jid("jid").filter(Jid::is_user) else { continue };
            let other = node
                .find("lid")
                .and_then(|lid| lid.jid("val"))
                .or_else(|| node.jid("lid"))
                .or_else(|| node.jid("pn_jid"));
            if let Some((pn, lid)) = other.and_then(|other| pair(&user, &other)) {
                self.learn_lid(ctx, &pn, &lid)?;
            }
            let Some(list) = node.find("devices") else { continue };
            let devices = self.checked_devices(ctx.store, &user, list)?;
            if !devices.is_empty() {
                self.put_devices(ctx.store, &user, devices)?;
            }
        }
        Ok(())
    }

    /// Reads `<devices>` and applies the signed key index list: a companion counts only when the account vouches
    /// for its key index, or the index is newer than the list.
    fn checked_devices(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        node: &Node,
    ) -> Result<Vec<Device>, EngineError> {
        let index = match node.find_bytes("key-index-list") {
            Some(blob) => self.read_key_index_list(store, user, blob)?,
            None => KeyIndexes::Absent,
        };
        let devices = node.find("device-list").map(Node::children).unwrap_or_default();
        Ok(devices
            .iter()
            .filter(|device| device.tag == "device")
            .filter_map(|device| {
                let id: u16 = device.number("id")?;
                let counts = id == 0 || index.vouches_for(device.number("key-index"));
                counts.then(|| Device { id, hosted: id == 99 || device.has("is_hosted", "true") })
            })
            .take(MAX_DEVICES)
            .collect())
    }

    fn read_key_index_list(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        blob: &[u8],
    ) -> Result<KeyIndexes, EngineError> {
        let Ok(signed) = AdvSignedKeyIndexList::decode(blob) else { return Ok(KeyIndexes::Bad) };
        let Ok(list) = AdvKeyIndexList::decode(signed.details()) else { return Ok(KeyIndexes::Bad) };
        let account = self.account_key(store, user, signed.account_signature_key.as_deref())?;
        // Hosted accounts sign with another prefix that no open client documents; their list is taken unchecked.
        let is_hosted = list.account_type.unwrap_or_default() != 0;
        let holds = account.is_none_or(|account| {
            is_hosted || adv::verify_key_index_list(&account, signed.details(), signed.account_signature())
        });
        if !holds {
            log::warn!("a device list is not signed by its account; its companions are left out");
            return Ok(KeyIndexes::Bad);
        }
        Ok(KeyIndexes::List { current: list.current_index.unwrap_or_default(), valid: list.valid_indexes })
    }

    fn put_devices(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        devices: Vec<Device>,
    ) -> Result<(), EngineError> {
        let key = self.canonical(store, &user.to_user())?.to_string();
        let raw = DeviceRecord::from_devices(&devices).encode_to_vec();
        self.state.put(Table::DeviceList, key.as_str(), raw);
        self.contacts.devices.insert(key, devices);
        Ok(())
    }

    /// The next send asks for this user's devices anew.
    pub(in crate::whatsapp) fn forget_devices(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
    ) -> Result<(), EngineError> {
        let user = user.to_user();
        self.contacts.answers.remove(&user);
        let key = self.canonical(store, &user)?.to_string();
        self.contacts.devices.remove(&key);
        if self.state.get(store, Table::DeviceList, &key)?.is_some() {
            self.state.delete(Table::DeviceList, key);
        }
        Ok(())
    }

    /// One device is gone (prekey error 406): takes it off the list.
    pub(in crate::whatsapp) fn drop_device(
        &mut self,
        store: &dyn StateRead,
        device: &Jid,
    ) -> Result<(), EngineError> {
        let Some(mut devices) = self.stored_devices(store, device)? else { return Ok(()) };
        devices.retain(|known| known.id != device.device);
        if devices.is_empty() {
            self.forget_devices(store, device)
        } else {
            self.put_devices(store, device, devices)
        }
    }

    /// Whether a device is on its user's list, when there is a list.
    pub(in crate::whatsapp) fn knows_device(
        &mut self,
        store: &dyn StateRead,
        device: &Jid,
    ) -> Result<bool, EngineError> {
        let devices = self.stored_devices(store, device)?;
        Ok(devices.is_none_or(|devices| devices.iter().any(|known| known.id == device.device)))
    }

    /// `<notification type="devices">` or the `devices` part of `account_sync`. The caller acks it.
    pub(in crate::whatsapp) fn on_devices_notification(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        let Some(from) = stanza.jid("from").filter(Jid::is_user) else { return Ok(()) };
        if let Some((pn, lid)) = stanza.jid("lid").and_then(|lid| pair(&from, &lid)) {
            self.learn_lid(ctx, &pn, &lid)?;
        }
        for change in stanza.children() {
            match change.tag.as_ref() {
                "add" | "remove" => self.patch_devices(ctx.store, &from, change)?,
                "devices" => self.replace_own_devices(ctx.store, &from, change)?,
                // What exactly "update" means is not known to any open client.
                "update" => self.forget_devices(ctx.store, &from)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies `<add>` or `<remove>`; a list whose hash then differs from the server's is dropped.
    fn patch_devices(&mut self, store: &dyn StateRead, user: &Jid, change: &Node) -> Result<(), EngineError> {
        let Some(mut devices) = self.stored_devices(store, user)? else { return Ok(()) };
        let changed = change.find_all("device").filter_map(|device| device.jid("jid"));
        for jid in changed {
            devices.retain(|known| known.id != jid.device);
            if change.tag == "add" && devices.len() < MAX_DEVICES {
                devices.push(Device { id: jid.device, hosted: jid.is_hosted() });
            }
            if change.tag == "remove" {
                let address = self.signal_address(store, &jid)?;
                self.delete_session(&address);
            }
        }
        if devices.is_empty() || !self.hash_matches(store, user, &devices, change)? {
            return self.forget_devices(store, user);
        }
        self.put_devices(store, user, devices)
    }

    fn hash_matches(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        devices: &[Device],
        change: &Node,
    ) -> Result<bool, EngineError> {
        let names = [Some(user.to_user()), self.alternate(store, &user.to_user())?];
        for name in names.into_iter().flatten() {
            let key = if name.is_lid() { "device_lid_hash" } else { "device_hash" };
            if let Some(expected) = change.get(key) {
                let jids: Vec<Jid> = devices.iter().map(|device| device.of(&name)).collect();
                return Ok(phash(&jids) == expected);
            }
        }
        Ok(false)
    }

    /// The complete list of our own devices, from `account_sync`.
    fn replace_own_devices(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        node: &Node,
    ) -> Result<(), EngineError> {
        let jids: Vec<Jid> = node.find_all("device").filter_map(|device| device.jid("jid")).collect();
        let is_whole = jids.iter().any(|jid| jid.device == 0) && jids.len() <= MAX_DEVICES;
        let hash_holds = node.get("dhash").is_none_or(|expected| phash(&jids) == expected);
        if !self.own().is_some_and(|own| own.is(user)) || !is_whole || !hash_holds {
            return self.forget_devices(store, user);
        }
        let devices = jids.iter().map(|jid| Device { id: jid.device, hosted: jid.is_hosted() }).collect();
        self.put_devices(store, user, devices)
    }
}

/// What a `key-index-list` says.
#[derive(Debug)]
enum KeyIndexes {
    Absent,
    /// Unreadable, or signed by somebody else.
    Bad,
    List {
        current: u32,
        valid: Vec<u32>,
    },
}

impl KeyIndexes {
    fn vouches_for(&self, key_index: Option<u32>) -> bool {
        match (self, key_index) {
            (_, None) | (Self::Bad, _) => false,
            (Self::Absent, Some(_)) => true,
            (Self::List { current, valid }, Some(index)) => valid.contains(&index) || index > *current,
        }
    }
}

fn build_usync(users: &[Jid], sid: String) -> Node {
    let mut query = Node::new("query").child(Node::new("devices").attr("version", "2"));
    if users.iter().any(Jid::is_pn) {
        query = query.child(Node::new("lid"));
    }
    let list = users.iter().map(|user| Node::new("user").attr("jid", user));
    let usync = Node::new("usync")
        .attr("sid", sid)
        .attr("mode", "query")
        .attr("last", "true")
        .attr("index", "0")
        .attr("context", "message")
        .child(query)
        .child(Node::new("list").nodes(list));
    iq("get", "usync").child(usync)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_companion_counts_when_the_account_vouches_for_it() {
        let list = KeyIndexes::List { current: 5, valid: vec![1, 3] };
        assert!(list.vouches_for(Some(3)));
        assert!(list.vouches_for(Some(6)), "newer than the list");
        assert!(!list.vouches_for(Some(2)), "revoked");
        assert!(!list.vouches_for(None));
        assert!(KeyIndexes::Absent.vouches_for(Some(1)));
        assert!(!KeyIndexes::Absent.vouches_for(None));
        assert!(!KeyIndexes::Bad.vouches_for(Some(9)));
    }

    #[test]
    fn the_stored_form_keeps_ids_and_hosting() {
        let devices = vec![Device { id: 0, hosted: false }, Device { id: 99, hosted: true }];
        let raw = DeviceRecord::from_devices(&devices).encode_to_vec();
        assert_eq!(DeviceRecord::decode(raw.as_slice()).unwrap().into_devices(), devices);
        assert_eq!(devices[1].of(&Jid::lid("5")), "5:99@hosted.lid".parse().unwrap());
    }
}
