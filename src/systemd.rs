//! Talks to systemd: ready, status, alive, stopping. Without systemd all of it does nothing.
//!
//! The watchdog is fed by what the worker is for: a thread asks the store thread and the API over its own port, and
//! tells systemd only when both answered. A worker that only seems to live is killed and started again.
//! Written out here because it is a datagram with a line of text. Spec: `sd_notify(3)`, `sd_watchdog_enabled(3)`.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// What the notifying thread asks.
pub struct Vitals {
    /// Whether store and API answer in time; waits for them.
    pub is_alive: Box<dyn Fn() -> bool + Send>,
    /// One line for `systemctl status`.
    pub status: Box<dyn Fn() -> String + Send>,
}

/// The connection to systemd.
pub struct Notifier {
    socket: Socket,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Says that the worker is ready, and from now on that it is alive. `None` when systemd did not start us, or not
    /// with `Type=notify`.
    pub fn start(vitals: Vitals) -> Option<Self> {
        let socket = Socket::from_env(std::env::var_os("NOTIFY_SOCKET")?.to_str()?)?;
        let watchdog = watchdog_interval(|name| std::env::var(name).ok(), std::process::id());
        Some(Self::with_socket(socket, watchdog, vitals))
    }

    fn with_socket(socket: Socket, watchdog: Option<Duration>, vitals: Vitals) -> Self {
        socket.send(&format!("READY=1\nSTATUS={}", (vitals.status)()));
        let (stop, stopped) = bounded(0);
        let in_thread = socket.clone();
        let thread = thread::Builder::new()
            .name("systemd".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || report(&in_thread, watchdog, &vitals, &stopped));
        if let Err(error) = &thread {
            log::error!("no thread to report to systemd, which will restart the worker: {error}");
        }
        Self { socket, stop: Some(stop), thread: thread.ok() }
    }

    /// Says that the worker is stopping. systemd's `TimeoutStopSec=` counts from here; its watchdog is off.
    pub fn stopping(mut self) {
        drop(self.stop.take());
        self.socket.send("STOPPING=1\nSTATUS=stopping");
        // It may be in the middle of a question that waits for its deadline.
        drop(self.thread.take());
    }
}

/// The thread's loop.
fn report(socket: &Socket, watchdog: Option<Duration>, vitals: &Vitals, stopped: &Receiver<()>) {
    let check_every = watchdog.map_or(CHECK_EVERY, |interval| (interval / 3).min(CHECK_EVERY));
    let pause = STATUS_EVERY.min(check_every);
    let mut was_alive = true;
    let mut checked = Instant::now();
    let mut told = String::new();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
        if checked.elapsed() < check_every {
            let status = (vitals.status)();
            if was_alive && status != told {
                socket.send(&format!("STATUS={status}"));
                told = status;
            }
            continue;
        }
        checked = Instant::now();
        let is_alive = (vitals.is_alive)();
        if is_alive {
            let alive = if watchdog.is_some() { "WATCHDOG=1\n" } else { "" };
            told = (vitals.status)();
            socket.send(&format!("{alive}STATUS={told}"));
        } else if was_alive {
            log::error!("store or API do not answer any more; systemd's watchdog will restart the worker");
            socket.send("STATUS=store or API do not answer");
        }
        was_alive = is_alive;
    }
}

/// Whether a worker's API at this address answers `GET /health`, within [`HEALTH_WAIT`].
pub(crate) fn is_healthy(api: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&api, HEALTH_WAIT)?;
        stream.set_read_timeout(Some(HEALTH_WAIT))?;
        stream.set_write_timeout(Some(HEALTH_WAIT))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; OK.len()];
        stream.read_exact(&mut start)?;
        Ok(start == *OK)
    };
    ask().unwrap_or(false)
}

/// How often systemd wants to hear of us. A watchdog that is meant for another process is not ours.
fn watchdog_interval(variable: impl Fn(&str) -> Option<String>, own_pid: u32) -> Option<Duration> {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(own_pid));
    let interval_us: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (is_ours && interval_us > 0).then(|| Duration::from_micros(interval_us))
}

/// systemd's end of a datagram socket.
#[derive(Clone)]
struct Socket(UnixAddr);

impl Socket {
    /// A path, or `@name` for an abstract socket.
    fn from_env(name: &str) -> Option<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddr::from_abstract_name(name),
            None => UnixAddr::from_pathname(name),
        };
        address.ok().map(Self)
    }

    fn send(&self, message: &str) {
        let sent =
            UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(message.as_bytes(), &self.0));
        if let Err(error) = sent {
            log::warn!("systemd could not be told: {error}");
        }
    }
}

/// How often store and API are asked, at least.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How soon the status line follows what it tells of.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// A healthy API answers within milliseconds.
const HEALTH_WAIT: Duration = Duration::from_secs(5);

const OK: &[u8; 12] = b"HTTP/1.1 200";

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn receive(socket: &UnixDatagram) -> io::Result<String> {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn systemd_hears_of_a_worker_that_is_ready_alive_and_stopping_and_not_of_one_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let answers = alive.clone();
        let vitals = Vitals {
            is_alive: Box::new(move || answers.load(Ordering::SeqCst)),
            status: Box::new(|| "2 of 3 sessions connected".to_owned()),
        };
        let socket = Socket::from_env(path.to_str().unwrap()).unwrap();
        let notifier = Notifier::with_socket(socket, Some(Duration::from_millis(60)), vitals);
        assert_eq!(receive(&systemd).unwrap(), "READY=1\nSTATUS=2 of 3 sessions connected");
        assert_eq!(receive(&systemd).unwrap(), "WATCHDOG=1\nSTATUS=2 of 3 sessions connected");
        alive.store(false, Ordering::SeqCst);
        let last =
            std::iter::repeat_with(|| receive(&systemd).unwrap()).find(|text| !text.starts_with("WATCHDOG"));
        assert_eq!(last.unwrap(), "STATUS=store or API do not answer");
        systemd.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(receive(&systemd).is_err(), "a worker that hangs does not feed the watchdog");
        notifier.stopping();
        assert_eq!(receive(&systemd).unwrap(), "STOPPING=1\nSTATUS=stopping");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let of = |pid: &'static str| {
            move |name: &str| Some(if name == "WATCHDOG_USEC" { "3000000" } else { pid }.to_owned())
        };
        assert_eq!(watchdog_interval(of("7"), 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog_interval(of("8"), 7), None);
        assert_eq!(watchdog_interval(|_| None, 7), None);
    }

    #[test]
    fn an_abstract_socket_is_reached_too() {
        let name = format!("whatsapp-worker-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Socket::from_env(&format!("@{name}")).unwrap().send("X=1");
        assert_eq!(receive(&systemd).unwrap(), "X=1");
    }

    #[test]
    fn nothing_that_listens_is_not_healthy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!is_healthy(address));
    }
}
