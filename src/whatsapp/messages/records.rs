//! Signal records between the store and the ratchets: a bounded cache of decoded session and sender key records.
//!
//! A record is written when the Signal layer says it must be, and exactly (without a reservation) when it leaves the
//! cache. Every write goes into the current batch, in front of whatever leaves because of it.

use crate::whatsapp::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    keys::PublicKey,
    messages::cache::Cache,
    signal::{
        Address, CiphertextKind, Decrypted, Encrypted, GroupDecrypted, GroupEncrypted, LocalIdentity,
        PreKeyBundle, SenderKeyRecord, SessionRecord, SignalError,
    },
    state::{StateRead, StateWriter, Table},
};

/// Decoded records kept of each kind: enough for a busy session, 100 to 200 KiB when full, nothing when idle.
const CACHED_RECORDS: usize = 64;

/// A decoded record and whether it is ahead of its stored form.
#[derive(Debug)]
struct Slot<R> {
    record: R,
    used: bool,
}

/// The two caches. Session records by address, sender key records by `group::address`.
pub(super) struct Records {
    sessions: Cache<String, Slot<SessionRecord>>,
    sender_keys: Cache<String, Slot<SenderKeyRecord>>,
}

impl Default for Records {
    fn default() -> Self {
        Self { sessions: Cache::new(CACHED_RECORDS), sender_keys: Cache::new(CACHED_RECORDS) }
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sessions, {} sender keys", self.sessions.len(), self.sender_keys.len())
    }
}

impl Records {
    /// Writes every used record exactly and empties the caches.
    pub(super) fn write_back(&mut self, state: &mut StateWriter) {
        for (key, mut slot) in self.sessions.drain() {
            if slot.used {
                state.put(Table::Session, key, slot.record.encode_clean());
            }
        }
        for (key, mut slot) in self.sender_keys.drain() {
            if slot.used {
                state.put(Table::SenderKey, key, slot.record.encode_clean());
            }
        }
    }

    fn session<'a>(
        &'a mut self,
        state: &mut StateWriter,
        store: &dyn StateRead,
        key: &str,
    ) -> Result<&'a mut Slot<SessionRecord>, EngineError> {
        if self.sessions.get(key).is_none() {
            let record = match state.get(store, Table::Session, key)? {
                Some(raw) => SessionRecord::decode(&raw).map_err(|error| damaged("session", error))?,
                None => SessionRecord::default(),
            };
            if let Some((old, mut slot)) = self.sessions.insert(key.to_owned(), Slot { record, used: false })
                && slot.used
            {
                state.put(Table::Session, old, slot.record.encode_clean());
            }
        }
        Ok(self.sessions.get(key).expect("inserted above, and the newest entry never leaves"))
    }

    fn sender_key<'a>(
        &'a mut self,
        state: &mut StateWriter,
        store: &dyn StateRead,
        key: &str,
    ) -> Result<&'a mut Slot<SenderKeyRecord>, EngineError> {
        if self.sender_keys.get(key).is_none() {
            let record = match state.get(store, Table::SenderKey, key)? {
                Some(raw) => SenderKeyRecord::decode(&raw).map_err(|error| damaged("sender key", error))?,
                None => SenderKeyRecord::default(),
            };
            if let Some((old, mut slot)) =
                self.sender_keys.insert(key.to_owned(), Slot { record, used: false })
                && slot.used
            {
                state.put(Table::SenderKey, old, slot.record.encode_clean());
            }
        }
        Ok(self.sender_keys.get(key).expect("inserted above, and the newest entry never leaves"))
    }
}

fn damaged(what: &'static str, error: SignalError) -> EngineError {
    EngineError::Damaged { what, why: error.to_string() }
}

/// The key of a sender key record.
pub(in crate::whatsapp) fn sender_key_name(group: &Jid, sender: &Address) -> String {
    format!("{group}::{sender}")
}

/// Sessions.
impl Engine {
    /// Whether there is a session to encrypt with.
    pub(super) fn has_session(
        &mut self,
        store: &dyn StateRead,
        address: &Address,
    ) -> Result<bool, EngineError> {
        let slot = self.messages.records.session(&mut self.state, store, address.as_str())?;
        Ok(slot.record.has_session())
    }

    /// Base key and registration id of the current session, when there is one.
    pub(super) fn session_marks(
        &mut self,
        store: &dyn StateRead,
        address: &Address,
    ) -> Result<Option<(PublicKey, Option<u32>)>, EngineError> {
        let slot = self.messages.records.session(&mut self.state, store, address.as_str())?;
        Ok(slot.record.base_key().map(|key| (key, slot.record.remote_registration_id())))
    }

