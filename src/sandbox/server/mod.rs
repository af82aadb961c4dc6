//! The sandbox as a process part: threads, sockets and clocks around the sans-IO service and phones.
//!
//! Threads: `sbx-accept` takes connections, one `sbx-conn` per connection, `sbx-phones` lets phones handle what they
//! are sent, `sbx-tick` lets deadlines pass, and the control API's own. Everything listens on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rand_core::OsRng;
use rustls::ServerConfig;

use super::{
    control,
    link::NoiseIdentity,
    service::{Service, ServiceOptions},
};
use crate::{
    api::http::{HttpError, HttpOptions, HttpServer},
    whatsapp::{binary::Node, keys::PublicKey},
};

mod connection;
mod shared;
mod tls;

pub(super) use shared::{Shared, lock};

/// Where the sandbox listens and how its service behaves.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Websocket of the simulated service; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Control API; port 0 takes a free one.
    pub control: SocketAddr,
    /// Behaviour of the service.
    pub service: ServiceOptions,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen: any, control: any, service: ServiceOptions::default() }
    }
}

/// Why the sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("the sandbox cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS certificate cannot be made.
    #[error("the sandbox's certificate cannot be made")]
    Certificate(#[source] rcgen::Error),
    /// The TLS settings are refused.
    #[error("the sandbox's TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The control API does not start.
    #[error("the sandbox's control API does not start")]
    Control(#[source] HttpError),
    /// A thread cannot be made.
    #[error("the sandbox cannot make a thread")]
    Thread(#[source] std::io::Error),
}

/// A running sandbox. Accounts and links live as long as it does: sessions survive a restart of the worker, not of
/// the sandbox.
pub struct Sandbox {
    /// `WHATSAPP_URL` for clients.
    pub whatsapp_url: String,
    /// `WHATSAPP_CA_FILE` content for clients.
    pub ca_pem: String,
    /// `WHATSAPP_NOISE_ROOT_KEY` for clients.
    pub noise_root: PublicKey,
    /// Control API.
    pub control_url: String,
    shared: Arc<Shared>,
    listen: SocketAddr,
    control: Option<HttpServer>,
    stop_tick: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts everything.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: SandboxOptions) -> Result<Self, StartError> {
        let (tls, ca_pem) = tls::server_config()?;
        let bind = |source| StartError::Bind { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).map_err(bind)?;
        let listen = listener.local_addr().map_err(bind)?;
        let (phone_queue, phone_work) = unbounded();
        let (stop_tick, ticks) = bounded(1);
        let unix_s = std::time::UNIX_EPOCH.elapsed().map(|since| since.as_secs()).unwrap_or_default();
        let identity = NoiseIdentity::new(unix_s, &mut OsRng);
        let noise_root = identity.root();
        let service = Service::new(options.service, Box::new(OsRng));
        let shared = Arc::new(Shared::new(service, identity, phone_queue));
        let whatsapp_url = format!("wss://127.0.0.1:{}/ws/chat", listen.port());
        let info = control::Info {
            whatsapp_url: whatsapp_url.clone(),
            ca_pem: ca_pem.clone(),
            noise_root: hex(&noise_root.0),
        };
        let threads = vec![
            spawn("sbx-accept", {
                let shared = shared.clone();
                move || accept(&shared, &listener, &tls)
            })?,
            spawn("sbx-phones", {
                let shared = shared.clone();
                move || run_phones(&shared, &phone_work)
            })?,
            spawn("sbx-tick", {
                let shared = shared.clone();
                move || tick(&shared, &ticks)
            })?,
        ];
        let mut http = HttpOptions::new("sbx-control", options.control);
        http.threads = CONTROL_THREADS;
        let control =
            HttpServer::start(http, control::handler(shared.clone(), info)).map_err(StartError::Control)?;
        let control_url = format!("http://{}", control.local_addr());
        let control = Some(control);
        Ok(Self {
            whatsapp_url,
            ca_pem,
            noise_root,
            control_url,
            shared,
            listen,
            control,
            stop_tick,
            threads,
        })
    }

    /// The noise root as `WHATSAPP_NOISE_ROOT_KEY` wants it: 64 hex digits.
    #[must_use]
    pub fn noise_root_hex(&self) -> String {
        hex(&self.noise_root.0)
    }

    /// Where everything is and what clients must trust, as one line of JSON.
    #[must_use]
    pub fn describe(&self) -> String {
        serde_json::json!({
            "whatsappUrl": self.whatsapp_url,
            "controlUrl": self.control_url,
            "noiseRootKey": self.noise_root_hex(),
            "caPem": self.ca_pem,
        })
        .to_string()
    }

    /// Ends all connections and threads.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        if self.shared.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(control) = self.control.take() {
            control.stop(STOP_DEADLINE);
        }
        self.shared.end_all();
        let _ = self.stop_tick.send(());
        // Wakes `accept`, which then sees that it should stop.
        let _ = TcpStream::connect_timeout(&self.listen, STOP_DEADLINE);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.halt();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, tls: &Arc<ServerConfig>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: others end, and then it goes on.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let (shared, tls) = (shared.clone(), tls.clone());
        let thread = std::thread::Builder::new().name("sbx-conn".to_owned()).stack_size(CONNECTION_STACK);
        if thread.spawn(move || connection::serve(&shared, stream, tls)).is_err() {
            log::warn!("the sandbox cannot make a thread for a connection");
        }
    }
}

/// Lets the phones handle what they are sent. Ends a moment after the sandbox stops.
fn run_phones(shared: &Shared, work: &Receiver<(u32, Arc<Node>)>) {
    while !shared.stopping.load(Ordering::Acquire) {
        let Ok(first) = work.recv_timeout(PHONES_STOP_CHECK) else { continue };
        shared.phones(|phones, ctx| {
            // A bounded part at a time: commands of the control API get their turn in between.
            for (account, node) in std::iter::once(first).chain(work.try_iter().take(PHONE_BATCH)) {
                if let Some(phone) = phones.get_mut(account) {
                    phone.handle(&node, ctx);
                }
            }
        });
        shared.progressed();
    }
}

fn tick(shared: &Shared, stop: &Receiver<()>) {
    while stop.recv_timeout(TICK).is_err() {
        let now = shared.now();
        shared.service(None, |service| service.tick(now));
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// TLS and websocket need less than half of it, in unoptimised builds too.
const CONNECTION_STACK: usize = 512 * 1024;

/// Long polls hold a thread each.
const CONTROL_THREADS: usize = 24;

const PHONE_BATCH: usize = 64;
const PHONES_STOP_CHECK: Duration = Duration::from_millis(200);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// Fine enough for delays in tests, cheap enough for a thousand connections.
const TICK: Duration = Duration::from_millis(50);
