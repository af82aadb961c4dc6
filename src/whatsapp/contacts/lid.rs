//! LID and PN: every account has both names. Signal state lives under the LID as soon as the pair is known, whatever
//! name a stanza uses, so that one session never exists twice.
//!
//! Seen: whatsmeow `store/sqlstore/lidmap.go`, `message.go` `migrateSessionStore` @33cfac51; whatsapp-rust
//! `src/client/lid_pn.rs` @1489b7da.

use crate::whatsapp::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::{Jid, Server},
    messages::pair,
    signal::{Address, SessionRecord},
    state::{StateRead, Table},
};

impl Engine {
    /// The LID of a phone number, without device.
    pub(in crate::whatsapp) fn lid_of(
        &mut self,
        store: &dyn StateRead,
        pn: &Jid,
    ) -> Result<Option<Jid>, EngineError> {
        if let Some(known) = self.contacts.lid_of.get(pn.user.as_ref()) {
            return Ok(known.clone().map(Jid::lid));
        }
        let lid =
            self.state.get(store, Table::LidOfPn, &pn.user)?.and_then(|raw| String::from_utf8(raw).ok());
        self.contacts.lid_of.insert(pn.user.to_string(), lid.clone());
        Ok(lid.map(Jid::lid))
    }

    /// The phone number of a LID, without device.
    pub(in crate::whatsapp) fn pn_of(
        &mut self,
        store: &dyn StateRead,
        lid: &Jid,
    ) -> Result<Option<Jid>, EngineError> {
        if let Some(known) = self.contacts.pn_of.get(lid.user.as_ref()) {
            return Ok(known.clone().map(Jid::pn));
        }
        let pn =
            self.state.get(store, Table::PnOfLid, &lid.user)?.and_then(|raw| String::from_utf8(raw).ok());
        self.contacts.pn_of.insert(lid.user.to_string(), pn.clone());
        Ok(pn.map(Jid::pn))
    }

    /// The name Signal state and device lists are kept under: the LID when it is known. The device stays.
    pub(in crate::whatsapp) fn canonical(
        &mut self,
        store: &dyn StateRead,
        jid: &Jid,
    ) -> Result<Jid, EngineError> {
        if !jid.is_pn() {
            return Ok(jid.clone());
        }
        Ok(match self.lid_of(store, jid)? {
            Some(lid) => renamed(jid, &lid),
            None => jid.clone(),
        })
    }

    /// The other name of a device, when it is known.
    pub(in crate::whatsapp) fn alternate(
        &mut self,
        store: &dyn StateRead,
        jid: &Jid,
    ) -> Result<Option<Jid>, EngineError> {
        let other = match (jid.is_pn(), jid.is_lid()) {
            (true, _) => self.lid_of(store, jid)?,
            (_, true) => self.pn_of(store, jid)?,
            _ => None,
        };
        Ok(other.map(|other| renamed(jid, &other)))
    }

    /// The address a device's Signal state is kept under.
    pub(in crate::whatsapp) fn signal_address(
        &mut self,
        store: &dyn StateRead,
        device: &Jid,
    ) -> Result<Address, EngineError> {
        Ok(Address::from(&self.canonical(store, device)?))
    }

    /// The name history and REST use: the phone number when it is known. Without device.
    pub(in crate::whatsapp) fn display_name(
        &mut self,
        store: &dyn StateRead,
        jid: &Jid,
    ) -> Result<Jid, EngineError> {
        if jid.is_lid()
            && let Some(pn) = self.pn_of(store, jid)?
        {
            return Ok(pn);
        }
        Ok(jid.to_user())
    }

    /// A LID/PN pair was seen: stores it both ways and moves sessions and identities to the LID address. Sender keys are
    /// looked up under both names.
    pub(in crate::whatsapp) fn learn_lid(
        &mut self,
        ctx: &mut Ctx<'_>,
        pn: &Jid,
        lid: &Jid,
    ) -> Result<(), EngineError> {
        self.learn_lids(ctx, std::iter::once((pn, lid)))
    }

