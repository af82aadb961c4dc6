//! A session that was elsewhere, or whose disk is gone: its account and history come from the bucket.
//!
//! | found | then |
//! |---|---|
//! | a lease that was given back in order, `creds.json` as it was then | chains go on where they are |
//! | anything else (expired lease, none, changed files) | sending chains and sender keys are never used again |
//! | a file that cannot be read | copied to `quarantine/`, told in the log; the rest is loaded |
//! | no `creds.json`, and an account here | the one here, with new sending chains: its owner was ended before it uploaded |
//! | `creds.json` that cannot be read | copied to `quarantine/`, the session shows the error; never a fresh identity |
//!
//! The newest days of history are read before the session connects, the others behind its back, newest first. Their
//! names are reserved at once, so that new messages never go into a part that is not here yet.

use std::sync::Mutex;

use super::{
    CustodyError, ObjectSync, PARALLEL, SessionData, SessionKey, day_file, in_parallel, layout,
    lease::{self, Found, State},
    lock,
};
use crate::storage::{
    baileys::{self, Freshness, LoadError},
    local::{DayPart, LeaseRow, SessionPatch},
    object::{Condition, ObjectError, shown},
};

/// A session that belongs to this worker although its local store does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning {
    /// Its id.
    pub id: String,
    /// What is stored of it.
    pub data: SessionData,
    /// Should be connected.
    pub wanted: bool,
}

impl ObjectSync {
    /// What the bucket knows of a session; `None` when it has nothing of this id.
    ///
    /// # Errors
    /// [`CustodyError::Unreachable`]
    pub fn find(&self, id: &str) -> Result<Option<SessionData>, CustodyError> {
        let key = layout::data(id);
        let Some(object) = self.ask(|store| store.get(&key))? else { return Ok(None) };
        let data = SessionData::decode(&object.bytes);
        if data.is_none() {
            self.quarantine(&key, &object.bytes, "it is no session data");
        }
        Ok(data)
    }

