//! What devices are told when something changes: device lists, and a companion that is ready for its phone.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use sha2::{Digest as _, Sha256};

use super::{DeviceRef, PublishedKeys, Service, ServiceOutput, account::Device};
use crate::whatsapp::{binary::Node, ctx::Now, jid::Jid};

impl Service {
    /// A device was added or removed: own companions and everybody who asked for the list are told.
    pub(super) fn devices_changed(&mut self, device: DeviceRef, added: bool, now: Now) {
        self.directory_version += 1;
        self.account_mut(device.account).changed_at = now.mono;
        self.tell_own_devices(device, now);
        let watchers: Vec<u32> = self.account(device.account).watchers.iter().copied().collect();
        for watcher in watchers {
            if watcher == device.account {
                continue;
            }
            let companions: Vec<_> =
                self.devices_of(watcher).filter(|companion| companion.device != 0).collect();
            for companion in companions {
                let notification = self.devices_notification(device, added, now);
                self.deliver(companion, notification, now);
            }
        }
    }

    /// A phone was reinstalled: its companions are unlinked, its contacts hear of the new identity.
    pub fn reinstall(&mut self, account: u32, keys: PublishedKeys, now: Now) {
        let companions: Vec<_> = self.devices_of(account).filter(|device| device.device != 0).collect();
        for companion in companions {
            self.remove_device(companion, now);
        }
        self.account_mut(account).devices.insert(0, Device::new(keys, 0, None));
        self.account_mut(account).key_index_list = None;
        let user = self.account(account).jid(false);
        let lid = self.account(account).jid(true);
        let watchers: Vec<u32> = self.account(account).watchers.iter().copied().collect();
        let told: Vec<_> = watchers
            .into_iter()
            .filter(|watcher| *watcher != account)
            .flat_map(|watcher| self.devices_of(watcher))
            .filter(|device| device.device != 0)
            .collect();
        for device in told {
            let from = if self.account(device.account).lid_migrated { &lid } else { &user };
            let notification = Node::new("notification")
                .attr("from", from)
                .attr("id", self.fresh_number().to_string())
                .attr("type", "encrypt")
                .attr("t", now.unix_s().to_string())
                .child(Node::new("identity"));
            self.deliver(device, notification, now);
        }
    }

    fn tell_own_devices(&mut self, device: DeviceRef, now: Now) {
        let lid = self.account(device.account).lid_migrated;
        let siblings: Vec<_> = self
            .devices_of(device.account)
            .filter(|sibling| sibling.device != 0 && *sibling != device)
            .collect();
        for sibling in siblings {
            let hash = participant_hash(&self.device_jids(device.account, false));
            let devices = self
                .devices_of(device.account)
                .map(|known| Node::new("device").attr("jid", self.device_jid(known, false)));
            let devices = Node::new("devices").attr("dhash", hash).nodes(devices.collect::<Vec<_>>());
            let notification = Node::new("notification")
                .attr("from", self.account(device.account).jid(lid))
                .attr("id", self.fresh_number().to_string())
                .attr("type", "account_sync")
                .attr("t", now.unix_s().to_string())
                .child(devices);
            self.deliver(sibling, notification, now);
        }
    }

    fn devices_notification(&mut self, device: DeviceRef, added: bool, now: Now) -> Node {
        let account = self.account(device.account);
        let key_index = account.devices.get(&device.device).map(|known| known.key_index.to_string());
        let key_index_list = account
            .key_index_list
            .as_ref()
            .map(|(ts, bytes)| Node::new("key-index-list").attr("ts", ts.to_string()).bytes(bytes.clone()));
        let change = Node::new(if added { "add" } else { "remove" })
            .attr("device_hash", participant_hash(&self.device_jids(device.account, false)))
            .attr("device_lid_hash", participant_hash(&self.device_jids(device.account, true)))
            .child(
                Node::new("device")
                    .attr("jid", self.device_jid(device, false))
                    .attr("lid", self.device_jid(device, true))
                    .attr_opt("key-index", key_index),
            )
            .child_opt(key_index_list);
        let (pn, lid) = (account.jid(false), account.jid(true));
        Node::new("notification")
            .attr("from", pn)
            .attr("lid", lid)
            .attr("id", self.fresh_number().to_string())
            .attr("type", "devices")
            .attr("t", now.unix_s().to_string())
            .child(change)
    }

    /// All device JIDs of an account in one namespace.
    pub(super) fn device_jids(&self, account: u32, lid: bool) -> Vec<Jid> {
        self.devices_of(account).map(|device| self.device_jid(device, lid)).collect()
    }

    /// A companion has uploaded its prekeys for the first time: its phone may greet it now.
    pub(super) fn tell_phone_ready(&mut self, device: DeviceRef) {
        if device.device != 0 {
            let told = Node::new("sandbox:ready").attr("device", device.device.to_string());
            self.outputs.push_back(ServiceOutput::Phone(device.account, told.into()));
        }
    }
}

/// `2:` and 6 bytes of SHA-256 over the sorted `user.0:device@server` texts.
/// Seen: whatsmeow `send.go` `participantListHashV2` @33cfac51; vectors of whatsapp-rust `wacore/src/messages.rs`.
pub(in crate::sandbox) fn participant_hash(devices: &[Jid]) -> String {
    let mut texts: Vec<String> =
        devices.iter().map(|jid| format!("{}.0:{}@{}", jid.user, jid.device, jid.server.as_str())).collect();
    texts.sort_unstable();
    let hash = Sha256::digest(texts.concat());
    format!("2:{}", BASE64.encode(&hash[..6]))
}

#[cfg(test)]
mod tests {
    use super::participant_hash;

    #[test]
    fn participant_hashes_match_other_implementations() {
        let hash = |jids: &[&str]| {
            participant_hash(&jids.iter().map(|jid| jid.parse().unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(hash(&["5511999999999:3@s.whatsapp.net"]), "2:5s+YxCff");
        assert_eq!(hash(&["5511999999999@s.whatsapp.net"]), "2:RJWVxcMQ");
        assert_eq!(
            hash(&["5511988887777:14@s.whatsapp.net", "7469250125917:21@s.whatsapp.net"]),
            "2:AAv/hwhn"
        );
        assert_eq!(hash(&["5511988887777:14@s.whatsapp.net", "7469250125917:21@lid"]), "2:iNJfGzeZ");
    }
}