    /// Many pairs at once.
    pub(in crate::whatsapp) fn learn_lids<'p>(
        &mut self,
        ctx: &mut Ctx<'_>,
        pairs: impl Iterator<Item = (&'p Jid, &'p Jid)>,
    ) -> Result<(), EngineError> {
        for (pn, lid) in pairs {
            let Some((pn, lid)) = pair(pn, lid) else { continue };
            if self.store_pair(ctx.store, &pn, &lid)? {
                self.move_records(ctx.store, &pn, &lid)?;
            }
        }
        Ok(())
    }

    /// Stores the pair; false when it was known. A new pair replaces every row with the same PN or LID.
    fn store_pair(&mut self, store: &dyn StateRead, pn: &Jid, lid: &Jid) -> Result<bool, EngineError> {
        let (old_lid, old_pn) = (self.lid_of(store, pn)?, self.pn_of(store, lid)?);
        if old_lid.as_ref() == Some(lid) && old_pn.as_ref() == Some(pn) {
            return Ok(false);
        }
        if let Some(old) = old_lid.filter(|old| old != lid) {
            self.state.delete(Table::PnOfLid, old.user.as_ref());
            self.contacts.pn_of.remove(old.user.as_ref());
        }
        if let Some(old) = old_pn.filter(|old| old != pn) {
            self.state.delete(Table::LidOfPn, old.user.as_ref());
            self.contacts.lid_of.remove(old.user.as_ref());
        }
        self.state.put(Table::LidOfPn, pn.user.as_ref(), lid.user.as_bytes().to_vec());
        self.state.put(Table::PnOfLid, lid.user.as_ref(), pn.user.as_bytes().to_vec());
        self.contacts.lid_of.insert(pn.user.to_string(), Some(lid.user.to_string()));
        self.contacts.pn_of.insert(lid.user.to_string(), Some(pn.user.to_string()));
        Ok(true)
    }

    /// Moves sessions, identities, device list and token of a user from its PN to its LID.
    fn move_records(&mut self, store: &dyn StateRead, pn: &Jid, lid: &Jid) -> Result<(), EngineError> {
        self.write_back_sessions(pn);
        self.write_back_sessions(lid);
        for (old, new) in [(pn.clone(), lid.clone()), (hosted(pn), hosted(lid))] {
            for table in [Table::Session, Table::Identity] {
                let (old, new) = (Address::user_prefix(&old), Address::user_prefix(&new));
                for key in self.state.keys(store, table, &old)? {
                    let device = key.get(old.len()..).unwrap_or_default();
                    let target = format!("{new}{device}");
                    if table == Table::Session {
                        self.join_sessions(store, &key, &target)?;
                    }
                    self.move_value(store, table, &key, &target)?;
                }
            }
        }
        self.contacts.devices.remove(&pn.to_string());
        self.contacts.tokens.remove(&pn.to_string());
        self.move_value(store, Table::DeviceList, &pn.to_string(), &lid.to_string())?;
        self.move_value(store, Table::TcToken, &pn.to_string(), &lid.to_string())
    }

    /// A device that was written to under both names (Baileys 6 keeps them apart) may still write in either session.
    fn join_sessions(&mut self, store: &dyn StateRead, old: &str, new: &str) -> Result<(), EngineError> {
        let (Some(old), Some(known)) =
            (self.state.get(store, Table::Session, old)?, self.state.get(store, Table::Session, new)?)
        else {
            return Ok(());
        };
        // A record that cannot be read is left for its own reader to report.
        if let (Ok(old), Ok(mut record)) = (SessionRecord::decode(&old), SessionRecord::decode(&known))
            && record.absorb(old).is_ok()
        {
            self.state.put(Table::Session, new, record.encode_clean());
        }
        Ok(())
    }

    /// Moves one value unless the new key is taken; the old key is gone either way.
    fn move_value(
        &mut self,
        store: &dyn StateRead,
        table: Table,
        old: &str,
        new: &str,
    ) -> Result<(), EngineError> {
        let Some(value) = self.state.get(store, table, old)? else { return Ok(()) };
        if self.state.get(store, table, new)?.is_none() {
            self.state.put(table, new, value);
        }
        self.state.delete(table, old);
        Ok(())
    }
}

/// The device of `jid` under another user name, hosted or not as before.
pub(in crate::whatsapp) fn renamed(jid: &Jid, user: &Jid) -> Jid {
    let user = user.with_device(jid.device);
    if matches!(jid.server, Server::Hosted | Server::HostedLid) { hosted(&user) } else { user }
}

fn hosted(jid: &Jid) -> Jid {
    let server = if jid.is_lid() { Server::HostedLid } else { Server::Hosted };
    Jid { server, ..jid.clone() }
}
