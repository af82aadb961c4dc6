//! Opening the database file: creation, checks, settings, migrations.

use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, records};

/// Name of the database in the state directory.
pub(super) const FILE: &str = "worker.db";
const LOCK_FILE: &str = "worker.lock";
const NEW_FILE: &str = "worker.db.new";

/// Files up to this size are read through once at start, so that damage is found before it is written to.
/// Larger ones would delay the start by seconds; damage in them shows as an error of the query that meets it.
const CHECKED_AT_START_BYTES: u64 = 512 << 20;
/// Pages of journal before it is folded into the database file: 8 MiB.
const CHECKPOINT_PAGES: u32 = 2000;
/// The journal file is cut to this after it grew beyond.
const JOURNAL_KEPT_BYTES: u32 = 32 << 20;
/// Page cache of the writer, KiB.
const WRITER_CACHE_KIB: i32 = 8192;
/// Page cache of each reader, KiB.
const READER_CACHE_KIB: i32 = 2048;
/// Different statements in use by one connection; none is ever compiled twice.
const STATEMENTS: usize = 64;

/// One step per schema version; `user_version` counts the steps taken. Steps are never edited once released.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5];

const V1: &str = "
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    uid TEXT NOT NULL,
    user_id TEXT NOT NULL,
    name TEXT,
    status TEXT NOT NULL,
    phone TEXT,
    lid TEXT,
    push_name TEXT,
    wanted INTEGER NOT NULL,
    error TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    last_activity_ms INTEGER,
    messages INTEGER NOT NULL DEFAULT 0,
    deleting INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE state (
    session INTEGER NOT NULL,
    tbl INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (session, tbl, key)
) WITHOUT ROWID, STRICT;
CREATE TABLE chats (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL,
    jid TEXT NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0,
    UNIQUE (session, jid)
) STRICT;
-- sort = timestamp << 20 | order of arrival within that second: newest first without a separate index.
CREATE TABLE messages (
    session INTEGER NOT NULL,
    sort INTEGER NOT NULL,
    chat INTEGER NOT NULL,
    id TEXT NOT NULL,
    sender TEXT NOT NULL,
    from_me INTEGER NOT NULL,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,
    push_name TEXT,
    target_id TEXT,
    timestamp_s INTEGER NOT NULL,
    status INTEGER NOT NULL,
    sent_s INTEGER,
    delivered_s INTEGER,
    read_s INTEGER,
    played_s INTEGER,
    error TEXT,
    raw BLOB NOT NULL,
    PRIMARY KEY (session, sort)
) WITHOUT ROWID, STRICT;
CREATE UNIQUE INDEX messages_id ON messages (session, id, chat, sender);
CREATE INDEX messages_chat ON messages (chat, sort);
CREATE INDEX messages_pending ON messages (session, sort) WHERE status = 1;
CREATE TABLE receipts (
    session INTEGER NOT NULL,
    sort INTEGER NOT NULL,
    participant TEXT NOT NULL,
    status INTEGER NOT NULL,
    timestamp_s INTEGER NOT NULL,
    PRIMARY KEY (session, sort, participant, status)
) WITHOUT ROWID, STRICT;
CREATE TABLE events (
    session INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (session, seq)
) WITHOUT ROWID, STRICT;
CREATE TABLE idempotency (
    session INTEGER NOT NULL,
    key TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    message_id TEXT NOT NULL,
    status INTEGER,
    body BLOB,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (session, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX idempotency_age ON idempotency (created_ms);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
";

const V2: &str = "
-- How far the delivery of a session's events has come. Rows exist while events are delivered anywhere.
CREATE TABLE outbox (
    session INTEGER PRIMARY KEY,
    cursor INTEGER NOT NULL,
    sent INTEGER NOT NULL
) STRICT;
-- Events the receiver refused for good.
CREATE TABLE dead_letters (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    failed_ms INTEGER NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    replay INTEGER NOT NULL,
    UNIQUE (session, seq)
) STRICT;
CREATE INDEX dead_letters_replay ON dead_letters (session, seq) WHERE replay = 1;
";

/// What the object store lacks, and who owns what there. Days of history are cut into parts of 200 messages.
const V3: &str = "
-- kind: number of a state table, or one of `marks`. round: counts changes while an upload is under way.
CREATE TABLE dirty (
    session INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    round INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (session, kind, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX dirty_age ON dirty (session, since_ms);
-- Parts of days of message history. Part 0 of a day is none: messages that are filed again after a take-over.
CREATE TABLE day_parts (
    session INTEGER NOT NULL,
    day INTEGER NOT NULL,
    part INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first_sort INTEGER NOT NULL,
    last_sort INTEGER NOT NULL,
    PRIMARY KEY (session, day, part)
) WITHOUT ROWID, STRICT;
CREATE TABLE leases (
    session INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    complete INTEGER NOT NULL
) STRICT;
-- Deleted sessions whose objects are not known to be gone.
CREATE TABLE removals (id TEXT PRIMARY KEY, since_ms INTEGER NOT NULL) WITHOUT ROWID, STRICT;
ALTER TABLE messages ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
UPDATE messages SET part = filed.part FROM (
    SELECT session AS s, sort AS t, 1 + (row_number() OVER
        (PARTITION BY session, (sort >> 20) / 86400 ORDER BY sort) - 1) / 200 AS part FROM messages) AS filed
    WHERE filed.s = messages.session AND filed.t = messages.sort;
INSERT INTO day_parts SELECT session, (sort >> 20) / 86400, part, count(*),
    sum(length(raw) + length(content)), min(sort), max(sort) FROM messages GROUP BY 1, 2, 3;
INSERT INTO dirty SELECT session, 33, day || '.' || part, 1, 0 FROM day_parts;
INSERT INTO dirty SELECT session, tbl, key, 1, 0 FROM state;
INSERT INTO dirty SELECT key, 32, '', 1, 0 FROM sessions WHERE deleting = 0;
";

const V4: &str = "
-- When a message failed, for its status history.
ALTER TABLE messages ADD COLUMN failed_s INTEGER;
";

const V5: &str = "
-- A session that was connected and is not: since when, and why.
ALTER TABLE sessions ADD COLUMN away_ms INTEGER;
ALTER TABLE sessions ADD COLUMN away_reason TEXT;
";

/// Held for the life of the store: one worker per state directory. The kernel drops it when the process dies.
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "holding it open is its whole work")] fs::File);

/// Makes the directory if need be and takes its lock.
pub(super) fn lock(dir: &Path) -> Result<DirectoryLock, StoreError> {
    let io = |what: &str, error: std::io::Error| StoreError::Io(format!("{what} {}: {error}", dir.display()));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| io("cannot create the state directory", error))?;
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(LOCK_FILE))
        .map_err(|error| io("cannot write to the state directory", error))?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.display().to_string() }),
        Err(fs::TryLockError::Error(error)) => Err(io("cannot lock the state directory", error)),
    }
}

