//! What happens on one connection: read a request, hand it over, give the answer back.

use std::{io, os::fd::AsFd as _, time::Duration};

use log::{debug, warn};
use rustix::event::epoll::EventFlags;

use super::{
    RESPONSE_HIGH_WATER,
    body::{BodyReader, ChunkedReader},
    client::{Incoming, Io, Phase},
    door::{Door, upstream_data},
    head::{self, Framing, Head, MAX_HEAD_BYTES},
    refusal::Refusal,
    slots::Token,
};

/// What one step of a connection led to.
enum Step {
    /// There may be more to do at once.
    Again,
    /// Wait for an event.
    Wait,
    /// The connection is over.
    Gone,
}

impl Door {
    pub(super) fn on_client(&mut self, token: Token, flags: EventFlags) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(token) else { return Ok(()) };
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.remove_client(token);
            return Ok(());
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            client.readable = true;
        }
        self.drive(token);
        // Whatever woke us, there may be room again for an answer that waits in the Unix socket.
        match self.clients.get_mut(token).map(|client| &client.phase) {
            Some(Phase::Relaying(upstream)) => {
                let upstream = *upstream;
                self.pump(upstream)
            }
            _ => Ok(()),
        }
    }

    /// Does everything that can be done on a connection without waiting.
    pub(super) fn drive(&mut self, token: Token) {
        loop {
            match self.step(token) {
                Step::Again => {}
                Step::Wait => return,
                Step::Gone => return self.remove_client(token),
            }
        }
    }

    fn step(&mut self, token: Token) -> Step {
        let Some(client) = self.clients.get_mut(token) else { return Step::Wait };
        if client.has_output() {
            match self.flush_client(token) {
                Io::Moved(_) => return Step::Again,
                Io::Blocked => return Step::Wait,
                Io::Eof | Io::Broken => return Step::Gone,
            }
        }
        match &mut client.phase {
            Phase::Head { .. } => self.step_head(token),
            Phase::Body(_) => self.step_body(token),
            Phase::Queued | Phase::Relaying(_) => Step::Wait,
            Phase::Closing => {
                client.shut_down_sending();
                client.phase = Phase::Lingering { left: LINGER_BYTES };
                client.deadline = self.now + LINGER;
                let deadline = client.deadline;
                self.note_deadline(deadline);
                Step::Again
            }
            Phase::Lingering { .. } => self.step_lingering(token),
        }
    }

    /// Writes; watches for room when there is none, with a deadline for the peer to take what is there.
    fn flush_client(&mut self, token: Token) -> Io {
        let Some(client) = self.clients.get_mut(token) else { return Io::Broken };
        let outcome = client.flush();
        if outcome == Io::Blocked {
            if !client.watches_output {
                client.watches_output = true;
                if Self::watch_output(self.epoll.as_fd(), client.stream.as_fd(), token.to_u64()).is_err() {
                    return Io::Broken;
                }
            }
            let at = *client.write_deadline.get_or_insert(self.now + self.limits.write_timeout);
            self.note_deadline(at);
        }
        outcome
    }

    fn step_head(&mut self, token: Token) -> Step {
        let Some(client) = self.clients.get_mut(token) else { return Step::Wait };
        let Phase::Head { scanned } = &mut client.phase else { return Step::Wait };
        if let Some(end) = head::find_end(&client.input, *scanned) {
            return self.begin_request(token, end);
        }
        *scanned = client.input.len();
        if client.input.len() >= MAX_HEAD_BYTES {
            let message = format!("the request head must not be longer than {MAX_HEAD_BYTES} bytes");
            self.refuse(token, &Refusal::new(431, "HEAD_TOO_LARGE", message));
            return Step::Again;
        }
        if !client.readable {
            return Step::Wait;
        }
        let was_empty = client.input.is_empty();
        let room = MAX_HEAD_BYTES - client.input.len();
        match client.read(&mut self.scratch[..room]) {
            Io::Moved(count) => {
                client.input.extend_from_slice(&self.scratch[..count]);
                if was_empty {
                    // The first bytes of a head: from here it must be complete in time.
                    client.deadline = self.now + self.limits.head_timeout;
                    let deadline = client.deadline;
                    self.note_deadline(deadline);
                }
                Step::Again
            }
            Io::Blocked => Step::Wait,
            Io::Eof | Io::Broken => Step::Gone,
        }
    }

    /// A head is complete: checks it and goes on to the body, or hands the request over.
    fn begin_request(&mut self, token: Token, end: usize) -> Step {
        let Some(client) = self.clients.get_mut(token) else { return Step::Wait };
        let checked = head::check(&client.input[..end], self.limits.max_body_bytes);
        client.input.drain(..end);
        let head = match checked {
            Ok(head) => head,
            Err(refusal) => {
                self.refuse(token, &refusal);
                return Step::Again;
            }
        };
        let Head { framing, keep_alive, is_head, expects_continue, forward } = head;
        client.close_after |= !keep_alive;
        let is_express = self.limits.express.iter().any(|path| head::is_for(&forward, path));
        client.request_lane = if is_express { self.express } else { client.lane };
        client.request = Incoming { head: forward, body: Vec::new(), is_head };
        let reader = match framing {
            Framing::Empty => {
                self.submit(token);
                return Step::Again;
            }
            Framing::Length(length) => BodyReader::Counted(length),
            Framing::Chunked => BodyReader::Chunked(ChunkedReader::default()),
        };
        client.phase = Phase::Body(reader);
        if expects_continue && client.input.is_empty() {
            client.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        client.deadline = self.now + self.limits.body_timeout;
        let deadline = client.deadline;
        self.note_deadline(deadline);
        Step::Again
    }

    fn step_body(&mut self, token: Token) -> Step {
        let Some(client) = self.clients.get_mut(token) else { return Step::Wait };
        let Phase::Body(reader) = &mut client.phase else { return Step::Wait };
        let max = self.limits.max_body_bytes;
        let fed = if client.input.is_empty() {
            if !client.readable {
                return Step::Wait;
            }
            let room = reader.known_left().map_or(self.scratch.len(), |left| left.min(self.scratch.len()));
            let count = match client.read(&mut self.scratch[..room]) {
                Io::Moved(count) => count,
                Io::Blocked => return Step::Wait,
                Io::Eof | Io::Broken => return Step::Gone,
            };
            let Phase::Body(reader) = &mut client.phase else { return Step::Wait };
            let fed = reader.feed(&self.scratch[..count], &mut client.request.body, max);
            if let Ok((used, _)) = fed {
                client.input.extend_from_slice(&self.scratch[used..count]);
            }
            fed
        } else {
            let fed = reader.feed(&client.input, &mut client.request.body, max);
            if let Ok((used, _)) = fed {
                client.input.drain(..used);
            }
            fed
        };
        match fed {
            Err(refusal) => self.refuse(token, &refusal),
            Ok((_, complete)) => {
                if !self.charge(token) {
                    self.refuse(token, &Refusal::busy("too many request bodies are held at this moment"));
                } else if complete {
                    self.submit(token);
                }
            }
        }
        Step::Again
    }

    /// Counts what a client holds against the total; `false` when there is no room.
    fn charge(&mut self, token: Token) -> bool {
        let Some(client) = self.clients.get_mut(token) else { return false };
        let held = client.request.body.len();
        self.buffered = self.buffered + held - client.charged;
        client.charged = held;
        self.buffered <= self.limits.max_buffered_bytes
    }

    /// The request is complete: it waits for a connection to tiny_http, usually not at all.
    fn submit(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(token) else { return };
        let body_len = client.request.body.len();
        head::finish_forward(&mut client.request.head, body_len);
        client.phase = Phase::Queued;
        client.deadline = self.now + self.limits.queue_timeout;
        let (lane, deadline) = (client.request_lane, client.deadline);
        self.note_deadline(deadline);
        self.waiting[lane].push_back(token);
        self.dispatch(lane);
    }

    /// Gives waiting requests to idle connections.
    fn dispatch(&mut self, lane: usize) {
        while !self.idle[lane].is_empty() {
            let Some(token) = self.waiting[lane].pop_front() else { return };
            let Some(client) = self.clients.get_mut(token) else { continue };
            let Some(upstream_token) = self.idle[lane].pop() else { return };
            let Some(upstream) = self.upstreams.get_mut(upstream_token) else { continue };
            self.buffered -= std::mem::take(&mut client.charged);
            client.phase = Phase::Relaying(upstream_token);
            client.deadline = self.now + self.limits.handler_timeout;
            upstream.begin(token, std::mem::take(&mut client.request));
            let deadline = client.deadline;
            self.note_deadline(deadline);
            self.flush_upstream(upstream_token);
        }
    }

    fn flush_upstream(&mut self, token: Token) {
        let Some(upstream) = self.upstreams.get_mut(token) else { return };
        match upstream.flush() {
            Io::Blocked if !upstream.watches_output => {
                upstream.watches_output = true;
                let fd = upstream.stream.as_fd();
                if let Err(error) = Self::watch_output(self.epoll.as_fd(), fd, upstream_data(token)) {
                    warn!("cannot watch an internal connection: {error}");
                }
            }
            // A broken connection shows in `pump` as well, which replaces it.
            _ => {}
        }
    }

    pub(super) fn on_upstream(&mut self, token: Token, flags: EventFlags) -> io::Result<()> {
        if self.upstreams.get_mut(token).is_none() {
            return Ok(());
        }
        if flags.contains(EventFlags::OUT) {
            self.flush_upstream(token);
        }
        let inbound = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if let Some(upstream) = self.upstreams.get_mut(token).filter(|_| flags.intersects(inbound)) {
            upstream.readable = true;
        }
        self.pump(token)
    }

    /// Moves what tiny_http answered to the client, as far as the client takes it.
    pub(super) fn pump(&mut self, token: Token) -> io::Result<()> {
        loop {
            let Some(upstream) = self.upstreams.get_mut(token) else { return Ok(()) };
            if !upstream.readable {
                break;
            }
            let client_token = upstream.client;
            let client = client_token.and_then(|client| self.clients.get_mut(client));
            let full = client.as_ref().is_some_and(|client| client.output_len() >= RESPONSE_HIGH_WATER);
            if full {
                break;
            }
            match upstream.read(&mut self.scratch) {
                Io::Moved(count) => {
                    let mut dropped = Vec::new();
                    let (close, output) = match client {
                        Some(client) => (client.close_after, &mut client.output),
                        None => (false, &mut dropped),
                    };
                    if upstream.receive(&self.scratch[..count], close, output).is_err() {
                        return self.replace_upstream(token);
                    }
                    if upstream.answer_is_complete() {
                        self.finish_answer(token);
                    } else if let Some(client) = client_token {
                        self.drive(client);
                    }
                }
                Io::Blocked => break,
                Io::Eof | Io::Broken => return self.replace_upstream(token),
            }
        }
        self.release_if_done(token);
        Ok(())
    }

    /// The whole answer is in the client's buffer: on to its next request.
    fn finish_answer(&mut self, token: Token) {
        let Some(upstream) = self.upstreams.get_mut(token) else { return };
        let Some(client_token) = upstream.client.take() else { return };
        let Some(client) = self.clients.get_mut(client_token) else { return };
        if client.close_after || self.stop_at.is_some() {
            client.close_after = true;
            client.phase = Phase::Closing;
        } else {
            client.next_request(self.now, self.now + self.limits.idle_timeout);
        }
        let deadline = client.deadline;
        self.note_deadline(deadline);
        self.release_if_done(token);
        self.drive(client_token);
    }

    fn release_if_done(&mut self, token: Token) {
        let Some(upstream) = self.upstreams.get_mut(token) else { return };
        let lane = upstream.lane;
        if upstream.is_done() && upstream.client.is_none() && !self.idle[lane].contains(&token) {
            self.idle[lane].push(token);
            self.dispatch(lane);
        }
    }

    /// tiny_http closed a connection or answered nonsense: the client is cut off, a new connection is made.
    fn replace_upstream(&mut self, token: Token) -> io::Result<()> {
        let Some(upstream) = self.upstreams.remove(token) else { return Ok(()) };
        self.idle[upstream.lane].retain(|other| *other != token);
        debug!("an internal connection broke and is made anew");
        if let Some(client) = upstream.client {
            // Whether the handler ran is unknown, so no status is made up. What it did say is passed on.
            if let Some(client) = self.clients.get_mut(client) {
                client.phase = Phase::Closing;
                client.close_after = true;
            }
            self.drive(client);
        }
        let lane = upstream.lane;
        drop(upstream);
        if self.stop_at.is_some() {
            return Ok(());
        }
        self.add_upstream(lane)?;
        self.dispatch(lane);
        Ok(())
    }

    /// Answers from here and closes behind it.
    pub(super) fn refuse(&mut self, token: Token, refusal: &Refusal) {
        let Some(client) = self.clients.get_mut(token) else { return };
        let (lane, was_queued) = (client.request_lane, matches!(client.phase, Phase::Queued));
        debug!("refused: {} {}", refusal.status, refusal.message);
        client.output.extend_from_slice(&refusal.encode(client.request.is_head));
        client.phase = Phase::Closing;
        client.close_after = true;
        client.input = Vec::new();
        client.request = Incoming::default();
        self.buffered -= std::mem::take(&mut client.charged);
        client.deadline = self.now + self.limits.write_timeout;
        let deadline = client.deadline;
        self.note_deadline(deadline);
        if was_queued {
            self.waiting[lane].retain(|other| *other != token);
        }
    }

    fn step_lingering(&mut self, token: Token) -> Step {
        let Some(client) = self.clients.get_mut(token) else { return Step::Wait };
        if !client.readable {
            return Step::Wait;
        }
        match client.read(&mut self.scratch) {
            Io::Moved(count) => match &mut client.phase {
                Phase::Lingering { left } if *left > count => {
                    *left -= count;
                    Step::Again
                }
                _ => Step::Gone,
            },
            Io::Blocked => Step::Wait,
            Io::Eof | Io::Broken => Step::Gone,
        }
    }
}

/// How long a closed connection is read from, so that the answer survives.
const LINGER: Duration = Duration::from_secs(2);

/// How much is read and dropped meanwhile.
const LINGER_BYTES: usize = 32 * 1024 * 1024;
