//! Who is who in a folder: which user is a phone number and which a LID, and the name rows are kept under.
//!
//! Baileys 7 writes LID addresses as `<lid>_1.<device>` and keeps the pairs it knows; Baileys 6 drops the server, so
//! that `<user>.<device>` may be either. Our rows are always under the LID once the pair is known.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::json::{FileError, parse};
use crate::whatsapp::{jid::Jid, signal::Address};

/// Longest user name taken; phone numbers and LIDs have up to 15 digits.
const MAX_USER_CHARS: usize = 20;
/// LIDs have 14 or 15 digits, phone numbers nearly always fewer.
const SHORTEST_LID: usize = 14;
/// A mapping file is one short string.
const MAX_BYTES: usize = 4096;

/// What a folder says of the two names of users.
pub(super) struct People {
    pub(super) own: Jid,
    pub(super) own_lid: Option<Jid>,
    /// The folder was written by Baileys 7: addresses carry their server.
    pub(super) seven: bool,
    lid_of: BTreeMap<String, String>,
    pn_of: HashMap<String, String>,
    /// Users seen with their server elsewhere in the folder.
    seen_lids: HashSet<String>,
    seen_pns: HashSet<String>,
    /// How many users were told apart by the length of their name only.
    pub(super) guessed: HashSet<String>,
}

impl People {
    pub(super) fn new(own: &Jid, own_lid: Option<&Jid>, seven: bool) -> Self {
        let mut people = Self {
            own: own.clone(),
            own_lid: own_lid.cloned(),
            seven,
            lid_of: BTreeMap::new(),
            pn_of: HashMap::new(),
            seen_lids: HashSet::new(),
            seen_pns: HashSet::new(),
            guessed: HashSet::new(),
        };
        if let Some(lid) = own_lid {
            people.learn(&own.user, &lid.user);
        }
        people
    }

    /// A pair; the first one of a name counts, as each file names one.
    fn learn(&mut self, pn: &str, lid: &str) {
        if self.lid_of.contains_key(pn) || self.pn_of.contains_key(lid) {
            return;
        }
        self.lid_of.insert(pn.to_owned(), lid.to_owned());
        self.pn_of.insert(lid.to_owned(), pn.to_owned());
    }

    /// A `lid-mapping-*` file, either direction.
    pub(super) fn learn_file(&mut self, id: &str, bytes: &[u8]) -> Result<(), FileError> {
        let other: String = parse(bytes, MAX_BYTES)?;
        let (pn, lid) = match id.strip_suffix("_reverse") {
            Some(lid) => (other.as_str(), lid),
            None => (id, other.as_str()),
        };
        if !is_user(pn) || !is_user(lid) {
            return Err(FileError::Field("user"));
        }
        self.learn(pn, lid);
        Ok(())
    }

    /// A JID with its server, from anywhere in the folder.
    pub(super) fn see(&mut self, text: &str) {
        let Ok(jid) = text.parse::<Jid>() else { return };
        if jid.is_lid() {
            self.seen_lids.insert(jid.user.to_string());
        } else if jid.is_pn() {
            self.seen_pns.insert(jid.user.to_string());
        }
    }

    /// The JIDs of `processedHistoryMessages`.
    pub(super) fn see_history(&mut self, creds: &Map<String, Value>) {
        let history = creds.get("processedHistoryMessages").and_then(Value::as_array);
        for message in history.into_iter().flatten() {
            let key = message.get("key");
            for name in ["remoteJid", "participant"] {
                if let Some(jid) = key.and_then(|key| key.get(name)).and_then(Value::as_str) {
                    self.see(jid);
                }
            }
        }
    }

