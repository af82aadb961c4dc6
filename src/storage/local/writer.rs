//! The store thread: takes all work that waits, makes it durable with one sync, tells everybody.
//!
//! Work is applied to an open SQLite transaction and becomes durable in the journal; SQLite commits later, many groups
//! together. The thread commits when somebody wants to read, when enough has come together, or after a short quiet.
//! A commit is not synced either (`synchronous=NORMAL`): that happens once per megabyte of journal, before the journal
//! starts over. Whatever a power cut leaves of SQLite's log is an older commit, and the journal has what is behind it.
//!
//! When the disk is full or broken, new work fails, nothing acknowledged is lost (it is in the journal), and the
//! thread tries by itself every second whether it works again.

use std::{
    cell::RefCell,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rusqlite::{Connection, OptionalExtension};

use super::{
    CommitListener, EventWatch, Logged, SessionKey, StoreError,
    apply::{self, Applier, Failure, Known, Outcome},
    job::{Job, Op},
    journal::Journal,
    records, schema, sealing,
    stats::StoreStats,
};
use crate::storage::seal::KeyRing;

/// Pieces of work in one group, so that the first of a long queue does not wait for the last.
const PER_GROUP: usize = 256;
/// SQLite commits when this much came together, …
const PER_COMMIT: usize = 2000;
/// … when the journal is this long (it starts over then), …
const JOURNAL_BYTES: usize = 1 << 20;
/// … or this long after the first of it.
const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// While groups are larger than this on average, …
const CROWD: usize = 3;
/// … they are at least this far apart: a sync and the wake-ups around it cost the same for ten pieces of work as for
/// one. Who waits for each answer before the next request is never a crowd.
const GROUP_EVERY: Duration = Duration::from_millis(1);
/// How often old rows are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// How often a broken store is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What the store thread says about itself.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<StoreError>>);

impl Health {
    pub(super) fn error(&self) -> Option<StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, error: Option<StoreError>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*now, &error) {
            (None, Some(error)) => log::error!("the local store refuses writes: {error}"),
            (Some(_), None) => log::info!("the local store takes writes again"),
            _ => {}
        }
        *now = error;
    }
}

/// Owned by the store thread.
pub(super) struct Writer {
    conn: Connection,
    /// SQLite's write-ahead log, to sync it.
    log: File,
    journal: Journal,
    keys: Arc<KeyRing>,
    known: Known,
    shared: Arc<Shared>,
    next_tidy: Instant,
    pacing: Pacing,
    /// Since when the transaction is open, and how much is in it.
    open: Option<Instant>,
    uncommitted: usize,
    /// Sessions that are told when what they submitted can be read.
    unread: Vec<(SessionKey, u64, Arc<dyn CommitListener>)>,
    /// Events of the last group.
    logged: Vec<Logged>,
    /// SQLite lacks what the journal has; nothing new is taken until it has caught up.
    behind: bool,
}

/// Decides how long a group waits for others to come along.
#[derive(Default)]
struct Pacing {
    /// Pieces of work in a group on average, in sixteenths.
    average: usize,
    last: Option<Instant>,
}

impl Pacing {
    fn pause(&self, now: Instant) -> Option<Duration> {
        let next = self.last.filter(|_| self.average > CROWD * 16)? + GROUP_EVERY;
        Some(next.saturating_duration_since(now)).filter(|pause| !pause.is_zero())
    }

    fn done(&mut self, pieces: usize, now: Instant) {
        self.average = (self.average * 15 + pieces * 16) / 16;
        self.last = Some(now);
    }
}

/// What the store thread tells its callers without being asked.
pub(super) struct Shared {
    pub(super) health: Health,
    /// Readers do not see everything that is durable: they must ask for a commit first.
    pub(super) uncommitted: AtomicBool,
    /// Hears of events.
    pub(super) watch: OnceLock<Arc<dyn EventWatch>>,
    /// Holds something when marks were committed since it was taken out.
    pub(super) marked: (Sender<()>, Receiver<()>),
    pub(super) stats: StoreStats,
}

impl Default for Shared {
    fn default() -> Self {
        let marked = crossbeam_channel::bounded(1);
        Self {
            health: Health::default(),
            uncommitted: AtomicBool::new(false),
            watch: Default::default(),
            marked,
            stats: StoreStats::default(),
        }
    }
}

