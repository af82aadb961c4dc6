//! Linking a device: QR references, pairing codes, `pair-success`, and unlinking.
//!
//! The phone does the cryptography; the service brokers between it and the new companion.
//! Seen: whatsmeow `pair.go`, `pair-code.go` @33cfac51; Baileys `Socket/socket.js` @7.0.0-rc14.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use prost::Message as _;

use super::{
    DeviceRef, Service, ServiceOutput,
    account::Device,
    delivery::from_service,
    errors::{error, result},
    prekeys::PublishedKeys,
};
use crate::{
    sandbox::world::{ConnId, SandboxError},
    whatsapp::{
        binary::Node,
        ctx::Now,
        keys::PublicKey,
        proto::{AdvSignedDeviceIdentity, ClientPairingProps, client_payload::DevicePairingRegistrationData},
        signal::adv::{self, AdvType},
    },
};

/// A connection that wants to become a device.
pub(super) struct Registering {
    pub(super) refs: Vec<String>,
    keys: PublishedKeys,
    noise_static: PublicKey,
    /// Pairing by code: what `companion_hello` said.
    code: Option<CodePairing>,
    /// `pair-success` is sent, its answer awaited.
    pending: Option<Pending>,
}

struct CodePairing {
    account: u32,
    reference: String,
    wrapped_ephemeral: Vec<u8>,
}

struct Pending {
    iq: String,
    device: DeviceRef,
    request: LinkRequest,
}

/// What the phone hands in to link the companion behind `reference`.
#[derive(Debug, Clone)]
pub struct LinkRequest {
    /// The QR reference or the pairing-code reference.
    pub reference: String,
    /// Encoded `ADVSignedDeviceIdentityHMAC`.
    pub device_identity: Vec<u8>,
    /// The account's key, which must have signed the device.
    pub account_key: PublicKey,
    /// The signed details, to check the companion's answer.
    pub details: Vec<u8>,
    /// Position in the key index list.
    pub key_index: u32,
    /// Encoded `ADVSignedKeyIndexList` that contains the device, and its time.
    pub key_index_list: (u64, Vec<u8>),
}

/// A companion that asked for linking by code.
#[derive(Debug, Clone)]
pub struct CodeHello {
    /// Its reference.
    pub reference: String,
    /// Salt, IV and encrypted ephemeral key: 80 bytes.
    pub wrapped_ephemeral: Vec<u8>,
}

/// Which companion is behind a reference.
#[derive(Debug, Clone)]
pub struct LinkedDevice {
    /// Its identity key.
    pub identity: PublicKey,
    /// Its Noise key.
    pub noise_static: PublicKey,
}

impl Service {
    pub(super) fn start_registration(
        &mut self,
        conn: ConnId,
        data: &DevicePairingRegistrationData,
        noise_static: PublicKey,
        now: Now,
    ) {
        let Some(keys) = PublishedKeys::from_registration(data) else {
            return self.fail(conn, 400, now);
        };
        let mut refs = Vec::new();
        for _ in 0..REFS {
            let reference = format!("2@{}", BASE64.encode(self.random_bytes::<48>()));
            self.refs.insert(reference.clone(), conn);
            refs.push(reference);
        }
        let children = refs.iter().map(|text| Node::new("ref").bytes(text.clone().into_bytes()));
        let iq = from_service("iq")
            .attr("id", self.fresh_number().to_string())
            .attr("type", "set")
            .attr("xmlns", "md")
            .child(Node::new("pair-device").nodes(children));
        if let Some(state) = self.conns.get_mut(&conn) {
            state.registering =
                Some(Box::new(Registering { refs, keys, noise_static, code: None, pending: None }));
        }
        self.send(conn, iq, now);
    }

    /// A stanza on a connection that is not logged in.
    pub(super) fn handle_unregistered_node(&mut self, conn: ConnId, node: &Node, now: Now) {
        match (&*node.tag, node.get("type").as_deref()) {
            ("iq", Some("result" | "error")) => self.on_registration_answer(conn, node, now),
            ("iq", _) if node.has("xmlns", "w:p") => self.send(conn, result(node), now),
            ("iq", _) if node.find("link_code_companion_reg").is_some() => {
                self.on_code_stage(conn, node, now)
            }
            ("ack" | "ib" | "presence", _) => {}
            _ => self.violate(conn, now, "not-logged-in", "this stanza needs a login", node),
        }
    }

    fn registering(&mut self, conn: ConnId) -> Option<&mut Registering> {
        self.conns.get_mut(&conn)?.registering.as_deref_mut()
    }

