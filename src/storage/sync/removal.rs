//! What goes: the objects of deleted sessions, of `temp/`, and of days that are not kept any more.
//!
//! A deletion begins with a tombstone (a lease in the state `deleting`, written on the version that was read), so that
//! no worker loads what is half gone; it ends with the removal of the tombstone. The local store remembers which
//! deletions have not ended, and the tombstone names the worker, so a crash only makes them later.

use std::time::Duration;

use super::{
    CustodyError, ObjectSync, PARALLEL, SessionKey, in_parallel, layout,
    lease::{self, Found, Lease, State},
    lock, millis, now_ms,
};
use crate::storage::object::ObjectInfo;

impl ObjectSync {
    /// Removes every object of a session that is deleted here (its id is in the local store's list), if that can be
    /// done now; else it happens later. `key`: of the session, when this worker had it.
    ///
    /// # Errors
    /// [`CustodyError`] that only delays it, except [`CustodyError::Held`].
    pub fn remove(&self, id: &str, key: Option<SessionKey>) -> Result<(), CustodyError> {
        if let Some(key) = key {
            self.forget(key);
        }
        self.remove_objects(id)?;
        Ok(self.inner.local.removed(id)?)
    }

    /// Whether the bucket has objects of this id.
    ///
    /// # Errors
    /// [`CustodyError::Unreachable`]
    pub fn knows(&self, id: &str) -> Result<bool, CustodyError> {
        let folder = layout::session(id);
        Ok(!self.ask(|store| store.list(&folder))?.is_empty())
    }

    /// Removes the objects of a tombstone of ours that the local store does not know: with a disk that is lost, this
    /// may have to wait until the tombstone expires.
    pub(super) fn remove_later(&self, id: &str) {
        let id = id.to_owned();
        self.spawn_detached("remove", move |sync| {
            while !sync.is_stopping() {
                match sync.remove_objects(&id) {
                    Ok(()) => {
                        return log::info!("session {id}: the objects of the deleted session are removed");
                    }
                    Err(error @ CustodyError::Held { .. }) => {
                        return log::warn!("session {id}: its objects stay: {error}");
                    }
                    Err(error) => log::debug!("session {id}: its objects are removed later: {error}"),
                }
                sync.pause(REMOVALS_EVERY);
            }
        });
    }

    fn remove_objects(&self, id: &str) -> Result<(), CustodyError> {
        self.bury(id)?;
        let lease = layout::lease(id);
        for folder in [layout::session(id), layout::media(id), layout::quarantined(id)] {
            let objects = self.ask(|store| store.list(&folder))?;
            let keys = objects.into_iter().map(|object| object.key).filter(|key| *key != lease).collect();
            self.delete_all(keys)?;
        }
        self.ask(|store| store.delete(&lease))
    }

    /// Writes the tombstone.
    fn bury(&self, id: &str) -> Result<(), CustodyError> {
        for _ in 0..TRIES {
            let (over, generation) = match self.ask(|store| lease::read(store, id))? {
                Found::None => (None, 0),
                Found::Damaged(_, version) => (Some(version), 0),
                Found::Lease(found, version) => {
                    let is_others = !found.is_of(&self.inner.holder) && found.expires_ms() > now_ms();
                    match found.state {
                        State::Held if is_others => {
                            let expires_ms = found.expires_ms();
                            return Err(CustodyError::Held { worker: found.worker_id, expires_ms });
                        }
                        State::Deleting if is_others => return Err(CustodyError::Deleting),
                        State::Held | State::Released | State::Deleting => (Some(version), found.generation),
                    }
                }
            };
            let tombstone = Lease {
                state: State::Deleting,
                ..Lease::held(&self.inner.holder, generation + 1, now_ms() + millis(TOMBSTONE_LIFE))
            };
            if self.ask(|store| lease::write(store, id, &tombstone, over.as_ref()))?.is_some() {
                return Ok(());
            }
        }
        Err(CustodyError::Unreachable("its lease changes all the time".to_owned()))
    }

