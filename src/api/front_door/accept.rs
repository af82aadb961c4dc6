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

    /// Tries again after a pause.
    pub(super) fn resume(&mut self, epoll: &OwnedFd, now: Instant) {
        self.resume_at = self.watch(epoll).is_err().then_some(now + ACCEPT_PAUSE);
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
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.acceptor.accept(&self.epoll, self.now) {
                Accepted::Connection(stream, ip) => self.admit(stream, ip),
                Accepted::Nothing => {}
                Accepted::Stop => break,
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, ip: IpAddr) {
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
                    return;
                }
            }
        }
        // Loopback first; who is not local must never end up there, whatever the listener is bound to.
        let lane = usize::from(!is_loopback);
        if lane >= self.express {
            debug!("refusing a connection from outside on a local listener");
            return;
        }
        // Small answers must not wait for the peer's delayed ack.
        let _ = stream.set_nodelay(true);
        let deadline = self.now + self.limits.head_timeout;
        let token = self.clients.insert(Client::new(stream, address, lane, self.now, deadline));
        *self.per_address.entry(address).or_default() += 1;
        self.note_deadline(deadline);
        let client = self.clients.get_mut(token).expect("inserted above");
        let data = epoll::EventData::new_u64(token.to_u64());
        if let Err(error) = epoll::add(&self.epoll, &client.stream, data, INPUT) {
            self.acceptor.warn(self.now, &format!("a connection cannot be watched: {error}"));
            self.remove_client(token);
        }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Shutdown};

    use super::*;
    use crate::api::front_door::{Lane, Limits};

    fn door(max_connections: usize, max_connections_per_address: usize) -> Door {
        let second = Duration::from_secs(1);
        let limits = Limits {
            express: &[],
            max_connections,
            max_connections_per_address,
            max_body_bytes: 1000,
            max_buffered_bytes: 1000,
            head_timeout: second,
            body_timeout: second,
            idle_timeout: second,
            write_timeout: second,
            queue_timeout: second,
            handler_timeout: second,
        };
        let lane = Lane { path: "unused".into(), connections: 0 };
        Door::new(TcpListener::bind("127.0.0.1:0").unwrap(), vec![lane.clone(), lane.clone(), lane], limits)
            .unwrap()
    }

    /// Lets a connection in as if it came from `ip`; gives the peer's end.
    fn admit(door: &mut Door, ip: &str) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        door.now += Duration::from_millis(1);
        door.admit(listener.accept().unwrap().0, ip.parse().unwrap());
        peer
    }

    fn open(door: &Door) -> BTreeMap<String, usize> {
        door.per_address.iter().map(|(address, count)| (address.to_string(), *count)).collect()
    }

    #[test]
    fn an_address_at_its_limit_gives_up_its_own_longest_silent_connection() {
        let mut door = door(100, 2);
        let first = admit(&mut door, "192.0.2.1");
        let _others = [admit(&mut door, "192.0.2.1"), admit(&mut door, "192.0.2.2")];
        let _third = admit(&mut door, "192.0.2.1");
        let wanted = [("192.0.2.1", 2), ("192.0.2.2", 1)];
        assert_eq!(open(&door), wanted.map(|(ip, count)| (ip.to_owned(), count)).into());
        assert!(first.shutdown(Shutdown::Write).is_ok());
        assert_eq!(std::io::Read::read(&mut &first, &mut [0; 8]).unwrap(), 0, "the first was closed");
    }

    #[test]
    fn loopback_is_bound_by_the_total_only() {
        let mut door = door(3, 1);
        let _peers: Vec<TcpStream> = (0..5).map(|_| admit(&mut door, "127.0.0.1")).collect();
        assert_eq!(open(&door), [("127.0.0.1".to_owned(), 3)].into());
    }

    #[test]
    fn nobody_is_let_in_while_every_connection_is_busy() {
        let mut door = door(1, 1);
        let _busy = admit(&mut door, "192.0.2.1");
        let token = door.clients.iter().map(|(token, _)| token).next().unwrap();
        door.clients.get_mut(token).unwrap().output = b"answer under way".to_vec();
        let mut refused = admit(&mut door, "192.0.2.2");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut refused, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After"), "{answer}");
        assert_eq!(open(&door), [("192.0.2.1".to_owned(), 1)].into());
    }

    #[test]
    fn outsiders_never_share_the_way_of_local_programs() {
        let mut door = door(10, 10);
        let _peers = [
            admit(&mut door, "127.0.0.9"),
            admit(&mut door, "::ffff:127.0.0.1"),
            admit(&mut door, "192.0.2.1"),
        ];
        let mut lanes: Vec<(String, usize)> =
            door.clients.iter().map(|(_, client)| (client.address.to_string(), client.lane)).collect();
        lanes.sort();
        let wanted = [("127.0.0.1", 0), ("127.0.0.9", 0), ("192.0.2.1", 1)];
        assert_eq!(lanes, wanted.map(|(ip, lane)| (ip.to_owned(), lane)));
        door.express = 1;
        let _outsider = admit(&mut door, "192.0.2.3");
        assert!(!open(&door).contains_key("192.0.2.3"));
    }
}
