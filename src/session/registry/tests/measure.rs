//! Measurements, not tests: what an idle session costs. The sandbox runs in a process of its own.
//!
//! `MEASURE_SESSIONS=1000 cargo test --release --lib cost_of_idle -- --ignored --nocapture`

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command as Process, Stdio},
};

use super::*;

const ROLE: &str = "MEASURE_ROLE";
const DIR: &str = "MEASURE_DIR";
const SESSIONS: &str = "MEASURE_SESSIONS";
const LONG: Duration = Duration::from_secs(300);

#[test]
#[ignore = "a measurement: see the head of this file"]
fn cost_of_idle_sessions() {
    match std::env::var(ROLE).as_deref() {
        Ok("sandbox") => return be_sandbox(),
        Ok(_) => return be_worker(Path::new(&std::env::var_os(DIR).unwrap())),
        Err(_) => {}
    }
    let count: usize = std::env::var(SESSIONS).map_or(200, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut sandbox = Role::start("sandbox", dir.path());
    let info = sandbox.line();
    std::fs::write(dir.path().join("info.json"), &info).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    std::fs::write(dir.path().join("ca.pem"), info["ca"].as_str().unwrap()).unwrap();
    pair(&info, dir.path(), count);
    let mut worker = Role::start("worker", dir.path());
    while let Some(line) = worker.next_line() {
        println!("{line}");
    }
}

struct Role {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Role {
    fn start(role: &str, dir: &Path) -> Self {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args([
                "session::registry::tests::measure::cost_of_idle_sessions",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(ROLE, role)
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next_line(&mut self) -> Option<String> {
        self.lines.by_ref().map(Result::unwrap).find_map(|line| line.strip_prefix("> ").map(str::to_owned))
    }

    fn line(&mut self) -> String {
        self.next_line().expect("the process says something")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn be_sandbox() {
    let sandbox = Sandbox::start(SandboxOptions::default()).unwrap();
    let info = json!({
        "url": sandbox.whatsapp_url, "root": sandbox.noise_root.0, "ca": sandbox.ca_pem,
        "control": sandbox.control_url,
    });
    println!("> {info}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn registry(info: &Value, dir: &Path) -> Registry {
    let store = LocalStore::open(&dir.join("state")).unwrap();
    let root: Vec<u8> =
        info["root"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
    let settings = SessionSettings {
        url: info["url"].as_str().unwrap().into(),
        noise_root: PublicKey::from_slice(&root).unwrap(),
        ca_file: Some(dir.join("ca.pem")),
        proxy: None,
        version: [2, 3000, 1],
        device_name: "test".into(),
        max_sessions: 10_000,
    };
    Registry::open(store, settings).unwrap()
}

fn pair(info: &Value, dir: &Path, count: usize) {
    let registry = registry(info, dir);
    let (cpu, begun) = (cpu_s(), Instant::now());
    let post = |path: &str, body: Value| {
        let url = format!("{}{path}", info["control"].as_str().unwrap());
        ureq::post(&url).send_json(body).unwrap().body_mut().read_json::<Value>().unwrap()["data"].take()
    };
    let phones = post("/phones/bulk", json!({"count": count}));
    let phones: Vec<_> = phones.as_array().unwrap().iter().map(|phone| phone["phone"].clone()).collect();
    for chunk in (0..count).collect::<Vec<_>>().chunks(50) {
        let sessions: Vec<_> =
            chunk.iter().map(|n| registry.create(&format!("m{n}"), "user-1", None).unwrap().0).collect();
        sessions.iter().for_each(|session| session.connect().unwrap());
        let qr = |session: &SessionHandle| {
            let shown = session.wait_until(LONG, |shown| shown.qr.is_some());
            shown.qr.unwrap_or_else(|| panic!("{:?}", shown.error)).text
        };
        let codes: Vec<_> = sessions.iter().map(qr).collect();
        post("/scan-bulk", json!({"phones": phones[chunk[0]..=chunk[chunk.len() - 1]], "qrs": codes}));
        for session in &sessions {
            let shown =
                session.wait_until(LONG, |shown| shown.status == SessionStatus::Connected && shown.ready);
            assert!(shown.ready, "{:?}", shown.error);
        }
    }
    println!(
        "pairing: {:.1} ms CPU each (sessions and store), {:.1} s for all",
        (cpu_s() - cpu) * 1e3 / count as f64,
        begun.elapsed().as_secs_f64()
    );
    assert!(registry.shutdown(LONG).is_empty());
}

fn be_worker(dir: &Path) {
    let info = serde_json::from_str(&std::fs::read_to_string(dir.join("info.json")).unwrap()).unwrap();
    let registry = registry(&info, dir);
    let (before, cpu, begun) = (rss_kib(), cpu_s(), Instant::now());
    registry.start_all();
    let sessions = registry.all();
    for session in &sessions {
        let shown = session.wait_until(LONG, |shown| shown.ready);
        assert!(shown.ready, "{:?}", shown.error);
    }
    let count = sessions.len() as f64;
    println!("> {count} sessions logged in after {:.1} s", begun.elapsed().as_secs_f64());
    println!("> login: {:.2} ms CPU each", (cpu_s() - cpu) * 1e3 / count);
    println!("> resident: {:.1} KiB per session", (rss_kib() - before) / count);
    let (cpu, begun) = (cpu_s(), Instant::now());
    // Something must be waited for: nothing will come.
    assert!(!sessions[0].wait_event(u64::MAX - 1, Duration::from_secs(40)));
    let share = (cpu_s() - cpu) / begun.elapsed().as_secs_f64();
    println!("> idle: {:.3} % of a core, {:.1} KiB per session", share * 100.0, (rss_kib() - before) / count);
    if let Some(path) = std::env::var_os("MEASURE_SMAPS") {
        std::fs::copy("/proc/self/smaps", path).unwrap();
    }
    assert!(registry.shutdown(LONG).is_empty());
}

fn rss_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<f64>().unwrap();
    (ticks() + ticks()) / 100.0
}
