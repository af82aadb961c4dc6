//! How a session becomes linked to a phone: credentials, QR, pairing code, ADV checks, passkey notice.

use crate::whatsapp::{jid::Jid, keys::KeyPair};

/// Who we are: made before the first connect, completed by pairing. State table `Credentials`, key `self`.
#[derive(Debug, Clone)]
pub(in crate::whatsapp) struct Credentials {
    /// Noise static pair.
    pub(in crate::whatsapp) noise: KeyPair,
    /// Signal identity pair.
    pub(in crate::whatsapp) identity: KeyPair,
    /// 1..=16380.
    pub(in crate::whatsapp) registration_id: u32,
    /// Id of the current signed prekey (the record is in its own table).
    pub(in crate::whatsapp) signed_prekey_id: u32,
    /// Shared with the phone through the QR; checks the pair-success HMAC.
    pub(in crate::whatsapp) adv_secret: [u8; 32],
    /// Next one-time prekey id; only ever grows.
    pub(in crate::whatsapp) next_prekey_id: u32,
    /// First id not yet uploaded.
    pub(in crate::whatsapp) first_unuploaded_prekey_id: u32,
    /// Serialized `ADVSignedDeviceIdentity` with `accountSignatureKey`; goes out as `device-identity`.
    pub(in crate::whatsapp) account: Option<Vec<u8>>,
    /// Our PN JID with device; present once paired.
    pub(in crate::whatsapp) jid: Option<Jid>,
    /// Our LID with device.
    pub(in crate::whatsapp) lid: Option<Jid>,
    /// Our own display name.
    pub(in crate::whatsapp) push_name: Option<String>,
    /// Platform of the phone, as it said at pairing.
    pub(in crate::whatsapp) platform: Option<String>,
    /// Edge-routing bytes, sent back in front of the next connection.
    pub(in crate::whatsapp) routing_info: Option<Vec<u8>>,
    /// 1:1 chats of this account are LID-addressed (protocol-facts 5.2); never lowered except by a new pairing.
    pub(in crate::whatsapp) lid_migrated: bool,
    /// Salt for `cstoken`s.
    pub(in crate::whatsapp) nct_salt: Option<Vec<u8>>,
}

/// State of an ongoing pairing.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct Pairing {}
