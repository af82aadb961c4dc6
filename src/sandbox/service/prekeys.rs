//! The prekey directory: what devices publish, one-time keys handed out once, refills asked for.
//!
//! Wire shapes: protocol xmlns `encrypt`. Seen: whatsmeow `prekeys.go` @33cfac51; whatsapp-rust
//! `wacore/src/iq/prekeys.rs` (digest) @1489b7da.

use std::collections::{HashMap, VecDeque};

use sha1::{Digest as _, Sha1};

use super::{
    DeviceRef, Service,
    delivery::from_service,
    errors::{error, error_node, result},
};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::Node, ctx::Now, keys::PublicKey, proto::client_payload::DevicePairingRegistrationData,
        signal::PreKeyBundle,
    },
};

/// What one device has published.
#[derive(Debug, Clone)]
pub struct PublishedKeys {
    pub(super) registration_id: u32,
    pub(super) identity: PublicKey,
    signed_id: u32,
    signed: PublicKey,
    signature: [u8; 64],
    prekeys: VecDeque<(u32, PublicKey)>,
    /// Every one-time id ever uploaded, with the key it stood for.
    seen: HashMap<u32, PublicKey>,
    /// Encoded `ADVSignedDeviceIdentity`, for companions.
    pub(super) device_identity: Option<Vec<u8>>,
    /// Fault: hand out a broken signature.
    pub(super) false_signature: bool,
    /// The first upload came.
    uploaded: bool,
}

impl PublishedKeys {
    /// Keys without one-time prekeys.
    #[must_use]
    pub fn new(
        registration_id: u32,
        identity: PublicKey,
        signed: (u32, PublicKey),
        signature: [u8; 64],
    ) -> Self {
        Self {
            registration_id,
            identity,
            signed_id: signed.0,
            signed: signed.1,
            signature,
            prekeys: VecDeque::new(),
            seen: HashMap::new(),
            device_identity: None,
            false_signature: false,
            uploaded: false,
        }
    }

    /// From the payload of a registering companion; `None` when it is incomplete or signed wrongly.
    pub(super) fn from_registration(data: &DevicePairingRegistrationData) -> Option<Self> {
        let identity = PublicKey::from_slice(data.e_ident.as_deref()?)?;
        let signed = PublicKey::from_slice(data.e_skey_val.as_deref()?)?;
        let signature = data.e_skey_sig.as_deref()?.try_into().ok()?;
        let registration_id = u32::from_be_bytes(data.e_regid.as_deref()?.try_into().ok()?);
        let keys =
            Self::new(registration_id, identity, (number(data.e_skey_id.as_deref()?)?, signed), signature);
        keys.bundle_without_prekey().verify().ok().map(|()| keys)
    }

    /// One-time prekeys left.
    pub(super) fn count(&self) -> usize {
        self.prekeys.len()
    }

    /// Keeps only so many (a fault for tests).
    pub(super) fn truncate(&mut self, count: usize) {
        self.prekeys.truncate(count);
    }

    fn bundle_without_prekey(&self) -> PreKeyBundle {
        let mut signature = self.signature;
        if self.false_signature {
            signature[10] ^= 0xff;
        }
        PreKeyBundle {
            registration_id: self.registration_id,
            identity: self.identity,
            signed_prekey_id: self.signed_id,
            signed_prekey: self.signed,
            signed_prekey_signature: signature,
            prekey: None,
        }
    }

    /// Takes a one-time prekey out of the pool.
    fn take_bundle(&mut self) -> PreKeyBundle {
        PreKeyBundle { prekey: self.prekeys.pop_front(), ..self.bundle_without_prekey() }
    }

    /// Adds one-time prekeys; the id that was used for another key before, if any, is an objection.
    fn add(&mut self, keys: impl IntoIterator<Item = (u32, PublicKey)>) -> Option<u32> {
        let mut reused = None;
        for (id, key) in keys {
            match self.seen.insert(id, key) {
                None => self.prekeys.push_back((id, key)),
                // The same upload once more, because its answer got lost.
                Some(old) if old == key => {}
                Some(old) => {
                    self.seen.insert(id, old);
                    reused = Some(id);
                }
            }
        }
        reused
    }
}