/// What became of one job, in the order of the jobs.
enum Done {
    Seq(Option<u64>),
    Outcome(Box<Outcome>),
}

impl Writer {
    /// Applies what the journal has and SQLite has not; what an unclean stop left behind.
    pub(super) fn open(
        conn: Connection,
        dir: &Path,
        shared: Arc<Shared>,
        keys: Arc<KeyRing>,
    ) -> Result<Self, StoreError> {
        let applied = applied(&conn)?;
        let journal = Journal::open(dir, applied)
            .map_err(|error| StoreError::Io(format!("cannot open the journal: {error}")))?;
        let log = schema::open_log(dir)?;
        let mut writer = Self {
            conn,
            log,
            journal,
            keys,
            known: Known::default(),
            shared,
            next_tidy: Instant::now(),
            pacing: Pacing::default(),
            open: None,
            uncommitted: 0,
            unread: Vec::new(),
            logged: Vec::new(),
            behind: true,
        };
        writer.catch_up()?;
        // Also what a worker that was killed had committed: the journal starts over behind it.
        writer.restart_journal()?;
        schema::upgrade(&mut writer.conn, dir)?;
        sealing::bring_under(&writer.keys, &mut writer.conn, &mut writer.journal)?;
        schema::leave_syncing_to_us(&writer.conn)?;
        Ok(writer)
    }

