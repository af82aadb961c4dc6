//! A linked device hears anything from its server: no panic, bounded output, and the store stays readable.
//!
//! Input: one byte of choices, then steps of a 16-bit length and that many bytes. A step is the plaintext of one frame
//! (flag byte first) or, by choice, a `Message` that a contact sends encrypted; an empty one lets time pass to the
//! engine's next deadline.

#![no_main]

use std::{sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use whatsapp_worker::{
    sandbox::world::{NewPhone, World, WorldOutput},
    whatsapp::{
        binary::{Node, decode, encode},
        ctx::{Ctx, Now},
        engine::{Engine, EngineConfig},
        jid::Jid,
        keys::{KeyPair, PublicKey},
        model::{Event, Output},
        noise::{
            cert::issue_chain,
            frame::FrameReader,
            responder::{ServerHandshake, strip_intro},
            transport::Transport,
        },
        signal::{LocalIdentity, PreKeyBundle, SessionRecord},
        testing::MemoryStore,
    },
};

const START: Now = Now { mono: Duration::from_secs(1000), unix_ms: 1_800_000_000_000 };

fuzz_target!(|data: &[u8]| {
    let Some((&choices, mut steps)) = data.split_first() else { return };
    let store = if choices & 1 == 0 { CONTACT.store.clone() } else { MemoryStore::default() };
    let mut contact =
        (choices & 4 != 0).then(|| SessionRecord::decode(&CONTACT.session).expect("a record of ours"));
    let mut client = Client::new(KEYS.root.public, store);
    let Some(mut transport) = client.connect() else { return };
    if choices & 2 == 0 {
        let success = Node::new("success").attr("t", "1800000000").attr("lid", Jid::lid("100000000000001"));
        client.hear(&transport.encrypt(&encode(&success)));
    }
    while let Some(([high, low], rest)) = steps.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (step, rest) = rest.split_at(len);
        steps = rest;
        match &mut contact {
            _ if step.is_empty() => client.wait(),
            Some(session) => client.hear(&transport.encrypt(&CONTACT.message(session, step, steps.len()))),
            None => client.hear(&transport.encrypt(step)),
        }
    }
    let sent: usize = client.sent.iter().map(Vec::len).sum();
    assert!(sent < 200_000 + 200 * data.len(), "{sent} bytes sent for {} bytes heard", data.len());
    client.call(|engine, ctx| engine.handle_shutdown(ctx));
    Engine::is_paired(&client.store).expect("the credentials stay readable");
});

/// An engine and what a session thread does for it.
struct Client {
    engine: Engine,
    store: MemoryStore,
    rng: ChaCha8Rng,
    now: Now,
    sent: Vec<Vec<u8>>,
    qr: Option<String>,
}

impl Client {
    fn new(noise_root: PublicKey, store: MemoryStore) -> Self {
        let config = EngineConfig { noise_root, version: [2, 3000, 1], device_name: "fuzz".to_owned() };
        let rng = ChaCha8Rng::seed_from_u64(3);
        Self { engine: Engine::new(config), store, rng, now: START, sent: Vec::new(), qr: None }
    }

