//! Linking by a code that is typed on the phone, in three stages (`link_code_companion_reg`).
//!
//! 1. `companion_hello`: our ephemeral key, encrypted under the code, goes to the server; its reply names the attempt.
//! 2. `primary_hello`: the phone, which now knows the code, sends its ephemeral and identity keys.
//! 3. `companion_finish`: our identity key goes back, and both sides derive the ADV secret. A pair-success follows.
//!
//! Seen: whatsmeow `pair-code.go` @33cfac51; whatsapp-rust `wacore/src/pair_code.rs` @1489b7da.

use aes::cipher::{KeyIvInit, StreamCipher};
use aes_gcm::{Aes256Gcm, KeyInit, aead::Aead};
use hkdf::Hkdf;
use rand_core::CryptoRngCore;
use sha2::Sha256;
use zeroize::Zeroize;

use super::{Credentials, qr::CLIENT_TYPE};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::Engine,
    iq::{IqError, IqKind, iq},
    jid::Jid,
    keys::{KeyPair, PublicKey},
    limits::{PAIR_CODE_LIFETIME, PAIR_CODE_ROUNDS},
    model::{CommandError, CommandId, Reply},
    timers::Timer,
};

/// One attempt to link by code.
#[derive(Debug)]
pub(super) struct CodePairing {
    /// Eight characters, without the dash.
    code: String,
    phone: Jid,
    ephemeral: KeyPair,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Stage 1 is out.
    Requested,
    /// The code can be typed; the server's name for the attempt.
    Shown(Vec<u8>),
    /// Stage 3 is out: the ADV secret is the one of this attempt.
    Finishing,
}

impl CodePairing {
    /// Whether the caller has the code.
    pub(super) fn is_shown(&self) -> bool {
        self.stage != Stage::Requested
    }

    /// Whether the phone has answered.
    pub(super) fn is_finishing(&self) -> bool {
        self.stage == Stage::Finishing
    }
}

impl Drop for CodePairing {
    fn drop(&mut self) {
        self.code.zeroize();
    }
}

impl Engine {
    /// `Command::PairCode`: at once when the server is ready to pair, else as soon as it is.
    pub(in crate::whatsapp) fn on_pair_code(&mut self, ctx: &mut Ctx<'_>, id: CommandId, phone: String) {
        if self.is_linked() {
            self.reply_failed(id, CommandError::WrongState("the session is linked already"));
        } else if !(7..=15).contains(&phone.len()) || !phone.bytes().all(|byte| byte.is_ascii_digit()) {
            let why = "the phone number must be 7 to 15 digits in international form";
            self.reply_failed(id, CommandError::Invalid(why.to_owned()));
        } else if self.is_pairing() {
            self.request_code(ctx, id, phone);
        } else if let Some((earlier, _)) = self.pairing.wanted.replace((id, phone)) {
            self.reply_failed(earlier, CommandError::WrongState("another pairing code was asked for"));
        }
    }

    /// Stage 1.
    pub(super) fn request_code(&mut self, ctx: &mut Ctx<'_>, id: CommandId, phone: String) {
        let busy = self.pairing.code.as_ref().is_some_and(|code| !matches!(code.stage, Stage::Shown(_)));
        let (false, Some(credentials)) = (busy || self.pairing.passkey, &self.credentials) else {
            self.reply_failed(id, CommandError::WrongState("another way of linking is under way"));
            return;
        };
        let noise = credentials.noise.public;
        let attempt = CodePairing {
            code: random_code(ctx.rng),
            phone: Jid::pn(phone),
            ephemeral: KeyPair::generate(ctx.rng),
            stage: Stage::Requested,
        };
        let wrapped = wrap_public(&attempt.code, &attempt.ephemeral.public, ctx.rng);
        let hello = Node::new("link_code_companion_reg")
            .attr("jid", &attempt.phone)
            .attr("stage", "companion_hello")
            .attr("should_show_push_notification", "true")
            .child(Node::new("link_code_pairing_wrapped_companion_ephemeral_pub").bytes(wrapped))
            .child(Node::new("companion_server_auth_key_pub").bytes(noise.0))
            .child(Node::new("companion_platform_id").bytes(CLIENT_TYPE))
            .child(Node::new("companion_platform_display").bytes(PLATFORM_DISPLAY))
            .child(Node::new("link_code_pairing_nonce").bytes("0"));
        self.pairing.code = Some(attempt);
        self.send_iq(ctx, iq("set", "md").child(hello), IqKind::PairCode(id));
    }

