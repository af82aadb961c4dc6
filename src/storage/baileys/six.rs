//! The names Baileys 6 looks files up under: the user alone, without a sign for its server.
//!
//! Baileys 6 has one session for a phone number and another for the LID of the same user, while Baileys 7 and we have
//! one for both. It goes under the name that 1:1 chats of the account use: the LID in an account that was migrated, the
//! phone number else. Never under both, for then one message key would be used twice. What arrives under the other name
//! is asked for again, once.
//!
//! A session file without an open session keeps Baileys 6 from ever writing to that device, because it asks for new keys
//! only when there is no file at all: such a file is left out.
//! Seen: Baileys `Signal/libsignal.js`, `Socket/messages-send.js` @6.7.24.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Folder,
    name::{CREDS, Kind, sender_key_parts},
};
use crate::whatsapp::{
    jid::{Jid, Server},
    signal::Address,
};

/// A folder for Baileys 6, and how it differs.
#[derive(Debug, Default)]
pub struct ForSix {
    /// The files.
    pub files: Folder,
    /// How many have another name.
    pub renamed: usize,
    /// How many only Baileys 7 reads: left out.
    pub unread: usize,
    /// How many sessions had nothing to send on: left out.
    pub closed: usize,
}

/// Gives the files of a folder the names of Baileys 6, and leaves out what it cannot use.
#[must_use]
pub fn for_six(folder: Folder) -> ForSix {
    let names = Names::of(&folder);
    let mut six = ForSix::default();
    for (name, bytes) in folder {
        let new = match Kind::of(&name) {
            Some((Kind::LidMapping | Kind::DeviceList | Kind::TcToken | Kind::Identity, _)) => {
                six.unread += 1;
                continue;
            }
            Some((Kind::Session, _)) if !has_open_session(&bytes) => {
                six.closed += 1;
                continue;
            }
            Some((Kind::Session, id)) => names.session(id).map(|id| format!("session-{id}.json")),
            Some((Kind::SenderKey, id)) => names.sender_key(id).map(|id| format!("sender-key-{id}.json")),
            _ => None,
        };
        let new = new.filter(|new| *new != name);
        six.renamed += usize::from(new.is_some());
        // A key of ours that has its old name is older than the one that gets it now.
        match new {
            Some(new) => drop(six.files.insert(new, bytes)),
            None => drop(six.files.entry(name).or_insert(bytes)),
        }
    }
    six
}

fn has_open_session(bytes: &[u8]) -> bool {
    let record: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let mut sessions = record["_sessions"].as_object().into_iter().flatten();
    sessions.any(|(_, session)| session["indexInfo"]["closed"] == -1)
}

/// What the folder says of its users.
struct Names {
    own: Option<Jid>,
    own_lid: Option<Jid>,
    /// 1:1 chats go by LID.
    migrated: bool,
    pn_of: HashMap<String, String>,
}

impl Names {
    fn of(folder: &Folder) -> Self {
        let json = |name: &str| -> Value {
            folder.get(name).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
        };
        let me = json(CREDS)["me"].clone();
        let own = |field: &str| me[field].as_str().and_then(|text| text.parse().ok());
        let pair = |name: &String| {
            let (Kind::LidMapping, id) = Kind::of(name)? else { return None };
            let lid = id.strip_suffix("_reverse")?;
            Some((lid.to_owned(), json(name).as_str()?.to_owned()))
        };
        Self {
            own: own("id"),
            own_lid: own("lid"),
            migrated: json("worker-account.json")["lidMigrated"] == Value::Bool(true),
            pn_of: folder.keys().filter_map(pair).collect(),
        }
    }

    fn session(&self, id: &str) -> Option<String> {
        let jid = id.parse::<Address>().ok()?.to_jid();
        let is_lid = matches!(jid.server, Server::Lid | Server::HostedLid);
        let pn = self.pn_of.get(jid.user.as_ref()).filter(|_| is_lid && !self.migrated);
        Some(bare(pn.map_or(&jid.user, |pn| pn), jid.device))
    }

    /// Ours is under the phone number, whatever the group is addressed by.
    fn sender_key(&self, id: &str) -> Option<String> {
        let (group, address) = sender_key_parts(id)?;
        let jid = address.parse::<Address>().ok()?.to_jid();
        let is_ours = self.own_lid.as_ref().is_some_and(|own| own.same_user(&jid));
        let own = self.own.as_ref().filter(|own| is_ours && own.device == jid.device);
        let user = own.map_or(&jid.user, |own| &own.user);
        Some(format!("{group}--{user}--{}", jid.device))
    }
}

fn bare(user: &str, device: u16) -> String {
    format!("{user}.{device}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(closed: i64) -> Value {
        json!({ "_sessions": { "old": { "indexInfo": { "closed": 3 } }, "x": { "indexInfo": { "closed": closed } } } })
    }

    fn folder(migrated: bool) -> Folder {
        let creds =
            json!({ "me": { "id": "6281200000001:7@s.whatsapp.net", "lid": "100000000000001:7@lid" } });
        let files = [
            ("creds.json", creds),
            ("worker-account.json", json!({ "lidMigrated": migrated })),
            ("lid-mapping-4915100000002.json", json!("200000000000002")),
            ("lid-mapping-200000000000002_reverse.json", json!("4915100000002")),
            ("device-list-4915100000002.json", json!(["0"])),
            ("session-200000000000002_1.3.json", session(-1)),
            ("session-300000000000003_1.0.json", session(-1)),
            ("session-6281200000009.0.json", session(-1)),
            ("session-400000000000004_1.0.json", session(17)),
            ("sender-key-1203@g.us--100000000000001_1--7.json", json!("ours")),
            ("sender-key-1203@g.us--6281200000001--7.json", json!("ours of before")),
            ("sender-key-1203@g.us--200000000000002_1--3.json", json!("theirs")),
            ("notes.txt", json!("x")),
        ];
        files.map(|(name, value)| (name.to_owned(), value.to_string().into_bytes())).into()
    }

    #[test]
    fn each_file_has_the_name_baileys_6_looks_for_and_no_session_has_two() {
        for (migrated, known) in [(true, "200000000000002.3"), (false, "4915100000002.3")] {
            let ForSix { files, renamed, unread, closed } = for_six(folder(migrated));
            let names: Vec<&str> = files.keys().map(String::as_str).collect();
            let mut expected = vec![
                "creds.json".to_owned(),
                "notes.txt".to_owned(),
                "sender-key-1203@g.us--200000000000002--3.json".to_owned(),
                "sender-key-1203@g.us--6281200000001--7.json".to_owned(),
                "session-300000000000003.0.json".to_owned(),
                format!("session-{known}.json"),
                "session-6281200000009.0.json".to_owned(),
                "worker-account.json".to_owned(),
            ];
            expected.sort();
            assert_eq!(names, expected);
            assert_eq!((renamed, unread, closed), (4, 3, 1));
            assert_eq!(files["sender-key-1203@g.us--6281200000001--7.json"], b"\"ours\"");
        }
    }
}
