//! The pool of one-time prekeys: what the server holds, what is made and uploaded when, and reading them back.
//!
//! Ids come from one counter that only grows. Two watermarks in the credentials say where it stands:
//! `next_prekey_id`, and `first_unuploaded_prekey_id`, below which everything is the server's. Keys are rows of the
//! state table `PreKey`, written before the upload that mentions them and never kept in memory.
//!
//! Seen: whatsmeow `prekeys.go` @33cfac51; whatsapp-rust `src/prekeys.rs` @1489b7da.

use std::{ops::Range, time::Duration};

use super::{IqError, IqKind, iq};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    keys::{KeyPair, PublicKey},
    limits::{MAX_PREKEY_ID, PREKEY_RETRY_CAP, PREKEYS_FIRST, PREKEYS_FULL, PREKEYS_LOW},
    pairing::Credentials,
    signal::{LocalIdentity, PreKeyRecord, PreKeySource, SignedPreKeyRecord},
    state::{StateRead, StateWriter, Table},
    timers::Timer,
};

/// Uploads of this connection: at most one at a time.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct PreKeyUploads {
    in_flight: bool,
    /// A refill was asked for during the offline drain or an upload; done after it.
    wanted: bool,
    failures: u32,
    /// Keys of the upload on its way.
    offered: u32,
    /// Keys the server has, as far as we know.
    left: Option<u32>,
}

impl PreKeyUploads {
    pub(in crate::whatsapp) fn left(&self) -> Option<u32> {
        self.left
    }
}

/// Sight of our own prekeys for decrypting.
pub(in crate::whatsapp) struct PreKeys<'a> {
    state: &'a StateWriter,
    store: &'a dyn StateRead,
}

impl PreKeySource for PreKeys<'_> {
    fn prekey(&self, id: u32) -> Option<KeyPair> {
        let bytes = self.read(Table::PreKey, id)?;
        PreKeyRecord::decode(&bytes).ok().map(|record| record.pair)
    }

    fn signed_prekey(&self, id: u32) -> Option<KeyPair> {
        let bytes = self.read(Table::SignedPreKey, id)?;
        SignedPreKeyRecord::decode(&bytes).ok().map(|record| record.pair)
    }
}

impl PreKeys<'_> {
    /// An unreadable store looks like a missing key here: the peer is asked for a resend, and the next access of the
    /// store, for the session record at the latest, ends the connection.
    fn read(&self, table: Table, id: u32) -> Option<Vec<u8>> {
        self.state.get(self.store, table, &id.to_string()).ok().flatten()
    }
}

/// For `messages`.
impl Engine {
    /// Our own prekeys as the Signal layer wants to see them.
    pub(in crate::whatsapp) fn prekey_source<'a>(&'a self, store: &'a dyn StateRead) -> PreKeys<'a> {
        PreKeys { state: &self.state, store }
    }

    /// Registration id and identity pair; `None` before the first connect.
    pub(in crate::whatsapp) fn local_identity(&self) -> Option<LocalIdentity<'_>> {
        let credentials = self.credentials.as_ref()?;
        Some(LocalIdentity { registration_id: credentials.registration_id, pair: &credentials.identity })
    }

    /// A one-time prekey was used for a session: it goes with the batch that makes the session durable.
    pub(in crate::whatsapp) fn consume_prekey(&mut self, id: u32) {
        self.state.delete(Table::PreKey, id.to_string());
        self.note_prekeys_left(self.prekeys.left.map(|left| left.saturating_sub(1)));
    }

    fn note_prekeys_left(&mut self, left: Option<u32>) {
        self.prekeys.left = left;
        self.tally.touch();
    }

    /// A prekey for one retry receipt. It is never uploaded, so that nobody else is given it.
    /// `None` before the first connect.
    pub(in crate::whatsapp) fn fresh_prekey(&mut self, ctx: &mut Ctx<'_>) -> Option<PreKeyRecord> {
        let credentials = self.credentials.as_mut()?;
        let id = take_ids(credentials, 1).start;
        if credentials.first_unuploaded_prekey_id == id {
            credentials.first_unuploaded_prekey_id = credentials.next_prekey_id;
        }
        let mut record = PreKeyRecord::generate(id, ctx.rng);
        record.uploaded = true;
        self.state.put(Table::PreKey, id.to_string(), record.encode());
        self.save_credentials();
        Some(record)
    }

    /// The current signed prekey.
    pub(in crate::whatsapp) fn signed_prekey(
        &self,
        store: &dyn StateRead,
    ) -> Result<SignedPreKeyRecord, EngineError> {
        let damaged = |why: &str| EngineError::Damaged { what: "signed prekey", why: why.to_owned() };
        let credentials = self.credentials.as_ref().ok_or_else(|| damaged("there are no credentials"))?;
        let key = credentials.signed_prekey_id.to_string();
        let bytes =
            self.state.get(store, Table::SignedPreKey, &key)?.ok_or_else(|| damaged("it is missing"))?;
        SignedPreKeyRecord::decode(&bytes).map_err(|error| damaged(&error.to_string()))
    }
}

