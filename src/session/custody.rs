//! Sessions and the object store: coming back at the start, giving sessions away, losing them, removing their objects.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Registry, SessionError, SessionHandle, SessionStatus};
use crate::{
    storage::{
        local::{SessionPatch, SessionStore, StoreError},
        sync::{CustodyError, ObjectSync, Returning, SessionData},
    },
    whatsapp::{engine::Engine, state::StateRead},
};

/// What became of one session of a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Its id.
    pub id: String,
    /// Messages of ours that WhatsApp has not taken yet: whoever has the session next sends them.
    pub pending: usize,
    /// Why it could not be given away; `None` when it was.
    pub error: Option<SessionError>,
}

impl Registry {
    /// The object store's side, when there is one.
    #[must_use]
    pub fn sync(&self) -> Option<&ObjectSync> {
        self.common().sync.as_ref()
    }

    /// A session that another worker took stops here.
    pub(super) fn watch_leases(&self) {
        let registry = self.downgrade();
        if let Some(sync) = self.sync() {
            sync.on_lost(move |key, worker| {
                let session = registry()
                    .and_then(|registry| registry.all().into_iter().find(|session| session.key() == key));
                if let Some(session) = session {
                    session.lost(worker);
                }
            });
        }
    }

    /// What the object store knows of a session that is about to be made here; must be the same user's.
    pub(super) fn stored(&self, id: &str, user_id: &str) -> Result<Option<SessionData>, SessionError> {
        let Some(sync) = self.sync() else { return Ok(None) };
        match sync.find(id) {
            Ok(Some(data)) if data.user_id != user_id => Err(SessionError::OtherUser),
            Ok(data) => Ok(data),
            // Known when it connects; until then there is only its name.
            Err(error) => {
                log::warn!("session {id}: made without asking the object store: {error}");
                Ok(None)
            }
        }
    }

