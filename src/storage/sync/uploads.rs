//! Write-behind: what the local store marked as changed is uploaded by a few threads, session by session, the one
//! that waits longest first.
//!
//! A batch is one session at one moment: its lease is proven, its marks are read together with what they mean, the
//! objects are written whole, `creds.json` last, and the marks that did not change meanwhile are taken away. Marks
//! survive a crash, so an upload that was interrupted happens again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    CustodyError, ObjectSync, SessionKey, custody::Proof, day_file, layout, lock, millis, now_ms,
    session_data::SessionData,
};
use crate::storage::{
    baileys,
    local::{Changed, DirtyMark, Snapshot, StoreError},
    object::{NewObject, ObjectError},
};

/// Who is to be uploaded, and who is being.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    rendering: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Sessions that are due, the one that waits longest last.
    due: Vec<SessionKey>,
    busy: HashSet<SessionKey>,
    /// Not before then.
    next: HashMap<SessionKey, Instant>,
    /// Somebody waits for everything to be uploaded: no delays.
    hurry: bool,
    closed: bool,
    /// Grows with everything that should have the coordinator look again.
    wakes: u64,
}

/// Held while a session is uploaded, so that it is not twice at a time.
struct Busy<'a> {
    board: &'a Board,
    key: SessionKey,
}

/// An object to write, or to remove when there are no bytes.
struct Wanted {
    bytes: Option<Vec<u8>>,
    content_type: &'static str,
    /// Positions of the marks that want it.
    marks: Vec<usize>,
}

/// What goes into one batch.
struct Rendered {
    marks: Vec<DirtyMark>,
    /// Per mark: why it cannot be uploaded.
    refused: Vec<Option<baileys::RenderError>>,
    /// By key; the first part puts `creds.json` behind everything.
    wanted: BTreeMap<(bool, String), Wanted>,
    /// There are more marks.
    more: bool,
}

/// What a batch came to.
#[derive(Debug, PartialEq, Eq)]
enum Batch {
    /// The session has nothing more.
    Finished,
    /// Something is left.
    More,
}

/// Why a batch ended early. Its marks stay.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error("the lease is not ours")]
    Lost,
    #[error("the lease cannot be proven now")]
    Unproven,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Render(#[from] baileys::RenderError),
    #[error("the worker is stopping")]
    Stopping,
}

impl Board {
    /// Has the coordinator look again.
    pub(super) fn wake(&self) {
        lock(&self.state).wakes += 1;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn take(&self) -> Option<Busy<'_>> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(key) = state.due.pop() {
                if state.busy.insert(key) {
                    return Some(Busy { board: self, key });
                }
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes one session for the caller; waits while it is being uploaded.
    fn take_one(&self, key: SessionKey) -> Busy<'_> {
        let mut state = lock(&self.state);
        while !state.busy.insert(key) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Busy { board: self, key }
    }

    fn not_before(&self, key: SessionKey, at: Instant) {
        lock(&self.state).next.insert(key, at);
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.board.state).busy.remove(&self.key);
        self.board.changed.notify_all();
    }
}

impl ObjectSync {
    /// Uploads everything of all sessions whose lease is held; what is left when the time is over.
    pub fn flush(&self, deadline: Instant) -> u64 {
        self.inner.board.hurry(true);
        let left = loop {
            let left = self.left();
            if left == 0 || Instant::now() >= deadline || self.inner.circuit.error().is_some() {
                break left;
            }
            self.inner.board.wait(FLUSH_TICK);
        };
        self.inner.board.hurry(false);
        left
    }

    /// Uploads everything of one session.
    pub(super) fn flush_session(&self, key: SessionKey, deadline: Instant) -> Result<(), CustodyError> {
        let mut error = "the time is over".to_owned();
        loop {
            let busy = self.inner.board.take_one(key);
            match self.batch(key) {
                Ok(Batch::Finished) => return Ok(()),
                Ok(Batch::More) => {}
                Err(BatchError::Lost) => return Err(CustodyError::Unreachable("its lease is lost".into())),
                Err(problem) => error = problem.to_string(),
            }
            drop(busy);
            if Instant::now() >= deadline || self.inner.circuit.error().is_some() {
                return Err(CustodyError::Unreachable(error));
            }
        }
    }

    /// Marks of sessions whose lease is held.
    fn left(&self) -> u64 {
        match self.inner.local.dirty_sessions() {
            Ok(sessions) => {
                let held = self.held();
                sessions.iter().filter(|(key, _)| held.contains_key(key)).count() as u64
            }
            Err(_) => u64::MAX,
        }
    }

    /// The `sync` thread: finds the sessions that are due.
    pub(super) fn coordinate(&self) {
        let marked = self.inner.local.dirty_signal();
        let mut idle = true;
        while !self.is_stopping() {
            // Marks that were committed since the last look wait in the channel, so none is missed.
            let signalled = marked.recv_timeout(if idle { IDLE_TICK } else { TICK }).is_ok();
            let woken = self.inner.board.take_wakes();
            if idle && !signalled && !woken {
                continue;
            }
            idle = match self.find_due() {
                Ok(waiting) => waiting == 0,
                Err(error) => {
                    log::warn!("the changes to upload cannot be read: {error}");
                    false
                }
            };
        }
    }

