//! The program: arguments, configuration, run, exit code (0 stopped, 1 failed, 2 not usable as asked).

use std::{io::Write as _, net::Ipv4Addr, process::ExitCode, thread};

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use whatsapp_worker::{
    commands,
    config::{Config, SETTINGS},
    log::{init, log_panics},
    sandbox::{Sandbox, SandboxOptions},
    worker::{Sandboxed, Worker},
};

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Run {
        sandbox: bool,
    },
    /// The sandbox without a worker, for workers and other clients in processes of their own.
    SandboxService,
    /// Brings stored objects under the current encryption key.
    RotateKey,
    Help,
    Version,
}

/// Why a running worker stops.
enum Stop {
    Signal,
    Failure,
}

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    match parse_arguments(arguments) {
        Ok(Action::Help) => print(&help()),
        Ok(Action::Version) => print(concat!("whatsapp-worker ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Action::Run { sandbox }) => run(sandbox),
        Ok(Action::SandboxService) => sandbox_service(),
        Ok(Action::RotateKey) => command(|config| {
            commands::rotate_key(config, &mut std::io::stdout()).map_err(|error| error.to_string())
        }),
        Err(problem) => {
            eprintln!("whatsapp-worker: {problem}\nTry `whatsapp-worker --help`.");
            ExitCode::from(2)
        }
    }
}

fn parse_arguments(arguments: impl Iterator<Item = String>) -> Result<Action, String> {
    let mut action = Action::Run { sandbox: false };
    for argument in arguments {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Action::Help),
            "-V" | "--version" => return Ok(Action::Version),
            "--sandbox" => action = Action::Run { sandbox: true },
            "--sandbox-service" => action = Action::SandboxService,
            "rotate-key" => action = Action::RotateKey,
            other => return Err(format!("unknown argument `{other}`; settings are environment variables")),
        }
    }
    Ok(action)
}

fn run(with_sandbox: bool) -> ExitCode {
    let mut variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
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

/// Runs a subcommand with the configuration of the environment. It tells whether everything is as it should be; an error
/// is a line for people.
fn command(run: impl FnOnce(&Config) -> Result<bool, String>) -> ExitCode {
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let config = match Config::from_env(variables) {
        Ok((config, _)) => config,
        Err(problems) => {
            eprintln!("whatsapp-worker: {problems}");
            return ExitCode::from(2);
        }
    };
    init(config.log_format, &config.log_filter);
    match run(&config) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("whatsapp-worker: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the sandbox alone. Its first line of output is JSON: where it is and what clients must trust.
fn sandbox_service() -> ExitCode {
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let (config, _) = match Config::from_env(variables) {
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
            wait(worker, &stopped)
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

fn wait(worker: Worker, stopped: &Receiver<Stop>) -> ExitCode {
    let reason = stopped.recv();
    worker.stop();
    match reason {
        Ok(Stop::Signal) => ExitCode::SUCCESS,
        // systemd starts us again.
        Ok(Stop::Failure) | Err(_) => ExitCode::FAILURE,
    }
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

Usage: whatsapp-worker [--sandbox | --sandbox-service | rotate-key]

  --sandbox          also start a simulated WhatsApp with simulated phones and use it
  --sandbox-service  start only that; prints where it is as one line of JSON
  rotate-key         bring every stored object under STORAGE_ENCRYPTION_KEY; workers may go on meanwhile
  -h, --help         show this text
  -V, --version      show the version

Settings are environment variables:

";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Action, String> {
        parse_arguments(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn arguments_are_few_and_unknown_ones_are_refused() {
        assert_eq!(parse(&[]), Ok(Action::Run { sandbox: false }));
        assert_eq!(parse(&["--sandbox"]), Ok(Action::Run { sandbox: true }));
        assert_eq!(parse(&["--sandbox-service"]), Ok(Action::SandboxService));
        assert_eq!(parse(&["--sandbox", "--help"]), Ok(Action::Help));
        assert_eq!(parse(&["rotate-key"]), Ok(Action::RotateKey));
        assert_eq!(parse(&["-V"]), Ok(Action::Version));
        assert!(parse(&["--port", "1"]).unwrap_err().contains("`--port`"));
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