/// For login, notifications and IQ answers.
impl Engine {
    /// Login: a new device uploads at once, because the phone's first messages need its keys. Others ask how many
    /// keys the server has left.
    pub(in crate::whatsapp) fn check_prekeys(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if self.credentials.as_ref().is_some_and(|credentials| credentials.first_unuploaded_prekey_id == 1) {
            return self.upload_prekeys(ctx, PREKEYS_FIRST);
        }
        self.send_iq(ctx, iq("get", "encrypt").child(Node::new("count")), IqKind::PreKeyCount);
        Ok(())
    }

    /// `<count value=N/>`: fewer than enough are topped up.
    pub(super) fn on_prekey_count(
        &mut self,
        ctx: &mut Ctx<'_>,
        outcome: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        let count = outcome.ok().and_then(|answer| answer.find("count")?.number::<u32>("value"));
        if count.is_some() {
            self.note_prekeys_left(count);
        }
        match count {
            Some(count) if count < PREKEYS_LOW => self.upload_prekeys(ctx, PREKEYS_FULL - count),
            _ => Ok(()),
        }
    }

    /// `<notification type="encrypt"><count value=N/></notification>`: the server says the pool is low, by its own
    /// measure, so it is filled without asking back. Not in the middle of the offline drain, whose messages still use
    /// keys up.
    pub(in crate::whatsapp) fn on_prekeys_low(
        &mut self,
        ctx: &mut Ctx<'_>,
        count: u32,
    ) -> Result<(), EngineError> {
        self.note_prekeys_left(Some(count));
        if !self.is_drained() {
            self.prekeys.wanted = true;
            return Ok(());
        }
        self.upload_prekeys(ctx, PREKEYS_FULL.saturating_sub(count).max(PREKEYS_FIRST))
    }

    /// The offline drain is over: a refill that had to wait goes out, and the server's view of our keys is checked.
    pub(in crate::whatsapp) fn on_prekeys_drained(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        self.ask_prekey_digest(ctx);
        self.upload_wanted(ctx)?;
        self.check_signed_prekey(ctx)
    }

    /// Asks what the server holds of our keys.
    pub(in crate::whatsapp) fn ask_prekey_digest(&mut self, ctx: &mut Ctx<'_>) {
        self.send_iq(ctx, iq("get", "encrypt").child(Node::new("digest")), IqKind::PreKeyDigest);
    }

    /// `<digest>` with `registration`, `identity`, `skey`; 404 when the server has nothing.
    ///
    /// The SHA-1 over all keys is not recomputed: it would cost a scalar multiplication per key, and what it could show
    /// beyond identity, registration and signed prekey is repaired by the pool running low.
    pub(super) fn on_prekey_digest(
        &mut self,
        ctx: &mut Ctx<'_>,
        outcome: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        let matches = match outcome {
            Ok(answer) => match answer.find("digest") {
                Some(digest) => {
                    self.note_server_signed_prekey(ctx, digest)?;
                    self.is_our_bundle(digest)
                }
                None => true,
            },
            Err(IqError::Server { code: 404, .. }) => false,
            Err(_) => true,
        };
        if matches {
            return Ok(());
        }
        log::warn!("the server's copy of our keys does not match: uploading them again");
        self.upload_prekeys(ctx, PREKEYS_FIRST)
    }

