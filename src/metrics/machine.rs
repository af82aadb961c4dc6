//! How busy the machine is, for `/health` and for heartbeats; by sysinfo.
//!
//! Both figures are about the machine, not about this process: a gateway that spreads sessions over workers wants
//! to know which machine has room. Where a control group limits memory (a container, `MemoryMax=`), memory is
//! measured against that limit. The figures of the process are in `GET /metrics`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Measures the machine. CPU use is measured between calls.
pub(crate) struct Load {
    last: Mutex<Sample>,
}

struct Sample {
    at: Instant,
    /// `None` where sysinfo knows nothing of the system; all figures are zero then.
    system: Option<System>,
    cpu_percent: f64,
}

impl Load {
    /// Begins to measure.
    pub(crate) fn start() -> Self {
        let what = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing().with_usage());
        let system = System::new_with_specifics(what).ok();
        Self { last: Mutex::new(Sample { at: Instant::now(), system, cpu_percent: 0.0 }) }
    }

    /// Share of the machine's CPU time in use since the last measurement, which is at least a second old;
    /// 0 to 100 with one decimal.
    pub(crate) fn cpu_percent(&self) -> f64 {
        let mut last = self.lock();
        // A shorter time gives noise: a tick is 10 ms.
        if last.at.elapsed() >= MIN_SPAN {
            last.at = Instant::now();
            last.cpu_percent = last.system.as_mut().map_or(0.0, |system| {
                system.refresh_cpu_usage();
                one_decimal(f64::from(system.global_cpu_usage()))
            });
        }
        last.cpu_percent
    }

    /// Share of the machine's memory in use (of the control group's limit when that is lower); 0 to 100, one decimal.
    pub(crate) fn memory_percent(&self) -> f64 {
        self.lock().system.as_mut().map_or(0.0, |system| {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            let total = system.total_memory();
            let of_machine = (total.saturating_sub(system.available_memory()), total);
            let limited = system.cgroup_limits().filter(|limits| limits.total_memory < total);
            let (used, total) = limited.map_or(of_machine, |limits| {
                (limits.total_memory.saturating_sub(limits.free_memory), limits.total_memory)
            });
            percent(used, total)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Sample> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with one decimal needs no more than 52 bits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { one_decimal(part as f64 / whole as f64 * 100.0) }
}

/// 0 to 100, one decimal.
fn one_decimal(percent: f64) -> f64 {
    (percent * 10.0).round().clamp(0.0, 1000.0) / 10.0
}

/// Shortest time between two CPU measurements.
const MIN_SPAN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_one_decimal_and_bounds() {
        assert!((percent(750, 1000) - 75.0).abs() < f64::EPSILON);
        assert!((percent(1, 3) - 33.3).abs() < f64::EPSILON);
        assert!((percent(9, 3) - 100.0).abs() < f64::EPSILON);
        assert!(percent(1, 0).abs() < f64::EPSILON);
    }

    #[test]
    fn this_machine_uses_memory_and_after_a_second_of_work_cpu() {
        let load = Load::start();
        let memory = load.memory_percent();
        assert!(memory > 0.0 && memory < 100.0, "{memory}");
        assert!(load.cpu_percent().abs() < f64::EPSILON, "nothing is measured yet");
        let begun = Instant::now();
        while begun.elapsed() < MIN_SPAN + Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let cpu = load.cpu_percent();
        assert!(cpu > 0.0 && cpu <= 100.0, "{cpu}");
    }
}
