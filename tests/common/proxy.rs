//! A proxy that harms HTTP on purpose: it knows where a request and its answer end, so it can lose an answer after the
//! request was done, cut one, answer by itself, stall or hang up.
//!
//! It speaks to both sides one exchange per connection, to the server under the `Host` that the client wrote, so that
//! signatures stay valid.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

/// What happens to one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It takes that much longer.
    Delay(Duration),
    /// The server never hears of it; the proxy answers with this status.
    Refuse(u16),
    /// The server does it; the proxy answers with this status.
    Fail(u16),
    /// The server never hears of it; the connection is reset.
    ResetBefore,
    /// The server does it; the connection is reset instead of an answer.
    ResetAfter,
    /// Head and half of the body of the answer, then the connection ends.
    Truncate,
    /// One bit of the body of the answer is wrong.
    Corrupt,
    /// The server never hears of it, and the client hears nothing until it gives up (at most a minute).
    Stall,
}

/// Which exchange gets which fault.
pub enum Plan {
    /// All the same.
    Always(Fault),
    /// One after the other; then nothing.
    Each(VecDeque<Fault>),
    /// By chance: that many of a hundred exchanges, with any of these.
    Seeded { random: Box<ChaCha8Rng>, percent: u64, faults: Vec<Fault> },
}

impl Plan {
    pub fn each(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::Each(faults.into_iter().collect())
    }

    pub fn seeded(seed: u64, percent: u64, faults: &[Fault]) -> Self {
        Self::Seeded { random: Box::new(ChaCha8Rng::seed_from_u64(seed)), percent, faults: faults.to_vec() }
    }

    fn next(&mut self) -> Fault {
        match self {
            Self::Always(fault) => *fault,
            Self::Each(faults) => faults.pop_front().unwrap_or(Fault::Pass),
            Self::Seeded { random, percent, faults } => {
                let (chance, which) = (random.next_u64() % 100, random.next_u64());
                let which = faults.get(usize::try_from(which % faults.len() as u64).unwrap());
                if chance < *percent { *which.unwrap() } else { Fault::Pass }
            }
        }
    }
}

/// A proxy in front of one server. Ends with the value.
pub struct FaultProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    exchanges: AtomicUsize,
    faults: AtomicUsize,
    is_stopped: AtomicBool,
}

impl FaultProxy {
    /// In front of `upstream`, harmless until there is a plan.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(Plan::Always(Fault::Pass)),
            exchanges: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (Ok(client), shared) = (client, Arc::clone(&accepting)) else { continue };
                // A side that hangs up ends the exchange; who cares sees it.
                thread::spawn(move || drop(shared.exchange(client)));
            }
        });
        Self { address, shared }
    }

    pub fn set_plan(&self, plan: Plan) {
        *self.shared.plan() = plan;
    }

    /// Exchanges so far.
    pub fn exchanges(&self) -> usize {
        self.shared.exchanges.load(Ordering::Relaxed)
    }

    /// How many of them were harmed.
    pub fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_nodelay(true)?;
        let Some(request) = Request::read(&mut client)? else { return Ok(()) };
        let fault = self.plan().next();
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        if fault != Fault::Pass {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        match fault {
            Fault::Pass => client.write_all(&self.forward(&request)?),
            Fault::Delay(time) => {
                thread::sleep(time);
                client.write_all(&self.forward(&request)?)
            }
            Fault::Refuse(status) => answer(&mut client, status),
            Fault::Fail(status) => self.forward(&request).and_then(|_| answer(&mut client, status)),
            Fault::ResetBefore => reset(&client),
            Fault::ResetAfter => self.forward(&request).and_then(|_| reset(&client)),
            Fault::Truncate => {
                let whole = self.forward(&request)?;
                let head = head_length(&whole).unwrap_or(whole.len());
                client.write_all(&whole[..head + (whole.len() - head) / 2])
            }
            Fault::Corrupt => {
                let mut whole = self.forward(&request)?;
                let head = head_length(&whole).unwrap_or(whole.len());
                let middle = head + (whole.len() - head) / 2;
                if let Some(byte) = whole.get_mut(middle) {
                    *byte ^= 1;
                }
                client.write_all(&whole)
            }
            // The client hangs up, or patience ends.
            Fault::Stall => client.read(&mut [0]).map(drop),
        }
    }

    /// The server's whole answer.
    fn forward(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.upstream)?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.set_nodelay(true)?;
        server.write_all(request.head.as_bytes())?;
        server.write_all(&request.body)?;
        let mut whole = Vec::new();
        server.read_to_end(&mut whole)?;
        Ok(whole)
    }
}

/// A whole request.
pub struct Request {
    /// With the empty line at its end.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads a request, answers its `Expect`, and asks the server to close the connection after it.
    pub fn read(client: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        let length = loop {
            if let Some(length) = head_length(&bytes) {
                break length;
            }
            match client.read(&mut piece)? {
                0 => return Ok(None),
                length => bytes.extend_from_slice(&piece[..length]),
            }
        };
        let mut body = bytes.split_off(length);
        let head = String::from_utf8(bytes).map_err(io::Error::other)?;
        let value_of = |name| header(&head, name);
        if value_of("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        assert!(value_of("transfer-encoding").is_none(), "our clients tell the length");
        let wanted = value_of("content-length").map_or(0, |length| length.parse().unwrap());
        while body.len() < wanted {
            match client.read(&mut piece)? {
                0 => return Ok(None),
                length => body.extend_from_slice(&piece[..length]),
            }
        }
        let is_kept = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default();
            !name.eq_ignore_ascii_case("expect") && !name.eq_ignore_ascii_case("connection")
        };
        let lines: Vec<&str> = head.trim_end().lines().filter(is_kept).collect();
        Ok(Some(Self { head: format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")), body }))
    }
}

/// The value of a header.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Where the body begins.
fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4)
}

fn answer(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let body = "<Error><Code>Injected</Code></Error>";
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status} Injected\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Closes with RST.
fn reset(client: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?)
}

const PATIENCE: Duration = Duration::from_secs(60);
