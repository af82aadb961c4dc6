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

use rand_core::OsRng;

use super::{
    SessionHandle, SessionSnapshot, SessionStatus,
    backoff::Pace,
    desk::{Common, Entropy},
    dial::Target,
};
use crate::{
    proxy::Proxy,
    storage::local::{LocalStore, SessionPatch, SessionRow, SessionStore, StoreError},
    whatsapp::{
        engine::{Engine, EngineConfig},
        keys::PublicKey,
    },
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
}

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
        Self::open_with(store, settings, Box::new(|_| Box::new(OsRng)))
    }

    fn open_with(store: LocalStore, settings: SessionSettings, entropy: Entropy) -> Result<Self, String> {
        let target = Target::new(&settings.url, settings.ca_file.as_deref(), settings.proxy)?;
        let rows = store.sessions().map_err(|error| error.to_string())?;
        let engine = EngineConfig {
            noise_root: settings.noise_root,
            version: settings.version,
            device_name: settings.device_name,
        };
        let common =
            Arc::new(Common { store, engine, entropy, target, pace: Pace::new(), started: Instant::now() });
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

    /// Connects every session that was connected when the worker stopped, smoothly. A session that waited for a
    /// scan is not started: nobody looks at its QR.
    pub fn start_all(&self) {
        let wanted = std::mem::take(&mut *self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for session in wanted {
            let state = SessionStore::new(self.store().clone(), session.key());
            let result = match Engine::is_paired(&state) {
                Ok(true) => session.resume(),
                Ok(false) => {
                    let patch = SessionPatch {
                        status: Some(SessionStatus::Disconnected.as_str()),
                        wanted: Some(false),
                        ..SessionPatch::default()
                    };
                    self.store().update_session(session.key(), patch).map_err(SessionError::from)
                }
                Err(error) => Err(StoreError::Io(error.to_string()).into()),
            };
            if let Err(error) = result {
                log::error!("session {} cannot be started: {error}", session.snapshot().id);
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
        let _one_at_a_time = self.inner.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = self.read().get(id).cloned() {
            let same_user = session.snapshot().user_id == user_id;
            return if same_user { Ok((session, false)) } else { Err(SessionError::OtherUser) };
        }
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(SessionError::Stopping);
        }
        if self.read().len() >= self.inner.max_sessions {
            return Err(SessionError::TooMany { max: self.inner.max_sessions });
        }
        let row: Option<SessionRow> = self.store().create_session(id, user_id, name)?;
        let row = row.ok_or(SessionError::Deleting)?;
        let session = SessionHandle::new(Arc::clone(&self.inner.common), &row);
        self.write().insert(row.id, session.clone());
        Ok((session, true))
    }

    /// The session of this id.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn get(&self, id: &str) -> Result<SessionHandle, SessionError> {
        self.read().get(id).cloned().ok_or(SessionError::NotFound)
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

    /// Unlinks the device (connecting for it if need be, bounded waits), then removes every row of this id. Whether
    /// the device is unlinked; see [`SessionHandle::logout`].
    ///
    /// # Errors
    /// [`SessionError::NotFound`], [`SessionError::Store`], [`SessionError::Busy`] when its thread does not end.
    pub fn delete(&self, id: &str) -> Result<bool, SessionError> {
        let session = self.get(id)?;
        let unlinked = session.delete()?;
        let mut sessions = self.write();
        // Somebody may have been faster, and a new session of the same id may be there already.
        if sessions.get(id).is_some_and(|current| current.key() == session.key()) {
            sessions.remove(id);
        }
        Ok(unlinked)
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

    /// The store behind the registry.
    #[must_use]
    pub fn store(&self) -> &LocalStore {
        &self.inner.common.store
    }

    fn all(&self) -> Vec<SessionHandle> {
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
