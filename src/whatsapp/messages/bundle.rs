//! Prekey bundles: fetched, coalesced per device, for devices we have no session with.
//!
//! One device's error never fails the batch: the device is left out for a while, and taken off its user's list when
//! the server says it is not registered. Seen: whatsmeow `prekeys.go` @33cfac51; whatsapp-rust PR 1315 (what parallel
//! fetches for one device do); Baileys issue 2521.

use std::time::Duration;

use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::{IqError, IqKind, iq},
    jid::Jid,
    keys::PublicKey,
    messages::MessageQuery,
    signal::{Address, PreKeyBundle},
};

/// Devices per question.
const DEVICES_PER_QUERY: usize = 256;
/// How long a device without a usable bundle is left out of sends.
const LEFT_OUT: Duration = Duration::from_secs(60);

/// Reads a bundle: `<registration>`, `<identity>`, `<skey>`, optional `<key>`, in `keys` and `registration` as they
/// appear in a `<user>` of a bundle answer (both the same node) or in a retry receipt (`<keys>` and its parent).
pub(super) fn parse_bundle(keys: &Node, registration: &Node) -> Option<PreKeyBundle> {
    let signed = keys.find("skey")?;
    Some(PreKeyBundle {
        registration_id: big_endian(registration.find_bytes("registration")?)?,
        identity: PublicKey::from_slice(keys.find_bytes("identity")?)?,
        signed_prekey_id: big_endian(signed.find_bytes("id")?)?,
        signed_prekey: PublicKey::from_slice(signed.find_bytes("value")?)?,
        signed_prekey_signature: signed.find_bytes("signature")?.try_into().ok()?,
        prekey: keys.find("key").and_then(|key| {
            Some((big_endian(key.find_bytes("id")?)?, PublicKey::from_slice(key.find_bytes("value")?)?))
        }),
    })
}

