//! The life of a session's thread while its engine lives: one place to wait, for socket bytes or mail.
//!
//! Each turn takes the mail, moves the connection on, reads the socket, lets the engine work, obeys its outputs in
//! order and writes. `desk` decides what happens when an engine ends.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use rand_core::OsRng;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    SessionStatus,
    connection::Connection,
    desk::Desk,
    handle::STACK_BYTES,
    lifecycle::{self, Next},
    mailbox::{Mail, ReplySender, Stop},
    meters::End,
    pipeline::Pipeline,
};
use crate::{
    storage::local::{SessionStore, StoreError},
    whatsapp::{
        ctx::Ctx,
        engine::Engine,
        model::{CommandError, CommandId, DisconnectReason, Event, Output, Reply},
        state::{Batch, Write},
    },
};

/// Reads of one turn, so that a flood of bytes does not keep commands and acknowledgements waiting.
const READS_PER_TURN: usize = 16;
/// A dial that says nothing this long is given up: its own deadline has passed, name resolution has none.
const DIAL_SILENCE: Duration = Duration::from_secs(45);
/// A clean stop waits this long for the disk.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// An account has settled in this long after its first login.
const SETTLING: Duration = Duration::from_secs(5);
/// Restarts the server may ask for in a row before they are treated as trouble.
const RESTARTS_IN_A_ROW: u32 = 3;

/// Why the engine's life is over.
#[derive(Debug)]
pub(super) enum Exit {
    /// It was told to stop.
    Stopped(Stop),
    /// Nothing to do until somebody asks for a connection again.
    Final { status: SessionStatus, error: Option<String> },
    /// The store failed: a new engine may try again.
    Failed(StoreError),
}

/// The way to the server.
enum Link {
    /// Nothing to do until then.
    Waiting { until: Duration, hurried: bool },
    /// A helper thread connects.
    Dialling { number: u64, since: Duration },
    /// There is a websocket.
    Up { connection: Box<Connection>, since: Duration },
    /// The socket is gone, and the engine's decision about it waits for the disk.
    Ending { lasted: Duration },
}

/// See the module.
pub(super) struct Runner<'a> {
    desk: &'a mut Desk,
    engine: Engine,
    state: SessionStore,
    link: Link,
    /// Our place among the sessions that want to dial.
    turn: Option<Duration>,
    /// The socket may have bytes for us.
    readable_socket: bool,
    pipeline: Pipeline,
    replies: HashMap<CommandId, ReplySender>,
    next_command: CommandId,
    logged_in: bool,
    restarts: u32,
    /// When an account that is being linked has settled in: some time after its first login.
    settled_at: Option<Duration>,
    is_settling_in: bool,
    /// Batches the engine need not remember any more.
    readable: u64,
}

impl<'a> Runner<'a> {
    pub(super) fn new(desk: &'a mut Desk) -> Self {
        let state = SessionStore::new(desk.common.store.clone(), desk.key);
        let engine = Engine::new(desk.common.engine.clone());
        let link = Link::Waiting { until: desk.now().mono, hurried: desk.hurried };
        let logged_in = false;
        Self {
            desk,
            engine,
            state,
            link,
            turn: None,
            readable_socket: false,
            pipeline: Pipeline::default(),
            replies: HashMap::new(),
            next_command: 0,
            logged_in,
            restarts: 0,
            settled_at: None,
            is_settling_in: false,
            readable: 0,
        }
    }

    /// Works until the engine's life is over.
    pub(super) fn run(&mut self) -> Exit {
        let is_new = self.desk.board.snapshot().phone_number.is_none();
        if is_new && let Some(exit) = self.settle_in() {
            return exit;
        }
        loop {
            if let Some(exit) = self.work() {
                return exit;
            }
        }
    }

    /// The same on a stack of its own until the account is linked and has settled in. What comes with that (keys, the
    /// phone's first messages, history) goes deep, and the pages of a stack stay with their thread.
    fn settle_in(&mut self) -> Option<Exit> {
        self.is_settling_in = true;
        let name = format!("new-{}", self.desk.id());
        let exit = thread::scope(|scope| {
            let apart = thread::Builder::new().name(name).stack_size(STACK_BYTES);
            match apart.spawn_scoped(scope, || self.work()) {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(error) => {
                    log::debug!("an account settles in without a thread of its own: {error}");
                    None
                }
            }
        });
        self.is_settling_in = false;
        exit
    }

