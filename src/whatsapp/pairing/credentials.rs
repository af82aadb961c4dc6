//! Who we are: the record every connection starts from, and its stored form.
//!
//! Knows nothing of stanzas. Prekeys are not part of it; they have tables of their own.

use prost::Message;
use rand_core::CryptoRngCore;

use crate::whatsapp::{
    jid::Jid,
    keys::{KeyPair, PublicKey},
    limits::MAX_REGISTRATION_ID,
};

/// Made before the first connect, completed by pairing. State table `Credentials`, key [`Credentials::KEY`].
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Noise static pair.
    pub(crate) noise: KeyPair,
    /// Signal identity pair.
    pub(crate) identity: KeyPair,
    /// 1..=16380.
    pub(crate) registration_id: u32,
    /// Id of the current signed prekey (the record is in its own table).
    pub(crate) signed_prekey_id: u32,
    /// Shared with the phone through the QR; checks the pair-success HMAC.
    pub(crate) adv_secret: [u8; 32],
    /// Next one-time prekey id; only ever grows.
    pub(crate) next_prekey_id: u32,
    /// First id not yet uploaded.
    pub(crate) first_unuploaded_prekey_id: u32,
    /// Serialized `ADVSignedDeviceIdentity` with `accountSignatureKey`; goes out as `device-identity`.
    pub(crate) account: Option<Vec<u8>>,
    /// Our PN JID with device; present once paired.
    pub(crate) jid: Option<Jid>,
    /// Our LID with device.
    pub(crate) lid: Option<Jid>,
    /// Our own display name.
    pub(crate) push_name: Option<String>,
    /// Platform of the phone, as it said at pairing.
    pub(crate) platform: Option<String>,
    /// Edge-routing bytes, sent back in front of the next connection.
    pub(crate) routing_info: Option<Vec<u8>>,
    /// 1:1 chats of this account are LID-addressed (protocol-facts 5.2); never lowered except by a new pairing.
    pub(crate) lid_migrated: bool,
    /// Salt for `cstoken`s.
    pub(crate) nct_salt: Option<Vec<u8>>,
    /// Hash of the AB props we have seen; with it the server leaves out what has not changed.
    pub(crate) props_hash: Option<String>,
}

/// Stored credentials that cannot be understood. Never answered with a fresh identity: that would cut the phone's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// Not the protobuf it should be.
    #[error("they are not readable")]
    Unreadable,
    /// Written by a later version of this program.
    #[error("their format {0} is newer than this program")]
    UnknownVersion(u32),
    /// One field is missing or of the wrong size.
    #[error("their field {0} is missing or malformed")]
    Field(&'static str),
}

impl Credentials {
    /// The key of the one row in the table.
    pub(crate) const KEY: &'static str = "self";

    /// A new, unpaired identity. Its first signed prekey has id 1 and is made by the caller.
    pub(crate) fn generate(rng: &mut dyn CryptoRngCore) -> Self {
        let mut adv_secret = [0; 32];
        rng.fill_bytes(&mut adv_secret);
        Self {
            noise: KeyPair::generate(rng),
            identity: KeyPair::generate(rng),
            registration_id: 1 + rng.next_u32() % MAX_REGISTRATION_ID,
            signed_prekey_id: 1,
            adv_secret,
            next_prekey_id: 1,
            first_unuploaded_prekey_id: 1,
            account: None,
            jid: None,
            lid: None,
            push_name: None,
            platform: None,
            routing_info: None,
            lid_migrated: false,
            nct_salt: None,
            props_hash: None,
        }
    }

    /// Whether a phone has accepted this identity.
    pub(crate) fn is_paired(&self) -> bool {
        self.jid.is_some() && self.account.is_some()
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        Stored {
            version: VERSION,
            noise: self.noise.private.0.to_vec(),
            identity: self.identity.private.0.to_vec(),
            registration_id: self.registration_id,
            signed_prekey_id: self.signed_prekey_id,
            adv_secret: self.adv_secret.to_vec(),
            next_prekey_id: self.next_prekey_id,
            first_unuploaded_prekey_id: self.first_unuploaded_prekey_id,
            account: self.account.clone(),
            jid: self.jid.as_ref().map(Jid::to_string),
            lid: self.lid.as_ref().map(Jid::to_string),
            push_name: self.push_name.clone(),
            platform: self.platform.clone(),
            routing_info: self.routing_info.clone(),
            lid_migrated: self.lid_migrated,
            nct_salt: self.nct_salt.clone(),
            props_hash: self.props_hash.clone(),
            noise_public: self.noise.public.0.to_vec(),
            identity_public: self.identity.public.0.to_vec(),
        }
        .encode_to_vec()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`CredentialsError`] for anything this version has not written itself.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CredentialsError> {
        let stored = Stored::decode(bytes).map_err(|_| CredentialsError::Unreadable)?;
        if stored.version != VERSION {
            return Err(CredentialsError::UnknownVersion(stored.version));
        }
        Ok(Self {
            noise: pair("noise", &stored.noise, &stored.noise_public)?,
            identity: pair("identity", &stored.identity, &stored.identity_public)?,
            registration_id: stored.registration_id,
            signed_prekey_id: nonzero("signed_prekey_id", stored.signed_prekey_id)?,
            adv_secret: stored
                .adv_secret
                .as_slice()
                .try_into()
                .map_err(|_| CredentialsError::Field("adv_secret"))?,
            next_prekey_id: nonzero("next_prekey_id", stored.next_prekey_id)?,
            first_unuploaded_prekey_id: nonzero(
                "first_unuploaded_prekey_id",
                stored.first_unuploaded_prekey_id,
            )?,
            account: stored.account,
            jid: jid("jid", stored.jid.as_deref())?,
            lid: jid("lid", stored.lid.as_deref())?,
            push_name: stored.push_name,
            platform: stored.platform,
            routing_info: stored.routing_info,
            lid_migrated: stored.lid_migrated,
            nct_salt: stored.nct_salt,
            props_hash: stored.props_hash,
        })
    }
}

