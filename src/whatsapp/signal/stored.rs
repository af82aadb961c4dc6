//! The stored form of a [`SessionRecord`](super::SessionRecord): protobuf of our own with a version in field 1.
//!
//! | message | fields |
//! |---|---|
//! | record | version 1, current state 2, archived states 3 (most recently used first) |
//! | state | initiator 1, base key 2, remote identity 3, remote registration id 4, root 5, remote ratchet key 6, ratchet private 7, ratchet public 8, chain key 9, counter 10, reserved 11, previous counter 12, receiving chains 13 (oldest first), pending signed prekey id 14, pending prekey id 15 |
//! | receiving chain | ratchet key 1, chain key 2, counter 3, skipped keys 4: `(counter u32 BE || seed 32)*` |
//!
//! Public keys are raw 32 bytes.

use super::{
    chain::{ChainKey, ReceivingChain, Seed, SendingChain, SkippedKey},
    error::SignalError,
    state::{PendingPreKey, RootKey, SessionState},
    wire::{Fields, Value, put_bytes, put_header, put_message, put_number},
};
use crate::whatsapp::keys::{KeyPair, PrivateKey, PublicKey};

/// Format this program writes.
const VERSION: u32 = 1;

/// Current and archived states.
pub(super) type States = (Option<SessionState>, Vec<SessionState>);

