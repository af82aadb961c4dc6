//! What is fetched of a peer device before the first message to it.

use super::{curve, error::SignalError};
use crate::whatsapp::keys::PublicKey;

/// A peer's published keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreKeyBundle {
    /// The peer's registration id.
    pub registration_id: u32,
    /// The peer's identity key.
    pub identity: PublicKey,
    /// Id of the signed prekey.
    pub signed_prekey_id: u32,
    /// The signed prekey.
    pub signed_prekey: PublicKey,
    /// Signature by the identity key over `05 || signed prekey`.
    pub signed_prekey_signature: [u8; 64],
    /// One-time prekey with its id; `None` when the peer's pool was empty.
    pub prekey: Option<(u32, PublicKey)>,
}

impl PreKeyBundle {
    /// Checks the signature of the signed prekey.
    ///
    /// # Errors
    /// [`SignalError::BadSignature`].
    pub fn verify(&self) -> Result<(), SignalError> {
        let signed = self.signed_prekey.serialize();
        if curve::verify(&self.identity, &signed, &self.signed_prekey_signature) {
            Ok(())
        } else {
            Err(SignalError::BadSignature)
        }
    }
}