    fn call(&mut self, call: impl FnOnce(&mut Engine, &mut Ctx<'_>)) {
        call(&mut self.engine, &mut Ctx { now: self.now, rng: &mut self.rng, store: &self.store });
        while let Some(output) = self.engine.next_output() {
            match output {
                Output::Persist(batch) => {
                    let number = batch.number;
                    self.store.apply(batch);
                    self.engine.handle_persisted(number);
                }
                Output::Transmit(bytes) => self.sent.push(bytes),
                Output::Event(Event::Qr { code, .. }) => self.qr = Some(code),
                Output::Event(_) | Output::Reply(..) | Output::Disconnect(_) => {}
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.call(|engine, ctx| engine.handle_data(ctx, bytes));
    }

    fn wait(&mut self) {
        if let Some(at) = self.engine.next_deadline() {
            let passed = at.saturating_sub(self.now.mono);
            self.now.mono += passed;
            self.now.unix_ms += u64::try_from(passed.as_millis()).expect("deadlines are near");
            self.call(Engine::handle_timeout);
        }
    }

    /// Runs the handshake against a server with the keys of this target; `None` when the engine did not begin.
    fn connect(&mut self) -> Option<Transport> {
        self.call(Engine::handle_connected);
        let first = self.sent.pop()?;
        let intro = strip_intro(&first).ok()??;
        let mut reader = FrameReader::default();
        reader.push(intro.rest);
        let hello = reader.next().ok()??;
        let mut server = ServerHandshake::new(KEYS.server.clone(), KEYS.chain.clone());
        let answer = server.on_client_hello(&hello, KEYS.ephemeral.clone()).ok()?;
        self.hear(&answer);
        reader.push(&self.sent.pop()?);
        let finish = reader.next().ok()??;
        Some(server.on_client_finish(&finish).ok()?.2)
    }
}

/// A device linked with a sandbox phone, with a session of a chat partner.
static LINKED: LazyLock<MemoryStore> = LazyLock::new(|| {
    let mut world = World::new(Box::new(ChaCha8Rng::seed_from_u64(4)), START);
    let own = world.add_phone(NewPhone::number("6281200000001"), START).expect("a new number");
    let peer = world.add_phone(NewPhone::number("4915100000002"), START).expect("a new number");
    let mut client = Client::new(world.noise_root(), MemoryStore::default());
    for round in 0..3 {
        let connection = world.open(client.now);
        client.call(Engine::handle_connected);
        for step in 0..40 {
            for bytes in std::mem::take(&mut client.sent) {
                world.receive(connection, &bytes, client.now);
            }
            while let Some(output) = world.next_output() {
                match output {
                    WorldOutput::Transmit(to, bytes) if to == connection => client.hear(&bytes),
                    WorldOutput::Transmit(..) | WorldOutput::Close(_) => {}
                }
            }
            if let Some(qr) = client.qr.take().filter(|_| round == 0) {
                let _ = world.scan(&own, &qr, client.now);
            }
            if round == 1 && step == 20 {
                world.send_text(&peer, &own, "hello", client.now).expect("both exist");
            }
            client.now.mono += Duration::from_millis(100);
            client.now.unix_ms += 100;
            world.tick(client.now);
        }
        client.call(Engine::handle_closed);
        client.sent.clear();
        world.close(connection, client.now);
    }
    assert!(Engine::is_paired(&client.store).expect("readable"), "the sandbox's phone accepted the device");
    client.store
});

/// Somebody with an own session with the linked device, set up from the prekeys the device uploads.
struct Contact {
    store: MemoryStore,
    identity: KeyPair,
    session: Vec<u8>,
}

impl Contact {
    /// A frame with `content` as an encrypted message; `id` tells one message from the other.
    fn message(&self, session: &mut SessionRecord, content: &[u8], id: usize) -> Vec<u8> {
        let local = LocalIdentity { registration_id: 9, pair: &self.identity };
        let encrypted = session.encrypt(&local, &[content, &[1]].concat()).expect("a session");
        let enc =
            Node::new("enc").attr("v", "2").attr("type", encrypted.kind.as_str()).bytes(encrypted.bytes);
        let message = Node::new("message")
            .attr("from", Jid::lid("100000000000099"))
            .attr("sender_pn", Jid::pn("4915100000099"))
            .attr("id", format!("3EB0{id:016X}"))
            .attr("t", "1800000000")
            .attr("type", "text");
        encode(&message.child(enc))
    }
}

static CONTACT: LazyLock<Contact> = LazyLock::new(|| {
    let mut client = Client::new(KEYS.root.public, LINKED.clone());
    let mut transport = client.connect().expect("a linked device begins the handshake");
    for node in [
        Node::new("success").attr("t", "1800000000"),
        Node::new("ib").child(Node::new("offline").attr("count", "0")),
        Node::new("notification")
            .attr("type", "encrypt")
            .attr("from", Jid::service())
            .attr("id", "1")
            .child(Node::new("count").attr("value", "0")),
    ] {
        client.hear(&transport.encrypt(&encode(&node)));
    }
    let mut reader = FrameReader::default();
    let mut upload = None;
    for bytes in std::mem::take(&mut client.sent) {
        reader.push(&bytes);
        while let Some(frame) = reader.next().expect("frames of ours") {
            let node = decode(&transport.decrypt(frame).expect("frames in order")).expect("a stanza");
            upload = upload
                .or(Some(node).filter(|node| node.find("list").is_some() && node.find("skey").is_some()));
        }
    }
    let upload = upload.expect("the device uploads prekeys when told that none are left");

    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let identity = KeyPair::generate(&mut rng);
    let mut session = SessionRecord::default();
    let local = LocalIdentity { registration_id: 9, pair: &identity };
    session
        .process_bundle(&local, &bundle(&upload).expect("a complete upload"), &mut rng)
        .expect("a sound bundle");
    let contact = Contact { store: client.store.clone(), identity, session: session.encode_clean() };
    // Proves that what the fuzzer writes gets as far as a message: field 1, `conversation`.
    client.hear(&transport.encrypt(&contact.message(&mut session, b"\x0a\x02hi", 0)));
    assert_eq!(client.store.messages().last().map(|message| message.kind.as_str()), Some("text"));
    contact
});

/// What somebody who asks for the device's keys would get after `upload`.
fn bundle(upload: &Node) -> Option<PreKeyBundle> {
    let number =
        |node: &Node, tag| Some(node.find_bytes(tag)?.iter().fold(0, |id, byte| id << 8 | u32::from(*byte)));
    let key = |node: &Node, tag| PublicKey::from_slice(node.find_bytes(tag)?);
    let (signed, one_time) = (upload.find("skey")?, upload.find("list")?.children().first()?);
    Some(PreKeyBundle {
        registration_id: number(upload, "registration")?,
        identity: key(upload, "identity")?,
        signed_prekey_id: number(signed, "id")?,
        signed_prekey: key(signed, "value")?,
        signed_prekey_signature: signed.find_bytes("signature")?.try_into().ok()?,
        prekey: Some((number(one_time, "id")?, key(one_time, "value")?)),
    })
}

struct Keys {
    root: KeyPair,
    server: KeyPair,
    ephemeral: KeyPair,
    chain: Vec<u8>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let [root, server, ephemeral] = std::array::from_fn(|_| KeyPair::generate(&mut rng));
    let chain = issue_chain(&root, &server.public, 0, u64::MAX / 2, &mut rng);
    Keys { root, server, ephemeral, chain }
});
