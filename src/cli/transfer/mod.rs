//! `whatsapp-worker import` and `export`: an account moves between a folder of Baileys' files and a session of the
//! object store, while no worker has it.
//!
//! Exit code: 0 all of it, 1 some files were refused (they are named), 2 nothing was done.

mod report;

use std::{process::ExitCode, sync::Arc};

use super::{Subcommand, Variables, print};
use crate::{
    config::{Config, ObjectsAt},
    log::init,
    storage::{
        local::is_locked,
        object::{
            self, Conditions, ObjectError, ObjectStore, encrypted::EncryptedStore, memory::MemoryObjects,
        },
        sync::{Place, Release, Summary, Transfer, TransferError},
    },
};
use report::Report;

pub(super) const IMPORT: Subcommand = Subcommand {
    name: "import",
    usage: "DIR|store:PREFIX --session ID [--user USER] [--dry-run] [--json]",
    help: "take a folder of Baileys' files into a session; exit code 0 all of it, 1 some files refused, 2 nothing done",
    run: run_import,
};

pub(super) const EXPORT: Subcommand = Subcommand {
    name: "export",
    usage: "ID DIR|store:PREFIX [--baileys 6|7] [--dry-run] [--json]",
    help: "write a session as a folder that Baileys goes on with; exit codes as for import",
    run: run_export,
};

