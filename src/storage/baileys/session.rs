//! `session-<address>.json`: libsignal-node's session record, version `v1`.
//!
//! | JSON | meaning |
//! |---|---|
//! | `_sessions.<base key>` | one session; the one with `indexInfo.closed` = -1 is the current one |
//! | `currentRatchet` | our ratchet pair, the peer's newest ratchet key, root key |
//! | `_chains.<ratchet key>` | `chainType` 1: ours, 2: the peer's; `chainKey.counter` is the last derived index, -1 at first |
//! | `messageKeys` | seeds of messages that have not arrived, by index |
//! | `pendingPreKey` | while the peer has not answered |
//!
//! What libsignal keeps beyond that (times of creation and use) goes into a row of its own and comes back on writing.
//! Seen: libsignal 6.0.0 (npm) `src/session_record.js`, `session_cipher.js`.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::json::{Base64, FileError, Ordered, parse, write};
use crate::whatsapp::{
    keys::KeyPair,
    signal::session::parts::{PendingParts, ReceivingParts, SessionParts, StateParts},
};

/// Room for 41 sessions with full sets of skipped keys; ordinary files have a few kilobytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Receiving chains taken whatever is left in them, newest first.
const NEWEST_CHAINS: usize = 5;
/// Older receiving chains taken because messages may still arrive on them.
const OLDER_CHAINS: usize = 35;

const OURS: u8 = 1;
const THEIRS: u8 = 2;
const SENDING: u8 = 1;
const RECEIVING: u8 = 2;
const OPEN: i64 = -1;

