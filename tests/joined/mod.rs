//! Engines and the simulated WhatsApp joined in memory: one thread, virtual clock, seeded randomness, no sockets.
//! This is what a session thread does, without the thread: it carries bytes, applies batches, lets time pass, and
//! reconnects when the engine says so.

#![allow(dead_code, reason = "every test file uses a part of this")]

use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use whatsapp_worker::{
    sandbox::world::{ConnId, World, WorldOutput},
    whatsapp::{
        ctx::{Ctx, Now},
        engine::{Engine, EngineConfig},
        model::{Command, CommandId, DisconnectReason, Event, Output, Reply},
        testing::MemoryStore,
    },
};

/// Everything in one place.
pub(crate) struct Joined {
    pub(crate) world: World,
    pub(crate) clients: Vec<Client>,
    pub(crate) now: Now,
    /// Time spent inside each engine.
    pub(crate) spent: Vec<Duration>,
    rng: ChaCha20Rng,
    fuse: Option<Fuse>,
}

/// What happens to a client some outputs from now.
struct Fuse {
    client: usize,
    left: usize,
    dies: bool,
}

/// One session: an engine, its store, and what it said.
pub(crate) struct Client {
    pub(crate) engine: Engine,
    pub(crate) store: MemoryStore,
    pub(crate) connection: Option<ConnId>,
    pub(crate) events: Vec<Event>,
    pub(crate) replies: Vec<(CommandId, Reply)>,
    pub(crate) ended: Vec<DisconnectReason>,
}