    /// The companion behind a reference, for the phone that scanned or typed it.
    #[must_use]
    pub fn companion(&self, reference: &str) -> Option<LinkedDevice> {
        let conn = self.refs.get(reference)?;
        let registering = self.conns.get(conn)?.registering.as_deref()?;
        Some(LinkedDevice { identity: registering.keys.identity, noise_static: registering.noise_static })
    }

    /// Links the companion behind a reference to an account: sends it `pair-success`. Gives back the device index.
    ///
    /// # Errors
    /// [`SandboxError::Conflict`] when the reference is not valid (any more) or the account has too many devices.
    pub fn link(&mut self, account: u32, request: LinkRequest, now: Now) -> Result<u16, SandboxError> {
        let gone = || SandboxError::Conflict("nobody waits with this code".to_owned());
        let conn = *self.refs.get(&request.reference).ok_or_else(gone)?;
        if self.account(account).devices.len() > MAX_COMPANIONS {
            return Err(SandboxError::Conflict("this phone has its maximum of linked devices".to_owned()));
        }
        if self.options.require_passkey {
            self.ask_for_passkey(conn, now);
            let reason = "this account needs a passkey: continue on your other device";
            return Err(SandboxError::Conflict(reason.to_owned()));
        }
        let device = DeviceRef { account, device: self.account(account).next_device };
        let iq = self.fresh_number().to_string();
        let props = ClientPairingProps {
            is_chat_db_lid_migrated: Some(self.account(account).lid_migrated),
            is_syncd_pure_lid_session: Some(self.account(account).lid_migrated),
            ..ClientPairingProps::default()
        };
        let success = Node::new("pair-success")
            .child(Node::new("device-identity").bytes(request.device_identity.clone()))
            .child(
                Node::new("device")
                    .attr("jid", self.device_jid(device, false))
                    .attr("lid", self.device_jid(device, true)),
            )
            .child(Node::new("platform").attr("name", "android"))
            .child(Node::new("client-props").bytes(props.encode_to_vec()));
        let node = from_service("iq")
            .attr("id", iq.clone())
            .attr("type", "set")
            .attr("xmlns", "md")
            .attr("t", now.unix_s().to_string())
            .child(success);
        let registering = self.registering(conn).filter(|known| known.pending.is_none()).ok_or_else(gone)?;
        registering.pending = Some(Pending { iq, device, request });
        self.account_mut(account).next_device += 1;
        self.send(conn, node, now);
        Ok(device.device)
    }

    /// Seen: whatsmeow `pair-passkey.go` @33cfac51.
    fn ask_for_passkey(&mut self, conn: ConnId, now: Now) {
        let options = r#"{"challenge":"c2FuZGJveA","rpId":"whatsapp.com","userVerification":"required"}"#;
        let notification = from_service("notification")
            .attr("id", self.fresh_number().to_string())
            .attr("type", "passkey_prologue_request")
            .attr("t", now.unix_s().to_string())
            .child(Node::new("passkey_request_options").bytes(options.as_bytes()));
        self.send(conn, notification, now);
    }

    fn on_registration_answer(&mut self, conn: ConnId, node: &Node, now: Now) {
        let id = node.get("id").unwrap_or_default().into_owned();
        let Some(registering) = self.registering(conn) else { return };
        let Some(pending) = registering.pending.take_if(|pending| pending.iq == id) else {
            return;
        };
        if node.has("type", "error") {
            let detail = "the companion refused to be linked";
            self.tell_phone_link_failed(pending.device.account, detail);
            return self.close(conn);
        }
        match check_device_sign(node, &pending, &registering.keys.identity) {
            Ok(identity) => registering.keys.device_identity = Some(identity),
            Err(detail) => {
                self.violate(conn, now, "pair-device-sign", detail, node);
                self.tell_phone_link_failed(pending.device.account, detail);
                return self.end_stream(conn, Some(401), None, now);
            }
        }
        let Some(registering) = self.conns.get_mut(&conn).and_then(|state| state.registering.take()) else {
            return;
        };
        for reference in &registering.refs {
            self.refs.remove(reference);
        }
        self.add_device(pending, *registering, now);
        self.end_stream(conn, Some(515), None, now);
    }

    fn add_device(&mut self, pending: Pending, registering: Registering, now: Now) {
        let Pending { device, request, .. } = pending;
        let entry = Device::new(registering.keys, request.key_index, Some(registering.noise_static));
        let account = self.account_mut(device.account);
        account.key_index_list = Some(request.key_index_list);
        account.devices.insert(device.device, entry);
        self.devices_changed(device, true, now);
        let told = Node::new("sandbox:linked").attr("device", device.device.to_string());
        self.outputs.push_back(ServiceOutput::Phone(device.account, told.into()));
    }

