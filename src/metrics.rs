//! How busy the machine is, for `/health`.
//!
//! Both figures are about the machine, not about this process: a gateway that spreads sessions over workers wants
//! to know which machine has room. In a container with a memory limit, memory is measured against that limit.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Measures CPU use between calls.
pub(crate) struct Load {
    last: Mutex<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    times: CpuTimes,
    percent: f64,
}

/// Clock ticks of all CPUs since boot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct CpuTimes {
    total: u64,
    idle: u64,
}

impl Load {
    /// Begins to measure.
    pub(crate) fn start() -> Self {
        let sample = Sample { at: Instant::now(), times: cpu_times(), percent: 0.0 };
        Self { last: Mutex::new(sample) }
    }

    /// Share of the machine's CPU time in use since the last measurement, which is at least a second old;
    /// 0 to 100 with one decimal.
    pub(crate) fn cpu_percent(&self) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A shorter time gives noise: a tick is 10 ms.
        if last.at.elapsed() >= MIN_SPAN {
            let times = cpu_times();
            *last = Sample { at: Instant::now(), times, percent: busy_percent(last.times, times) };
        }
        last.percent
    }
}

/// Share of the machine's memory in use (of the container's limit when that is lower); 0 to 100, one decimal.
pub(crate) fn memory_percent() -> f64 {
    let of_machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text));
    let of_container =
        read_number("/sys/fs/cgroup/memory.max").zip(read_number("/sys/fs/cgroup/memory.current"));
    match (of_machine, of_container) {
        (Some((total, _)), Some((limit, used))) if limit < total => percent(used, limit),
        (Some((total, available)), _) => percent(total.saturating_sub(available), total),
        (None, _) => 0.0,
    }
}

fn cpu_times() -> CpuTimes {
    fs::read_to_string("/proc/stat").ok().and_then(|text| parse_stat(&text)).unwrap_or_default()
}

/// First line of `/proc/stat`: `cpu user nice system idle iowait irq softirq steal …`. Guest time is part of user.
fn parse_stat(text: &str) -> Option<CpuTimes> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
    Some(CpuTimes { total: ticks.iter().sum(), idle: ticks.get(3)? + ticks.get(4).unwrap_or(&0) })
}

/// Bytes in total and available.
fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn busy_percent(from: CpuTimes, to: CpuTimes) -> f64 {
    let total = to.total.saturating_sub(from.total);
    let idle = to.idle.saturating_sub(from.idle);
    percent(total.saturating_sub(idle), total)
}

/// 0 to 100, one decimal.
#[expect(clippy::cast_precision_loss, reason = "a percentage with one decimal needs no more than 52 bits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64 * 1000.0).round().clamp(0.0, 1000.0) / 10.0
}

/// Shortest time between two CPU measurements.
const MIN_SPAN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_busy_over_total_between_two_samples() {
        let before = parse_stat("cpu  100 0 100 700 100 0 0 0 5 0\ncpu0 1 2").unwrap();
        assert_eq!(before, CpuTimes { total: 1000, idle: 800 });
        let after = CpuTimes { total: 1400, idle: 1100 };
        assert!((busy_percent(before, after) - 25.0).abs() < f64::EPSILON);
        assert!(busy_percent(after, after).abs() < f64::EPSILON);
        assert_eq!(parse_stat("cpu"), None);
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let text = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    250 kB\n";
        assert_eq!(parse_meminfo(text), Some((1_024_000, 256_000)));
        assert!((percent(750, 1000) - 75.0).abs() < f64::EPSILON);
        assert!(memory_percent() > 0.0, "this machine has memory in use");
    }
}
