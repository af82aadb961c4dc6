//! What must be reachable: our own port and WhatsApp.

use std::net::TcpListener;

use super::report::Finding;
use crate::{
    config::Config,
    session::{Obstacle, reach},
    storage::local::is_locked,
    systemd::is_healthy,
    worker::reachable,
};

/// All checks.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    vec![own_port(config), whatsapp(config)]
}

/// Whether the API answers, or could be served.
fn own_port(config: &Config) -> Finding {
    const NAME: &str = "own port";
    let bind = config.bind;
    let is_running = is_locked(&config.state_dir).unwrap_or(false);
    let answers = is_healthy(reachable(bind));
    match TcpListener::bind(bind) {
        Ok(_) if is_running => Finding::fail(
            NAME,
            format!("a worker uses the state directory, and nothing listens on {bind}"),
            "look at its log; was WORKER_PORT or WORKER_BIND changed since its start?",
        ),
        Ok(_) => Finding::ok(NAME, format!("{bind} is free")),
        Err(_) if is_running && answers => Finding::ok(NAME, format!("the worker answers on {bind}")),
        Err(_) if is_running => Finding::fail(
            NAME,
            format!("a worker runs, and {bind} does not answer GET /health"),
            "look at its log and restart it",
        ),
        Err(error) => Finding::fail(
            NAME,
            format!("{bind} cannot be listened on: {error}"),
            "set WORKER_PORT or WORKER_BIND, or stop what uses it (`ss -ltnp` shows it)",
        ),
    }
}

fn whatsapp(config: &Config) -> Finding {
    const NAME: &str = "whatsapp";
    let url = &config.whatsapp.url;
    match reach(url, config.whatsapp.ca_file.as_deref(), config.whatsapp.proxy.clone()) {
        Ok(took) => Finding::ok(
            NAME,
            format!("{url} answers, {} ms for name, TCP, TLS and upgrade", took.as_millis()),
        ),
        Err((obstacle, problem)) => Finding::fail(
            NAME,
            problem,
            match obstacle {
                Obstacle::Setting => "correct WHATSAPP_URL or WHATSAPP_CA_FILE",
                Obstacle::Name => "look at /etc/resolv.conf: this machine must resolve names of the internet",
                Obstacle::Route => "let this machine connect out to TCP port 443 (firewall, route)",
                Obstacle::Tls => {
                    "something between here and WhatsApp opens TLS; take it out of the way, or trust it by WHATSAPP_CA_FILE"
                }
                Obstacle::Answer => {
                    "something that is not WhatsApp answers (a proxy, a login page); take it out of the way"
                }
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    fn config(vars: &[(&str, &str)]) -> Config {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_env(vars).unwrap().0
    }

    #[test]
    fn a_port_that_somebody_else_uses_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let config = config(&[("WORKER_PORT", &port), ("STATE_DIR", dir.path().to_str().unwrap())]);
        assert_eq!(own_port(&config).verdict, Verdict::Fail);
        drop(taken);
        let found = own_port(&config);
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    }

    #[test]
    fn each_place_where_the_way_to_whatsapp_ends_has_its_own_advice() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let found = whatsapp(&config(&[("WHATSAPP_URL", &format!("wss://{closed}/ws"))]));
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.advice.unwrap().contains("firewall"));
        let found = whatsapp(&config(&[("WHATSAPP_URL", "wss://does-not-exist.invalid/ws")]));
        assert!(found.advice.unwrap().contains("resolv.conf"), "{}", found.finding);
    }
}