    /// Every pair, by phone number.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        self.lid_of.iter()
    }

    /// The address a file name means, as written: `user[_1|_128|_129].device`, the server found out when it is missing.
    pub(super) fn address(&mut self, id: &str) -> Result<Address, FileError> {
        let address: Address = id.parse().map_err(|_| FileError::Name)?;
        let jid = address.to_jid();
        if !is_user(&jid.user) {
            return Err(FileError::Name);
        }
        let is_bare = !id.contains('_');
        if is_bare && self.is_lid(&jid.user) {
            return Ok(Address::from(&Jid::lid(jid.user).with_device(jid.device)));
        }
        Ok(address)
    }

    fn is_lid(&mut self, user: &str) -> bool {
        if self.pn_of.contains_key(user) || self.seen_lids.contains(user) {
            return true;
        }
        if self.seven
            || self.lid_of.contains_key(user)
            || self.seen_pns.contains(user)
            || user == self.own.user
        {
            return false;
        }
        self.guessed.insert(user.to_owned());
        user.len() >= SHORTEST_LID
    }

    /// The address rows are kept under: that of the LID when it is known.
    pub(super) fn canonical(&self, address: &Address) -> Address {
        let jid = address.to_jid();
        Address::from(&self.canonical_jid(&jid))
    }

    /// The same for a JID; the device stays.
    pub(super) fn canonical_jid(&self, jid: &Jid) -> Jid {
        use crate::whatsapp::jid::Server;
        match self.lid_of.get(jid.user.as_ref()).filter(|_| jid.is_pn()) {
            Some(lid) => {
                let server = if jid.server == Server::Hosted { Server::HostedLid } else { Server::Lid };
                Jid { user: lid.clone().into(), device: jid.device, server }
            }
            None => jid.clone(),
        }
    }

    /// Our own name an address stands for, with our device: some versions keep our LID without it.
    pub(super) fn own_address(&self, address: &Address) -> Option<Address> {
        let jid = address.to_jid();
        let own = std::iter::once(&self.own).chain(&self.own_lid).find(|own| own.same_user(&jid))?;
        let device = jid.device == 0 || jid.device == self.own.device;
        device.then(|| Address::from(&own.with_device(self.own.device)))
    }
}

fn is_user(user: &str) -> bool {
    !user.is_empty() && user.len() <= MAX_USER_CHARS && user.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(seven: bool) -> People {
        let own = "6281200000001:7@s.whatsapp.net".parse().unwrap();
        let lid = "100000000000001:7@lid".parse().unwrap();
        let mut people = People::new(&own, Some(&lid), seven);
        people.learn_file("4915100000002", br#""200000000000002""#).unwrap();
        people
    }

    fn address(people: &mut People, id: &str) -> String {
        people.address(id).unwrap().to_string()
    }

    #[test]
    fn baileys_6_addresses_get_the_server_the_folder_or_their_length_tells() {
        let mut six = people(false);
        six.see("12345678901234@s.whatsapp.net");
        six.see("1234567890@lid");
        assert_eq!(address(&mut six, "4915100000002.0"), "4915100000002.0");
        assert_eq!(address(&mut six, "200000000000002.3"), "200000000000002_1.3");
        assert_eq!(address(&mut six, "100000000000001.7"), "100000000000001_1.7");
        assert_eq!(address(&mut six, "12345678901234.0"), "12345678901234.0");
        assert_eq!(address(&mut six, "1234567890.0"), "1234567890_1.0");
        assert!(six.guessed.is_empty());
        assert_eq!(address(&mut six, "300000000000003.0"), "300000000000003_1.0");
        assert_eq!(address(&mut six, "6281200000009.0"), "6281200000009.0");
        assert_eq!(six.guessed.len(), 2);
        assert_eq!(address(&mut people(true), "300000000000003.0"), "300000000000003.0");
    }

    #[test]
    fn rows_are_kept_under_the_lid_when_it_is_known_hosted_devices_too() {
        let people = people(true);
        for (address, kept) in [
            ("4915100000002.3", "200000000000002_1.3"),
            ("4915100000002_128.99", "200000000000002_129.99"),
            ("200000000000002_1.3", "200000000000002_1.3"),
            ("4915100000009.0", "4915100000009.0"),
        ] {
            assert_eq!(people.canonical(&address.parse().unwrap()).as_str(), kept);
        }
    }

    #[test]
    fn our_own_name_is_known_with_and_without_the_device() {
        let people = people(true);
        let own = |text: &str| people.own_address(&text.parse().unwrap()).map(|own| own.to_string());
        assert_eq!(own("100000000000001_1.0").as_deref(), Some("100000000000001_1.7"));
        assert_eq!(own("6281200000001.7").as_deref(), Some("6281200000001.7"));
        assert_eq!(own("6281200000001.5"), None);
        assert_eq!(own("200000000000002_1.0"), None);
    }

    #[test]
    fn users_that_are_not_numbers_and_pairs_that_contradict_are_left_out() {
        let mut people = people(true);
        assert_eq!(people.learn_file("x", br#""200000000000002""#), Err(FileError::Field("user")));
        people.learn_file("200000000000002_reverse", br#""6281200000099""#).unwrap();
        assert_eq!(people.pairs().count(), 2);
        for id in ["a.0", "1", "1.x", "_1.0", "1234567890123456789012.0", "1_1_1.0"] {
            assert!(people.address(id).is_err(), "{id}");
        }
    }
}
