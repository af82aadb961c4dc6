//! New connections: accepted, counted, refused or exchanged for the one that has been silent longest.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use log::{debug, warn};
use rustix::{
    event::epoll::{self, EventFlags},
    io::Errno,
    net::{SocketFlags, acceptfrom_with},
};

use super::{
    client::{Client, counted_address},
    door::{Door, INPUT, LISTENER},
    refusal::Refusal,
    slots::Token,
};

/// The listening socket, and a file descriptor kept for the day there are none left.
pub(super) struct Acceptor {
    listener: Option<TcpListener>,
    spare: Option<OwnedFd>,
    resume_at: Option<Instant>,
    warned_at: Option<Instant>,
}

/// What one `accept` brought.
enum Accepted {
    Connection(TcpStream, IpAddr),
    /// That connection was lost; there may be more.
    Nothing,
    /// Nobody is waiting, or nobody can be let in now.
    Stop,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // The standard library's backlog of 128 overflows when a thousand connect at once.
        rustix::net::listen(&listener, LISTEN_BACKLOG)?;
        Ok(Self { listener: Some(listener), spare: spare_descriptor(), resume_at: None, warned_at: None })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }

    /// (Again) part of the epoll set.
    pub(super) fn watch(&self, epoll: &OwnedFd) -> io::Result<()> {
        match &self.listener {
            Some(listener) => match epoll::add(epoll, listener, LISTENER, EventFlags::IN) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }

    /// When to try again after accepting failed.
    pub(super) fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }

    pub(super) fn close(&mut self, epoll: &OwnedFd) {
        if let Some(listener) = self.listener.take() {
            let _ = epoll::delete(epoll, &listener);
        }
        self.resume_at = None;
    }

    fn accept(&mut self, epoll: &OwnedFd, now: Instant) -> Accepted {
        self.resume_at = None;
        let Some(listener) = &self.listener else { return Accepted::Stop };
        match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((fd, address)) => {
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                let ip = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
                Accepted::Connection(TcpStream::from(fd), ip)
            }
            Err(Errno::AGAIN) => Accepted::Stop,
            Err(Errno::MFILE | Errno::NFILE) => self.out_of_descriptors(epoll, now),
            // accept(2): errors of the new connection itself; also what a peer that gave up leaves behind.
            Err(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM,
            ) => Accepted::Nothing,
            Err(error) => self.pause(epoll, now, error),
        }
    }

    /// Gives up the spare descriptor to accept and refuse one connection, so that the peer learns why instead of
    /// hanging in the backlog, and the listener does not stay readable for ever.
    fn out_of_descriptors(&mut self, epoll: &OwnedFd, now: Instant) -> Accepted {
        self.warn(now, "out of file descriptors: refusing connections (raise LimitNOFILE)");
        if self.spare.take().is_none() {
            self.spare = spare_descriptor();
            return self.pause(epoll, now, Errno::MFILE);
        }
        if let Some(listener) = &self.listener
            && let Ok((fd, _)) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            refuse_at_once(TcpStream::from(fd), "the worker is out of file descriptors");
        }
        self.spare = spare_descriptor();
        match self.spare {
            Some(_) => Accepted::Nothing,
            None => self.pause(epoll, now, Errno::MFILE),
        }
    }

    /// Leaves the backlog alone for a moment.
    fn pause(&mut self, epoll: &OwnedFd, now: Instant, error: Errno) -> Accepted {
        self.warn(now, &format!("accepting connections failed: {error}"));
        if let Some(listener) = &self.listener {
            let _ = epoll::delete(epoll, listener);
        }
        self.resume_at = Some(now + ACCEPT_PAUSE);
        Accepted::Stop
    }

    fn warn(&mut self, now: Instant, text: &str) {
        if self.warned_at.is_none_or(|at| now.saturating_duration_since(at) > WARN_EVERY) {
            self.warned_at = Some(now);
            warn!("{text}");
        }
    }
}

impl Door {
    /// Takes what waits in the backlog, a bounded number per turn.
    pub(super) fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.acceptor.accept(&self.epoll, self.now) {
                Accepted::Connection(stream, ip) => self.admit(stream, ip)?,
                Accepted::Nothing => {}
                Accepted::Stop => break,
            }
        }
        Ok(())
    }

    fn admit(&mut self, stream: TcpStream, ip: IpAddr) -> io::Result<()> {
        let address = counted_address(ip);
        let is_loopback = address.is_loopback();
        let of_address = self.per_address.get(&address).copied().unwrap_or(0);
        let address_is_full = !is_loopback && of_address >= self.limits.max_connections_per_address;
        if address_is_full || self.clients.len() >= self.limits.max_connections {
            match self.longest_silent(address_is_full.then_some(address)) {
                Some(victim) => self.remove_client(victim),
                None => {
                    debug!("refusing a connection: limit reached and every one is busy");
                    refuse_at_once(stream, "too many connections");
                    return Ok(());
                }
            }
        }
        // Small answers must not wait for the peer's delayed ack.
        let _ = stream.set_nodelay(true);
        let deadline = self.now + self.limits.head_timeout;
        let lane = usize::from(!is_loopback).min(self.lanes.len() - 1);
        let token = self.clients.insert(Client::new(stream, address, lane, self.now, deadline));
        *self.per_address.entry(address).or_default() += 1;
        self.note_deadline(deadline);
        let client = self.clients.get_mut(token).expect("inserted above");
        epoll::add(&self.epoll, &client.stream, epoll::EventData::new_u64(token.to_u64()), INPUT)?;
        Ok(())
    }

    /// The connection that has been silent (or mid-head) longest; of one address when given.
    fn longest_silent(&self, address: Option<IpAddr>) -> Option<Token> {
        self.clients
            .iter()
            .filter(|(_, client)| client.is_evictable() && address.is_none_or(|only| client.address == only))
            .min_by_key(|(_, client)| client.since)
            .map(|(token, _)| token)
    }
}

/// One attempt to say why, then close.
fn refuse_at_once(mut stream: TcpStream, message: &'static str) {
    let _ = stream.write(&Refusal::busy(message).encode(false));
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

fn spare_descriptor() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// Connections the kernel may hold for us.
const LISTEN_BACKLOG: i32 = 1024;

/// Connections taken before others get their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Pause after `accept` failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one warning in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);
