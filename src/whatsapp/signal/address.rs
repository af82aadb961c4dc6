//! The name under which a device's session, identity and sender keys are stored.
//!
//! `user[_domain].device`: no domain for a phone number, `_1` for a LID, `_128` and `_129` for their hosted forms.
//! The same text Baileys 7 uses, so that stored state can be exchanged with it.
//! Seen: Baileys `src/Signal/libsignal.ts` `jidToSignalProtocolAddress` @7.0.0-rc14.
//!
//! Does not know which of a user's two names (PN or LID) to use; that is the caller's decision.

use std::{fmt, str::FromStr};

use crate::whatsapp::jid::{Jid, Server};

/// A device's address, `user[_1|_128|_129].device`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(String);

impl Address {
    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the addresses of all devices of this user on this server begin with, up to and including the dot.
    #[must_use]
    pub fn user_prefix(jid: &Jid) -> String {
        format!("{}{}.", jid.user, domain_suffix(&jid.server))
    }

    /// The device index.
    #[must_use]
    pub fn device(&self) -> u16 {
        self.0.rsplit_once('.').and_then(|(_, device)| device.parse().ok()).unwrap_or_default()
    }

    /// The JID of this device.
    #[must_use]
    pub fn to_jid(&self) -> Jid {
        let name = self.0.rsplit_once('.').map_or(self.0.as_str(), |(name, _)| name);
        let (user, server) = match name.rsplit_once('_') {
            Some((user, "1")) => (user, Server::Lid),
            Some((user, "128")) => (user, Server::Hosted),
            Some((user, "129")) => (user, Server::HostedLid),
            _ => (name, Server::Pn),
        };
        Jid { user: user.to_owned().into(), device: self.device(), server }
    }
}

impl From<&Jid> for Address {
    fn from(jid: &Jid) -> Self {
        Self(format!("{}{}.{}", jid.user, domain_suffix(&jid.server), jid.device))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not `user[_domain].device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Signal address is written user.device or user_domain.device")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (name, device) = text.rsplit_once('.').ok_or(AddressError)?;
        let device: u16 = device.parse().map_err(|_| AddressError)?;
        if name.is_empty() || name.contains('.') || name.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(AddressError);
        }
        // Rebuilt, so that `07` and `7` are one address.
        Ok(Self(format!("{name}.{device}")))
    }
}

fn domain_suffix(server: &Server) -> &'static str {
    match server {
        Server::Lid => "_1",
        Server::Hosted => "_128",
        Server::HostedLid => "_129",
        Server::Pn
        | Server::Group
        | Server::Broadcast
        | Server::Newsletter
        | Server::LegacyPn
        | Server::Bot
        | Server::Call
        | Server::Messenger
        | Server::Interop
        | Server::Other(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_form_round_trips_with_its_jid() {
        for (jid, text) in [
            ("6281200000001@s.whatsapp.net", "6281200000001.0"),
            ("6281200000001:7@s.whatsapp.net", "6281200000001.7"),
            ("222222222222222:7@lid", "222222222222222_1.7"),
            ("6281200000001:99@hosted", "6281200000001_128.99"),
            ("222222222222222:99@hosted.lid", "222222222222222_129.99"),
        ] {
            let jid: Jid = jid.parse().unwrap();
            let address = Address::from(&jid);
            assert_eq!(address.as_str(), text);
            assert_eq!(address.to_jid(), jid);
            assert_eq!(text.parse::<Address>().unwrap(), address);
            assert!(text.starts_with(&Address::user_prefix(&jid)));
        }
    }

    #[test]
    fn the_prefix_of_a_user_does_not_match_a_longer_number_or_the_other_namespace() {
        let prefix = Address::user_prefix(&Jid::pn("62812"));
        assert!(!Address::from(&Jid::pn("628120")).as_str().starts_with(&prefix));
        assert!(!Address::from(&Jid::lid("62812")).as_str().starts_with(&prefix));
    }

    #[test]
    fn texts_that_are_no_address_are_refused() {
        for text in ["", "1", ".", ".0", "1.", "1.x", "1.70000", "1.2.3", "1 2.3"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text:?}");
        }
    }
}
