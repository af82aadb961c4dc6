//! Days of history in parts: which part a message is filed in, and how full the parts are.
//!
//! An object is written as a whole, so a day that grows would cost more with every message. A day is therefore cut
//! into parts by order of arrival; a full part is never added to again, only statuses of its messages change.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, params};

use super::apply::{Applier, Known, Result, SORT_BITS};

/// Messages in a part, …
const PART_MESSAGES: i64 = 200;
/// … or bytes of texts and raw messages in it, whatever comes first.
const PART_BYTES: i64 = 256 << 10;
/// Days of a session whose open part is remembered.
const DAYS_KNOWN: usize = 4;
const DAY_S: i64 = 86_400;
/// Stands in the journal where [`Applier::settle_parts`] was called.
pub(super) const SETTLE: &str = "-- the counts of parts are written";

/// One part of a day of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PartKey {
    pub(super) session: i64,
    /// Days since 1970, UTC.
    pub(super) day: i64,
    pub(super) part: i64,
}

/// The part of a day that new messages go to.
pub(super) struct CurrentPart {
    day: i64,
    part: i64,
    messages: i64,
    bytes: i64,
}

/// What was added to a part.
pub(super) struct PartCount {
    messages: i64,
    bytes: i64,
    first_sort: i64,
    last_sort: i64,
}

impl PartKey {
    /// The day of a message's sort key.
    pub(super) fn day_of(sort: i64) -> i64 {
        (sort >> SORT_BITS) / DAY_S
    }

    /// The moment of a sort key, Unix seconds.
    pub(super) fn second_of(sort: i64) -> i64 {
        sort >> SORT_BITS
    }

    /// The day of a moment (Unix seconds).
    pub(super) fn day_of_second(second: i64) -> i64 {
        second.clamp(0, i64::MAX >> (SORT_BITS + 1)) / DAY_S
    }

    /// Sort keys of a day: from the first up to, and without, the second.
    pub(super) fn sorts_of(day: i64) -> (i64, i64) {
        let first = |day: i64| day.saturating_mul(DAY_S << SORT_BITS);
        (first(day), first(day.saturating_add(1)))
    }

    /// What [`fmt::Display`] wrote.
    pub(super) fn parse(session: i64, text: &str) -> Option<Self> {
        let (day, part) = text.split_once('.')?;
        Some(Self { session, day: day.parse().ok()?, part: part.parse().ok()? })
    }
}

impl fmt::Display for PartKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.day, self.part)
    }
}

impl CurrentPart {
    fn is_full(&self) -> bool {
        self.messages >= PART_MESSAGES || self.bytes >= PART_BYTES
    }
}

impl Known {
    /// A message was added to a part.
    pub(super) fn file(&mut self, key: PartKey, sort: i64, bytes: i64) {
        let count = self.part_counts.entry(key).or_insert(PartCount {
            messages: 0,
            bytes: 0,
            first_sort: sort,
            last_sort: sort,
        });
        count.messages += 1;
        count.bytes += bytes;
        count.first_sort = count.first_sort.min(sort);
        count.last_sort = count.last_sort.max(sort);
        if let Some(known) = self.known_session(key.session)
            && let Some(current) =
                known.days.iter_mut().find(|known| known.day == key.day && known.part == key.part)
        {
            current.messages += 1;
            current.bytes += bytes;
        }
    }
}

impl Applier<'_> {
    /// The part that takes the next message of this moment.
    pub(super) fn open_part(&mut self, session: i64, timestamp_s: i64) -> Result<PartKey> {
        let day = PartKey::day_of_second(timestamp_s);
        let known = self.session(session)?;
        let found = known.days.iter().position(|known| known.day == day);
        let mut current = match found {
            Some(index) => known.days.swap_remove(index),
            None => self.last_part(session, day)?,
        };
        if current.is_full() {
            current = CurrentPart { day, part: current.part + 1, messages: 0, bytes: 0 };
        }
        let part = current.part;
        let known = self.session(session)?;
        if known.days.len() >= DAYS_KNOWN {
            known.days.remove(0);
        }
        known.days.push(current);
        Ok(PartKey { session, day, part })
    }

    /// The last part of a day as the database and the uncommitted counts have it.
    fn last_part(&self, session: i64, day: i64) -> Result<CurrentPart> {
        let stored: Option<(i64, i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT part, messages, bytes FROM day_parts WHERE session = ?1 AND day = ?2
                 ORDER BY part DESC LIMIT 1",
            )?
            .query_row(params![session, day], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let (part, messages, bytes) = stored.unwrap_or((1, 0, 0));
        let mut last = CurrentPart { day, part: part.max(1), messages, bytes };
        let mut new: Vec<_> = self
            .known
            .part_counts
            .iter()
            .filter(|(key, _)| key.session == session && key.day == day && key.part >= last.part)
            .collect();
        new.sort_by_key(|(key, _)| key.part);
        for (key, count) in new {
            if key.part > last.part {
                last = CurrentPart { day, part: key.part, messages: 0, bytes: 0 };
            }
            last.messages += count.messages;
            last.bytes += count.bytes;
        }
        Ok(last)
    }

    /// Counts a part anew from its messages, by one statement that a replay of the journal repeats.
    pub(super) fn count_part(&mut self, key: PartKey) -> Result<()> {
        let (first, end) = PartKey::sorts_of(key.day);
        self.run(
            "INSERT INTO day_parts (session, day, part, messages, bytes, first_sort, last_sort)
             SELECT ?1, ?2, ?3, count(*), sum(length(raw) + length(content)), min(sort), max(sort)
             FROM messages WHERE session = ?1 AND sort >= ?4 AND sort < ?5 AND part = ?3 HAVING count(*) > 0
             ON CONFLICT DO UPDATE SET messages = excluded.messages, bytes = excluded.bytes,
                 first_sort = excluded.first_sort, last_sort = excluded.last_sort",
            params![key.session, key.day, key.part, first, end],
        )?;
        Ok(())
    }

    /// Writes the collected counts now, before statements that read or replace them; a replay does the same.
    pub(super) fn settle_parts(&mut self) -> Result<()> {
        seal_parts(self.conn, self.known)?;
        self.journal.borrow_mut().add(SETTLE, &[])?;
        Ok(())
    }
}

/// Writes the collected counts of parts.
pub(super) fn seal_parts(conn: &Connection, known: &mut Known) -> rusqlite::Result<()> {
    for (key, count) in std::mem::take(&mut known.part_counts) {
        conn.prepare_cached(
            "INSERT INTO day_parts (session, day, part, messages, bytes, first_sort, last_sort)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT DO UPDATE SET messages = messages + excluded.messages,
                         bytes = bytes + excluded.bytes, first_sort = min(first_sort, excluded.first_sort),
                         last_sort = max(last_sort, excluded.last_sort)",
        )?
        .execute(params![
            key.session,
            key.day,
            key.part,
            count.messages,
            count.bytes,
            count.first_sort,
            count.last_sort
        ])?;
    }
    Ok(())
}
