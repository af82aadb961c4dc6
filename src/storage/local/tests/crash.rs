//! A worker that is killed while it writes: nothing that was acknowledged is lost.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use super::*;

const CHILD_DIR: &str = "STORE_CRASH_TEST_DIR";

#[test]
fn what_was_acknowledged_survives_kill_nine() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0u64;
    for _ in 0..3 {
        acked = acked.max(run_and_kill(dir.path(), acked + 150));
        let store = LocalStore::open(dir.path()).unwrap();
        let key = store.sessions().unwrap()[0].key;
        let state = SessionStore::new(store.clone(), key);
        let raw: [u8; 8] = state.get(Table::Session, "counter").unwrap().unwrap().try_into().unwrap();
        let durable = u64::from_be_bytes(raw);
        assert!(durable >= acked, "acknowledged {acked}, found {durable}");
        let filter = MessageFilter { chat: None, before: None, after: None, limit: 1, offset: 0 };
        let page = store.messages(key, &filter).unwrap();
        assert_eq!(page.total, durable, "message, counter and count belong to one transaction");
        assert_eq!(store.event_span(key).unwrap(), Some((1, durable)));
        acked = durable;
    }
}

/// Runs the child until it acknowledged `until`; the last number it printed.
fn run_and_kill(dir: &Path, until: u64) -> u64 {
    let name = "storage::local::tests::crash::what_was_acknowledged_survives_kill_nine";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(number) = line.unwrap().strip_prefix("acked ") {
            last = number.parse().unwrap();
            if last == until {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(last >= until, "the child ended early at {last}");
    last
}

fn write_until_killed(dir: &Path) -> ! {
    let store = LocalStore::open(dir).unwrap();
    let key = match store.sessions().unwrap().first() {
        Some(row) => row.key,
        None => session(&store, "a"),
    };
    let first = store.event_span(key).unwrap().map_or(1, |(_, last)| last + 1);
    let (acks, listener) = Acks::new();
    let mut done = 0;
    for number in first.. {
        let writes = vec![
            Write::Message(Box::new(message("62812000000", &format!("M{number}"), number))),
            put("counter", &number.to_be_bytes()),
            event("62811"),
        ];
        store.submit(key, Batch { number, writes }, &listener).unwrap();
        // A few in flight, as in real life.
        let seen = acks.wait(usize::try_from(number - first).unwrap().saturating_sub(8));
        for (number, result) in &seen[done..] {
            result.as_ref().unwrap();
            println!("acked {number}");
        }
        std::io::stdout().flush().unwrap();
        done = seen.len();
    }
    unreachable!("numbers do not end")
}
