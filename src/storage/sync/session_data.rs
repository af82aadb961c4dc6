//! `session-data.json`: what a session is, beside its keys.

use serde::{Deserialize, Serialize};

use crate::storage::{events::rfc3339, local::SessionRow};

/// Version of the fields below.
const SCHEMA_VERSION: u32 = 1;

/// Other programs' files may lack anything but the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionData {
    #[serde(default)]
    session_id: String,
    /// Whose session it is.
    pub user_id: String,
    /// Display name given by the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    #[serde(default)]
    status: String,
    /// `+` and digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) phone_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) display_name: Option<String>,
    /// Should be connected.
    #[serde(default)]
    pub(super) wanted: bool,
    #[serde(default)]
    worker_id: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    updated_at: String,
    #[serde(default)]
    schema_version: u32,
}

impl SessionData {
    /// Of a session whose account was brought here.
    pub(super) fn imported(id: &str, user_id: &str, phone_number: &str) -> Self {
        let now = rfc3339(super::now_ms() / 1000);
        Self {
            session_id: id.to_owned(),
            user_id: user_id.to_owned(),
            session_name: None,
            status: "disconnected".to_owned(),
            phone_number: Some(phone_number.to_owned()),
            lid: None,
            display_name: None,
            wanted: false,
            worker_id: String::new(),
            created_at: now.clone(),
            updated_at: now,
            schema_version: SCHEMA_VERSION,
        }
    }

    pub(super) fn encode(row: &SessionRow, worker_id: &str) -> Vec<u8> {
        let data = Self {
            session_id: row.id.clone(),
            user_id: row.user_id.clone(),
            session_name: row.name.clone(),
            status: row.status.clone(),
            phone_number: row.phone.as_ref().map(|phone| format!("+{phone}")),
            lid: row.lid.clone(),
            display_name: row.push_name.clone(),
            wanted: row.wanted,
            worker_id: worker_id.to_owned(),
            created_at: rfc3339(row.created_ms / 1000),
            updated_at: rfc3339(row.updated_ms / 1000),
            schema_version: SCHEMA_VERSION,
        };
        data.to_bytes()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings always serialize")
    }

    /// `None` when it is not such a file.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_guide_is_understood_and_a_broken_one_is_not() {
        let data = SessionData::decode(br#"{"sessionId":"a","userId":"u","extra":1}"#).unwrap();
        assert_eq!((data.user_id.as_str(), data.wanted, data.session_name), ("u", false, None));
        assert_eq!(SessionData::decode(b"{\"userId\":"), None);
        assert_eq!(SessionData::decode(b"{}"), None);
    }
}