    /// The server's answer to stage 1; only now is the code worth showing.
    pub(in crate::whatsapp) fn on_pair_code_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: CommandId,
        outcome: Result<&Node, IqError>,
    ) {
        let reference = outcome.map_err(|error| error.to_command_error()).and_then(|answer| {
            let reg = answer.find("link_code_companion_reg");
            let reference = reg.and_then(|reg| reg.find_bytes("link_code_pairing_ref"));
            reference.map(<[u8]>::to_vec).ok_or(CommandError::Refused {
                code: 500,
                reason: "the server accepted the number but sent no reference",
            })
        });
        match (reference, self.pairing.code.as_mut()) {
            (Ok(reference), Some(attempt)) => {
                attempt.stage = Stage::Shown(reference);
                let code = dashed(&attempt.code);
                // The code takes the place of the QR, and its life that of the QR's.
                self.pairing.shown = None;
                self.arm(Timer::Qr, ctx.now.mono + PAIR_CODE_LIFETIME);
                self.reply(id, Reply::PairCode { code, expires_in: PAIR_CODE_LIFETIME });
            }
            (Ok(_), None) => self.reply_failed(id, CommandError::ConnectionLost),
            (Err(error), _) => {
                self.pairing.code = None;
                self.reply_failed(id, error);
            }
        }
    }

    /// Stage 2 and, in answer to it, stage 3.
    pub(in crate::whatsapp) fn on_link_code_notification(&mut self, ctx: &mut Ctx<'_>, node: &Node) {
        let reg = node.find("link_code_companion_reg").unwrap_or(node);
        if !reg.has("stage", "primary_hello") {
            log::debug!("passed over a stage of linking by code");
            return;
        }
        let (Some(attempt), Some(credentials)) = (self.pairing.code.as_mut(), self.credentials.as_mut())
        else {
            log::warn!("a phone answered a code that was not asked for");
            return;
        };
        let Some(finish) = finish(attempt, credentials, reg, ctx) else {
            log::warn!("the phone's answer to the pairing code cannot be used: {node}");
            return;
        };
        attempt.stage = Stage::Finishing;
        // The secret is durable before the phone can learn it.
        self.save_credentials();
        self.send_iq(ctx, iq("set", "md").child(finish), IqKind::PairCodeFinish);
    }

    /// The server's answer to stage 3. A refusal leaves the attempt to its timer: the phone shows what went wrong.
    pub(in crate::whatsapp) fn on_pair_code_finished(&mut self, outcome: Result<&Node, IqError>) {
        if let Err(error) = outcome {
            log::warn!("linking by code failed at its end: {error}");
        }
    }
}

/// Stage 3 from stage 2: derives the ADV secret into `credentials` and builds `companion_finish`.
/// `None` when something is missing, malformed or about another attempt.
fn finish(
    attempt: &CodePairing,
    credentials: &mut Credentials,
    reg: &Node,
    ctx: &mut Ctx<'_>,
) -> Option<Node> {
    let Stage::Shown(reference) = &attempt.stage else {
        return None;
    };
    if reg.find_bytes("link_code_pairing_ref")? != reference.as_slice() {
        return None;
    }
    let primary_identity = raw_key(reg.find_bytes("primary_identity_pub")?)?;
    let wrapped = reg.find_bytes("link_code_pairing_wrapped_primary_ephemeral_pub")?;
    let primary_ephemeral = unwrap_public(&attempt.code, wrapped)?;
    let shared = attempt.ephemeral.private.diffie_hellman(&primary_ephemeral)?;
    let identity_shared = credentials.identity.private.diffie_hellman(&primary_identity)?;

    let (mut random, mut salt, mut iv) = ([0u8; 32], [0u8; 32], [0u8; 12]);
    ctx.rng.fill_bytes(&mut random);
    ctx.rng.fill_bytes(&mut salt);
    ctx.rng.fill_bytes(&mut iv);
    let mut key = [0u8; 32];
    expand(Some(&salt), &shared.0, b"link_code_pairing_key_bundle_encryption_key", &mut key);
    let bundle = [credentials.identity.public.0, primary_identity.0, random].concat();
    let sealed = Aes256Gcm::new(&key.into())
        .encrypt(&iv.into(), bundle.as_slice())
        .expect("96 bytes are below the limit of AES-GCM");
    let wrapped = [&salt[..], &iv, &sealed].concat();
    let mut secret = [shared.0, identity_shared.0, random].concat();
    expand(None, &secret, b"adv_secret", &mut credentials.adv_secret);
    secret.zeroize();
    key.zeroize();

    let reg = Node::new("link_code_companion_reg")
        .attr("jid", &attempt.phone)
        .attr("stage", "companion_finish")
        .child(Node::new("link_code_pairing_wrapped_key_bundle").bytes(wrapped))
        .child(Node::new("companion_identity_public").bytes(credentials.identity.public.0))
        .child(Node::new("link_code_pairing_ref").bytes(reference.clone()));
    Some(reg)
}

