//! The journal: what makes a group of work durable before SQLite has committed it.
//!
//! SQLite writes whole pages, several per message, and every commit writes them again. So the store thread keeps one
//! SQLite transaction open over many groups and appends each group to this file instead: one write, one sync. A group
//! is the list of statements it executed, with their values; executing them again after a crash, on top of the last
//! commit, gives the same database, for no statement asks for the time or for chance.
//!
//! File: groups one after another from the beginning; once SQLite has made them durable the next group starts at the
//! beginning again. Group: magic, group number, length, CRC-32, body. Body: per statement its number (with its SQL when it is
//! new since the beginning of the file), then the values. The first group that is broken or out of order ends it.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, Value, ValueRef},
};

use super::StoreError;

/// Name in the state directory.
pub(super) const FILE: &str = "worker.journal";
const MAGIC: u32 = 0x574a_4e4c;
/// Magic, number, length, CRC.
const HEAD_BYTES: usize = 4 + 8 + 4 + 4;
/// The file grows by this much, filled with zeros, so that a sync has no metadata to write.
const GROWTH_BYTES: usize = 1 << 20;
/// The buffer of a group keeps at most this.
const KEPT_BYTES: usize = 256 << 10;

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

/// See the module.
pub(super) struct Journal {
    file: File,
    /// Bytes of the file that exist, and where the next group goes.
    size: usize,
    offset: usize,
    /// Number of the last group written.
    number: u64,
    /// The group being collected; its head is filled in at the end.
    group: Vec<u8>,
    /// Statements whose SQL is in the file already, and those new in this group.
    statements: HashMap<&'static str, u16>,
    written_statements: usize,
}

/// A statement read back.
pub(super) struct Redo<'a> {
    pub(super) sql: &'a str,
    pub(super) values: Vec<Value>,
}

