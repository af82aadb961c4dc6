//! Times of the REST contract: RFC 3339 in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// `2024-01-15T10:30:00Z` for Unix seconds.
pub(super) fn from_seconds(seconds: u64) -> String {
    text(i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()))
}

/// `2024-01-15T10:30:00.25Z` for Unix milliseconds; whole seconds have no fraction.
pub(super) fn from_millis(millis: u64) -> String {
    text(i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()))
}

/// Unix milliseconds now.
pub(super) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads RFC 3339 or Unix seconds; gives Unix seconds.
pub(super) fn parse(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let stamp: Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_second()).ok()
}

/// A time beyond the calendar (year 9999) came from a broken peer; it is shown as the epoch, not as an error.
fn text(stamp: Option<Timestamp>) -> String {
    stamp.unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_the_guide_and_read_in_both_forms() {
        assert_eq!(from_seconds(1_705_314_600), "2024-01-15T10:30:00Z");
        assert_eq!(from_millis(1_705_314_600_250), "2024-01-15T10:30:00.25Z");
        assert_eq!(from_seconds(u64::MAX), "1970-01-01T00:00:00Z");
        assert_eq!(parse("1705314600"), Some(1_705_314_600));
        assert_eq!(parse("2024-01-15T10:30:00Z"), Some(1_705_314_600));
        assert_eq!(parse("2024-01-15T17:30:00+07:00"), Some(1_705_314_600));
        for bad in ["", "-1", "yesterday", "2024-01-15", "1705314600.5", "1960-01-01T00:00:00Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
