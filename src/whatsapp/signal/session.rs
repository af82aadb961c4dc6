//! One-to-one sessions with a peer device: the current one and those it replaced.
//!
//! Decides which session a message belongs to, and when the record must be written. Knows nothing of chain keys
//! (that is the ratchet's business), of addresses, or of where records and prekeys are kept.
//!
//! # Writing a record
//!
//! A record may be kept in memory and used many times between two writes. [`SessionRecord::encode`] writes a bound 64
//! messages ahead of the sending counter; [`SessionRecord::decode`] continues at that bound. So no message key is used
//! twice whatever crashes, as long as two rules are kept:
//!
//! 1. When a result says `must_persist`, the record is encoded and durable before anything that came of the result is
//!    sent.
//! 2. What was encoded becomes durable before any later ciphertext leaves, or the record is thrown away.

use std::fmt;

use rand_core::CryptoRngCore;

use super::{
    bundle::PreKeyBundle,
    error::SignalError,
    limits::{MAX_ARCHIVED_STATES, RECEIVES_PER_PERSIST},
    state::SessionState,
    stored,
    wire::{PreKeySignalMessage, SignalMessage},
    x3dh,
};
use crate::whatsapp::keys::{KeyPair, PublicKey};

/// Who we are in every session.
#[derive(Debug, Clone, Copy)]
pub struct LocalIdentity<'a> {
    /// Our registration id.
    pub registration_id: u32,
    /// Our identity key.
    pub pair: &'a KeyPair,
}

/// Where our private prekeys are looked up.
pub trait PreKeySource {
    /// A one-time prekey.
    fn prekey(&self, id: u32) -> Option<KeyPair>;
    /// A signed prekey.
    fn signed_prekey(&self, id: u32) -> Option<KeyPair>;
}

/// The two forms of a one-to-one ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiphertextKind {
    /// Inside an established session.
    Msg,
    /// Carries what the receiver needs to set up the session.
    PkMsg,
}

impl CiphertextKind {
    /// The `type` of an `<enc>`: `msg` or `pkmsg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Msg => "msg",
            Self::PkMsg => "pkmsg",
        }
    }
}

/// Result of [`SessionRecord::encrypt`].
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// Which form `bytes` has.
    pub kind: CiphertextKind,
    /// The ciphertext message.
    pub bytes: Vec<u8>,
    /// The record must be durable (`encode`) before `bytes` leave.
    pub must_persist: bool,
}

/// Result of the decrypting functions.
#[derive(Clone)]
pub struct Decrypted {
    /// The plaintext, still padded as the sender padded it.
    pub plaintext: Vec<u8>,
    /// The one-time prekey that set up the new session: delete it together with writing the record.
    pub used_prekey: Option<u32>,
    /// A new session was made from this message.
    pub new_session: bool,
    /// The sender's identity key.
    pub identity: PublicKey,
    /// The record must be written (`encode`) together with what came of this message.
    pub must_persist: bool,
}

impl fmt::Debug for Decrypted {
    /// Leaves the plaintext out: it must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("used_prekey", &self.used_prekey)
            .field("new_session", &self.new_session)
            .field("must_persist", &self.must_persist)
            .finish_non_exhaustive()
    }
}

/// All sessions with one peer device: the current one and replaced ones. Default = none.
#[derive(Clone, Default)]
pub struct SessionRecord {
    current: Option<SessionState>,
    /// Most recently used first.
    archived: Vec<SessionState>,
    /// More than counters changed since the record was encoded.
    dirty: bool,
    /// Messages received since the record was encoded.
    receives: u32,
}

