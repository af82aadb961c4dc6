//! Service and phones with hand-driven companions on stanza level.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::{
    sandbox::{
        phone::{Phone, PhoneCtx, Phones},
        service::{Login, Service, ServiceOptions, ServiceOutput},
        world::{ConnId, NewPhone, SandboxError},
    },
    whatsapp::{
        binary::Node,
        ctx::Now,
        jid::Jid,
        keys::KeyPair,
        proto::{
            AdvDeviceIdentity, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac, ClientPayload,
            client_payload::DevicePairingRegistrationData,
        },
        signal::{
            SignedPreKeyRecord,
            adv::{self, AdvType},
        },
    },
};

pub(super) struct Bench {
    pub(super) service: Service,
    phones: Phones,
    rng: ChaCha20Rng,
    pub(super) now: Now,
    last_conn: u64,
    inboxes: HashMap<ConnId, Vec<Node>>,
    pub(super) closed: Vec<ConnId>,
}

/// A companion whose every stanza the test writes.
pub(super) struct Companion {
    pub(super) phone: String,
    pub(super) pn: Jid,
    pub(super) lid: Jid,
    pub(super) conn: ConnId,
    pub(super) identity: KeyPair,
    pub(super) signed: SignedPreKeyRecord,
    noise: KeyPair,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            service: Service::new(ServiceOptions::default(), Box::new(ChaCha20Rng::seed_from_u64(1))),
            phones: Phones::default(),
            rng: ChaCha20Rng::seed_from_u64(2),
            now: Now { mono: Duration::from_secs(1), unix_ms: 1_780_000_000_000 },
            last_conn: 0,
            inboxes: HashMap::new(),
            closed: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, phone: NewPhone) {
        let mut ctx = PhoneCtx { directory: &mut self.service, rng: &mut self.rng, now: self.now };
        self.phones.add(&phone, &mut ctx).unwrap();
        self.run();
    }

    pub(super) fn phone<T>(
        &mut self,
        number: &str,
        act: impl FnOnce(&mut Phone, &mut PhoneCtx<'_>) -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        let mut ctx = PhoneCtx { directory: &mut self.service, rng: &mut self.rng, now: self.now };
        let result = act(self.phones.find_mut(number).unwrap(), &mut ctx);
        self.run();
        result
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        self.service.tick(self.now);
        self.run();
    }

    fn run(&mut self) {
        while let Some(output) = self.service.next_output() {
            match output {
                ServiceOutput::Node(conn, node) => {
                    self.inboxes.entry(conn).or_default().push(node.as_ref().clone());
                }
                ServiceOutput::Phone(account, node) => {
                    let mut ctx =
                        PhoneCtx { directory: &mut self.service, rng: &mut self.rng, now: self.now };
                    self.phones.get_mut(account).unwrap().handle(&node, &mut ctx);
                }
                ServiceOutput::Close(conn) | ServiceOutput::Cut(conn) => self.closed.push(conn),
            }
        }
    }

    pub(super) fn send(&mut self, conn: ConnId, node: Node) {
        self.service.handle_node(conn, node, self.now);
        self.run();
    }

    /// Everything this connection got since the last call.
    pub(super) fn inbox(&mut self, conn: ConnId) -> Vec<Node> {
        self.inboxes.remove(&conn).unwrap_or_default()
    }

    /// The stanzas with this tag it got since the last call.
    pub(super) fn got(&mut self, conn: ConnId, tag: &str) -> Vec<Node> {
        self.inbox(conn).into_iter().filter(|node| node.tag == tag).collect()
    }

    pub(super) fn rules(&self) -> Vec<&'static str> {
        self.service.violations().iter().map(|violation| violation.rule).collect()
    }

    fn connect(&mut self, payload: ClientPayload, noise: &KeyPair) -> ConnId {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let login = Login { payload, noise_static: noise.public, routing_info: None };
        self.service.connected(conn, login, self.now);
        self.run();
        conn
    }

    /// A client that registers, with its connection and the QR text it would show.
    pub(super) fn register(&mut self) -> (Companion, String) {
        let (noise, identity) = (KeyPair::generate(&mut self.rng), KeyPair::generate(&mut self.rng));
        let signed = SignedPreKeyRecord::generate(1, &identity, 0, &mut self.rng);
        let data = DevicePairingRegistrationData {
            e_regid: Some(77u32.to_be_bytes().to_vec()),
            e_keytype: Some(vec![5]),
            e_ident: Some(identity.public.0.to_vec()),
            e_skey_id: Some(vec![0, 0, 1]),
            e_skey_val: Some(signed.pair.public.0.to_vec()),
            e_skey_sig: Some(signed.signature.to_vec()),
            build_hash: None,
            device_props: None,
        };
        let payload = ClientPayload { device_pairing_data: Some(data), ..ClientPayload::default() };
        let conn = self.connect(payload, &noise);
        let iq = self.got(conn, "iq").remove(0);
        let reference = iq.find("pair-device").unwrap().find("ref").unwrap().content_text().unwrap();
        let keys = [noise.public.0, identity.public.0, SECRET].map(|key| BASE64.encode(key));
        let qr = format!("https://wa.me/settings/linked_devices#{reference},{},1", keys.join(","));
        let none = Jid::service();
        let companion =
            Companion { phone: String::new(), pn: none.clone(), lid: none, conn, identity, signed, noise };
        (companion, qr)
    }

    /// Answers `pair-success`; gives back the account signature's validity by the way.
    pub(super) fn accept_pairing(&mut self, companion: &mut Companion) {
        let iq = self.got(companion.conn, "iq").remove(0);
        let success = iq.find("pair-success").unwrap();
        let blob = success.find_bytes("device-identity").unwrap();
        let outer = AdvSignedDeviceIdentityHmac::decode(blob).unwrap();
        let signed = outer.details.unwrap();
        assert!(adv::verify_hmac(&SECRET, AdvType::E2ee, &signed, &outer.hmac.unwrap()));
        let mut signed = AdvSignedDeviceIdentity::decode(&*signed).unwrap();
        let details = signed.details.clone().unwrap();
        let account = signed.account_signature_key.take().unwrap();
        let account = crate::whatsapp::keys::PublicKey::from_slice(&account).unwrap();
        let by_account = signed.account_signature.as_deref().unwrap();
        let key = &companion.identity.public;
        assert!(adv::verify_account_signature(&account, AdvType::E2ee, &details, key, by_account));
        let signature =
            adv::sign_device(&companion.identity, AdvType::E2ee, &details, &account, &mut self.rng);
        signed.device_signature = Some(signature.to_vec());
        let key_index = AdvDeviceIdentity::decode(&*details).unwrap().key_index();
        let device = success.find("device").unwrap();
        (companion.pn, companion.lid) = (device.jid("jid").unwrap(), device.jid("lid").unwrap());
        let identity = Node::new("device-identity")
            .attr("key-index", key_index.to_string())
            .bytes(signed.encode_to_vec());
        let answer = Node::new("iq")
            .attr("to", Jid::service())
            .attr("type", "result")
            .attr("id", iq.get("id").unwrap().into_owned())
            .child(Node::new("pair-device-sign").child(identity));
        self.send(companion.conn, answer);
    }

    pub(super) fn log_in(&mut self, companion: &mut Companion, passive: bool) {
        let payload = ClientPayload {
            username: companion.pn.user.parse().ok(),
            device: Some(u32::from(companion.pn.device)),
            passive: Some(passive),
            ..ClientPayload::default()
        };
        companion.conn = self.connect(payload, &companion.noise);
    }

    pub(super) fn upload(&mut self, companion: &Companion, ids: std::ops::Range<u32>) {
        let id_node = |id: u32| Node::new("id").bytes(id.to_be_bytes()[1..].to_vec());
        let mut keys = Vec::new();
        for id in ids {
            let mut key = [0; 32];
            self.rng.fill_bytes(&mut key);
            keys.push(Node::new("key").child(id_node(id)).child(Node::new("value").bytes(key)));
        }
        let skey = Node::new("skey")
            .child(id_node(1))
            .child(Node::new("value").bytes(companion.signed.pair.public.0))
            .child(Node::new("signature").bytes(companion.signed.signature));
        let iq = Node::new("iq")
            .attr("id", "up")
            .attr("to", Jid::service())
            .attr("type", "set")
            .attr("xmlns", "encrypt")
            .child(Node::new("registration").bytes(77u32.to_be_bytes()))
            .child(Node::new("type").bytes([5]))
            .child(Node::new("identity").bytes(companion.identity.public.0))
            .child(Node::new("list").nodes(keys))
            .child(skey);
        self.send(companion.conn, iq);
    }

    /// A companion of this phone, logged in, keys uploaded, greeted, live; its inbox is empty.
    pub(super) fn companion(&mut self, number: &str) -> Companion {
        let (mut companion, qr) = self.register();
        self.phone(number, |phone, ctx| phone.scan(&qr, ctx)).unwrap();
        self.accept_pairing(&mut companion);
        companion.phone = number.to_owned();
        self.log_in(&mut companion, false);
        self.upload(&companion, 1..30);
        self.answer_all(&companion);
        companion
    }

    /// Answers everything in the inbox as a good client does.
    pub(super) fn answer_all(&mut self, companion: &Companion) {
        for node in self.inbox(companion.conn) {
            if matches!(&*node.tag, "message" | "notification" | "receipt") {
                self.send(companion.conn, answer(&node));
            }
        }
    }
}

