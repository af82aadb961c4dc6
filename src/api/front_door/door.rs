//! The event loop: one thread, one `epoll`, every connection.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use log::{debug, error};
use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags, Timespec,
        epoll::{self, EventData, EventFlags},
        eventfd,
    },
};

use super::{
    Lane, Limits, SCRATCH_BYTES,
    accept::Acceptor,
    client::{Client, Phase},
    refusal::Refusal,
    slots::{Slots, Token},
    upstream::Upstream,
};

/// A running front door.
pub(in crate::api) struct DoorHandle {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// What the event loop and its handle share.
struct Shared {
    waker: OwnedFd,
    /// Set once: stop accepting now, be finished at this time.
    stop_at: Mutex<Option<Instant>>,
}

/// Everything the event loop owns.
pub(in crate::api) struct Door {
    pub(super) epoll: OwnedFd,
    pub(super) limits: Limits,
    pub(super) acceptor: Acceptor,
    pub(super) lanes: Vec<Lane>,
    /// The express lane, behind the lanes of the peers.
    pub(super) express: usize,
    pub(super) clients: Slots<Client>,
    pub(super) upstreams: Slots<Upstream>,
    /// Connections to tiny_http without a request, by lane.
    pub(super) idle: Vec<Vec<Token>>,
    /// Clients whose request waits for one, by lane, oldest first.
    pub(super) waiting: Vec<VecDeque<Token>>,
    /// Open connections by address.
    pub(super) per_address: HashMap<IpAddr, usize>,
    /// Request bytes held for all clients.
    pub(super) buffered: usize,
    /// The one read buffer; taken out while in use.
    pub(super) scratch: Vec<u8>,
    /// Time of the current turn.
    pub(super) now: Instant,
    /// No deadline lies before this.
    next_sweep: Option<Instant>,
    /// No new requests; finished at this time.
    pub(super) stop_at: Option<Instant>,
    shared: Arc<Shared>,
}

impl Door {
    /// Prepares a front door on a bound listener. `lanes`: the one for loopback, the one for other peers (when there
    /// can be others), the express lane. Connects to tiny_http, so its side must be running.
    ///
    /// # Errors
    /// Whatever the system says when sockets or `epoll` cannot be had.
    pub(in crate::api) fn new(listener: TcpListener, lanes: Vec<Lane>, limits: Limits) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &waker, WAKER, EventFlags::IN)?;
        let acceptor = Acceptor::new(listener)?;
        acceptor.watch(&epoll)?;
        let mut door = Self {
            epoll,
            limits,
            acceptor,
            clients: Slots::new(),
            upstreams: Slots::new(),
            idle: lanes.iter().map(|_| Vec::new()).collect(),
            waiting: lanes.iter().map(|_| VecDeque::new()).collect(),
            express: lanes.len() - 1,
            lanes,
            per_address: HashMap::new(),
            buffered: 0,
            scratch: vec![0; SCRATCH_BYTES],
            now: Instant::now(),
            next_sweep: None,
            stop_at: None,
            shared: Arc::new(Shared { waker, stop_at: Mutex::new(None) }),
        };
        for lane in 0..door.lanes.len() {
            for _ in 0..door.lanes[lane].connections {
                door.add_upstream(lane)?;
            }
        }
        Ok(door)
    }

    /// Starts the thread. `on_failure` runs when the loop ends without having been asked to.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(in crate::api) fn start(
        self,
        name: &str,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> io::Result<DoorHandle> {
        let (shared, local_addr) = (self.shared.clone(), self.acceptor.local_addr()?);
        let thread = std::thread::Builder::new()
            .name(format!("{name}-door"))
            .stack_size(DOOR_STACK_BYTES)
            .spawn(move || {
                let mut door = self;
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| door.run()));
                match outcome {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error!("the front door failed: {error}"),
                    Err(_) => error!("the front door panicked"),
                }
                on_failure();
            })?;
        Ok(DoorHandle { shared, local_addr, thread: Some(thread) })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.now = Instant::now();
            for event in &events {
                self.handle_event(event.data.u64(), event.flags)?;
            }
            if self.acceptor.resume_at().is_some_and(|at| at <= self.now) {
                self.acceptor.resume(&self.epoll, self.now);
            }
            if self.next_sweep.is_some_and(|at| at <= self.now) {
                self.sweep();
            }
            if self.stop_at.is_some_and(|at| at <= self.now || self.clients.len() == 0) {
                return Ok(());
            }
        }
    }

    fn handle_event(&mut self, data: u64, flags: EventFlags) -> io::Result<()> {
        if data == WAKER_RAW {
            self.begin_stop();
        } else if data == LISTENER_RAW {
            self.accept();
        } else if data & UPSTREAM_BIT != 0 {
            self.on_upstream(Token::from_u64(data & !UPSTREAM_BIT), flags)?;
        } else {
            self.on_client(Token::from_u64(data), flags)?;
        }
        Ok(())
    }

    /// Until the next deadline; `None` waits for events only.
    fn timeout(&self) -> Option<Timespec> {
        let next = [self.next_sweep, self.acceptor.resume_at(), self.stop_at].into_iter().flatten().min()?;
        // A millisecond more than needed, so that the deadline has passed when we wake.
        let wait = next.saturating_duration_since(self.now) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    /// Makes sure the loop wakes at `at`.
    pub(super) fn note_deadline(&mut self, at: Instant) {
        self.next_sweep = Some(self.next_sweep.map_or(at, |known| known.min(at)));
    }

    /// Ends every connection whose time is up and finds the next deadline.
    fn sweep(&mut self) {
        let now = self.now;
        let late: Vec<Token> = self
            .clients
            .iter()
            .filter(|(_, client)| client.deadline <= now || client.write_deadline.is_some_and(|at| at <= now))
            .map(|(token, _)| token)
            .collect();
        for token in late {
            self.time_out(token);
        }
        self.next_sweep = self
            .clients
            .iter()
            .map(|(_, client)| client.write_deadline.map_or(client.deadline, |at| at.min(client.deadline)))
            .min();
    }

    fn time_out(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(token) else { return };
        if client.has_output() {
            // It does not read what it asked for.
            return self.remove_client(token);
        }
        let refusal = match client.phase {
            Phase::Head { .. } if client.input.is_empty() => return self.remove_client(token),
            Phase::Head { .. } => Refusal::too_slow("the request head did not arrive in time"),
            Phase::Body(_) => Refusal::too_slow("the request body did not arrive in time").about("body"),
            Phase::Queued => Refusal::busy("every handler is busy; the request was not started"),
            Phase::Relaying(_) | Phase::Closing | Phase::Lingering { .. } => {
                return self.remove_client(token);
            }
        };
        self.refuse(token, &refusal);
        self.drive(token);
    }

    /// No new connections, no new requests; those under way may finish.
    fn begin_stop(&mut self) {
        let at = *self.shared.stop_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = at.filter(|_| self.stop_at.is_none()) else { return };
        debug!("the front door stops accepting");
        self.stop_at = Some(at);
        self.acceptor.close(&self.epoll);
        let _ = epoll::delete(&self.epoll, &self.shared.waker);
        let all: Vec<Token> = self.clients.iter().map(|(token, _)| token).collect();
        for token in all {
            let Some(client) = self.clients.get_mut(token) else { continue };
            client.close_after = true;
            if client.is_evictable() && client.input.is_empty() && !client.readable {
                self.remove_client(token);
            }
        }
    }

    /// Forgets a connection. An answer still under way to it is read and dropped.
    pub(super) fn remove_client(&mut self, token: Token) {
        let Some(client) = self.clients.remove(token) else { return };
        self.buffered -= client.charged;
        if let Some(count) = self.per_address.get_mut(&client.address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&client.address);
            }
        }
        match client.phase {
            Phase::Relaying(upstream) => {
                if let Some(entry) = self.upstreams.get_mut(upstream) {
                    entry.client = None;
                }
                // What is unread may be all that keeps the answer from ending.
                let _ = self.pump(upstream);
            }
            Phase::Queued => {
                if let Some(waiting) = self.waiting.get_mut(client.request_lane) {
                    waiting.retain(|other| *other != token);
                }
            }
            _ => {}
        }
        // Closing the socket takes it out of the epoll set.
    }

    /// Opens one more connection to tiny_http.
    pub(super) fn add_upstream(&mut self, lane: usize) -> io::Result<()> {
        let upstream = Upstream::connect(&self.lanes[lane].path, lane)?;
        let token = self.upstreams.insert(upstream);
        let upstream = self.upstreams.get_mut(token).expect("inserted above");
        let data = EventData::new_u64(token.to_u64() | UPSTREAM_BIT);
        epoll::add(&self.epoll, &upstream.stream, data, INPUT)?;
        self.idle[lane].push(token);
        Ok(())
    }

    /// Watches a connection for room to write as well, or no longer.
    pub(super) fn watch_output(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, data: u64) -> io::Result<()> {
        Ok(epoll::modify(epoll, fd, EventData::new_u64(data), INPUT | EventFlags::OUT)?)
    }
}

