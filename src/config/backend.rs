//! The gateway that this worker serves, and what it is told.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

use super::{Secret, raw::Raw};
use crate::storage::events::KINDS;

/// The link to a backend.
#[derive(Clone)]
pub struct BackendConfig {
    /// `http://host[:port][/prefix]`, without a slash at its end.
    pub url: String,
    /// Whose words are spoken.
    pub dialect: Dialect,
    /// Kinds of events sent besides `session-status`.
    pub events: BTreeSet<&'static str>,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// What the backend shows administrators.
    pub description: Option<String>,
    /// What proves who we are to the backend; the token of the API.
    pub token: Option<Secret>,
    /// Sign webhooks: the current secret first, then the one it replaces.
    pub signing: Vec<Secret>,
    /// PEM file with the only certificates trusted; the built-in roots when there is none.
    pub ca_file: Option<PathBuf>,
}

/// Whose words are spoken to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The written guide's.
    Guide,
    /// The public backend's.
    Whatsam,
}

/// `None` when no backend is set.
pub(super) fn backend(raw: &mut Raw, worker_id: &str, token: Option<&str>) -> Option<BackendConfig> {
    let signing = signing(raw);
    let heartbeat = Duration::from_secs(raw.number("HEARTBEAT_INTERVAL", 30, 1..=300));
    let dialect = raw.choice("BACKEND_DIALECT", &[("guide", Dialect::Guide), ("whatsam", Dialect::Whatsam)]);
    let events = events(raw);
    let ca_file = raw.text("BACKEND_CA_FILE").map(PathBuf::from);
    if ca_file.as_ref().is_some_and(|path| !path.is_file()) {
        raw.problem("BACKEND_CA_FILE", "is not a file that can be read");
    }
    let description = raw.text("WORKER_DESCRIPTION");
    if description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
        raw.problem("WORKER_DESCRIPTION", format!("must be at most {MAX_DESCRIPTION} characters long"));
    }
    let url = raw.text("BACKEND_URL")?;
    let url = address(raw, &url);
    if dialect == Dialect::Whatsam && !is_whatsam_id(worker_id) {
        raw.problem(
            "WORKER_ID",
            "(the host name when it is not set) must be 3 to 50 of A-Z a-z 0-9 - _ because \
             BACKEND_DIALECT=whatsam: that backend refuses every other name, one with a dot too",
        );
    }
    let token = token.map(Secret::new);
    Some(BackendConfig { url, dialect, events, heartbeat, description, token, signing, ca_file })
}

/// What the settings lead to that is worth a log line each.
pub(super) fn warnings(backend: Option<&BackendConfig>) -> Vec<String> {
    let Some(backend) = backend else { return Vec::new() };
    let mut warnings = Vec::new();
    if backend.token.is_none() {
        warnings.push(
            "BACKEND_URL is set and WORKER_AUTH_TOKEN is not: the backend gets no token, and this worker answers \
             local requests only"
                .to_owned(),
        );
    }
    if backend.dialect == Dialect::Whatsam {
        let unheard: Vec<&str> =
            backend.events.iter().copied().filter(|kind| *kind != "message-status").collect();
        if !unheard.is_empty() && unheard.len() + 2 < KINDS.len() {
            warnings.push(format!(
                "BACKEND_EVENTS: the whatsam backend has no route for {}; they are not sent",
                unheard.join(", ")
            ));
        }
    }
    warnings
}

/// The address the backend is told when none is set: the host's name, or the one address that is listened on.
#[must_use]
pub fn default_endpoint(listens_on: SocketAddr) -> String {
    if listens_on.ip().is_unspecified() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("http://{host}:{}", listens_on.port())
    } else {
        format!("http://{listens_on}")
    }
}

fn address(raw: &mut Raw, text: &str) -> String {
    let Some(url) = Url::parse(text).ok().filter(is_plain) else {
        raw.problem("BACKEND_URL", "must be an http or https URL without name, password, query or fragment");
        return String::new();
    };
    let text = url.as_str().trim_end_matches('/').to_owned();
    if text.ends_with("/api") || text.ends_with("/api/v1") {
        raw.problem("BACKEND_URL", "must not end in /api or /api/v1: the worker puts that behind it");
    }
    text
}

fn is_plain(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

fn events(raw: &mut Raw) -> BTreeSet<&'static str> {
    let Some(text) = raw.text("BACKEND_EVENTS") else { return BTreeSet::new() };
    let mut wanted = BTreeSet::new();
    let mut unknown = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match KINDS.iter().find(|kind| kind.eq_ignore_ascii_case(word)) {
            Some(kind) => drop(wanted.insert(*kind)),
            None if word.eq_ignore_ascii_case("all") => wanted.extend(KINDS),
            None => unknown.push(word.to_owned()),
        }
    }
    if !unknown.is_empty() {
        let problem = format!("has no event {}; known: all, {}", unknown.join(", "), KINDS.join(", "));
        raw.problem("BACKEND_EVENTS", problem);
    }
    // Always sent, so it need not be asked for.
    wanted.remove("session-status");
    wanted
}