    /// Sessions of the bucket that name this worker and that `is_known` does not know: after a lost disk, all of them.
    ///
    /// # Errors
    /// [`CustodyError::Unreachable`]
    pub fn returning(&self, is_known: impl Fn(&str) -> bool) -> Result<Vec<Returning>, CustodyError> {
        let folders = self.ask(|store| store.folders(layout::SESSIONS))?;
        let unknown: Vec<String> = folders.into_iter().filter(|id| !is_known(id)).collect();
        let (found, failed) = (Mutex::new(Vec::new()), Mutex::new(None));
        in_parallel(unknown, PARALLEL, |id| match self.returns(&id) {
            Ok(returning) => lock(&found).extend(returning),
            Err(error) => *lock(&failed) = Some(error),
        });
        match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
        }
    }

    fn returns(&self, id: &str) -> Result<Option<Returning>, CustodyError> {
        let Found::Lease(lease, _) = self.ask(|store| lease::read(store, id))? else { return Ok(None) };
        if lease.worker_id != self.inner.holder.worker_id {
            return Ok(None);
        }
        match lease.state {
            State::Deleting => {
                log::info!("session {id}: its deletion goes on");
                self.remove_later(id);
                Ok(None)
            }
            State::Released if !lease.returns => Ok(None),
            State::Held | State::Released => {
                Ok(self.find(id)?.map(|data| Returning { id: id.to_owned(), wanted: data.wanted, data }))
            }
        }
    }

    /// Makes the bucket's account and history the local ones. Gives the names of files that are not needed any more.
    pub(super) fn load(
        &self,
        id: &str,
        key: SessionKey,
        generation: u64,
        freshness: Freshness,
    ) -> Result<Vec<String>, CustodyError> {
        let mut files = self.fetch_account(id)?;
        if files.is_empty() && generation == FIRST {
            files = self.fetch_flat_account(id)?;
        }
        let local = &self.inner.local;
        let mut superseded = Vec::new();
        let loaded = match files.is_empty() {
            true => Err(LoadError::NoCreds),
            false => baileys::load(files.iter().cloned(), freshness),
        };
        match loaded {
            Ok(loaded) => {
                self.report_refused(id, &files, &loaded.report.refused);
                // Everything is written again, into its place.
                let mark = freshness == Freshness::Stale || !loaded.superseded.is_empty();
                local.adopt_state(key, loaded.writes, mark)?;
                superseded = loaded.superseded;
                log::info!(
                    "session {id}: its account was loaded from the object store ({} files)",
                    files.len()
                );
            }
            Err(LoadError::NoCreds) => self.keep_own_account(id, key)?,
            Err(error) => {
                let creds = files.iter().find(|(name, _)| name == layout::CREDS);
                let bytes = creds.map_or(&[][..], |(_, bytes)| bytes);
                let object = format!("{}{}", layout::auth(id), layout::CREDS);
                self.quarantine(&object, bytes, &error.to_string());
                return Err(CustodyError::Damaged(error.to_string()));
            }
        }
        self.adopt_data(id, key)?;
        let parts = self.parts(id)?;
        local.unfile_messages(key)?;
        local.reserve_parts(key, parts.clone())?;
        local.set_lease(key, Some(LeaseRow { generation, complete: false }))?;
        let newest = parts.iter().map(|part| part.day).max().unwrap_or(0);
        let recent = parts.into_iter().filter(|part| part.day >= newest - 1).rev().take(RECENT_PARTS);
        recent.into_iter().try_for_each(|part| self.load_part(id, key, part))?;
        Ok(superseded)
    }

    /// The bucket has no account. One that is here was never uploaded, or unlinked elsewhere, which its next login
    /// tells: it is kept, but others may have used its sending chains.
    fn keep_own_account(&self, id: &str, key: SessionKey) -> Result<(), CustodyError> {
        let files = self.own_files(key)?;
        let writes = match baileys::load(files.into_iter(), Freshness::Stale) {
            Ok(loaded) => {
                log::warn!("session {id}: the object store has no account of it, the one here goes on");
                loaded.writes
            }
            Err(LoadError::NoCreds) => Vec::new(),
            Err(error) => return Err(CustodyError::Damaged(error.to_string())),
        };
        Ok(self.inner.local.adopt_state(key, writes, true)?)
    }

    /// The local account as files.
    fn own_files(&self, key: SessionKey) -> Result<Vec<(String, Vec<u8>)>, CustodyError> {
        let snapshot = self.inner.local.begin_upload(key)?;
        let render = |name: baileys::FileName| {
            let bytes = baileys::render(&name, &snapshot)?;
            Ok(bytes.map(|bytes| (name.to_string(), bytes)))
        };
        let files = baileys::names(&snapshot)
            .and_then(|names| names.into_iter().filter_map(|name| render(name).transpose()).collect());
        files.map_err(|error: baileys::RenderError| CustodyError::Damaged(error.to_string()))
    }

    /// Loads the history behind the back of a session that has not all of it.
    pub(super) fn resume_history(&self, id: &str, key: SessionKey) {
        match self.inner.local.lease(key) {
            Ok(Some(LeaseRow { complete: false, .. })) => {}
            Ok(_) => return,
            Err(error) => return log::warn!("session {id}: its history cannot be completed: {error}"),
        }
        let id = id.to_owned();
        self.spawn_detached("history", move |sync| {
            while sync.holds(key) && !sync.is_stopping() {
                match sync.load_history(&id, key) {
                    Ok(()) => return,
                    Err(error) => log::info!("session {id}: its history is loaded later: {error}"),
                }
                sync.pause(HISTORY_PAUSE);
            }
        });
    }

    fn load_history(&self, id: &str, key: SessionKey) -> Result<(), CustodyError> {
        let parts = self.parts(id)?;
        let missing = self.inner.local.reserved_parts(key)?;
        for part in parts.into_iter().rev().filter(|part| missing.contains(part)) {
            if !self.holds(key) || self.is_stopping() {
                return Ok(());
            }
            self.load_part(id, key, part)?;
        }
        self.inner.local.refile_messages(key)?;
        let Some(row) = self.inner.local.lease(key)? else { return Ok(()) };
        self.inner.local.set_lease(key, Some(LeaseRow { complete: true, ..row }))?;
        log::info!("session {id}: its history is complete");
        Ok(())
    }

    fn load_part(&self, id: &str, key: SessionKey, part: DayPart) -> Result<(), CustodyError> {
        let object = layout::part(id, part);
        let bytes = match self.ask(|store| store.get(&object)) {
            Ok(found) => found.map(|object| object.bytes),
            Err(error) => return Err(error),
        };
        let Some(bytes) = bytes else { return Ok(()) };
        let decoded = day_file::decode(&bytes);
        match &decoded {
            None => self.quarantine(&object, &bytes, "it is no array of records"),
            Some(decoded) if decoded.refused > 0 => {
                let why = format!("{} of its records cannot be understood", decoded.refused);
                self.quarantine(&object, &bytes, &why);
            }
            Some(_) => {}
        }
        let messages = decoded.unwrap_or_default().messages;
        Ok(self.inner.local.file_part(key, part, messages)?)
    }

    /// Parts of days in the bucket, oldest first, without those that are too old to be kept.
    fn parts(&self, id: &str) -> Result<Vec<DayPart>, CustodyError> {
        let folder = layout::messages(id);
        let objects = self.ask(|store| store.list(&folder))?;
        let first_day = self.first_kept_day();
        let mut parts: Vec<DayPart> = objects
            .iter()
            .filter_map(|object| layout::parse_part(object.key.strip_prefix(&folder)?))
            .filter(|part| first_day.is_none_or(|first| part.day >= first))
            .collect();
        parts.sort_unstable();
        Ok(parts)
    }

    /// All files of the account.
    fn fetch_account(&self, id: &str) -> Result<Vec<(String, Vec<u8>)>, CustodyError> {
        self.fetch_files(id, &layout::auth(id), |_| true)
    }

    /// The same of a worker that kept them directly below the session. They stay there.
    fn fetch_flat_account(&self, id: &str) -> Result<Vec<(String, Vec<u8>)>, CustodyError> {
        let files = self.fetch_files(id, &layout::session(id), layout::is_flat_account)?;
        let is_account = files.iter().any(|(name, _)| name == layout::CREDS);
        Ok(if is_account { files } else { Vec::new() })
    }

    fn fetch_files(
        &self,
        id: &str,
        folder: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, Vec<u8>)>, CustodyError> {
        let objects = self.ask(|store| store.list(folder))?;
        let names: Vec<String> = objects
            .into_iter()
            .filter_map(|object| Some(object.key.strip_prefix(folder)?.to_owned()))
            .filter(|name| is_wanted(name))
            .collect();
        let (files, failed) = (Mutex::new(Vec::new()), Mutex::new(None));
        in_parallel(names, PARALLEL, |name| {
            let object = format!("{folder}{name}");
            match self.tell(self.inner.store.get(&object)) {
                Ok(Some(object)) => lock(&files).push((name, object.bytes)),
                Ok(None) => {}
                // Reported by its loading, as an empty file that cannot be read.
                Err(ObjectError::Damaged { problem, .. }) => {
                    log::error!("session {id}: {} is damaged: {problem}", shown(&object));
                    lock(&files).push((name, Vec::new()));
                }
                Err(error) => *lock(&failed) = Some(error),
            }
        });
        match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(files.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
        }
    }

    /// The account's number and names, until it logs in.
    fn adopt_data(&self, id: &str, key: SessionKey) -> Result<(), CustodyError> {
        let Some(data) = self.find(id)? else { return Ok(()) };
        let phone = data.phone_number.map(|phone| phone.trim_start_matches('+').to_owned());
        let patch = SessionPatch {
            phone: phone.map(Some),
            lid: data.lid.map(Some),
            push_name: data.display_name.map(Some),
            ..SessionPatch::default()
        };
        Ok(self.inner.local.update_session(key, patch)?)
    }

    fn report_refused(&self, id: &str, files: &[(String, Vec<u8>)], refused: &[(String, String)]) {
        for (name, why) in refused {
            let bytes = files.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, bytes)| bytes);
            self.quarantine(&format!("{}{name}", layout::auth(id)), bytes, why);
        }
    }

    /// Keeps a copy of what cannot be read, and says so, once. The original may be written over later.
    pub(super) fn quarantine(&self, object: &str, bytes: &[u8], why: &str) {
        let copy = layout::quarantine(object, bytes);
        match self.ask(|store| store.put_if(&copy, bytes, &Condition::Absent)) {
            // Met again, by another try or after a restart.
            Ok(None) => return,
            Ok(Some(_)) => {
                log::error!("object {} cannot be used ({why}); a copy is under quarantine/", shown(object));
            }
            Err(error) => {
                log::error!("object {} cannot be used ({why}), nor a copy kept: {error}", shown(object));
            }
        }
        self.inner.counts.quarantined.add(1);
    }
}

/// Generation of a session's first owner among workers.
const FIRST: u64 = 1;
/// Parts of the newest two days that are read before a session connects.
const RECENT_PARTS: usize = 10;
/// Between tries to read the rest.
const HISTORY_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);