    fn tell_phone_link_failed(&mut self, account: u32, detail: &'static str) {
        let told = Node::new("sandbox:link-failed").attr("reason", detail);
        self.outputs.push_back(ServiceOutput::Phone(account, told.into()));
    }

    /// Unlinks a device: ends its stream and forgets it.
    pub fn remove_device(&mut self, device: DeviceRef, now: Now) {
        let Some(removed) = self.account_mut(device.account).devices.remove(&device.device) else { return };
        self.account_mut(device.account).removed.insert(device.device);
        let told = Node::new("sandbox:unlinked").attr("device", device.device.to_string());
        self.outputs.push_back(ServiceOutput::Phone(device.account, told.into()));
        self.devices_changed(device, false, now);
        if let Some(conn) = removed.conn {
            let conflict = Node::new("conflict").attr("type", "device_removed");
            self.end_stream(conn, Some(401), Some(conflict), now);
        }
    }

    /// `remove-companion-device`: a companion logs itself (or a sibling) out.
    pub(super) fn on_remove_companion(
        &mut self,
        device: DeviceRef,
        conn: Option<ConnId>,
        node: &Node,
        now: Now,
    ) {
        let target = node.find("remove-companion-device").and_then(|child| child.jid("jid"));
        let target = target.and_then(|jid| self.device_of(&jid));
        match target.filter(|target| target.account == device.account && target.device != 0) {
            Some(target) => {
                self.send_opt(conn, result(node), now);
                self.remove_device(target, now);
            }
            None => self.send_opt(conn, error(node, 400), now),
        }
    }

    /// `companion_hello` and `companion_finish` of pairing by code.
    fn on_code_stage(&mut self, conn: ConnId, node: &Node, now: Now) {
        let Some(stage) = node.find("link_code_companion_reg") else { return };
        let account = stage.jid("jid").and_then(|jid| self.account_of(&jid));
        match (stage.get("stage").as_deref(), account) {
            (Some("companion_hello"), Some(account)) => self.on_code_hello(conn, account, node, stage, now),
            (Some("companion_finish"), Some(account)) => {
                let mut told = Node::new("sandbox:code-finish");
                for key in ["link_code_pairing_wrapped_key_bundle", "companion_identity_public"] {
                    let bytes = stage.find_bytes(key).unwrap_or_default();
                    told = told.child(Node::new(key).bytes(bytes));
                }
                let known = self.registering(conn).and_then(|known| known.code.as_ref());
                if !known.is_some_and(|code| {
                    Some(code.reference.as_bytes()) == stage.find_bytes("link_code_pairing_ref")
                }) {
                    self.violate(
                        conn,
                        now,
                        "link-code-ref",
                        "companion_finish names another reference",
                        node,
                    );
                    return self.send(conn, error(node, 400), now);
                }
                self.outputs.push_back(ServiceOutput::Phone(account, told.into()));
                self.send(conn, result(node), now);
            }
            _ => self.send(conn, error(node, 400), now),
        }
    }

    fn on_code_hello(&mut self, conn: ConnId, account: u32, node: &Node, stage: &Node, now: Now) {
        let wrapped = stage.find_bytes("link_code_pairing_wrapped_companion_ephemeral_pub");
        let display = stage.find("companion_platform_display").and_then(Node::content_text);
        let platform = stage.find("companion_platform_id").and_then(Node::content_text);
        let noise = stage.find_bytes("companion_server_auth_key_pub").and_then(PublicKey::from_slice);
        let mut reason = None;
        if wrapped.is_none_or(|bytes| bytes.len() != WRAPPED_LEN) {
            reason = Some("the wrapped ephemeral key is not 80 bytes");
        } else if !display.is_some_and(is_platform_display) {
            reason = Some("companion_platform_display must look like `Chrome (Linux)`");
        } else if !platform.is_some_and(|id| matches!(id, "1" | "2" | "3" | "4" | "5" | "6")) {
            reason = Some("companion_platform_id must be 1 to 6");
        }
        let reference = format!("{}@{}", self.fresh_number(), BASE64.encode(self.random_bytes::<24>()));
        let wrapped = wrapped.unwrap_or_default().to_vec();
        let Some(registering) = self.registering(conn) else { return };
        if noise != Some(registering.noise_static) {
            reason = Some("companion_server_auth_key_pub is not the key of this connection");
        }
        if let Some(reason) = reason {
            self.violate(conn, now, "companion-hello", reason, node);
            return self.send(conn, error(node, 400), now);
        }
        if let Some(old) = &registering.code {
            let old = old.reference.clone();
            registering.refs.retain(|known| *known != old);
            self.refs.remove(&old);
        }
        if let Some(registering) = self.registering(conn) {
            registering.refs.push(reference.clone());
            registering.code =
                Some(CodePairing { account, reference: reference.clone(), wrapped_ephemeral: wrapped });
        }
        self.refs.insert(reference.clone(), conn);
        let answer = Node::new("link_code_companion_reg")
            .attr("stage", "companion_hello")
            .child(Node::new("link_code_pairing_ref").bytes(reference.into_bytes()));
        self.send(conn, result(node).child(answer), now);
    }

