//! One connection to WhatsApp without an account, to see whether the way is free.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::dial::{DialError, Target};
use crate::proxy::Proxy;

/// Where the way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The URL or the CA file.
    Setting,
    /// The host name has no address.
    Name,
    /// No address takes a TCP connection, or the proxy refuses.
    Route,
    /// The certificate is not trusted, or TLS fails.
    Tls,
    /// Something answers that is not WhatsApp.
    Answer,
}

/// Name, TCP, TLS and websocket upgrade, as a session would do them; how long that took.
///
/// # Errors
/// Where it ended, and in words.
pub(crate) fn reach(
    url: &str,
    ca_file: Option<&Path>,
    proxy: Option<Proxy>,
) -> Result<Duration, (Obstacle, String)> {
    let target = Target::new(url, ca_file, proxy).map_err(|problem| (Obstacle::Setting, problem))?;
    let begun = Instant::now();
    match target.dial() {
        Ok(connection) => {
            connection.close();
            Ok(begun.elapsed())
        }
        Err(error) => {
            let obstacle = match &error {
                DialError::Resolve { .. } => Obstacle::Name,
                DialError::Connect { .. } | DialError::Proxy(_) => Obstacle::Route,
                DialError::Tls { .. } => Obstacle::Tls,
                DialError::Io(_) | DialError::WebSocket(_) | DialError::Thread(_) | DialError::TimedOut => {
                    Obstacle::Answer
                }
            };
            Err((obstacle, error.to_string()))
        }
    }
}
