//! Delivery from a real store to a backend that answers by a script.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use super::*;
use crate::{
    config::{Config, Secret},
    storage::local::{ReplayFilter, SessionPatch},
};

/// A request as it came in.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: BTreeMap<String, String>,
    body: serde_json::Value,
}

/// Answers with the next status of the script, then with 200.
struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<VecDeque<u16>>>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (seen, script) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<VecDeque<u16>>>::default());
        let address = listener.local_addr().unwrap();
        let (to, from) = (Arc::clone(&seen), Arc::clone(&script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to, from) = (Arc::clone(&to), Arc::clone(&from));
                thread::spawn(move || while exchange(&stream, &to, &from).is_some() {});
            }
        });
        Self { address, seen, script }
    }

    fn answer(&self, statuses: &[u16]) {
        self.script.lock().unwrap().extend(statuses);
    }

    /// Everything that came, once there are so many.
    fn wait(&self, count: usize) -> Vec<Seen> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{} of {count} came: {seen:#?}", seen.len());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn exchange(stream: &TcpStream, seen: &Mutex<Vec<Seen>>, script: &Mutex<VecDeque<u16>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap();
    let status = script.lock().unwrap().pop_front().unwrap_or(200);
    seen.lock().unwrap().push(Seen { path, headers, body });
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}").ok()
}

struct Nobody;

impl Listener for Nobody {
    fn unknown_session(&self, _session_id: &str) {}

    fn is_ours(&self, _session: SessionKey) -> bool {
        true
    }

    fn tell_again(&self, _session: SessionKey) {}
}

struct Running {
    outbox: Arc<Outbox>,
    senders: Vec<JoinHandle<()>>,
}

fn start(store: &LocalStore, backend: &Backend) -> Running {
    let url = format!("http://{}", backend.address);
    let vars = [("BACKEND_URL", url.as_str()), ("WORKER_AUTH_TOKEN", "worker-token")];
    let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_env(vars).unwrap().0.backend.unwrap();
    let settings = OutboxSettings {
        dialect: Dialect::Guide,
        signing: vec![Secret::new("whsec-0123456789abcdef")],
        client: Client::new(&config, Duration::from_secs(5), 2).unwrap(),
    };
    let schedule = Schedule::new(&BTreeSet::from(["session-gap"]), None, 7);
    let outbox = Outbox::open(store, schedule, settings, "w-1".into()).unwrap();
    outbox.registered("w-1");
    let senders = (0..2)
        .map(|_| {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || outbox.work(&Nobody))
        })
        .collect();
    Running { outbox, senders }
}

impl Running {
    fn stop(self) {
        self.outbox.flush(Duration::from_secs(10));
        self.outbox.stop();
        self.senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
}

fn log(store: &LocalStore, session: SessionKey, kind: &'static str, payload: &str) {
    store.tell(session, SessionPatch::default(), (kind, payload.to_owned())).unwrap();
}

fn gap(store: &LocalStore, session: SessionKey, number: usize) {
    log(store, session, "session-gap", &format!(r#"{{"reason":"{number}"}}"#));
}

fn seqs(seen: &[Seen]) -> Vec<u64> {
    seen.iter().map(|seen| seen.headers["x-webhook-seq"].parse().unwrap()).collect()
}

#[test]
fn events_arrive_in_order_with_their_headers_and_a_restart_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start();
    let store = LocalStore::open(dir.path()).unwrap();
    let running = start(&store, &backend);
    let a = store.create_session("a", "u", None).unwrap().unwrap().key;
    log(&store, a, "session-status", r#"{"status":"connected","phoneNumber":"+6281"}"#);
    log(&store, a, "login", "{}");
    backend.wait(1);
    backend.answer(&[503]);
    (0..3).for_each(|number| gap(&store, a, number));
    let seen = backend.wait(5);
    assert_eq!(seqs(&seen), [1, 3, 3, 4, 5]);
    assert_eq!(seen[0].body["status"], "connected");
    assert_eq!(
        (seen[2].path.as_str(), seen[2].body["data"]["reason"].as_str()),
        ("/api/webhooks/session-gap", Some("0"))
    );
    let header = |at: usize, name: &str| seen[at].headers[name].clone();
    assert_eq!(header(0, "authorization"), "Bearer worker-token");
    assert_eq!((header(1, "x-webhook-attempt"), header(2, "x-webhook-attempt")), ("1".into(), "2".into()));
    assert_eq!(header(1, "x-webhook-event-id"), header(2, "x-webhook-event-id"));
    assert!(header(0, "x-webhook-signature").starts_with("t="));
    running.stop();
    // Nobody delivers meanwhile; the store is closed and opened.
    gap(&store, a, 3);
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    let running = start(&store, &backend);
    assert_eq!(seqs(&backend.wait(6)), [1, 3, 3, 4, 5, 6], "nothing that was delivered comes again");
    running.stop();
    drop(store);
    LocalStore::open(dir.path()).expect("the outbox does not keep the store open");
}

#[test]
fn a_refused_event_is_put_aside_and_comes_again_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start();
    let store = LocalStore::open(dir.path()).unwrap();
    let running = start(&store, &backend);
    let a = store.create_session("a", "u", None).unwrap().unwrap().key;
    backend.answer(&[422]);
    (0..2).for_each(|number| gap(&store, a, number));
    assert_eq!(seqs(&backend.wait(2)), [1, 2]);
    running.outbox.flush(Duration::from_secs(10));
    let (letters, total) = store.dead_letters(None, 0, 10).unwrap();
    assert_eq!((total, letters[0].event.seq, letters[0].status), (1, 1, 422));
    // Refused once more, then taken.
    for answer in [400, 200] {
        backend.answer(&[answer]);
        let (sessions, count) = store.replay_dead_letters(ReplayFilter::default()).unwrap();
        assert_eq!(count, 1);
        running.outbox.replay(&sessions);
        running.outbox.flush(Duration::from_secs(10));
    }
    let seen = backend.wait(4);
    assert_eq!(seqs(&seen), [1, 2, 1, 1]);
    assert_eq!(seen[3].headers["x-webhook-attempt"], "3");
    assert_eq!(store.dead_letters(None, 0, 10).unwrap().1, 0);
    running.stop();
}
