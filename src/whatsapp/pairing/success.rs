//! `pair-success`: the phone has accepted us. Everything it says is checked, then made durable, then answered.
//!
//! Seen: whatsmeow `pair.go` @33cfac51; whatsapp-rust `wacore/src/pair.rs` @1489b7da.

use prost::Message;

use super::Credentials;
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    keys::PublicKey,
    limits::LOGIN_TIMEOUT,
    model::{DisconnectReason, Event, Trouble},
    proto::{AdvDeviceIdentity, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac, ClientPairingProps},
    signal::{
        Address,
        adv::{self, AdvType},
    },
    state::Table,
    timers::Timer,
};

/// Why a pair-success is refused; `code` and `text` are what the server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pairing refused: {text} ({code}), {why}")]
struct PairError {
    code: u16,
    text: &'static str,
    why: &'static str,
}

impl PairError {
    const fn internal(why: &'static str) -> Self {
        Self { code: 500, text: "internal-error", why }
    }

    const fn unauthorized(text: &'static str, why: &'static str) -> Self {
        Self { code: 401, text, why }
    }
}

/// What a good pair-success says.
#[derive(Debug)]
struct Accepted {
    jid: Jid,
    lid: Option<Jid>,
    platform: Option<String>,
    lid_migrated: bool,
    /// The phone's identity key.
    account_key: PublicKey,
    /// With our signature and the account's key, for later `device-identity` nodes.
    identity: AdvSignedDeviceIdentity,
    key_index: u32,
}

impl Engine {
    /// `<iq type=set><pair-success>…</pair-success></iq>`.
    pub(in crate::whatsapp) fn on_pair_success(
        &mut self,
        ctx: &mut Ctx<'_>,
        iq: &Node,
    ) -> Result<(), EngineError> {
        let (true, Some(success)) = (self.is_pairing(), iq.find("pair-success")) else {
            log::warn!("pair-success out of turn");
            return Ok(());
        };
        let Some(credentials) = &self.credentials else {
            return Ok(());
        };
        match check(success, credentials, ctx) {
            Ok(accepted) => self.accept(ctx, iq, accepted),
            Err(error) => {
                log::error!("{error}");
                let reply = Node::new("error").attr("code", error.code.to_string()).attr("text", error.text);
                self.send_node(&answer(iq, "error").child(reply));
                self.disconnect(DisconnectReason::Retry {
                    trouble: Trouble::Handshake,
                    reason: error.to_string(),
                    extra_steps: 0,
                });
                Ok(())
            }
        }
    }

    /// Writes who we are now; the reply follows the durable batch. The server then restarts the stream.
    fn accept(&mut self, ctx: &mut Ctx<'_>, iq: &Node, accepted: Accepted) -> Result<(), EngineError> {
        let Some(credentials) = self.credentials.as_mut() else {
            return Ok(());
        };
        let Accepted { jid, lid, platform, lid_migrated, account_key, identity, key_index } = accepted;
        credentials.account = Some(identity.encode_to_vec());
        credentials.jid = Some(jid.clone());
        credentials.lid = lid.clone();
        credentials.platform = platform;
        credentials.lid_migrated = lid_migrated;
        self.save_credentials();
        let phone = Address::from(&lid.as_ref().unwrap_or(&jid).to_user());
        self.state.put(Table::Identity, phone.as_str(), account_key.0.to_vec());
        if let Some(lid) = &lid {
            self.learn_lid(ctx, &jid.to_user(), &lid.to_user())?;
        }

        let shown = AdvSignedDeviceIdentity { account_signature_key: None, ..identity };
        let shown = Node::new("device-identity")
            .attr("key-index", key_index.to_string())
            .bytes(shown.encode_to_vec());
        self.send_node(&answer(iq, "result").child(Node::new("pair-device-sign").child(shown)));
        self.emit(Event::Paired { jid, lid });
        self.timers.clear(Timer::Qr);
        // If the 515 that must follow does not, a new connection logs in all the same.
        self.arm(Timer::Login, ctx.now.mono + LOGIN_TIMEOUT);
        Ok(())
    }
}

/// All checks of a pair-success, and our signature.
fn check(success: &Node, credentials: &Credentials, ctx: &mut Ctx<'_>) -> Result<Accepted, PairError> {
    let device = success.find("device").ok_or(PairError::internal("no device"))?;
    let jid = device.jid("jid").filter(|jid| jid.is_pn() && jid.is_user());
    let jid = jid.ok_or(PairError::internal("no JID of ours"))?;
    let lid = device.jid("lid").filter(|lid| lid.is_lid() && lid.is_user());
    let container = success.find_bytes("device-identity").ok_or(PairError::internal("no device identity"))?;
    let container = AdvSignedDeviceIdentityHmac::decode(container)
        .map_err(|_| PairError::internal("the device identity is not readable"))?;
    let identity = sign_identity(&container, credentials, ctx)?;
    let inner = AdvDeviceIdentity::decode(identity.details())
        .map_err(|_| PairError::internal("the device details are not readable"))?;
    let account_key = PublicKey::from_slice(identity.account_signature_key())
        .ok_or(PairError::internal("the account key is not a key"))?;
    let props = success.find_bytes("client-props").and_then(|bytes| ClientPairingProps::decode(bytes).ok());
    Ok(Accepted {
        jid,
        lid,
        platform: success.find("platform").and_then(|node| node.get("name")).map(|name| name.into_owned()),
        lid_migrated: props.is_some_and(|props| props.is_chat_db_lid_migrated()),
        account_key,
        identity,
        key_index: inner.key_index(),
    })
}

/// Checks that the phone knows our QR's secret and vouches for our identity key, and signs in return.
fn sign_identity(
    container: &AdvSignedDeviceIdentityHmac,
    credentials: &Credentials,
    ctx: &mut Ctx<'_>,
) -> Result<AdvSignedDeviceIdentity, PairError> {
    let account_type = AdvType::from_proto(container.account_type);
    if !adv::verify_hmac(&credentials.adv_secret, account_type, container.details(), container.hmac()) {
        return Err(PairError::unauthorized("hmac-mismatch", "the phone did not read our code"));
    }
    let mut identity = AdvSignedDeviceIdentity::decode(container.details())
        .map_err(|_| PairError::internal("the signed identity is not readable"))?;
    let inner = AdvDeviceIdentity::decode(identity.details())
        .map_err(|_| PairError::internal("the device details are not readable"))?;
    let device_type = AdvType::from_proto(inner.device_type);
    let account_key = PublicKey::from_slice(identity.account_signature_key())
        .ok_or(PairError::internal("the account key is not a key"))?;
    let ours = &credentials.identity;
    let signed = adv::verify_account_signature(
        &account_key,
        device_type,
        identity.details(),
        &ours.public,
        identity.account_signature(),
    );
    if !signed {
        return Err(PairError::unauthorized("signature-mismatch", "the account did not sign our key"));
    }
    let signature = adv::sign_device(ours, device_type, identity.details(), &account_key, ctx.rng);
    identity.device_signature = Some(signature.to_vec());
    Ok(identity)
}

fn answer(iq: &Node, kind: &'static str) -> Node {
    Node::new("iq").attr("to", Jid::service()).attr("type", kind).attr_opt("id", iq.value("id").cloned())
}