    /// Works until the engine's life is over; `None`: until the account has settled in.
    fn work(&mut self) -> Option<Exit> {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => self.sleep(),
                Err(exit) => return Some(exit),
            }
            if self.settled_at.is_some_and(|at| at <= self.desk.now().mono) {
                self.settled_at = None;
                return None;
            }
        }
    }

    /// One round; whether there is more to do at once.
    fn turn(&mut self) -> Result<bool, Exit> {
        while let Ok(mail) = self.desk.inbox.queue.try_recv() {
            self.mail(mail)?;
        }
        let readable = self.desk.inbox.readable();
        if readable > self.readable {
            self.readable = readable;
            self.engine.handle_persisted(readable - 1);
        }
        self.dial_when_due()?;
        let more = self.read()?;
        if self.engine.next_deadline().is_some_and(|at| at <= self.desk.now().mono) {
            self.with_engine(Engine::handle_timeout);
        }
        self.obey()?;
        self.desk.count(&mut self.engine);
        self.flush()?;
        Ok(more)
    }

    fn with_engine<T>(&mut self, call: impl FnOnce(&mut Engine, &mut Ctx<'_>) -> T) -> T {
        let now = self.desk.now();
        let mut ctx = Ctx { now, rng: &mut *self.desk.rng, store: &self.state };
        call(&mut self.engine, &mut ctx)
    }

    fn mail(&mut self, mail: Mail) -> Result<(), Exit> {
        match mail {
            Mail::Command(command) => {
                let (command, reply) = *command;
                let id = self.next_command;
                self.next_command += 1;
                self.replies.insert(id, reply.reached_engine());
                self.with_engine(|engine, ctx| engine.handle_command(ctx, id, command));
            }
            Mail::Stop(stop) => return Err(self.shut_down(stop)),
            Mail::Hurry => {
                if let Link::Waiting { until, hurried } = &mut self.link {
                    *until = Duration::ZERO;
                    *hurried = true;
                }
            }
            Mail::Dialled(number, result) => match (&self.link, *result) {
                (Link::Dialling { number: current, .. }, Ok(connection)) if *current == number => {
                    self.link = Link::Up { connection: Box::new(connection), since: self.desk.now().mono };
                    self.readable_socket = true;
                    self.with_engine(Engine::handle_connected);
                }
                (Link::Dialling { number: current, .. }, Err(error)) if *current == number => {
                    self.desk.common.meters.ended(End::Dial);
                    self.follow(Next::Retry { error: error.to_string(), extra_steps: 0 }, Duration::ZERO)?;
                }
                // Of a dial that was given up.
                (_, Ok(connection)) => connection.close(),
                (_, Err(_)) => {}
            },
            Mail::Committed(number) => self.pipeline.durable(number),
            Mail::Failed(error) => return Err(self.store_failed(*error)),
        }
        Ok(())
    }

    fn dial_when_due(&mut self) -> Result<(), Exit> {
        let now = self.desk.now().mono;
        match &mut self.link {
            Link::Waiting { until, hurried } if *until <= now => {
                match self.desk.common.pace.ask(self.desk.common.since_start(), &mut self.turn, *hurried) {
                    Ok(permit) => {
                        self.desk.hurried = false;
                        self.desk.dials += 1;
                        self.link = Link::Dialling { number: self.desk.dials, since: now };
                        self.desk.show_trying(self.logged_in);
                        self.desk.dial(permit);
                    }
                    Err(wait) => *until = now + wait,
                }
                Ok(())
            }
            Link::Dialling { since, .. } if now.saturating_sub(*since) >= DIAL_SILENCE => {
                self.desk.common.meters.ended(End::Dial);
                let error = super::dial::DialError::TimedOut.to_string();
                self.follow(Next::Retry { error, extra_steps: 0 }, Duration::ZERO)
            }
            _ => Ok(()),
        }
    }

    /// Takes bytes from the socket, unless more work would only pile up; whether more may be there.
    fn read(&mut self) -> Result<bool, Exit> {
        for _ in 0..READS_PER_TURN {
            let Self { desk, engine, state, link, pipeline, readable_socket, .. } = self;
            let Link::Up { connection, .. } = link else { return Ok(false) };
            if !*readable_socket {
                return Ok(false);
            }
            if connection.is_choked() || pipeline.is_full() || pipeline.ends_connection() {
                return Ok(false);
            }
            let now = desk.now();
            let result = connection.read(|bytes| {
                engine.handle_data(&mut Ctx { now, rng: &mut *desk.rng, store: &*state }, bytes);
            });
            match result {
                Ok(true) => self.obey()?,
                Ok(false) => {
                    *readable_socket = false;
                    return Ok(false);
                }
                Err(error) => {
                    self.broken(error.to_string())?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Exit> {
        let Link::Up { connection, .. } = &mut self.link else { return Ok(()) };
        match connection.flush() {
            Ok(()) => Ok(()),
            Err(error) => self.broken(error.to_string()),
        }
    }

    /// Takes the engine's outputs and does what nothing holds back.
    fn obey(&mut self) -> Result<(), Exit> {
        loop {
            // What waited longest goes first.
            if let Some(output) = self.pipeline.next() {
                self.perform(output)?;
                continue;
            }
            match self.engine.next_output() {
                Some(Output::Persist(batch)) => self.persist(batch)?,
                Some(output) => {
                    if let Some(output) = self.pipeline.pass(output) {
                        self.perform(output)?;
                    }
                }
                None => return Ok(()),
            }
        }
    }

    fn persist(&mut self, batch: Batch) -> Result<(), Exit> {
        let number = batch.number;
        // Durable events of the connection itself also change the status, once they are durable.
        let mut told = Vec::new();
        for write in &batch.writes {
            match write {
                Write::Message(_) => self.desk.board.active(self.desk.now().unix_ms),
                Write::Event(event) if is_about_the_connection(event) => {
                    told.push(Output::Event((**event).clone()));
                }
                _ => {}
            }
        }
        if let Err(error) = self.desk.common.store.submit(self.desk.key, batch, &self.desk.listener) {
            return Err(self.store_failed(error));
        }
        self.pipeline.submitted(number);
        for output in told {
            let free = self.pipeline.pass(output);
            debug_assert!(free.is_none(), "a batch is in front of it");
        }
        Ok(())
    }

    fn perform(&mut self, output: Output) -> Result<(), Exit> {
        match output {
            Output::Transmit(bytes) => {
                if let Link::Up { connection, .. } = &mut self.link {
                    connection.send(&bytes);
                }
            }
            Output::Event(event) => self.event(event),
            Output::Reply(id, reply) => {
                if let Some(waiting) = self.replies.remove(&id) {
                    if matches!(reply, Reply::Sent { .. }) {
                        self.desk.common.meters.sent_after(waiting.age());
                    }
                    waiting.send(reply);
                }
            }
            Output::Disconnect(reason) => self.disconnect(reason)?,
            // Never held back, so it cannot come out of the pipeline.
            Output::Persist(batch) => self.persist(batch)?,
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        match &event {
            Event::Qr { .. } | Event::Paired { .. } => self.logged_in = false,
            Event::Connected { .. } => {
                self.logged_in = true;
                self.settled_at = self.is_settling_in.then(|| self.desk.now().mono + SETTLING);
            }
            _ => {}
        }
        if is_about_the_connection(&event) {
            self.desk.show_event(event);
        } else {
            self.desk.log_event(&event);
        }
    }

    /// The engine wants the socket closed.
    fn disconnect(&mut self, reason: DisconnectReason) -> Result<(), Exit> {
        // What the engine said before its decision still goes out.
        self.flush()?;
        let end = End::from(&reason);
        let lasted = match std::mem::replace(&mut self.link, Link::Ending { lasted: Duration::ZERO }) {
            Link::Up { connection, since } => {
                connection.close();
                self.desk.now().mono.saturating_sub(since)
            }
            Link::Ending { lasted } => lasted,
            // A decision about a connection that is over already; only one to stop still counts.
            link => match lifecycle::next(reason) {
                Next::Stop { status, error } => {
                    self.desk.common.meters.ended(end);
                    return Err(self.finish(status, error));
                }
                _ => {
                    self.link = link;
                    return Ok(());
                }
            },
        };
        self.desk.common.meters.ended(end);
        self.ended(lifecycle::next(reason), lasted)
    }

    /// The socket broke by itself.
    fn broken(&mut self, error: String) -> Result<(), Exit> {
        let link = std::mem::replace(&mut self.link, Link::Ending { lasted: Duration::ZERO });
        let Link::Up { since, .. } = link else {
            self.link = link;
            return Ok(());
        };
        let lasted = self.desk.now().mono.saturating_sub(since);
        self.link = Link::Ending { lasted };
        // The last bytes may have told the engine why; its decision is better than "broken".
        self.obey()?;
        if !matches!(self.link, Link::Ending { .. }) || self.pipeline.ends_connection() {
            return Ok(());
        }
        self.desk.common.meters.ended(End::Socket);
        self.ended(Next::Retry { error, extra_steps: 0 }, lasted)
    }

    fn ended(&mut self, next: Next, lasted: Duration) -> Result<(), Exit> {
        self.pipeline.drop_transmits();
        self.with_engine(Engine::handle_closed);
        self.follow(next, lasted)
    }

    /// Arranges what comes after a connection, or after a dial that led to none.
    fn follow(&mut self, next: Next, lasted: Duration) -> Result<(), Exit> {
        self.desk.backoff.connection_lasted(lasted);
        let now = self.desk.now().mono;
        let (pause, error, hurried) = match next {
            Next::Reconnect if self.restarts < RESTARTS_IN_A_ROW => {
                self.restarts += 1;
                (Duration::ZERO, None, true)
            }
            Next::Reconnect => {
                let error = "the server asks for one restart after another".to_owned();
                (self.desk.backoff.next(0, &mut OsRng), Some(error), false)
            }
            Next::Retry { error, extra_steps } => {
                self.restarts = 0;
                (self.desk.backoff.next(extra_steps, &mut OsRng), Some(error), false)
            }
            Next::Wait { error, pause } => {
                self.link = Link::Waiting { until: now + pause, hurried: false };
                self.desk.show(SessionStatus::Error, Some(error));
                return Ok(());
            }
            Next::Stop { status, error } => return Err(self.finish(status, error)),
        };
        self.link = Link::Waiting { until: now + pause, hurried };
        if let Some(error) = &error {
            log::info!("session {}: {error}; next try in {:.1} s", self.desk.id(), pause.as_secs_f32());
        }
        self.desk.show(SessionStatus::retrying(self.logged_in), error);
        Ok(())
    }

    /// Ends for good; what the engine still wants written is written first.
    fn finish(&mut self, status: SessionStatus, error: Option<String>) -> Exit {
        self.settle().err().unwrap_or(Exit::Final { status, error })
    }

    /// A clean stop: exact counters are written, what waits for the disk leaves in order, the socket is closed.
    fn shut_down(&mut self, stop: Stop) -> Exit {
        self.with_engine(Engine::handle_shutdown);
        if let Err(exit) = self.settle() {
            return match exit {
                Exit::Failed(_) => exit,
                _ => Exit::Stopped(stop),
            };
        }
        if let Link::Up { connection, .. } =
            std::mem::replace(&mut self.link, Link::Ending { lasted: Duration::ZERO })
        {
            connection.close();
        }
        Exit::Stopped(stop)
    }

    /// Waits until nothing is on its way to the disk, at most [`STOP_WAIT`].
    fn settle(&mut self) -> Result<(), Exit> {
        let deadline = Instant::now() + STOP_WAIT;
        loop {
            self.obey()?;
            if self.pipeline.is_idle() {
                return Ok(());
            }
            match self.desk.inbox.queue.recv_deadline(deadline) {
                Ok(Mail::Committed(number)) => self.pipeline.durable(number),
                Ok(Mail::Failed(error)) => return Err(self.store_failed(*error)),
                Ok(_) => {}
                Err(_) => {
                    log::warn!("session {}: the local store is slow; stopping without it", self.desk.id());
                    return Ok(());
                }
            }
        }
    }

    /// Nothing behind the failed batch may happen: the engine and its socket end here.
    fn store_failed(&mut self, error: StoreError) -> Exit {
        for (_, reply) in self.replies.drain() {
            reply.send(Reply::Failed(CommandError::Store(error.to_string())));
        }
        Exit::Failed(error)
    }

    fn sleep(&mut self) {
        let deadline = match &self.link {
            Link::Waiting { until, .. } => Some(*until),
            Link::Dialling { since, .. } => Some(*since + DIAL_SILENCE),
            Link::Up { .. } | Link::Ending { .. } => None,
        };
        let deadline = deadline.into_iter().chain(self.engine.next_deadline()).chain(self.settled_at).min();
        let wait = deadline.map(|at| at.saturating_sub(self.desk.now().mono));
        let waker = &self.desk.inbox.waker;
        waker.fall_asleep();
        if !self.desk.inbox.queue.is_empty() {
            waker.awake(false);
            return;
        }
        let mut fds = [PollFd::new(waker, PollFlags::IN), PollFd::new(waker, PollFlags::empty())];
        if let Link::Up { connection, .. } = &self.link {
            let mut wanted = PollFlags::empty();
            if !connection.is_choked() && !self.pipeline.is_full() && !self.pipeline.ends_connection() {
                wanted |= PollFlags::IN;
            }
            if connection.wants_write() {
                wanted |= PollFlags::OUT;
            }
            fds[1] = PollFd::from_borrowed_fd(connection.as_fd(), wanted);
        }
        let fds = if matches!(self.link, Link::Up { .. }) { &mut fds[..] } else { &mut fds[..1] };
        match poll(fds, wait.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => log::error!("session {}: poll failed: {error}", self.desk.id()),
        }
        let woken = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        self.readable_socket |= fds
            .get(1)
            .is_some_and(|fd| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR));
        waker.awake(woken);
    }
}

/// Rounded up, so that a deadline has really passed when the wait is over.
fn timespec(wait: Duration) -> Timespec {
    let wait = wait.min(Duration::from_secs(3600)) + Duration::from_micros(1);
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(3600), tv_nsec: wait.subsec_nanos().into() }
}

fn is_about_the_connection(event: &Event) -> bool {
    matches!(
        event,
        Event::Qr { .. }
            | Event::PasskeyRequired { .. }
            | Event::Paired { .. }
            | Event::Connected { .. }
            | Event::Ready
            | Event::LoggedOut { .. }
    )
}
