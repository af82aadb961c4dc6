//! Rows as the rest of the program sees them.

use rusqlite::Row;

use crate::{
    storage::seal::SealError,
    whatsapp::{
        jid::Jid,
        model::{MessageRecord, MessageStatus},
    },
};

/// Internal number of a session. Never used again after a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub(crate) i64);

/// One session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Internal number.
    pub key: SessionKey,
    /// The public id.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// Display name given by the owner.
    pub name: Option<String>,
    /// Last known status, in words of the REST contract.
    pub status: String,
    /// Digits only; known once paired.
    pub phone: Option<String>,
    /// LID user; known once paired.
    pub lid: Option<String>,
    /// WhatsApp display name.
    pub push_name: Option<String>,
    /// Should be connected: set by connect, cleared by disconnect, logout and a final error.
    pub wanted: bool,
    /// Why the status is what it is, when that needs words.
    pub error: Option<String>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds of the last change of this row.
    pub updated_ms: u64,
    /// Unix milliseconds of the last message in or out, or login.
    pub last_activity_ms: Option<u64>,
    /// It was connected and is not: since when (Unix milliseconds), and why.
    pub away: Option<(u64, String)>,
}

/// Changes of a session row; `None` leaves a column as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionPatch {
    /// New status word.
    pub status: Option<&'static str>,
    /// New phone (`Some(None)` clears).
    pub phone: Option<Option<String>>,
    /// New LID (`Some(None)` clears).
    pub lid: Option<Option<String>>,
    /// New display name (`Some(None)` clears).
    pub push_name: Option<Option<String>>,
    /// Should be connected.
    pub wanted: Option<bool>,
    /// New error text (`Some(None)` clears).
    pub error: Option<Option<String>>,
    /// Unix milliseconds.
    pub last_activity_ms: Option<u64>,
    /// It was connected and is not (`Some(None)`: it is again).
    pub away: Option<Option<(u64, String)>>,
}

/// Which messages, and which page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFilter {
    /// Only this chat.
    pub chat: Option<Jid>,
    /// Only messages before this moment (Unix seconds, exclusive).
    pub before: Option<u64>,
    /// Only messages after this moment (Unix seconds, exclusive).
    pub after: Option<u64>,
    /// Page size.
    pub limit: u32,
    /// Messages to skip.
    pub offset: u64,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq)]
pub struct MessagePage {
    /// Newest first.
    pub messages: Vec<StoredMessage>,
    /// All messages that match, not only this page.
    pub total: u64,
}

/// A message with its progress.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// The message; `status` is the current one.
    pub record: MessageRecord,
    /// When each status was reached first.
    pub times: StatusTimes,
    /// Why it failed.
    pub error: Option<String>,
}

/// When a message made progress, Unix seconds. In a group: the first member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusTimes {
    /// The server took it.
    pub sent_s: Option<u64>,
    /// A device has it.
    pub delivered_s: Option<u64>,
    /// It was seen.
    pub read_s: Option<u64>,
    /// It was played.
    pub played_s: Option<u64>,
    /// It failed; a later progress ends that.
    pub failed_s: Option<u64>,
}

/// What one member of a group did with a message of ours, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// Who.
    pub participant: Jid,
    /// `Delivered`, `Read` or `Played`.
    pub status: MessageStatus,
    /// Unix seconds.
    pub timestamp_s: u64,
}

/// One entry of a session's event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// 1, 2, 3, … without gaps, per session.
    pub seq: u64,
    /// Stable and unique over all sessions: the same in every delivery.
    pub event_id: String,
    /// `session-status`, `message`, `message-status`, …
    pub kind: String,
    /// JSON object.
    pub payload: String,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// A remembered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// What is known under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Of the request that claimed the key.
    pub request_hash: [u8; 32],
    /// Message id the first request chose; a retry of an unfinished request must use it again.
    pub message_id: String,
    /// `None` while the first request is under way, or when the worker died in it.
    pub answer: Option<Answer>,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// Outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is ours.
    New,
    /// Somebody had it before.
    Existing(IdempotencyRecord),
}

/// What can go wrong with the store. A failed batch failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the state directory.
    #[error("the state directory {dir} is in use by another worker; stop that one first")]
    Locked {
        /// Which directory.
        dir: String,
    },
    /// The file is not a healthy database.
    #[error(
        "the database {file} is damaged ({why}); restore it from a backup or move it away to start empty"
    )]
    Damaged {
        /// Which file.
        file: String,
        /// What SQLite says.
        why: String,
    },
    /// Written by a newer version.
    #[error(
        "the database {file} has schema version {found}, this worker knows up to {known}; use a newer worker"
    )]
    NewerSchema {
        /// Which file.
        file: String,
        /// Version in the file.
        found: i64,
        /// Our version.
        known: i64,
    },
    /// Encrypted state that does not open.
    #[error("a secret in the local store cannot be read: {0}")]
    Sealed(#[source] SealError),
    /// No space left: new work is refused until there is room again.
    #[error("the disk is full")]
    Full,
    /// The database does not take this row; others are not concerned.
    #[error("the local store refused a row: {0}")]
    Refused(String),
    /// Reading or writing failed.
    #[error("the local store failed: {0}")]
    Io(String),
    /// The session is not there (any more).
    #[error("the session no longer exists")]
    NoSession,
    /// The store thread has stopped.
    #[error("the local store is closed")]
    Stopped,
}