impl SessionRecord {
    /// Whether there is a current session to encrypt with.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.current.as_ref().is_some_and(|state| state.sending.is_some())
    }

    /// The peer's identity key in the current session.
    #[must_use]
    pub fn remote_identity(&self) -> Option<PublicKey> {
        self.current.as_ref().map(|state| state.remote_identity)
    }

    /// The peer's registration id in the current session.
    #[must_use]
    pub fn remote_registration_id(&self) -> Option<u32> {
        self.current.as_ref().and_then(|state| state.remote_registration_id)
    }

    /// The initiator's base key of the current session: names the session.
    #[must_use]
    pub fn base_key(&self) -> Option<PublicKey> {
        self.current.as_ref().map(|state| state.base_key)
    }

    /// Sets up a session from a fetched bundle; the current session, if any, is archived.
    ///
    /// # Errors
    /// [`SignalError::BadSignature`], [`SignalError::InvalidKey`]; the record is unchanged then.
    pub fn process_bundle(
        &mut self,
        local: &LocalIdentity<'_>,
        bundle: &PreKeyBundle,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<(), SignalError> {
        let state = x3dh::initiate(local, bundle, rng)?;
        self.install(state);
        Ok(())
    }

    /// Encrypts with the current session. Gives a `pkmsg` until the peer's first message in it was decrypted.
    ///
    /// # Errors
    /// [`SignalError::NoSession`], [`SignalError::ChainExhausted`].
    pub fn encrypt(&mut self, local: &LocalIdentity<'_>, plaintext: &[u8]) -> Result<Encrypted, SignalError> {
        let state = self.current.as_mut().ok_or(SignalError::NoSession)?;
        let (kind, bytes, covered) = state.encrypt(local, plaintext)?;
        Ok(Encrypted { kind, bytes, must_persist: self.dirty || !covered })
    }

    /// Decrypts a `pkmsg`, setting up the session when it is new.
    ///
    /// A message whose base key belongs to a session we have is decrypted with that session, so a repeated set-up
    /// needs no prekeys. A new session replaces the current one whatever its identity key: compare
    /// [`Decrypted::identity`] with the known one.
    ///
    /// # Errors
    /// [`SignalError::InvalidMessage`], [`SignalError::InvalidKey`], [`SignalError::InvalidPreKeyId`],
    /// [`SignalError::InvalidSignedPreKeyId`], [`SignalError::BadMac`], [`SignalError::Duplicate`],
    /// [`SignalError::TooFarAhead`]; the record is unchanged then.
    pub fn decrypt_pkmsg(
        &mut self,
        local: &LocalIdentity<'_>,
        bytes: &[u8],
        keys: &dyn PreKeySource,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Decrypted, SignalError> {
        let message = PreKeySignalMessage::parse(bytes)?;
        let is_same = |state: &SessionState| !state.initiator && state.base_key == message.base_key;
        if let Some(place) = self.find(is_same) {
            if self.state_mut(place).is_some_and(|state| state.remote_identity != message.identity) {
                return Err(SignalError::InvalidMessage);
            }
            return self.decrypt_at(place, local, &message.message, rng);
        }

        let signed_prekey =
            keys.signed_prekey(message.signed_prekey_id).ok_or(SignalError::InvalidSignedPreKeyId)?;
        let prekey =
            message.prekey_id.map(|id| keys.prekey(id).ok_or(SignalError::InvalidPreKeyId)).transpose()?;
        let mut state = x3dh::respond(local, &message, signed_prekey, prekey.as_ref())?;
        let opened = state.decrypt(local, &message.message, rng)?;
        self.install(state);
        Ok(Decrypted {
            plaintext: opened.plaintext,
            used_prekey: message.prekey_id,
            new_session: true,
            identity: message.identity,
            must_persist: true,
        })
    }

    /// Decrypts a `msg`: with the current session, otherwise with an archived one, which becomes current then if it can
    /// be sent on.
    ///
    /// # Errors
    /// [`SignalError::NoSession`], [`SignalError::InvalidMessage`], [`SignalError::InvalidKey`],
    /// [`SignalError::BadMac`], [`SignalError::Duplicate`], [`SignalError::TooFarAhead`]; the record is unchanged then.
    pub fn decrypt_msg(
        &mut self,
        local: &LocalIdentity<'_>,
        bytes: &[u8],
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Decrypted, SignalError> {
        let message = SignalMessage::parse(bytes)?;
        // Ratchet keys are random: a session that knows this one is the only one that can be meant.
        if let Some(place) = self.find(|state| state.has_receiving_chain(&message.ratchet_key)) {
            return self.decrypt_at(place, local, &message, rng);
        }
        let places = self.current.iter().map(|_| Place::Current);
        let places: Vec<Place> = places.chain((0..self.archived.len()).map(Place::Archived)).collect();
        let mut first_error = None;
        for place in places {
            match self.decrypt_at(place, local, &message, rng) {
                Ok(decrypted) => return Ok(decrypted),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(SignalError::NoSession))
    }

    /// Closes the current session: it still decrypts, but nothing is encrypted with it any more.
    pub fn archive(&mut self) {
        if let Some(state) = self.current.take() {
            self.archived.insert(0, state);
            self.archived.truncate(MAX_ARCHIVED_STATES);
            self.dirty = true;
        }
    }

    /// The stored form, with the next 64 sending counters reserved.
    #[must_use]
    pub fn encode(&mut self) -> Vec<u8> {
        self.write(false)
    }

    /// The stored form for a clean stop: nothing is skipped when it is read again.
    #[must_use]
    pub fn encode_clean(&mut self) -> Vec<u8> {
        self.write(true)
    }

    /// Reads the stored form; skips the sending counters that were reserved.
    ///
    /// # Errors
    /// [`SignalError::DamagedRecord`], [`SignalError::UnknownRecordVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let (current, archived) = stored::decode(bytes)?;
        Ok(Self { current, archived, dirty: false, receives: 0 })
    }

    fn write(&mut self, clean: bool) -> Vec<u8> {
        if let Some(chain) = self.current.as_mut().and_then(|state| state.sending.as_mut()) {
            chain.reserve(clean);
        }
        // An archived session is not sent on; when it becomes current again, that is written first.
        for chain in self.archived.iter_mut().filter_map(|state| state.sending.as_mut()) {
            chain.reserve(true);
        }
        self.dirty = false;
        self.receives = 0;
        stored::encode(self.current.as_ref(), &self.archived)
    }

    fn install(&mut self, state: SessionState) {
        self.archive();
        self.current = Some(state);
        self.dirty = true;
    }

    fn find(&self, matches: impl Fn(&SessionState) -> bool) -> Option<Place> {
        if self.current.as_ref().is_some_and(&matches) {
            return Some(Place::Current);
        }
        self.archived.iter().position(matches).map(Place::Archived)
    }

    fn state_mut(&mut self, place: Place) -> Option<&mut SessionState> {
        match place {
            Place::Current => self.current.as_mut(),
            Place::Archived(index) => self.archived.get_mut(index),
        }
    }

    fn decrypt_at(
        &mut self,
        place: Place,
        local: &LocalIdentity<'_>,
        message: &SignalMessage<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Decrypted, SignalError> {
        let state = self.state_mut(place).ok_or(SignalError::NoSession)?;
        let opened = state.decrypt(local, message, rng)?;
        let (identity, can_send) = (state.remote_identity, state.sending.is_some());
        // A session that cannot be sent on must not take the place of one that can.
        if let Place::Archived(index) = place
            && (can_send || self.current.is_none())
        {
            let state = self.archived.remove(index);
            self.install(state);
        }
        self.dirty |= opened.structural;
        self.receives = self.receives.saturating_add(1);
        Ok(Decrypted {
            plaintext: opened.plaintext,
            used_prekey: None,
            new_session: false,
            identity,
            must_persist: self.dirty || self.receives >= RECEIVES_PER_PERSIST,
        })
    }
}

/// Where in a record a session stands.
#[derive(Clone, Copy)]
enum Place {
    Current,
    Archived(usize),
}

pub(crate) mod parts;
#[cfg(test)]
mod tests;
