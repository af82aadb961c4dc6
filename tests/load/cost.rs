//! CPU time and memory of a process, from `/proc`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What some work cost one process.
pub struct Cost {
    pub cpu: Duration,
    pub wall: Duration,
    /// Pieces of work.
    pub count: usize,
}

/// A measurement under way.
pub struct Started {
    pid: u32,
    read: fn(u32) -> Duration,
    cpu: Duration,
    at: Instant,
}

impl Cost {
    /// Starts to measure; also counts threads that end meanwhile. Resolution: 10 ms.
    pub fn of(pid: u32) -> Started {
        Self::started(pid, cpu_time)
    }

    /// Starts to measure a process whose threads stay. Resolution: nanoseconds.
    pub fn of_living(pid: u32) -> Started {
        Self::started(pid, |pid| cpu_time_of_threads(pid, ""))
    }

    /// Measures a process from its birth.
    pub fn since_start(pid: u32) -> Started {
        Started { pid, read: cpu_time, cpu: Duration::ZERO, at: Instant::now() }
    }

    fn started(pid: u32, read: fn(u32) -> Duration) -> Started {
        Started { pid, read, cpu: read(pid), at: Instant::now() }
    }
}

impl Started {
    pub fn until_now(self, count: usize) -> Cost {
        let cpu = (self.read)(self.pid).saturating_sub(self.cpu);
        Cost { cpu, wall: self.at.elapsed(), count }
    }

    /// Time so far.
    pub fn wall(&self) -> Duration {
        self.at.elapsed()
    }

    /// Waits until the process rests, so that what the work left to do is in its cost.
    pub fn until_quiet(self, wall: Duration, count: usize) -> Cost {
        let mut before = (self.read)(self.pid);
        loop {
            thread::sleep(QUIET);
            let now = (self.read)(self.pid);
            if now.saturating_sub(before) <= QUIET / 10 {
                return Cost { cpu: now.saturating_sub(self.cpu), wall, count };
            }
            before = now;
        }
    }
}

const QUIET: Duration = Duration::from_millis(300);

/// CPU time per piece of work, in microseconds.
pub fn micros(cost: &Cost) -> f64 {
    cost.cpu.as_secs_f64() * 1e6 / cost.count as f64
}

/// User and system time of the whole process, ended threads included.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: u64 =
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// `sysconf(_SC_CLK_TCK)`: 100 on every Linux that Rust's standard library supports.
const TICKS_PER_SECOND: u64 = 100;

/// Time on the CPU of all threads that live now and have a name that begins so.
pub fn cpu_time_of_threads(pid: u32, prefix: &str) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let nanos = threads.filter_map(|thread| {
        let thread = thread.ok()?.path();
        fs::read_to_string(thread.join("comm")).ok().filter(|name| name.starts_with(prefix))?;
        fs::read_to_string(thread.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Resident memory of a process.
pub fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Times that threads which live now went to sleep or were put aside.
pub fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let counts = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.trim().rsplit(' ').next()?.parse::<u64>().ok()
    });
    counts.sum()
}
