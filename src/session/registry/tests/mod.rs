//! Sessions against the sandbox: real threads, sockets, TLS, store and engine.

mod measure;
mod panics;

use serde_json::{Value, json};

use super::*;
use crate::{
    sandbox::{Sandbox, SandboxOptions},
    session::SessionError,
    storage::local::{SessionPatch, SessionStore, StoredEvent},
    whatsapp::{
        engine::Engine,
        model::{Command, CommandError, Reply},
    },
};

const SOON: Duration = Duration::from_secs(30);

/// A sandbox, a store and a registry that connects to it.
struct Bench {
    registry: Registry,
    sandbox: Sandbox,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::start(SandboxOptions::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &sandbox.ca_pem).unwrap();
        let registry = open(&sandbox, dir.path());
        Self { registry, sandbox, dir }
    }

    /// Stops the registry cleanly and opens it again.
    fn restart(&mut self) {
        let settings = settings(&self.sandbox, self.dir.path());
        self.restart_with(settings);
    }

    fn restart_with(&mut self, settings: SessionSettings) {
        assert_eq!(self.registry.shutdown(SOON), Vec::<String>::new());
        let Self { registry, sandbox, dir } = self;
        let _ = std::mem::replace(registry, empty(sandbox, dir.path()));
        let store = LocalStore::open(&dir.path().join("state")).unwrap();
        *registry = Registry::open(store, settings).unwrap();
    }

    /// How many companions this phone lists.
    fn devices(&self, phone: &str) -> usize {
        let url = format!("{}/phones/{phone}", self.sandbox.control_url);
        let shown = ureq::get(&url).call().unwrap().body_mut().read_json::<Value>().unwrap();
        shown["data"]["devices"].as_array().unwrap().len()
    }

    fn control(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.sandbox.control_url);
        ureq::post(&url).send_json(body).unwrap().body_mut().read_json::<Value>().unwrap()["data"].take()
    }

    fn phone(&self) -> String {
        let phone = self.control("/phones", json!({}));
        phone["phone"].as_str().unwrap().trim_start_matches('+').to_owned()
    }

    /// A new session, scanned by a new phone and logged in.
    fn paired(&self, id: &str) -> (SessionHandle, String) {
        let (session, _) = self.registry.create(id, "user-1", None).unwrap();
        let phone = self.phone();
        self.pair(&session, &phone);
        (session, phone)
    }

    fn pair(&self, session: &SessionHandle, phone: &str) {
        session.connect().unwrap();
        let shown = until(session, SessionStatus::QrRequired);
        self.control(&format!("/phones/{phone}/scan"), json!({"qr": shown.qr.unwrap().text}));
        until(session, SessionStatus::Connected);
    }

    fn fault(&self, phone: &str, fault: Value) {
        self.control(&format!("/phones/{phone}/faults"), fault);
    }
}

fn settings(sandbox: &Sandbox, dir: &std::path::Path) -> SessionSettings {
    SessionSettings {
        url: sandbox.whatsapp_url.clone(),
        noise_root: sandbox.noise_root,
        ca_file: Some(dir.join("ca.pem")),
        proxy: None,
        version: [2, 3000, 1],
        device_name: "test".into(),
        max_sessions: 50,
    }
}

fn open(sandbox: &Sandbox, dir: &std::path::Path) -> Registry {
    let store = LocalStore::open(&dir.join("state")).unwrap();
    Registry::open(store, settings(sandbox, dir)).unwrap()
}

/// Stands in while the real store is closed, for it can only be open once.
fn empty(sandbox: &Sandbox, dir: &std::path::Path) -> Registry {
    let store = LocalStore::open(&dir.join("other")).unwrap();
    Registry::open(store, settings(sandbox, dir)).unwrap()
}

fn until(session: &SessionHandle, status: SessionStatus) -> SessionSnapshot {
    let shown = session.wait_until(SOON, |shown| shown.status == status);
    assert_eq!(shown.status, status, "{:?}", shown.error);
    shown
}

fn statuses(registry: &Registry, session: &SessionHandle) -> Vec<String> {
    // Behind every status that is on its way to the disk.
    registry.store().update_session(session.key(), SessionPatch::default()).unwrap();
    let events: Vec<StoredEvent> = registry.store().events(session.key(), 0, 1000).unwrap();
    assert_eq!(
        events.iter().map(|event| event.seq).collect::<Vec<_>>(),
        (1..=events.len() as u64).collect::<Vec<_>>()
    );
    let status = |event: StoredEvent| {
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        (event.kind == "session-status").then(|| payload["status"].as_str().unwrap().to_owned())
    };
    let mut statuses: Vec<_> = events.into_iter().filter_map(status).collect();
    statuses.dedup();
    statuses
}