/// Whether a worker uses the directory now. Changes nothing.
pub(super) fn is_locked(dir: &Path) -> std::io::Result<bool> {
    match fs::File::open(dir.join(LOCK_FILE)) {
        Ok(file) => Ok(matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the writing connection: creates the file when there is none, else checks it. [`upgrade`] migrates it, after
/// the journal of an older worker was applied to the schema it was written for.
pub(super) fn open_writer(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(FILE);
    let journal_left = dir.join(format!("{FILE}-wal"));
    match fs::metadata(&path) {
        // A new database gets its name only when it is complete, so an empty or missing file beside a journal
        // is a loss, never a beginning.
        Ok(meta) if meta.len() == 0 => return Err(damaged(&path, "the file is empty")),
        Ok(meta) => check(&path, meta.len())?,
        Err(_) => {
            let left = [journal_left, dir.join(super::journal::FILE)];
            if let Some(left) = left.iter().find(|left| left.exists()) {
                let why = format!(
                    "it is missing but {} is there; to start empty move that away too",
                    left.display()
                );
                return Err(damaged(&path, &why));
            }
            create(dir, &path)?;
        }
    }
    let conn = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    let settings = || -> rusqlite::Result<()> {
        conn.pragma_update(None, "journal_mode", "WAL")?;
        // Until the journal takes over: [`leave_syncing_to_us`].
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        conn.pragma_update(None, "journal_size_limit", JOURNAL_KEPT_BYTES)
    };
    settings().map_err(|error| open_error(&path, &error))?;
    version(&conn, &path, MIGRATIONS)?;
    Ok(conn)
}

/// SQLite's write-ahead log of a database that is open. Syncing it makes every commit durable; SQLite holds its locks
/// on other files, so that closing this one lets none of them go.
pub(super) fn open_log(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(format!("{FILE}-wal"));
    File::open(&path).map_err(|error| StoreError::Io(format!("cannot open {}: {error}", path.display())))
}

/// From now on SQLite syncs only where its own files would get out of step, and no commit.
pub(super) fn leave_syncing_to_us(conn: &Connection) -> Result<(), StoreError> {
    conn.pragma_update(None, "synchronous", "NORMAL").map_err(|error| records::store_error(&error))
}

/// Brings the schema up to date.
pub(super) fn upgrade(conn: &mut Connection, dir: &Path) -> Result<(), StoreError> {
    migrate(conn, &dir.join(FILE), MIGRATIONS)
}

/// Version of the file; an error when it is newer than ours.
fn version(conn: &Connection, path: &Path, steps: &[&str]) -> Result<i64, StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = conn
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| open_error(path, &error))?;
    if found > known {
        return Err(StoreError::NewerSchema { file: path.display().to_string(), found, known });
    }
    Ok(found)
}

/// Opens a connection that can only read.
pub(super) fn open_reader(dir: &Path) -> Result<Connection, StoreError> {
    connect(&dir.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)
}

fn connect(path: &Path, access: OpenFlags, cache_kib: i32) -> Result<Connection, StoreError> {
    // Each connection is used by one thread at a time, so SQLite's own mutexes are left out.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(std::time::Duration::from_secs(10))?;
        conn.pragma_update(None, "cache_size", -cache_kib)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(conn)
    };
    open().map_err(|error| open_error(path, &error))
}

