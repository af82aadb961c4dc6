//! What the machine gives: the state directory and its disk, open files, threads, memory.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};
use sysinfo::{MemoryRefreshKind, System};

use super::report::Finding;
use crate::{config::Config, storage::local::is_locked, worker};

/// All checks. `of_service`: the limits are those of the service's unit, not of this shell.
pub(super) fn check(config: &Config, of_service: bool) -> Vec<Finding> {
    let mut findings = vec![state_dir(&config.state_dir)];
    findings.extend(disk(&config.state_dir));
    let unit = of_service.then(unit_limits);
    findings.push(open_files(config, unit.as_ref()));
    findings.extend(threads(config, unit.as_ref()));
    findings.extend(memory(config));
    findings
}

fn state_dir(dir: &Path) -> Finding {
    const NAME: &str = "state directory";
    let shown = dir.display();
    let Ok(meta) = fs::metadata(dir) else {
        let parent = existing_parent(dir);
        return match tempfile_in(&parent) {
            Ok(()) => Finding::ok(NAME, format!("{shown} will be made at the first start")),
            Err(error) => Finding::fail(
                NAME,
                format!("{shown} does not exist and cannot be made in {}: {error}", parent.display()),
                "make it, for the worker's user alone, or set STATE_DIR",
            ),
        };
    };
    if !meta.is_dir() {
        return Finding::fail(NAME, format!("{shown} is not a directory"), "set STATE_DIR to another path");
    }
    if let Err(error) = tempfile_in(dir) {
        let advice = format!("run as the owner of it (uid {}), or hand it to the worker's user", meta.uid());
        return Finding::fail(NAME, format!("{shown} cannot be written: {error}"), advice);
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let finding = format!("{shown} holds keys and is open to others (mode {mode:o})");
        return Finding::warn(NAME, finding, format!("chmod 700 {shown}"));
    }
    match is_locked(dir) {
        Ok(true) => Finding::ok(NAME, format!("{shown}, in use by a running worker")),
        Ok(false) => Finding::ok(NAME, format!("{shown}, not in use")),
        Err(error) => Finding::fail(
            NAME,
            format!("{shown}: the lock file cannot be opened: {error}"),
            "hand everything in it to the worker's user",
        ),
    }
}

/// The directory itself or the nearest one above it that exists.
fn existing_parent(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Writes a file and removes it.
pub(super) fn tempfile_in(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let written =
        fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|file| file.sync_all());
    let _ = fs::remove_file(&path);
    written
}

fn disk(dir: &Path) -> Vec<Finding> {
    let dir = existing_parent(dir);
    let stat = match statvfs(&dir) {
        Ok(stat) => stat,
        Err(error) => {
            let finding = format!("{} cannot be measured: {error}", dir.display());
            return vec![Finding::warn("disk", finding, "look at the file system")];
        }
    };
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    let total_mib = stat.f_blocks.saturating_mul(stat.f_frsize) >> 20;
    let finding = format!("{free_mib} MiB of {total_mib} MiB free below {}", dir.display());
    let mut findings = vec![match free_mib {
        0..MIN_FREE_MIB => {
            Finding::fail("disk", finding, "free some space: writes are refused when it is full")
        }
        MIN_FREE_MIB..LOW_FREE_MIB => Finding::warn("disk", finding, "free some space, or give it more"),
        _ => Finding::ok("disk", finding),
    }];
    // Some file systems (btrfs) make inodes as they need them and say 0.
    if stat.f_files > 0 && stat.f_favail < MIN_INODES {
        let finding = format!("{} of {} inodes free below {}", stat.f_favail, stat.f_files, dir.display());
        findings.push(Finding::fail(
            "disk",
            finding,
            "remove small files, or make a file system with more inodes",
        ));
    }
    findings
}

/// Limits of the service, as far as systemd tells them.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitLimits {
    open_files: Option<u64>,
    tasks: Option<u64>,
}

fn unit_limits() -> UnitLimits {
    let asked = Command::new("systemctl")
        .args(["show", "whatsapp-worker.service", "--property=LimitNOFILE,TasksMax"])
        .output();
    asked.map_or_else(
        |_| UnitLimits::default(),
        |output| parse_limits(&String::from_utf8_lossy(&output.stdout)),
    )
}

/// `Name=number` lines; `infinity` is no limit.
fn parse_limits(text: &str) -> UnitLimits {
    let limit = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        if value == "infinity" { Some(u64::MAX) } else { value.parse().ok() }
    };
    UnitLimits { open_files: limit("LimitNOFILE"), tasks: limit("TasksMax") }
}

fn open_files(config: &Config, unit: Option<&UnitLimits>) -> Finding {
    const NAME: &str = "open files";
    let wanted = worker::descriptors_wanted(config) as u64;
    // The worker raises the soft limit by itself.
    let of_shell = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let allowed = unit.and_then(|unit| unit.open_files).unwrap_or(of_shell);
    let finding = format!("{allowed} allowed, up to {wanted} needed for {} sessions", config.max_sessions);
    if allowed < wanted {
        return Finding::warn(
            NAME,
            finding,
            "raise LimitNOFILE= (`systemctl edit whatsapp-worker`; without systemd `ulimit -Hn`), or lower WORKER_MAX_SESSIONS or WORKER_HTTP_MAX_CONNECTIONS",
        );
    }
    Finding::ok(NAME, finding)
}