    /// The latest companion that asked to be linked to this account by code.
    #[must_use]
    pub fn code_hello(&self, account: u32) -> Option<CodeHello> {
        let waiting = self.conns.iter().filter_map(|(conn, state)| {
            let code = state.registering.as_deref()?.code.as_ref()?;
            (code.account == account).then_some((conn, code))
        });
        let (_, code) = waiting.max_by_key(|(conn, _)| **conn)?;
        Some(CodeHello {
            reference: code.reference.clone(),
            wrapped_ephemeral: code.wrapped_ephemeral.clone(),
        })
    }

    /// The phone's answer to a pairing code: tells the companion.
    ///
    /// # Errors
    /// [`SandboxError::Conflict`] when the companion is gone.
    pub fn primary_hello(
        &mut self,
        reference: &str,
        wrapped_ephemeral: Vec<u8>,
        identity: &PublicKey,
        now: Now,
    ) -> Result<(), SandboxError> {
        let conn = *self
            .refs
            .get(reference)
            .ok_or_else(|| SandboxError::Conflict("the companion is gone".to_owned()))?;
        let stage = Node::new("link_code_companion_reg")
            .attr("stage", "primary_hello")
            .child(Node::new("link_code_pairing_wrapped_primary_ephemeral_pub").bytes(wrapped_ephemeral))
            .child(Node::new("primary_identity_pub").bytes(identity.0))
            .child(Node::new("link_code_pairing_ref").bytes(reference.as_bytes()));
        let notification = from_service("notification")
            .attr("id", self.fresh_number().to_string())
            .attr("type", "link_code_companion_reg")
            .attr("t", now.unix_s().to_string())
            .child(stage);
        self.send(conn, notification, now);
        Ok(())
    }
}

/// Gives back the complete device identity, as it goes into bundles.
fn check_device_sign(node: &Node, pending: &Pending, identity: &PublicKey) -> Result<Vec<u8>, &'static str> {
    let sign = node.find("pair-device-sign").and_then(|sign| sign.find("device-identity"));
    let sign = sign.ok_or("pair-device-sign with device-identity is missing")?;
    if sign.number("key-index") != Some(pending.request.key_index) {
        return Err("key-index is not the one of the device identity");
    }
    let bytes = sign.content_bytes().ok_or("device-identity is empty")?;
    let signed = AdvSignedDeviceIdentity::decode(bytes)
        .map_err(|_| "device-identity is not an ADVSignedDeviceIdentity")?;
    let details = signed.details.as_deref().unwrap_or_default();
    if details != pending.request.details {
        return Err("the details are not the ones the phone signed");
    }
    let signature = signed.device_signature.as_deref().ok_or("the device signature is missing")?;
    let account = &pending.request.account_key;
    if !adv::verify_device_signature(identity, AdvType::E2ee, details, account, signature) {
        return Err("the device signature is false");
    }
    Ok(AdvSignedDeviceIdentity { account_signature_key: Some(account.0.to_vec()), ..signed }.encode_to_vec())
}

/// `<Browser> (<OS>)`. Seen: Baileys PR 2769, whatsapp-rust PR 979: anything else is answered 400.
fn is_platform_display(text: &str) -> bool {
    const BROWSERS: [&str; 6] = ["Chrome", "Edge", "Firefox", "IE", "Opera", "Safari"];
    const SYSTEMS: [&str; 6] = ["Linux", "Windows", "Mac OS", "Ubuntu", "Android", "iOS"];
    text.split_once(" (")
        .and_then(|(browser, system)| Some((browser, system.strip_suffix(')')?)))
        .is_some_and(|(browser, system)| BROWSERS.contains(&browser) && SYSTEMS.contains(&system))
}

/// As many as the real service sends.
const REFS: usize = 6;

/// Real accounts link four companions; load tests want more on one phone.
const MAX_COMPANIONS: usize = 100;

/// Salt 32, IV 16, key 32.
const WRAPPED_LEN: usize = 80;
