//! Keys of a session's objects.
//!
//! ```text
//! sessions/<id>/lease.json                     who owns the session
//! sessions/<id>/session-data.json              what it is
//! sessions/<id>/auth_info_baileys/<name>       keys and ratchets, in Baileys' files
//! sessions/<id>/messages/YYYY-MM-DD[.N].json   history, part N of a UTC day; the first part has no number
//! media/<id>/…                                 files of messages
//! temp/…                                       swept
//! quarantine/<key>.<hash>                      copies of objects that could not be read
//! ```

use jiff::{Timestamp, civil::Date};
use sha2::{Digest as _, Sha256};

use crate::storage::local::DayPart;

/// Everything stored of sessions.
pub(super) const SESSIONS: &str = "sessions/";
/// Short-lived objects.
pub(super) const TEMP: &str = "temp/";
/// Name of the file without which there is no account.
pub(super) const CREDS: &str = "creds.json";
const DAY_S: i64 = 86_400;

pub(super) fn session(id: &str) -> String {
    format!("{SESSIONS}{id}/")
}

pub(super) fn lease(id: &str) -> String {
    format!("{SESSIONS}{id}/lease.json")
}

pub(super) fn data(id: &str) -> String {
    format!("{SESSIONS}{id}/session-data.json")
}

/// Folder of Baileys' files.
pub(super) fn auth(id: &str) -> String {
    format!("{SESSIONS}{id}/auth_info_baileys/")
}

/// Whether an object with this name directly below a session may be one of Baileys' files, of a worker that knew no
/// folders.
pub(super) fn is_flat_account(name: &str) -> bool {
    !name.contains('/') && !matches!(name, "lease.json" | "session-data.json")
}

/// Folder of the history.
pub(super) fn messages(id: &str) -> String {
    format!("{SESSIONS}{id}/messages/")
}

pub(super) fn media(id: &str) -> String {
    format!("media/{id}/")
}

/// Where a copy of an unreadable object goes: the same bytes always to the same place.
pub(super) fn quarantine(key: &str, bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let start: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("quarantine/{key}.{start}")
}

/// Folder of a session's copies of unreadable objects.
pub(super) fn quarantined(id: &str) -> String {
    format!("quarantine/{SESSIONS}{id}/")
}

pub(super) fn part(id: &str, DayPart { day, part }: DayPart) -> String {
    let folder = messages(id);
    let day = day_name(day);
    if part == 1 { format!("{folder}{day}.json") } else { format!("{folder}{day}.{part}.json") }
}

/// The part a file of the history's folder holds; `None` for a name of another kind.
pub(super) fn parse_part(name: &str) -> Option<DayPart> {
    let name = name.strip_suffix(".json")?;
    let (day, part) = match name.split_once('.') {
        Some((day, part)) => (day, part.parse().ok().filter(|part| *part > 1)?),
        None => (name, 1),
    };
    Some(DayPart { day: parse_day(day)?, part })
}

/// A time beyond the calendar came from a broken peer; its day has a number only.
fn day_name(day: i64) -> String {
    let midnight = Timestamp::from_second(day.saturating_mul(DAY_S));
    match midnight {
        Ok(midnight) => midnight.strftime("%Y-%m-%d").to_string(),
        Err(_) => format!("day-{day}"),
    }
}

fn parse_day(name: &str) -> Option<i64> {
    if let Some(day) = name.strip_prefix("day-") {
        return day.parse().ok();
    }
    let date: Date = name.parse().ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(midnight.as_second().div_euclid(DAY_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_days_have_the_names_of_the_layout_and_are_found_by_them() {
        let first = DayPart { day: 19_737, part: 1 };
        assert_eq!(part("a", first), "sessions/a/messages/2024-01-15.json");
        let third = DayPart { day: 19_737, part: 3 };
        assert_eq!(part("a", third), "sessions/a/messages/2024-01-15.3.json");
        for wanted in [first, third, DayPart { day: i64::MAX >> 41, part: 2 }] {
            let key = part("a", wanted);
            assert_eq!(parse_part(key.rsplit_once('/').unwrap().1), Some(wanted), "{key}");
        }
        for other in ["2024-01-15.1.json", "2024-01-15.x.json", "2024-01-15", "notes.json", "2024-13-01.json"]
        {
            assert_eq!(parse_part(other), None, "{other}");
        }
    }
}
