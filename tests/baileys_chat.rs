//! The real Baileys client chats with our sessions: both ways, each as the first to write, through restarts and
//! with one side offline. Every text arrives once, in order, and nobody breaks a rule of the protocol.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{
    await_texts,
    baileys::Baileys,
    eventually,
    sandbox::Sandbox,
    texts,
    worker::{Worker, chat},
};
use serde_json::json;

/// Number of our session and of Baileys' account.
const OURS: &str = "6281200000021";
const THEIRS: &str = "4915100000022";

/// One chat and everything said in it so far.
struct Conversation {
    sandbox: Sandbox,
    worker: Worker,
    baileys: Baileys,
    /// How Baileys addresses us: it does not find the LID by itself, and a migrated account must use it.
    our_address: String,
    from_us: Vec<String>,
    from_them: Vec<String>,
}

impl Conversation {
    /// `migrated`: both accounts address 1:1 chats by LID, else by phone number.
    fn start(migrated: bool, link: impl FnOnce(&Baileys, &Sandbox)) -> Self {
        let sandbox = Sandbox::start();
        for phone in [OURS, THEIRS] {
            sandbox.post("/phones", &json!({ "phone": phone, "lidMigrated": migrated }));
        }
        let our_address = if migrated { sandbox.lid(OURS) } else { chat(OURS) };
        let worker = Worker::start(&sandbox);
        worker.link(&sandbox, "ours", OURS);
        let baileys = Baileys::start(&sandbox);
        link(&baileys, &sandbox);
        Self { sandbox, worker, baileys, our_address, from_us: Vec::new(), from_them: Vec::new() }
    }

    fn we_write(&mut self, texts: Vec<String>) {
        for text in &texts {
            self.worker.send("ours", THEIRS, text);
        }
        self.from_us.extend(texts);
    }

    fn they_write(&mut self, texts: Vec<String>) {
        for text in &texts {
            self.baileys.send("theirs", &self.our_address, text);
        }
        self.from_them.extend(texts);
    }

    /// Both sides, and the phones of both accounts, have everything.
    fn check(&self) {
        self.baileys.await_received("theirs", None, &self.from_us);
        self.worker.await_received("ours", &chat(THEIRS), &self.from_them);
        self.sandbox.await_received(THEIRS, &self.from_us);
        self.sandbox.await_received(OURS, &self.from_them);
    }

    /// Everything after the first text of each side.
    fn go_on(mut self) {
        // In turns: a Baileys that sends and receives at the same moment spoils its own sessions.
        for part in 1..=7 {
            self.we_write(texts(&format!("ours, part {part}"), 7));
            self.check();
            self.they_write(texts(&format!("theirs, part {part}"), 7));
            self.check();
        }
        assert_eq!((self.from_us.len(), self.from_them.len()), (50, 50));

        self.worker.stop();
        self.baileys.stop("theirs");
        self.worker.start_again();
        self.worker.await_status("ours", "connected");
        self.baileys.connect("theirs");
        self.we_write(texts("ours after restarts", 5));
        self.check();
        self.they_write(texts("theirs after restarts", 5));
        self.check();

        self.baileys.stop("theirs");
        self.we_write(texts("while they are away", 10));
        self.baileys.connect("theirs");
        self.check();

        self.worker.stop();
        self.they_write(texts("while we are away", 10));
        self.worker.start_again();
        self.worker.await_status("ours", "connected");
        self.check();

        self.we_write(texts("ours at the end", 1));
        self.check();
        self.they_write(texts("theirs at the end", 1));
        self.check();
        self.we_know_what_was_read();
        self.baileys.assert_no_trouble();
        self.sandbox.assert_no_violations();
    }

    fn we_know_what_was_read(&self) {
        // Baileys reports its own texts as well.
        let messages = self.baileys.events("theirs", "message");
        let last = messages.iter().rfind(|message| message["fromMe"] == false).unwrap();
        let read = json!({ "chat": last["chat"], "message": last["id"] });
        self.baileys.ask("theirs", "markRead", &read);
        eventually("the last text is read", || {
            let history = self.worker.history("ours");
            let read = history.iter().find(|message| message["id"] == last["id"]).unwrap();
            (read["status"] == "read").then_some(())
        });
    }
}

#[test]
fn we_write_first_to_a_client_linked_by_qr() {
    let mut chat = Conversation::start(true, |baileys, sandbox| baileys.link(sandbox, "theirs", THEIRS));
    chat.we_write(texts("our first", 1));
    chat.check();
    chat.they_write(texts("their first", 1));
    chat.check();
    chat.go_on();
}

#[test]
fn a_client_linked_by_code_writes_first_to_us() {
    let mut chat =
        Conversation::start(false, |baileys, sandbox| baileys.link_by_code(sandbox, "theirs", THEIRS));
    chat.they_write(texts("their first", 1));
    chat.check();
    chat.we_write(texts("our first", 1));
    chat.check();
    chat.go_on();
}

/// Baileys uses message keys twice when it sends and receives at the same moment, and leaves devices out whose session
/// is just being made; what it sends to all devices arrives even so.
#[test]
fn both_write_at_once_before_either_knows_the_other() {
    let chat = Conversation::start(true, |baileys, sandbox| baileys.link(sandbox, "theirs", THEIRS));
    let Conversation { worker, baileys, our_address, .. } = &chat;
    let (ours, theirs) = (texts("ours", 10), texts("theirs", 10));
    let to_all = std::thread::scope(|scope| {
        scope.spawn(|| ours.iter().for_each(|text| drop(worker.send("ours", THEIRS, text))));
        let send = |text: &&String| {
            let order = json!({ "to": our_address, "text": text, "acked": true });
            baileys.try_ask("theirs", "sendText", &order).is_ok_and(|sent| sent["toAll"] == true)
        };
        theirs.iter().filter(send).collect::<Vec<_>>()
    });
    assert!(to_all.len() >= 5, "only {to_all:?} were for all devices");
    let their_chat = common::worker::chat(THEIRS);
    let received = || worker.received("ours", &their_chat);
    eventually("what was for all devices is in our history", || {
        let received = received();
        to_all.iter().all(|text| received.contains(text)).then_some(())
    });
    let mut received = received();
    assert!(received.iter().all(|text| theirs.contains(text)), "{received:?}");
    let count = received.len();
    received.sort();
    received.dedup();
    assert_eq!(received.len(), count, "nothing is there twice");
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    let expected = sorted(ours.clone());
    await_texts("at Baileys", &expected, || sorted(baileys.received("theirs", None)));
    chat.sandbox.assert_no_violations_of(OURS);
}
