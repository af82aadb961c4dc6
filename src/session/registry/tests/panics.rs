//! A bug inside one session, forced through what its engine is given: a random source that panics when it is told to.

use rand_core::{CryptoRng, Error, OsRng, RngCore};

use super::*;
use crate::whatsapp::{
    jid::Jid,
    model::{OutgoingContent, SendId, SendRequest},
};

/// Random bytes of the operating system, until it is armed: then one panic instead.
struct Cracked(Arc<AtomicBool>);

impl RngCore for Cracked {
    fn next_u32(&mut self) -> u32 {
        assert!(!self.0.swap(false, Ordering::SeqCst), "forced by the test");
        OsRng.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        assert!(!self.0.swap(false, Ordering::SeqCst), "forced by the test");
        OsRng.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "forced by the test");
        OsRng.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Cracked {}

fn text(to: &str) -> Command {
    let content = OutgoingContent::Text { body: "hello".into(), quote: None, mentions: vec![] };
    Command::Send(SendRequest { to: Jid::pn(to.to_owned()), id: SendId::Generate, content })
}

fn send(session: &SessionHandle, to: &str) -> Reply {
    session.command(text(to)).unwrap().wait(SOON).unwrap()
}

#[test]
fn a_panic_inside_a_live_session_leaves_the_others_connected_and_the_session_comes_back() {
    let armed = Arc::new(AtomicBool::new(false));
    let mut bench = Bench::new();
    let store = LocalStore::open(&bench.dir.path().join("cracked")).unwrap();
    let trigger = Arc::clone(&armed);
    let entropy: Entropy = Box::new(move |id| match id {
        "hurt" => Box::new(Cracked(Arc::clone(&trigger))),
        _ => Box::new(OsRng),
    });
    bench.registry =
        Registry::open_with(store, settings(&bench.sandbox, bench.dir.path()), entropy, None).unwrap();
    let (hurt, hurt_phone) = bench.paired("hurt");
    let neighbours = ["left", "right"].map(|id| bench.paired(id).0);
    let since = |session: &SessionHandle| session.snapshot().connected_since_ms;
    let (hurt_since, others_since) = (since(&hurt), neighbours.each_ref().map(since));
    let friend = bench.phone();

    armed.store(true, Ordering::SeqCst);
    let reply = send(&hurt, &friend);
    assert!(!armed.load(Ordering::SeqCst), "the engine took no randomness");
    assert!(matches!(reply, Reply::Failed(CommandError::ConnectionLost)), "{reply:?}");
    for neighbour in &neighbours {
        assert!(matches!(send(neighbour, &hurt_phone), Reply::Sent { .. }));
    }
    let back = hurt.wait_until(SOON, |shown| {
        shown.status == SessionStatus::Connected && shown.connected_since_ms != hurt_since
    });
    assert_eq!(back.status, SessionStatus::Connected, "{:?}", back.error);
    assert!(matches!(send(&hurt, &friend), Reply::Sent { .. }));
    assert!(
        statuses(&bench.registry, &hurt).ends_with(&["error", "connecting", "connected"].map(str::to_owned))
    );
    for (neighbour, since_then) in neighbours.iter().zip(others_since) {
        assert_eq!((neighbour.status(), since(neighbour)), (SessionStatus::Connected, since_then));
    }
    let found = ureq::get(&format!("{}/violations", bench.sandbox.control_url)).call().unwrap();
    let found = found.into_body().read_json::<Value>().unwrap();
    assert_eq!(found["data"]["violations"], json!([]), "{found}");
}
