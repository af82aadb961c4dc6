//! Session set-up: X3DH, version 3 (no post-quantum part; WhatsApp companions do not use it).
//!
//! `secret = FF×32 || DH1 || DH2 || DH3 [|| DH4]`, HKDF to a root key and a chain key. Spec: Signal "X3DH" §3.
//! Seen: libsignal 6.0.0 (npm) `src/session_builder.js`. Knows nothing of other sessions with the same peer.

use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use super::{
    bundle::PreKeyBundle,
    chain::SendingChain,
    error::SignalError,
    session::LocalIdentity,
    state::{self, PendingPreKey, RootKey, SessionState},
    wire::PreKeySignalMessage,
};
use crate::whatsapp::keys::{KeyPair, PrivateKey, PublicKey};

/// We write first: a session from the peer's bundle.
pub(super) fn initiate(
    local: &LocalIdentity<'_>,
    bundle: &PreKeyBundle,
    rng: &mut dyn CryptoRngCore,
) -> Result<SessionState, SignalError> {
    bundle.verify()?;
    let base = KeyPair::generate(rng);
    let mut secret = Secret::new();
    secret.mix(&local.pair.private, &bundle.signed_prekey)?;
    secret.mix(&base.private, &bundle.identity)?;
    secret.mix(&base.private, &bundle.signed_prekey)?;
    if let Some((_, prekey)) = &bundle.prekey {
        secret.mix(&base.private, prekey)?;
    }
    // The chain key of the set-up itself is never used: both sides take a ratchet step first.
    let ratchet = KeyPair::generate(rng);
    let (root, key) = secret.root().step(&ratchet.private, &bundle.signed_prekey)?;
    Ok(SessionState {
        initiator: true,
        base_key: base.public,
        remote_identity: bundle.identity,
        remote_registration_id: Some(bundle.registration_id),
        root,
        remote_ratchet: bundle.signed_prekey,
        ratchet,
        sending: Some(SendingChain::new(key, 0)),
        previous_counter: 0,
        receiving: Vec::new(),
        pending: Some(PendingPreKey {
            prekey_id: bundle.prekey.map(|(id, _)| id),
            signed_prekey_id: bundle.signed_prekey_id,
        }),
    })
}

/// The peer wrote first: a session from its `pkmsg` and our prekeys. Our first ratchet step follows when the message
/// in it is decrypted.
pub(super) fn respond(
    local: &LocalIdentity<'_>,
    message: &PreKeySignalMessage<'_>,
    signed_prekey: KeyPair,
    prekey: Option<&KeyPair>,
) -> Result<SessionState, SignalError> {
    let mut secret = Secret::new();
    secret.mix(&signed_prekey.private, &message.identity)?;
    secret.mix(&local.pair.private, &message.base_key)?;
    secret.mix(&signed_prekey.private, &message.base_key)?;
    if let Some(prekey) = prekey {
        secret.mix(&prekey.private, &message.base_key)?;
    }
    Ok(SessionState {
        initiator: false,
        base_key: message.base_key,
        remote_identity: message.identity,
        remote_registration_id: message.registration_id,
        root: secret.root(),
        remote_ratchet: message.base_key,
        ratchet: signed_prekey,
        sending: None,
        previous_counter: 0,
        receiving: Vec::new(),
        pending: None,
    })
}

/// `FF×32`, then the Diffie-Hellman results as they come.
struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    fn new() -> Self {
        // Room for all of it, so that no copy is left behind by growing.
        let mut bytes = Vec::with_capacity(32 * 5);
        bytes.resize(32, 0xff);
        Self(Zeroizing::new(bytes))
    }

    fn mix(&mut self, ours: &PrivateKey, theirs: &PublicKey) -> Result<(), SignalError> {
        let shared = ours.diffie_hellman(theirs).ok_or(SignalError::InvalidKey)?;
        self.0.extend_from_slice(&shared.0);
        Ok(())
    }

    fn root(&self) -> RootKey {
        state::derive(None, &self.0, b"WhisperText").0
    }
}