    /// The answer to an upload.
    pub(super) fn on_prekey_upload(
        &mut self,
        ctx: &mut Ctx<'_>,
        last_id: u32,
        outcome: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        self.prekeys.in_flight = false;
        match outcome {
            Ok(_) => {
                self.prekeys.failures = 0;
                let offered = std::mem::take(&mut self.prekeys.offered);
                self.note_prekeys_left(Some(self.prekeys.left.unwrap_or(0).saturating_add(offered)));
                if let Some(credentials) = self.credentials.as_mut() {
                    credentials.first_unuploaded_prekey_id = next_id(last_id);
                    self.save_credentials();
                }
                self.upload_wanted(ctx)
            }
            // The next login asks for the count and finds them missing.
            Err(IqError::ConnectionLost) => Ok(()),
            Err(error) => {
                self.prekeys.failures += 1;
                self.prekeys.wanted = true;
                let wait = retry_delay(self.prekeys.failures);
                log::warn!("prekey upload failed ({error}), next try in {} s", wait.as_secs());
                self.arm(Timer::PreKeys, ctx.now.mono + wait);
                Ok(())
            }
        }
    }

    /// [`Timer::PreKeys`]: a failed upload is due again.
    pub(in crate::whatsapp) fn on_prekey_timer(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        self.upload_wanted(ctx)
    }

    fn upload_wanted(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if !self.prekeys.wanted {
            return Ok(());
        }
        self.upload_prekeys(ctx, PREKEYS_FULL)
    }

    /// Offers the server `count` keys: first those made earlier and never confirmed, then new ones.
    fn upload_prekeys(&mut self, ctx: &mut Ctx<'_>, count: u32) -> Result<(), EngineError> {
        if self.prekeys.in_flight {
            self.prekeys.wanted = true;
            return Ok(());
        }
        if !self.is_logged_in() {
            return Ok(());
        }
        let signed = self.signed_prekey(ctx.store)?;
        let count = count.min(PREKEYS_FULL);
        let mut keys = self.unuploaded_prekeys(ctx.store, count)?;
        self.generate_prekeys(ctx, count, &mut keys);
        let (Some(&(last_id, _)), Some(credentials)) = (keys.last(), self.credentials.as_ref()) else {
            return Ok(());
        };
        let upload = build_upload(credentials, &keys, &signed);
        self.prekeys.in_flight = true;
        self.prekeys.offered = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        self.prekeys.wanted = false;
        self.timers.clear(Timer::PreKeys);
        self.send_iq(ctx, upload, IqKind::PreKeyUpload { last_id });
        Ok(())
    }

    /// Keys whose upload was never confirmed. A damaged row is as good as a used one: skipped.
    fn unuploaded_prekeys(
        &self,
        store: &dyn StateRead,
        count: u32,
    ) -> Result<Vec<(u32, PublicKey)>, EngineError> {
        let Some(credentials) = &self.credentials else {
            return Ok(Vec::new());
        };
        let mut keys = Vec::new();
        for id in credentials.first_unuploaded_prekey_id..credentials.next_prekey_id {
            if keys.len() >= count as usize {
                break;
            }
            let Some(bytes) = self.state.get(store, Table::PreKey, &id.to_string())? else {
                continue;
            };
            if let Ok(record) = PreKeyRecord::decode(&bytes)
                && !record.uploaded
            {
                keys.push((id, record.pair.public));
            }
        }
        Ok(keys)
    }

    /// Makes and writes as many keys as `keys` lacks. A fresh run of ids starts where the old one ended, so that
    /// everything up to the last id of an upload is either in it or used.
    fn generate_prekeys(&mut self, ctx: &mut Ctx<'_>, count: u32, keys: &mut Vec<(u32, PublicKey)>) {
        let have = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let (missing, Some(credentials)) = (count.saturating_sub(have), self.credentials.as_mut()) else {
            return;
        };
        if missing == 0 {
            return;
        }
        for id in take_ids(credentials, missing) {
            let record = PreKeyRecord::generate(id, ctx.rng);
            self.state.put(Table::PreKey, id.to_string(), record.encode());
            keys.push((id, record.pair.public));
        }
        self.save_credentials();
    }

    /// Whether a `<digest>` speaks of the keys we have.
    fn is_our_bundle(&self, digest: &Node) -> bool {
        let Some(credentials) = &self.credentials else {
            return false;
        };
        let signed_id = digest.find("skey").and_then(|skey| skey.find_bytes("id")).map(be_number);
        digest.find_bytes("registration").map(be_number) == Some(credentials.registration_id)
            && digest.find_bytes("identity").and_then(PublicKey::from_slice)
                == Some(credentials.identity.public)
            && signed_id == Some(credentials.signed_prekey_id)
    }
}

