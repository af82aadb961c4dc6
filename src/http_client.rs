//! Agents for outgoing HTTP: pooled, every wait bounded, TLS by rustls with `ring`, no redirects, no proxy from the
//! environment. Statuses are data here, never errors. Who calls whom, and what answers mean, is for the users.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};

/// What differs between users.
#[derive(Debug, Clone)]
pub(crate) struct AgentOptions {
    /// For a whole exchange, from the name's resolution to the last byte of the answer.
    pub(crate) timeout: Duration,
    /// For resolving and connecting.
    pub(crate) connect_timeout: Duration,
    /// For one read or write without a byte moving; the other deadlines alone when there is none.
    pub(crate) stall_timeout: Option<Duration>,
    /// Connections kept open between requests.
    pub(crate) idle_connections: usize,
    /// A connection that rested this long is not used again: shorter than the servers' own limit, so that a request
    /// does not meet a connection that is just being closed.
    pub(crate) idle_age: Duration,
    /// PEM file with the only certificates trusted; the built-in roots when there is none.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: None,
            idle_connections: 8,
            // Node closes after 5 s.
            idle_age: Duration::from_secs(4),
            ca_file: None,
        }
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The file cannot be read.
    #[error("cannot read the CA file {file}")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has no certificate.
    #[error("the CA file {file} holds no certificate in PEM form")]
    NoCertificate {
        /// Which.
        file: PathBuf,
    },
}

/// Makes an agent. Cheap to clone; clones share the pool.
///
/// # Errors
/// [`AgentError`] when the CA file is of no use.
pub(crate) fn agent(options: &AgentOptions) -> Result<Agent, AgentError> {
    let roots = match &options.ca_file {
        Some(file) => RootCerts::new_with_certs(&certificates(file)?),
        None => RootCerts::WebPki,
    };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(roots)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .user_agent(USER_AGENT)
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(MAX_HEAD_BYTES)
        .max_idle_connections(options.idle_connections)
        .max_idle_connections_per_host(options.idle_connections)
        .max_idle_age(options.idle_age)
        .timeout_global(Some(options.timeout))
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(options.stall_timeout)
        .timeout_per_write(options.stall_timeout)
        .build();
    Ok(config.new_agent())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, AgentError> {
    let unreadable = |source| AgentError::Unreadable { file: file.to_owned(), source };
    let pem = std::fs::read(file).map_err(unreadable)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .map(|certificate| Certificate::from_der(&certificate).to_owned())
        .collect();
    if certificates.is_empty() {
        return Err(AgentError::NoCertificate { file: file.to_owned() });
    }
    Ok(certificates)
}

/// Sent with every request.
const USER_AGENT: &str = concat!("whatsapp-worker/", env!("CARGO_PKG_VERSION"));

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_certificates_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let options = AgentOptions { ca_file: Some(file.clone()), ..AgentOptions::default() };
        assert!(matches!(agent(&options), Err(AgentError::Unreadable { .. })));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(agent(&options).unwrap_err().to_string().contains("ca.pem"));
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&file, own.cert.pem()).unwrap();
        agent(&options).unwrap();
    }
}