impl Service {
    /// Publishes one-time prekeys of a phone.
    pub fn publish_phone_prekeys(&mut self, account: u32, keys: impl IntoIterator<Item = (u32, PublicKey)>) {
        if let Some(phone) = self.device_mut(DeviceRef { account, device: 0 }) {
            phone.keys.add(keys);
        }
    }

    /// One-time prekeys left of a phone.
    #[must_use]
    pub fn phone_prekeys(&self, account: u32) -> usize {
        self.device(DeviceRef { account, device: 0 }).map_or(0, |phone| phone.keys.count())
    }

    /// A bundle with a one-time prekey that nobody else gets.
    pub(super) fn take_bundle(&mut self, device: DeviceRef, now: Now) -> Option<PreKeyBundle> {
        let low = self.options.low_prekeys;
        let keys = &mut self.device_mut(device)?.keys;
        let bundle = keys.take_bundle();
        let left = keys.count();
        if device.device != 0 && (left + 1 == low || matches!(left, 0 | 2 | 4)) && left < low {
            self.ask_for_prekeys(device, now);
        }
        Some(bundle)
    }

    /// The low notification.
    pub(super) fn ask_for_prekeys(&mut self, device: DeviceRef, now: Now) {
        let count = self.device(device).map_or(0, |device| device.keys.count());
        let notification = from_service("notification")
            .attr("id", self.fresh_number().to_string())
            .attr("type", "encrypt")
            .attr("t", now.unix_s().to_string())
            .child(Node::new("count").attr("value", count.to_string()));
        self.deliver(device, notification, now);
    }

    /// IQs of xmlns `encrypt`.
    pub(super) fn on_encrypt_iq(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) {
        let answer = if iq.find("count").is_some() {
            let count = self.device(device).map_or(0, |device| device.keys.count());
            result(iq).child(Node::new("count").attr("value", count.to_string()))
        } else if iq.find("digest").is_some() {
            self.digest(device, iq)
        } else if let Some(query) = iq.find("key") {
            self.bundles(query, iq, now)
        } else if let Some(rotate) = iq.find("rotate") {
            match rotate.find("skey").and_then(parse_signed) {
                Some((id, key, signature)) => self.rotate(device, conn, iq, (id, key, signature), now),
                None => error(iq, 406),
            }
        } else if iq.find("list").is_some() {
            self.upload(device, conn, iq, now)
        } else {
            error(iq, 400)
        };
        self.send_opt(conn, answer, now);
    }

    fn digest(&self, device: DeviceRef, iq: &Node) -> Node {
        let Some(keys) = self.device(device).map(|device| &device.keys).filter(|keys| keys.uploaded) else {
            return error(iq, 404);
        };
        let mut hash = Sha1::new();
        hash.update(keys.identity.0);
        hash.update(keys.signed.0);
        hash.update(keys.signature);
        for (_, key) in &keys.prekeys {
            hash.update(key.0);
        }
        let ids = keys.prekeys.iter().map(|(id, _)| id_node(*id));
        let digest = Node::new("digest")
            .child(Node::new("registration").bytes(keys.registration_id.to_be_bytes()))
            .child(Node::new("type").bytes([5]))
            .child(Node::new("identity").bytes(keys.identity.0))
            .child(signed_node(&keys.bundle_without_prekey()))
            .child(Node::new("list").nodes(ids))
            .child(Node::new("hash").bytes(hash.finalize().to_vec()));
        result(iq).child(digest)
    }

    fn bundles(&mut self, query: &Node, iq: &Node, now: Now) -> Node {
        let mut users = Vec::new();
        for user in query.find_all("user") {
            let Some(jid) = user.jid("jid") else { return error(iq, 400) };
            let device = self.device_of(&jid);
            let identity = device
                .and_then(|device| self.device(device))
                .and_then(|device| device.keys.device_identity.clone());
            let bundle = device.and_then(|device| self.take_bundle(device, now));
            let node = Node::new("user").attr("jid", &jid);
            users.push(match bundle {
                Some(bundle) => bundle_node(node, &bundle)
                    .child_opt(identity.map(|bytes| Node::new("device-identity").bytes(bytes))),
                None => node.child(error_node(406)),
            });
        }
        result(iq).child(Node::new("list").nodes(users))
    }

