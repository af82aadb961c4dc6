//! One network connection: its socket, its buffers and where it stands.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpStream},
    time::Instant,
};

use super::{body::BodyReader, slots::Token};

/// Where a connection stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waiting for a request head; this much of `input` has been searched for its end.
    Head {
        /// Bytes searched.
        scanned: usize,
    },
    /// Reading the body.
    Body(BodyReader),
    /// The request is complete and waits for a free connection to tiny_http.
    Queued,
    /// The request is with tiny_http; nothing is read from the client meanwhile.
    Relaying(Token),
    /// Write what is left, then shut down the sending side.
    Closing,
    /// Read and drop for a moment, so that a close with unread data does not destroy the answer on its way.
    Lingering {
        /// How many bytes more are tolerated.
        left: usize,
    },
}

/// A request on its way in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The head for tiny_http.
    pub(super) head: Vec<u8>,
    /// The decoded body.
    pub(super) body: Vec<u8>,
    /// `HEAD`: the answer has no body.
    pub(super) is_head: bool,
}

/// What a socket call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Io {
    /// So many bytes moved.
    Moved(usize),
    /// Nothing to be had now.
    Blocked,
    /// The peer closed its side.
    Eof,
    /// The connection is gone.
    Broken,
}

/// One network connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    /// What connections are counted by.
    pub(super) address: IpAddr,
    /// Which Unix socket its requests go to.
    pub(super) lane: usize,
    /// Which one the current request goes to: the same, or the express lane.
    pub(super) request_lane: usize,
    pub(super) phase: Phase,
    /// Received and not yet used.
    pub(super) input: Vec<u8>,
    pub(super) request: Incoming,
    /// To be sent; everything before `sent` is.
    pub(super) output: Vec<u8>,
    sent: usize,
    /// The socket may have something to read (edge-triggered).
    pub(super) readable: bool,
    /// `epoll` also watches for room to write.
    pub(super) watches_output: bool,
    /// Close after the current answer.
    pub(super) close_after: bool,
    /// Request bytes counted against the total.
    pub(super) charged: usize,
    /// When the phase began.
    pub(super) since: Instant,
    /// When the phase is over at the latest.
    pub(super) deadline: Instant,
    /// When `output` must have been taken at the latest.
    pub(super) write_deadline: Option<Instant>,
}

impl Client {
    pub(super) fn new(
        stream: TcpStream,
        address: IpAddr,
        lane: usize,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            stream,
            address,
            lane,
            request_lane: lane,
            phase: Phase::Head { scanned: 0 },
            input: Vec::new(),
            request: Incoming::default(),
            output: Vec::new(),
            sent: 0,
            readable: false,
            watches_output: false,
            close_after: false,
            charged: 0,
            since: now,
            deadline,
            write_deadline: None,
        }
    }

    /// Silent or mid-head, with nothing owed to it: may be closed to make room.
    pub(super) fn is_evictable(&self) -> bool {
        matches!(self.phase, Phase::Head { .. }) && !self.has_output()
    }

    pub(super) fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    pub(super) fn output_len(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads at most `buffer.len()` bytes.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Io {
        let wanted = buffer.len();
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Io::Eof,
                Ok(count) => {
                    // A short read drained the socket; what comes later raises a new edge.
                    self.readable = count == wanted;
                    Io::Moved(count)
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => {
                        self.readable = false;
                        Io::Blocked
                    }
                    _ => Io::Broken,
                },
            };
        }
    }

    /// Writes as much of `output` as the socket takes. `Moved` means all of it.
    pub(super) fn flush(&mut self) -> Io {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Io::Broken,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drop_sent();
                    return Io::Blocked;
                }
                Err(_) => return Io::Broken,
            }
        }
        self.output.clear();
        self.sent = 0;
        self.write_deadline = None;
        if self.output.capacity() > KEPT_BUFFER_BYTES {
            self.output = Vec::new();
        }
        Io::Moved(0)
    }

    /// Forgets the request whose answer is complete and waits for the next one.
    pub(super) fn next_request(&mut self, now: Instant, deadline: Instant) {
        self.phase = Phase::Head { scanned: 0 };
        self.since = now;
        self.deadline = deadline;
        if self.input.is_empty() && self.input.capacity() > KEPT_BUFFER_BYTES {
            self.input = Vec::new();
        }
    }

    pub(super) fn shut_down_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Keeps the output buffer from growing at its front.
    fn drop_sent(&mut self) {
        if self.sent > 0 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// Buffers above this are given back between requests.
const KEPT_BUFFER_BYTES: usize = 2 * 1024;

/// What connections of a peer are counted by: its address, or its /64 in IPv6, where one host has many.
pub(super) fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_host() {
        let counted = |text: &str| counted_address(text.parse().unwrap()).to_string();
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("::ffff:127.0.0.1"), "127.0.0.1");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("::1"), "::1");
    }
}
