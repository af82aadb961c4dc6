//! All sessions of this worker: create, find, delete, start and stop them together.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    SessionHandle, SessionSnapshot, SessionStatus,
    backoff::Pace,
    desk::Common,
    dial::Target,
    entropy::{Entropy, Stock},
    meters::Meters,
};
use crate::{
    proxy::Proxy,
    storage::{
        local::{LocalStore, SessionKey, SessionRow, StoreError},
        sync::{CustodyError, ObjectSync},
    },
    whatsapp::{engine::EngineConfig, keys::PublicKey},
};

/// What every session of this worker needs to know; from the configuration.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// `wss://host[:port]/path` of the service; TLS is not optional.
    pub url: String,
    /// Root of the Noise certificate chain.
    pub noise_root: PublicKey,
    /// PEM file with certificates added to the TLS roots.
    pub ca_file: Option<PathBuf>,
    /// What the websockets go through.
    pub proxy: Option<Proxy>,
    /// Client version announced to the server.
    pub version: [u32; 3],
    /// What the phone shows under "Linked devices".
    pub device_name: String,
    /// More sessions than this are refused.
    pub max_sessions: usize,
}

/// Why a session cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No session of this id.
    #[error("no session with this id")]
    NotFound,
    /// The id belongs to another user.
    #[error("this session id belongs to another user")]
    OtherUser,
    /// The worker is full.
    #[error("this worker already has {max} sessions, its limit")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The session has no connection that could take a command.
    #[error("the session is not connected")]
    NotConnected,
    /// The session has too much to do: try again soon.
    #[error("the session is busy")]
    Busy,
    /// The worker is stopping.
    #[error("the worker is stopping")]
    Stopping,
    /// The session is being deleted.
    #[error("the session is being deleted")]
    Deleting,
    /// The operating system refused a thread.
    #[error("no thread for the session: {0}")]
    Thread(String),
    /// The local store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The object store has it otherwise.
    #[error("{0}")]
    Custody(#[from] CustodyError),
}

/// Sums over all sessions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StockTaking {
    /// Messages that are accepted and not answered by the server.
    pub(crate) pending: u64,
    /// One-time prekeys the server has left for the connected session that has the fewest.
    pub(crate) prekeys_lowest: Option<u32>,
    /// Connected sessions with so few of them that new contacts may soon find none.
    pub(crate) prekeys_low: u64,
}

/// Sessions fill up below 100: with so few, filling up does not work, or does not keep pace.
const PREKEYS_LOW: u32 = 20;

/// All sessions. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    common: Arc<Common>,
    max_sessions: usize,
    sessions: RwLock<BTreeMap<String, SessionHandle>>,
    /// Held while a session is created, so that the limit holds.
    creating: Mutex<()>,
    stopping: AtomicBool,
    /// Sessions that [`Registry::start_all`] connects.
    wanted: Mutex<Vec<SessionHandle>>,
}

impl Registry {
    /// Loads the stored sessions; connects none of them yet (see [`Registry::start_all`]).
    ///
    /// # Errors
    /// One clear line: unreadable store, CA file or URL.
    pub fn open(store: LocalStore, settings: SessionSettings) -> Result<Self, String> {
        Self::open_with(store, settings, Box::new(|_| Box::<Stock>::default()), None)
    }

    /// As [`Registry::open`], with an object store behind the local one: no session connects without its lease, and
    /// sessions of the bucket come here.
    ///
    /// # Errors
    /// As for [`Registry::open`].
    pub fn open_synced(
        store: LocalStore,
        settings: SessionSettings,
        sync: ObjectSync,
    ) -> Result<Self, String> {
        let registry = Self::open_with(store, settings, Box::new(|_| Box::<Stock>::default()), Some(sync))?;
        registry.watch_leases();
        Ok(registry)
    }