impl Joined {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Now { mono: Duration::ZERO, unix_ms: 1_780_000_000_000 };
        let world = World::new(Box::new(ChaCha20Rng::seed_from_u64(seed)), now);
        Self {
            world,
            clients: Vec::new(),
            now,
            spent: Vec::new(),
            rng: ChaCha20Rng::seed_from_u64(seed + 1),
            fuse: None,
        }
    }

    /// A session that has never been linked; gives back its index.
    pub(crate) fn add_client(&mut self) -> usize {
        self.clients.push(Client {
            engine: Engine::new(self.config()),
            store: MemoryStore::default(),
            connection: None,
            events: Vec::new(),
            replies: Vec::new(),
            ended: Vec::new(),
        });
        self.spent.push(Duration::ZERO);
        self.clients.len() - 1
    }

    /// A session linked to `phone` by QR, logged in and drained, with its events taken away.
    pub(crate) fn add_linked(&mut self, phone: &str) -> usize {
        let client = self.add_client();
        self.connect(client);
        let qr = self.clients[client].last_qr().expect("a QR is shown");
        self.world.scan(phone, &qr, self.now).expect("the phone can scan it");
        self.settle();
        self.pass(Duration::from_secs(2));
        assert!(self.clients[client].events.contains(&Event::Ready), "{:?}", self.clients[client].ended);
        self.clients[client].events.clear();
        self.clients[client].ended.clear();
        client
    }

    /// Opens a socket.
    pub(crate) fn connect(&mut self, client: usize) {
        let connection = self.world.open(self.now);
        self.clients[client].connection = Some(connection);
        self.call(client, |engine, ctx| engine.handle_connected(ctx));
        self.settle();
    }

    /// The socket breaks.
    pub(crate) fn cut(&mut self, client: usize) {
        self.break_socket(client);
        self.settle();
    }

    /// The process dies and starts again: only what is durable is left.
    pub(crate) fn crash(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection.take() {
            self.world.close(connection, self.now);
        }
        self.clients[client].engine = Engine::new(self.config());
        self.settle();
    }

    /// The process dies in front of the output after the next `outputs` ones, wherever that is.
    pub(crate) fn crash_after(&mut self, client: usize, outputs: usize) {
        self.fuse = Some(Fuse { client, left: outputs, dies: true });
    }

    /// The socket breaks in front of the output after the next `outputs` ones.
    pub(crate) fn cut_after(&mut self, client: usize, outputs: usize) {
        self.fuse = Some(Fuse { client, left: outputs, dies: false });
    }

    /// A fault that was to come does not come.
    pub(crate) fn disarm(&mut self) {
        self.fuse = None;
    }

    pub(crate) fn command(&mut self, client: usize, id: CommandId, command: Command) {
        self.call(client, |engine, ctx| engine.handle_command(ctx, id, command));
        self.settle();
    }

    /// Gives a command without carrying anything yet, so that many are under way together.
    pub(crate) fn queue_command(&mut self, client: usize, id: CommandId, command: Command) {
        self.call(client, |engine, ctx| engine.handle_command(ctx, id, command));
    }

    /// Lets time pass in steps small enough for every deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.now.mono < end {
            let step = (end - self.now.mono).min(Duration::from_millis(100));
            self.now.mono += step;
            self.now.unix_ms += u64::try_from(step.as_millis()).expect("a short step");
            for client in 0..self.clients.len() {
                let due = self.clients[client].engine.next_deadline().is_some_and(|at| at <= self.now.mono);
                if due {
                    self.call(client, |engine, ctx| engine.handle_timeout(ctx));
                }
            }
            self.world.tick(self.now);
            self.settle();
        }
    }

    /// Carries bytes until nobody has anything to say.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for client in 0..self.clients.len() {
                while let Some(output) = self.clients[client].engine.next_output() {
                    quiet = false;
                    match self.burns(client) {
                        Some(true) => {
                            self.crash(client);
                            break;
                        }
                        Some(false) => {
                            self.break_socket(client);
                            if matches!(output, Output::Transmit(_) | Output::Disconnect(_)) {
                                continue;
                            }
                        }
                        None => {}
                    }
                    self.obey(client, output);
                }
            }
            // One at a time: a stanza is obeyed before the end of the stream behind it is seen.
            if let Some(output) = self.world.next_output() {
                quiet = false;
                self.carry(output);
            }
            if quiet {
                return;
            }
        }
    }

    /// Whether something happens in front of this output: `true` = the process dies, `false` = the socket breaks.
    fn burns(&mut self, client: usize) -> Option<bool> {
        let fuse = self.fuse.as_mut().filter(|fuse| fuse.client == client)?;
        if fuse.left > 0 {
            fuse.left -= 1;
            return None;
        }
        self.fuse.take().map(|fuse| fuse.dies)
    }

    fn break_socket(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection.take() {
            self.world.close(connection, self.now);
        }
        self.call(client, |engine, ctx| engine.handle_closed(ctx));
    }

    fn call(&mut self, client: usize, call: impl FnOnce(&mut Engine, &mut Ctx<'_>)) {
        let Client { engine, store, .. } = &mut self.clients[client];
        let start = Instant::now();
        call(engine, &mut Ctx { now: self.now, rng: &mut self.rng, store });
        self.spent[client] += start.elapsed();
    }

    fn obey(&mut self, index: usize, output: Output) {
        let client = &mut self.clients[index];
        match output {
            Output::Persist(batch) => {
                let number = batch.number;
                client.store.apply(batch);
                client.engine.handle_persisted(number);
            }
            Output::Transmit(bytes) => {
                if let Some(connection) = client.connection {
                    self.world.receive(connection, &bytes, self.now);
                }
            }
            Output::Event(event) => client.events.push(event),
            Output::Reply(id, reply) => client.replies.push((id, reply)),
            Output::Disconnect(reason) => {
                let restart = reason == DisconnectReason::RestartRequired;
                client.ended.push(reason);
                if let Some(connection) = client.connection.take() {
                    self.world.close(connection, self.now);
                }
                self.call(index, |engine, ctx| engine.handle_closed(ctx));
                if restart {
                    self.connect(index);
                }
            }
        }
    }

    fn carry(&mut self, output: WorldOutput) {
        let of = |connection: ConnId, clients: &[Client]| {
            clients.iter().position(|client| client.connection == Some(connection))
        };
        match output {
            WorldOutput::Transmit(connection, bytes) => {
                if let Some(client) = of(connection, &self.clients) {
                    self.call(client, |engine, ctx| engine.handle_data(ctx, &bytes));
                }
            }
            WorldOutput::Close(connection) => {
                if let Some(client) = of(connection, &self.clients) {
                    self.clients[client].connection = None;
                    self.call(client, |engine, ctx| engine.handle_closed(ctx));
                }
            }
        }
    }

    fn config(&self) -> EngineConfig {
        EngineConfig {
            noise_root: self.world.noise_root(),
            version: [2, 3000, 1_045_649_367],
            device_name: "joined".to_owned(),
        }
    }

    /// Panics with the list when a client broke a rule of the service.
    pub(crate) fn assert_no_violations(&self) {
        let violations: Vec<_> = self.world.violations().collect();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

impl Client {
    pub(crate) fn last_qr(&self) -> Option<String> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Qr { code, .. } => Some(code.clone()),
            _ => None,
        })
    }
}