fn signing(raw: &mut Raw) -> Vec<Secret> {
    let (new, old) = (raw.secret("WEBHOOK_SECRET"), raw.secret("WEBHOOK_SECRET_OLD"));
    for (name, secret) in [("WEBHOOK_SECRET", &new), ("WEBHOOK_SECRET_OLD", &old)] {
        if secret.as_ref().is_some_and(|secret| secret.len() < MIN_SECRET_BYTES) {
            raw.problem(name, format!("must be at least {MIN_SECRET_BYTES} characters long"));
        }
    }
    if new.is_none() && old.is_some() {
        raw.problem("WEBHOOK_SECRET_OLD", "is set, but WEBHOOK_SECRET is not");
    }
    new.into_iter().chain(old).map(Secret::new).collect()
}

fn is_whatsam_id(id: &str) -> bool {
    (3..=50).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The public backend takes no longer one.
const MAX_DESCRIPTION: usize = 255;

/// Shorter ones can be tried out.
const MIN_SECRET_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use crate::config::{BackendConfig, Config, ConfigProblems, Dialect};

    fn config(vars: &[(&str, &str)]) -> Result<(Config, Vec<String>), ConfigProblems> {
        Config::from_env(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn backend(vars: &[(&str, &str)]) -> BackendConfig {
        config(vars).unwrap().0.backend.unwrap()
    }

    fn problem(vars: &[(&str, &str)]) -> String {
        config(vars).err().unwrap().to_string()
    }

    const URL: (&str, &str) = ("BACKEND_URL", "http://backend:8000/");
    const TOKEN: (&str, &str) = ("WORKER_AUTH_TOKEN", "your-worker-secret-token");

    #[test]
    fn without_an_address_there_is_no_backend_and_with_one_the_guide_is_spoken() {
        assert!(config(&[TOKEN]).unwrap().0.backend.is_none());
        let found = backend(&[URL, TOKEN]);
        assert_eq!((found.url.as_str(), found.dialect), ("http://backend:8000", Dialect::Guide));
        assert_eq!((found.heartbeat.as_secs(), found.events.len(), found.signing.len()), (30, 0, 0));
        assert_eq!(found.token.unwrap().as_str(), TOKEN.1);
        assert_eq!(backend(&[("BACKEND_URL", "https://b/x/"), TOKEN]).url, "https://b/x");
    }

    #[test]
    fn events_are_chosen_by_name_and_unknown_names_are_told() {
        let found = backend(&[URL, TOKEN, ("BACKEND_EVENTS", "message, Message-Status,session-status")]);
        assert_eq!(found.events.into_iter().collect::<Vec<_>>(), ["message", "message-status"]);
        let all = backend(&[URL, TOKEN, ("BACKEND_EVENTS", "all")]).events;
        assert!(all.contains("session-gap") && !all.contains("session-status"), "{all:?}");
        assert!(problem(&[URL, ("BACKEND_EVENTS", "mesage")]).contains("no event mesage"));
    }

    #[test]
    fn addresses_that_cannot_be_right_are_refused() {
        for bad in ["backend:8000", "ftp://b", "http://", "http://a:b@c", "http://b/?x", "http://b/api/v1/"] {
            assert!(problem(&[("BACKEND_URL", bad)]).contains("BACKEND_URL"), "{bad}");
        }
    }

    #[test]
    fn a_name_that_the_public_backend_refuses_is_told_before_it_does() {
        let whatsam = ("BACKEND_DIALECT", "whatsam");
        for bad in ["w1.example.com", "ab", &"x".repeat(51)] {
            let text = problem(&[URL, TOKEN, whatsam, ("WORKER_ID", bad)]);
            assert!(text.contains("WORKER_ID") && text.contains("dot"), "{text}");
        }
        assert_eq!(backend(&[URL, TOKEN, whatsam, ("WORKER_ID", "W_1")]).dialect, Dialect::Whatsam);
        assert_eq!(backend(&[URL, TOKEN, ("WORKER_ID", "w1.example.com")]).dialect, Dialect::Guide);
    }

    #[test]
    fn a_second_secret_needs_a_first_and_a_missing_token_is_warned_about() {
        assert!(problem(&[("WEBHOOK_SECRET_OLD", "0123456789abcdef")]).contains("WEBHOOK_SECRET is not"));
        assert!(problem(&[("WEBHOOK_SECRET", "short")]).contains("at least 16"));
        let both = [
            URL,
            TOKEN,
            ("WEBHOOK_SECRET", "new-secret-new-secret"),
            ("WEBHOOK_SECRET_OLD", "old-secret-old-secret"),
        ];
        let signing = backend(&both).signing;
        assert_eq!(signing.iter().map(|s| s.as_str()).collect::<Vec<_>>(), [both[2].1, both[3].1]);
        assert!(config(&[URL]).unwrap().1[0].contains("no token"));
        let message =
            [URL, TOKEN, ("WORKER_ID", "w-1"), ("BACKEND_DIALECT", "whatsam"), ("BACKEND_EVENTS", "message")];
        assert!(config(&message).unwrap().1[0].contains("no route for message"));
    }

    #[test]
    fn the_address_that_is_told_is_one_that_others_can_use() {
        let told = |text: &str| super::default_endpoint(text.parse().unwrap());
        assert_eq!(told("127.0.0.1:8001"), "http://127.0.0.1:8001");
        assert_eq!(told("[::1]:8001"), "http://[::1]:8001");
        let host = told("0.0.0.0:8001");
        assert!(
            host.starts_with("http://") && host.ends_with(":8001") && !host.contains("0.0.0.0"),
            "{host}"
        );
    }
}
