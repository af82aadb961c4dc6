//! One session as the rest of the program holds it: whether its thread runs or not.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    SessionError, SessionSnapshot, SessionStatus,
    board::Board,
    desk::{Common, Desk},
    mailbox::{Mail, Mailbox, Stop},
    reply::PendingReply,
    report,
};
use crate::{
    storage::local::{SessionKey, SessionPatch, SessionRow, SessionStore},
    whatsapp::{
        engine::Engine,
        model::{Command, Reply},
    },
};

/// Virtual size of a session's stack; only pages that are touched count. Unoptimised code needs far more.
pub(super) const STACK_BYTES: usize = if cfg!(debug_assertions) { 8 << 20 } else { 1 << 20 };
/// Ending waits this long for the thread: a clean stop's own limit and a slow disk.
const END_WAIT: Duration = Duration::from_secs(10);
/// A paired session that is not connected has this long to log in, so that it can be unlinked.
const UNLINK_LOGIN_WAIT: Duration = Duration::from_secs(15);
/// WhatsApp has this long to confirm that the device is unlinked.
const UNLINK_WAIT: Duration = Duration::from_secs(10);

/// One session. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    session: Arc<Session>,
}

struct Session {
    key: SessionKey,
    common: Arc<Common>,
    board: Arc<Board>,
    /// Held while the thread is started or ended, so that there is never a second one.
    control: Mutex<Control>,
    /// It was connected when the worker stopped, and nobody has decided otherwise since.
    returns: AtomicBool,
}

#[derive(Default)]
struct Control {
    running: Option<Running>,
    deleting: bool,
    stopping: bool,
}

struct Running {
    mailbox: Mailbox,
    /// The thread takes no more mail that would keep it alive.
    ending: Arc<AtomicBool>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl SessionHandle {
    pub(super) fn new(common: Arc<Common>, row: &SessionRow) -> Self {
        let board = Arc::new(Board::new(row));
        let returns = AtomicBool::new(row.wanted);
        Self {
            session: Arc::new(Session { key: row.key, common, board, control: Mutex::default(), returns }),
        }
    }

    /// Internal number, for the store's queries.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        self.session.key
    }

    /// Whether the session is connected, on its way, or about to be brought back by a worker that has just started.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.snapshot().status {
            SessionStatus::Connected | SessionStatus::Connecting | SessionStatus::Reconnecting => true,
            SessionStatus::Disconnected => self.session.returns.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// The session does not come back by itself.
    pub(super) fn stays_away(&self) {
        self.session.returns.store(false, Ordering::Relaxed);
    }

    /// What the session is doing now.
    #[must_use]
    pub fn snapshot(&self) -> SessionSnapshot {
        self.session.board.snapshot()
    }

    /// Starts connecting, unless it is connecting or connected already. Returns at once.
    ///
    /// # Errors
    /// [`SessionError::Stopping`], [`SessionError::Deleting`], [`SessionError::Thread`], [`SessionError::Store`].
    pub fn connect(&self) -> Result<(), SessionError> {
        let mut control = self.control();
        self.start(&mut control, Start::Asked)
    }

    /// As [`Self::connect`], at the start of the worker: in turn with all the others, and wanted already.
    pub(super) fn resume(&self) -> Result<(), SessionError> {
        let mut control = self.control();
        self.start(&mut control, Start::Resumed)
    }

