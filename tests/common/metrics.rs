//! What `GET /metrics` says, read by Prometheus' own tool and by a small reader for questions of ours.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{eventually, worker::Worker};

/// The samples of one answer.
pub struct Metrics {
    pub text: String,
}

impl Metrics {
    pub fn of(worker: &Worker) -> Self {
        let (status, body) = worker.ask("GET", "/metrics", None);
        assert_eq!(status, 200, "{body}");
        Self { text: body.as_str().expect("text, not JSON").to_owned() }
    }

    /// The value of the sample with exactly this name and these labels, as in `name{a="b"}`; 0 when there is none.
    pub fn value(&self, sample: &str) -> f64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap_or_else(|error| panic!("{sample} {value}: {error}")))
    }

    /// Names of all families.
    pub fn families(&self) -> BTreeSet<String> {
        let typed = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        typed.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }
}

/// Waits until a sample has reached a value.
///
/// # Panics
/// When it does not.
pub fn await_value(worker: &Worker, sample: &str, at_least: f64) -> Metrics {
    eventually(&format!("{sample} reaches {at_least}"), || {
        let metrics = Metrics::of(worker);
        (metrics.value(sample) >= at_least).then_some(metrics)
    })
}

/// Runs promtool in the root of the repository.
///
/// # Panics
/// When it finds fault; with what it says.
pub fn promtool(arguments: &[&str], input: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/tools/promtool/promtool");
    let mut child = Command::new(&program)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `tests/run --setup` puts it there", program.display()));
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(input.as_bytes())
        .expect("it reads all of it");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}\n{input}", String::from_utf8_lossy(&said));
}