#[test]
fn a_session_is_scanned_logs_in_and_does_so_again_after_a_restart_without_a_qr() {
    let mut bench = Bench::new();
    let (session, phone) = bench.paired("a");
    let shown = session.snapshot();
    assert_eq!(shown.phone_number, Some(format!("+{phone}")));
    assert!(shown.qr.is_none() && shown.connected_since_ms.is_some() && shown.last_activity_ms.is_some());
    assert!(session.wait_until(SOON, |shown| shown.ready).ready);
    assert!(session.wait_event(0, SOON));
    drop(session);
    bench.restart();
    let session = bench.registry.get("a").unwrap();
    assert_eq!(session.status(), SessionStatus::Disconnected);
    assert_eq!(session.snapshot().phone_number, Some(format!("+{phone}")));
    bench.registry.start_all();
    until(&session, SessionStatus::Connected);
    let expected = ["connecting", "qr_required", "connecting", "connected", "connecting", "connected"];
    assert_eq!(statuses(&bench.registry, &session), expected);
    assert_eq!(bench.registry.counts(), (1, 1));
}

#[test]
fn many_connects_at_once_make_one_thread_and_one_connection() {
    let bench = Bench::new();
    let (session, _) = bench.registry.create("one-flight", "user-1", None).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| session.connect().unwrap());
        }
    });
    until(&session, SessionStatus::QrRequired);
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
        let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
        name.is_ok_and(|name| name.trim() == "wa-one-flight")
    });
    assert_eq!(threads.count(), 1);
    assert_eq!(statuses(&bench.registry, &session), ["connecting", "qr_required"]);
}

#[test]
fn a_dropped_socket_is_reconnected_and_a_restart_asked_by_the_server_too() {
    let bench = Bench::new();
    let (session, phone) = bench.paired("a");
    for fault in [json!({"fault": "drop"}), json!({"fault": "stream-error", "code": 515})] {
        let since = session.snapshot().connected_since_ms;
        bench.fault(&phone, fault);
        let back = session.wait_until(SOON, |shown| {
            shown.status == SessionStatus::Connected && shown.connected_since_ms != since
        });
        assert_eq!(back.status, SessionStatus::Connected, "{:?}", back.error);
    }
    assert!(statuses(&bench.registry, &session).contains(&"reconnecting".to_owned()));
}

#[test]
fn a_session_replaced_elsewhere_stops_and_keeps_its_keys() {
    let bench = Bench::new();
    let (session, phone) = bench.paired("a");
    bench.fault(&phone, json!({"fault": "replaced"}));
    let shown = until(&session, SessionStatus::Error);
    assert!(shown.error.unwrap().contains("elsewhere"));
    assert_eq!(shown.phone_number, Some(format!("+{phone}")));
    session.connect().unwrap();
    until(&session, SessionStatus::Connected);
    bench.fault(&phone, json!({"fault": "replaced"}));
    until(&session, SessionStatus::Error);
    session.disconnect().unwrap();
    assert!(!bench.registry.store().sessions().unwrap()[0].wanted);
    session.connect().unwrap();
    until(&session, SessionStatus::Connected);
}

#[test]
fn an_unlinked_session_is_logged_out_and_connects_with_a_new_qr() {
    let bench = Bench::new();
    let (session, phone) = bench.paired("a");
    bench.control(&format!("/phones/{phone}/unlink"), json!({}));
    let shown = until(&session, SessionStatus::LoggedOut);
    assert_eq!(shown.phone_number, None);
    session.connect().unwrap();
    until(&session, SessionStatus::QrRequired);
}

#[test]
fn logout_unlinks_at_the_phone_and_forgets_the_keys() {
    let bench = Bench::new();
    let (session, _) = bench.paired("a");
    assert!(session.logout().unwrap());
    assert_eq!(session.status(), SessionStatus::LoggedOut);
    let state = SessionStore::new(bench.registry.store().clone(), session.key());
    assert!(!Engine::is_paired(&state).unwrap());
}

#[test]
fn a_disconnected_session_connects_to_be_unlinked() {
    let bench = Bench::new();
    let (out, out_phone) = bench.paired("out");
    let (_, gone_phone) = bench.paired("gone");
    for session in ["out", "gone"] {
        bench.registry.get(session).unwrap().disconnect().unwrap();
    }
    assert_eq!((bench.devices(&out_phone), bench.devices(&gone_phone)), (1, 1));
    assert!(out.logout().unwrap());
    assert!(bench.registry.delete("gone").unwrap());
    assert_eq!((bench.devices(&out_phone), bench.devices(&gone_phone)), (0, 0));
    assert_eq!(out.status(), SessionStatus::LoggedOut);
    assert!(!bench.registry.store().sessions().unwrap()[0].wanted);
    // Nothing is linked any more, so that nothing needs a connection.
    assert!(out.logout().unwrap());
    assert!(!statuses(&bench.registry, &out).ends_with(&["connecting".to_owned()]));
}

