//! Simulated phones: the primary device (device 0) of each account, with its own Signal identity.
//!
//! A phone links companions, chats with any account, and behaves towards its companions as phones do. It talks to
//! the service through [`Directory`] and answers stanzas it is given; it knows nothing of connections.
//!
//! - `linking`: scanning a QR, typing a code, signing devices;
//! - `greeting`, `peer`: what a new companion gets (app-state key, history), and what it may ask for;
//! - `sending`, `receiving`, `retry`: messages;
//! - `sessions`: the Signal side of all of these.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};

use super::{
    service::{Directory, PublishedKeys},
    world::{NewPhone, PhoneMessage},
};
use crate::whatsapp::{
    binary::Node,
    ctx::Now,
    jid::Jid,
    keys::KeyPair,
    signal::{SenderKeyRecord, SessionRecord, SignedPreKeyRecord},
};

mod book;
mod greeting;
mod linking;
mod peer;
mod receiving;
mod retry;
mod sending;
mod sessions;

pub use book::Phones;
use linking::TypedCode;

/// What a phone may use besides its own state.
pub struct PhoneCtx<'a> {
    /// The service.
    pub directory: &'a mut dyn Directory,
    /// Randomness.
    pub rng: &'a mut dyn CryptoRngCore,
    /// The time.
    pub now: Now,
}

/// What a phone does wrong when it links a device, for tests of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkLie {
    /// Nothing.
    #[default]
    None,
    /// The HMAC over the device identity is wrong.
    BadHmac,
    /// The account's signature is wrong.
    BadAccountSignature,
}

/// How the latest attempt to link a device went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "detail")]
pub enum LinkState {
    /// There was none.
    #[default]
    None,
    /// Under way.
    Pending,
    /// This device was linked.
    Linked(u16),
    /// It failed.
    Failed(String),
}

/// One phone.
pub struct Phone {
    account: u32,
    number: String,
    name: String,
    lid_migrated: bool,
    pn: Jid,
    lid: Jid,
    identity: KeyPair,
    registration_id: u32,
    signed_prekey: SignedPreKeyRecord,
    prekeys: HashMap<u32, KeyPair>,
    next_prekey: u32,
    /// Sessions by the peer device's LID address.
    sessions: HashMap<Jid, SessionRecord>,
    /// Sender keys of others by group and device.
    sender_keys: HashMap<(String, Jid), SenderKeyRecord>,
    /// Our sender key per group.
    own_sender_keys: HashMap<String, sessions::OwnSenderKey>,
    /// Key index per linked device.
    companions: BTreeMap<u16, u32>,
    next_key_index: u32,
    raw_id: u32,
    app_state_key: ([u8; 6], [u8; 32]),
    /// App-state keys companions gave us when asked, with their data if they had it.
    shared_keys: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    messages: Vec<PhoneMessage>,
    /// Position of own messages, for receipts.
    own_messages: HashMap<String, usize>,
    /// What was sent, for resends.
    sent: sending::Sent,
    /// Messages received: author and id.
    seen: HashSet<(Jid, String)>,
    retries: HashMap<(Jid, String), u8>,
    /// Contacts that have our token.
    token_given: HashSet<Jid>,
    typed_code: Option<TypedCode>,
    /// Wrong signatures on demand.
    pub lie: LinkLie,
    /// The latest attempt to link a device.
    pub link_state: LinkState,
}

impl Phone {
    /// A phone that is not registered yet, and the keys it publishes.
    pub fn new(options: &NewPhone, now: Now, rng: &mut dyn CryptoRngCore) -> (Self, PublishedKeys) {
        let identity = KeyPair::generate(rng);
        let signed_prekey = SignedPreKeyRecord::generate(1, &identity, now.unix_s(), rng);
        let registration_id = rng.next_u32() % 16_380 + 1;
        let mut app_state_key = ([0; 6], [0; 32]);
        rng.fill_bytes(&mut app_state_key.0);
        rng.fill_bytes(&mut app_state_key.1);
        let phone = Self {
            account: 0,
            number: options.number.clone(),
            name: options.name.clone(),
            lid_migrated: options.lid_migrated,
            pn: Jid::pn(options.number.clone()),
            lid: Jid::lid(""),
            identity,
            registration_id,
            signed_prekey,
            prekeys: HashMap::new(),
            next_prekey: 1,
            sessions: HashMap::new(),
            sender_keys: HashMap::new(),
            own_sender_keys: HashMap::new(),
            companions: BTreeMap::new(),
            next_key_index: 1,
            raw_id: rng.next_u32() >> 1,
            app_state_key,
            shared_keys: Vec::new(),
            messages: Vec::new(),
            own_messages: HashMap::new(),
            sent: sending::Sent::default(),
            seen: HashSet::new(),
            retries: HashMap::new(),
            token_given: HashSet::new(),
            typed_code: None,
            lie: LinkLie::None,
            link_state: LinkState::None,
        };
        let keys = phone.published_keys();
        (phone, keys)
    }

