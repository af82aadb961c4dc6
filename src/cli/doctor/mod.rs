//! `whatsapp-worker doctor`: looks at everything a worker needs before and while it runs, in words a sysadmin can
//! act on. One line per finding; changes nothing that stays.
//!
//! Exit code as monitoring plug-ins have it: 0 all is well, 1 a warning, 2 a failure.
//!
//! Read `report` for what a finding is; `settings`, `machine`, `objects`, `network`, `gateway` and `clock` have the checks,
//! in the order of the report; `env_file` reads the settings of the installed service.

mod clock;
mod env_file;
mod gateway;
mod machine;
mod network;
mod objects;
mod report;
mod settings;

use std::process::ExitCode;

use super::{Subcommand, Variables, print};
use report::Verdict;

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "doctor",
    usage: "[--json] [--env-file FILE]",
    help: "check settings, disk, limits and everything the worker must reach; exit code 0 fine, 1 warnings, 2 failures",
    run,
};

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    json: bool,
    /// Settings come from here and not from the environment.
    env_file: Option<String>,
}

fn run(arguments: &[String], variables: Variables) -> Result<ExitCode, String> {
    let options = parse(arguments)?;
    let source = settings::Source::choose(options.env_file, variables);
    let (config, mut findings) = settings::check(&source);
    if let Some(config) = config {
        findings.extend(machine::check(&config, source.is_service()));
        findings.push(objects::check(&config));
        findings.extend(network::check(&config));
        findings.extend(gateway::check(&config));
        // Once is enough, and the backend's clock is the one that matters most.
        if !findings.iter().any(|finding| finding.check == "clock") {
            findings.extend(clock::check(&config));
        }
    }
    print(&if options.json { report::json(&findings) } else { report::text(&findings) });
    Ok(ExitCode::from(match report::worst(&findings) {
        Verdict::Ok => 0,
        Verdict::Warn => 1,
        Verdict::Fail => 2,
    }))
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        match argument.as_str() {
            "--json" => options.json = true,
            "--env-file" => {
                options.env_file = Some(left.next().ok_or("`--env-file` needs the name of a file")?.clone());
            }
            other => return Err(format!("doctor: unknown argument `{other}`")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_few_and_unknown_ones_are_refused() {
        let parse = |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let expected = Options { json: true, env_file: Some("/etc/x".into()) };
        assert_eq!(parse("--env-file /etc/x --json"), Ok(expected));
        assert_eq!(parse(""), Ok(Options::default()));
        assert!(parse("--env-file").is_err());
        assert!(parse("--verbose").unwrap_err().contains("`--verbose`"));
    }
}
