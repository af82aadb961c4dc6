//! The README tells the truth: its settings are the program's settings, and its tour works.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use common::{
    Process,
    backend::{guide::GuideBackend, server::Trouble},
    durable::Home,
    eventually,
    sandbox::Sandbox,
};
use serde_json::{Value, json};
use whatsapp_worker::config::SETTINGS;

const README: &str = include_str!("../README.md");

#[test]
fn every_setting_is_in_the_readme_with_its_default() {
    for setting in SETTINGS {
        let row = format!("| `{}` | {} |", setting.name, setting.default);
        assert!(README.contains(&row), "the README lacks: {row}");
    }
}

#[test]
fn the_readme_names_no_setting_that_does_not_exist() {
    let rows = README.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    for (name, _) in rows.filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
        assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is no setting");
    }
}

/// Everything between the mark and the end of the block behind it.
fn readme_tour() -> &'static str {
    let (_, rest) = README.split_once("<!-- tour -->\n```bash\n").expect("the tour is marked");
    rest.split_once("\n```").expect("the block ends").0
}

/// `--sandbox` on free ports; gives the process and what it printed to do next.
fn sandboxed_worker(dir: &Path) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whatsapp-worker"));
    command.arg("--sandbox").env("WORKER_PORT", "0").env("SANDBOX_PORT", "0").stdout(Stdio::piped());
    let mut process = Process::start(&mut command, &dir.join("worker.log"));
    let lines = process.lines();
    let printed = eventually("the worker says what to do next", || {
        let lines = lines.lock();
        lines.iter().any(|line| line.starts_with("Stop with")).then(|| lines.join("\n"))
    });
    (process, printed)
}

/// Runs the lines in one shell and gives the JSON of every `curl` that prints. Where a person would read first, the
/// script waits until Bob's answer has arrived.
fn run(script: &str) -> Vec<Value> {
    let answered = "curl -s -X POST $SANDBOX/phones/6281200000002/send";
    let (before, after) = script.split_once(answered).expect("Bob answers");
    let (line, after) = after.split_once('\n').expect("that is not the end");
    let script = format!("{before}{answered}{line}\n{READING}\n{after}");
    let output = Command::new("timeout")
        .args(["60", "bash", "-euo", "pipefail", "-c", &script])
        .output()
        .expect("bash runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().expect("JSON answers")
}

const READING: &str =
    r#"until curl -s "$API/session/demo/messages" | grep -q 'Hello Alice!'; do sleep 0.05; done"#;

fn assignment<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(name)).expect("an assignment")
}

#[test]
fn the_readmes_five_minute_tour_works_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let (_worker, printed) = sandboxed_worker(dir.path());
    let mut script = readme_tour().to_owned();
    for name in ["API=", "SANDBOX="] {
        script = script.replace(assignment(readme_tour(), name), assignment(&printed, name));
    }
    let answers = run(&script);
    for answer in &answers {
        assert_eq!(answer["success"], true, "{answer}");
    }
    let has = |what: &str, found: &dyn Fn(&Value) -> bool| {
        assert!(answers.iter().any(|answer| found(&answer["data"])), "{what} is missing in {answers:#?}");
    };
    has("the new session", &|data| data["status"] == "disconnected");
    has("a QR", &|data| {
        data["status"] == "qr_required"
            && data["qrCode"].as_str().is_some_and(|url| url.starts_with("data:image/png;base64,"))
    });
    has("the linked device", &|data| data["device"].is_number());
    has("the login", &|data| data["status"] == "connected" && data["phoneNumber"] == "+6281200000001");
    has("the ack", &|data| data["status"] == "sent" && data["messageId"].is_string());
    has("Bob's copy", &|data| data["messages"][0]["text"] == "Hello Bob!");
    has("the event of the answer", &|data| data["events"].to_string().contains("Hello Alice!"));
    has("the history", &|data| {
        data["pagination"]["total"] == 2 && data["messages"][0]["content"] == "Hello Alice!"
    });
    has("no violations", &|data| data["violations"] == json!([]) && data["total"] == 0);
}

#[test]
fn the_lines_that_the_sandbox_prints_work_when_pasted() {
    let dir = tempfile::tempdir().unwrap();
    let (_worker, printed) = sandboxed_worker(dir.path());
    let (_, script) = printed.split_once("\nAPI=").expect("the lines begin");
    let (script, _) = script.split_once("\nStop with").expect("the lines end");
    let answers = run(&format!("API={script}"));
    for answer in &answers {
        assert_eq!(answer["success"], true, "{answer}");
    }
    let history = &answers.last().expect("answers")["data"];
    assert_eq!(history["messages"][0]["content"], "Hello Alice!", "{history}");
    assert_eq!(history["messages"][1]["content"], "Hello Bob!", "{history}");
}

#[test]
fn the_readmes_lines_about_fail_over_work_as_written() {
    let (_, rest) = README.split_once("```bash\ncurl -X POST b:8001").expect("the lines are there");
    let lines = format!("curl -X POST b:8001{}", rest.split_once("\n```").expect("the block ends").0);
    let (sandbox, home) = (Sandbox::start(), Home::new());
    sandbox.add_phone("6281200000001");
    let (a, b) = (home.worker(&sandbox, "a"), home.worker(&sandbox, "b"));
    a.link(&sandbox, "demo", "6281200000001");
    let script = lines.replace("a:8001", &a.api).replace("b:8001", &b.api).replace("curl ", "curl -s ");
    let output =
        Command::new("timeout").args(["60", "bash", "-euo", "pipefail", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let answers: Vec<Value> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("JSON answers");
    let [created, refused, released, connected] = answers.as_slice() else { panic!("{answers:#?}") };
    assert_eq!(created["success"], true, "{created}");
    assert_eq!(refused["code"], "SESSION_HELD_ELSEWHERE", "{refused}");
    assert_eq!(released["success"], true, "{released}");
    assert_eq!(connected["data"]["status"], "connected", "{connected}");
}

#[test]
fn the_readmes_lines_about_refused_events_work_as_written() {
    let (_, rest) = README.split_once("```bash\ncurl -s \"$API/webhooks").expect("the lines are there");
    let lines = format!("curl -s \"$API/webhooks{}", rest.split_once("\n```").expect("the block ends").0);
    let (sandbox, backend) = (Sandbox::start(), GuideBackend::start());
    sandbox.add_phone("6281200000001");
    backend.server.trouble_times("/session-status", 1, Trouble::Status(422));
    let worker = backend.worker(&sandbox, &[]);
    worker.link(&sandbox, "demo", "6281200000001");
    backend.await_word("demo", "connected");
    let script = format!("API={}\n{lines}", worker.api);
    let output =
        Command::new("timeout").args(["60", "bash", "-euo", "pipefail", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("JSON answers");
    let [failed, replayed] = answers.as_slice() else { panic!("{answers:#?}") };
    assert_eq!((&failed["data"]["total"], &failed["data"]["failed"][0]["status"]), (&json!(1), &json!(422)));
    assert_eq!(replayed["data"]["replaying"], 1, "{replayed}");
}
