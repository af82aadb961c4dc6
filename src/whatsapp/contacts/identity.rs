//! A contact's identity key changed: a new phone, or WhatsApp installed anew.
//!
//! Trust on first use: the new key is taken, and everything that hung on the old one goes: sessions (when the server
//! tells us), the device list, the marks of who holds our sender keys.
//! Seen: whatsmeow `notification.go` `handleEncryptNotification` @33cfac51; Baileys issue 2704 (what happens when the
//! marks are forgotten).

use prost::Message as _;

use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::{Jid, Server},
    keys::PublicKey,
    model::Event,
    proto::AdvSignedDeviceIdentity,
    signal::{Address, adv},
    state::{StateRead, Table},
};

impl Engine {
    /// `<notification type="encrypt"><identity/>`: the user has a new phone. The caller acks it.
    pub(in crate::whatsapp) fn on_identity_notification(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        let Some(user) = stanza.jid("from") else { return Ok(()) };
        let is_own = self.own().is_some_and(|own| own.is(&user));
        if is_own || user.device != 0 || !user.is_user() {
            return Ok(());
        }
        if let Some(lid) = stanza.jid("lid") {
            self.learn_lid(ctx, &user, &lid)?;
        }
        let had_session = self.drop_sessions(ctx.store, &user)?;
        if had_session {
            self.identity_changed(ctx, &user)?;
        } else {
            self.forget_devices(ctx.store, &user)?;
        }
        Ok(())
    }

    /// What follows from a changed identity, apart from the sessions themselves.
    pub(in crate::whatsapp) fn identity_changed(
        &mut self,
        ctx: &mut Ctx<'_>,
        user: &Jid,
    ) -> Result<(), EngineError> {
        self.forget_devices(ctx.store, user)?;
        self.clear_sender_key_marks(ctx.store, user)?;
        self.reissue_token(ctx, user)?;
        let user = self.display_name(ctx.store, user)?;
        self.emit_durable(Event::IdentityChanged { user });
        Ok(())
    }

    /// Compares a device's identity with the stored one and stores it. True when it replaced a different one.
    pub(in crate::whatsapp) fn note_identity(
        &mut self,
        store: &dyn StateRead,
        address: &Address,
        identity: &PublicKey,
    ) -> Result<bool, EngineError> {
        let stored = self.state.get(store, Table::Identity, address.as_str())?;
        if stored.as_deref() == Some(&identity.0[..]) {
            return Ok(false);
        }
        self.state.put(Table::Identity, address.as_str(), identity.0.to_vec());
        Ok(stored.is_some())
    }

    /// Whether a companion's `device-identity` ties `identity` to its account. Without an account key, in the blob
    /// or stored, there is nothing to check against and the device is taken, as WhatsApp Web does.
    pub(in crate::whatsapp) fn device_identity_holds(
        &mut self,
        store: &dyn StateRead,
        device: &Jid,
        identity: &PublicKey,
        blob: &[u8],
    ) -> Result<bool, EngineError> {
        let Ok(signed) = AdvSignedDeviceIdentity::decode(blob) else { return Ok(false) };
        let account = self.account_key(store, device, signed.account_signature_key.as_deref())?;
        let Some(account) = account else { return Ok(true) };
        Ok(adv::verify_device_identity(
            &account,
            signed.details(),
            identity,
            signed.account_signature(),
            signed.device_signature(),
        ))
    }

    /// The key of a user's account: the one a signed statement brings, or else the stored identity of the phone.
    pub(super) fn account_key(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        brought: Option<&[u8]>,
    ) -> Result<Option<PublicKey>, EngineError> {
        if let Some(key) = brought.filter(|key| !key.is_empty()) {
            return Ok(PublicKey::from_slice(key));
        }
        let phone = self.signal_address(store, &user.to_user())?;
        let stored = self.state.get(store, Table::Identity, phone.as_str())?;
        Ok(stored.as_deref().and_then(PublicKey::from_slice))
    }

    /// Deletes the sessions and identities of all devices of a user. False when there were none.
    fn drop_sessions(&mut self, store: &dyn StateRead, user: &Jid) -> Result<bool, EngineError> {
        let mut found = false;
        for name in [Some(user.to_user()), self.alternate(store, &user.to_user())?].into_iter().flatten() {
            let hosted = if name.is_lid() { Server::HostedLid } else { Server::Hosted };
            for name in [name.clone(), Jid { server: hosted, ..name }] {
                self.forget_cached_sessions(&name);
                let prefix = Address::user_prefix(&name);
                for table in [Table::Session, Table::Identity] {
                    for key in self.state.keys(store, table, &prefix)? {
                        found = true;
                        self.state.delete(table, key);
                    }
                }
            }
        }
        Ok(found)
    }
}
