//! `creds.json`: who we are, and the signed prekey.
//!
//! Fields this program does not use or does not know are kept in a row of their own and come back on writing.
//! Seen: Baileys `Utils/auth-utils.js` `initAuthCreds`, `Utils/validate-connection.js` @7.0.0-rc14 and @6.7.24.

use prost::Message as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::json::{FileError, base64, buffer, bytes_of, key_pair, key_pair_json, parse, write};
use crate::whatsapp::{
    jid::Jid,
    keys::{KeyPair, PublicKey},
    proto::AdvSignedDeviceIdentity,
    rows::Credentials,
    signal::{SignedPreKeyRecord, adv},
};

/// `processedHistoryMessages` grows; nothing else does.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Prekey ids are 24-bit.
pub(super) const MAX_PREKEY_ID: u32 = 0x00ff_ffff;

/// Fields that are rendered from our own rows. `me` is both: what it has beyond them is kept.
const OURS: [&str; 10] = [
    "noiseKey",
    "signedIdentityKey",
    "signedPreKey",
    "registrationId",
    "advSecretKey",
    "nextPreKeyId",
    "firstUnuploadedPreKeyId",
    "account",
    "platform",
    "routingInfo",
];

/// What a `creds.json` says.
pub(super) struct Creds {
    pub(super) credentials: Credentials,
    pub(super) signed_prekey: SignedPreKeyRecord,
    /// The account's key: identity of its phone.
    pub(super) account_key: PublicKey,
    /// Everything else.
    pub(super) kept: Map<String, Value>,
}

/// Why there is no usable account in a `creds.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredsError {
    /// The file itself is damaged.
    #[error("{0}")]
    File(FileError),
    /// Made, but never accepted by a phone.
    #[error("it was never linked to a phone")]
    NotLinked,
    /// The device index is that of a phone.
    #[error("its me.id names a phone, not a linked device")]
    NotACompanion,
}

impl From<FileError> for CredsError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Reads the file. Keys, signed prekey and account signature must belong together.
pub(super) fn read(bytes: &[u8]) -> Result<Creds, CredsError> {
    let map: Map<String, Value> = parse(bytes, MAX_BYTES)?;
    let me = map.get("me").and_then(Value::as_object);
    let id = me.and_then(|me| me.get("id")).and_then(Value::as_str).ok_or(CredsError::NotLinked)?;
    let jid = id.parse::<Jid>().ok().filter(|jid| jid.is_pn() && jid.is_user());
    let jid = jid.ok_or(FileError::Field("me.id"))?;
    if jid.device == 0 {
        return Err(CredsError::NotACompanion);
    }
    let lid = own_lid(me.and_then(|me| me.get("lid")), &jid)?;
    let identity = key_pair(map.get("signedIdentityKey"), "signedIdentityKey")?;
    let signed_prekey = signed_prekey(map.get("signedPreKey"), &identity)?;
    let (account, account_key) = account(map.get("account").ok_or(CredsError::NotLinked)?, &identity)?;
    let next_prekey_id = prekey_id(&map, "nextPreKeyId")?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let credentials = Credentials {
        noise: key_pair(map.get("noiseKey"), "noiseKey")?,
        identity,
        registration_id: number(&map, "registrationId")?,
        signed_prekey_id: signed_prekey.id,
        adv_secret: map
            .get("advSecretKey")
            .and_then(bytes_of)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(FileError::Field("advSecretKey"))?,
        next_prekey_id,
        first_unuploaded_prekey_id: prekey_id(&map, "firstUnuploadedPreKeyId")?.min(next_prekey_id),
        account: Some(account),
        jid: Some(jid),
        lid,
        push_name: text(me.and_then(|me| me.get("name"))),
        platform: text(map.get("platform")),
        routing_info: map.get("routingInfo").and_then(bytes_of),
        lid_migrated: false,
        nct_salt: None,
        // With the hash Baileys has seen, the server would not tell us what we have not seen.
        props_hash: None,
    };
    let kept = map.into_iter().filter(|(name, _)| !OURS.contains(&name.as_str())).collect();
    Ok(Creds { credentials, signed_prekey, account_key, kept })
}

/// Some versions keep our LID without the device.
fn own_lid(value: Option<&Value>, jid: &Jid) -> Result<Option<Jid>, FileError> {
    let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) else { return Ok(None) };
    let lid = text.parse::<Jid>().ok().filter(|lid| lid.is_lid() && lid.is_user());
    let lid = lid.ok_or(FileError::Field("me.lid"))?;
    Ok(Some(lid.with_device(jid.device)))
}

fn number(map: &Map<String, Value>, field: &'static str) -> Result<u32, FileError> {
    let number = map.get(field).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| i32::try_from(*number).is_ok()).ok_or(FileError::Field(field))
}

fn prekey_id(map: &Map<String, Value>, field: &'static str) -> Result<u32, FileError> {
    let id = number(map, field)?;
    if (1..=MAX_PREKEY_ID).contains(&id) { Ok(id) } else { Err(FileError::Field(field)) }
}

/// `{keyPair, signature, keyId, timestampS?}`. Also the shape of our own files of earlier ones.
pub(super) fn signed_prekey(
    value: Option<&Value>,
    identity: &KeyPair,
) -> Result<SignedPreKeyRecord, FileError> {
    let field = FileError::Field("signedPreKey");
    let value = value.and_then(Value::as_object).ok_or(field.clone())?;
    let id = value.get("keyId").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let signature = value.get("signature").and_then(bytes_of).and_then(|bytes| bytes.try_into().ok());
    let record = SignedPreKeyRecord {
        id: id.filter(|id| (1..=MAX_PREKEY_ID).contains(id)).ok_or(field.clone())?,
        pair: key_pair(value.get("keyPair"), "signedPreKey")?,
        signature: signature.ok_or(field)?,
        created_s: value.get("timestampS").and_then(Value::as_u64).unwrap_or(0),
    };
    if record.is_signed_by(&identity.public) { Ok(record) } else { Err(FileError::Mismatch("signedPreKey")) }
}