impl DoorHandle {
    /// Where it listens, with the real port.
    pub(in crate::api) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting and waits for requests under way, at most until `deadline`.
    pub(in crate::api) fn stop(&mut self, deadline: Instant) {
        let Some(thread) = self.thread.take() else { return };
        *self.shared.stop_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        let _ = rustix::io::write(self.shared.waker.as_fd(), &1u64.to_ne_bytes());
        let _ = thread.join();
    }
}

/// Stack of the door's thread; it parses at most 100 header fields on it.
const DOOR_STACK_BYTES: usize = 256 * 1024;

/// Events taken per `epoll_wait`.
const EVENTS_PER_TURN: usize = 256;

/// Input is edge-triggered: one event per arrival, none while we choose not to read.
pub(super) const INPUT: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// Marks tokens of connections to tiny_http.
const UPSTREAM_BIT: u64 = 1 << 63;

const WAKER_RAW: u64 = u64::MAX;
const LISTENER_RAW: u64 = u64::MAX - 1;
const WAKER: EventData = EventData::new_u64(WAKER_RAW);
/// Token of the listener.
pub(super) const LISTENER: EventData = EventData::new_u64(LISTENER_RAW);
/// For [`Door::watch_output`].
pub(super) fn upstream_data(token: Token) -> u64 {
    token.to_u64() | UPSTREAM_BIT
}
