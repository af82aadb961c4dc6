//! `whatsapp-worker rotate-key`: brings every stored object under the current encryption key.
//!
//! Safe while workers run: an object is replaced only if it is still the one that was read. Objects written meanwhile by
//! workers that already have the new key are left alone.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use super::{Subcommand, Variables};
use crate::{
    config::Config,
    log::init,
    storage::object::{ObjectError, open_encrypted},
};

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "rotate-key",
    usage: "",
    help: "bring every stored object under STORAGE_ENCRYPTION_KEY; exit code 0 done, 1 some objects were left",
    run,
};

fn run(arguments: &[String], variables: Variables) -> Result<ExitCode, String> {
    if let Some(argument) = arguments.first() {
        return Err(format!("rotate-key: unknown argument `{argument}`"));
    }
    let (config, _) = Config::from_env(variables).map_err(|problems| problems.to_string())?;
    init(config.log_format, &config.log_filter);
    Ok(match rotate_key(&config, &mut stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("whatsapp-worker: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Rewrites what is not under `STORAGE_ENCRYPTION_KEY`; without one, back to plain. Tells on `output`. Whether every
/// object is as it should be now.
///
/// # Errors
/// [`ObjectError`] when the store cannot be used at all.
fn rotate_key(config: &Config, output: &mut impl Write) -> Result<bool, ObjectError> {
    let store = open_encrypted(&config.storage)?;
    // What reads the output may have gone; the work goes on.
    let mut say = |line: String| drop(writeln!(output, "{line}"));
    match store.current_id() {
        Some(id) => say(format!("current key: {id}")),
        None => say("no current key: objects are rewritten without encryption".to_owned()),
    }
    let rotation = store.rotate(|done, all| {
        if done % PROGRESS_EVERY == 0 {
            say(format!("{done} of {all} objects looked at"));
        }
    })?;
    for (key, error) in &rotation.failed {
        say(format!("left as it is: {key}: {error}"));
    }
    let (rewritten, current, failed) = (rotation.rewritten, rotation.current, rotation.failed.len());
    say(format!("{rewritten} rewritten, {current} were current, {failed} failed"));
    Ok(failed == 0)
}

const PROGRESS_EVERY: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_did_and_fails_when_an_object_failed() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_str().unwrap();
        let (new, old) = ("1".repeat(64), "2".repeat(64));
        let config = |current: &str, old: &str| {
            let vars = [
                ("STATE_DIR", state),
                ("STORAGE_ENCRYPTION_KEY", current),
                ("STORAGE_ENCRYPTION_OLD_KEYS", old),
            ];
            Config::from_env(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).ok().unwrap().0
        };
        let rotate = |config: &Config| {
            let mut output = Vec::new();
            let is_whole = rotate_key(config, &mut output).unwrap();
            (is_whole, String::from_utf8(output).unwrap())
        };
        let store = open_encrypted(&config(&old, "").storage).unwrap();
        crate::storage::object::ObjectStore::put(&store, "sessions/a/creds.json", b"{}", "application/json")
            .unwrap();
        let (is_whole, said) = rotate(&config(&new, ""));
        assert!(!is_whole && said.contains("left as it is: sessions/a/…"), "{said}");
        assert!(!said.contains("creds"), "{said}");
        assert!(rotate(&config(&new, &old)).0);
        let (is_whole, said) = rotate(&config(&new, ""));
        assert!(is_whole && said.contains("0 rewritten, 1 were current, 0 failed"), "{said}");
    }
}
