//! How the rest of the program reaches a session's thread: a queue and an eventfd that wakes its poll.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};

use super::{
    board::Board,
    connection::Connection,
    dial::DialError,
    reply::{PendingReply, ReplySlot},
};
use crate::{
    storage::local::{CommitListener, StoreError},
    whatsapp::model::{Command, CommandError, Reply},
};

/// Commands of one session that may wait for its thread; more are refused as busy. What the engine has taken, it
/// limits itself.
const COMMANDS: usize = 256;

/// What a session's thread is told.
pub(super) enum Mail {
    Command(Box<(Command, ReplySender)>),
    /// End; the strongest of several wins.
    Stop(Stop),
    /// Somebody waits for this session: do not sit out a pause.
    Hurry,
    /// The dial of this number is over.
    Dialled(u64, Box<Result<Connection, DialError>>),
    /// The batch of this number is durable.
    Committed(u64),
    /// A batch failed.
    Failed(Box<StoreError>),
}

/// Why a session's thread should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// The worker stops; connect again at the next start.
    Shutdown,
    /// Somebody wants it disconnected.
    Disconnect,
}

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub(super) struct Mailbox {
    queue: Sender<Mail>,
    waker: Arc<Waker>,
    commands: Arc<AtomicUsize>,
    readable: Arc<AtomicU64>,
    board: Arc<Board>,
}

/// The thread's side.
pub(super) struct Inbox {
    pub(super) queue: Receiver<Mail>,
    pub(super) waker: Arc<Waker>,
    readable: Arc<AtomicU64>,
}

impl Inbox {
    /// How many batches of the engine can be read back from the store; asked now and then, it is not urgent.
    pub(super) fn readable(&self) -> u64 {
        self.readable.load(Ordering::Relaxed)
    }

    /// A new engine counts from the beginning.
    pub(super) fn restart(&self) {
        self.readable.store(0, Ordering::Relaxed);
    }
}

impl Mailbox {
    pub(super) fn new(board: Arc<Board>) -> std::io::Result<(Self, Inbox)> {
        // Not bounded by itself: commands are counted, everything else comes at most once per thing the thread
        // started, and nobody who tells it something may be made to wait.
        let (queue, inbox) = crossbeam_channel::unbounded();
        let waker = Arc::new(Waker::new()?);
        let readable = Arc::new(AtomicU64::new(0));
        let inbox = Inbox { queue: inbox, waker: Arc::clone(&waker), readable: Arc::clone(&readable) };
        Ok((Self { queue, waker, commands: Arc::default(), readable, board }, inbox))
    }

    /// `false` when the thread is gone.
    pub(super) fn send(&self, mail: Mail) -> bool {
        let sent = self.queue.send(mail).is_ok();
        self.waker.wake();
        sent
    }

    /// The way to the answer; `None` when too many wait already.
    pub(super) fn command(&self, command: Command) -> Option<PendingReply> {
        let counted = CountedCommand::new(&self.commands)?;
        let slot = Arc::<ReplySlot>::default();
        let reply =
            ReplySender { slot: Some(Arc::clone(&slot)), waiting: Some(counted), asked: Instant::now() };
        self.send(Mail::Command(Box::new((command, reply))));
        Some(PendingReply(slot))
    }
}

/// The store thread's line to the session.
impl CommitListener for Mailbox {
    fn committed(&self, number: u64, last_seq: Result<Option<u64>, StoreError>) {
        match last_seq {
            Ok(seq) => {
                self.board.logged(seq);
                self.send(Mail::Committed(number));
            }
            Err(error) => {
                self.send(Mail::Failed(Box::new(error)));
            }
        }
    }

    fn readable(&self, number: u64) {
        // No wake-up: the engine's memory of what it wrote can wait for the next turn.
        self.readable.store(number + 1, Ordering::Relaxed);
    }

    fn reported(&self, _number: u64, last_seq: Result<Option<u64>, StoreError>) {
        // A status that could not be stored is still on the board; what failed with it stops the session.
        match last_seq {
            Ok(seq) => self.board.logged(seq),
            Err(error) => log::debug!("a status was not stored: {error}"),
        }
    }
}

/// Where the answer to a command goes. Dropped unanswered, it still tells the caller the truth: a command that no
/// engine saw was not started, one that an engine saw may have been.
pub(super) struct ReplySender {
    /// `None` once answered.
    slot: Option<Arc<ReplySlot>>,
    /// `None` once the engine has the command.
    waiting: Option<CountedCommand>,
    asked: Instant,
}

impl ReplySender {
    /// From now on the command may have had an effect.
    pub(super) fn reached_engine(mut self) -> Self {
        self.waiting = None;
        self
    }

    /// Time since the command was given.
    pub(super) fn age(&self) -> Duration {
        self.asked.elapsed()
    }

    pub(super) fn send(mut self, reply: Reply) {
        self.answer(reply);
    }

    fn answer(&mut self, reply: Reply) {
        if let Some(slot) = self.slot.take() {
            slot.put(reply);
        }
    }
}

impl Drop for ReplySender {
    fn drop(&mut self) {
        let error =
            if self.waiting.is_none() { CommandError::ConnectionLost } else { CommandError::NotConnected };
        self.answer(Reply::Failed(error));
    }
}

struct CountedCommand(Arc<AtomicUsize>);

impl CountedCommand {
    fn new(count: &Arc<AtomicUsize>) -> Option<Self> {
        let counted = Self(Arc::clone(count));
        // Counted before it is compared, so that two callers cannot both take the last place.
        (count.fetch_add(1, Ordering::Relaxed) < COMMANDS).then_some(counted)
    }
}

impl Drop for CountedCommand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An eventfd that is only written to when the thread sleeps or is about to.
pub(super) struct Waker {
    fd: OwnedFd,
    sleeping: AtomicBool,
}

impl Waker {
    fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, sleeping: AtomicBool::new(false) })
    }

    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // Fails only when the counter is full, and then the thread is awake anyway.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Announces sleep. Afterwards the queue must be looked at once more before really sleeping.
    pub(super) fn fall_asleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
    }

    /// Awake again; takes the wake-up out of the eventfd if one was written.
    pub(super) fn awake(&self, readable: bool) {
        self.sleeping.store(false, Ordering::SeqCst);
        if readable {
            let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::local::LocalStore;

    fn ask() -> (Mailbox, Inbox, PendingReply) {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        let row = store.create_session("asked", "user-1", None).unwrap().unwrap();
        let (mailbox, inbox) = Mailbox::new(Arc::new(Board::new(&row))).unwrap();
        let answer = mailbox.command(Command::PairCode { phone: "6281200000001".into() }).unwrap();
        (mailbox, inbox, answer)
    }

    #[test]
    fn a_command_that_nobody_took_was_not_started() {
        let (mailbox, inbox, answer) = ask();
        drop(inbox);
        assert!(matches!(answer.wait(Duration::ZERO), Some(Reply::Failed(CommandError::NotConnected))));
        let late = mailbox.command(Command::PairCode { phone: "6281200000001".into() }).unwrap();
        assert!(matches!(late.wait(Duration::ZERO), Some(Reply::Failed(CommandError::NotConnected))));
    }

    #[test]
    fn a_command_that_an_engine_saw_may_have_been_carried_out() {
        let (_mailbox, inbox, answer) = ask();
        let Ok(Mail::Command(command)) = inbox.queue.recv() else { panic!("a command waits") };
        drop(command.1.reached_engine());
        assert!(matches!(answer.wait(Duration::ZERO), Some(Reply::Failed(CommandError::ConnectionLost))));
    }
}
