//! The Signal side of a phone: prekeys, pairwise sessions, sender keys.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use rand_core::CryptoRngCore;

use super::{Phone, PhoneCtx};
use crate::whatsapp::{
    binary::Node,
    jid::Jid,
    keys::KeyPair,
    proto::Message,
    signal::{LocalIdentity, PreKeyBundle, PreKeySource, SenderKeyRecord, SignalError, SignedPreKeyRecord},
};

/// Our sender key in one group and who has it.
pub(super) struct OwnSenderKey {
    pub(super) record: SenderKeyRecord,
    pub(super) holders: HashSet<Jid>,
    /// Members when it was made; somebody leaving means a new key.
    pub(super) members: HashSet<Jid>,
}

struct Keys<'a> {
    prekeys: &'a HashMap<u32, KeyPair>,
    signed: &'a SignedPreKeyRecord,
}

impl PreKeySource for Keys<'_> {
    fn prekey(&self, id: u32) -> Option<KeyPair> {
        self.prekeys.get(&id).cloned()
    }

    fn signed_prekey(&self, id: u32) -> Option<KeyPair> {
        (id == self.signed.id).then(|| self.signed.pair.clone())
    }
}

impl Phone {
    /// Keeps the directory filled.
    pub(super) fn refill_prekeys(&mut self, ctx: &mut PhoneCtx<'_>) {
        if ctx.directory.own_prekeys(self.account) >= MIN_PREKEYS {
            return;
        }
        let fresh: Vec<_> = (0..PREKEY_BATCH).map(|_| self.fresh_prekey(ctx.rng)).collect();
        ctx.directory.publish(self.account, fresh);
    }

    /// A prekey that is not in the directory (yet).
    pub(super) fn fresh_prekey(
        &mut self,
        rng: &mut dyn CryptoRngCore,
    ) -> (u32, crate::whatsapp::keys::PublicKey) {
        let id = self.next_prekey;
        self.next_prekey = id % 0xff_ffff + 1;
        let pair = KeyPair::generate(rng);
        let public = pair.public;
        self.prekeys.insert(id, pair);
        (id, public)
    }

    /// Encrypts a protobuf for one device and wraps it in `<enc>`; `None` when the device has no keys.
    pub(super) fn encrypt(&mut self, device: &Jid, padded: &[u8], ctx: &mut PhoneCtx<'_>) -> Option<Node> {
        let address = ctx.directory.to_lid(device);
        if !self.sessions.get(&address).is_some_and(|session| session.has_session()) {
            let bundle = ctx.directory.bundle(device, ctx.now)?;
            self.start_session(&address, &bundle, ctx.rng).ok()?;
        }
        let local = LocalIdentity { registration_id: self.registration_id, pair: &self.identity };
        let encrypted = self.sessions.get_mut(&address)?.encrypt(&local, padded).ok()?;
        Some(enc_node(encrypted.kind.as_str(), encrypted.bytes))
    }

    /// Builds a session from a bundle; `address` is the device's LID address.
    pub(super) fn start_session(
        &mut self,
        address: &Jid,
        bundle: &PreKeyBundle,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<(), SignalError> {
        let local = LocalIdentity { registration_id: self.registration_id, pair: &self.identity };
        let mut session = self.sessions.remove(address).unwrap_or_default();
        let result = session.process_bundle(&local, bundle, rng);
        self.sessions.insert(address.clone(), session);
        result
    }

    /// Decrypts one pairwise `<enc>`.
    pub(super) fn decrypt(
        &mut self,
        sender: &Jid,
        kind: &str,
        bytes: &[u8],
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<Vec<u8>, SignalError> {
        let address = ctx.directory.to_lid(sender);
        let local = LocalIdentity { registration_id: self.registration_id, pair: &self.identity };
        let session = self.sessions.entry(address).or_default();
        let decrypted = if kind == "pkmsg" {
            let keys = Keys { prekeys: &self.prekeys, signed: &self.signed_prekey };
            session.decrypt_pkmsg(&local, bytes, &keys, ctx.rng)?
        } else {
            session.decrypt_msg(&local, bytes, ctx.rng)?
        };
        if let Some(id) = decrypted.used_prekey {
            self.prekeys.remove(&id);
            self.refill_prekeys(ctx);
        }
        unpad(decrypted.plaintext)
    }

    /// Decrypts a group `<enc>`.
    pub(super) fn decrypt_group(
        &mut self,
        group: &Jid,
        sender: &Jid,
        bytes: &[u8],
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<Vec<u8>, SignalError> {
        let key = (group.user.to_string(), ctx.directory.to_lid(sender));
        let record = self.sender_keys.get_mut(&key).ok_or(SignalError::NoSenderKey)?;
        unpad(record.decrypt(bytes)?.plaintext)
    }

    /// Takes the sender key of another device.
    pub(super) fn take_sender_key(
        &mut self,
        group: &str,
        sender: &Jid,
        distribution: &[u8],
        ctx: &mut PhoneCtx<'_>,
    ) {
        let group = group.split_once('@').map_or(group, |(user, _)| user).to_owned();
        let key = (group, ctx.directory.to_lid(sender));
        // A distribution that cannot be read shows as a message that cannot be decrypted.
        let _ = self.sender_keys.entry(key).or_default().process_distribution(distribution);
    }
}

/// `<enc v=2 type>`.
pub(super) fn enc_node(kind: &'static str, bytes: Vec<u8>) -> Node {
    Node::new("enc").attr("v", "2").attr("type", kind).bytes(bytes)
}

/// Encodes and pads: 1 to 16 bytes, each of them the count.
pub(super) fn padded(message: &Message, rng: &mut dyn CryptoRngCore) -> Vec<u8> {
    let mut byte = [0];
    rng.fill_bytes(&mut byte);
    let count = (byte[0] & 15) + 1;
    let mut bytes = message.encode_to_vec();
    bytes.resize(bytes.len() + usize::from(count), count);
    bytes
}

fn unpad(mut plaintext: Vec<u8>) -> Result<Vec<u8>, SignalError> {
    let count = plaintext.last().copied().map_or(0, usize::from);
    let length = plaintext.len().checked_sub(count).filter(|_| (1..=16).contains(&count));
    plaintext.truncate(length.ok_or(SignalError::InvalidMessage)?);
    Ok(plaintext)
}

/// Phones keep a good stock.
const MIN_PREKEYS: usize = 20;
const PREKEY_BATCH: usize = 100;