impl Journal {
    /// Opens the file; `applied` is the number of the last group that SQLite has committed.
    pub(super) fn open(dir: &Path, applied: u64) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut journal = Self {
            file,
            size,
            offset: 0,
            number: applied,
            group: vec![0; HEAD_BYTES],
            statements: HashMap::new(),
            written_statements: 0,
        };
        journal.find_end(applied)?;
        Ok(journal)
    }

    /// Number of the last group that is durable here.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Number of the group that has everything added so far.
    pub(super) fn next_number(&self) -> u64 {
        self.number + u64::from(self.group.len() > HEAD_BYTES)
    }

    /// Bytes used since the beginning.
    pub(super) fn used(&self) -> usize {
        self.offset
    }

    /// Adds an executed statement to the group.
    pub(super) fn add(&mut self, sql: &'static str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let next = u16::try_from(self.statements.len()).unwrap_or(u16::MAX);
        let number = *self.statements.entry(sql).or_insert(next);
        self.group.extend_from_slice(&number.to_le_bytes());
        if number == next {
            put_bytes(&mut self.group, sql.as_bytes());
        }
        self.group.push(u8::try_from(values.len()).unwrap_or(u8::MAX));
        for value in values {
            match value.to_sql()? {
                ToSqlOutput::Borrowed(value) => put_value(&mut self.group, value),
                ToSqlOutput::Owned(value) => put_value(&mut self.group, (&value).into()),
                _ => return Err(rusqlite::Error::InvalidQuery),
            }
        }
        Ok(())
    }

    /// Makes the collected group durable. Nothing of it counts when this fails.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        if self.group.len() == HEAD_BYTES {
            return Ok(());
        }
        let result = self.write_group();
        if result.is_ok() {
            self.offset += self.group.len();
            self.number += 1;
            self.written_statements = self.statements.len();
        }
        self.drop_group();
        result.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io(format!("the journal: {error}")),
        })
    }

    fn write_group(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.group.len() - HEAD_BYTES).map_err(io::Error::other)?;
        let mut crc = flate2::Crc::new();
        crc.update(&self.group[HEAD_BYTES..]);
        let head = [
            &MAGIC.to_le_bytes()[..],
            &(self.number + 1).to_le_bytes(),
            &length.to_le_bytes(),
            &crc.sum().to_le_bytes(),
        ];
        self.group[..HEAD_BYTES].copy_from_slice(&head.concat());
        while self.offset + self.group.len() > self.size {
            self.file.write_all_at(&vec![0; GROWTH_BYTES], self.size as u64)?;
            self.size += GROWTH_BYTES;
        }
        self.file.write_all_at(&self.group, self.offset as u64)?;
        self.file.sync_data()
    }

    /// Forgets what was collected since the last write.
    pub(super) fn drop_group(&mut self) {
        self.group.truncate(HEAD_BYTES);
        self.group.shrink_to(KEPT_BYTES);
        let written = self.written_statements;
        self.statements.retain(|_, number| usize::from(*number) < written);
    }

    /// SQLite has everything, durably: the next group starts at the beginning.
    pub(super) fn restart(&mut self) {
        self.offset = 0;
        self.statements.clear();
        self.written_statements = 0;
    }

    /// Removes what older groups left in the file. Everything must be in SQLite.
    pub(super) fn wipe(&mut self) -> io::Result<()> {
        debug_assert_eq!(self.offset, 0, "nothing is waiting");
        self.file.set_len(0)?;
        self.size = 0;
        self.file.sync_all()
    }

    /// Hands every statement of the groups after `applied` to `redo`, in order.
    pub(super) fn replay<E: From<io::Error>>(
        &self,
        applied: u64,
        mut redo: impl FnMut(Redo<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = vec![0; self.offset];
        self.file.read_exact_at(&mut bytes, 0)?;
        let mut sql = Vec::new();
        let mut rest = &bytes[..];
        while let Some((number, mut body, behind)) = next_group(rest) {
            rest = behind;
            while !body.is_empty() {
                let found = read_statement(&mut body, &mut sql)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the journal is damaged"))?;
                if number > applied {
                    redo(found)?;
                }
            }
        }
        Ok(())
    }

    /// Sets `offset` and `number` behind the last good group, or to the beginning when SQLite has them all.
    fn find_end(&mut self, applied: u64) -> io::Result<()> {
        let mut bytes = vec![0; self.size];
        self.file.read_exact_at(&mut bytes, 0)?;
        let mut rest = &bytes[..];
        let mut last: Option<u64> = None;
        while let Some((number, _, behind)) = next_group(rest) {
            if last.is_some_and(|last| number != last + 1) {
                break;
            }
            if last.is_none() && number > applied + 1 {
                let why = format!("{FILE} belongs to a newer copy of the database");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            last = Some(number);
            self.offset = bytes.len() - behind.len();
            rest = behind;
        }
        match last {
            Some(last) if last > applied => self.number = last,
            _ => self.offset = 0,
        }
        Ok(())
    }
}

/// Number, body and what is behind the group at the beginning of `bytes`, when it is whole.
fn next_group(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let mut rest = bytes;
    let magic = u32::from_le_bytes(*take(&mut rest)?);
    let number = u64::from_le_bytes(*take(&mut rest)?);
    let length = usize::try_from(u32::from_le_bytes(*take(&mut rest)?)).ok()?;
    let sum = u32::from_le_bytes(*take(&mut rest)?);
    let (body, behind) = rest.split_at_checked(length)?;
    let mut crc = flate2::Crc::new();
    crc.update(body);
    (magic == MAGIC && crc.sum() == sum).then_some((number, body, behind))
}

fn read_statement<'a>(body: &mut &'a [u8], sql: &mut Vec<&'a str>) -> Option<Redo<'a>> {
    let number = usize::from(u16::from_le_bytes(*take(body)?));
    if number == sql.len() {
        sql.push(std::str::from_utf8(take_bytes(body)?).ok()?);
    }
    let [count] = *take(body)?;
    let values = (0..count).map(|_| take_value(body)).collect::<Option<Vec<_>>>()?;
    Some(Redo { sql: sql.get(number)?, values })
}

fn put_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Integer(value) => {
            out.push(INTEGER);
            out.extend_from_slice(&value.to_le_bytes());
        }
        ValueRef::Real(value) => {
            out.push(REAL);
            out.extend_from_slice(&value.to_le_bytes());
        }
        ValueRef::Text(value) => {
            out.push(TEXT);
            put_bytes(out, value);
        }
        ValueRef::Blob(value) => {
            out.push(BLOB);
            put_bytes(out, value);
        }
    }
}