#[derive(Serialize, Deserialize)]
struct RecordJson {
    #[serde(rename = "_sessions")]
    sessions: Ordered<StateJson>,
    version: Option<String>,
    /// Only before version `v1`.
    #[serde(rename = "registrationId", default, skip_serializing)]
    registration_id: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_id: Option<u32>,
    current_ratchet: RatchetJson,
    index_info: IndexJson,
    #[serde(rename = "_chains")]
    chains: Ordered<ChainJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_pre_key: Option<PendingJson>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RatchetJson {
    ephemeral_key_pair: PairJson,
    last_remote_ephemeral_key: Base64,
    previous_counter: i64,
    root_key: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PairJson {
    pub_key: Base64,
    priv_key: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson {
    base_key: Base64,
    base_key_type: u8,
    remote_identity_key: Base64,
    /// `closed`, `used`, `created`, and whatever a later version adds.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChainJson {
    chain_key: ChainKeyJson,
    chain_type: u8,
    #[serde(default)]
    message_keys: Ordered<Base64>,
}

#[derive(Serialize, Deserialize)]
struct ChainKeyJson {
    counter: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Base64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PendingJson {
    signed_key_id: u32,
    base_key: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_key_id: Option<u32>,
}

/// What a file says beyond the sessions themselves, by base key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Kept(HashMap<String, KeptState>);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct KeptState {
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    index: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    state: Map<String, Value>,
}

impl Kept {
    /// Adds what another file of the same device says.
    pub(super) fn join(&mut self, other: Self) {
        for (base_key, kept) in other.0 {
            self.0.entry(base_key).or_insert(kept);
        }
    }
}

impl KeptState {
    fn time(&self, name: &str) -> Option<i64> {
        self.index.get(name).and_then(time)
    }
}

/// Milliseconds; JavaScript may have written them as a float.
#[expect(clippy::cast_possible_truncation, reason = "the float is checked to be in range")]
fn time(value: &Value) -> Option<i64> {
    let float = value.as_f64().filter(|float| float.is_finite() && float.abs() < 1e15);
    value.as_i64().or(float.map(|float| float as i64))
}

/// Reads a file.
pub(super) fn read(bytes: &[u8]) -> Result<(SessionParts, Kept), FileError> {
    let record: RecordJson = parse(bytes, MAX_BYTES)?;
    let old_id = match record.version.as_deref() {
        Some("v1") => None,
        None => record.registration_id,
        Some(_) => return Err(FileError::Version),
    };
    let mut open = None;
    let mut kept = Kept::default();
    let mut states = Vec::new();
    for (base_key, state) in record.sessions.0 {
        let index = state.index_info.rest.clone();
        let keep = KeptState { index, state: state.rest.clone() };
        let (closed, used) = (keep.time("closed").unwrap_or(0), keep.time("used").unwrap_or(0));
        let mut parts = state_parts(state)?;
        parts.remote_registration_id = parts.remote_registration_id.or(old_id);
        kept.0.insert(base_key, keep);
        // Two open ones are a fault of their writer: the one used last is the one the peer writes in.
        if closed == OPEN && open.is_none_or(|(_, best)| used > best) {
            open = Some((states.len(), used));
        }
        states.push((used, parts));
    }
    let current = open.map(|(place, _)| states.remove(place).1);
    states.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    Ok((SessionParts { current, archived: states.into_iter().map(|(_, parts)| parts).collect() }, kept))
}

/// The key of a sending chain and its counter.
type SendingChain = (Zeroizing<[u8; 32]>, u32);

fn state_parts(state: StateJson) -> Result<StateParts, FileError> {
    let ratchet = &state.current_ratchet;
    let pair = KeyPair::from_private_slice(&ratchet.ephemeral_key_pair.priv_key.0)
        .ok_or(FileError::Field("ephemeralKeyPair"))?;
    if ratchet.ephemeral_key_pair.pub_key.public_key("ephemeralKeyPair")? != pair.public {
        return Err(FileError::Mismatch("ephemeralKeyPair"));
    }
    let (mut sending, mut receiving) = (None, Vec::new());
    for (name, chain) in &state.chains.0 {
        let key = parse_key(name)?;
        match chain.chain_type {
            SENDING if key == pair.public => sending = sending_parts(chain)?,
            // Left over from an earlier turn: nothing is sent on it any more.
            SENDING => {}
            RECEIVING => receiving.push(receiving_parts(key, chain)?),
            _ => return Err(FileError::Field("chainType")),
        }
    }
    let base_key = state.index_info.base_key.public_key("baseKey")?;
    let pending = match &state.pending_pre_key {
        Some(pending) if pending.base_key.public_key("pendingPreKey")? != base_key => {
            return Err(FileError::Mismatch("pendingPreKey"));
        }
        Some(pending) => {
            Some(PendingParts { prekey_id: pending.pre_key_id, signed_prekey_id: pending.signed_key_id })
        }
        None => None,
    };
    Ok(StateParts {
        initiator: match state.index_info.base_key_type {
            OURS => true,
            THEIRS => false,
            _ => return Err(FileError::Field("baseKeyType")),
        },
        base_key,
        remote_identity: state.index_info.remote_identity_key.public_key("remoteIdentityKey")?,
        remote_registration_id: state.registration_id,
        root: Zeroizing::new(ratchet.root_key.array("rootKey")?),
        remote_ratchet: ratchet.last_remote_ephemeral_key.public_key("lastRemoteEphemeralKey")?,
        ratchet: pair,
        sending,
        // -1 when nothing was sent on the chain before.
        previous_counter: u32::try_from(ratchet.previous_counter.max(0))
            .map_err(|_| FileError::Field("previousCounter"))?,
        receiving: worth_keeping(receiving),
        pending,
    })
}

fn parse_key(name: &str) -> Result<crate::whatsapp::keys::PublicKey, FileError> {
    let bytes = super::json::bytes_of(&Value::String(name.to_owned())).ok_or(FileError::Field("_chains"))?;
    Base64(bytes).public_key("_chains")
}

/// libsignal counts the last message, we count the next one.
fn next_counter(chain: &ChainJson) -> Result<u32, FileError> {
    let next = chain.chain_key.counter.checked_add(1);
    next.and_then(|next| u32::try_from(next).ok()).ok_or(FileError::Field("counter"))
}

fn chain_key(chain: &ChainJson) -> Result<Option<Zeroizing<[u8; 32]>>, FileError> {
    chain.chain_key.key.as_ref().map(|key| key.array("chainKey").map(Zeroizing::new)).transpose()
}

fn sending_parts(chain: &ChainJson) -> Result<Option<SendingChain>, FileError> {
    let counter = next_counter(chain)?;
    Ok(chain_key(chain)?.map(|key| (key, counter)))
}

fn receiving_parts(
    ratchet: crate::whatsapp::keys::PublicKey,
    chain: &ChainJson,
) -> Result<ReceivingParts, FileError> {
    let mut skipped = Vec::with_capacity(chain.message_keys.0.len());
    for (place, seed) in &chain.message_keys.0 {
        let place = place.parse().map_err(|_| FileError::Field("messageKeys"))?;
        skipped.push((place, Zeroizing::new(seed.array("messageKeys")?)));
    }
    Ok(ReceivingParts { ratchet, key: chain_key(chain)?, counter: next_counter(chain)?, skipped })
}

/// libsignal never drops a chain; most of them can give nothing any more.
fn worth_keeping(chains: Vec<ReceivingParts>) -> Vec<ReceivingParts> {
    let newest = chains.len().saturating_sub(NEWEST_CHAINS);
    let mut kept = Vec::new();
    for (place, chain) in chains.into_iter().enumerate() {
        if place >= newest || !chain.skipped.is_empty() {
            kept.push(chain);
        }
    }
    let excess = kept.len().saturating_sub(NEWEST_CHAINS + OLDER_CHAINS);
    kept.drain(..excess);
    kept
}

/// Writes a file; `None` when there is no session in the record.
pub(super) fn render(parts: &SessionParts, kept: &Kept) -> Option<Vec<u8>> {
    if parts.current.is_none() && parts.archived.is_empty() {
        return None;
    }
    // A session that cannot be sent on must not look open: libsignal would try.
    let open = parts.current.as_ref().filter(|state| state.sending.is_some());
    let latest = kept.0.values().filter_map(|kept| kept.time("used")).max().unwrap_or(0);
    let mut sessions = Vec::new();
    let oldest_first = parts.archived.iter().rev().chain(&parts.current);
    for (place, state) in oldest_first.enumerate() {
        let name = super::json::base64(&state.base_key.serialize());
        let is_open = open.is_some_and(|open| open.base_key == state.base_key);
        let unknown = latest + 1 + i64::try_from(place).unwrap_or_default();
        let json = state_json(state, kept.0.get(&name), is_open, unknown);
        sessions.push((name, json));
    }
    let record =
        RecordJson { sessions: Ordered(sessions), version: Some("v1".to_owned()), registration_id: None };
    Some(write(&record))
}

/// `at`: time for a session whose times are not known; only their order means something.
fn state_json(state: &StateParts, kept: Option<&KeptState>, open: bool, at: i64) -> StateJson {
    let kept = kept.cloned().unwrap_or_default();
    let used = kept.time("used").unwrap_or(at);
    let closed = match kept.time("closed") {
        _ if open => OPEN,
        Some(OPEN) | None => used,
        Some(closed) => closed,
    };
    let mut index = kept.index;
    index.entry("created").or_insert(used.into());
    index.entry("used").or_insert(used.into());
    if index.get("closed").and_then(time) != Some(closed) {
        index.insert("closed".to_owned(), closed.into());
    }
    let public = |key: &crate::whatsapp::keys::PublicKey| Base64(key.serialize().to_vec());
    StateJson {
        registration_id: state.remote_registration_id,
        current_ratchet: RatchetJson {
            ephemeral_key_pair: PairJson {
                pub_key: public(&state.ratchet.public),
                priv_key: Base64(state.ratchet.private.0.to_vec()),
            },
            last_remote_ephemeral_key: public(&state.remote_ratchet),
            previous_counter: state.previous_counter.into(),
            root_key: Base64(state.root.to_vec()),
        },
        index_info: IndexJson {
            base_key: public(&state.base_key),
            base_key_type: if state.initiator { OURS } else { THEIRS },
            remote_identity_key: public(&state.remote_identity),
            rest: index,
        },
        chains: chains_json(state),
        pending_pre_key: state.pending.map(|pending| PendingJson {
            signed_key_id: pending.signed_prekey_id,
            base_key: public(&state.base_key),
            pre_key_id: pending.prekey_id,
        }),
        rest: kept.state,
    }
}

fn chains_json(state: &StateParts) -> Ordered<ChainJson> {
    let mut chains = Vec::new();
    for chain in &state.receiving {
        let keys = chain.skipped.iter().map(|(place, seed)| (place.to_string(), Base64(seed.to_vec())));
        chains.push((
            super::json::base64(&chain.ratchet.serialize()),
            ChainJson {
                chain_key: ChainKeyJson {
                    counter: i64::from(chain.counter) - 1,
                    key: chain.key.as_ref().map(|key| Base64(key.to_vec())),
                },
                chain_type: RECEIVING,
                message_keys: Ordered(keys.collect()),
            },
        ));
    }
    if let Some((key, counter)) = &state.sending {
        chains.push((
            super::json::base64(&state.ratchet.public.serialize()),
            ChainJson {
                chain_key: ChainKeyJson { counter: i64::from(*counter) - 1, key: Some(Base64(key.to_vec())) },
                chain_type: SENDING,
                message_keys: Ordered::default(),
            },
        ));
    }
    Ordered(chains)
}