/// What the arguments say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    session: String,
    place: Place,
    user: Option<String>,
    release: Release,
    dry_run: bool,
    json: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("a worker is running on the state directory {0}; stop it first")]
    Running(String),
    #[error("the state directory {0} cannot be looked at")]
    StateDir(String, #[source] std::io::Error),
    #[error("the object store cannot be used")]
    Store(#[from] ObjectError),
    #[error("the account was not moved")]
    Transfer(#[from] TransferError),
}

fn run_import(arguments: &[String], variables: Variables) -> Result<ExitCode, String> {
    let options = parse("import", arguments)?;
    run("import", &options, variables, |transfer| {
        transfer.import(&options.place, &options.session, options.user.as_deref())
    })
}

fn run_export(arguments: &[String], variables: Variables) -> Result<ExitCode, String> {
    let options = parse("export", arguments)?;
    run("export", &options, variables, |transfer| {
        transfer.export(&options.session, &options.place, options.release)
    })
}

fn run(
    command: &'static str,
    options: &Options,
    variables: Variables,
    work: impl FnOnce(&Transfer<'_>) -> Result<Summary, TransferError>,
) -> Result<ExitCode, String> {
    let (config, _) = Config::from_env(variables).map_err(|problems| problems.to_string())?;
    init(config.log_format, &config.log_filter);
    let outcome = transfer(command, options, &config, work);
    let report = Report { command, options, outcome: &outcome };
    print(&if options.json { report.json() } else { report.text() });
    Ok(ExitCode::from(match outcome {
        Ok(summary) if summary.refused.is_empty() => 0,
        Ok(_) => 1,
        Err(_) => 2,
    }))
}

fn transfer(
    command: &'static str,
    options: &Options,
    config: &Config,
    work: impl FnOnce(&Transfer<'_>) -> Result<Summary, TransferError>,
) -> Result<Summary, Refusal> {
    let dir = || config.state_dir.display().to_string();
    match is_locked(&config.state_dir) {
        Ok(false) => {}
        Ok(true) => return Err(Refusal::Running(dir())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Refusal::StateDir(dir(), error)),
    }
    let store = open(config, options.dry_run)?;
    let name = format!("{} ({command})", config.worker_id);
    // Tells this run apart from others of the same name.
    let instance = format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
    Ok(work(&Transfer::new(&*store, &name, &instance, options.dry_run))?)
}

/// The object store of the settings, tried; a dry run makes neither a folder nor a bucket.
fn open(config: &Config, dry_run: bool) -> Result<Arc<dyn ObjectStore>, ObjectError> {
    let nothing = || -> Arc<dyn ObjectStore> {
        Arc::new(EncryptedStore::new(Arc::new(MemoryObjects::default()), config.storage.keys.clone()))
    };
    if let ObjectsAt::Directory(root) = &config.storage.objects
        && dry_run
        && !root.exists()
    {
        return Ok(nothing());
    }
    let store = object::open(&config.storage)?;
    if dry_run {
        return match store.get(PROBE) {
            Err(ObjectError::NoBucket { .. }) => Ok(nothing()),
            tried => tried.map(|_| store),
        };
    }
    if let Conditions::Ignored { how } = object::self_test(&*store)? {
        log::warn!("the object store ignores conditional writes ({how}); never share it between workers");
    }
    Ok(store)
}

fn parse(command: &str, arguments: &[String]) -> Result<Options, String> {
    let (is_import, mut session, mut user, mut release) = (command == "import", None, None, None);
    let (mut dry_run, mut json, mut words) = (false, false, Vec::new());
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().cloned().ok_or(format!("{command}: `{argument}` needs a value"));
        match argument.as_str() {
            "--dry-run" => dry_run = true,
            "--json" => json = true,
            "--session" if is_import => session = Some(value()?),
            "--user" if is_import => user = Some(value()?),
            "--baileys" if !is_import => release = Some(parse_release(&value()?)?),
            other if other.starts_with('-') => return Err(format!("{command}: unknown argument `{other}`")),
            word => words.push(word.to_owned()),
        }
    }
    let mut words = words.into_iter();
    if !is_import {
        session = words.next();
    }
    let session = session.ok_or(format!("{command}: which session?"))?;
    let place = words.next().filter(|place| !place.is_empty());
    let place = place.ok_or(format!("{command}: which folder, or which `store:` prefix?"))?;
    if let Some(more) = words.next() {
        return Err(format!("{command}: unknown argument `{more}`"));
    }
    if !is_session_id(&session) {
        return Err(format!("{command}: a session id has 1 to 100 of A-Z a-z 0-9 _ -"));
    }
    if user.as_ref().is_some_and(|user: &String| user.trim().is_empty() || user.chars().any(char::is_control))
    {
        return Err(format!("{command}: --user must not be empty"));
    }
    let (place, release) = (Place::parse(&place), release.unwrap_or(Release::Seven));
    Ok(Options { session, place, user, release, dry_run, json })
}

fn parse_release(text: &str) -> Result<Release, String> {
    match text {
        "6" | "6.7" => Ok(Release::Six),
        "7" => Ok(Release::Seven),
        _ => Err("export: --baileys is 6 or 7".to_owned()),
    }
}

fn is_session_id(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Asked for to see whether there is a bucket.
const PROBE: &str = "temp/self-test/none";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(command: &str, text: &str) -> Result<Options, String> {
        parse(command, &text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_may_come_in_any_order() {
        let expected = Options {
            session: "a-1".into(),
            place: Place::Folder("left".into()),
            user: Some("u".into()),
            release: Release::Seven,
            dry_run: true,
            json: false,
        };
        assert_eq!(parse_text("import", "--session a-1 left --dry-run --user u"), Ok(expected));
        let expected = Options {
            session: "a".into(),
            place: Place::Objects("old/a/".into()),
            user: None,
            release: Release::Six,
            dry_run: false,
            json: true,
        };
        assert_eq!(parse_text("export", "a --json store:old/a --baileys 6"), Ok(expected));
    }

    #[test]
    fn a_mistake_is_named() {
        for (command, text, word) in [
            ("import", "left", "session"),
            ("import", "--session a", "folder"),
            ("import", "--session", "--session"),
            ("import", "left --session ../a", "session id"),
            ("import", "left --session a --baileys 6", "--baileys"),
            ("import", "left right --session a", "right"),
            ("export", "", "session"),
            ("export", "a", "folder"),
            ("export", "a b --user u", "--user"),
            ("export", "a b --baileys 5", "6 or 7"),
        ] {
            let problem = parse_text(command, text).unwrap_err();
            assert!(problem.contains(word), "{command} {text}: {problem}");
        }
    }
}
