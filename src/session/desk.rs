//! What of a session's thread outlives an engine: its mail, its back-off, its board, and the supervision itself.
//!
//! A panic or a failed store ends the engine, never the thread: the next engine starts from what is durable.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    SessionStatus,
    backoff::{Backoff, Pace, Permit},
    board::{Board, Change, Qr, SessionSnapshot},
    dial::{DialError, Target},
    entropy::Entropy,
    mailbox::{Inbox, Mail, Mailbox, Stop},
    meters::{End, Meters},
    report,
    runner::{Exit, Runner},
};
use crate::{
    storage::{
        events,
        local::{CommitListener, LocalStore, SessionKey, SessionPatch},
        sync::ObjectSync,
    },
    whatsapp::{
        ctx::Now,
        engine::{Engine, EngineConfig},
        model::{CommandError, Event, Reply},
    },
};
use rand_core::{CryptoRngCore, OsRng};

/// Virtual size; only pages that are touched count.
const DIAL_STACK_BYTES: usize = 512 << 10;

/// What all sessions share.
pub(super) struct Common {
    pub(super) store: LocalStore,
    pub(super) engine: EngineConfig,
    pub(super) entropy: Entropy,
    pub(super) target: Target,
    pub(super) pace: Arc<Pace>,
    pub(super) started: Instant,
    /// The object store behind the local one.
    pub(super) sync: Option<ObjectSync>,
    /// Sessions are being given away: they take no new work.
    pub(super) draining: AtomicBool,
    /// What is counted.
    pub(super) meters: Meters,
}

impl Common {
    /// The time by which all sessions pace their dials.
    pub(super) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }
}

/// See the module.
pub(super) struct Desk {
    pub(super) common: Arc<Common>,
    pub(super) key: SessionKey,
    pub(super) board: Arc<Board>,
    pub(super) inbox: Inbox,
    pub(super) mailbox: Mailbox,
    pub(super) listener: Arc<dyn CommitListener>,
    pub(super) backoff: Backoff,
    /// Dials so far; the number of the latest.
    pub(super) dials: u64,
    /// Somebody waits for the next dial.
    pub(super) hurried: bool,
    /// What its engines take their randomness from.
    pub(super) rng: Box<dyn CryptoRngCore + Send>,
    /// Set before the last status is shown: a connect from then on needs a new thread.
    ending: Arc<AtomicBool>,
    reports: u64,
    id: String,
}

impl Desk {
    pub(super) fn new(
        common: Arc<Common>,
        key: SessionKey,
        board: Arc<Board>,
        (mailbox, inbox): (Mailbox, Inbox),
        hurried: bool,
    ) -> Self {
        let id = board.snapshot().id;
        let rng = (common.entropy)(&id);
        let listener: Arc<dyn CommitListener> = Arc::new(mailbox.clone());
        Self {
            common,
            key,
            board,
            inbox,
            mailbox,
            listener,
            backoff: Backoff::default(),
            dials: 0,
            hurried,
            rng,
            ending: Arc::default(),
            reports: 0,
            id,
        }
    }

    /// The status from the first moment on, before the thread runs.
    pub(super) fn begin(&mut self) {
        self.show(SessionStatus::Connecting, None);
    }

    /// The thread's whole life.
    pub(super) fn work(&mut self) {
        self.common.meters.threads.increment();
        self.supervise(|desk| Runner::new(desk).run());
        self.common.meters.threads.decrement();
    }

    /// Runs engine after engine until one ends for good.
    fn supervise(&mut self, mut run: impl FnMut(&mut Self) -> Exit) {
        loop {
            let error = match catch_unwind(AssertUnwindSafe(|| run(self))) {
                Ok(Exit::Stopped(stop)) => return self.stopped(stop),
                Ok(Exit::Final { status, error }) => return self.ended(status, error),
                Ok(Exit::Failed(error)) => {
                    self.common.meters.ended(End::Store);
                    error.to_string()
                }
                Err(_) => {
                    self.common.meters.ended(End::Panic);
                    log::error!("session {}: panicked; this is a bug, please report it", self.id);
                    "internal error; the session is restarted".to_owned()
                }
            };
            self.show(SessionStatus::Error, Some(error));
            if let Some(stop) = self.recover() {
                return self.stopped(stop);
            }
        }
    }