fn take_value(body: &mut &[u8]) -> Option<Value> {
    let [tag] = *take(body)?;
    Some(match tag {
        NULL => Value::Null,
        INTEGER => Value::Integer(i64::from_le_bytes(*take(body)?)),
        REAL => Value::Real(f64::from_le_bytes(*take(body)?)),
        TEXT => Value::Text(String::from_utf8(take_bytes(body)?.to_vec()).ok()?),
        BLOB => Value::Blob(take_bytes(body)?.to_vec()),
        _ => return None,
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // SQLite itself takes at most 1 GB.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(*take(body)?)).ok()?;
    let (bytes, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(bytes)
}

fn take<'a, const N: usize>(body: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "INSERT INTO a VALUES (?1)";
    const B: &str = "DELETE FROM b";

    fn contents(journal: &Journal, applied: u64) -> Vec<(String, Vec<Value>)> {
        let mut seen = Vec::new();
        let redo = |redo: Redo<'_>| -> io::Result<()> {
            seen.push((redo.sql.to_owned(), redo.values));
            Ok(())
        };
        journal.replay(applied, redo).unwrap();
        seen
    }

    fn group(journal: &mut Journal, value: i64) {
        journal.add(A, &[&value]).unwrap();
        journal.add(B, &[]).unwrap();
        journal.write().unwrap();
    }

    #[test]
    fn groups_are_read_back_with_their_sql_and_values() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        journal.add(A, &[&None::<i64>, &7i64, &1.5f64, &"text", &vec![1u8, 2]]).unwrap();
        journal.write().unwrap();
        group(&mut journal, 8);
        let journal = Journal::open(dir.path(), 0).unwrap();
        assert_eq!(journal.number(), 2);
        let seen = contents(&journal, 0);
        let values = vec![
            Value::Null,
            Value::Integer(7),
            Value::Real(1.5),
            Value::Text("text".into()),
            Value::Blob(vec![1, 2]),
        ];
        assert_eq!(seen[0], (A.to_owned(), values));
        assert_eq!((seen[1].1[0].clone(), seen[2].0.as_str(), seen.len()), (Value::Integer(8), B, 3));
        assert_eq!(contents(&journal, 1).len(), 2);
    }

    #[test]
    fn after_a_commit_the_file_starts_over_and_older_groups_behind_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        (1..=3).for_each(|value| group(&mut journal, value));
        journal.restart();
        group(&mut journal, 4);
        let journal = Journal::open(dir.path(), 3).unwrap();
        assert_eq!(journal.number(), 4);
        assert_eq!(contents(&journal, 3).len(), 2);
        assert_eq!(contents(&journal, 3)[0].1, [Value::Integer(4)]);
        assert_eq!(contents(&Journal::open(dir.path(), 4).unwrap(), 4).len(), 0);
    }

    #[test]
    fn a_torn_group_and_what_is_behind_it_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        group(&mut journal, 1);
        let good = journal.used();
        group(&mut journal, 2);
        for at in good..journal.used() {
            let mut byte = [0];
            journal.file.read_exact_at(&mut byte, at as u64).unwrap();
            journal.file.write_all_at(&[!byte[0]], at as u64).unwrap();
            let torn = Journal::open(dir.path(), 0).unwrap();
            assert_eq!((torn.number(), contents(&torn, 0).len()), (1, 2), "byte {at}");
            journal.file.write_all_at(&byte, at as u64).unwrap();
        }
    }

    #[test]
    fn a_journal_that_goes_on_from_a_newer_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 4).unwrap();
        group(&mut journal, 1);
        assert!(Journal::open(dir.path(), 3).is_err());
        assert!(Journal::open(dir.path(), 4).is_ok());
    }

    #[test]
    fn a_dropped_group_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        journal.add(A, &[&1i64]).unwrap();
        journal.drop_group();
        group(&mut journal, 2);
        journal.write().unwrap();
        let journal = Journal::open(dir.path(), 0).unwrap();
        assert_eq!((journal.number(), contents(&journal, 0).len()), (1, 2));
    }
}