    fn rotate(
        &mut self,
        device: DeviceRef,
        conn: Option<ConnId>,
        iq: &Node,
        signed: (u32, PublicKey, [u8; 64]),
        now: Now,
    ) -> Node {
        let Some(keys) = self.device_mut(device).map(|device| &mut device.keys) else {
            return error(iq, 404);
        };
        let old = (keys.signed_id, keys.signed, keys.signature);
        (keys.signed_id, keys.signed, keys.signature) = signed;
        if keys.bundle_without_prekey().verify().is_err() && !keys.false_signature {
            (keys.signed_id, keys.signed, keys.signature) = old;
            self.violate_opt(conn, now, "signed-prekey", "the signature of the signed prekey is false", iq);
            return error(iq, 406);
        }
        result(iq)
    }

    fn upload(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) -> Node {
        let Some(known) = self.device(device) else { return error(iq, 404) };
        let (registration_id, identity) = (known.keys.registration_id, known.keys.identity);
        let list = iq.find("list").map(Node::children).unwrap_or_default();
        let keys: Vec<_> = list.iter().filter_map(parse_prekey).collect();
        let complaint = if iq.find_bytes("type") != Some(&[5]) {
            Some("the key type is not 5")
        } else if iq.find_bytes("identity") != Some(&identity.0) {
            Some("the identity is not the one of this device")
        } else if iq.find_bytes("registration") != Some(&registration_id.to_be_bytes()) {
            Some("the registration id is not the one of this device")
        } else if keys.len() != list.len() || keys.is_empty() {
            Some("a prekey is not a 24-bit id above 0 with a 32-byte value")
        } else {
            None
        };
        let signed = iq.find("skey").and_then(parse_signed);
        let (Some(signed), None) = (signed, complaint) else {
            let detail = complaint.unwrap_or("the signed prekey is incomplete");
            self.violate_opt(conn, now, "prekey-upload", detail, iq);
            return error(iq, 406);
        };
        let answer = self.rotate(device, conn, iq, signed, now);
        if answer.has("type", "error") {
            return answer;
        }
        let Some(target) = self.device_mut(device) else { return error(iq, 404) };
        let first = !std::mem::replace(&mut target.keys.uploaded, true);
        if let Some(id) = target.keys.add(keys) {
            let detail = format!("prekey id {id} stood for another key before");
            self.violate_opt(conn, now, "prekey-reused", detail, iq);
            return error(iq, 406);
        }
        if first {
            self.tell_phone_ready(device);
        }
        answer
    }
}

fn id_node(id: u32) -> Node {
    let [_, id @ ..] = id.to_be_bytes();
    Node::new("id").bytes(id)
}

fn signed_node(bundle: &PreKeyBundle) -> Node {
    Node::new("skey")
        .child(id_node(bundle.signed_prekey_id))
        .child(Node::new("value").bytes(bundle.signed_prekey.0))
        .child(Node::new("signature").bytes(bundle.signed_prekey_signature))
}

fn bundle_node(user: Node, bundle: &PreKeyBundle) -> Node {
    let prekey = bundle
        .prekey
        .map(|(id, key)| Node::new("key").child(id_node(id)).child(Node::new("value").bytes(key.0)));
    user.child(Node::new("registration").bytes(bundle.registration_id.to_be_bytes()))
        .child(Node::new("type").bytes([5]))
        .child(Node::new("identity").bytes(bundle.identity.0))
        .child(signed_node(bundle))
        .child_opt(prekey)
}

/// Big-endian number of up to four bytes.
fn number(bytes: &[u8]) -> Option<u32> {
    (bytes.len() <= 4).then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

/// `<key><id/><value/></key>`.
pub(in crate::sandbox) fn parse_prekey(node: &Node) -> Option<(u32, PublicKey)> {
    let id = node.find_bytes("id").filter(|bytes| bytes.len() == 3).and_then(number)?;
    let value = node.find_bytes("value").filter(|bytes| bytes.len() == 32)?;
    (id != 0).then_some((id, PublicKey::from_slice(value)?))
}

/// `<skey><id/><value/><signature/></skey>`.
pub(in crate::sandbox) fn parse_signed(node: &Node) -> Option<(u32, PublicKey, [u8; 64])> {
    let id = node.find_bytes("id").filter(|bytes| bytes.len() == 3).and_then(number)?;
    let value = node.find_bytes("value").filter(|bytes| bytes.len() == 32)?;
    Some((id, PublicKey::from_slice(value)?, node.find_bytes("signature")?.try_into().ok()?))
}
