//! Where the settings come from, and whether they can be used.

use std::{io::ErrorKind, path::Path};

use super::{Variables, env_file, report::Finding};
use crate::config::{Config, SETTINGS};

/// The settings to check.
pub(super) struct Source {
    variables: Variables,
    /// For the report.
    name: String,
    /// Lines of the file that are no assignment.
    strange: Vec<String>,
    is_service: bool,
    /// Why the file cannot be read.
    unreadable: Option<Finding>,
}

impl Source {
    /// The file that was named; else the environment when it has a setting of ours; else the file of the installed
    /// service.
    pub(super) fn choose(env_file: Option<String>, variables: Variables) -> Self {
        let path = env_file.or_else(|| {
            let is_ours = |(name, _): &(String, String)| SETTINGS.iter().any(|setting| setting.name == name);
            let has_own = variables.iter().any(|variable| is_ours(variable) && variable.0 != "RUST_LOG");
            (!has_own && Path::new(SERVICE_FILE).exists()).then(|| SERVICE_FILE.to_owned())
        });
        let Some(path) = path else {
            let name = "the environment".to_owned();
            return Self { variables, name, strange: Vec::new(), is_service: false, unreadable: None };
        };
        let is_service = path == SERVICE_FILE;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let advice = match error.kind() {
                    ErrorKind::NotFound => "name a file that exists, or leave --env-file out",
                    ErrorKind::PermissionDenied => "run the doctor as root, or as who may read it",
                    _ => "write it as text: one NAME=value a line",
                };
                let unreadable = Some(Finding::fail(NAME, format!("cannot read {path}: {error}"), advice));
                let (variables, strange) = (Vec::new(), Vec::new());
                return Self { variables, name: path, strange, is_service, unreadable };
            }
        };
        let (mut of_file, strange) = env_file::parse(&text);
        if is_service {
            of_file.push(("STATE_DIRECTORY".to_owned(), SERVICE_STATE.to_owned()));
        }
        Self { variables: of_file, name: path, strange, is_service, unreadable: None }
    }

    /// Whether these are the settings of the installed service, whose limits are in its unit.
    pub(super) fn is_service(&self) -> bool {
        self.is_service
    }
}

/// The configuration, when there is one, and what was found on the way.
pub(super) fn check(source: &Source) -> (Option<Config>, Vec<Finding>) {
    if let Some(unreadable) = &source.unreadable {
        return (None, vec![unreadable.clone()]);
    }
    let mut findings: Vec<Finding> = source
        .strange
        .iter()
        .map(|word| {
            let finding = format!("{}: the line that begins with `{word}` is no assignment", source.name);
            Finding::warn(NAME, finding, "write NAME=value, or # in front of a comment")
        })
        .collect();
    match Config::from_env(source.variables.clone()) {
        Ok((config, warnings)) => {
            let fine = format!("from {}, worker {}", source.name, config.worker_id);
            findings.extend(warnings.into_iter().map(|warning| {
                Finding::warn(NAME, warning, format!("correct or remove it in {}", source.name))
            }));
            if findings.is_empty() {
                findings.push(Finding::ok(NAME, fine));
            }
            (Some(config), findings)
        }
        Err(problems) => {
            findings.extend(problems.0.into_iter().map(|problem| {
                let finding = format!("{} {}", problem.name, problem.problem);
                Finding::fail(
                    NAME,
                    finding,
                    format!("correct it in {}; the other checks need it", source.name),
                )
            }));
            (None, findings)
        }
    }
}

const NAME: &str = "settings";

/// Of the Debian package.
const SERVICE_FILE: &str = "/etc/whatsapp-worker/worker.env";
const SERVICE_STATE: &str = "/var/lib/whatsapp-worker";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    fn of_file(text: &str) -> (Option<Config>, Vec<Finding>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.env");
        std::fs::write(&path, text).unwrap();
        check(&Source::choose(Some(path.to_string_lossy().into_owned()), Vec::new()))
    }

    #[test]
    fn a_good_file_is_one_fine_line() {
        let (config, findings) = of_file("# mine\nWORKER_ID=w1\nWORKER_PORT=9000\n");
        assert_eq!(config.unwrap().bind.port(), 9000);
        assert!(
            matches!(&findings[..], [only] if only.verdict == Verdict::Ok && only.finding.ends_with("worker w1"))
        );
    }

    #[test]
    fn every_mistake_is_a_finding_of_its_own() {
        let (config, findings) = of_file("WORKER_PORT=x\nWORKER_MAX_SESSIONS=0\nWORKER ID\n");
        assert!(config.is_none());
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
        let warned = findings.iter().filter(|finding| finding.verdict == Verdict::Warn).count();
        assert_eq!((failed, warned), (2, 1), "{findings:?}");
        let (config, findings) = of_file("WORKER_PROT=1\n");
        assert!(config.is_some());
        assert!(findings[0].finding.contains("did you mean WORKER_PORT?"), "{findings:?}");
    }

    #[test]
    fn a_file_that_is_named_and_missing_is_a_failure_that_says_what_to_do() {
        let (config, findings) = check(&Source::choose(Some("/does/not/exist".into()), Vec::new()));
        assert!(config.is_none());
        assert!(matches!(&findings[..], [only] if only.verdict == Verdict::Fail), "{findings:?}");
        assert!(findings[0].finding.contains("/does/not/exist"));
    }
}