/// Columns that [`session_row`] reads.
pub(super) const SESSION_COLUMNS: &str = "key, id, user_id, name, status, phone, lid, push_name, wanted, error, \
     created_ms, updated_ms, last_activity_ms, away_ms, away_reason";

pub(super) fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        key: SessionKey(row.get(0)?),
        id: row.get(1)?,
        user_id: row.get(2)?,
        name: row.get(3)?,
        status: row.get(4)?,
        phone: row.get(5)?,
        lid: row.get(6)?,
        push_name: row.get(7)?,
        wanted: row.get(8)?,
        error: row.get(9)?,
        created_ms: unsigned(row.get(10)?),
        updated_ms: unsigned(row.get(11)?),
        last_activity_ms: row.get::<_, Option<i64>>(12)?.map(unsigned),
        away: row.get::<_, Option<i64>>(13)?.map(unsigned).zip(row.get(14)?),
    })
}

/// Columns that [`stored_message`] reads, of `messages` joined with `chats`.
pub(super) const MESSAGE_COLUMNS: &str = "messages.id, chats.jid, sender, from_me, kind, content, push_name, \
     target_id, timestamp_s, status, raw, sent_s, delivered_s, read_s, played_s, failed_s, error";

pub(super) fn stored_message(row: &Row<'_>) -> rusqlite::Result<StoredMessage> {
    let second = |index| row.get::<_, Option<i64>>(index).map(|at| at.map(unsigned));
    Ok(StoredMessage {
        record: MessageRecord {
            id: row.get(0)?,
            chat: jid(row, 1)?,
            sender: jid(row, 2)?,
            from_me: row.get(3)?,
            kind: row.get(4)?,
            content: row.get(5)?,
            push_name: row.get(6)?,
            target_id: row.get(7)?,
            timestamp: unsigned(row.get(8)?),
            status: status(row, 9)?,
            raw: row.get(10)?,
        },
        times: StatusTimes {
            sent_s: second(11)?,
            delivered_s: second(12)?,
            read_s: second(13)?,
            played_s: second(14)?,
            failed_s: second(15)?,
        },
        error: row.get(16)?,
    })
}

/// Reads `participant, status, timestamp_s`.
pub(super) fn stored_receipt(row: &Row<'_>) -> rusqlite::Result<StoredReceipt> {
    Ok(StoredReceipt {
        participant: jid(row, 0)?,
        status: status(row, 1)?,
        timestamp_s: unsigned(row.get(2)?),
    })
}

pub(super) const IDEMPOTENCY_QUERY: &str = "SELECT request_hash, message_id, status, body, created_ms \
     FROM idempotency WHERE session = ?1 AND key = ?2";

pub(super) fn idempotency_record(row: &Row<'_>) -> rusqlite::Result<IdempotencyRecord> {
    let status: Option<u16> = row.get(2)?;
    let body: Option<Vec<u8>> = row.get(3)?;
    Ok(IdempotencyRecord {
        request_hash: row.get(0)?,
        message_id: row.get(1)?,
        answer: status.map(|status| Answer { status, body: body.unwrap_or_default() }),
        created_ms: unsigned(row.get(4)?),
    })
}

/// SQLite's integers are signed; nothing we count comes near the bound.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn length(bytes: impl AsRef<[u8]>) -> i64 {
    i64::try_from(bytes.as_ref().len()).unwrap_or(i64::MAX)
}

/// What an error of SQLite means to us.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        Some(
            rusqlite::ErrorCode::ConstraintViolation
            | rusqlite::ErrorCode::TypeMismatch
            | rusqlite::ErrorCode::TooBig
            | rusqlite::ErrorCode::ParameterOutOfRange,
        ) => StoreError::Refused(error.to_string()),
        _ => StoreError::Io(error.to_string()),
    }
}

fn jid(row: &Row<'_>, index: usize) -> rusqlite::Result<Jid> {
    let text: String = row.get(index)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn status(row: &Row<'_>, index: usize) -> rusqlite::Result<MessageStatus> {
    Ok(match row.get(index)? {
        1u8 => MessageStatus::Pending,
        2 => MessageStatus::Sent,
        3 => MessageStatus::Delivered,
        4 => MessageStatus::Read,
        5 => MessageStatus::Played,
        6 => MessageStatus::Failed,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(index, other.into())),
    })
}
