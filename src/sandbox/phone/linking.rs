//! Linking companions: scanning a QR, typing a pairing code, signing the new device.
//!
//! Seen: whatsmeow `pair.go`, `pair-code.go` @33cfac51 (the companion's side; this is its mirror image).

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use aes_gcm::{Aes256Gcm, KeyInit as _, aead::Aead as _};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hkdf::Hkdf;
use prost::Message as _;
use sha2::Sha256;

use super::{LinkLie, LinkState, Phone, PhoneCtx};
use crate::{
    sandbox::{service::LinkRequest, world::SandboxError},
    whatsapp::{
        binary::Node,
        keys::{KeyPair, PublicKey, SharedSecret},
        proto::{
            AdvDeviceIdentity, AdvKeyIndexList, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac,
            AdvSignedKeyIndexList,
        },
        signal::adv::{self, AdvType},
    },
};

/// A pairing code that was typed; the companion's last word is awaited.
pub(super) struct TypedCode {
    reference: String,
    shared: SharedSecret,
}

/// The parts of a QR text.
struct Qr {
    reference: String,
    noise: PublicKey,
    identity: PublicKey,
    adv_secret: Vec<u8>,
}

impl Phone {
    /// Scans a QR text: 4 or 5 comma-separated parts, behind a URL or not.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when it is not one, [`SandboxError::Conflict`] when nobody waits behind it.
    pub fn scan(&mut self, text: &str, ctx: &mut PhoneCtx<'_>) -> Result<(), SandboxError> {
        let qr = parse_qr(text)
            .map_err(|reason| SandboxError::Invalid { field: "qr", reason: reason.to_owned() })?;
        let companion = ctx
            .directory
            .companion(&qr.reference)
            .ok_or_else(|| SandboxError::Conflict("this QR is not valid (any more)".to_owned()))?;
        if companion.identity != qr.identity || companion.noise_static != qr.noise {
            let reason = "its keys are not those of the waiting client".to_owned();
            return Err(SandboxError::Invalid { field: "qr", reason });
        }
        self.link(qr.reference, &qr.adv_secret, &qr.identity, ctx)
    }

    /// Types a pairing code, as the companion shows it.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a malformed code, [`SandboxError::Conflict`] when no companion asked for one.
    /// A wrong code shows later, in [`Phone::link_state`].
    pub fn type_code(&mut self, code: &str, ctx: &mut PhoneCtx<'_>) -> Result<(), SandboxError> {
        let code: String = code.chars().filter(|c| *c != '-').map(|c| c.to_ascii_uppercase()).collect();
        if code.len() != 8 || !code.bytes().all(|byte| CODE_ALPHABET.contains(&byte)) {
            let reason = "must be 8 characters of 1-9, A-H, J-N, P-T, V-Z".to_owned();
            return Err(SandboxError::Invalid { field: "code", reason });
        }
        let hello = ctx
            .directory
            .code_hello(self.account)
            .ok_or_else(|| SandboxError::Conflict("no client asked for a code for this phone".to_owned()))?;
        let theirs = crypt_ephemeral(&code, &hello.wrapped_ephemeral)
            .ok_or_else(|| SandboxError::Conflict("the client's key is malformed".to_owned()))?;
        let ephemeral = KeyPair::generate(ctx.rng);
        let shared = ephemeral
            .private
            .diffie_hellman(&theirs)
            .ok_or_else(|| SandboxError::Conflict("the client's key is unusable".to_owned()))?;
        let mut wrapped = vec![0; 48];
        ctx.rng.fill_bytes(&mut wrapped);
        wrapped.extend(ephemeral.public.0);
        let ours = crypt_ephemeral(&code, &wrapped).expect("built with the right length");
        wrapped.truncate(48);
        wrapped.extend(ours.0);
        self.link_state = LinkState::Pending;
        self.typed_code = Some(TypedCode { reference: hello.reference.clone(), shared });
        ctx.directory.primary_hello(&hello.reference, wrapped, &self.identity.public, ctx.now)
    }

    /// The companion answered the code with its key bundle.
    pub(super) fn on_code_finish(&mut self, node: &Node, ctx: &mut PhoneCtx<'_>) {
        let Some(typed) = self.typed_code.take() else { return };
        let result = self.open_key_bundle(node, &typed).and_then(|(identity, adv_secret)| {
            self.link(typed.reference, &adv_secret, &identity, ctx).map_err(|error| error.to_string())
        });
        if let Err(reason) = result {
            self.link_state = LinkState::Failed(reason);
        }
    }

    fn open_key_bundle(&self, node: &Node, typed: &TypedCode) -> Result<(PublicKey, Vec<u8>), String> {
        let wrapped = node.find_bytes("link_code_pairing_wrapped_key_bundle").unwrap_or_default();
        let claimed = node.find_bytes("companion_identity_public").and_then(PublicKey::from_slice);
        let (salt, rest) = wrapped.split_first_chunk::<32>().ok_or("the key bundle is too short")?;
        let (iv, sealed) = rest.split_first_chunk::<12>().ok_or("the key bundle is too short")?;
        let key = derive::<32>(&typed.shared.0, Some(salt), b"link_code_pairing_key_bundle_encryption_key");
        let bundle = Aes256Gcm::new(&key.into())
            .decrypt(iv.into(), sealed)
            .map_err(|_| "the key bundle does not open: wrong code")?;
        let [companion, primary, random] = [0, 32, 64].map(|at| bundle.get(at..at + 32).unwrap_or_default());
        let companion = PublicKey::from_slice(companion).ok_or("the key bundle is too short")?;
        if primary != self.identity.public.0 || claimed != Some(companion) {
            return Err("the key bundle names other identities".to_owned());
        }
        let identity =
            self.identity.private.diffie_hellman(&companion).ok_or("the companion's identity is unusable")?;
        let secret = derive::<32>(&[&typed.shared.0, &identity.0, random].concat(), None, b"adv_secret");
        Ok((companion, secret.to_vec()))
    }