fn random_code(rng: &mut dyn CryptoRngCore) -> String {
    let mut random = [0u8; 5];
    rng.fill_bytes(&mut random);
    let bits = random.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..8)
        .rev()
        .filter_map(|place| ALPHABET.get((bits >> (place * 5) & 31) as usize))
        .map(|letter| char::from(*letter))
        .collect()
}

/// `XXXX-XXXX`, as the phone shows its input field.
fn dashed(code: &str) -> String {
    match code.split_at_checked(4) {
        Some((left, right)) => format!("{left}-{right}"),
        None => code.to_owned(),
    }
}

/// `salt32 || iv16 || AES-256-CTR(PBKDF2(code, salt), iv, key)`.
fn wrap_public(code: &str, key: &PublicKey, rng: &mut dyn CryptoRngCore) -> Vec<u8> {
    let mut out = vec![0u8; 48];
    rng.fill_bytes(&mut out);
    let mut body = key.0;
    let (salt, iv) = out.split_at(32);
    apply_code(code, salt, iv, &mut body);
    out.extend(body);
    out
}

/// The reverse of [`wrap_public`]; `None` for the wrong length. A wrong code gives a wrong key, not an error.
fn unwrap_public(code: &str, wrapped: &[u8]) -> Option<PublicKey> {
    let (salt, rest) = wrapped.split_at_checked(32)?;
    let (iv, body) = rest.split_at_checked(16)?;
    let mut body: [u8; 32] = body.try_into().ok()?;
    apply_code(code, salt, iv, &mut body);
    Some(PublicKey(body))
}

fn apply_code(code: &str, salt: &[u8], iv: &[u8], body: &mut [u8; 32]) {
    let mut key = [0u8; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(code.as_bytes(), salt, PAIR_CODE_ROUNDS, &mut key);
    ctr::Ctr128BE::<aes::Aes256>::new_from_slices(&key, iv)
        .expect("the key has 32 bytes and the iv 16")
        .apply_keystream(body);
    key.zeroize();
}

fn expand(salt: Option<&[u8]>, secret: &[u8], info: &[u8], out: &mut [u8; 32]) {
    Hkdf::<Sha256>::new(salt, secret).expand(info, out).expect("32 bytes are a valid HKDF output");
}

fn raw_key(bytes: &[u8]) -> Option<PublicKey> {
    bytes.try_into().ok().map(PublicKey)
}

/// Base 32 without the letters and digits that look alike.
const ALPHABET: &[u8; 32] = b"123456789ABCDEFGHJKLMNPQRSTVWXYZ";

/// The server accepts `<browser> (<operating system>)` only, with real names.
const PLATFORM_DISPLAY: &str = "Chrome (Linux)";

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn codes_have_eight_letters_of_the_alphabet_and_a_dash_in_the_middle() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for _ in 0..50 {
            let code = random_code(&mut rng);
            assert_eq!(code.len(), 8);
            assert!(code.bytes().all(|letter| ALPHABET.contains(&letter)), "{code}");
        }
        assert_eq!(dashed("ABCDEFGH"), "ABCD-EFGH");
    }

    #[test]
    fn only_the_right_code_unwraps_a_key() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let key = KeyPair::generate(&mut rng).public;
        let wrapped = wrap_public("ABCDEFGH", &key, &mut rng);
        assert_eq!(wrapped.len(), 80);
        assert_eq!(unwrap_public("ABCDEFGH", &wrapped), Some(key));
        assert_ne!(unwrap_public("ABCDEFGJ", &wrapped), Some(key));
        assert_eq!(unwrap_public("ABCDEFGH", &wrapped[..79]), None);
        assert_eq!(unwrap_public("ABCDEFGH", &[]), None);
    }
}
