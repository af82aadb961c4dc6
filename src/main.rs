//! The program: arguments, configuration, run, exit code (0 stopped, 1 failed, 2 not usable as asked).

use std::{io::Write as _, net::Ipv4Addr, process::ExitCode, thread};

use crossbeam_channel::{Sender, bounded};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use whatsapp_worker::{
    cli::{SUBCOMMANDS, Subcommand},
    config::{Config, SETTINGS},
    log::{init, log_panics},
    sandbox::{Sandbox, SandboxOptions},
    systemd::Notifier,
    worker::{Sandboxed, Worker},
};

/// What the arguments ask for.
enum Action {
    Run {
        sandbox: bool,
    },
    /// The sandbox without a worker, for workers and other clients in processes of their own.
    SandboxService,
    /// With the arguments behind its name.
    Subcommand(&'static Subcommand, Vec<String>),
    Help,
    Version,
}

/// Why a running worker stops.
enum Stop {
    Signal,
    Failure,
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let done = parse_arguments(&arguments).and_then(|action| match action {
        Action::Help => Ok(print(&help())),
        Action::Version => Ok(print(concat!("whatsapp-worker ", env!("CARGO_PKG_VERSION"), "\n"))),
        Action::Run { sandbox } => Ok(run(sandbox)),
        Action::SandboxService => Ok(sandbox_service()),
        Action::Subcommand(subcommand, rest) => (subcommand.run)(&rest, variables()),
    });
    done.unwrap_or_else(|problem| {
        eprintln!("whatsapp-worker: {problem}\nTry `whatsapp-worker --help`.");
        ExitCode::from(2)
    })
}

fn parse_arguments(arguments: &[String]) -> Result<Action, String> {
    if let Some((first, rest)) = arguments.split_first()
        && let Some(subcommand) = SUBCOMMANDS.iter().find(|subcommand| subcommand.name == first)
    {
        return Ok(Action::Subcommand(subcommand, rest.to_vec()));
    }
    let mut action = Action::Run { sandbox: false };
    for argument in arguments {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Action::Help),
            "-V" | "--version" => return Ok(Action::Version),
            "--sandbox" => action = Action::Run { sandbox: true },
            "--sandbox-service" => action = Action::SandboxService,
            other => return Err(format!("unknown argument `{other}`; settings are environment variables")),
        }
    }
    Ok(action)
}

/// The environment as text.
fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

fn run(with_sandbox: bool) -> ExitCode {
    let mut variables = variables();
    let (config, warnings) = match Config::from_env(variables.clone()) {
        Ok(checked) => checked,
        Err(problems) => {
            eprintln!("whatsapp-worker: {problems}");
            return ExitCode::from(2);
        }
    };
    init(config.log_format, &config.log_filter);
    log_panics();
    for warning in warnings {
        log::warn!("{warning}");
    }
    if !with_sandbox {
        return serve(&config, |_| {});
    }
    let sandboxed = match Sandboxed::start(config.sandbox_port) {
        Ok(sandboxed) => sandboxed,
        Err(error) => {
            log::error!("{}", with_causes(&error));
            return ExitCode::FAILURE;
        }
    };
    sandboxed.apply(&mut variables);
    let code = match Config::from_env(variables) {
        Ok((config, _)) => serve(&config, |worker| {
            print(&sandboxed.tour(worker.local_addr()));
        }),
        Err(problems) => {
            eprintln!("whatsapp-worker: {problems}");
            ExitCode::from(2)
        }
    };
    sandboxed.stop();
    code
}