    /// What companions answered when they were asked for app-state keys: id and data.
    #[must_use]
    pub fn shared_app_state_keys(&self) -> &[(Vec<u8>, Option<Vec<u8>>)] {
        &self.shared_keys
    }

    /// Whether this is the key this phone gave its companions.
    #[must_use]
    pub fn is_app_state_key(&self, id: &[u8], data: &[u8]) -> bool {
        self.app_state_key.0 == id && self.app_state_key.1 == data
    }

    fn published_keys(&self) -> PublishedKeys {
        PublishedKeys::new(
            self.registration_id,
            self.identity.public,
            (self.signed_prekey.id, self.signed_prekey.pair.public),
            self.signed_prekey.signature,
        )
    }

    /// The app is installed anew: another identity, no sessions, no companions; contacts are told.
    pub fn reinstall(&mut self, ctx: &mut PhoneCtx<'_>) {
        let options = NewPhone {
            number: self.number.clone(),
            name: self.name.clone(),
            lid_migrated: self.lid_migrated,
        };
        let (mut fresh, keys) = Self::new(&options, ctx.now, ctx.rng);
        ctx.directory.reinstall(self.account, keys, ctx.now);
        fresh.registered(self.account, ctx);
        *self = fresh;
    }

    /// The service made the account.
    pub fn registered(&mut self, account: u32, ctx: &mut PhoneCtx<'_>) {
        self.account = account;
        self.lid = ctx.directory.to_lid(&self.pn);
        self.refill_prekeys(ctx);
    }

    /// Phone number, digits.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.number
    }

    /// Everything sent and received, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[PhoneMessage] {
        &self.messages
    }

    /// Forgets all sessions and sender keys of others, as a phone restored from an old backup: the next messages
    /// cannot be decrypted, and retry receipts follow.
    pub fn forget_sessions(&mut self) {
        self.sessions.clear();
        self.sender_keys.clear();
    }

    /// A stanza from the service.
    pub fn handle(&mut self, node: &Node, ctx: &mut PhoneCtx<'_>) {
        match &*node.tag {
            "message" => self.on_message(node, ctx),
            "receipt" => self.on_receipt(node, ctx),
            "sandbox:linked" => {
                if let Some(device) = node.number("device") {
                    self.link_state = LinkState::Linked(device);
                }
            }
            "sandbox:link-failed" => {
                let reason = node.get("reason").unwrap_or_default().into_owned();
                self.link_state = LinkState::Failed(reason);
            }
            "sandbox:unlinked" => {
                if let Some(device) = node.number("device") {
                    self.companions.remove(&device);
                }
            }
            "sandbox:ready" => {
                if let Some(device) = node.number("device") {
                    self.greet(device, ctx);
                }
            }
            "sandbox:code-finish" => self.on_code_finish(node, ctx),
            _ => {}
        }
    }

    /// Our own JID in the namespace this account uses for 1:1 chats.
    fn own_jid(&self) -> &Jid {
        if self.lid_migrated { &self.lid } else { &self.pn }
    }

    fn is_own(&self, jid: &Jid) -> bool {
        jid.user == self.pn.user && jid.is_pn() || jid.user == self.lid.user && jid.is_lid()
    }

    fn random_id(rng: &mut dyn CryptoRngCore) -> String {
        use std::fmt::Write as _;
        let mut bytes = [0; 15];
        rng.fill_bytes(&mut bytes);
        // Phones use 32 hex characters that start with `3A` (iPhone) or `AC` (Android).
        bytes.iter().fold(String::from("AC"), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
    }
}