    fn delete_all(&self, keys: Vec<String>) -> Result<(), CustodyError> {
        let failed = std::sync::Mutex::new(None);
        in_parallel(keys, PARALLEL, |key| {
            if lock(&failed).is_none()
                && let Err(error) = self.ask(|store| store.delete(&key))
            {
                *lock(&failed) = Some(error);
            }
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The `sweep` thread.
    pub(super) fn sweep(&self) {
        let mut next_ms = 0;
        while !self.is_stopping() {
            self.finish_removals();
            if now_ms() >= next_ms {
                next_ms = now_ms() + millis(SWEEP_EVERY);
                if let Err(error) = self.sweep_once() {
                    log::info!("old objects are removed later: {error}");
                    next_ms = now_ms() + millis(SWEEP_RETRY);
                }
            }
            self.pause(REMOVALS_EVERY);
        }
    }

    fn finish_removals(&self) {
        let ids = self.inner.local.removals().unwrap_or_default();
        for id in ids {
            if self.is_stopping() {
                return;
            }
            match self.remove(&id, None) {
                Ok(()) => log::info!("session {id}: the objects of the deleted session are removed"),
                Err(CustodyError::Held { worker, .. }) => {
                    log::warn!(
                        "session {id}: deleted here, but worker {worker} has it now: its objects stay"
                    );
                    if let Err(error) = self.inner.local.removed(&id) {
                        log::warn!("session {id}: {error}");
                    }
                }
                Err(error) => log::debug!("session {id}: its objects are removed later: {error}"),
            }
        }
    }

    pub(super) fn sweep_once(&self) -> Result<(), CustodyError> {
        let is_old = |object: &ObjectInfo, age: Duration| object.modified_ms + millis(age) < now_ms();
        let temp = self.ask(|store| store.list(layout::TEMP))?;
        self.delete_all(
            temp.into_iter().filter(|object| is_old(object, TEMP_LIFE)).map(|object| object.key).collect(),
        )?;
        let held: Vec<(SessionKey, String)> =
            self.held().iter().map(|(key, held)| (*key, held.id.clone())).collect();
        for (key, id) in held {
            if let Some(first_day) = self.first_kept_day() {
                let before_s = u64::try_from(first_day * DAY_S).unwrap_or(0);
                self.inner.local.expire_messages(key, before_s)?;
                self.expire_parts(&id, first_day)?;
            }
            if self.inner.settings.media_days > 0 {
                let age = DAY * self.inner.settings.media_days;
                let media = self.ask(|store| store.list(&layout::media(&id)))?;
                let old = media.into_iter().filter(|object| is_old(object, age)).map(|object| object.key);
                self.delete_all(old.collect())?;
            }
        }
        Ok(())
    }

    /// Parts of days that this worker never loaded go, too.
    fn expire_parts(&self, id: &str, first_day: i64) -> Result<(), CustodyError> {
        let folder = layout::messages(id);
        let objects = self.ask(|store| store.list(&folder))?;
        let is_old = |key: &str| {
            let part = key.strip_prefix(&folder).and_then(layout::parse_part);
            part.is_some_and(|part| part.day < first_day)
        };
        self.delete_all(objects.into_iter().map(|object| object.key).filter(|key| is_old(key)).collect())
    }

    /// The first day (since 1970) whose messages are kept; `None` when all are.
    pub(super) fn first_kept_day(&self) -> Option<i64> {
        let days = i64::from(self.inner.settings.message_days);
        let today = i64::try_from(now_ms() / 1000).unwrap_or(0) / DAY_S;
        (days > 0).then_some(today - days)
    }
}

const DAY_S: i64 = 86_400;
const DAY: Duration = Duration::from_secs(86_400);
const TRIES: usize = 5;
/// Another worker may finish a deletion when this time has passed.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(600);
/// `temp/` keeps nothing longer.
const TEMP_LIFE: Duration = DAY;
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
const SWEEP_RETRY: Duration = Duration::from_secs(60);
const REMOVALS_EVERY: Duration = Duration::from_secs(5);