/// Up to four bytes, most significant first.
fn big_endian(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() || bytes.len() > 4 {
        return None;
    }
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

impl Engine {
    /// Asks for bundles of these devices, unless a question about one is under way.
    pub(super) fn fetch_bundles(&mut self, ctx: &mut Ctx<'_>, devices: Vec<(Jid, Address)>) {
        let fetching = &mut self.messages.fetching;
        let devices: Vec<Jid> = devices
            .into_iter()
            .filter(|(_, address)| fetching.insert(address.clone()))
            .map(|(device, _)| device)
            .collect();
        for devices in devices.chunks(DEVICES_PER_QUERY) {
            let users = devices.iter().map(|device| Node::new("user").attr("jid", device));
            let ask = iq("get", "encrypt").child(Node::new("key").nodes(users));
            self.send_iq(ctx, ask, IqKind::Message(MessageQuery::Bundles(devices.to_vec())));
        }
    }

    /// Whether a device had no usable bundle a moment ago.
    pub(super) fn is_left_out(&self, address: &Address, now: Duration) -> bool {
        !self.messages.left_out.is_empty()
            && self.messages.left_out.get(address).is_some_and(|until| *until > now)
    }

    /// Answer to [`MessageQuery::Bundles`].
    pub(super) fn on_bundles(
        &mut self,
        ctx: &mut Ctx<'_>,
        devices: &[Jid],
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        let now = ctx.now.mono;
        self.messages.left_out.retain(|_, until| *until > now);
        for device in devices {
            let address = self.signal_address(ctx.store, device)?;
            self.messages.fetching.remove(&address);
            // The question may have gone out before the LID was learnt.
            self.messages.fetching.remove(&Address::from(device));
            let usable = match &answer {
                Ok(node) => self.take_bundle(ctx, device, &address, node)?,
                Err(IqError::ConnectionLost) => true,
                Err(error) => {
                    log::debug!("no prekey bundles: {error}");
                    false
                }
            };
            if !usable {
                self.messages.left_out.insert(address, now + LEFT_OUT);
            }
        }
        self.resend_after_bundles(ctx, devices)?;
        self.pump(ctx)
    }

    /// Finds and uses one device's part of the answer; false when the device cannot be reached.
    fn take_bundle(
        &mut self,
        ctx: &mut Ctx<'_>,
        device: &Jid,
        address: &Address,
        answer: &Node,
    ) -> Result<bool, EngineError> {
        let alternate = self.alternate(ctx.store, device)?;
        let list = answer.find("list").map(Node::children).unwrap_or_default();
        let user = list.iter().find(|user| {
            user.jid("jid").is_some_and(|jid| jid == *device || alternate.as_ref() == Some(&jid))
        });
        let Some(user) = user else { return Ok(false) };
        if let Some(error) = user.find("error") {
            if error.number::<u16>("code") == Some(406) {
                self.drop_device(ctx.store, device)?;
            }
            return Ok(false);
        }
        // Somebody else may have set the session up meanwhile, e.g. the peer by writing to us.
        if self.has_session(ctx.store, address)? {
            return Ok(true);
        }
        let Some(bundle) = parse_bundle(user, user) else { return Ok(false) };
        self.use_bundle(ctx, device, address, &bundle, user.find_bytes("device-identity"))
    }

    /// Checks a bundle and sets up the session; false when a check fails.
    pub(super) fn use_bundle(
        &mut self,
        ctx: &mut Ctx<'_>,
        device: &Jid,
        address: &Address,
        bundle: &PreKeyBundle,
        device_identity: Option<&[u8]>,
    ) -> Result<bool, EngineError> {
        if let Some(blob) = device_identity
            && !self.device_identity_holds(ctx.store, device, &bundle.identity, blob)?
        {
            log::warn!("a bundle is not vouched for by its account");
            return Ok(false);
        }
        if let Err(error) = self.start_session(ctx, address, bundle)? {
            log::warn!("a bundle is unusable: {error}");
            return Ok(false);
        }
        if self.note_identity(ctx.store, address, &bundle.identity)? {
            self.identity_changed(ctx, device)?;
        }
        Ok(true)
    }

    /// Whether every device either has a session or is left out; otherwise asks for the missing bundles.
    pub(super) fn sessions_ready(
        &mut self,
        ctx: &mut Ctx<'_>,
        devices: &mut Vec<(Jid, Address)>,
    ) -> Result<bool, EngineError> {
        let now = ctx.now.mono;
        let mut missing = Vec::new();
        let mut reachable = Vec::with_capacity(devices.len());
        for (device, address) in devices.drain(..) {
            if self.has_session(ctx.store, &address)? {
                reachable.push((device, address));
            } else if !self.is_left_out(&address, now) {
                missing.push((device, address));
            }
        }
        *devices = reachable;
        let ready = missing.is_empty();
        if !ready {
            self.fetch_bundles(ctx, missing);
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Node {
        let bytes = |tag: &'static str, content: &[u8]| Node::new(tag).bytes(content);
        let signed = Node::new("skey")
            .child(bytes("id", &[0, 0, 1]))
            .child(bytes("value", &[2; 32]))
            .child(bytes("signature", &[3; 64]));
        let key = Node::new("key").child(bytes("id", &[1, 2, 3])).child(bytes("value", &[4; 32]));
        Node::new("user")
            .child(bytes("registration", &[0, 0, 0x12, 0x34]))
            .child(bytes("identity", &[1; 32]))
            .child(signed)
            .child(key)
    }

    #[test]
    fn a_bundle_is_read_with_and_without_a_one_time_key() {
        let node = user();
        let bundle = parse_bundle(&node, &node).unwrap();
        assert_eq!(bundle.registration_id, 0x1234);
        assert_eq!(bundle.prekey, Some((0x01_02_03, PublicKey([4; 32]))));
        let without = Node::new("user").nodes(node.children().iter().take(3).cloned());
        assert_eq!(parse_bundle(&without, &without).unwrap().prekey, None);
    }

    #[test]
    fn a_bundle_with_a_part_missing_or_of_the_wrong_size_is_none() {
        let node = user();
        for skip in 0..3 {
            let children = node.children().iter().enumerate().filter(|(at, _)| *at != skip);
            let partial = Node::new("user").nodes(children.map(|(_, child)| child.clone()));
            assert!(parse_bundle(&partial, &partial).is_none(), "{skip}");
        }
        assert_eq!(big_endian(&[]), None);
        assert_eq!(big_endian(&[1; 5]), None);
    }
}