    /// Encrypts for one device; the record is in the batch before the ciphertext can leave, where it must be.
    pub(super) fn encrypt_for(
        &mut self,
        store: &dyn StateRead,
        address: &Address,
        plaintext: &[u8],
    ) -> Result<Result<Encrypted, SignalError>, EngineError> {
        let Some(credentials) = self.credentials.as_ref() else { return Ok(Err(SignalError::NoSession)) };
        let local =
            LocalIdentity { registration_id: credentials.registration_id, pair: &credentials.identity };
        let slot = self.messages.records.session(&mut self.state, store, address.as_str())?;
        let encrypted = match slot.record.encrypt(&local, plaintext) {
            Ok(encrypted) => encrypted,
            Err(error) => return Ok(Err(error)),
        };
        slot.used = true;
        if encrypted.must_persist {
            self.state.put(Table::Session, address.as_str(), slot.record.encode());
        }
        Ok(Ok(encrypted))
    }

    /// Decrypts one `pkmsg` or `msg` with the session of this address.
    ///
    /// `accept` sees the sender's identity key before anything is kept; when it refuses, the record stays as it was.
    pub(super) fn decrypt_with(
        &mut self,
        ctx: &mut Ctx<'_>,
        address: &Address,
        kind: CiphertextKind,
        bytes: &[u8],
        accept: impl FnOnce(&mut Self, &PublicKey) -> Result<bool, EngineError>,
    ) -> Result<Result<Decrypted, SignalError>, EngineError> {
        let slot = self.messages.records.session(&mut self.state, ctx.store, address.as_str())?;
        let before = (kind == CiphertextKind::PkMsg).then(|| slot.record.clone());
        let mut record = std::mem::take(&mut slot.record);
        let result = self.decrypt_in(ctx, &mut record, kind, bytes);
        let accepted = match &result {
            Ok(decrypted) if decrypted.new_session => accept(self, &decrypted.identity)?,
            _ => true,
        };
        let slot = self.messages.records.session(&mut self.state, ctx.store, address.as_str())?;
        if !accepted {
            slot.record = before.unwrap_or_default();
            return Ok(Err(SignalError::BadSignature));
        }
        slot.record = record;
        if let Ok(decrypted) = &result {
            slot.used = true;
            if decrypted.must_persist {
                self.state.put(Table::Session, address.as_str(), slot.record.encode());
            }
            if let Some(id) = decrypted.used_prekey {
                self.consume_prekey(id);
            }
        }
        Ok(result)
    }

    fn decrypt_in(
        &mut self,
        ctx: &mut Ctx<'_>,
        record: &mut SessionRecord,
        kind: CiphertextKind,
        bytes: &[u8],
    ) -> Result<Decrypted, SignalError> {
        let local = self.local_identity().ok_or(SignalError::NoSession)?;
        match kind {
            CiphertextKind::Msg => record.decrypt_msg(&local, bytes, ctx.rng),
            CiphertextKind::PkMsg => {
                record.decrypt_pkmsg(&local, bytes, &self.prekey_source(ctx.store), ctx.rng)
            }
        }
    }

    /// Sets up a session from a bundle; an earlier one is archived.
    pub(super) fn start_session(
        &mut self,
        ctx: &mut Ctx<'_>,
        address: &Address,
        bundle: &PreKeyBundle,
    ) -> Result<Result<(), SignalError>, EngineError> {
        let Some(credentials) = self.credentials.as_ref() else { return Ok(Err(SignalError::NoSession)) };
        let local =
            LocalIdentity { registration_id: credentials.registration_id, pair: &credentials.identity };
        let slot = self.messages.records.session(&mut self.state, ctx.store, address.as_str())?;
        let result = slot.record.process_bundle(&local, bundle, ctx.rng);
        if result.is_ok() {
            slot.used = true;
            self.state.put(Table::Session, address.as_str(), slot.record.encode());
        }
        Ok(result)
    }

    /// Closes the current session: the next message needs a bundle, late messages still decrypt.
    pub(super) fn archive_session(
        &mut self,
        store: &dyn StateRead,
        address: &Address,
    ) -> Result<(), EngineError> {
        let slot = self.messages.records.session(&mut self.state, store, address.as_str())?;
        if slot.record.has_session() {
            slot.record.archive();
            slot.used = true;
            self.state.put(Table::Session, address.as_str(), slot.record.encode());
        }
        Ok(())
    }

