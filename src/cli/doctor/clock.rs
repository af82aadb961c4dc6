//! Whether this machine's clock is right, by the `Date` of servers that the worker talks to anyway.
//!
//! Leases, signatures for the object store, certificates and the time of messages rest on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::report::{Finding, Verdict};
use crate::{
    config::{Config, ObjectsAt},
    http_client::{AgentOptions, agent},
};

const NAME: &str = "clock";

/// Asks the object store, then WhatsApp's host; nothing is said when neither tells the time.
pub(super) fn check(config: &Config) -> Option<Finding> {
    let bucket = match &config.storage.objects {
        ObjectsAt::S3(s3) => Some((s3.endpoint.clone(), s3.ca_file.clone())),
        ObjectsAt::Directory(_) => None,
    };
    let whatsapp = config.whatsapp.url.strip_prefix("wss://").and_then(|rest| rest.split('/').next());
    // Behind a proxy only websockets go out.
    let whatsapp = whatsapp.filter(|_| config.whatsapp.proxy.is_none());
    let whatsapp = whatsapp.map(|host| (format!("https://{host}"), config.whatsapp.ca_file.clone()));
    bucket.into_iter().chain(whatsapp).find_map(|(url, ca_file)| {
        let ahead_s = seconds_ahead(&url, ca_file)?;
        Some(judge(ahead_s, &url))
    })
}

/// Ours minus theirs; `None` without an answer, or one without a `Date`.
fn seconds_ahead(url: &str, ca_file: Option<std::path::PathBuf>) -> Option<i64> {
    let options =
        AgentOptions { timeout: PATIENCE, connect_timeout: PATIENCE, ca_file, ..AgentOptions::default() };
    let answer = agent(&options).ok()?.head(url).call().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(answer.headers().get("date")?.to_str().ok()?).ok()?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(i64::try_from(ours).ok()? - theirs.timestamp().as_second())
}

fn judge(ahead_s: i64, url: &str) -> Finding {
    let off_s = ahead_s.unsigned_abs();
    let side = if ahead_s < 0 { "behind" } else { "ahead of" };
    let finding = if off_s <= EXACT_S {
        format!("as that of {url}")
    } else {
        format!("{off_s} s {side} that of {url}")
    };
    let advice = "keep it in step with NTP (`timedatectl set-ntp true`; `timedatectl` shows it)";
    match verdict(off_s) {
        Verdict::Ok => Finding::ok(NAME, finding),
        Verdict::Warn => Finding::warn(NAME, finding, advice),
        Verdict::Fail => Finding::fail(NAME, finding, advice),
    }
}

fn verdict(off_s: u64) -> Verdict {
    match off_s {
        0..WARN_S => Verdict::Ok,
        WARN_S..FAIL_S => Verdict::Warn,
        _ => Verdict::Fail,
    }
}

/// A header has whole seconds, and the way takes some time.
const EXACT_S: u64 = 2;
/// From here on leases of 45 s are judged wrongly by other workers.
const WARN_S: u64 = 10;
/// From here on object stores refuse signatures.
const FAIL_S: u64 = 15 * 60;
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_suffers_from_it() {
        assert_eq!([0, 9, 10, 899, 900].map(verdict), {
            use Verdict::{Fail, Ok, Warn};
            [Ok, Ok, Warn, Warn, Fail]
        });
        assert_eq!(judge(1, "x").finding, "as that of x");
        assert_eq!(judge(-70, "x").finding, "70 s behind that of x");
    }

    #[test]
    fn the_time_is_read_from_whatever_a_server_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 1024]).unwrap();
            let date = "Date: Thu, 01 Jan 1970 00:16:40 GMT";
            write!(client, "HTTP/1.1 403 Forbidden\r\n{date}\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        let ahead = seconds_ahead(&url, None).unwrap();
        server.join().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(ahead.unsigned_abs().abs_diff(now - 1000) <= 5, "{ahead}");
    }
}
