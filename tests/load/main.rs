//! The load harness: what a session, a login, a message cost, with Baileys doing the same work in the same run.
//!
//! The worker's object store is a folder, its default. The sandbox, the worker and Baileys are processes of their own;
//! their CPU time and memory are read from `/proc`. In the ordinary test run only a tiny smoke runs. The numbers of the
//! README come from
//!
//! ```text
//! cargo test --release --test load -- --ignored --nocapture
//! ```
//!
//! `LOAD_SESSIONS` (1000), `LOAD_MESSAGES` (20000), `LOAD_IDLE_S` (60), `LOAD_WINDOW` (6: sends under way per session),
//! `LOAD_BAILEYS_SESSIONS` (100), `LOAD_BAILEYS_MESSAGES` (2000) change the size.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]
#![allow(unreachable_pub, reason = "modules of a test program")]

#[path = "../common/mod.rs"]
mod common;

mod client;
mod cost;
mod fleet;
mod rival;

use std::{env, fmt::Write as _, time::Duration};

use common::sandbox::Sandbox;
use cost::{Cost, micros, resident_kib};
use fleet::Fleet;
use rival::Rival;

/// How much of everything.
struct Size {
    sessions: usize,
    /// Sessions that are there before memory per further session is counted.
    base: usize,
    messages: usize,
    /// Sends under way per session: a caller waits for each answer.
    window: usize,
    idle: Duration,
    baileys_sessions: usize,
    baileys_messages: usize,
}

impl Size {
    fn smoke() -> Self {
        let idle = Duration::from_secs(1);
        Self {
            sessions: 4,
            base: 2,
            messages: 40,
            window: 2,
            idle,
            baileys_sessions: 2,
            baileys_messages: 20,
        }
    }

    fn full() -> Self {
        let number = |name: &str, default: usize| {
            env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
        };
        let sessions = number("LOAD_SESSIONS", 1000);
        Self {
            sessions,
            base: (sessions / 10).max(2),
            messages: number("LOAD_MESSAGES", 20_000),
            window: number("LOAD_WINDOW", 6),
            idle: Duration::from_secs(number("LOAD_IDLE_S", 60) as u64),
            baileys_sessions: number("LOAD_BAILEYS_SESSIONS", 100),
            baileys_messages: number("LOAD_BAILEYS_MESSAGES", 2_000),
        }
    }
}

#[test]
fn the_load_harness_runs() {
    let table = run(&Size::smoke());
    assert_eq!(table.lines().count(), 2 + ROWS, "{table}");
}

#[test]
#[ignore = "takes minutes; a measurement, not a check"]
fn full_load() {
    run(&Size::full());
}

const ROWS: usize = 10;

/// Names of the threads that write to the object store.
const UPLOADERS: &str = "upload-";

/// Sessions that take part in sending and receiving.
const TALKERS: usize = 10;

/// Runs everything and gives the table of the README.
fn run(size: &Size) -> String {
    let sandbox = Sandbox::start();
    let mut fleet = Fleet::new(&sandbox, size.sessions + 1);
    let empty = resident_kib(fleet.pid());
    let mut table = Table::default();

    say("pairing");
    let uploads = |fleet: &Fleet<'_>| cost::cpu_time_of_threads(fleet.pid(), UPLOADERS);
    let before = uploads(&fleet);
    let mut pairing = fleet.link(size.base);
    pairing.cpu = pairing.cpu.saturating_sub(uploads(&fleet) - before);
    fleet.upload();
    let uploading = Cost { cpu: uploads(&fleet) - before, ..pairing };
    let few = resident_kib(fleet.pid());
    fleet.link(size.sessions);
    fleet.upload();
    // What linking leaves behind goes in the first seconds after it.
    std::thread::sleep(size.idle);
    let linked_here = (resident_kib(fleet.pid()) - few) / (size.sessions - size.base) as f64;

    say("pairing Baileys");
    let mut rival = Rival::start(&sandbox);
    rival.link(1);
    let rival_few = resident_kib(rival.pid());
    let rival_pairing = rival.link(size.baileys_sessions);
    let rival_per_session = (resident_kib(rival.pid()) - rival_few) / (size.baileys_sessions - 1) as f64;

    say("logging in again");
    let login = fleet.restart();
    let rival_login = rival.log_in_again();

    // What a login leaves behind comes in the first minute after it.
    say("settling");
    std::thread::sleep(size.idle);
    let after_restart = resident_kib(fleet.pid());

    say("idling");
    let idle = (Cost::of_living(fleet.pid()), Cost::of_living(rival.pid()));
    let wakes = cost::switches(fleet.pid());
    std::thread::sleep(size.idle);
    let idle = (idle.0.until_now(1), idle.1.until_now(1));
    eprintln!("load: {} context switches while idle", cost::switches(fleet.pid()) - wakes);

    say("sending");
    let talkers = TALKERS.min(size.sessions);
    let partners = fleet.partners(talkers);
    let send = fleet.send(&partners, size.messages, size.window);
    let rival_send = rival.send(&partners, size.baileys_messages, size.window);

    say("receiving");
    let receive = fleet.receive(&partners, size.messages);
    let rival_receive = rival.receive(&partners, size.baileys_messages);

    table.row("pairing, CPU", "≤ 20 ms", millis(&pairing), millis(&rival_pairing));
    table.row("its objects to a folder, CPU", "–", millis(&uploading), String::from("–"));
    table.row("login, CPU", "≤ 4 ms", millis(&login), millis(&rival_login));
    let all_back = format!("{:.1} s for {}", login.wall.as_secs_f64(), size.sessions);
    table.row("stored sessions connected again", "≤ 30 s for 1,000", all_back, String::from("–"));
    let kib = |value: f64| format!("{value:.0} KiB");
    let per_session = (after_restart - empty) / size.sessions as f64;
    table.row("memory per further idle session", "≤ 80 KiB", kib(per_session), String::from("–"));
    table.row("the same, linked in this run", "–", kib(linked_here), kib(rival_per_session));
    table.row(
        "idle CPU of one core",
        "≤ 0.1 % for 1,000",
        share(&idle.0, size.sessions),
        share(&idle.1, size.baileys_sessions),
    );
    table.row("send a text, CPU", "≤ 0.10 ms", millis(&send), millis(&rival_send));
    let rate = |cost: &Cost| format!("{:.0}/s", cost.count as f64 / cost.wall.as_secs_f64());
    table.row("send, throughput over 10 sessions", "≥ 5,000/s", rate(&send), rate(&rival_send));
    table.row("receive a text, CPU", "≤ 0.05 ms", millis(&receive), millis(&rival_receive));
    // Shown also when the next line fails: minutes lie behind it.
    eprintln!("{}", table.text);
    fleet.assert_no_violations();
    table.text
}

fn millis(cost: &Cost) -> String {
    format!("{:.3} ms", micros(cost) / 1000.0)
}

fn share(cost: &Cost, sessions: usize) -> String {
    format!("{:.3} % for {sessions}", 100.0 * cost.cpu.as_secs_f64() / cost.wall.as_secs_f64())
}

fn say(what: &str) {
    eprintln!("load: {what}");
}

/// A table in Markdown.
struct Table {
    text: String,
}

impl Default for Table {
    fn default() -> Self {
        let text = "| what | target | whatsapp-worker | Baileys 7.0.0-rc14 |\n|---|---|---|---|\n".to_owned();
        Self { text }
    }
}

impl Table {
    fn row(&mut self, what: &str, target: &str, ours: String, baileys: String) {
        let _ = writeln!(self.text, "| {what} | {target} | {ours} | {baileys} |");
    }
}
