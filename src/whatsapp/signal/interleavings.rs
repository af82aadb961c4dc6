//! Two parties under random loss, duplication, reordering, crashes and new sessions.
//!
//! The parties behave as the engine must: what has to be durable is written before anything leaves, and a crash goes
//! back to what was written.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::{
    Encrypted, SessionRecord, SignalError,
    limits::MAX_RECEIVER_CHAINS,
    session::CiphertextKind,
    testing::Party,
    wire::{PreKeySignalMessage, SignalMessage},
};
use crate::whatsapp::keys::KeyPair;

#[derive(Debug, Clone)]
enum Step {
    /// Encrypt and send, or crash after encrypting and before the write.
    Send { crash: bool },
    /// Deliver one of the messages ever sent to this party, or crash before the write that follows.
    Receive { pick: prop::sample::Index, crash: bool },
    /// Deliver the newest message that was not delivered.
    ReceiveNewest,
    /// Lose everything that was not written.
    Crash,
    /// Write cleanly and read back.
    Restart,
    /// Fetch a bundle and start over.
    NewSession,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        6 => Just(Step::Send { crash: false }),
        1 => Just(Step::Send { crash: true }),
        5 => any::<prop::sample::Index>().prop_map(|pick| Step::Receive { pick, crash: false }),
        1 => any::<prop::sample::Index>().prop_map(|pick| Step::Receive { pick, crash: true }),
        5 => Just(Step::ReceiveNewest),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => Just(Step::NewSession),
    ];
    (0..2usize, step)
}

struct Sent {
    message: Encrypted,
    plaintext: Vec<u8>,
    /// Delivered and not forgotten by a crash of the receiver.
    delivered: bool,
}

struct Side {
    party: Party,
    durable: (Vec<u8>, HashMap<u32, KeyPair>),
    /// What this side sent.
    sent: Vec<Sent>,
    /// Indices of the peer's messages delivered since the last write.
    unwritten: Vec<usize>,
    /// Ratchet keys of the peer in the order they were first read.
    ratchets: Vec<[u8; 32]>,
    bundles: u32,
}

impl Side {
    fn new(seed: u64) -> Self {
        let mut party = Party::new(seed);
        let durable = (party.record.encode(), party.prekeys.clone());
        Self { party, durable, sent: Vec::new(), unwritten: Vec::new(), ratchets: Vec::new(), bundles: 0 }
    }

    fn write(&mut self) {
        self.durable = (self.party.record.encode(), self.party.prekeys.clone());
        self.unwritten.clear();
    }

    /// Gives the peer's messages whose delivery was forgotten.
    fn crash(&mut self) -> Vec<usize> {
        self.party.record = SessionRecord::decode(&self.durable.0).unwrap();
        self.party.prekeys = self.durable.1.clone();
        std::mem::take(&mut self.unwritten)
    }
}

fn key(message: &Encrypted) -> ([u8; 32], u32) {
    let read = |message: &SignalMessage<'_>| (message.ratchet_key.0, message.counter);
    match message.kind {
        CiphertextKind::Msg => read(&SignalMessage::parse(&message.bytes).unwrap()),
        CiphertextKind::PkMsg => read(&PreKeySignalMessage::parse(&message.bytes).unwrap().message),
    }
}

struct Chat {
    sides: [Side; 2],
    used: HashSet<([u8; 32], u32)>,
}

impl Chat {
    fn new() -> Self {
        Self { sides: [Side::new(1), Side::new(2)], used: HashSet::new() }
    }

    fn play(&mut self, who: usize, step: &Step) {
        match step {
            Step::Send { crash } => self.send(who, *crash),
            Step::Receive { pick, crash } => {
                let count = self.sides[1 - who].sent.len();
                if count > 0 {
                    self.receive(who, pick.index(count), *crash);
                }
            }
            Step::ReceiveNewest => {
                if let Some(index) = self.sides[1 - who].sent.iter().rposition(|sent| !sent.delivered) {
                    self.receive(who, index, false);
                }
            }
            Step::Crash => self.crash(who),
            Step::Restart => {
                let side = &mut self.sides[who];
                side.durable = (side.party.record.encode_clean(), side.party.prekeys.clone());
                side.unwritten.clear();
                self.crash(who);
            }
            Step::NewSession => self.new_session(who),
        }
    }

    fn new_session(&mut self, who: usize) {
        self.sides[who].bundles += 1;
        let id = self.sides[who].bundles;
        let bundle = self.sides[1 - who].party.bundle((!id.is_multiple_of(4)).then_some(id));
        self.sides[who].party.start(&bundle).unwrap();
    }

    fn send(&mut self, who: usize, crash: bool) {
        if !self.sides[who].party.record.has_session() {
            self.new_session(who);
        }
        let side = &mut self.sides[who];
        let plaintext = format!("{who} {}", side.sent.len()).into_bytes();
        let message = side.party.encrypt(&plaintext).unwrap();
        if crash {
            return self.crash(who);
        }
        if message.must_persist {
            side.write();
        }
        assert!(self.used.insert(key(&message)), "a message key was used twice");
        self.sides[who].sent.push(Sent { message, plaintext, delivered: false });
    }

    fn receive(&mut self, who: usize, index: usize, crash: bool) {
        let [alice, bob] = &mut self.sides;
        let (reader, sender) = if who == 0 { (alice, bob) } else { (bob, alice) };
        let sent = &mut sender.sent[index];
        let (ratchet, _) = key(&sent.message);
        let before = reader.party.snapshot();
        match reader.party.decrypt(&sent.message) {
            Ok(read) => {
                assert_eq!(read.plaintext, sent.plaintext);
                assert!(!sent.delivered, "message {index} was read twice");
                sent.delivered = true;
                reader.unwritten.push(index);
                if !reader.ratchets.contains(&ratchet) {
                    reader.ratchets.push(ratchet);
                }
                if crash {
                    self.crash(who);
                } else if read.must_persist {
                    reader.write();
                }
            }
            Err(error) => {
                assert_eq!(reader.party.snapshot(), before);
                let place = reader.ratchets.iter().position(|known| *known == ratchet);
                let newer = place.map_or(0, |place| reader.ratchets.len() - 1 - place);
                // Only what is older than the chains we keep may be unreadable.
                let expired = error == SignalError::BadMac && newer >= MAX_RECEIVER_CHAINS;
                let repeated = error == SignalError::Duplicate && sent.delivered;
                assert!(expired || repeated, "message {index} to {who}: {error}");
            }
        }
    }

    fn crash(&mut self, who: usize) {
        for index in self.sides[who].crash() {
            self.sides[1 - who].sent[index].delivered = false;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_read_once_and_no_key_is_used_twice(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut chat = Chat::new();
        for (who, step) in &steps {
            chat.play(*who, step);
        }
        // Whatever happened, both sides still reach each other.
        for who in [0, 1] {
            chat.send(who, false);
            chat.receive(1 - who, chat.sides[who].sent.len() - 1, false);
            prop_assert!(chat.sides[who].sent.last().is_some_and(|sent| sent.delivered));
        }
    }
}
