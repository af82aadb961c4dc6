//! Between the local store and the object store: what changed here goes there soon, and comes back from there.
//!
//! [`ObjectSync`] is what the sessions and the API call. `uploads` writes what the local store marked as changed;
//! `custody` holds the leases, without which nothing is written; `recovery` loads a session that was elsewhere, or
//! whose disk is gone; `removal` deletes, sweeps and expires; `transfer` is for accounts that come from Baileys
//! or go there while no worker has them. `layout`, `lease`, `day_file` and `session_data` are the objects themselves.
//! Nothing here knows sessions' threads, engines or HTTP.
//!
//! What can be lost: nothing while this machine's disk lives. When the disk is gone, what was not uploaded yet: the
//! changes of about two seconds in normal work, of an outage of the object store in the worst case.

mod circuit;
mod custody;
mod day_file;
mod layout;
mod lease;
mod recovery;
mod removal;
mod session_data;
mod stats;
mod transfer;
mod uploads;

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use self::{circuit::Circuit, custody::Held, lease::Holder, stats::Counts, uploads::Board};
use crate::storage::{
    local::{LocalStore, SessionKey, StoreError},
    object::{ObjectError, ObjectStore},
};

pub use recovery::Returning;
pub use session_data::SessionData;
pub use stats::SyncStats;
pub use transfer::{Place, Release, Summary, Transfer, TransferError};

/// How objects are kept in step.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// Name of this worker.
    pub worker_id: String,
    /// Other workers may use the same store.
    pub shared: bool,
    /// The object store has shown that it keeps conditions; if not, it is tried before the first lease.
    pub proven: bool,
    /// Nobody else uses it although somebody could: a lease that cannot be asked for is taken as ours.
    pub single_worker: bool,
    /// A lease lives this long without being renewed.
    pub lease_ttl: Duration,
    /// Uploads begin this long after a change, …
    pub delay: Duration,
    /// … and of one session at most this often.
    pub spacing: Duration,
    /// Uploads at the same time.
    pub threads: usize,
    /// Messages of days older than this are removed; zero keeps them.
    pub message_days: u32,
    /// Media objects older than this are removed; zero keeps them.
    pub media_days: u32,
}