    /// Forgets everything about one device.
    pub(in crate::whatsapp) fn delete_session(&mut self, address: &Address) {
        self.messages.records.sessions.remove(address.as_str());
        self.state.delete(Table::Session, address.as_str());
        self.state.delete(Table::Identity, address.as_str());
    }

    /// The caller deletes or moves the stored records of all devices of this user: cached ones are written first.
    pub(in crate::whatsapp) fn write_back_sessions(&mut self, user: &Jid) {
        let prefix = Address::user_prefix(user);
        for key in self.messages.records.sessions.keys_with(|key| key.starts_with(&prefix)) {
            if let Some(mut slot) = self.messages.records.sessions.remove(&key)
                && slot.used
            {
                self.state.put(Table::Session, key, slot.record.encode_clean());
            }
        }
    }

    /// Cached records of all devices of this user are dropped unwritten: the stored ones are being deleted.
    pub(in crate::whatsapp) fn forget_cached_sessions(&mut self, user: &Jid) {
        let prefix = Address::user_prefix(user);
        for key in self.messages.records.sessions.keys_with(|key| key.starts_with(&prefix)) {
            self.messages.records.sessions.remove(&key);
        }
    }
}

/// Sender keys.
impl Engine {
    /// Our sender key of a group: id and position, when there is one.
    pub(super) fn own_sender_key(
        &mut self,
        store: &dyn StateRead,
        name: &str,
    ) -> Result<Option<(u32, u32)>, EngineError> {
        let slot = self.messages.records.sender_key(&mut self.state, store, name)?;
        Ok(slot.record.key_id().map(|id| (id, slot.record.iteration())))
    }

    /// Replaces our sender key by a fresh one.
    pub(super) fn create_sender_key(&mut self, ctx: &mut Ctx<'_>, name: &str) -> Result<u32, EngineError> {
        let slot = self.messages.records.sender_key(&mut self.state, ctx.store, name)?;
        slot.record = SenderKeyRecord::create(ctx.rng);
        slot.used = true;
        self.state.put(Table::SenderKey, name, slot.record.encode());
        Ok(slot.record.key_id().unwrap_or_default())
    }

    /// Deletes our sender key: the next message makes a new one.
    pub(in crate::whatsapp) fn delete_sender_key(&mut self, name: &str) {
        self.messages.records.sender_keys.remove(name);
        self.state.delete(Table::SenderKey, name);
    }

    /// The SKDM of our sender key.
    pub(super) fn sender_key_distribution(
        &mut self,
        store: &dyn StateRead,
        name: &str,
    ) -> Result<Result<Vec<u8>, SignalError>, EngineError> {
        let slot = self.messages.records.sender_key(&mut self.state, store, name)?;
        Ok(slot.record.distribution())
    }

    /// Encrypts for a group.
    pub(super) fn encrypt_for_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        name: &str,
        plaintext: &[u8],
    ) -> Result<Result<GroupEncrypted, SignalError>, EngineError> {
        let slot = self.messages.records.sender_key(&mut self.state, ctx.store, name)?;
        let result = slot.record.encrypt(plaintext, ctx.rng);
        if let Ok(encrypted) = &result {
            slot.used = true;
            if encrypted.must_persist {
                self.state.put(Table::SenderKey, name, slot.record.encode());
            }
        }
        Ok(result)
    }

    /// Decrypts a group message.
    pub(super) fn decrypt_from_group(
        &mut self,
        store: &dyn StateRead,
        name: &str,
        bytes: &[u8],
    ) -> Result<Result<GroupDecrypted, SignalError>, EngineError> {
        let slot = self.messages.records.sender_key(&mut self.state, store, name)?;
        let result = slot.record.decrypt(bytes);
        if let Ok(decrypted) = &result {
            slot.used = true;
            if decrypted.must_persist {
                self.state.put(Table::SenderKey, name, slot.record.encode());
            }
        }
        Ok(result)
    }

    /// Takes in somebody's SKDM. Written at once: without it nothing of the sender decrypts.
    pub(super) fn learn_sender_key(
        &mut self,
        store: &dyn StateRead,
        name: &str,
        distribution: &[u8],
    ) -> Result<Result<(), SignalError>, EngineError> {
        let slot = self.messages.records.sender_key(&mut self.state, store, name)?;
        let result = slot.record.process_distribution(distribution);
        if result.is_ok() {
            slot.used = true;
            self.state.put(Table::SenderKey, name, slot.record.encode());
        }
        Ok(result)
    }
}