pub(super) fn signed_prekey_json(record: &SignedPreKeyRecord) -> Value {
    let mut json = json!({
        "keyPair": key_pair_json(&record.pair),
        "signature": buffer(&record.signature),
        "keyId": record.id,
    });
    if record.created_s > 0 {
        json["timestampS"] = record.created_s.into();
    }
    json
}

/// The account's signatures: as protobuf, and the key of the account.
fn account(value: &Value, identity: &KeyPair) -> Result<(Vec<u8>, PublicKey), FileError> {
    let part = |name| value.get(name).and_then(bytes_of);
    let field = || FileError::Field("account");
    let key_bytes = part("accountSignatureKey").ok_or_else(field)?;
    let key = PublicKey::from_slice(&key_bytes).ok_or_else(field)?;
    let signed = AdvSignedDeviceIdentity {
        details: part("details"),
        account_signature_key: Some(key_bytes),
        account_signature: part("accountSignature"),
        device_signature: part("deviceSignature"),
    };
    let holds = adv::verify_device_identity(
        &key,
        signed.details.as_deref().ok_or_else(field)?,
        &identity.public,
        signed.account_signature.as_deref().ok_or_else(field)?,
        signed.device_signature.as_deref().ok_or_else(field)?,
    );
    if holds { Ok((signed.encode_to_vec(), key)) } else { Err(FileError::Mismatch("account")) }
}

/// Writes the file; `None` before a phone has accepted the account: Baileys would take it for a login.
pub(super) fn render(
    credentials: &Credentials,
    signed_prekey: &SignedPreKeyRecord,
    app_state_key_id: Option<&[u8]>,
    kept: Map<String, Value>,
) -> Option<Vec<u8>> {
    let (Some(jid), Some(account)) = (&credentials.jid, &credentials.account) else { return None };
    let account = AdvSignedDeviceIdentity::decode(account.as_slice()).ok()?;
    let mut map = kept;
    let me = me_json(map.remove("me"), jid, credentials);
    let ours = [
        ("noiseKey", key_pair_json(&credentials.noise)),
        ("signedIdentityKey", key_pair_json(&credentials.identity)),
        ("signedPreKey", signed_prekey_json(signed_prekey)),
        ("registrationId", credentials.registration_id.into()),
        ("advSecretKey", base64(&credentials.adv_secret).into()),
        ("nextPreKeyId", credentials.next_prekey_id.into()),
        ("firstUnuploadedPreKeyId", credentials.first_unuploaded_prekey_id.into()),
        ("account", account_json(&account)),
        ("me", me),
    ];
    map.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    let optional = [
        ("platform", credentials.platform.clone().map(Value::from)),
        ("routingInfo", credentials.routing_info.as_deref().map(buffer)),
        ("myAppStateKeyId", app_state_key_id.map(|id| base64(id).into())),
    ];
    map.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    for (name, value) in defaults(credentials, &account) {
        map.entry(name).or_insert(value);
    }
    Some(write(&map))
}

/// `{id, lid, name, …}`. The LID stays written as Baileys wrote it while it names the same user.
fn me_json(kept: Option<Value>, jid: &Jid, credentials: &Credentials) -> Value {
    let mut me = match kept {
        Some(Value::Object(me)) => me,
        _ => Map::new(),
    };
    me.insert("id".to_owned(), jid.to_string().into());
    if let Some(lid) = &credentials.lid {
        let known = me.get("lid").and_then(Value::as_str).and_then(|text| text.parse::<Jid>().ok());
        if !known.is_some_and(|known| known.same_user(lid)) {
            me.insert("lid".to_owned(), lid.to_string().into());
        }
    }
    if let Some(name) = &credentials.push_name {
        me.insert("name".to_owned(), name.as_str().into());
    }
    me.into()
}

fn account_json(account: &AdvSignedDeviceIdentity) -> Value {
    json!({
        "details": base64(account.details()),
        "accountSignatureKey": base64(account.account_signature_key()),
        "accountSignature": base64(account.account_signature()),
        "deviceSignature": base64(account.device_signature()),
    })
}

/// What Baileys wants to find in the credentials of an account it did not make.
fn defaults(credentials: &Credentials, account: &AdvSignedDeviceIdentity) -> [(&'static str, Value); 6] {
    let phone = credentials.lid.as_ref().or(credentials.jid.as_ref()).map(Jid::to_string);
    let phone_key = PublicKey::from_slice(account.account_signature_key()).map(|key| key.serialize());
    let identity = json!([{
        "identifier": { "name": phone, "deviceId": 0 },
        "identifierKey": buffer(&phone_key.unwrap_or([0; 33])),
    }]);
    // Used only by a pairing that is over. Made of our own secret, so that it is always the same and nobody's.
    let pairing: [u8; 32] = Sha256::new()
        .chain_update(b"whatsapp-worker: pairing pair of an exported account")
        .chain_update(credentials.identity.private.0)
        .finalize()
        .into();
    let pairing = KeyPair::from(crate::whatsapp::keys::PrivateKey(pairing));
    [
        ("pairingEphemeralKeyPair", key_pair_json(&pairing)),
        ("processedHistoryMessages", json!([])),
        ("accountSyncCounter", 1.into()),
        ("accountSettings", json!({ "unarchiveChats": false })),
        ("registered", false.into()),
        ("signalIdentities", identity),
    ]
}