    /// Works until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        let mut jobs = Vec::new();
        loop {
            match queue.recv_timeout(self.patience()) {
                Ok(job) => jobs.push(job),
                Err(RecvTimeoutError::Timeout) => {
                    self.on_quiet();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Some(pause) = self.pacing.pause(Instant::now()) {
                std::thread::sleep(pause);
            }
            jobs.extend(queue.try_iter().take(PER_GROUP - 1));
            let pieces = jobs.len();
            self.group(&mut jobs);
            self.pacing.done(pieces, Instant::now());
        }
        self.commit();
        // Folds SQLite's own journal in, so that a stopped worker leaves one file that matters.
        if let Err((_, error)) = self.conn.close() {
            log::warn!("the local store was not closed cleanly: {error}");
        }
    }

    fn patience(&self) -> Duration {
        match self.open {
            _ if self.behind => PROBE_EVERY,
            Some(since) => COMMIT_AFTER.saturating_sub(since.elapsed()),
            None => self.next_tidy.saturating_duration_since(Instant::now()),
        }
    }

    fn on_quiet(&mut self) {
        if self.behind || self.shared.health.error().is_some() {
            let result = self.alone(&Op::Probe);
            self.report_health(result.err());
        } else if self.open.is_some() {
            self.commit();
        } else {
            self.next_tidy = Instant::now() + TIDY_EVERY;
            match self.alone(&Op::Tidy) {
                Ok(Outcome::More(true)) => self.next_tidy = Instant::now(),
                Ok(_) => {}
                Err(error) => log::warn!("clean-up of the local store failed: {error}"),
            }
        }
    }

    /// Makes all jobs durable and answers them.
    fn group(&mut self, jobs: &mut Vec<Job>) {
        let mut results = Vec::with_capacity(jobs.len());
        let begun = Instant::now();
        if let Err(error) = self.together(jobs, &mut results) {
            results.clear();
            if is_broken(&error) || jobs.len() == 1 {
                results.extend(jobs.iter().map(|_| Err(error.clone())));
            } else {
                // One of them is at fault: alone, each gets its own answer.
                results.extend(jobs.iter().map(|job| self.separately(job)));
            }
        }
        self.shared.stats.group_took.observe(begun.elapsed());
        self.shared.stats.jobs.add(results.iter().filter(|result| result.is_ok()).count() as u64);
        let broken = results.iter().find_map(|result| result.as_ref().err().filter(|error| is_broken(error)));
        self.report_health(broken.cloned());
        self.uncommitted += jobs.len();
        if jobs.iter().any(Job::wants_commit)
            || self.uncommitted >= PER_COMMIT
            || self.journal.used() >= JOURNAL_BYTES
            || self.open.is_some_and(|since| since.elapsed() >= COMMIT_AFTER)
        {
            self.commit();
        }
        for (job, result) in jobs.drain(..).zip(results) {
            self.tell_of_deletion(&job, result.is_ok());
            self.answer(job, result);
        }
        self.tell_of_events();
    }

    fn tell_of_events(&mut self) {
        let Some(watch) = self.shared.watch.get().filter(|_| !self.logged.is_empty()) else {
            return self.logged.clear();
        };
        let at_once = watch.logged(&self.logged);
        if self.open.is_none() {
            watch.readable();
        } else if at_once {
            self.commit();
        }
        self.logged.clear();
    }

    fn tell_of_deletion(&self, job: &Job, done: bool) {
        if let (Job::Call { op: Op::MarkDeleted { session, .. }, .. }, true, Some(watch)) =
            (job, done, self.shared.watch.get())
        {
            watch.deleted(*session);
        }
    }

    /// Applies jobs and makes them durable with one sync. An error means that none of them happened.
    fn together(
        &mut self,
        jobs: &[Job],
        results: &mut Vec<Result<Done, StoreError>>,
    ) -> Result<(), StoreError> {
        let result = self.begin().and_then(|()| {
            let mut applier = Applier {
                conn: &self.conn,
                known: &mut self.known,
                journal: RefCell::new(&mut self.journal),
                logged: Vec::new(),
                now_ms: now_ms(),
                keys: &self.keys,
            };
            for job in jobs {
                match apply(&mut applier, job) {
                    Ok(done) => results.push(Ok(done)),
                    // Found out before anything was changed.
                    Err(Failure::Work(error)) => results.push(Err(error)),
                    Err(failure @ Failure::Sqlite(_)) => return Err(failure.into()),
                }
            }
            let logged = std::mem::take(&mut applier.logged);
            self.journal.write()?;
            self.logged.extend(logged);
            Ok(())
        });
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    fn separately(&mut self, job: &Job) -> Result<Done, StoreError> {
        let mut results = Vec::with_capacity(1);
        self.together(std::slice::from_ref(job), &mut results)?;
        results.pop().unwrap_or(Err(StoreError::Stopped))
    }

    /// Work of the thread itself.
    fn alone(&mut self, op: &Op) -> Result<Outcome, StoreError> {
        let (answer, _) = crossbeam_channel::bounded(1);
        let done = self.separately(&Job::Call { op: op.clone(), answer })?;
        self.commit();
        match done {
            Done::Outcome(outcome) => Ok(*outcome),
            Done::Seq(_) => Ok(Outcome::Done),
        }
    }

    /// Opens the transaction, after catching up when that is due.
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.behind {
            self.catch_up()?;
        }
        if self.open.is_none() {
            self.sql("BEGIN IMMEDIATE")?;
            self.open = Some(Instant::now());
            self.shared.uncommitted.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Commits what is open; whether that worked. What fails here is still in the journal.
    fn commit(&mut self) -> bool {
        if self.open.is_none() {
            return true;
        }
        let begun = Instant::now();
        let mut applier = Applier {
            conn: &self.conn,
            known: &mut self.known,
            journal: RefCell::new(&mut self.journal),
            logged: Vec::new(),
            now_ms: now_ms(),
            keys: &self.keys,
        };
        let sealed = applier.seal().map_err(|error| records::store_error(&error));
        if let Err(error) = sealed.and_then(|()| self.sql("COMMIT")) {
            self.roll_back();
            self.report_health(Some(error));
            return false;
        }
        self.shared.stats.commit_took.observe(begun.elapsed());
        self.open = None;
        self.uncommitted = 0;
        self.shared.uncommitted.store(false, Ordering::SeqCst);
        if std::mem::take(&mut self.known.marked) {
            // Full: somebody is told already.
            let _ = self.shared.marked.0.try_send(());
        }
        for (_, number, listener) in self.unread.drain(..) {
            listener.readable(number);
        }
        if let Some(watch) = self.shared.watch.get() {
            watch.readable();
        }
        if self.journal.used() >= JOURNAL_BYTES
            && let Err(error) = self.restart_journal()
        {
            self.report_health(Some(error));
        }
        true
    }

    /// Lets the journal start over, once everything in it is durable in SQLite.
    fn restart_journal(&mut self) -> Result<(), StoreError> {
        self.log.sync_data().map_err(|error| StoreError::Io(format!("SQLite's log: {error}")))?;
        self.journal.restart();
        Ok(())
    }

    /// Back to the last commit. What the journal has since then is applied again before anything else.
    fn roll_back(&mut self) {
        self.journal.drop_group();
        // A full disk may have rolled back already.
        if !self.conn.is_autocommit()
            && let Err(error) = self.sql("ROLLBACK")
        {
            log::error!("rolling back failed: {error}");
        }
        self.known = Known::default();
        self.behind = true;
        self.open = None;
    }

    /// Applies the groups of the journal that SQLite lacks, and commits them.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let applied = applied(&self.conn)?;
        if self.journal.number() > applied {
            self.sql("BEGIN IMMEDIATE")?;
            self.open = Some(Instant::now());
            let (conn, known, now_ms) = (&self.conn, &mut self.known, now_ms());
            let redone = self
                .journal
                .replay(applied, |statement| Ok::<_, Failure>(apply::redo(conn, known, now_ms, &statement)?));
            if let Err(failure) = redone {
                self.roll_back();
                return Err(failure.into());
            }
            if !self.commit() {
                return Err(self.shared.health.error().unwrap_or(StoreError::Stopped));
            }
        }
        self.behind = false;
        Ok(())
    }

    fn sql(&self, sql: &str) -> Result<(), StoreError> {
        let done = self.conn.prepare_cached(sql).and_then(|mut sql| sql.execute([]));
        done.map(drop).map_err(|error| records::store_error(&error))
    }

    fn report_health(&self, error: Option<StoreError>) {
        error.iter().for_each(|error| self.shared.stats.failed(error));
        if error.is_some() || !self.behind {
            self.shared.health.set(error);
        }
    }

    fn answer(&mut self, job: Job, result: Result<Done, StoreError>) {
        let seq = |result: Result<Done, StoreError>| {
            result.map(|done| match done {
                Done::Seq(seq) => seq,
                Done::Outcome(_) => None,
            })
        };
        match job {
            Job::Batch { session, batch, listener } => {
                if result.is_ok() {
                    self.will_be_readable(session, batch.number, &listener);
                }
                listener.committed(batch.number, seq(result));
            }
            Job::Report { number, listener, .. } => listener.reported(number, seq(result)),
            Job::Call { answer, .. } => {
                let outcome = result.map(|done| match done {
                    Done::Outcome(outcome) => *outcome,
                    Done::Seq(_) => Outcome::Done,
                });
                // The caller may have given up waiting; the work is done either way.
                drop(answer.send(outcome));
            }
        }
    }

    /// Only the last batch of each session needs to be told.
    fn will_be_readable(&mut self, session: SessionKey, number: u64, listener: &Arc<dyn CommitListener>) {
        if self.open.is_none() {
            return listener.readable(number);
        }
        match self.unread.iter_mut().find(|(known, _, of)| *known == session && Arc::ptr_eq(of, listener)) {
            Some((_, last, _)) => *last = number,
            None => self.unread.push((session, number, Arc::clone(listener))),
        }
    }
}

/// Number of the last group of the journal that SQLite has.
fn applied(conn: &Connection) -> Result<u64, StoreError> {
    let found: Option<String> = conn
        .query_row("SELECT value FROM meta WHERE key = 'journal'", [], |row| row.get(0))
        .optional()
        .map_err(|error| records::store_error(&error))?;
    Ok(found.and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn apply(applier: &mut Applier<'_>, job: &Job) -> Result<Done, Failure> {
    match job {
        Job::Batch { session, batch, .. } => applier.batch(*session, batch).map(Done::Seq),
        Job::Report { session, patch, event, .. } => {
            applier.report(*session, patch.as_deref(), event.as_ref()).map(Done::Seq)
        }
        Job::Call { op, .. } => applier.op(op).map(|outcome| Done::Outcome(Box::new(outcome))),
    }
}

/// Errors of the disk, as opposed to errors of one piece of work.
fn is_broken(error: &StoreError) -> bool {
    matches!(error, StoreError::Full | StoreError::Io(_) | StoreError::Damaged { .. })
}

fn now_ms() -> i64 {
    records::int(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}
