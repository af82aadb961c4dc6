//! All sessions of this worker: create, find, connect, talk to, delete.

use std::{path::PathBuf, time::Duration};

use super::SessionStatus;
use crate::{
    storage::local::{LocalStore, SessionKey, StoreError},
    whatsapp::{
        keys::PublicKey,
        model::{Command, Reply},
    },
};

/// What every session of this worker needs to know; from the configuration.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// `wss://host[:port]/path` of the service (or `ws://` never: TLS is not optional).
    pub url: String,
    /// Root of the Noise certificate chain.
    pub noise_root: PublicKey,
    /// PEM file with certificates added to the TLS roots.
    pub ca_file: Option<PathBuf>,
    /// Client version announced to the server.
    pub version: [u32; 3],
    /// What the phone shows under "Linked devices".
    pub device_name: String,
    /// More sessions than this are refused.
    pub max_sessions: usize,
}

/// A QR that waits to be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qr {
    /// The text to draw.
    pub text: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// A session at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Public id.
    pub id: String,
    /// Owner.
    pub user_id: String,
    /// Display name given by the owner.
    pub name: Option<String>,
    /// What it is doing.
    pub status: SessionStatus,
    /// `+` and digits; known once paired.
    pub phone_number: Option<String>,
    /// LID user; known once paired.
    pub lid: Option<String>,
    /// WhatsApp display name.
    pub push_name: Option<String>,
    /// The QR to show, while one waits.
    pub qr: Option<Qr>,
    /// `WebAuthn` request options, while a passkey step waits.
    pub passkey_options: Option<String>,
    /// Why, when the status needs words.
    pub error: Option<String>,
    /// The offline queue of this connection is drained.
    pub ready: bool,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds of the last change.
    pub updated_ms: u64,
    /// Unix milliseconds of the last login or message, in or out.
    pub last_activity_ms: Option<u64>,
    /// Unix milliseconds of the current login.
    pub connected_since_ms: Option<u64>,
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
    /// The session's inbox is full: try again soon.
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
pub struct Registry {}

impl Registry {
    /// Loads the stored sessions; connects none of them yet (see [`Registry::start_all`]).
    ///
    /// # Errors
    /// One clear line: unreadable store, CA file or URL.
    pub fn open(_store: LocalStore, _settings: SessionSettings) -> Result<Self, String> {
        Err("not built".into())
    }

    /// Connects every session that was connected when the worker stopped, smoothly.
    pub fn start_all(&self) {}

    /// Makes a session, or finds the same user's. `true` when it is new.
    ///
    /// # Errors
    /// [`SessionError::OtherUser`], [`SessionError::TooMany`], [`SessionError::Stopping`], [`SessionError::Store`].
    pub fn create(
        &self,
        _id: &str,
        _user_id: &str,
        _name: Option<&str>,
    ) -> Result<(SessionHandle, bool), SessionError> {
        Err(SessionError::Stopping)
    }

    /// The session of this id.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn get(&self, _id: &str) -> Result<SessionHandle, SessionError> {
        Err(SessionError::NotFound)
    }

    /// All sessions, by id.
    #[must_use]
    pub fn list(&self) -> Vec<SessionSnapshot> {
        Vec::new()
    }

    /// Number of sessions, and how many of them are connected.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (0, 0)
    }

    /// Unlinks the device when the session is connected (bounded wait), then removes every row of this id.
    ///
    /// # Errors
    /// [`SessionError::NotFound`], [`SessionError::Store`].
    pub fn delete(&self, _id: &str) -> Result<(), SessionError> {
        Err(SessionError::NotFound)
    }

    /// Stops all sessions cleanly; those connected now are connected again at the next start.
    /// Returns the ids that did not stop in time.
    pub fn shutdown(&self, _deadline: Duration) -> Vec<String> {
        Vec::new()
    }

    /// The store behind the registry.
    #[must_use]
    pub fn store(&self) -> &LocalStore {
        unreachable!()
    }
}

/// One session. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {}

impl SessionHandle {
    /// Internal number, for the store's queries.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey(0)
    }

    /// What the session is doing now.
    #[must_use]
    pub fn snapshot(&self) -> SessionSnapshot {
        unreachable!()
    }

    /// Starts connecting, unless it is connecting or connected already. Returns at once.
    ///
    /// # Errors
    /// [`SessionError::Stopping`], [`SessionError::Deleting`], [`SessionError::Thread`], [`SessionError::Store`].
    pub fn connect(&self) -> Result<(), SessionError> {
        Err(SessionError::Stopping)
    }

    /// Closes the connection; keeps everything else. Waits until the session's thread has ended (bounded).
    ///
    /// # Errors
    /// [`SessionError::Store`].
    pub fn disconnect(&self) -> Result<(), SessionError> {
        Err(SessionError::Stopping)
    }

    /// Unlinks the device (asks WhatsApp when connected, bounded wait) and forgets its keys.
    ///
    /// # Errors
    /// [`SessionError::Store`].
    pub fn logout(&self) -> Result<(), SessionError> {
        Err(SessionError::Stopping)
    }

    /// Disconnects and connects again.
    ///
    /// # Errors
    /// As for [`SessionHandle::connect`].
    pub fn restart(&self) -> Result<(), SessionError> {
        Err(SessionError::Stopping)
    }

    /// Hands a command to the session.
    ///
    /// # Errors
    /// [`SessionError::NotConnected`] when no thread runs, [`SessionError::Busy`] when its inbox is full.
    pub fn command(&self, _command: Command) -> Result<PendingReply, SessionError> {
        Err(SessionError::NotConnected)
    }

    /// Waits until `done` holds or the time is over; returns the snapshot either way.
    pub fn wait_until(
        &self,
        _timeout: Duration,
        _done: impl Fn(&SessionSnapshot) -> bool,
    ) -> SessionSnapshot {
        unreachable!()
    }

    /// Waits until the session's event log has a number above `after`; `false` when the time is over first.
    #[must_use]
    pub fn wait_event(&self, _after: u64, _timeout: Duration) -> bool {
        false
    }
}

/// The answer to a command, when it comes. Dropping it does not take the command back.
pub struct PendingReply {}

impl PendingReply {
    /// The answer; `None` when the time is over (ask again to go on waiting).
    #[must_use]
    pub fn wait(&self, _timeout: Duration) -> Option<Reply> {
        None
    }
}
