//! Supervision: what happens when an engine ends.

use super::*;
use crate::{storage::local::StoreError, whatsapp::keys::PublicKey};

fn desk(store: &LocalStore, id: &str) -> Desk {
    let row = store.create_session(id, "user-1", None).unwrap().unwrap();
    let common = Arc::new(Common {
        store: store.clone(),
        engine: EngineConfig {
            noise_root: PublicKey([0; 32]),
            version: [2, 3000, 1],
            device_name: "test".into(),
        },
        entropy: Box::new(|_| Box::new(OsRng)),
        target: Target::new("wss://127.0.0.1:1/", None, None).unwrap(),
        pace: Pace::new(),
        started: Instant::now(),
        sync: None,
        draining: AtomicBool::new(false),
        meters: Meters::default(),
    });
    let board = Arc::new(Board::new(&row));
    let mail = Mailbox::new(Arc::clone(&board)).unwrap();
    let mut desk = Desk::new(common, row.key, board, mail, true);
    desk.begin();
    desk
}

#[test]
fn a_panic_ends_the_engine_and_not_the_thread_nor_another_session() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let mut hurt = desk(&store, "hurt");
    let mut other = desk(&store, "other");
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let neighbour = thread::spawn(move || {
        let mut runs = 0;
        other.supervise(|_| {
            runs += 1;
            let _ = wait.recv();
            Exit::Stopped(Stop::Disconnect)
        });
        runs
    });
    let mut runs = 0;
    let board = Arc::clone(&hurt.board);
    hurt.supervise(|desk| {
        runs += 1;
        match runs {
            1 => panic!("forced by the test"),
            2 => {
                assert_eq!(desk.board.status(), SessionStatus::Error);
                Exit::Failed(StoreError::Full)
            }
            _ => Exit::Stopped(Stop::Disconnect),
        }
    });
    assert_eq!((runs, board.status()), (3, SessionStatus::Disconnected));
    drop(release);
    assert_eq!(neighbour.join().unwrap(), 1);
    let statuses: Vec<_> = store.sessions().unwrap().into_iter().map(|row| row.status).collect();
    assert_eq!(statuses, ["disconnected", "disconnected"]);
}

#[test]
fn while_an_engine_recovers_commands_are_refused_and_a_stop_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let mut desk = desk(&store, "a");
    let answer = desk.mailbox.command(crate::whatsapp::model::Command::Logout).unwrap();
    desk.mailbox.send(Mail::Committed(3));
    desk.mailbox.send(Mail::Stop(Stop::Shutdown));
    desk.supervise(|_| Exit::Failed(StoreError::Full));
    assert!(matches!(answer.wait(Duration::ZERO).unwrap(), Reply::Failed(CommandError::NotConnected)));
    assert_eq!(desk.board.status(), SessionStatus::Disconnected);
}

#[test]
fn a_final_end_is_stored_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let mut desk = desk(&store, "a");
    let (key, board) = (desk.key, Arc::clone(&desk.board));
    desk.supervise(|_| Exit::Final { status: SessionStatus::LoggedOut, error: Some("unlinked".into()) });
    assert!(board.wait_event(1, Duration::from_secs(10)));
    let row = store.sessions().unwrap().remove(0);
    assert_eq!(
        (row.status.as_str(), row.wanted, row.error.as_deref()),
        ("logged_out", false, Some("unlinked"))
    );
    let payloads: Vec<_> = store.events(key, 0, 9).unwrap().into_iter().map(|event| event.payload).collect();
    assert_eq!(payloads, [r#"{"status":"connecting"}"#, r#"{"status":"logged_out","error":"unlinked"}"#]);
}

#[test]
fn more_commands_than_a_session_may_have_are_refused_until_some_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let desk = desk(&store, "a");
    let answers: Vec<_> =
        std::iter::from_fn(|| desk.mailbox.command(crate::whatsapp::model::Command::Logout)).collect();
    assert_eq!(answers.len(), 256);
    drop(desk.inbox.queue.try_recv().unwrap());
    assert!(desk.mailbox.command(crate::whatsapp::model::Command::Logout).is_some());
    assert!(desk.mailbox.command(crate::whatsapp::model::Command::Logout).is_none());
}