#[test]
fn a_logout_that_cannot_reach_whatsapp_says_so_and_goes_on() {
    let mut bench = Bench::new();
    drop(bench.paired("a"));
    let mut nowhere = settings(&bench.sandbox, bench.dir.path());
    nowhere.url = "wss://127.0.0.1:1/".into();
    bench.restart_with(nowhere);
    let session = bench.registry.get("a").unwrap();
    assert!(!session.logout().unwrap());
    assert_eq!(session.status(), SessionStatus::LoggedOut);
    let state = SessionStore::new(bench.registry.store().clone(), session.key());
    assert!(!Engine::is_paired(&state).unwrap());
}

#[test]
fn disconnect_and_restart_keep_the_pairing_and_other_sessions() {
    let bench = Bench::new();
    let (a, _) = bench.paired("a");
    let (b, _) = bench.paired("b");
    a.disconnect().unwrap();
    assert_eq!(a.status(), SessionStatus::Disconnected);
    let pending = a.command(Command::Logout);
    assert!(matches!(pending, Err(SessionError::NotConnected)));
    a.restart().unwrap();
    until(&a, SessionStatus::Connected);
    assert_eq!(b.status(), SessionStatus::Connected);
    assert_eq!(statuses(&bench.registry, &b).last().unwrap(), "connected");
}

#[test]
fn a_deleted_session_leaves_nothing_and_its_id_is_free() {
    let bench = Bench::new();
    let (_, _) = bench.paired("a");
    bench.registry.delete("a").unwrap();
    assert!(matches!(bench.registry.get("a"), Err(SessionError::NotFound)));
    assert!(bench.registry.store().sessions().unwrap().is_empty());
    let (session, fresh) = bench.registry.create("a", "user-2", None).unwrap();
    assert!(fresh && session.snapshot().phone_number.is_none());
}

#[test]
fn create_is_idempotent_for_its_user_and_bounded() {
    let bench = Bench::new();
    let (_, fresh) = bench.registry.create("a", "user-1", Some("Shop")).unwrap();
    assert!(fresh);
    let (session, fresh) = bench.registry.create("a", "user-1", None).unwrap();
    assert!(!fresh);
    assert_eq!(session.snapshot().name.as_deref(), Some("Shop"));
    assert!(matches!(bench.registry.create("a", "user-2", None), Err(SessionError::OtherUser)));
    for n in 1..50 {
        bench.registry.create(&format!("s{n}"), "user-1", None).unwrap();
    }
    assert!(matches!(bench.registry.create("z", "user-1", None), Err(SessionError::TooMany { max: 50 })));
    assert!(!bench.registry.create("a", "user-1", None).unwrap().1);
}

#[test]
fn an_unreachable_server_is_shown_with_words_and_tried_again() {
    let bench = Bench::new();
    let mut nowhere = settings(&bench.sandbox, bench.dir.path());
    nowhere.url = "wss://127.0.0.1:1/".into();
    let store = LocalStore::open(&bench.dir.path().join("other")).unwrap();
    let registry = Registry::open(store, nowhere).unwrap();
    let (session, _) = registry.create("a", "user-1", None).unwrap();
    session.connect().unwrap();
    let shown = session.wait_until(SOON, |shown| shown.error.is_some());
    assert_eq!(shown.status, SessionStatus::Connecting);
    assert!(shown.error.unwrap().contains("cannot reach 127.0.0.1"));
    let pending = session.command(Command::Logout).unwrap();
    assert!(matches!(pending.wait(SOON), Some(Reply::Failed(CommandError::WrongState(_)))));
    session.disconnect().unwrap();
}

#[test]
fn a_server_with_another_certificate_or_noise_root_is_not_trusted() {
    let bench = Bench::new();
    let mut stranger = settings(&bench.sandbox, bench.dir.path());
    stranger.ca_file = None;
    let store = LocalStore::open(&bench.dir.path().join("other")).unwrap();
    let registry = Registry::open(store, stranger).unwrap();
    let (session, _) = registry.create("a", "user-1", None).unwrap();
    session.connect().unwrap();
    let shown = session.wait_until(SOON, |shown| shown.error.is_some());
    assert!(shown.error.unwrap().contains("TLS with 127.0.0.1 failed"));
    session.disconnect().unwrap();
}

#[test]
fn after_shutdown_nothing_starts() {
    let bench = Bench::new();
    let (session, _) = bench.paired("a");
    assert_eq!(bench.registry.shutdown(SOON), Vec::<String>::new());
    assert_eq!(session.connect(), Err(SessionError::Stopping));
    assert!(matches!(bench.registry.create("b", "user-1", None), Err(SessionError::Stopping)));
    assert!(bench.registry.store().sessions().unwrap()[0].wanted);
}