fn threads(config: &Config, unit: Option<&UnitLimits>) -> Vec<Finding> {
    const NAME: &str = "threads";
    let wanted = worker::threads_wanted(config) as u64;
    let of_process = match unit {
        None => [
            ("RLIMIT_NPROC (ulimit -u)".to_owned(), getrlimit(Resource::Nproc).current),
            ("TasksMax= of the control group".to_owned(), pids_max()),
        ],
        Some(unit) => [("TasksMax= of the service".to_owned(), unit.tasks), (String::new(), None)],
    };
    let of_machine = [
        ("/proc/sys/kernel/threads-max".to_owned(), read_number("/proc/sys/kernel/threads-max")),
        ("/proc/sys/kernel/pid_max".to_owned(), read_number("/proc/sys/kernel/pid_max")),
    ];
    let lowest =
        of_machine.into_iter().chain(of_process).filter_map(|(name, limit)| Some((limit?, name))).min();
    let Some((allowed, name)) = lowest else { return Vec::new() };
    let finding = format!("{allowed} allowed, up to {wanted} needed for {} sessions", config.max_sessions);
    vec![if allowed < wanted {
        Finding::warn(NAME, finding, format!("raise {name}, or lower WORKER_MAX_SESSIONS"))
    } else {
        Finding::ok(NAME, finding)
    }]
}

/// The limit of the control group this process is in, where it has one.
fn pids_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let base = match controllers {
            "" => "/sys/fs/cgroup",
            "pids" => "/sys/fs/cgroup/pids",
            _ => return None,
        };
        read_number(&format!("{base}{path}/pids.max"))
    })
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn memory(config: &Config) -> Option<Finding> {
    const NAME: &str = "memory";
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let limit = system.cgroup_limits().map(|limits| (limits.free_memory, limits.total_memory));
    let of_machine = (system.available_memory(), system.total_memory());
    let (free, total) = limit.filter(|(_, total)| *total < of_machine.1).unwrap_or(of_machine);
    let wanted_mib = BASE_MIB + config.max_sessions as u64 * KIB_PER_SESSION / 1024;
    let (free_mib, total_mib) = (free >> 20, total >> 20);
    let finding = format!(
        "{free_mib} MiB of {total_mib} MiB free, about {wanted_mib} MiB needed for {} sessions",
        config.max_sessions
    );
    Some(if total_mib < wanted_mib {
        Finding::fail(NAME, finding, "lower WORKER_MAX_SESSIONS, or use a larger machine")
    } else if free_mib < wanted_mib {
        Finding::warn(NAME, finding, "stop something else, or lower WORKER_MAX_SESSIONS")
    } else {
        Finding::ok(NAME, finding)
    })
}

/// Less than this and a busy worker may stop within minutes: the journal alone takes 8 MiB.
const MIN_FREE_MIB: u64 = 64;
/// Less than this lasts for days, not for weeks.
const LOW_FREE_MIB: u64 = 1024;
/// The object directory makes a file per key.
const MIN_INODES: u64 = 1000;
/// A worker without sessions, with room for caches.
const BASE_MIB: u64 = 64;
/// A session that talks: engine, caches and TLS buffers above the 80 KiB of an idle one.
const KIB_PER_SESSION: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn a_state_directory_that_others_can_read_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let found = state_dir(dir.path());
        assert_eq!(found.verdict, Verdict::Warn, "{found:?}");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(state_dir(dir.path()).finding.ends_with("not in use"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_state_directory_in_use_is_fine_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let store = crate::storage::local::LocalStore::open(dir.path()).unwrap();
        let found = state_dir(dir.path());
        assert_eq!(found.verdict, Verdict::Ok);
        assert!(found.finding.ends_with("in use by a running worker"), "{found:?}");
        drop(store);
        assert!(state_dir(dir.path()).finding.ends_with("not in use"));
    }

    #[test]
    fn limits_of_the_unit_are_read_as_systemctl_shows_them() {
        let limits = parse_limits("TasksMax=8192\nLimitNOFILE=infinity\n");
        assert_eq!(limits, UnitLimits { open_files: Some(u64::MAX), tasks: Some(8192) });
        assert_eq!(parse_limits("no such unit"), UnitLimits::default());
    }

    #[test]
    fn a_missing_state_directory_is_fine_where_it_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(state_dir(&dir.path().join("a/b")).verdict, Verdict::Ok);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(state_dir(&file).verdict, Verdict::Fail);
        assert_eq!(state_dir(Path::new("/proc/nothing/here")).verdict, Verdict::Fail);
    }

    #[test]
    fn limits_are_compared_with_what_the_sessions_need() {
        let of = |sessions: &str| {
            let vars = [("WORKER_MAX_SESSIONS".to_owned(), sessions.to_owned())];
            Config::from_env(vars).unwrap().0
        };
        assert!(worker::threads_wanted(&of("5000")) >= worker::threads_wanted(&of("50")) + 4950);
        let narrow = UnitLimits { open_files: Some(1024), tasks: Some(100) };
        assert_eq!(open_files(&of("50"), Some(&narrow)).verdict, Verdict::Warn);
        assert!(threads(&of("50"), Some(&narrow))[0].finding.starts_with("100 allowed"));
        let found = threads(&of("50"), None);
        assert!(found.iter().all(|finding| finding.finding.contains("for 50 sessions")), "{found:?}");
        let found = memory(&of("5000")).unwrap();
        assert!(found.finding.contains("about 2564 MiB needed"), "{found:?}");
    }
}