    /// Lists who is due; the number of sessions with marks that are ours.
    fn find_due(&self) -> Result<usize, StoreError> {
        let mut sessions = self.inner.local.dirty_sessions()?;
        {
            let held = self.held();
            sessions.retain(|(key, _)| held.contains_key(key));
        }
        let waiting = sessions.len();
        if !self.inner.circuit.is_due(Instant::now()) {
            return Ok(waiting);
        }
        let (now, unix_ms, delay_ms) = (Instant::now(), now_ms(), millis(self.inner.settings.delay));
        // A clock that was set back must not hold anything up.
        let is_old = |since: u64| since + delay_ms <= unix_ms || since > unix_ms + delay_ms;
        sessions.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
        let mut state = lock(&self.inner.board.state);
        state.next.retain(|_, at| *at > now);
        let State { due, busy, next, hurry, .. } = &mut *state;
        *due = sessions
            .into_iter()
            .filter(|(key, since)| {
                !busy.contains(key) && (*hurry || is_old(*since) && !next.contains_key(key))
            })
            .map(|(key, _)| key)
            .collect();
        drop(state);
        self.inner.board.changed.notify_all();
        Ok(waiting)
    }

    /// An `upload-…` thread.
    pub(super) fn upload(&self) {
        while let Some(busy) = self.inner.board.take() {
            let key = busy.key;
            let pause = match self.batch(key) {
                Ok(Batch::Finished) => self.inner.settings.spacing,
                Ok(Batch::More) => Duration::ZERO,
                Err(BatchError::Lost | BatchError::Stopping) => Duration::ZERO,
                Err(error) => {
                    log::debug!("an upload failed and is tried again: {error}");
                    self.retry_pause(&error)
                }
            };
            self.inner.board.not_before(key, Instant::now() + pause);
        }
    }

    fn retry_pause(&self, error: &BatchError) -> Duration {
        match error {
            // Of one object; trying it again soon would not help.
            BatchError::Object(ObjectError::Damaged { .. } | ObjectError::BadKey { .. })
            | BatchError::Render(_) => LONG_PAUSE,
            // The circuit decides when the store is tried again.
            BatchError::Object(_) | BatchError::Unproven | BatchError::Store(_) => self.inner.settings.delay,
            BatchError::Lost | BatchError::Stopping => Duration::ZERO,
        }
    }

    /// Uploads some of a session's changes.
    fn batch(&self, key: SessionKey) -> Result<Batch, BatchError> {
        match self.prove(key) {
            Proof::Ours => {}
            Proof::Lost => return Err(BatchError::Lost),
            Proof::Unknown => return Err(BatchError::Unproven),
        }
        let Some(held) = self.held().get(&key).cloned() else { return Err(BatchError::Lost) };
        let begun_ms = now_ms();
        let Rendered { marks, refused, wanted, more } = {
            // Rendering holds a read connection; one thread at a time leaves the others to the API.
            let _one = lock(&self.inner.board.rendering);
            let snapshot = self.inner.local.begin_upload(key)?;
            self.render(&snapshot, &held.id)?
        };
        let mut left = refused.iter().map(|refused| usize::from(refused.is_some())).collect::<Vec<_>>();
        for mark in wanted.values().flat_map(|wanted| &wanted.marks) {
            left[*mark] += 1;
        }
        let outcome = self.write_all(wanted, &mut left);
        let done: Vec<DirtyMark> =
            marks.into_iter().zip(&left).filter(|(_, left)| **left == 0).map(|(mark, _)| mark).collect();
        if !done.is_empty() {
            self.inner.local.uploaded(key, done, begun_ms)?;
        }
        outcome?;
        if let Some(error) = refused.into_iter().flatten().next() {
            return Err(error.into());
        }
        if more {
            return Ok(Batch::More);
        }
        self.remove_superseded(key)?;
        Ok(Batch::Finished)
    }

    /// Writes objects in the order of their keys, `creds.json` behind everything; counts down what is left of marks.
    fn write_all(
        &self,
        wanted: BTreeMap<(bool, String), Wanted>,
        left: &mut [usize],
    ) -> Result<(), BatchError> {
        let (mut ready, mut ready_marks) = (Vec::new(), Vec::new());
        for ((is_last, key), Wanted { bytes, content_type, marks }) in wanted {
            if is_last || bytes.is_none() || ready.len() == TOGETHER {
                self.put_together(&mut ready, &mut ready_marks, left)?;
            }
            match bytes {
                Some(bytes) => {
                    ready.push(NewObject { key, bytes, content_type });
                    ready_marks.push(marks);
                }
                None => {
                    self.count(self.inner.store.delete(&key))?;
                    self.inner.counts.uploads.add(1);
                    take_off(&marks, left);
                }
            }
        }
        self.put_together(&mut ready, &mut ready_marks, left)
    }

