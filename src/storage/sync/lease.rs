//! `lease.json`: who owns a session, until when, and how the last owner left it.
//!
//! | state | means |
//! |---|---|
//! | `held` | the worker has it until `expiresAt`; after that its end was not seen and nothing is known to be complete |
//! | `released` | everything is in the bucket (`clean`); `creds` is the version of `creds.json` at that moment |
//! | `deleting` | a tombstone: the objects of the session are being removed |
//!
//! Every change is a conditional write on the version that was read, so of two workers one learns that it was late.
//! A generation grows by one with every owner and with every start of the same one.

use serde::{Deserialize, Serialize};

use crate::storage::object::{Condition, ObjectError, ObjectStore, Version};

use super::layout;

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lease {
    pub(super) worker_id: String,
    /// State directory of the worker.
    pub(super) instance: String,
    pub(super) generation: u64,
    /// RFC 3339, by the holder's clock.
    pub(super) expires_at: jiff::Timestamp,
    pub(super) state: State,
    #[serde(default)]
    pub(super) clean: bool,
    /// Released because the worker stopped: it takes the session back at its next start.
    #[serde(default)]
    pub(super) returns: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) creds: Option<String>,
    /// The newest state is in the holder's own state directory, which may still speak of this older generation: the
    /// lease is written before the directory learns of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) continues: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Held,
    Released,
    Deleting,
}

/// Who asks for leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) worker_id: String,
    pub(super) instance: String,
}

/// A lease as it was found.
pub(super) enum Found {
    None,
    /// Something that is no lease.
    Damaged(Vec<u8>, Version),
    Lease(Lease, Version),
}

impl Lease {
    pub(super) fn held(holder: &Holder, generation: u64, expires_ms: u64) -> Self {
        Self {
            worker_id: holder.worker_id.clone(),
            instance: holder.instance.clone(),
            generation,
            expires_at: stamp(expires_ms),
            state: State::Held,
            clean: false,
            returns: false,
            creds: None,
            continues: None,
        }
    }

    pub(super) fn is_of(&self, holder: &Holder) -> bool {
        self.worker_id == holder.worker_id && self.instance == holder.instance
    }

    pub(super) fn expires_ms(&self) -> u64 {
        u64::try_from(self.expires_at.as_millisecond()).unwrap_or(0)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings always serialize")
    }
}

/// Reads a session's lease.
pub(super) fn read(store: &dyn ObjectStore, id: &str) -> Result<Found, ObjectError> {
    let found = match store.get(&layout::lease(id))? {
        None => Found::None,
        Some(object) => match serde_json::from_slice(&object.bytes) {
            Ok(lease) => Found::Lease(lease, object.version),
            Err(_) => Found::Damaged(object.bytes, object.version),
        },
    };
    Ok(found)
}

/// Writes a lease over the one that was found. `None` when somebody was faster.
///
/// A write whose answer was lost may have happened: what is there then is compared with what we wrote.
pub(super) fn write(
    store: &dyn ObjectStore,
    id: &str,
    lease: &Lease,
    over: Option<&Version>,
) -> Result<Option<Version>, ObjectError> {
    let key = layout::lease(id);
    let bytes = lease.encode();
    let condition = over.map_or(Condition::Absent, |version| Condition::Is(version.clone()));
    let written = store.put_if(&key, &bytes, &condition);
    if matches!(written, Ok(Some(_))) {
        return written;
    }
    // An earlier try of this very write may be what is in the way.
    match store.get(&key)? {
        Some(object) if object.bytes == bytes => Ok(Some(object.version)),
        _ => written,
    }
}

pub(super) fn stamp(unix_ms: u64) -> jiff::Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}
