//! The engine against a scripted server on a virtual clock: real Noise, real certificates, no sockets.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{Engine, EngineConfig};
use crate::whatsapp::{
    binary::{Node, decode, encode},
    ctx::{Ctx, Now},
    jid::Jid,
    keys::{KeyPair, PublicKey},
    model::{Command, CommandId, DisconnectReason, Event, Output, Reply},
    noise::{
        cert::issue_chain,
        frame::FrameReader,
        responder::{ServerHandshake, strip_intro},
        transport::Transport,
    },
    pairing::Credentials,
    proto::ClientPayload,
    signal::SignedPreKeyRecord,
    state::Table,
    testing::MemoryStore,
};

mod endings;
mod garbage;
mod linking;
mod live;

/// One engine, its store, and a server that does what the test says.
struct Scene {
    engine: Engine,
    store: MemoryStore,
    rng: ChaCha20Rng,
    now: Now,
    root: KeyPair,
    server_key: KeyPair,
    chain: Vec<u8>,
    link: Link,
    /// What the client said at login.
    payload: Option<ClientPayload>,
    routing_info: Option<Vec<u8>>,
    /// Stanzas the server got and the test has not looked at.
    received: Vec<Node>,
    events: Vec<Event>,
    replies: Vec<(CommandId, Reply)>,
    ended: Vec<DisconnectReason>,
}

/// The server's side of the connection.
enum Link {
    Closed,
    Intro,
    Finish(FrameReader, Box<ServerHandshake>),
    Open(FrameReader, Transport),
}

const START_S: u64 = 1_780_000_000;

impl Scene {
    fn new() -> Self {
        Self::with_certificate(|root| root.clone(), START_S - 86_400, START_S + 86_400)
    }

    /// `issuer` chooses the key that signs the chain, given the one the engine trusts.
    fn with_certificate(issuer: impl Fn(&KeyPair) -> KeyPair, not_before: u64, not_after: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(42);
        let (root, server_key) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let chain = issue_chain(&issuer(&root), &server_key.public, not_before, not_after, &mut rng);
        let config = EngineConfig {
            noise_root: root.public,
            version: [2, 3000, 1_045_649_367],
            device_name: "test".to_owned(),
        };
        Self {
            engine: Engine::new(config),
            store: MemoryStore::default(),
            rng,
            now: Now { mono: Duration::ZERO, unix_ms: START_S * 1000 },
            root,
            server_key,
            chain,
            link: Link::Closed,
            payload: None,
            routing_info: None,
            received: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// A scene whose store holds a linked device that has uploaded its prekeys.
    fn linked() -> Self {
        let mut scene = Self::new();
        let mut credentials = Credentials::generate(&mut scene.rng);
        credentials.jid = Some(jid("6281200000001:7@s.whatsapp.net"));
        credentials.lid = Some(jid("100000000000001:7@lid"));
        credentials.account = Some(vec![1]);
        credentials.next_prekey_id = 201;
        credentials.first_unuploaded_prekey_id = 201;
        let signed = SignedPreKeyRecord::generate(1, &credentials.identity, START_S, &mut scene.rng);
        scene.store.put(Table::Credentials, Credentials::KEY, credentials.encode());
        scene.store.put(Table::SignedPreKey, "1", signed.encode());
        scene
    }

    /// A linked scene after `<success>`, with the stanzas of the login taken away.
    fn logged_in() -> Self {
        let mut scene = Self::linked();
        scene.log_in();
        scene
    }

    fn log_in(&mut self) {
        self.connect();
        self.deliver(&success());
        self.received.clear();
        self.events.clear();
    }

    /// Logged in, and the offline queue is empty.
    fn ready() -> Self {
        let mut scene = Self::logged_in();
        scene.deliver(&ib(Node::new("offline").attr("count", "0")));
        scene.received.clear();
        scene.events.clear();
        scene
    }

    /// Opens a socket and runs the handshake.
    fn connect(&mut self) {
        self.link = Link::Intro;
        self.call(|engine, ctx| engine.handle_connected(ctx));
    }

    fn cut(&mut self) {
        self.link = Link::Closed;
        self.call(|engine, ctx| engine.handle_closed(ctx));
    }

    fn command(&mut self, id: CommandId, command: Command) {
        self.call(|engine, ctx| engine.handle_command(ctx, id, command));
    }

    /// A stanza from the server.
    fn deliver(&mut self, node: &Node) {
        if let Link::Open(_, transport) = &mut self.link {
            let frame = transport.encrypt(&encode(node));
            self.call(|engine, ctx| engine.handle_data(ctx, &frame));
        }
    }

    /// Answers the last received IQ in which `is` finds its question.
    fn answer(&mut self, is: impl Fn(&Node) -> bool, kind: &'static str, content: Option<Node>) {
        let at = self.received.iter().position(is).expect("the IQ was sent");
        let request = self.received.remove(at);
        let answer = Node::new("iq")
            .attr("from", Jid::service())
            .attr("type", kind)
            .attr("id", request.get("id").expect("IQs have ids").into_owned())
            .child_opt(content);
        self.deliver(&answer);
    }

    /// Lets time pass, calling the engine at each of its deadlines.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.set_time(at);
            self.call(|engine, ctx| engine.handle_timeout(ctx));
        }
        self.set_time(end);
    }