pub(super) fn encode(current: Option<&SessionState>, archived: &[SessionState]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 * (1 + archived.len()));
    put_number(&mut out, 1, VERSION.into());
    if let Some(state) = current {
        put_message(&mut out, 2, |out| put_state(out, state));
    }
    for state in archived {
        put_message(&mut out, 3, |out| put_state(out, state));
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<States, SignalError> {
    check_version(bytes, VERSION)?;
    read_record(bytes).map_err(|_| SignalError::DamagedRecord)
}

/// Reads the version first, so that nothing of a newer format is interpreted.
pub(super) fn check_version(bytes: &[u8], known: u32) -> Result<(), SignalError> {
    match Fields(bytes).next() {
        Some(Ok((1, Value::Number(version)))) if version == u64::from(known) => Ok(()),
        Some(Ok((1, Value::Number(version)))) => {
            Err(SignalError::UnknownRecordVersion(u32::try_from(version).unwrap_or(u32::MAX)))
        }
        _ => Err(SignalError::DamagedRecord),
    }
}

fn read_record(bytes: &[u8]) -> Result<States, SignalError> {
    let (mut current, mut archived) = (None, Vec::new());
    for field in Fields(bytes) {
        match field? {
            (2, value) => current = Some(read_state(value.bytes()?)?),
            (3, value) => archived.push(read_state(value.bytes()?)?),
            _ => {}
        }
    }
    Ok((current, archived))
}

fn put_state(out: &mut Vec<u8>, state: &SessionState) {
    put_number(out, 1, state.initiator.into());
    put_bytes(out, 2, &state.base_key.0);
    put_bytes(out, 3, &state.remote_identity.0);
    if let Some(id) = state.remote_registration_id {
        put_number(out, 4, id.into());
    }
    put_bytes(out, 5, &state.root.0);
    put_bytes(out, 6, &state.remote_ratchet.0);
    put_bytes(out, 7, &state.ratchet.private.0);
    put_bytes(out, 8, &state.ratchet.public.0);
    if let Some(chain) = &state.sending {
        put_bytes(out, 9, &chain.key.0);
        put_number(out, 10, chain.counter.into());
        put_number(out, 11, chain.reserved.into());
    }
    put_number(out, 12, state.previous_counter.into());
    for (ratchet, chain) in &state.receiving {
        put_message(out, 13, |out| put_receiving(out, ratchet, chain));
    }
    if let Some(pending) = &state.pending {
        put_number(out, 14, pending.signed_prekey_id.into());
        if let Some(id) = pending.prekey_id {
            put_number(out, 15, id.into());
        }
    }
}

fn read_state(bytes: &[u8]) -> Result<SessionState, SignalError> {
    let (mut initiator, mut previous_counter) = (None, 0);
    let (mut base_key, mut remote_identity, mut remote_ratchet) = (None, None, None);
    let (mut remote_registration_id, mut root, mut private, mut public) = (None, None, None, None);
    let (mut chain_key, mut counter, mut reserved) = (None, 0, 0);
    let (mut signed_prekey_id, mut prekey_id) = (None, None);
    let mut receiving = Vec::new();
    for field in Fields(bytes) {
        match field? {
            (1, value) => initiator = Some(value.number()? != 0),
            (2, value) => base_key = Some(PublicKey(*value.array()?)),
            (3, value) => remote_identity = Some(PublicKey(*value.array()?)),
            (4, value) => remote_registration_id = Some(value.number()?),
            (5, value) => root = Some(RootKey(*value.array()?)),
            (6, value) => remote_ratchet = Some(PublicKey(*value.array()?)),
            (7, value) => private = Some(PrivateKey(*value.array()?)),
            (8, value) => public = Some(PublicKey(*value.array()?)),
            (9, value) => chain_key = Some(ChainKey(*value.array()?)),
            (10, value) => counter = value.number()?,
            (11, value) => reserved = value.number()?,
            (12, value) => previous_counter = value.number()?,
            (13, value) => receiving.push(read_receiving(value.bytes()?)?),
            (14, value) => signed_prekey_id = Some(value.number()?),
            (15, value) => prekey_id = Some(value.number()?),
            _ => {}
        }
    }
    let missing = SignalError::DamagedRecord;
    Ok(SessionState {
        initiator: initiator.ok_or(missing)?,
        base_key: base_key.ok_or(missing)?,
        remote_identity: remote_identity.ok_or(missing)?,
        remote_registration_id,
        root: root.ok_or(missing)?,
        remote_ratchet: remote_ratchet.ok_or(missing)?,
        ratchet: KeyPair { private: private.ok_or(missing)?, public: public.ok_or(missing)? },
        sending: chain_key.map(|key| SendingChain::restore(key, counter, reserved)).transpose()?,
        previous_counter,
        receiving,
        pending: signed_prekey_id.map(|signed_prekey_id| PendingPreKey { prekey_id, signed_prekey_id }),
    })
}

fn put_receiving(out: &mut Vec<u8>, ratchet: &PublicKey, chain: &ReceivingChain) {
    put_bytes(out, 1, &ratchet.0);
    if let Some(key) = &chain.key {
        put_bytes(out, 2, &key.0);
    }
    put_number(out, 3, chain.counter.into());
    put_skipped(out, 4, &chain.skipped);
}

fn read_receiving(bytes: &[u8]) -> Result<(PublicKey, ReceivingChain), SignalError> {
    let (mut ratchet, mut key, mut counter, mut skipped) = (None, None, 0, Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, value) => ratchet = Some(PublicKey(*value.array()?)),
            (2, value) => key = Some(ChainKey(*value.array()?)),
            (3, value) => counter = value.number()?,
            (4, value) => skipped = read_skipped(value)?,
            _ => {}
        }
    }
    Ok((ratchet.ok_or(SignalError::DamagedRecord)?, ReceivingChain { key, counter, skipped }))
}

/// Appends skipped keys as one bytes field; nothing when there are none.
pub(super) fn put_skipped(out: &mut Vec<u8>, field: u8, skipped: &[SkippedKey]) {
    if skipped.is_empty() {
        return;
    }
    put_header(out, field, skipped.len() * SKIPPED_LEN);
    for key in skipped {
        out.extend_from_slice(&key.counter.to_be_bytes());
        out.extend_from_slice(&key.seed.0);
    }
}

/// Reads what [`put_skipped`] wrote.
pub(super) fn read_skipped(value: Value<'_>) -> Result<Vec<SkippedKey>, SignalError> {
    let (keys, rest) = value.bytes()?.as_chunks::<SKIPPED_LEN>();
    if !rest.is_empty() {
        return Err(SignalError::DamagedRecord);
    }
    keys.iter()
        .map(|key| {
            let (counter, seed) = key.split_first_chunk().ok_or(SignalError::DamagedRecord)?;
            let seed = seed.try_into().map_err(|_| SignalError::DamagedRecord)?;
            Ok(SkippedKey { counter: u32::from_be_bytes(*counter), seed: Seed(seed) })
        })
        .collect()
}

/// Counter and seed.
const SKIPPED_LEN: usize = 4 + 32;