/// Runs the sandbox alone. Its first line of output is JSON: where it is and what clients must trust.
fn sandbox_service() -> ExitCode {
    let (config, _) = match Config::from_env(variables()) {
        Ok(checked) => checked,
        Err(problems) => {
            eprintln!("whatsapp-worker: {problems}");
            return ExitCode::from(2);
        }
    };
    init(config.log_format, &config.log_filter);
    let (stop, stopped) = bounded(1);
    let control = (Ipv4Addr::LOCALHOST, config.sandbox_port).into();
    let started = watch_signals(stop).map_err(|error| error.to_string()).and_then(|()| {
        let options = SandboxOptions { control, ..SandboxOptions::default() };
        Sandbox::start(options).map_err(|error| with_causes(&error))
    });
    match started {
        Ok(sandbox) => {
            print(&format!("{}\n", sandbox.describe()));
            let _ = stopped.recv();
            sandbox.stop();
            ExitCode::SUCCESS
        }
        Err(problem) => {
            log::error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a worker until there is a reason to stop. `started` is called once it serves.
fn serve(config: &Config, started: impl FnOnce(&Worker)) -> ExitCode {
    let (stop, stopped) = bounded(1);
    if let Err(error) = watch_signals(stop.clone()) {
        log::error!("signals cannot be watched: {error}");
        return ExitCode::FAILURE;
    }
    let failed = move || {
        let _ = stop.try_send(Stop::Failure);
    };
    match Worker::start(config, failed) {
        Ok(worker) => {
            started(&worker);
            let systemd = Notifier::start(worker.vitals());
            let reason = stopped.recv();
            if let Some(systemd) = systemd {
                systemd.stopping();
            }
            worker.stop();
            match reason {
                Ok(Stop::Signal) => ExitCode::SUCCESS,
                // systemd starts us again.
                Ok(Stop::Failure) | Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            log::error!("{}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and everything behind it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The first signal stops in order, the second at once.
fn watch_signals(stop: Sender<Stop>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(move || {
        let mut arrivals = signals.forever();
        arrivals.next();
        log::info!("stopping");
        let _ = stop.try_send(Stop::Signal);
        arrivals.next();
        log::warn!("second signal: ending at once");
        std::process::exit(1);
    })?;
    Ok(())
}

fn help() -> String {
    let mut text = String::from(HELP);
    for Subcommand { name, usage, help, .. } in SUBCOMMANDS {
        text += format!("  {name} {usage}").trim_end();
        text += &format!("\n      {help}\n");
    }
    text += "\nSettings are environment variables; none must be set:\n\n";
    for setting in SETTINGS {
        let name = setting.name;
        let file = if setting.is_secret { " (or name a file in " } else { "" };
        let file_name = if setting.is_secret { format!("{name}_FILE)") } else { String::new() };
        text += &format!("  {name}\n      {}{file}{file_name}. Default: {}\n", setting.help, setting.default);
    }
    text
}

fn print(text: &str) -> ExitCode {
    // `| head` may have gone already.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

const HELP: &str = "\
whatsapp-worker: many WhatsApp accounts in one process, driven over REST

Usage: whatsapp-worker [--sandbox | --sandbox-service | SUBCOMMAND …]

Without arguments it runs the worker with the settings below and serves its API on http://127.0.0.1:8001; a page about
the API is at /docs. New here? `whatsapp-worker --sandbox` needs no phone and no settings, and prints what to try next.
`whatsapp-worker doctor` says what is missing for real use.

  --sandbox          also start a simulated WhatsApp with simulated phones and use it
  --sandbox-service  start only that; prints where it is as one line of JSON
  -h, --help         show this text
  -V, --version      show the version

Subcommands:

";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Action, String> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        parse_arguments(&arguments)
    }

    #[test]
    fn arguments_are_few_and_unknown_ones_are_refused() {
        assert!(matches!(parse(&[]), Ok(Action::Run { sandbox: false })));
        assert!(matches!(parse(&["--sandbox"]), Ok(Action::Run { sandbox: true })));
        assert!(matches!(parse(&["--sandbox-service"]), Ok(Action::SandboxService)));
        assert!(matches!(parse(&["--sandbox", "--help"]), Ok(Action::Help)));
        assert!(matches!(parse(&["-V"]), Ok(Action::Version)));
        let Err(problem) = parse(&["--port", "1"]) else { panic!("settings are no arguments") };
        assert!(problem.contains("`--port`"));
    }

    #[test]
    fn a_subcommand_takes_the_arguments_behind_it() {
        let Ok(Action::Subcommand(found, rest)) = parse(&["doctor", "--json"]) else { panic!("not found") };
        assert_eq!((found.name, rest.as_slice()), ("doctor", &["--json".to_owned()][..]));
        let help = help();
        assert!(SUBCOMMANDS.iter().all(|subcommand| help.contains(subcommand.help)), "{help}");
    }

    #[test]
    fn help_lists_every_setting() {
        let help = help();
        for setting in SETTINGS {
            assert!(help.contains(setting.name), "{}", setting.name);
        }
        assert!(help.contains("WORKER_AUTH_TOKEN_FILE"));
    }
}