    /// Makes a session here that the object store has; `None` when it has none of this id.
    ///
    /// # Errors
    /// As for [`Registry::create`]; [`SessionError::Custody`] when the object store cannot be asked.
    pub fn take_over(
        &self,
        id: &str,
        user_id: &str,
        name: Option<&str>,
    ) -> Result<Option<SessionHandle>, SessionError> {
        let Some(sync) = self.sync() else { return Ok(None) };
        if sync.find(id)?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.create(id, user_id, name)?.0))
    }

    /// Brings back, behind the back of the start: the sessions of the local store, then those that only the object
    /// store has. What cannot be had now is tried again.
    pub(super) fn bring_back(&self, wanted: Vec<SessionHandle>) {
        let registry = self.clone();
        let spawned = thread::Builder::new().name("come-back".into()).spawn(move || {
            let keys: BTreeSet<_> = wanted.iter().map(SessionHandle::key).collect();
            let mut left: Vec<Coming> =
                wanted.into_iter().map(|session| Coming { session, connect: true }).collect();
            let others = registry.all().into_iter().filter(|session| !keys.contains(&session.key()));
            left.extend(
                others.filter(SessionHandle::had_lease).map(|session| Coming { session, connect: false }),
            );
            let mut is_listed = false;
            loop {
                left = come_back_all(left);
                if !is_listed {
                    is_listed = registry.find_returning(&mut left);
                }
                if registry.is_stopping() || is_listed && left.is_empty() {
                    return;
                }
                thread::sleep(COME_BACK_PAUSE);
            }
        });
        if let Err(error) = spawned {
            log::error!("the sessions cannot be started: {error}");
        }
    }

    /// Adds sessions of the bucket that name this worker; whether the bucket could be asked.
    fn find_returning(&self, left: &mut Vec<Coming>) -> bool {
        let Some(sync) = self.sync() else { return true };
        let found = match sync.returning(|id| self.get(id).is_ok()) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("sessions of the object store are looked for later: {error}");
                return false;
            }
        };
        for Returning { id, data, wanted } in found {
            let patch = SessionPatch { wanted: Some(wanted), ..SessionPatch::default() };
            let added = self.add(&id, &data.user_id, data.session_name.as_deref()).and_then(|session| {
                self.store().update_session(session.key(), patch)?;
                Ok(session)
            });
            match added {
                Ok(session) => {
                    log::info!("session {id}: comes back from the object store");
                    left.push(Coming { session, connect: wanted });
                }
                Err(error) => log::warn!("session {id}: left in the object store: {error}"),
            }
        }
        true
    }

    /// Gives a session away: disconnects it, uploads what is left, and releases its lease. Any worker, this one too,
    /// can connect it afterwards.
    ///
    /// # Errors
    /// [`SessionError::NotFound`], [`SessionError::Busy`], [`SessionError::Store`], [`SessionError::Custody`] when the
    /// object store does not take everything in time: the session stays ours then, disconnected.
    pub fn release(&self, id: &str) -> Result<(), SessionError> {
        self.get(id)?.release(Instant::now() + RELEASE_WAIT)
    }

    /// From now on nothing new is taken. Waits for messages under way, then gives all sessions away.
    #[must_use]
    pub fn drain(&self) -> Vec<Drained> {
        self.common().draining.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + DRAIN_WAIT;
        let done = Mutex::new(Vec::new());
        in_parallel(self.all(), |session| {
            let pending = session.await_sent(Instant::now() + SENDS_WAIT);
            let error = session.release(deadline).err();
            let drained = Drained { id: session.snapshot().id, pending, error };
            done.lock().unwrap_or_else(PoisonError::into_inner).push(drained);
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by(|one, other| one.id.cmp(&other.id));
        done
    }

    /// Whether [`Registry::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.common().draining.load(Ordering::Relaxed)
    }

    /// Uploads what is left and releases every lease, so that other workers need not wait; this one takes its sessions
    /// back at its next start. Call it after [`Registry::shutdown`]. Gives the ids that keep their lease until it
    /// expires.
    pub fn release_all(&self, wait: Duration) -> Vec<String> {
        let Some(sync) = self.sync() else { return Vec::new() };
        let deadline = Instant::now() + wait;
        let kept = Mutex::new(Vec::new());
        sync.flush(deadline);
        in_parallel(self.all(), |session| {
            if let Err(error) = sync.release(session.key(), true, deadline) {
                let id = session.snapshot().id;
                log::debug!("session {id}: keeps its lease: {error}");
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            }
        });
        sync.stop();
        kept.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes what only the object store has: of a deletion that was interrupted, or of a session that is nowhere.
    pub(super) fn delete_unknown(&self, id: &str, unknown: SessionError) -> Result<bool, SessionError> {
        let Some(sync) = self.sync() else { return Err(unknown) };
        if self.store().removals()?.iter().any(|removal| removal == id) {
            return Ok(true);
        }
        if !sync.knows(id)? {
            return Err(unknown);
        }
        sync.remove(id, None)?;
        // Nobody could log in to ask WhatsApp.
        Ok(false)
    }
}

impl SessionHandle {
    /// Takes the lease of a new session and loads what is stored of it, as far as that can be done now.
    pub(super) fn adopt(&self) {
        let Some(sync) = &self.common().sync else { return };
        let id = self.snapshot().id;
        if let Err(error) = sync.acquire(&id, self.key()) {
            log::info!("session {id}: {error}");
        }
    }

    /// Starts a session that was connected before.
    pub(super) fn come_back(&self) -> Result<(), SessionError> {
        let store = &self.common().store;
        if let Some(sync) = &self.common().sync {
            sync.acquire_again(&self.snapshot().id, self.key())?;
            store.settle()?;
        }
        match Engine::is_paired(&SessionStore::new(store.clone(), self.key())) {
            Ok(true) => self.resume(),
            Ok(false) => {
                log::warn!("session {}: was connected, and has no account any more", self.snapshot().id);
                self.stays_away();
                let patch = SessionPatch {
                    status: Some(SessionStatus::Disconnected.as_str()),
                    wanted: Some(false),
                    ..SessionPatch::default()
                };
                Ok(store.update_session(self.key(), patch)?)
            }
            Err(error) => Err(StoreError::Io(error.to_string()).into()),
        }
    }

    /// Whether this worker had the session's lease when it stopped.
    fn had_lease(&self) -> bool {
        matches!(self.common().store.lease(self.key()), Ok(Some(_)))
    }

    /// Another worker has the session.
    fn lost(&self, worker: &str) {
        self.stop_with(format!("taken over by worker {worker}"));
    }

    fn stop_with(&self, why: String) {
        if let Err(error) = self.end_with(why) {
            log::error!("session {}: does not stop: {error}", self.snapshot().id);
        }
    }

    /// Whether another worker has it.
    pub(super) fn check_holder(&self) -> Result<(), SessionError> {
        let Some(sync) = &self.common().sync else { return Ok(()) };
        if sync.holds(self.key()) {
            return Ok(());
        }
        match sync.holder(&self.snapshot().id) {
            Ok(Some((worker, expires_ms))) => Err(CustodyError::Held { worker, expires_ms }.into()),
            Ok(None) => Ok(()),
            // Its objects go when they can be reached, unless somebody else has it by then.
            Err(error) => {
                log::warn!("session {}: deleted without asking: {error}", self.snapshot().id);
                Ok(())
            }
        }
    }

    /// Removes the objects of a deleted session, now if possible.
    pub(super) fn remove_objects(&self) {
        let Some(sync) = &self.common().sync else { return };
        let id = self.snapshot().id;
        if let Err(error) = sync.remove(&id, Some(self.key())) {
            log::warn!("session {id}: its objects are removed later: {error}");
        }
    }

    fn release(&self, deadline: Instant) -> Result<(), SessionError> {
        self.at_rest(|| {
            if let Some(sync) = &self.common().sync {
                sync.release(self.key(), false, deadline)?;
                self.common().store.set_lease(self.key(), None)?;
            }
            Ok(())
        })
    }

    /// Waits until WhatsApp has everything we sent; how many messages are left when the time is over.
    fn await_sent(&self, deadline: Instant) -> usize {
        let state = SessionStore::new(self.common().store.clone(), self.key());
        loop {
            let pending = self
                .common()
                .store
                .settle()
                .map_or(0, |()| state.pending_messages().map_or(0, |pending| pending.len()));
            if pending == 0 || self.status() != SessionStatus::Connected || Instant::now() >= deadline {
                return pending;
            }
            thread::sleep(SENDS_TICK);
        }
    }
}

/// A session on its way back.
struct Coming {
    session: SessionHandle,
    connect: bool,
}

/// Those that must be tried again.
fn come_back_all(coming: Vec<Coming>) -> Vec<Coming> {
    let left = Mutex::new(Vec::new());
    in_parallel(coming, |coming| {
        let session = &coming.session;
        let id = session.snapshot().id;
        let result = if coming.connect {
            session.come_back()
        } else {
            let sync = session.common().sync.as_ref();
            sync.map_or(Ok(()), |sync| sync.acquire_again(&id, session.key()).map_err(SessionError::from))
        };
        if result.is_err() {
            session.stays_away();
        }
        match result {
            Ok(()) | Err(SessionError::Stopping | SessionError::Deleting) => {}
            Err(SessionError::Custody(
                error @ (CustodyError::Unreachable(_) | CustodyError::HeldByNamesake { .. }),
            )) => {
                if coming.connect {
                    session.show_error(error.to_string());
                }
                left.lock().unwrap_or_else(PoisonError::into_inner).push(coming);
            }
            Err(SessionError::Custody(error @ CustodyError::GivenAway { .. })) => {
                log::warn!("session {id}: {error}");
                session.stop_with(error.to_string());
            }
            Err(SessionError::Custody(CustodyError::Held { worker, .. })) => {
                log::warn!("session {id}: worker {worker} has it; it stays there");
                session.lost(&worker);
            }
            Err(error) => {
                log::error!("session {id}: cannot be started: {error}");
                session.show_error(error.to_string());
            }
        }
    });
    left.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn in_parallel<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let threads = PARALLEL.min(items.len());
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
        while let Some(item) = next() {
            work(item);
        }
    });
}

/// Sessions that come or go at the same time.
const PARALLEL: usize = 8;
/// Between tries to have a session.
const COME_BACK_PAUSE: Duration = Duration::from_secs(1);
/// For the uploads of a session that is given away.
const RELEASE_WAIT: Duration = Duration::from_secs(15);
/// For the uploads of all of them.
const DRAIN_WAIT: Duration = Duration::from_secs(60);
/// For messages that WhatsApp has not taken yet.
const SENDS_WAIT: Duration = Duration::from_secs(10);
const SENDS_TICK: Duration = Duration::from_millis(50);
