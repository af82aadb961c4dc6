//! One connection to tiny_http: the request going in, the answer coming out.

use std::{
    io::{self, ErrorKind, IoSlice, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    client::{Incoming, Io},
    slots::Token,
};

/// Target of the request that proves a new connection. Network requests never have it: their targets start with `/`.
pub(in crate::api) const PROBE_TARGET: &str = "*";

/// Longest answer head.
const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// How long tiny_http may take to answer the probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What of an answer has been seen.
#[derive(Debug)]
enum Answer {
    /// Nothing is under way.
    None,
    /// Reading the head.
    Head(Vec<u8>),
    /// So much of the body is still to come.
    Body(usize),
}

/// One connection to tiny_http.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: UnixStream,
    pub(super) lane: usize,
    /// Who gets the answer; `None` while idle or when the client went away.
    pub(super) client: Option<Token>,
    pub(super) readable: bool,
    pub(super) watches_output: bool,
    request: Incoming,
    sent: usize,
    answer: Answer,
}

/// A broken answer: tiny_http is not what we take it for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokenAnswer;

impl Upstream {
    /// Connects and waits until tiny_http has answered a probe.
    ///
    /// tiny_http hands connections to a thread pool that can leave a new connection behind a busy thread when
    /// two arrive at once. Connecting one at a time, each proven before the next, keeps clear of that.
    pub(super) fn connect(path: &Path, lane: usize) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.write_all(format!("OPTIONS {PROBE_TARGET} HTTP/1.1\r\n\r\n").as_bytes())?;
        let mut head = Vec::new();
        let mut buffer = [0; 512];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => head.extend_from_slice(&buffer[..count]),
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            lane,
            client: None,
            readable: false,
            watches_output: false,
            request: Incoming::default(),
            sent: 0,
            answer: Answer::None,
        })
    }

    /// Takes a request on.
    pub(super) fn begin(&mut self, client: Token, request: Incoming) {
        self.client = Some(client);
        self.request = request;
        self.sent = 0;
        self.answer = Answer::Head(Vec::new());
    }

    /// The request has been sent and the answer received.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.answer, Answer::None) && self.unsent() == 0
    }

    /// The answer has been received, the request perhaps not been read to its end.
    pub(super) fn answer_is_complete(&self) -> bool {
        matches!(self.answer, Answer::None)
    }

    /// Writes as much of the request as the socket takes. `Moved` means all of it.
    pub(super) fn flush(&mut self) -> Io {
        while self.unsent() > 0 {
            let head = self.request.head.get(self.sent..).unwrap_or_default();
            let body_from = self.sent.saturating_sub(self.request.head.len());
            let body = self.request.body.get(body_from..).unwrap_or_default();
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Io::Broken,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Io::Blocked,
                Err(_) => return Io::Broken,
            }
        }
        self.request.body = Vec::new();
        self.request.head.clear();
        self.sent = 0;
        Io::Moved(0)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Io {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Io::Eof,
                Ok(count) => {
                    self.readable = count == buffer.len();
                    Io::Moved(count)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    Io::Blocked
                }
                Err(_) => Io::Broken,
            };
        }
    }

    /// Takes in received bytes and appends what the client shall get to `output`.
    ///
    /// # Errors
    /// [`BrokenAnswer`] when this is no answer to what was asked.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        close: bool,
        output: &mut Vec<u8>,
    ) -> Result<(), BrokenAnswer> {
        match &mut self.answer {
            Answer::None => Err(BrokenAnswer),
            Answer::Head(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = super::head::find_end(head, head.len() - bytes.len()) else {
                    return if head.len() > MAX_RESPONSE_HEAD_BYTES { Err(BrokenAnswer) } else { Ok(()) };
                };
                let head = std::mem::take(head);
                let (head, rest) = head.split_at(end);
                let length = if self.request.is_head { 0 } else { body_length(head)? };
                output.extend_from_slice(&head[..end - 2]);
                output.extend_from_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
                self.answer = Answer::Body(length);
                self.receive_body(rest, output)
            }
            Answer::Body(_) => self.receive_body(bytes, output),
        }
    }

    fn receive_body(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), BrokenAnswer> {
        let Answer::Body(left) = &mut self.answer else { return Err(BrokenAnswer) };
        *left = left.checked_sub(bytes.len()).ok_or(BrokenAnswer)?;
        output.extend_from_slice(bytes);
        if *left == 0 {
            self.answer = Answer::None;
        }
        Ok(())
    }

    fn unsent(&self) -> usize {
        self.request.head.len() + self.request.body.len() - self.sent
    }
}

/// Body length of an answer. The handlers always send `Content-Length`.
fn body_length(head: &[u8]) -> Result<usize, BrokenAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).map_err(|_| BrokenAnswer)?;
    if matches!(response.code, Some(100..=199 | 204 | 304)) {
        return Ok(0);
    }
    response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok())
        .ok_or(BrokenAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::front_door::slots::Slots;

    fn upstream(is_head: bool) -> Upstream {
        let (stream, _) = UnixStream::pair().unwrap();
        let mut upstream = Upstream {
            stream,
            lane: 0,
            client: None,
            readable: false,
            watches_output: false,
            request: Incoming::default(),
            sent: 0,
            answer: Answer::None,
        };
        upstream.begin(Slots::new().insert(()), Incoming { is_head, ..Incoming::default() });
        upstream
    }

    #[test]
    fn an_answer_is_relayed_however_it_is_cut() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for step in 1..answer.len() {
            let (mut upstream, mut output) = (upstream(false), Vec::new());
            for piece in answer.chunks(step) {
                assert!(!upstream.answer_is_complete());
                upstream.receive(piece, true, &mut output).unwrap();
            }
            assert!(upstream.is_done());
            let wanted = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            assert_eq!(String::from_utf8(output).unwrap(), wanted, "{step}");
        }
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let (mut upstream, mut output) = (upstream(true), Vec::new());
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, &mut output).unwrap();
        assert!(upstream.is_done());
        assert!(output.ends_with(b"Content-Length: 5\r\n\r\n"));
    }

    #[test]
    fn an_answer_longer_than_announced_is_broken() {
        let (mut upstream, mut output) = (upstream(false), Vec::new());
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello";
        assert_eq!(upstream.receive(answer, false, &mut output), Err(BrokenAnswer));
    }
}
