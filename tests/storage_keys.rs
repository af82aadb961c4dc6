//! The storage key changes while sessions run and chat; afterwards nothing needs the old one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use common::{
    durable::{Home, await_uploaded, chat_both_ways, files},
    eventually,
    sandbox::Sandbox,
};

const ALICE: &str = "6281200000111";
const CAROL: &str = "4915100000113";

/// Key of a session's objects that are encrypted under another key than this one, or plain.
fn under_other_keys(home: &Home, id: &str) -> Vec<String> {
    let is_lease = |name: &str| name.ends_with("lease.json");
    let all = files(&home.session("alice")).into_iter().map(|file| (file.display().to_string(), file));
    let others = all.filter(|(name, _)| !is_lease(name)).filter(|(_, file)| {
        let head: String =
            fs::read(file).unwrap().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        !head.contains(id)
    });
    others.map(|(name, _)| name).collect()
}

#[test]
fn a_key_is_changed_while_a_session_runs_and_chats() {
    let (sandbox, home) = (Sandbox::start(), Home::new());
    sandbox.add_phone(ALICE);
    sandbox.add_phone(CAROL);
    let (old, new) = ("1e".repeat(32), "2e".repeat(32));
    let mut worker = home.worker_with(&sandbox, "a", &[("STORAGE_ENCRYPTION_KEY", &old)]);
    worker.link(&sandbox, "alice", ALICE);
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "under the old key");
    await_uploaded(&worker);
    worker.stop();
    let name = |name: &str| name.to_owned();
    worker.start_again_with(&[
        ("STORAGE_ENCRYPTION_KEY", new.clone()),
        ("STORAGE_ENCRYPTION_OLD_KEYS", old.clone()),
    ]);
    worker.await_status("alice", "connected");
    let done = AtomicBool::new(false);
    let (rotated, texts) = std::thread::scope(|scope| {
        let chatting = scope.spawn(|| {
            let mut texts = Vec::new();
            while !done.load(Ordering::Relaxed) || texts.len() < 20 {
                let text = format!("meanwhile {}", texts.len());
                worker.send("alice", CAROL, &text);
                texts.push(text);
                std::thread::sleep(Duration::from_millis(20));
            }
            texts
        });
        eventually("the chat is under way", || {
            sandbox.received(CAROL).contains(&name("meanwhile 3")).then_some(())
        });
        let rotated = worker.run(&["rotate-key"]);
        done.store(true, Ordering::Relaxed);
        (rotated, chatting.join().unwrap())
    });
    let (code, said, log) = rotated;
    assert_eq!(code, 0, "{said}{log}");
    let id = said.lines().find_map(|line| line.strip_prefix("current key: ")).unwrap().to_owned();
    assert!(!said.contains("\n0 rewritten"), "{said}");
    await_uploaded(&worker);
    assert_eq!(under_other_keys(&home, &id), Vec::<String>::new(), "{said}");
    assert_eq!(worker.status("alice"), "connected");
    // The old key is gone, and so is the disk.
    worker.stop();
    fs::remove_dir_all(&worker.state_dir).unwrap();
    worker.start_again_with(&[("STORAGE_ENCRYPTION_OLD_KEYS", String::new())]);
    eventually("alice comes back without the old key", || {
        let (status, answer) = worker.ask("GET", "/session/alice/status", None);
        (status == 200 && answer["data"]["status"] == "connected").then_some(())
    });
    chat_both_ways(&sandbox, &worker, "alice", ALICE, CAROL, "under the new key");
    let history = worker.history("alice");
    assert!(texts.iter().all(|text| history.iter().any(|message| message["content"] == text.as_str())));
    sandbox.assert_no_violations();
}