    /// Pauses until the store has taken everything of the old engine; `Some` when told to stop meanwhile.
    fn recover(&mut self) -> Option<Stop> {
        loop {
            let until = Instant::now() + self.backoff.next(0, &mut OsRng);
            while let Ok(mail) = self.inbox.queue.recv_deadline(until) {
                match mail {
                    Mail::Stop(stop) => return Some(stop),
                    Mail::Hurry => break,
                    Mail::Command(command) => {
                        let reason = self.common.store.health().map_or(CommandError::NotConnected, |error| {
                            CommandError::Store(error.to_string())
                        });
                        command.1.send(Reply::Failed(reason));
                    }
                    Mail::Dialled(..) | Mail::Committed(_) | Mail::Failed(_) => {}
                }
            }
            // Behind everything the old engine submitted, so that the new one reads a settled state.
            match self.common.store.update_session(self.key, SessionPatch::default()) {
                Ok(()) => return self.clear_mail(),
                Err(error) => self.show(SessionStatus::Error, Some(error.to_string())),
            }
        }
    }

    /// Drops what was meant for the old engine.
    fn clear_mail(&mut self) -> Option<Stop> {
        self.inbox.restart();
        while let Ok(mail) = self.inbox.queue.try_recv() {
            match mail {
                Mail::Stop(stop) => return Some(stop),
                // Dropped, a command tells its caller that nothing was started.
                Mail::Command(_) | Mail::Hurry | Mail::Dialled(..) | Mail::Committed(_) | Mail::Failed(_) => {
                }
            }
        }
        None
    }

