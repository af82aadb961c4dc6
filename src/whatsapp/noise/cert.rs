//! The certificate chain with which the server proves its Noise key: root → intermediate → leaf.
//!
//! Only the root key is known beforehand, and it is an argument: WhatsApp's own ([`WHATSAPP_ROOT`]) or the sandbox's.
//! Issuing is here too, because the sandbox signs a real chain of its own; tests lie by issuing wrong ones.
//!
//! Seen: whatsmeow `handshake.go` `verifyServerCert` @33cfac51. Baileys accepts any signature, so it proves nothing.

use prost::Message as _;
use rand_core::CryptoRngCore;

use crate::whatsapp::{
    keys::{KeyPair, PublicKey},
    proto::{
        CertChain,
        cert_chain::{NoiseCertificate, noise_certificate::Details},
    },
    signal::curve,
};

/// WhatsApp's long-term root key ("WhatsAppLongTerm1"), in X25519 form.
pub const WHATSAPP_ROOT: PublicKey = PublicKey([
    0x14, 0x23, 0x75, 0x57, 0x4d, 0x0a, 0x58, 0x71, 0x66, 0xaa, 0xe7, 0x1e, 0xbe, 0x51, 0x64, 0x37, 0xc4,
    0xa2, 0x8b, 0x73, 0xe3, 0x69, 0x5c, 0x6c, 0xe1, 0xf7, 0xf9, 0x54, 0x5d, 0xa8, 0xee, 0x6b,
]);

/// Serial number of the root.
pub const ROOT_SERIAL: u32 = 0;

/// How far our clock may be off, in seconds, before a certificate counts as not yet valid or expired.
///
/// The server's time is only known after the handshake, and a worker with a wrong clock must still be able to
/// connect. Real certificates live for months, so one accepted a day longer is no gift to an attacker.
pub const CLOCK_SKEW_S: u64 = 24 * 60 * 60;

/// Which certificate of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Signed by the root.
    Intermediate,
    /// Signed by the intermediate; names the server's Noise key.
    Leaf,
}

/// Why a chain does not prove the server's key. All of them mean: somebody else may be in between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// Not protobuf.
    #[error("the certificate chain is malformed")]
    Malformed(#[source] prost::DecodeError),
    /// A certificate or a part of it is missing.
    #[error("{0:?} certificate: {1} missing")]
    Missing(Link, &'static str),
    /// Signed by somebody else, or changed.
    #[error("{0:?} certificate: bad signature")]
    BadSignature(Link),
    /// The issuer it names is not the one above it.
    #[error("{0:?} certificate: names another issuer")]
    WrongIssuer(Link),
    /// Its key is not 32 bytes long.
    #[error("{0:?} certificate: bad key")]
    BadKey(Link),
    /// The validity starts after `now` and the tolerance for clocks.
    #[error("{0:?} certificate: not valid yet")]
    NotYetValid(Link),
    /// The validity ended before `now` and the tolerance for clocks.
    #[error("{0:?} certificate: expired")]
    Expired(Link),
    /// The chain is sound but proves another key than the one the server used.
    #[error("the certificate is for another key")]
    OtherKey,
}

/// Checks that `chain` (an encoded `CertChain`) proves `server_static` under `root` at `now_unix_s`.
///
/// # Errors
///
/// The first check that fails, going from the root to the leaf.
pub fn verify_chain(
    chain: &[u8],
    server_static: &PublicKey,
    root: &PublicKey,
    now_unix_s: u64,
) -> Result<(), CertError> {
    let chain = CertChain::decode(chain).map_err(CertError::Malformed)?;
    let intermediate = verify(chain.intermediate, Link::Intermediate, root, ROOT_SERIAL, now_unix_s)?;
    let leaf = verify(chain.leaf, Link::Leaf, &intermediate.key, intermediate.serial, now_unix_s)?;
    if leaf.key == *server_static { Ok(()) } else { Err(CertError::OtherKey) }
}

struct Verified {
    serial: u32,
    key: PublicKey,
}

fn verify(
    certificate: Option<NoiseCertificate>,
    link: Link,
    issuer: &PublicKey,
    issuer_serial: u32,
    now_unix_s: u64,
) -> Result<Verified, CertError> {
    let certificate = certificate.ok_or(CertError::Missing(link, "certificate"))?;
    let details = certificate.details.ok_or(CertError::Missing(link, "details"))?;
    let signature = certificate.signature.ok_or(CertError::Missing(link, "signature"))?;
    if !curve::verify(issuer, &details, &signature) {
        return Err(CertError::BadSignature(link));
    }
    let details = Details::decode(details.as_slice()).map_err(CertError::Malformed)?;
    // Absent numbers are 0, as everywhere in protobuf: the root's serial is, and no time is valid until 1970.
    if details.issuer_serial() != issuer_serial {
        return Err(CertError::WrongIssuer(link));
    }
    let key = details.key().try_into().map(PublicKey).map_err(|_| CertError::BadKey(link))?;
    if now_unix_s.saturating_add(CLOCK_SKEW_S) < details.not_before() {
        return Err(CertError::NotYetValid(link));
    }
    if now_unix_s > details.not_after().saturating_add(CLOCK_SKEW_S) {
        return Err(CertError::Expired(link));
    }
    Ok(Verified { serial: details.serial(), key })
}

/// What a certificate to be issued says.
#[derive(Debug, Clone)]
pub struct CertDetails {
    /// Its own number.
    pub serial: u32,
    /// The issuer's number; the root has [`ROOT_SERIAL`].
    pub issuer_serial: u32,
    /// The key it vouches for.
    pub key: PublicKey,
    /// First valid second, Unix time.
    pub not_before: u64,
    /// Last valid second, Unix time.
    pub not_after: u64,
}

/// Signs one certificate with `issuer`, whatever it says.
pub fn issue(issuer: &KeyPair, details: &CertDetails, rng: &mut dyn CryptoRngCore) -> NoiseCertificate {
    let details = Details {
        serial: Some(details.serial),
        issuer_serial: Some(details.issuer_serial),
        key: Some(details.key.0.to_vec()),
        not_before: Some(details.not_before),
        not_after: Some(details.not_after),
    }
    .encode_to_vec();
    let signature = curve::sign(&issuer.private, &details, rng).to_vec();
    NoiseCertificate { details: Some(details), signature: Some(signature) }
}

/// Encodes a chain as the server sends it.
#[must_use]
pub fn encode_chain(intermediate: Option<NoiseCertificate>, leaf: Option<NoiseCertificate>) -> Vec<u8> {
    CertChain { leaf, intermediate }.encode_to_vec()
}

/// Issues a sound chain for a server: a fresh intermediate key, both certificates valid for the given Unix seconds.
pub fn issue_chain(
    root: &KeyPair,
    server_static: &PublicKey,
    not_before: u64,
    not_after: u64,
    rng: &mut dyn CryptoRngCore,
) -> Vec<u8> {
    let key_pair = KeyPair::generate(rng);
    let details =
        |serial, issuer_serial, key| CertDetails { serial, issuer_serial, key, not_before, not_after };
    let intermediate = issue(root, &details(1, ROOT_SERIAL, key_pair.public), rng);
    let leaf = issue(&key_pair, &details(2, 1, *server_static), rng);
    encode_chain(Some(intermediate), Some(leaf))
}

#[cfg(test)]
mod tests;
