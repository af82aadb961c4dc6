//! Names of the files in `auth_info_baileys/`, and which state row lives in which of them.
//!
//! Baileys names a file `<category>-<id>.json` with `/` written as `__` and `:` as `-`; that cannot be undone, so names
//! are built from rows and never the other way round (loading reads ids with the categories' own rules).
//! Seen: Baileys `Utils/use-multi-file-auth-state.js` @7.0.0-rc14 and @6.7.24.

use std::fmt;

use crate::whatsapp::state::Table;

/// Name of one file of the folder, without the folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// A name as it was listed or remembered; `None` when it cannot be a file of this folder.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= MAX_NAME_BYTES
            && !text.starts_with('.')
            && !text.contains(['/', '\\', '\0']);
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file of a category and an id, escaped as Baileys does.
    pub(super) fn of(category: &str, id: &str) -> Self {
        Self(format!("{category}-{}.json", id.replace('/', "__").replace(':', "-")))
    }

    pub(super) fn creds() -> Self {
        Self(CREDS.to_owned())
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file(s) a state row lives in. Empty for rows that are not worth keeping beyond this machine.
#[must_use]
pub fn files_of(table: Table, key: &str) -> Vec<FileName> {
    match table {
        Table::Credentials => vec![FileName::creds(), FileName::of(WORKER, "account")],
        Table::SignedPreKey => vec![FileName::creds(), FileName::of(WORKER_SIGNED_PREKEY, key)],
        Table::PreKey => vec![FileName::of("pre-key", key)],
        Table::Session => vec![FileName::of("session", key)],
        Table::Identity => vec![FileName::of("identity-key", key)],
        Table::SenderKey => sender_key(key).into_iter().collect(),
        Table::SenderKeyDevices => vec![FileName::of("sender-key-memory", key)],
        Table::LidOfPn => vec![FileName::of("lid-mapping", key)],
        Table::PnOfLid => vec![FileName::of("lid-mapping", &format!("{key}_reverse"))],
        Table::DeviceList => vec![FileName::of("device-list", user_of(key))],
        Table::TcToken => vec![FileName::of("tctoken", key), FileName::of("tctoken", "__index")],
        Table::AppStateKey => app_state_key(key).into_iter().collect(),
        Table::PushName => vec![FileName::of(WORKER_NAME, key)],
        Table::Chat => vec![FileName::of(WORKER_CHAT, key)],
        Table::Foreign => FileName::parse(key).into_iter().collect(),
        // Asked for again when needed; counts of resends mean nothing elsewhere.
        Table::Group | Table::RetryCount => Vec::new(),
    }
}

/// `group::user[_1].device` is Baileys' `group::user[_1]::device`.
fn sender_key(key: &str) -> Option<FileName> {
    let (sender, device) = key.rsplit_once('.')?;
    Some(FileName::of("sender-key", &format!("{sender}::{device}")))
}

/// Baileys knows a key by its id in base64, we in hex.
fn app_state_key(key: &str) -> Option<FileName> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let id = from_hex(key)?;
    Some(FileName::of("app-state-sync-key", &STANDARD.encode(id)))
}

fn user_of(jid: &str) -> &str {
    jid.split('@').next().unwrap_or(jid)
}

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Creds,
    PreKey,
    Session,
    Identity,
    SenderKey,
    SenderKeyMemory,
    LidMapping,
    DeviceList,
    TcToken,
    AppStateKey,
    WorkerAccount,
    WorkerSignedPreKey,
    WorkerName,
    WorkerChat,
}