/// The right answer to a stanza.
pub(super) fn answer(node: &Node) -> Node {
    let head = match &*node.tag {
        "message" if node.has("category", "peer") => Node::new("receipt").attr("type", "peer_msg"),
        "message" if node.value("recipient").is_some() => Node::new("receipt").attr("type", "sender"),
        "message" => Node::new("receipt"),
        tag => {
            let ack = Node::new("ack").attr("class", tag.to_owned());
            ack.attr_opt("type", node.value("type").cloned())
        }
    };
    head.attr_opt("id", node.value("id").cloned())
        .attr_opt("to", node.value("from").cloned())
        .attr_opt("participant", node.value("participant").cloned())
        .attr_opt("recipient", node.value("recipient").cloned())
}

/// `<to jid><enc type>bytes</enc></to>`.
pub(super) fn copy(jid: &Jid, kind: &'static str, bytes: &[u8]) -> Node {
    Node::new("to").attr("jid", jid).child(enc(kind, bytes))
}

pub(super) fn enc(kind: &'static str, bytes: &[u8]) -> Node {
    Node::new("enc").attr("v", "2").attr("type", kind).bytes(bytes)
}

/// A message stanza with these copies.
pub(super) fn dm(id: &'static str, to: &Jid, copies: impl IntoIterator<Item = Node>) -> Node {
    Node::new("message")
        .attr("id", id)
        .attr("to", to)
        .attr("type", "text")
        .child(Node::new("participants").nodes(copies))
        .child(Node::new("device-identity").bytes([1]))
}

const SECRET: [u8; 32] = [42; 32];