/// The public half is stored too, as a check: any 32 bytes are a private key, but not the one the phone accepted.
fn pair(field: &'static str, private: &[u8], public: &[u8]) -> Result<KeyPair, CredentialsError> {
    let pair = KeyPair::from_private_slice(private).ok_or(CredentialsError::Field(field))?;
    if PublicKey::from_slice(public) != Some(pair.public) {
        return Err(CredentialsError::Field(field));
    }
    Ok(pair)
}

fn nonzero(field: &'static str, id: u32) -> Result<u32, CredentialsError> {
    if id == 0 { Err(CredentialsError::Field(field)) } else { Ok(id) }
}

fn jid(field: &'static str, text: Option<&str>) -> Result<Option<Jid>, CredentialsError> {
    text.map(|text| text.parse().map_err(|_| CredentialsError::Field(field))).transpose()
}

/// Format of the stored form.
const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Stored {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    noise: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    identity: Vec<u8>,
    #[prost(uint32, tag = "4")]
    registration_id: u32,
    #[prost(uint32, tag = "5")]
    signed_prekey_id: u32,
    #[prost(bytes = "vec", tag = "6")]
    adv_secret: Vec<u8>,
    #[prost(uint32, tag = "7")]
    next_prekey_id: u32,
    #[prost(uint32, tag = "8")]
    first_unuploaded_prekey_id: u32,
    #[prost(bytes = "vec", optional, tag = "9")]
    account: Option<Vec<u8>>,
    #[prost(string, optional, tag = "10")]
    jid: Option<String>,
    #[prost(string, optional, tag = "11")]
    lid: Option<String>,
    #[prost(string, optional, tag = "12")]
    push_name: Option<String>,
    #[prost(string, optional, tag = "13")]
    platform: Option<String>,
    #[prost(bytes = "vec", optional, tag = "14")]
    routing_info: Option<Vec<u8>>,
    #[prost(bool, tag = "15")]
    lid_migrated: bool,
    #[prost(bytes = "vec", optional, tag = "16")]
    nct_salt: Option<Vec<u8>>,
    #[prost(string, optional, tag = "17")]
    props_hash: Option<String>,
    #[prost(bytes = "vec", tag = "18")]
    noise_public: Vec<u8>,
    #[prost(bytes = "vec", tag = "19")]
    identity_public: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn sample() -> Credentials {
        let mut credentials = Credentials::generate(&mut ChaCha20Rng::seed_from_u64(1));
        credentials.account = Some(vec![1, 2, 3]);
        credentials.jid = Some("6281200000001:7@s.whatsapp.net".parse().unwrap());
        credentials.lid = Some("100000000000001:7@lid".parse().unwrap());
        credentials.routing_info = Some(vec![9; 5]);
        credentials.lid_migrated = true;
        credentials.next_prekey_id = 201;
        credentials.first_unuploaded_prekey_id = 17;
        credentials
    }

    #[test]
    fn the_stored_form_brings_every_field_back() {
        let credentials = sample();
        let read = Credentials::decode(&credentials.encode()).unwrap();
        assert_eq!(read.encode(), credentials.encode());
        assert_eq!(read.jid, credentials.jid);
        assert_eq!(read.identity.public, credentials.identity.public);
        assert!(read.is_paired() && read.lid_migrated);
    }

    #[test]
    fn damage_is_an_error_and_not_a_new_identity() {
        let good = Stored::decode(sample().encode().as_slice()).unwrap();
        let read = |change: fn(&mut Stored)| {
            let mut stored = good.clone();
            change(&mut stored);
            Credentials::decode(&stored.encode_to_vec()).map(|_| ()).unwrap_err()
        };
        assert_eq!(Credentials::decode(&[0xff]).map(|_| ()).unwrap_err(), CredentialsError::Unreadable);
        assert_eq!(Credentials::decode(&[]).map(|_| ()).unwrap_err(), CredentialsError::UnknownVersion(0));
        assert_eq!(read(|stored| stored.version = 2), CredentialsError::UnknownVersion(2));
        assert_eq!(read(|stored| stored.noise.truncate(31)), CredentialsError::Field("noise"));
        assert_eq!(read(|stored| stored.identity[4] ^= 1), CredentialsError::Field("identity"));
        assert_eq!(read(|stored| stored.adv_secret.clear()), CredentialsError::Field("adv_secret"));
        assert_eq!(read(|stored| stored.next_prekey_id = 0), CredentialsError::Field("next_prekey_id"));
        assert_eq!(read(|stored| stored.jid = Some("x".into())), CredentialsError::Field("jid"));
    }

    #[test]
    fn registration_ids_stay_in_their_range() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        for _ in 0..200 {
            let id = Credentials::generate(&mut rng).registration_id;
            assert!((1..=MAX_REGISTRATION_ID).contains(&id));
        }
    }
}