    /// Closes the connection; keeps everything else. Waits until the session's thread has ended (bounded).
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Busy`] when the thread did not end in time.
    pub fn disconnect(&self) -> Result<(), SessionError> {
        let mut control = self.control();
        self.end(&mut control)
    }

    /// Unlinks the device (asks WhatsApp, connecting for it if need be, with bounded waits) and forgets its keys.
    /// Whether the device is unlinked: `false` when WhatsApp could not be asked, and only the phone can still do it.
    ///
    /// # Errors
    /// [`SessionError::Store`], [`SessionError::Busy`] when the thread did not end in time.
    pub fn logout(&self) -> Result<bool, SessionError> {
        let unlinked = self.unlink();
        let mut control = self.control();
        self.end(&mut control)?;
        self.session.common.store.forget_state(self.key())?;
        self.rest(SessionStatus::LoggedOut)?;
        Ok(unlinked)
    }

    /// Disconnects and connects again.
    ///
    /// # Errors
    /// As for [`SessionHandle::connect`] and [`SessionHandle::disconnect`].
    pub fn restart(&self) -> Result<(), SessionError> {
        let mut control = self.control();
        self.end(&mut control)?;
        self.start(&mut control, Start::Asked)
    }

    /// Hands a command to the session.
    ///
    /// # Errors
    /// [`SessionError::Store`] while the store refuses writes, [`SessionError::NotConnected`] when no thread runs,
    /// [`SessionError::Busy`] when too many commands wait.
    pub fn command(&self, command: Command) -> Result<PendingReply, SessionError> {
        if let Some(error) = self.session.common.store.health() {
            return Err(error.into());
        }
        let mailbox = match &self.control().running {
            Some(running) if running.is_alive() => running.mailbox.clone(),
            _ => return Err(SessionError::NotConnected),
        };
        mailbox.command(command).ok_or(SessionError::Busy)
    }

    /// Waits until `done` holds or the time is over; returns the snapshot either way.
    pub fn wait_until(&self, timeout: Duration, done: impl Fn(&SessionSnapshot) -> bool) -> SessionSnapshot {
        self.session.board.wait_until(timeout, done)
    }

    /// Waits until an event with a number above `after` is logged during this wait or was since the worker's
    /// start; `false` when the time is over first.
    #[must_use]
    pub fn wait_event(&self, after: u64, timeout: Duration) -> bool {
        self.session.board.wait_event(after, timeout)
    }

    /// Messages that wait for the server's answer, and prekeys left while connected.
    pub(super) fn measures(&self) -> (u32, Option<u32>) {
        self.session.board.measures()
    }

    /// Puts the status as it is into the event log once more, for somebody who may have forgotten it.
    ///
    /// # Errors
    /// [`SessionError::Store`]
    pub fn tell_again(&self) -> Result<(), SessionError> {
        loop {
            let shown = self.snapshot();
            let told =
                self.session.common.store.tell(self.key(), SessionPatch::default(), report::event(&shown))?;
            self.session.board.logged(told);
            // A change meanwhile may stand in the log before what is told here.
            let now = self.snapshot();
            if (now.status, now.updated_ms, &now.qr) == (shown.status, shown.updated_ms, &shown.qr) {
                return Ok(());
            }
        }
    }

    /// Whether no phone has accepted this session, for certain.
    #[must_use]
    pub fn is_unlinked(&self) -> bool {
        !self.is_linked()
    }

    pub(super) fn status(&self) -> SessionStatus {
        self.session.board.status()
    }

    /// From now on nothing starts. Unlinks as [`Self::logout`] does, ends the thread and removes every row.
    pub(super) fn delete(&self) -> Result<bool, SessionError> {
        self.control().deleting = true;
        let unlinked = self.unlink();
        let mut control = self.control();
        self.end(&mut control)?;
        let store = &self.session.common.store;
        match &self.session.common.sync {
            Some(_) => store.delete_session_and_objects(self.key())?,
            None => store.delete_session(self.key())?,
        }
        Ok(unlinked)
    }

    /// From now on nothing starts; what runs is told to stop.
    pub(super) fn begin_shutdown(&self) {
        let mut control = self.control();
        control.stopping = true;
        if let Some(running) = &control.running {
            running.mailbox.send(Mail::Stop(Stop::Shutdown));
        }
    }

    /// Whether the thread has ended by then.
    pub(super) fn wait_ended(&self, timeout: Duration) -> bool {
        let ended = self.control().running.as_ref().map(|running| running.ended.clone());
        ended.is_none_or(|ended| ended.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout))
    }

    /// Puts words to a session that cannot even be started.
    pub(super) fn show_error(&self, error: String) {
        self.session.board.become_status(SessionStatus::Error, now_ms(), |shown| shown.error = Some(error));
    }

    /// Shows and stores a status of a session without a thread.
    fn rest(&self, status: SessionStatus) -> Result<(), SessionError> {
        self.rest_with(status, None)
    }

    fn rest_with(&self, status: SessionStatus, error: Option<String>) -> Result<(), SessionError> {
        let Session { key, common, board, .. } = &*self.session;
        if let Some(change) = board.become_status(status, now_ms(), |shown| shown.error = error) {
            let shown = change.shown;
            let seq = common.store.tell(*key, report::patch(&shown, Some(false)), report::event(&shown))?;
            board.logged(seq);
        }
        Ok(())
    }

    pub(super) fn common(&self) -> &Common {
        &self.session.common
    }

    /// Ends the thread and shows why the session rests now.
    pub(super) fn end_with(&self, error: String) -> Result<(), SessionError> {
        let mut control = self.control();
        self.end(&mut control)?;
        self.rest_with(SessionStatus::Error, Some(error))
    }

    /// Runs `work` while nothing starts the session, after its thread has ended.
    pub(super) fn at_rest<T>(
        &self,
        work: impl FnOnce() -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let mut control = self.control();
        self.end(&mut control)?;
        work()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.session.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, control: &mut Control, why: Start) -> Result<(), SessionError> {
        if control.deleting && why != Start::ToUnlink {
            return Err(SessionError::Deleting);
        }
        if control.stopping || self.session.common.draining.load(Ordering::Relaxed) {
            return Err(SessionError::Stopping);
        }
        if let Some(running) = control.running.as_ref().filter(|running| running.is_alive()) {
            if !running.ending.load(Ordering::SeqCst) {
                running.mailbox.send(Mail::Hurry);
                return Ok(());
            }
            running.wait_ended()?;
        }
        if let Some(sync) = &self.session.common.sync {
            sync.acquire(&self.snapshot().id, self.key())?;
        }
        if why == Start::Asked {
            let patch = SessionPatch { wanted: Some(true), ..SessionPatch::default() };
            self.session.common.store.update_session(self.key(), patch)?;
        }
        let thread = |error: std::io::Error| SessionError::Thread(error.to_string());
        let mail = Mailbox::new(Arc::clone(&self.session.board)).map_err(thread)?;
        let mailbox = mail.0.clone();
        let (alive, ended) = crossbeam_channel::bounded(0);
        let (common, key, board) =
            (Arc::clone(&self.session.common), self.key(), Arc::clone(&self.session.board));
        let mut desk = Desk::new(common, key, board, mail, why != Start::Resumed);
        let ending = desk.ending();
        desk.begin();
        thread::Builder::new()
            .name(format!("wa-{}", desk.id()))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                desk.work();
                drop(alive);
            })
            .map_err(|error| {
                self.show_error(error.to_string());
                thread(error)
            })?;
        control.running = Some(Running { mailbox, ending, ended });
        Ok(())
    }

    fn end(&self, control: &mut Control) -> Result<(), SessionError> {
        match &control.running {
            Some(running) if running.is_alive() => {
                running.mailbox.send(Mail::Stop(Stop::Disconnect));
                running.wait_ended()?;
            }
            _ if self.status() == SessionStatus::Error => self.rest(SessionStatus::Disconnected)?,
            _ => {}
        }
        control.running = None;
        self.stays_away();
        Ok(())
    }

    /// Asks WhatsApp to forget this device. Whether it is unlinked; if not, the phone's owner can still remove it by
    /// hand.
    fn unlink(&self) -> bool {
        if !self.is_linked() {
            return true;
        }
        let asked = self.log_in_to_unlink().and_then(|()| self.command(Command::Logout));
        let reply = asked.ok().and_then(|pending| pending.wait(UNLINK_WAIT));
        // The phone may have done it in the meantime.
        let unlinked = matches!(reply, Some(Reply::Done)) || !self.is_linked();
        if !unlinked {
            let id = self.snapshot().id;
            log::warn!("session {id}: WhatsApp did not confirm that the device is unlinked");
        }
        unlinked
    }

    /// Whether a phone has accepted us, as far as can be read.
    fn is_linked(&self) -> bool {
        let store = &self.session.common.store;
        store.settle().is_err()
            || Engine::is_paired(&SessionStore::new(store.clone(), self.key())).unwrap_or(true)
    }

    /// Waits for a login, starting the thread for it if need be.
    fn log_in_to_unlink(&self) -> Result<(), SessionError> {
        if self.status() == SessionStatus::Connected {
            return Ok(());
        }
        let ending = {
            let mut control = self.control();
            self.start(&mut control, Start::ToUnlink)?;
            control.running.as_ref().map(|running| Arc::clone(&running.ending)).unwrap_or_default()
        };
        self.wait_until(UNLINK_LOGIN_WAIT, |shown| {
            matches!(
                shown.status,
                SessionStatus::Connected | SessionStatus::QrRequired | SessionStatus::LoggedOut
            ) || ending.load(Ordering::SeqCst)
        });
        Ok(())
    }
}

/// Who wants the session's thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Somebody asked for a connection, now and after every restart of the worker.
    Asked,
    /// The worker starts; the session was wanted before.
    Resumed,
    /// A connection is needed once, to unlink the device over it.
    ToUnlink,
}

impl Running {
    fn is_alive(&self) -> bool {
        self.ended.try_recv() == Err(crossbeam_channel::TryRecvError::Empty)
    }

    fn wait_ended(&self) -> Result<(), SessionError> {
        match self.ended.recv_timeout(END_WAIT) {
            Err(RecvTimeoutError::Timeout) => Err(SessionError::Busy),
            _ => Ok(()),
        }
    }
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