    fn put_together(
        &self,
        ready: &mut Vec<NewObject>,
        marks: &mut Vec<Vec<usize>>,
        left: &mut [usize],
    ) -> Result<(), BatchError> {
        if self.is_stopping() {
            return Err(BatchError::Stopping);
        }
        if ready.is_empty() {
            return Ok(());
        }
        let (written, result) = self.inner.store.put_all(ready);
        for (object, marks) in ready.drain(..).zip(marks.drain(..)).take(written) {
            self.inner.counts.uploads.add(1);
            self.inner.counts.bytes.add(object.bytes.len() as u64);
            take_off(&marks, left);
        }
        self.count(result)
    }

    fn count(&self, result: Result<(), ObjectError>) -> Result<(), BatchError> {
        self.tell(result).map_err(|error| {
            self.inner.counts.failures.add(1);
            error.into()
        })
    }

    /// The marks of a session that go into one batch, the objects they want, and whether there are more.
    fn render(&self, snapshot: &Snapshot<'_>, id: &str) -> Result<Rendered, BatchError> {
        let mut all = snapshot.marks().to_vec();
        // `creds.json` is written when the files beside it are.
        all.sort_by_key(|mark| names_of(mark).iter().any(|name| name.as_str() == layout::CREDS));
        let row = snapshot.row()?;
        let (mut wanted, mut size, mut refused) = (BTreeMap::<(bool, String), Wanted>::new(), 0, Vec::new());
        for (index, mark) in all.iter().enumerate() {
            if wanted.len() >= BATCH_OBJECTS || size >= BATCH_BYTES {
                break;
            }
            refused.push(None);
            let mut want = |object: String, is_last: bool, bytes: Option<Vec<u8>>, content_type| {
                size += bytes.as_ref().map_or(0, Vec::len);
                let entry = wanted.entry((is_last, object));
                entry.or_insert(Wanted { bytes, content_type, marks: Vec::new() }).marks.push(index);
            };
            match mark.changed() {
                Some(Changed::State(..)) => {
                    for name in names_of(mark) {
                        let is_last = name.as_str() == layout::CREDS;
                        match baileys::render(&name, snapshot) {
                            Ok(bytes) => want(format!("{}{name}", layout::auth(id)), is_last, bytes, JSON),
                            Err(error) => refused[index] = Some(error),
                        }
                    }
                }
                Some(Changed::Session) => {
                    if let Some(row) = &row {
                        let bytes = SessionData::encode(row, &self.inner.settings.worker_id);
                        want(layout::data(id), false, Some(bytes), JSON);
                    }
                }
                Some(Changed::Part(part)) => {
                    let messages = snapshot.part(part)?;
                    let own = row.as_ref().and_then(|row| row.phone.as_deref());
                    let bytes = (!messages.is_empty()).then(|| day_file::encode(&messages, own));
                    want(layout::part(id, part), false, bytes, JSON);
                }
                None => {}
            }
        }
        let more = refused.len() < all.len();
        all.truncate(refused.len());
        Ok(Rendered { marks: all, refused, wanted, more })
    }

    /// Removes files whose content is in files of ours now.
    fn remove_superseded(&self, key: SessionKey) -> Result<(), ObjectError> {
        let (id, names) = match self.held().get_mut(&key) {
            Some(held) if !held.superseded.is_empty() => {
                (held.id.clone(), std::mem::take(&mut held.superseded))
            }
            _ => return Ok(()),
        };
        let folder = layout::auth(&id);
        names.iter().try_for_each(|name| self.tell(self.inner.store.delete(&format!("{folder}{name}"))))
    }
}

/// One more object of these marks is written.
fn take_off(marks: &[usize], left: &mut [usize]) {
    for mark in marks {
        left[*mark] -= 1;
    }
}

fn names_of(mark: &DirtyMark) -> Vec<baileys::FileName> {
    match mark.changed() {
        Some(Changed::State(table, key)) => baileys::files_of(table, key),
        Some(Changed::Session | Changed::Part(_)) | None => Vec::new(),
    }
}

impl Board {
    fn hurry(&self, hurry: bool) {
        lock(&self.state).hurry = hurry;
        self.wake();
    }

    fn take_wakes(&self) -> bool {
        std::mem::take(&mut lock(&self.state).wakes) > 0
    }

    /// Waits until something is different, or this long.
    fn wait(&self, time: Duration) {
        let state = lock(&self.state);
        drop(self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner));
    }
}

const JSON: &str = "application/json";
/// Objects and bytes of one batch: what is held in memory at once, per thread.
const BATCH_OBJECTS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Of them, objects given to the store at once: between two such calls a stop is noticed.
const TOGETHER: usize = 64;
/// How often the sessions are looked at while something waits, …
const TICK: Duration = Duration::from_millis(250);
/// … and while nothing does, to see a lease that came or a flush.
const IDLE_TICK: Duration = Duration::from_millis(1000);
/// After an error that a pause may not heal.
const LONG_PAUSE: Duration = Duration::from_secs(30);
const FLUSH_TICK: Duration = Duration::from_millis(20);
