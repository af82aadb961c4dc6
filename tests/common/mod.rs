//! The real program, the real sandbox and the real Baileys as processes, for tests that see them from outside.
//!
//! Every test starts its own: free ports, folders of its own, so tests run side by side and in any order. What was
//! started is killed when the test ends, however it ends; a test that fails shows the end of their logs.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part of this")]

pub mod backend;
pub mod baileys;
pub mod buckets;
pub mod durable;
pub mod metrics;
pub mod objects;
pub mod proxy;
pub mod sandbox;
pub mod worker;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Generous: the slowest machine this runs on has two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`]; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A child process whose standard error goes to a file. Killed when dropped.
pub struct Process {
    pub child: Child,
    pub log_file: PathBuf,
}

impl Process {
    /// # Panics
    /// When the program cannot be started.
    pub fn start(command: &mut Command, log_file: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log_file).unwrap();
        let child = command
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", command.get_program().display()));
        Self { child, log_file: log_file.to_owned() }
    }

    /// Everything the process said on standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_file).unwrap()).into_owned()
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        eventually("the process ends after SIGTERM", || self.child.try_wait().unwrap())
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Takes the lines of standard output as they come.
    pub fn lines(&mut self) -> Lines {
        let output = self.child.stdout.take().expect("standard output is piped");
        let lines = Lines::default();
        let kept = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                kept.lock().push(line);
            }
        });
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("--- end of {}\n{}", self.log_file.display(), lines[tail..].join("\n"));
        }
    }
}

const SHOWN_LINES: usize = 40;

/// Lines a process has written so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One HTTP exchange with a JSON body: status and JSON of the answer.
///
/// # Errors
/// When there is no whole answer, as from a process that was killed.
pub fn exchange(method: &str, url: &str, body: Option<&Value>) -> Result<(u16, Value), ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut response = match (method, body) {
        ("GET", _) => agent.get(url).call(),
        ("DELETE", _) => agent.delete(url).call(),
        (_, Some(body)) => agent.post(url).send_json(body),
        (_, None) => agent.post(url).send_empty(),
    }?;
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
    let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((response.status().as_u16(), json))
}

/// Waits until there are as many texts as expected; then they must be these, in this order.
///
/// # Panics
/// When they are not, or not within [`PATIENCE`].
pub fn await_texts(place: &str, expected: &[String], mut read: impl FnMut() -> Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = read();
        if got.len() >= expected.len() || Instant::now() > deadline {
            assert_eq!(got, expected, "{place}");
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Texts `1…count` of a conversation.
pub fn texts(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix} {number}")).collect()
}