/// `<iq xmlns=encrypt type=set>` with `registration`, `type`, `identity`, `list`, `skey`.
fn build_upload(credentials: &Credentials, keys: &[(u32, PublicKey)], signed: &SignedPreKeyRecord) -> Node {
    let list = Node::new("list").nodes(keys.iter().map(|(id, public)| key_node("key", *id, public)));
    iq("set", "encrypt")
        .child(Node::new("registration").bytes(credentials.registration_id.to_be_bytes()))
        .child(Node::new("type").bytes([crate::whatsapp::keys::DJB_TYPE]))
        .child(Node::new("identity").bytes(credentials.identity.public.0))
        .child(list)
        .child(signed_prekey_node(signed))
}

/// `<key><id/><value/></key>`.
pub(in crate::whatsapp) fn prekey_node(prekey: &PreKeyRecord) -> Node {
    key_node("key", prekey.id, &prekey.pair.public)
}

/// `<skey><id/><value/><signature/></skey>`.
pub(in crate::whatsapp) fn signed_prekey_node(signed: &SignedPreKeyRecord) -> Node {
    key_node("skey", signed.id, &signed.pair.public).child(Node::new("signature").bytes(signed.signature))
}

fn key_node(tag: &'static str, id: u32, public: &PublicKey) -> Node {
    Node::new(tag).child(Node::new("id").bytes(id_bytes(id))).child(Node::new("value").bytes(public.0))
}

/// Reserves the next ids. Both watermarks start over at 1 when the 24 bits are used up, after 16 million keys.
fn take_ids(credentials: &mut Credentials, count: u32) -> Range<u32> {
    if credentials.next_prekey_id.saturating_add(count) > MAX_PREKEY_ID {
        credentials.next_prekey_id = 1;
        credentials.first_unuploaded_prekey_id = 1;
    }
    let first = credentials.next_prekey_id;
    credentials.next_prekey_id = first + count;
    first..credentials.next_prekey_id
}

pub(super) fn next_id(id: u32) -> u32 {
    if id >= MAX_PREKEY_ID { 1 } else { id + 1 }
}

/// Fibonacci in seconds: 1, 1, 2, 3, 5, …
fn retry_delay(failures: u32) -> Duration {
    let (mut this, mut next) = (1u64, 1u64);
    for _ in 1..failures {
        (this, next) = (next, this.saturating_add(next));
        if this >= PREKEY_RETRY_CAP.as_secs() {
            return PREKEY_RETRY_CAP;
        }
    }
    Duration::from_secs(this)
}

/// Three bytes, big endian: how ids travel.
fn id_bytes(id: u32) -> [u8; 3] {
    let [_, bytes @ ..] = id.to_be_bytes();
    bytes
}

/// A big-endian number of at most four bytes; longer ones match nothing.
pub(super) fn be_number(bytes: &[u8]) -> u32 {
    if bytes.len() > 4 {
        return u32::MAX;
    }
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn upload_retries_follow_fibonacci_up_to_the_cap() {
        let waits: Vec<u64> = (1..=8).map(|failures| retry_delay(failures).as_secs()).collect();
        assert_eq!(waits, [1, 1, 2, 3, 5, 8, 13, 21]);
        assert_eq!(retry_delay(15).as_secs(), 610);
        assert_eq!(retry_delay(u32::MAX).as_secs(), 610);
    }

    #[test]
    fn ids_grow_and_start_over_only_when_24_bits_are_used_up() {
        let mut credentials = Credentials::generate(&mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(take_ids(&mut credentials, 200), 1..201);
        assert_eq!(take_ids(&mut credentials, 1), 201..202);
        credentials.next_prekey_id = MAX_PREKEY_ID - 5;
        assert_eq!(take_ids(&mut credentials, 10), 1..11);
        assert_eq!(credentials.first_unuploaded_prekey_id, 1);
    }

    #[test]
    fn numbers_are_read_big_endian_and_never_overflow() {
        assert_eq!(be_number(&id_bytes(0x01_0203)), 0x01_0203);
        assert_eq!(be_number(&[0, 0, 1, 0]), 256);
        assert_eq!(be_number(&[9; 5]), u32::MAX);
    }
}
