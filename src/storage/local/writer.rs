//! The store thread: takes all work that waits, applies it in one transaction, commits once, tells everybody.
//!
//! When one piece of work fails, the transaction is rolled back and every piece is tried in a transaction of its
//! own: only the guilty one fails. When the disk is full or broken, everything fails, and the thread tries by itself
//! every second whether it works again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rusqlite::Connection;

use super::{
    Answer, CommitListener, SessionKey, SessionPatch, StoreError,
    apply::{Applier, Failure, Known, Outcome},
    records,
};
use crate::whatsapp::state::Batch;

/// Work that may wait before submitters have to.
pub(super) const QUEUE: usize = 1024;
/// Pieces of work in one transaction, so that the first of a long queue does not wait for the last.
const PER_COMMIT: usize = 512;
/// When many came together last time, those who are late are given this long: a fuller transaction costs each of
/// them less than an emptier one more. A lone session never waits.
const GATHER: Duration = Duration::from_micros(400);
/// How often old rows are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// How often a broken store is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Work with an answer for the caller.
#[derive(Debug)]
pub(super) enum Op {
    Create { id: String, user_id: String, name: Option<String> },
    Update { session: SessionKey, patch: Box<SessionPatch>, event: Option<(&'static str, String)> },
    Claim { session: SessionKey, key: String, request_hash: [u8; 32], message_id: String },
    Answer { session: SessionKey, key: String, answer: Answer },
    Release { session: SessionKey, key: String },
    Forget { session: SessionKey },
    MarkDeleted { session: SessionKey },
    DeleteSome { session: SessionKey },
    Tidy,
    Probe,
}

/// What waits in the queue.
pub(super) enum Job {
    /// Writes of an engine.
    Batch { session: SessionKey, batch: Batch, listener: Arc<dyn CommitListener> },
    /// A session's row changed, or the outside is to be told something, or both.
    Report {
        session: SessionKey,
        number: u64,
        patch: Option<Box<SessionPatch>>,
        event: Option<(&'static str, String)>,
        listener: Arc<dyn CommitListener>,
    },
    /// Somebody waits for the answer.
    Call { op: Op, answer: Sender<Result<Outcome, StoreError>> },
}

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
    known: Known,
    health: Arc<Health>,
    next_tidy: Instant,
    /// Pieces of work in the last transaction.
    last_group: usize,
}

/// What became of one job, in the order of the jobs.
enum Done {
    Seq(Option<u64>),
    Outcome(Box<Outcome>),
}

impl Writer {
    pub(super) fn new(conn: Connection, health: Arc<Health>) -> Self {
        Self { conn, known: Known::default(), health, next_tidy: Instant::now(), last_group: 0 }
    }

    /// Works until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        let mut jobs = Vec::new();
        let mut broken = false;
        loop {
            let wait =
                if broken { PROBE_EVERY } else { self.next_tidy.saturating_duration_since(Instant::now()) };
            match queue.recv_timeout(wait) {
                Ok(job) => jobs.push(job),
                Err(RecvTimeoutError::Timeout) => {
                    let op = if broken { Op::Probe } else { self.tidy_op() };
                    broken = self.alone(&op).is_err_and(|error| is_broken(&error));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            jobs.extend(queue.try_iter().take(PER_COMMIT - 1));
            if jobs.len() * 2 < self.last_group {
                std::thread::sleep(GATHER);
                jobs.extend(queue.try_iter().take(PER_COMMIT - jobs.len()));
            }
            self.last_group = jobs.len();
            broken = self.commit(&mut jobs);
        }
        // Folds the journal in, so that a stopped worker leaves one file.
        if let Err((_, error)) = self.conn.close() {
            log::warn!("the local store was not closed cleanly: {error}");
        }
    }

    /// Commits all jobs and answers them; whether the store is broken now.
    fn commit(&mut self, jobs: &mut Vec<Job>) -> bool {
        let results = match self.together(jobs) {
            Ok(done) => done.into_iter().map(Ok).collect(),
            Err(error) if jobs.len() == 1 => vec![Err(error)],
            Err(error) if is_broken(&error) => jobs.iter().map(|_| Err(error.clone())).collect(),
            Err(_) => jobs.iter().map(|job| self.one(job)).collect::<Vec<_>>(),
        };
        let broken = results.iter().find_map(|result| result.as_ref().err().filter(|error| is_broken(error)));
        let is_bad = broken.is_some();
        if is_bad || self.health.error().is_some() {
            self.health.set(broken.cloned());
        }
        for (job, result) in jobs.drain(..).zip(results) {
            answer(job, result);
        }
        is_bad
    }

    fn together(&mut self, jobs: &[Job]) -> Result<Vec<Done>, StoreError> {
        self.transaction(|applier| jobs.iter().map(|job| apply(applier, job)).collect())
    }

    fn one(&mut self, job: &Job) -> Result<Done, StoreError> {
        self.transaction(|applier| apply(applier, job))
    }

    /// Work of the thread itself.
    fn alone(&mut self, op: &Op) -> Result<Outcome, StoreError> {
        let result = self.transaction(|applier| applier.op(op));
        match &result {
            Ok(Outcome::More(true)) => self.next_tidy = Instant::now(),
            Err(error) if is_broken(error) => self.health.set(Some(error.clone())),
            Err(error) => log::warn!("clean-up of the local store failed: {error}"),
            Ok(_) if self.health.error().is_some() => self.health.set(None),
            Ok(_) => {}
        }
        result
    }

    fn tidy_op(&mut self) -> Op {
        self.next_tidy = Instant::now() + TIDY_EVERY;
        Op::Tidy
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Applier<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut applier = Applier { conn: &self.conn, known: &mut self.known, now_ms: now_ms() };
        let run = |sql: &str| -> rusqlite::Result<()> {
            self.conn.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        let result = (|| {
            run("BEGIN IMMEDIATE")?;
            let result = work(&mut applier)?;
            applier.counts()?;
            run("COMMIT")?;
            Ok(result)
        })();
        result.map_err(|failure: Failure| {
            // A full disk may have rolled back already.
            if !self.conn.is_autocommit()
                && let Err(error) = run("ROLLBACK")
            {
                log::error!("rolling back failed: {error}");
            }
            self.known = Known::default();
            failure.into()
        })
    }
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

fn answer(job: Job, result: Result<Done, StoreError>) {
    let seq = |result: Result<Done, StoreError>| {
        result.map(|done| match done {
            Done::Seq(seq) => seq,
            Done::Outcome(_) => None,
        })
    };
    match job {
        Job::Batch { batch, listener, .. } => listener.committed(batch.number, seq(result)),
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

/// Errors of the disk, as opposed to errors of one piece of work.
fn is_broken(error: &StoreError) -> bool {
    matches!(error, StoreError::Full | StoreError::Io(_) | StoreError::Damaged { .. })
}

fn now_ms() -> i64 {
    records::int(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}
