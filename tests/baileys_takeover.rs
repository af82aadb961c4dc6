//! An account that real Baileys linked moves into our worker and back, by way of the bucket: every text arrives once,
//! nothing is undecryptable anywhere, and nobody breaks a rule of the protocol.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{path::Path, time::Duration};

use common::{
    await_texts,
    baileys::{Baileys, Release},
    buckets::{Bucket, Folder, auth, highest_sending_counter, read_folder, write_folder},
    durable::{await_uploaded, take_over},
    eventually, exchange,
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::json;

/// The account that moves, one that stays with Baileys, and one that is only a phone.
const OURS: &str = "6281200000091";
const THEIRS: &str = "4915100000092";
const CAROL: &str = "4915100000093";
/// The session.
const ID: &str = "moved";

/// Who has the account at the moment.
#[derive(Clone, Copy)]
enum Owner<'a> {
    /// A client of this name.
    Baileys(&'a Baileys, &'a str),
    Worker(&'a Worker),
}

/// Everybody, and everything said so far.
struct Story {
    sandbox: Sandbox,
    friend: Baileys,
    bucket: Bucket,
    group: String,
    /// How Baileys addresses each: in a migrated account by LID.
    our_address: String,
    their_address: String,
    carol_address: String,
    at_carol: Vec<String>,
    at_friend: Vec<String>,
    at_friend_in_group: Vec<String>,
    part: usize,
    /// Messages in our worker's history from the time before it had the account again.
    seen: usize,
}

impl Story {
    fn start(migrated: bool, bucket: Bucket) -> Self {
        let sandbox = Sandbox::start();
        for phone in [OURS, THEIRS, CAROL] {
            sandbox.post("/phones", &json!({ "phone": phone, "lidMigrated": migrated }));
        }
        let address = |phone: &str| if migrated { sandbox.lid(phone) } else { chat(phone) };
        let (our_address, their_address, carol_address) = (address(OURS), address(THEIRS), address(CAROL));
        let friend = Baileys::start(&sandbox);
        friend.link(&sandbox, "friend", THEIRS);
        Self {
            friend,
            bucket,
            group: String::new(),
            our_address,
            their_address,
            carol_address,
            at_carol: Vec::new(),
            at_friend: Vec::new(),
            at_friend_in_group: Vec::new(),
            part: 0,
            seen: 0,
            sandbox,
        }
    }

    fn send(&self, owner: Owner<'_>, to: &str, text: &str) {
        match owner {
            Owner::Baileys(client, peer) => drop(client.send(peer, to, text)),
            Owner::Worker(worker) => drop(worker.send(ID, to, text)),
        }
    }

    /// Texts the account got from others since it has this owner, outside and inside of the group.
    fn await_at_us(&self, owner: Owner<'_>, in_group: bool, expected: &[String]) {
        let group = in_group.then_some(self.group.as_str());
        match owner {
            Owner::Baileys(client, peer) => client.await_received(peer, group, expected),
            Owner::Worker(worker) => await_texts("at our worker", expected, || {
                let history = worker.history(ID);
                let theirs = history.iter().rev().skip(self.seen).filter(|message| {
                    let chat = message["chat"].as_str().unwrap();
                    message["fromMe"] == false && chat.ends_with("@g.us") == in_group
                });
                theirs.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
            }),
        }
    }

    /// Everybody writes to everybody `times` times, in turns: first 1:1, then in the group, for a Baileys 6 that has been
    /// in a group names devices twice in its next 1:1 message. The owner has it from here on.
    fn talk(&mut self, owner: Owner<'_>, times: usize) {
        self.part += 1;
        let say = |part: usize, what: &str, time: usize| format!("{what}, part {part}, {time}");
        let mut at_us = Vec::new();
        for time in 1..=times {
            at_us.push(say(self.part, "Carol", time));
            self.sandbox.send(CAROL, OURS, at_us.last().unwrap());
            self.await_at_us(owner, false, &at_us);
            self.at_carol.push(say(self.part, "to Carol", time));
            self.send(owner, &self.carol_address, self.at_carol.last().unwrap());
            self.sandbox.await_received(CAROL, &self.at_carol);
            at_us.push(say(self.part, "the friend", time));
            self.friend.send("friend", &self.our_address, at_us.last().unwrap());
            self.await_at_us(owner, false, &at_us);
            self.at_friend.push(say(self.part, "to the friend", time));
            self.send(owner, &self.their_address, self.at_friend.last().unwrap());
            self.friend.await_received("friend", None, &self.at_friend);
        }
        let mut in_group_at_us = Vec::new();
        for time in 1..=times {
            let text = say(self.part, "to the group", time);
            self.send(owner, &self.group, &text);
            self.at_carol.push(text.clone());
            self.at_friend_in_group.push(text);
            self.sandbox.await_received(CAROL, &self.at_carol);
            self.friend.await_received("friend", Some(&self.group), &self.at_friend_in_group);
            let text = say(self.part, "the friend to the group", time);
            self.friend.send("friend", &self.group, &text);
            self.at_carol.push(text.clone());
            in_group_at_us.push(text);
            self.await_at_us(owner, true, &in_group_at_us);
            self.sandbox.await_received(CAROL, &self.at_carol);
            let text = say(self.part, "Carol to the group", time);
            self.sandbox.send(CAROL, &self.group, &text);
            self.at_friend_in_group.push(text.clone());
            in_group_at_us.push(text);
            self.await_at_us(owner, true, &in_group_at_us);
            self.friend.await_received("friend", Some(&self.group), &self.at_friend_in_group);
        }
    }

    /// Nobody had to ask for a message again since `before`, nobody broke a rule, nothing is unread.
    fn check(&self, clients: &[&Baileys], before: u64) {
        clients.iter().for_each(|client| client.assert_no_trouble());
        self.sandbox.assert_no_violations();
        assert_eq!(self.retries(), before, "somebody could not decrypt a message at first");
    }

    /// Baileys that sends while it receives now and then uses a message key twice, all by itself.
    fn forgive_what_baileys_did_before_us(&self) {
        let found = self.sandbox.get("/violations");
        let others = found["violations"].as_array().unwrap().iter();
        let others: Vec<_> = others.filter(|violation| violation["rule"] != "message-key-reused").collect();
        assert!(others.is_empty(), "{others:#?}");
        self.sandbox.control("DELETE", "/violations", &json!(null));
    }

    fn retries(&self) -> u64 {
        self.sandbox.get("/violations")["retriesAsked"].as_u64().unwrap()
    }
}

fn assert_all_read(worker: &Worker) {
    let events = worker.events(ID);
    let unread: Vec<_> = events.iter().filter(|event| event["type"] == "message-undecryptable").collect();
    assert!(unread.is_empty(), "{unread:#?}");
}

/// Files that are nobody's business but their owner's.
fn foreign_files() -> Folder {
    let files: [(&str, &[u8]); 4] = [
        ("app-state-sync-version-regular.json", br#"{"version":3,"hash":{"type":"Buffer","data":""}}"#),
        ("notes.txt", b"not JSON \xff\0"),
        ("session-.json", b"{}"),
        ("backup/creds.json", b"{\"of\":\"an operator\"}"),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).into()
}

/// What the worker left, as a folder for this Baileys: Baileys 7 takes what is in the bucket, Baileys 6 needs its names.
fn hand_back(story: &Story, worker: &mut Worker, release: Release, dir: &Path) {
    match release {
        Release::Seven => {
            worker.post(&format!("/session/{ID}/release"), &json!({}));
            let mut folder = story.bucket.folder(&auth(ID));
            for (name, bytes) in foreign_files() {
                assert_eq!(folder.remove(&name), Some(bytes), "{name} was touched");
            }
            assert!((2..20).contains(&highest_sending_counter(&folder)), "the folder is exact");
            write_folder(dir, &folder);
            worker.stop();
        }
        Release::Six => {
            assert!(worker.stop().success());
            let arguments = ["export", ID, dir.to_str().unwrap(), "--baileys", "6"];
            let (code, said, log) = worker.run(&arguments);
            assert_eq!(code, 0, "{said}{log}");
            assert!(said.contains("names of Baileys 6"), "{said}");
        }
    }
}

/// What Baileys left becomes the session again.
fn bring_again(story: &Story, worker: &Worker, release: Release, dir: &Path) {
    match release {
        Release::Seven => {
            let (prefix, left) = (auth(ID), read_folder(dir));
            for name in story.bucket.folder(&prefix).keys().filter(|name| !left.contains_key(*name)) {
                story.bucket.store.delete(&format!("{prefix}{name}")).unwrap();
            }
            story.bucket.put_folder(&prefix, &left);
        }
        Release::Six => {
            let (code, said, log) = worker.run(&["import", dir.to_str().unwrap(), "--session", ID]);
            assert_eq!(code, 0, "{said}{log}");
        }
    }
}

fn there_and_back(release: Release, migrated: bool, bucket: Bucket) {
    let mut story = Story::start(migrated, bucket);
    let client = Baileys::start_release(&story.sandbox, release);
    client.link(&story.sandbox, "before", OURS);
    story.group = story.sandbox.create_group(CAROL, &[OURS, THEIRS]);
    story.talk(Owner::Baileys(&client, "before"), 2);
    client.stop("before");
    story.forgive_what_baileys_did_before_us();

    let retries = story.retries();
    story.bucket.put_folder(&auth(ID), &read_folder(&client.auth_dir("before")));
    story.bucket.put_folder(&auth(ID), &foreign_files());
    let mut worker = story.bucket.worker(&story.sandbox, "w");
    take_over(&worker, ID);
    assert_eq!(worker.get(&format!("/session/{ID}/status"))["phoneNumber"], format!("+{OURS}"));
    story.talk(Owner::Worker(&worker), 2);
    assert_all_read(&worker);
    story.check(&[&client, &story.friend], retries);

    hand_back(&story, &mut worker, release, &client.auth_dir("after"));
    client.connect("after");
    story.talk(Owner::Baileys(&client, "after"), 2);
    client.stop("after");
    story.check(&[&client, &story.friend], retries);

    bring_again(&story, &worker, release, &client.auth_dir("after"));
    worker.start_again();
    let told = worker.history(ID).len();
    take_over(&worker, ID);
    story.seen = told;
    story.talk(Owner::Worker(&worker), 1);
    assert_all_read(&worker);
    story.check(&[&client, &story.friend], retries);
}

#[test]
fn an_account_of_baileys_7_that_uses_lids_moves_in_and_out() {
    there_and_back(Release::Seven, true, Bucket::minio());
}

#[test]
fn an_account_of_baileys_7_that_uses_phone_numbers_moves_in_and_out() {
    there_and_back(Release::Seven, false, Bucket::directory());
}

#[test]
fn an_account_of_baileys_6_that_uses_lids_moves_in_and_out() {
    there_and_back(Release::Six, true, Bucket::directory());
}

#[test]
fn an_account_of_baileys_6_that_uses_phone_numbers_moves_in_and_out_of_an_encrypted_bucket() {
    there_and_back(Release::Six, false, Bucket::minio().encrypted());
}

/// An account that our worker linked and chatted with; the worker is killed then, in the middle of `traffic` if any.
fn killed(traffic: bool) -> (Story, Worker) {
    let mut story = Story::start(true, Bucket::directory());
    let mut worker = story.bucket.worker(&story.sandbox, "w");
    worker.link(&story.sandbox, ID, OURS);
    story.group = story.sandbox.create_group(CAROL, &[OURS, THEIRS]);
    story.talk(Owner::Worker(&worker), 2);
    await_uploaded(&worker);
    if traffic {
        // More on each chain than is reserved at a time, and most of it too late for the last upload.
        let api = worker.api.clone();
        let send = |to: &str| {
            for number in 1.. {
                let body = json!({ "to": to, "type": "text", "message": format!("in a hurry {number}") });
                if exchange("POST", &format!("{api}/session/{ID}/send"), Some(&body)).is_err() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| send(CAROL));
            scope.spawn(|| send(&story.group));
            eventually("a lot was sent", || (story.sandbox.received(CAROL).len() > 250).then_some(()));
            worker.kill();
        });
        // What is on its way arrives before anybody counts.
        let counts = || {
            (story.sandbox.received(CAROL).len(), story.friend.received("friend", Some(&story.group)).len())
        };
        eventually("it is quiet", || {
            let before = counts();
            std::thread::sleep(Duration::from_secs(1));
            (counts() == before).then_some(())
        });
        story.at_carol = story.sandbox.received(CAROL);
        story.at_friend_in_group = story.friend.received("friend", Some(&story.group));
    }
    worker.kill();
    (story, worker)
}

#[test]
fn a_killed_workers_account_is_exported_when_its_lease_is_over_and_no_key_is_used_twice() {
    let (mut story, worker) = killed(true);
    let client = Baileys::start(&story.sandbox);
    let dir = client.auth_dir("after");
    let arguments = ["export", ID, dir.to_str().unwrap()];
    let said = eventually("the lease is over", || {
        let (code, said, _) = worker.run(&arguments);
        assert!(code == 0 || said.contains("worker w holds the session"), "{said}");
        (code == 0).then_some(said)
    });
    assert!(said.contains("did not release"), "{said}");
    client.connect("after");
    story.talk(Owner::Baileys(&client, "after"), 2);
    story.check(&[&client, &story.friend], 0);
}

#[test]
fn the_folder_of_a_killed_worker_is_safe_to_go_on_from_when_everything_was_uploaded() {
    let (mut story, _worker) = killed(false);
    let client = Baileys::start(&story.sandbox);
    write_folder(&client.auth_dir("after"), &story.bucket.folder(&auth(ID)));
    client.connect("after");
    story.talk(Owner::Baileys(&client, "after"), 2);
    story.check(&[&client, &story.friend], 0);
}
