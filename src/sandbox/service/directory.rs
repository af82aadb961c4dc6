//! What phones ask the service: answered at once, without IQs.

use super::{CodeHello, DeviceRef, LinkRequest, LinkedDevice, PublishedKeys, Service};
use crate::{
    sandbox::world::{NewPhone, SandboxError},
    whatsapp::{binary::Node, ctx::Now, jid::Jid, keys::PublicKey, signal::PreKeyBundle},
};

/// A group as a phone sees it.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// Members are addressed by LID (else by PN).
    pub lid: bool,
    /// Members without device, in the group's namespace.
    pub participants: Vec<Jid>,
}

/// The service as phones use it.
pub trait Directory {
    /// Makes an account for a new phone.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad number, [`SandboxError::Conflict`] when it is taken.
    fn add_account(&mut self, phone: &NewPhone, keys: PublishedKeys, now: Now) -> Result<u32, SandboxError>;
    /// All devices of a user, in the namespace of `user`; empty when there is no such account.
    fn devices(&mut self, user: &Jid) -> Vec<Jid>;
    /// A device's bundle with a fresh one-time prekey.
    fn bundle(&mut self, device: &Jid, now: Now) -> Option<PreKeyBundle>;
    /// A group this account is in.
    fn group(&mut self, group: &Jid) -> Option<GroupView>;
    /// The same user or device in the LID namespace; unknown users stay as they are.
    fn to_lid(&mut self, jid: &Jid) -> Jid;
    /// The same user or device in the PN namespace; unknown users stay as they are.
    fn to_pn(&mut self, jid: &Jid) -> Jid;
    /// One-time prekeys this phone still has in the directory.
    fn own_prekeys(&mut self, account: u32) -> usize;
    /// Publishes more of them.
    fn publish(&mut self, account: u32, keys: Vec<(u32, PublicKey)>);
    /// The account's 1:1 chats are LID-addressed from now on.
    fn migrate(&mut self, account: u32);
    /// A phone was reinstalled: new keys, no companions, and everybody who knows the account is told.
    fn reinstall(&mut self, account: u32, keys: PublishedKeys, now: Now);
    /// Hands in a stanza of a phone.
    fn submit(&mut self, account: u32, node: Node, now: Now);
    /// The companion behind a QR reference.
    fn companion(&mut self, reference: &str) -> Option<LinkedDevice>;
    /// The latest companion that asked to be linked to this account by code.
    fn code_hello(&mut self, account: u32) -> Option<CodeHello>;
    /// Tells a companion that its code was typed.
    ///
    /// # Errors
    /// [`SandboxError::Conflict`] when it is gone.
    fn primary_hello(
        &mut self,
        reference: &str,
        wrapped_ephemeral: Vec<u8>,
        identity: &PublicKey,
        now: Now,
    ) -> Result<(), SandboxError>;
    /// Links a companion; gives back its device index.
    ///
    /// # Errors
    /// [`SandboxError::Conflict`] when nobody waits behind the reference.
    fn link(&mut self, account: u32, request: LinkRequest, now: Now) -> Result<u16, SandboxError>;
}

impl Directory for Service {
    fn add_account(&mut self, phone: &NewPhone, keys: PublishedKeys, now: Now) -> Result<u32, SandboxError> {
        Self::add_account(self, &phone.number, &phone.name, phone.lid_migrated, keys, now)
    }

    fn devices(&mut self, user: &Jid) -> Vec<Jid> {
        let Some(account) = self.account_of(user) else { return Vec::new() };
        self.devices_of(account).map(|device| self.device_jid(device, user.is_lid())).collect()
    }

    fn bundle(&mut self, device: &Jid, now: Now) -> Option<PreKeyBundle> {
        let device = self.device_of(device)?;
        self.take_bundle(device, now)
    }

    fn group(&mut self, group: &Jid) -> Option<GroupView> {
        let group = self.groups.get(&*group.user)?;
        let participants = group.participants.keys().map(|id| self.account(*id).jid(group.lid));
        Some(GroupView { lid: group.lid, participants: participants.collect() })
    }

    fn to_lid(&mut self, jid: &Jid) -> Jid {
        self.in_namespace(jid, true)
    }

    fn to_pn(&mut self, jid: &Jid) -> Jid {
        self.in_namespace(jid, false)
    }

    fn own_prekeys(&mut self, account: u32) -> usize {
        self.phone_prekeys(account)
    }

    fn publish(&mut self, account: u32, keys: Vec<(u32, PublicKey)>) {
        self.publish_phone_prekeys(account, keys);
    }

    fn migrate(&mut self, account: u32) {
        self.account_mut(account).lid_migrated = true;
    }

    fn reinstall(&mut self, account: u32, keys: PublishedKeys, now: Now) {
        Self::reinstall(self, account, keys, now);
    }

    fn submit(&mut self, account: u32, node: Node, now: Now) {
        self.handle_phone_node(account, node, now);
    }

    fn companion(&mut self, reference: &str) -> Option<LinkedDevice> {
        Self::companion(self, reference)
    }

    fn code_hello(&mut self, account: u32) -> Option<CodeHello> {
        Self::code_hello(self, account)
    }

    fn primary_hello(
        &mut self,
        reference: &str,
        wrapped_ephemeral: Vec<u8>,
        identity: &PublicKey,
        now: Now,
    ) -> Result<(), SandboxError> {
        Self::primary_hello(self, reference, wrapped_ephemeral, identity, now)
    }

    fn link(&mut self, account: u32, request: LinkRequest, now: Now) -> Result<u16, SandboxError> {
        Self::link(self, account, request, now)
    }
}

impl Service {
    fn in_namespace(&self, jid: &Jid, lid: bool) -> Jid {
        match self.account_of(jid) {
            Some(account) => self.device_jid(DeviceRef { account, device: jid.device }, lid),
            None => jid.clone(),
        }
    }
}