    /// Whether the thread has begun to end.
    pub(super) fn ending(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ending)
    }

    fn stopped(&mut self, stop: Stop) {
        match stop {
            Stop::Disconnect => self.ended(SessionStatus::Disconnected, None),
            // Not reported: the session is wanted, and connects again at the next start.
            Stop::Shutdown => {
                self.ending.store(true, Ordering::SeqCst);
                let now_ms = self.now().unix_ms;
                let edit =
                    |shown: &mut SessionSnapshot| shown.error = Some("the worker was stopped".to_owned());
                let change = self.board.become_status(SessionStatus::Disconnected, now_ms, edit);
                if let Some(away) = change.and_then(|change| change.shown.away) {
                    let patch = SessionPatch { away: Some(Some(away)), ..SessionPatch::default() };
                    self.report(Some(patch), None);
                }
            }
        }
    }

    fn ended(&mut self, status: SessionStatus, error: Option<String>) {
        let why = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        let level = match status {
            // Somebody must look, or link anew.
            SessionStatus::Error => log::Level::Error,
            SessionStatus::LoggedOut if error.is_some() => log::Level::Warn,
            _ => log::Level::Info,
        };
        log::log!(level, "session {}: {}{why}", self.id, status.as_str());
        self.ending.store(true, Ordering::SeqCst);
        self.show_with(status, Some(false), |shown| shown.error = error);
        // Whoever waits for the end of this thread finds the status stored.
        if let Err(error) = self.common.store.update_session(self.key, SessionPatch::default()) {
            log::warn!("session {}: the last status was not stored: {error}", self.id);
        }
    }

    /// Takes over what the engine counted.
    pub(super) fn count(&self, engine: &mut Engine) {
        if let Some(tally) = engine.take_tally() {
            self.common.meters.add(&tally);
            self.board.measured(engine.pending_sends(), engine.prekeys_left());
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: self.common.since_start(),
            unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Connects on a helper thread; the result comes by mail.
    pub(super) fn dial(&self, permit: Permit) {
        let (mailbox, number) = (self.mailbox.clone(), self.dials);
        let common = Arc::clone(&self.common);
        let work = move || {
            common.meters.dials.increment();
            let result = common.target.dial();
            common.meters.dials.decrement();
            drop(permit);
            mailbox.send(Mail::Dialled(number, Box::new(result)));
        };
        let spawned =
            thread::Builder::new().name(format!("dial-{}", self.id)).stack_size(DIAL_STACK_BYTES).spawn(work);
        if let Err(error) = spawned {
            self.mailbox.send(Mail::Dialled(number, Box::new(Err(DialError::Thread(error)))));
        }
    }

    /// A dial begins; only told when the session was in trouble or at rest before.
    pub(super) fn show_trying(&mut self, logged_in: bool) {
        let status = self.board.status();
        if !matches!(status, SessionStatus::Connecting | SessionStatus::Reconnecting) {
            self.show(SessionStatus::retrying(logged_in), None);
        }
    }

    /// Shows a status with words, and tells the event log when it is another one.
    pub(super) fn show(&mut self, status: SessionStatus, error: Option<String>) {
        self.show_with(status, None, |shown| shown.error = error);
    }

    /// Shows what the engine said about the connection.
    pub(super) fn show_event(&mut self, event: Event) {
        let now_ms = self.now().unix_ms;
        match event {
            Event::Qr { code, expires_in } => {
                let expires_at_ms = now_ms + u64::try_from(expires_in.as_millis()).unwrap_or(0);
                let qr = Qr { text: code, expires_at_ms };
                self.show_with(SessionStatus::QrRequired, None, |shown| shown.qr = Some(qr));
            }
            Event::PasskeyRequired { options } => {
                self.show_with(SessionStatus::PasskeyRequired, None, |shown| {
                    shown.passkey_options = Some(options);
                    shown.error = Some(PASSKEY_TEXT.to_owned());
                });
            }
            Event::Paired { jid, lid } => {
                self.show_with(SessionStatus::Connecting, None, |shown| {
                    shown.phone_number = Some(format!("+{}", jid.user));
                    shown.lid = lid.map(|lid| lid.user.into_owned());
                });
            }
            Event::Connected { jid, lid, push_name } => {
                self.board.active(now_ms);
                self.show_with(SessionStatus::Connected, None, |shown| {
                    shown.phone_number = Some(format!("+{}", jid.user));
                    if let Some(lid) = lid {
                        shown.lid = Some(lid.user.into_owned());
                    }
                    if push_name.is_some() {
                        shown.push_name = push_name;
                    }
                    shown.connected_since_ms = Some(now_ms);
                });
                self.common.meters.logins.increment();
                log::info!("session {}: connected", self.id);
            }
            Event::Ready => {
                self.board.ready();
            }
            // The end of the connection follows and shows the status.
            _ => {}
        }
    }

    /// Puts an event that need not survive a crash into the log.
    pub(super) fn log_event(&mut self, event: &Event) {
        self.report(None, Some(events::encode(event)));
    }

    fn show_with(
        &mut self,
        status: SessionStatus,
        wanted: Option<bool>,
        edit: impl FnOnce(&mut SessionSnapshot),
    ) {
        match (self.board.become_status(status, self.now().unix_ms, edit), wanted) {
            (Some(Change { shown, gap }), _) => {
                self.report(Some(report::patch(&shown, wanted)), Some(report::event(&shown)));
                if let Some((from_ms, reason)) = gap {
                    self.report(None, Some(report::gap(from_ms, shown.updated_ms, &reason)));
                }
            }
            (None, Some(_)) => self.report(Some(SessionPatch { wanted, ..SessionPatch::default() }), None),
            (None, None) => {}
        }
    }

    fn report(&mut self, patch: Option<SessionPatch>, event: Option<(&'static str, String)>) {
        self.reports += 1;
        if let Err(error) = self.common.store.report(self.key, self.reports, patch, event, &self.listener) {
            log::warn!("session {}: a status was not stored: {error}", self.id);
        }
    }
}

const PASSKEY_TEXT: &str = "WhatsApp asks for a passkey, which only a browser can give; link with a pairing code, or \
     confirm the passkey on the phone and connect again";

#[cfg(test)]
mod tests;