/// Why a session cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// Another worker has it.
    #[error("the session is held by worker {worker} until {}", lease::stamp(*.expires_ms))]
    Held {
        /// Its name.
        worker: String,
        /// Unix milliseconds; later when it renews.
        expires_ms: u64,
    },
    /// This worker had it before its disk was lost, or another has the same name: after this moment it is free.
    #[error("the session is held by another run of worker {worker} until {}", lease::stamp(*.expires_ms))]
    HeldByNamesake {
        /// Its name, which is ours.
        worker: String,
        /// Unix milliseconds.
        expires_ms: u64,
    },
    /// Somebody had it since this worker stopped and gave it away: it goes on where it is wanted.
    #[error("worker {worker} had the session meanwhile and gave it away; connect takes it back")]
    GivenAway {
        /// Its name.
        worker: String,
    },
    /// Its objects are being removed.
    #[error("the session is being deleted")]
    Deleting,
    /// The object store cannot be asked.
    #[error("the object store cannot be used, and another worker may hold the session: {0}")]
    Unreachable(String),
    /// What is stored of the account cannot be used.
    #[error(
        "the stored account is damaged ({0}); a copy is under quarantine/. Delete the session to link it anew"
    )]
    Damaged(String),
    /// The local store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<ObjectError> for CustodyError {
    fn from(error: ObjectError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Told that a session belongs to another worker now: it must stop, and nothing of it is written any more.
pub type LostListener = dyn Fn(SessionKey, &str) + Send + Sync;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct ObjectSync {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    local: LocalStore,
    settings: SyncSettings,
    holder: Holder,
    held: Mutex<HashMap<SessionKey, Held>>,
    /// Sessions whose lease is being taken.
    taking: Mutex<HashMap<SessionKey, Arc<Mutex<()>>>>,
    lost: OnceLock<Box<LostListener>>,
    proven: AtomicBool,
    circuit: Circuit,
    board: Board,
    counts: Counts,
    stopping: AtomicBool,
    /// Signalled when somebody should look again: at stop, at a flush, for a removal.
    changed: Condvar,
    change: Mutex<u64>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ObjectSync {
    /// Starts the threads: `sync`, `upload-0` …, `lease`, `sweep`. Nothing is written before a lease is acquired.
    ///
    /// # Errors
    /// [`StoreError`] when the local store or the operating system refuse.
    pub fn start(
        store: Arc<dyn ObjectStore>,
        local: LocalStore,
        settings: SyncSettings,
    ) -> Result<Self, StoreError> {
        let holder = Holder { worker_id: settings.worker_id.clone(), instance: local.instance()? };
        let inner = Inner {
            store,
            local,
            holder,
            held: Mutex::default(),
            taking: Mutex::default(),
            lost: OnceLock::new(),
            proven: AtomicBool::new(settings.proven || !settings.shared),
            circuit: Circuit::default(),
            board: Board::default(),
            counts: Counts::default(),
            stopping: AtomicBool::new(false),
            changed: Condvar::new(),
            change: Mutex::default(),
            threads: Mutex::default(),
            settings,
        };
        let sync = Self { inner: Arc::new(inner) };
        sync.spawn("sync".to_owned(), Self::coordinate)?;
        for number in 0..sync.inner.settings.threads {
            sync.spawn(format!("upload-{number}"), Self::upload)?;
        }
        sync.spawn("lease".to_owned(), Self::keep_leases)?;
        sync.spawn("sweep".to_owned(), Self::sweep)?;
        Ok(sync)
    }

    /// Who is told of lost sessions. Called from threads of their own. Only the first listener counts.
    pub fn on_lost(&self, listener: impl Fn(SessionKey, &str) + Send + Sync + 'static) {
        // Set once, at start, by the registry.
        let _ = self.inner.lost.set(Box::new(listener));
    }

    /// Ends the threads. What is not uploaded is uploaded after the next start.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        self.notify();
        self.inner.board.close();
        let threads = std::mem::take(&mut *lock(&self.inner.threads));
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread of the object store's uploads panicked");
            }
        }
    }

    fn spawn(&self, name: String, work: fn(&Self)) -> Result<(), StoreError> {
        let sync = self.clone();
        let spawned = thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || work(&sync));
        match spawned {
            Ok(thread) => lock(&self.inner.threads).push(thread),
            Err(error) => return Err(StoreError::Io(format!("no thread for the object store: {error}"))),
        }
        Ok(())
    }

    /// Work that nobody waits for.
    fn spawn_detached(&self, name: &str, work: impl FnOnce(&Self) + Send + 'static) {
        let sync = self.clone();
        let spawned =
            thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || work(&sync));
        if let Err(error) = spawned {
            log::error!("no thread for {name}: {error}");
        }
    }

    fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::SeqCst)
    }

    fn notify(&self) {
        *lock(&self.inner.change) += 1;
        self.inner.changed.notify_all();
    }

    /// Waits for [`Self::notify`], or this long.
    fn pause(&self, time: Duration) {
        let change = lock(&self.inner.change);
        let seen = *change;
        if !self.is_stopping() {
            drop(
                self.inner
                    .changed
                    .wait_timeout_while(change, time, |change| *change == seen)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// Asks the store, unless it is known to be dead; tells the circuit how it went.
    fn ask<T>(
        &self,
        call: impl FnOnce(&dyn ObjectStore) -> Result<T, ObjectError>,
    ) -> Result<T, CustodyError> {
        if !self.inner.circuit.allows(Instant::now()) {
            let error = self.inner.circuit.error().unwrap_or_default();
            return Err(CustodyError::Unreachable(error));
        }
        self.tell(call(&*self.inner.store)).map_err(CustodyError::from)
    }

    /// The same for the outcome of a call.
    fn tell<T>(&self, result: Result<T, ObjectError>) -> Result<T, ObjectError> {
        match &result {
            Ok(_) => self.inner.circuit.succeeded(),
            // Of one object, not of the store.
            Err(ObjectError::Damaged { .. } | ObjectError::Sealed { .. } | ObjectError::BadKey { .. }) => {}
            Err(error) => self.inner.circuit.failed(error, Instant::now()),
        }
        result
    }

    fn held(&self) -> MutexGuard<'_, HashMap<SessionKey, Held>> {
        lock(&self.inner.held)
    }
}

/// Runs `work` on every item, several at a time.
fn in_parallel<T: Send>(items: Vec<T>, threads: usize, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    thread::scope(|scope| {
        let threads = threads.min(lock(&items).len());
        for number in 0..threads {
            let spawned = thread::Builder::new()
                .name(format!("objects-{number}"))
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || take_all(&items, &work));
            if let Err(error) = spawned {
                log::error!("no thread for the object store: {error}");
            }
        }
        if threads == 0 {
            take_all(&items, &work);
        }
    });
    take_all(&items, &work);
}

fn take_all<T>(items: &Mutex<std::vec::IntoIter<T>>, work: impl Fn(T)) {
    loop {
        let item = lock(items).next();
        match item {
            Some(item) => work(item),
            None => return,
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Objects read or written at the same time when many are wanted.
const PARALLEL: usize = 8;
/// Virtual size; only pages that are touched count.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 4 << 20 } else { 512 << 10 };

#[cfg(test)]
mod tests;