    /// Lets time pass on a socket that lives: the server says something every five seconds.
    fn idle(&mut self, seconds: u32) {
        for second in 0..seconds {
            self.pass(SECOND);
            if second % 5 == 4 {
                self.deliver(&ib(Node::new("thread_metadata")));
            }
        }
    }

    fn set_time(&mut self, mono: Duration) {
        let passed = mono.saturating_sub(self.now.mono);
        self.now.unix_ms += u64::try_from(passed.as_millis()).unwrap();
        self.now.mono = self.now.mono.max(mono);
    }

    /// One engine call; its outputs are obeyed in order.
    fn call(&mut self, call: impl FnOnce(&mut Engine, &mut Ctx<'_>)) {
        let mut ctx = Ctx { now: self.now, rng: &mut self.rng, store: &self.store };
        call(&mut self.engine, &mut ctx);
        while let Some(output) = self.engine.next_output() {
            match output {
                Output::Persist(batch) => {
                    let number = batch.number;
                    self.store.apply(batch);
                    self.engine.handle_persisted(number);
                }
                Output::Transmit(bytes) => self.serve(&bytes),
                Output::Event(event) => self.events.push(event),
                Output::Reply(id, reply) => self.replies.push((id, reply)),
                Output::Disconnect(reason) => {
                    self.ended.push(reason);
                    self.link = Link::Closed;
                }
            }
        }
    }

    /// The server reads what the client sent.
    fn serve(&mut self, bytes: &[u8]) {
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Closed => {}
            Link::Intro => {
                let intro = strip_intro(bytes).unwrap().unwrap();
                self.routing_info = intro.routing_info.map(<[u8]>::to_vec);
                let mut reader = FrameReader::default();
                reader.push(intro.rest);
                let hello = reader.next().unwrap().unwrap();
                let mut handshake = ServerHandshake::new(self.server_key.clone(), self.chain.clone());
                let answer = handshake.on_client_hello(&hello, KeyPair::generate(&mut self.rng)).unwrap();
                self.link = Link::Finish(reader, Box::new(handshake));
                self.call(|engine, ctx| engine.handle_data(ctx, &answer));
            }
            Link::Finish(mut reader, handshake) => {
                reader.push(bytes);
                let finish = reader.next().unwrap().unwrap();
                let (payload, _, transport) = handshake.on_client_finish(&finish).unwrap();
                self.payload = Some(prost::Message::decode(payload.as_slice()).unwrap());
                self.link = Link::Open(reader, transport);
            }
            Link::Open(mut reader, mut transport) => {
                reader.push(bytes);
                while let Some(frame) = reader.next().unwrap() {
                    self.received.push(decode(&transport.decrypt(frame).unwrap()).unwrap());
                }
                self.link = Link::Open(reader, transport);
            }
        }
    }

    fn credentials(&self) -> Option<Credentials> {
        use crate::whatsapp::state::StateRead;
        let bytes = self.store.get(Table::Credentials, Credentials::KEY).unwrap()?;
        Some(Credentials::decode(&bytes).unwrap())
    }

    /// The acks the server got, as `(id, error)`.
    fn acks(&self) -> Vec<(String, Option<String>)> {
        let acks = self.received.iter().filter(|node| node.tag == "ack");
        acks.map(|ack| (text(ack, "id").unwrap(), text(ack, "error"))).collect()
    }
}

fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).map(|value| value.into_owned())
}

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn success() -> Node {
    Node::new("success").attr("t", START_S.to_string()).attr("lid", jid("100000000000001@lid"))
}

fn ib(child: Node) -> Node {
    Node::new("ib").attr("from", Jid::service()).child(child)
}

fn notification(kind: &'static str, child: Node) -> Node {
    Node::new("notification").attr("id", "N1").attr("from", Jid::service()).attr("type", kind).child(child)
}

/// An IQ of this namespace whose content is this element.
fn asks(xmlns: &'static str, child: &'static str) -> impl Fn(&Node) -> bool {
    move |node| node.tag == "iq" && node.has("xmlns", xmlns) && node.find(child).is_some()
}

fn retry_reason(scene: &Scene) -> String {
    match scene.ended.as_slice() {
        [DisconnectReason::Retry { reason, .. }] => reason.clone(),
        other => panic!("expected one retry, got {other:?}"),
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn key_of(node: &Node, child: &str) -> PublicKey {
    PublicKey::from_slice(node.find_bytes(child).expect("the key is there")).unwrap()
}