    fn open_with(
        store: LocalStore,
        settings: SessionSettings,
        entropy: Entropy,
        sync: Option<ObjectSync>,
    ) -> Result<Self, String> {
        let target = Target::new(&settings.url, settings.ca_file.as_deref(), settings.proxy)?;
        let rows = store.sessions().map_err(|error| error.to_string())?;
        let engine = EngineConfig {
            noise_root: settings.noise_root,
            version: settings.version,
            device_name: settings.device_name,
        };
        let (pace, started, draining) = (Pace::new(), Instant::now(), AtomicBool::new(false));
        let meters = Meters::default();
        let common =
            Arc::new(Common { store, engine, entropy, target, pace, started, sync, draining, meters });
        let mut wanted = Vec::new();
        let mut sessions = BTreeMap::new();
        for row in rows {
            let handle = SessionHandle::new(Arc::clone(&common), &row);
            if row.wanted {
                wanted.push(handle.clone());
            }
            sessions.insert(row.id, handle);
        }
        let inner = Inner {
            common,
            max_sessions: settings.max_sessions,
            sessions: RwLock::new(sessions),
            creating: Mutex::default(),
            stopping: AtomicBool::new(false),
            wanted: Mutex::new(wanted),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Connects every session that was connected when the worker stopped, smoothly, and those that the object store
    /// has for this worker. A session that waited for a scan is not started: nobody looks at its QR.
    pub fn start_all(&self) {
        let wanted = std::mem::take(&mut *self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        if self.inner.common.sync.is_some() {
            return self.bring_back(wanted);
        }
        for session in wanted {
            if let Err(error) = session.come_back() {
                log::error!("session {}: cannot be started: {error}", session.snapshot().id);
                session.show_error(error.to_string());
            }
        }
    }

    /// Makes a session, or finds the same user's. `true` when it is new.
    ///
    /// # Errors
    /// [`SessionError::OtherUser`], [`SessionError::TooMany`], [`SessionError::Stopping`], [`SessionError::Store`],
    /// [`SessionError::Deleting`] while an old session of this id goes away.
    pub fn create(
        &self,
        id: &str,
        user_id: &str,
        name: Option<&str>,
    ) -> Result<(SessionHandle, bool), SessionError> {
        let creating = self.inner.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = self.read().get(id).cloned() {
            let same_user = session.snapshot().user_id == user_id;
            return if same_user { Ok((session, false)) } else { Err(SessionError::OtherUser) };
        }
        let stored = self.stored(id, user_id)?;
        let stored_name = stored.as_ref().and_then(|data| data.session_name.as_deref());
        let session = self.add(id, user_id, name.or(stored_name))?;
        drop(creating);
        session.adopt();
        Ok((session, true))
    }

    /// A new row and its handle.
    pub(super) fn add(
        &self,
        id: &str,
        user_id: &str,
        name: Option<&str>,
    ) -> Result<SessionHandle, SessionError> {
        if self.is_stopping() || self.inner.common.draining.load(Ordering::Relaxed) {
            return Err(SessionError::Stopping);
        }
        if self.read().len() >= self.inner.max_sessions {
            return Err(SessionError::TooMany { max: self.inner.max_sessions });
        }
        let row: Option<SessionRow> = self.store().create_session(id, user_id, name)?;
        let row = row.ok_or(SessionError::Deleting)?;
        let session = SessionHandle::new(Arc::clone(&self.inner.common), &row);
        self.write().insert(row.id, session.clone());
        Ok(session)
    }

    /// The session of this id.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn get(&self, id: &str) -> Result<SessionHandle, SessionError> {
        self.read().get(id).cloned().ok_or(SessionError::NotFound)
    }

    /// The session of this internal number.
    #[must_use]
    pub fn by_key(&self, key: SessionKey) -> Option<SessionHandle> {
        self.read().values().find(|session| session.key() == key).cloned()
    }

    /// All sessions, by id.
    #[must_use]
    pub fn list(&self) -> Vec<SessionSnapshot> {
        self.all().iter().map(SessionHandle::snapshot).collect()
    }

    /// Number of sessions, and how many of them are connected.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let sessions = self.read();
        let connected =
            sessions.values().filter(|session| session.status() == SessionStatus::Connected).count();
        (sessions.len(), connected)
    }

    /// Number of sessions in each status, in the order of [`SessionStatus::ALL`].
    #[must_use]
    pub fn counts_by_status(&self) -> [usize; SessionStatus::ALL.len()] {
        let sessions = self.read();
        let mut counts = [0; SessionStatus::ALL.len()];
        for session in sessions.values() {
            let status = session.status();
            let place = SessionStatus::ALL.iter().position(|known| *known == status);
            place.and_then(|place| counts.get_mut(place)).into_iter().for_each(|count| *count += 1);
        }
        counts
    }

    /// What all sessions count together.
    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.common.meters
    }

    /// What the sessions have in stock at this moment.
    pub(crate) fn stock(&self) -> StockTaking {
        let mut stock = StockTaking::default();
        for session in self.read().values() {
            let (pending, prekeys) = session.measures();
            stock.pending += u64::from(pending);
            if let Some(left) = prekeys {
                stock.prekeys_lowest = Some(stock.prekeys_lowest.map_or(left, |lowest| lowest.min(left)));
                stock.prekeys_low += u64::from(left < PREKEYS_LOW);
            }
        }
        stock
    }

    /// Unlinks the device (connecting for it if need be, bounded waits), then removes every row and object of this id.
    /// Whether the device is unlinked; see [`SessionHandle::logout`].
    ///
    /// # Errors
    /// [`SessionError::NotFound`], [`SessionError::Store`], [`SessionError::Busy`] when its thread does not end,
    /// [`SessionError::Custody`] when another worker has it.
    pub fn delete(&self, id: &str) -> Result<bool, SessionError> {
        let session = match self.get(id) {
            Ok(session) => session,
            Err(error) => return self.delete_unknown(id, error),
        };
        session.check_holder()?;
        let unlinked = session.delete()?;
        self.forget(&session);
        session.remove_objects();
        Ok(unlinked)
    }

    /// Takes the session out of the list.
    fn forget(&self, session: &SessionHandle) {
        let id = session.snapshot().id;
        let mut sessions = self.write();
        // Somebody may have been faster, and a new session of the same id may be there already.
        if sessions.get(&id).is_some_and(|current| current.key() == session.key()) {
            sessions.remove(&id);
        }
    }

    /// Stops all sessions cleanly; those connected now are connected again at the next start.
    /// Returns the ids that did not stop in time.
    pub fn shutdown(&self, deadline: Duration) -> Vec<String> {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let until = Instant::now() + deadline;
        let sessions = self.all();
        sessions.iter().for_each(SessionHandle::begin_shutdown);
        let late = sessions
            .iter()
            .filter(|session| !session.wait_ended(until.saturating_duration_since(Instant::now())));
        late.map(|session| session.snapshot().id).collect()
    }

    pub(super) fn common(&self) -> &Arc<Common> {
        &self.inner.common
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn downgrade(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> {
        let inner = Arc::downgrade(&self.inner);
        move || inner.upgrade().map(|inner| Self { inner })
    }

    /// The store behind the registry.
    #[must_use]
    pub fn store(&self) -> &LocalStore {
        &self.inner.common.store
    }

    pub(super) fn all(&self) -> Vec<SessionHandle> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, SessionHandle>> {
        self.inner.sessions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, SessionHandle>> {
        self.inner.sessions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