/// Kinds by the beginning of their names; a longer one comes before what it begins with.
const KINDS: [(&str, Kind); 12] = [
    ("pre-key-", Kind::PreKey),
    ("session-", Kind::Session),
    ("identity-key-", Kind::Identity),
    ("sender-key-memory-", Kind::SenderKeyMemory),
    ("sender-key-", Kind::SenderKey),
    ("lid-mapping-", Kind::LidMapping),
    ("device-list-", Kind::DeviceList),
    ("tctoken-", Kind::TcToken),
    ("app-state-sync-key-", Kind::AppStateKey),
    ("worker-signed-pre-key-", Kind::WorkerSignedPreKey),
    ("worker-name-", Kind::WorkerName),
    ("worker-chat-", Kind::WorkerChat),
];

impl Kind {
    /// The kind of a file, and the id in its name as it is written there. `None` for files that are not read.
    pub(super) fn of(name: &str) -> Option<(Self, &str)> {
        let stem = name.strip_suffix(".json")?;
        match stem {
            "creds" => return Some((Self::Creds, "")),
            "worker-account" => return Some((Self::WorkerAccount, "")),
            _ => {}
        }
        let found = KINDS.iter().find_map(|(prefix, kind)| Some((*kind, stem.strip_prefix(prefix)?)));
        found.filter(|(_, id)| !id.is_empty())
    }

    /// The word reports use.
    pub(super) fn word(self) -> &'static str {
        let prefix = KINDS.iter().find(|(_, kind)| *kind == self).map(|(prefix, _)| *prefix);
        match (self, prefix) {
            (Self::Creds, _) => "creds",
            (Self::WorkerAccount, _) => "worker-account",
            (_, prefix) => prefix.unwrap_or_default().trim_end_matches('-'),
        }
    }
}

/// Row key of a sender key by the id in its file name: `group--user--device` is `group::user.device`.
pub(super) fn sender_key_parts(id: &str) -> Option<(&str, String)> {
    let (rest, device) = id.rsplit_once("--")?;
    let (group, user) = rest.rsplit_once("--")?;
    Some((group, format!("{user}.{device}")))
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// The file Baileys starts from. Written last, read first.
pub(super) const CREDS: &str = "creds.json";
/// Our own files: Baileys never reads a name that begins so.
pub(super) const WORKER: &str = "worker";
const WORKER_SIGNED_PREKEY: &str = "worker-signed-pre-key";
const WORKER_NAME: &str = "worker-name";
const WORKER_CHAT: &str = "worker-chat";
/// Longest name taken: what file systems allow.
const MAX_NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(table: Table, key: &str) -> Vec<String> {
        files_of(table, key).into_iter().map(|name| name.0).collect()
    }

    #[test]
    fn rows_live_in_the_files_baileys_looks_for() {
        assert_eq!(names(Table::PreKey, "17"), ["pre-key-17.json"]);
        assert_eq!(names(Table::Session, "222222222222222_1.7"), ["session-222222222222222_1.7.json"]);
        assert_eq!(
            names(Table::SenderKey, "120363000000000001@g.us::222222222222222_1.7"),
            ["sender-key-120363000000000001@g.us--222222222222222_1--7.json"]
        );
        assert_eq!(names(Table::LidOfPn, "6281200000001"), ["lid-mapping-6281200000001.json"]);
        assert_eq!(names(Table::PnOfLid, "222222222222222"), ["lid-mapping-222222222222222_reverse.json"]);
        assert_eq!(names(Table::DeviceList, "222222222222222@lid"), ["device-list-222222222222222.json"]);
        assert_eq!(names(Table::AppStateKey, "fbfffe0003"), ["app-state-sync-key-+____+AAM=.json"]);
        assert_eq!(names(Table::SignedPreKey, "1"), ["creds.json", "worker-signed-pre-key-1.json"]);
        assert!(names(Table::AppStateKey, "0g").is_empty() && names(Table::SenderKey, "x").is_empty());
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_none() {
        for text in ["", ".", "..", "a/b", "../creds.json", ".creds.json", "a\\b", &"x".repeat(256)] {
            assert_eq!(FileName::parse(text), None, "{text:?}");
        }
        assert_eq!(FileName::parse("creds.json"), Some(FileName::creds()));
    }
}