    /// Signs the companion's identity and hands the link to the service.
    fn link(
        &mut self,
        reference: String,
        adv_secret: &[u8],
        companion: &PublicKey,
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<(), SandboxError> {
        let key_index = self.next_key_index;
        let details = AdvDeviceIdentity {
            raw_id: Some(self.raw_id),
            timestamp: Some(ctx.now.unix_s()),
            key_index: Some(key_index),
            account_type: Some(0),
            device_type: Some(0),
        }
        .encode_to_vec();
        let mut signature = adv::sign_account(&self.identity, AdvType::E2ee, &details, companion, ctx.rng);
        if self.lie == LinkLie::BadAccountSignature {
            signature[10] ^= 0xff;
        }
        let signed = AdvSignedDeviceIdentity {
            details: Some(details.clone()),
            account_signature_key: Some(self.identity.public.0.to_vec()),
            account_signature: Some(signature.to_vec()),
            device_signature: None,
        }
        .encode_to_vec();
        let mut tag = adv::hmac(adv_secret, AdvType::E2ee, &signed);
        if self.lie == LinkLie::BadHmac {
            tag[0] ^= 0xff;
        }
        let device_identity = AdvSignedDeviceIdentityHmac {
            details: Some(signed),
            hmac: Some(tag.to_vec()),
            account_type: Some(0),
        }
        .encode_to_vec();
        let valid: Vec<u32> = self.companions.values().copied().chain([0, key_index]).collect();
        let key_index_list = self.key_index_list(valid, ctx);
        let request = LinkRequest {
            reference,
            device_identity,
            account_key: self.identity.public,
            details,
            key_index,
            key_index_list,
        };
        let device = ctx.directory.link(self.account, request, ctx.now)?;
        self.link_state = LinkState::Pending;
        self.next_key_index += 1;
        self.companions.insert(device, key_index);
        Ok(())
    }

    fn key_index_list(&self, mut valid: Vec<u32>, ctx: &mut PhoneCtx<'_>) -> (u64, Vec<u8>) {
        valid.sort_unstable();
        let timestamp = ctx.now.unix_s();
        let details = AdvKeyIndexList {
            raw_id: Some(self.raw_id),
            timestamp: Some(timestamp),
            current_index: Some(self.next_key_index),
            valid_indexes: valid,
            account_type: Some(0),
        }
        .encode_to_vec();
        let signature = adv::sign_key_index_list(&self.identity, &details, ctx.rng);
        let list = AdvSignedKeyIndexList {
            details: Some(details),
            account_signature: Some(signature.to_vec()),
            account_signature_key: Some(self.identity.public.0.to_vec()),
        };
        (timestamp, list.encode_to_vec())
    }
}

fn parse_qr(text: &str) -> Result<Qr, &'static str> {
    let text = text.rsplit_once('#').map_or(text, |(_, rest)| rest).trim();
    let mut parts = text.split(',');
    let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or("must have at least 4 parts");
    let (reference, noise, identity, secret) = (next()?, next()?, next()?, next()?);
    let key = |part: &str| {
        let bytes = BASE64.decode(part).map_err(|_| "a key is not base64")?;
        PublicKey::from_slice(&bytes).ok_or("a key is not 32 bytes")
    };
    Ok(Qr {
        reference: reference.to_owned(),
        noise: key(noise)?,
        identity: key(identity)?,
        adv_secret: BASE64.decode(secret).map_err(|_| "the secret is not base64")?,
    })
}

/// Opens or seals an ephemeral key: salt 32, IV 16, key 32; the cipher is its own inverse.
fn crypt_ephemeral(code: &str, wrapped: &[u8]) -> Option<PublicKey> {
    let (salt, rest) = wrapped.split_first_chunk::<32>()?;
    let (iv, key) = rest.split_first_chunk::<16>()?;
    let mut key: [u8; 32] = key.try_into().ok()?;
    let link_key = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(code.as_bytes(), salt, CODE_ITERATIONS);
    ctr::Ctr128BE::<aes::Aes256>::new(&link_key.into(), iv.into()).apply_keystream(&mut key);
    Some(PublicKey(key))
}

fn derive<const N: usize>(secret: &[u8], salt: Option<&[u8]>, info: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    Hkdf::<Sha256>::new(salt, secret).expand(info, &mut out).expect("shorter than HKDF's limit");
    out
}

const CODE_ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTVWXYZ";

/// Seen: whatsmeow `pair-code.go` @33cfac51.
const CODE_ITERATIONS: u32 = 131_072;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qr_texts_of_both_forms_are_read() {
        let key = BASE64.encode([7; 32]);
        let old = format!("2@abc,{key},{key},{key}");
        let new = format!("https://wa.me/settings/linked_devices#{old},1");
        for text in [old, new] {
            assert_eq!(parse_qr(&text).unwrap().reference, "2@abc");
        }
        assert!(parse_qr("2@abc,x").is_err());
        assert!(parse_qr(&format!("2@abc,{key},AAAA,{key}")).is_err());
    }

    #[test]
    fn an_ephemeral_key_opens_with_the_same_code_only() {
        let mut wrapped = vec![9; 80];
        let sealed = crypt_ephemeral("ABCDEFGH", &wrapped).unwrap();
        wrapped.truncate(48);
        wrapped.extend(sealed.0);
        assert_eq!(crypt_ephemeral("ABCDEFGH", &wrapped).unwrap().0, [9; 32]);
        assert_ne!(crypt_ephemeral("ABCDEFGJ", &wrapped).unwrap().0, [9; 32]);
    }
}
