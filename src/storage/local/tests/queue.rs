//! Group commit: many submitters, order, one guilty batch.

use std::time::Instant;

use super::*;

#[test]
fn many_submitters_share_commits_and_each_gets_its_answers_in_order() {
    const SESSIONS: usize = 16;
    const BATCHES: u64 = 200;
    let (_dir, store) = open();
    let keys: Vec<_> = (0..SESSIONS).map(|n| session(&store, &format!("s{n}"))).collect();
    std::thread::scope(|scope| {
        for key in &keys {
            let store = store.clone();
            scope.spawn(move || {
                let (acks, listener) = Acks::new();
                for number in 0..BATCHES {
                    let writes = vec![
                        put("counter", &number.to_be_bytes()),
                        Write::Message(Box::new(message("62812000000", &format!("M{number}"), number))),
                        event("62811"),
                    ];
                    store.submit(*key, Batch { number, writes }, &listener).unwrap();
                }
                let expected: Vec<_> = (0..BATCHES).map(|number| (number, Ok(Some(number + 1)))).collect();
                assert_eq!(acks.wait(usize::try_from(BATCHES).unwrap()), expected);
            });
        }
    });
    readable(&store);
    for key in keys {
        let state = SessionStore::new(store.clone(), key);
        let last = (BATCHES - 1).to_be_bytes();
        assert_eq!(state.get(Table::Session, "counter").unwrap().unwrap(), last);
        let filter = MessageFilter { chat: None, before: None, after: None, limit: 1, offset: 0 };
        assert_eq!(store.messages(key, &filter).unwrap().total, BATCHES);
    }
}

#[test]
fn a_batch_that_cannot_be_applied_fails_alone_and_as_a_whole() {
    let (_dir, store) = open();
    let (good, gone) = (session(&store, "good"), session(&store, "gone"));
    store.delete_session(gone).unwrap();
    let (acks, listener) = Acks::new();
    for number in 0..30 {
        let key = if number % 3 == 0 { gone } else { good };
        store.submit(key, Batch { number, writes: vec![put(&number.to_string(), b"x")] }, &listener).unwrap();
    }
    for (number, result) in acks.wait(30) {
        assert_eq!(result.is_err(), number % 3 == 0, "{number}: {result:?}");
    }
    readable(&store);
    let state = SessionStore::new(store, good);
    assert_eq!(state.keys(Table::Session, "").unwrap().len(), 20);
}

/// What a message costs the store, amortised over a group commit; run in release to get the numbers of the README.
#[test]
#[ignore = "a measurement: cargo test --release --lib cost_of -- --ignored --nocapture"]
fn cost_of_messages() {
    const SESSIONS: u64 = 10;
    const ROUNDS: u64 = 5000;
    let (_dir, store) = open();
    let keys: Vec<_> = (0..SESSIONS).map(|n| session(&store, &format!("s{n}"))).collect();
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|t| t.parse().unwrap())
            .collect();
        (fields[0] + fields[1]) as f64 / 100.0
    };
    let run = |name: &str, in_flight: usize, batches: fn(u64) -> Vec<Vec<Write>>| {
        let (cpu_before, before) = (cpu(), Instant::now());
        std::thread::scope(|scope| {
            for key in &keys {
                let store = &store;
                scope.spawn(move || {
                    let (acks, listener) = Acks::new();
                    let mut sent = 0usize;
                    for writes in (0..ROUNDS).flat_map(batches) {
                        store.submit(*key, Batch { number: 0, writes }, &listener).unwrap();
                        sent += 1;
                        acks.wait_for(sent.saturating_sub(in_flight));
                    }
                    acks.wait_for(sent);
                });
            }
        });
        let messages = (SESSIONS * ROUNDS) as f64;
        println!(
            "{name}, {in_flight} in flight per session: {:.1} us CPU, {:.1} us wall per message",
            (cpu() - cpu_before) * 1e6 / messages,
            before.elapsed().as_secs_f64() * 1e6 / messages
        );
    };
    run("outgoing", 6, |round| {
        let id = format!("3EB0{round:016X}");
        let mut record = message(&format!("62812{:06}", round % 50), &id, 1_700_000_000 + round / 500);
        (record.from_me, record.status) = (true, MessageStatus::Pending);
        let status = Write::Status {
            chat: record.chat.clone(),
            id: id.clone(),
            status: MessageStatus::Sent,
            participant: None,
            timestamp: 1_700_000_000,
            error: None,
        };
        let told = Write::Event(Box::new(Event::MessageStatus {
            chat: record.chat.clone(),
            id,
            status: MessageStatus::Sent,
            participant: None,
            timestamp: 1_700_000_000,
            error: None,
        }));
        vec![vec![Write::Message(Box::new(record))], vec![status, told]]
    });
    run("incoming", 50, |round| {
        let record = message(
            &format!("62812{:06}", round % 50),
            &format!("AC{round:018X}"),
            1_700_000_000 + round / 500,
        );
        let told = Write::Event(Box::new(Event::Message(Box::new(record.clone()), Box::default())));
        let mut writes = vec![Write::Message(Box::new(record)), told];
        if round % 32 == 0 {
            writes.push(put("62812000000.0", &[7; 2000]));
        }
        vec![writes]
    });
}
