//! Figures of this very process, from `/proc/self`.
//!
//! Read directly and not through sysinfo: that counts threads by reading the files of each one, which a process with
//! a thread per session does not want at every scrape. Three small files say it all.

use std::fs;

/// This process at one moment. Zero where `/proc` is not readable.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessStats {
    /// User and system time since the start, seconds.
    pub(crate) cpu_seconds: f64,
    /// Memory in RAM.
    pub(crate) resident_bytes: u64,
    /// Running threads.
    pub(crate) threads: u64,
    /// Open file descriptors.
    pub(crate) open_fds: u64,
    /// Most file descriptors allowed.
    pub(crate) max_fds: u64,
    /// Start of the process, Unix seconds.
    pub(crate) start_unix_s: f64,
}

impl ProcessStats {
    /// Measures now.
    pub(crate) fn measure() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (cpu_ticks, start_ticks) = stat.unwrap_or_default();
        Self {
            cpu_seconds: seconds(cpu_ticks),
            resident_bytes: field(&status, "VmRSS:").unwrap_or(0) * 1024,
            threads: field(&status, "Threads:").unwrap_or(0),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(u64::MAX),
            start_unix_s: boot_unix_s().map_or(0.0, |boot| boot + seconds(start_ticks)),
        }
    }
}

/// `(utime + stime, starttime)` in clock ticks, fields 14, 15 and 22 of `proc(5)`. The second field is a name in
/// parentheses that may hold anything.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
    let user = fields.nth(11)?;
    let system = fields.next()?;
    Some((user + system, fields.nth(6)?))
}

/// The number behind `name` in a file of `name value` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn boot_unix_s() -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 need 31 bits")]
    field(&fs::read_to_string("/proc/stat").ok()?, "btime").map(|boot| boot as f64)
}

#[expect(clippy::cast_precision_loss, reason = "52 bits of ticks are more than a million years")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_that_looks_like_fields() {
        let text = "7 (a) 1 2) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 4321 1 2\n";
        assert_eq!(parse_stat(text), Some((200, 4321)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_threads_memory_and_a_past() {
        let now = ProcessStats::measure();
        assert!(now.threads >= 1 && now.resident_bytes > 1 << 20, "{now:?}");
        assert!(now.open_fds >= 3 && now.open_fds <= now.max_fds, "{now:?}");
        assert!(now.start_unix_s > 1_600_000_000.0, "{now:?}");
    }
}