/// Builds a new database under another name and renames it when it is complete.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let new: PathBuf = dir.join(NEW_FILE);
    let build = || -> std::io::Result<()> {
        // Left over from a start that was interrupted.
        if new.exists() {
            fs::remove_file(&new)?;
        }
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new).map(drop)
    };
    build().map_err(|error| StoreError::Io(format!("cannot create {}: {error}", new.display())))?;
    let mut conn = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    migrate(&mut conn, &new, MIGRATIONS)?;
    conn.close().map_err(|(_, error)| open_error(&new, &error))?;
    let publish = || -> std::io::Result<()> {
        fs::rename(&new, path)?;
        fs::File::open(dir)?.sync_all()
    };
    publish().map_err(|error| StoreError::Io(format!("cannot create {}: {error}", path.display())))
}

fn check(path: &Path, size_bytes: u64) -> Result<(), StoreError> {
    if size_bytes > CHECKED_AT_START_BYTES {
        return Ok(());
    }
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, READER_CACHE_KIB)?;
    let verdict: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| open_error(path, &error))?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(path, &verdict)) }
}

/// Takes the steps the file has not taken yet, each in a transaction of its own.
fn migrate(conn: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let found = version(conn, path, steps)?;
    for (version, step) in (1i64..).zip(steps).skip(usize::try_from(found).unwrap_or(0)) {
        let mut take = || -> rusqlite::Result<()> {
            let tx = conn.transaction()?;
            tx.execute_batch(step)?;
            tx.pragma_update(None, "user_version", version)?;
            tx.commit()
        };
        take().map_err(|error| open_error(path, &error))?;
    }
    Ok(())
}

fn damaged(path: &Path, why: &str) -> StoreError {
    let why = why.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    StoreError::Damaged { file: path.display().to_string(), why }
}

fn open_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            damaged(path, &error.to_string())
        }
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        _ => StoreError::Io(format!("cannot open {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_database_takes_the_missing_steps_and_keeps_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let mut conn = Connection::open(&path).unwrap();
        migrate(&mut conn, &path, &["CREATE TABLE t (a)"]).unwrap();
        conn.execute("INSERT INTO t VALUES (7)", []).unwrap();
        let steps = ["CREATE TABLE t (a)", "ALTER TABLE t ADD COLUMN b DEFAULT 9"];
        migrate(&mut conn, &path, &steps).unwrap();
        migrate(&mut conn, &path, &steps).unwrap();
        let row: (i64, i64) =
            conn.query_row("SELECT a, b FROM t", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (7, 9));
    }

    #[test]
    fn a_failed_step_leaves_the_version_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let mut conn = Connection::open(&path).unwrap();
        assert!(migrate(&mut conn, &path, &["CREATE TABLE t (a); SELECT nonsense"]).is_err());
        let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 0);
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 0);
    }

    #[test]
    fn a_newer_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new.db");
        let mut conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut conn, &path, MIGRATIONS).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_with_one_line_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_writer(dir.path()).unwrap());
        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half..half + 4096].fill(0xa5);
        for content in [bytes, b"not a database, not at all".repeat(500), Vec::new()] {
            fs::write(&path, &content).unwrap();
            let error = open_writer(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_journal_without_its_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("worker.db-wal"), b"x").unwrap();
        let error = open_writer(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn only_one_store_can_hold_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).map(drop).unwrap_err();
        assert!(error.to_string().contains("in use by another worker"), "{error}");
        drop(held);
        lock(dir.path()).map(drop).unwrap();
    }
}
