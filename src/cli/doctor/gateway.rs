//! The backend gateway: whether it is there, takes our token, has our time, and could call us back.

use std::time::Duration;

use super::report::Finding;
use crate::{
    backend::{Reached, probe},
    config::{BackendConfig, Config, default_endpoint},
    http_client::{AgentOptions, agent},
    storage::local::is_locked,
};

/// All checks; none without a backend.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let Some(backend) = &config.backend else {
        return vec![Finding::ok("backend", "BACKEND_URL is not set: nothing is sent anywhere")];
    };
    let mut findings = reached(&backend.url, probe(backend, &config.worker_id));
    findings.push(callback(config, backend));
    findings
}

fn reached(url: &str, reached: Reached) -> Vec<Finding> {
    const NAME: &str = "backend";
    match reached {
        Reached::Fine { took, ahead_s } => {
            let fine = format!("{url} answers and takes the token, {} ms", took.as_millis());
            let mut findings = vec![Finding::ok(NAME, fine)];
            findings.extend(ahead_s.map(clock));
            findings
        }
        Reached::TokenRefused => vec![Finding::fail(
            NAME,
            format!("{url} answers and refuses the token"),
            "set WORKER_AUTH_TOKEN to the token that the backend has for its workers",
        )],
        Reached::NoRoute => vec![Finding::fail(
            NAME,
            format!("{url} answers, but not as a backend of this dialect"),
            "look at BACKEND_URL (without /api) and BACKEND_DIALECT",
        )],
        Reached::Trouble { status } => vec![Finding::warn(
            NAME,
            format!("{url} answers {status}"),
            "look at the backend's log; events wait until it works",
        )],
        Reached::Unreachable(problem) => vec![Finding::fail(
            NAME,
            format!("{url}: {problem}"),
            "is it running, is BACKEND_URL right, may this machine connect to it (firewall), is its certificate \
             trusted (BACKEND_CA_FILE)?",
        )],
    }
}

fn clock(ahead_s: i64) -> Finding {
    const NAME: &str = "clock";
    if ahead_s.abs() <= MAX_SKEW_S {
        return Finding::ok(NAME, format!("within {} s of the backend's", ahead_s.abs().max(1)));
    }
    let direction = if ahead_s > 0 { "ahead of" } else { "behind" };
    Finding::warn(
        NAME,
        format!("{} s {direction} the backend's", ahead_s.abs()),
        "keep both machines in time (NTP): signatures of webhooks and leases of sessions depend on it",
    )
}

/// Whether the address that the backend is told leads to us, as far as that can be seen from here.
fn callback(config: &Config, backend: &BackendConfig) -> Finding {
    const NAME: &str = "call-back";
    let endpoint = config.endpoint.clone().unwrap_or_else(|| default_endpoint(config.bind));
    if !is_locked(&config.state_dir).unwrap_or(false) {
        return Finding::ok(NAME, format!("{endpoint}/health is not tried: the worker does not run"));
    }
    let options = AgentOptions { timeout: TIMEOUT, ..AgentOptions::default() };
    let answer = agent(&options)
        .map_err(|error| error.to_string())
        .and_then(|agent| agent.get(format!("{endpoint}/health")).call().map_err(|error| error.to_string()));
    let advice = format!(
        "set WORKER_ENDPOINT to an address under which {} can reach this worker (name, firewall, WORKER_BIND)",
        backend.url
    );
    match answer {
        Ok(answer) if answer.status() == 200 => {
            let remark = if config.bind.ip().is_loopback() {
                "; only from this machine, because the worker listens on loopback"
            } else {
                ""
            };
            Finding::ok(NAME, format!("{endpoint}/health answers from here{remark}"))
        }
        Ok(answer) => {
            Finding::fail(NAME, format!("{endpoint}/health answers {}", answer.status().as_u16()), advice)
        }
        Err(problem) => Finding::fail(NAME, format!("{endpoint}/health: {problem}"), advice),
    }
}

/// Receivers of webhooks refuse signatures that are some minutes old.
const MAX_SKEW_S: i64 = 30;

const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn each_trouble_has_its_own_advice() {
        let advice = |with: Reached| reached("http://b", with).remove(0).advice.unwrap_or_default();
        assert!(advice(Reached::TokenRefused).contains("WORKER_AUTH_TOKEN"));
        assert!(advice(Reached::NoRoute).contains("BACKEND_DIALECT"));
        assert!(advice(Reached::Unreachable("refused".into())).contains("firewall"));
        let fine = reached("http://b", Reached::Fine { took: Duration::from_millis(3), ahead_s: Some(-400) });
        assert_eq!((fine[0].verdict, fine[1].verdict), (Verdict::Ok, Verdict::Warn));
        assert!(fine[1].finding.contains("400 s behind"), "{}", fine[1].finding);
        assert_eq!(clock(3).verdict, Verdict::Ok);
    }

    #[test]
    fn without_a_backend_that_is_said_and_one_that_is_not_there_is_found_out() {
        let config = |vars: &[(&str, &str)]| {
            let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Config::from_env(vars).unwrap().0
        };
        let none = check(&config(&[]));
        assert!(none.len() == 1 && none[0].finding.contains("not set"), "{none:?}");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let found = check(&config(&[("BACKEND_URL", &format!("http://{closed}"))]));
        assert_eq!(found[0].verdict, Verdict::Fail, "{found:?}");
    }
}
