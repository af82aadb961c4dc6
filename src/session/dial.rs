//! From a URL to an open websocket: name, TCP, TLS, upgrade, each with a deadline.
//!
//! Runs on a helper thread that ends when it is done: a TLS handshake touches some 20 KiB of stack that a session's
//! own thread would keep resident for ever.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{
    connection::Connection,
    websocket::{Handshake, WebSocketError},
};
use crate::proxy::{Proxy, ProxyError};

/// For everything from the first SYN to the upgraded websocket (protocol-facts 1.1).
const DIAL: Duration = Duration::from_secs(20);
/// One address of several may take this long before the next is tried.
const ONE_ADDRESS: Duration = Duration::from_secs(4);
/// What a browser on the real service's page sends; the service checks it.
const ORIGIN: &str = "https://web.whatsapp.com";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The host name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// Which name.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// No address answered.
    #[error("cannot reach {host}: {source}")]
    Connect {
        /// Which name.
        host: String,
        /// Of the last address tried.
        source: std::io::Error,
    },
    /// The proxy in between.
    #[error("{0}")]
    Proxy(#[from] ProxyError),
    /// The certificate, or TLS itself.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// Which name.
        host: String,
        /// Why.
        source: rustls::Error,
    },
    /// The socket broke or was too slow after TCP was up.
    #[error("the connection broke while it was set up: {0}")]
    Io(#[from] std::io::Error),
    /// The upgrade failed.
    #[error("{0}")]
    WebSocket(#[from] WebSocketError),
    /// The operating system refused a helper thread.
    #[error("no thread to connect with: {0}")]
    Thread(std::io::Error),
    /// Nothing was heard of the helper thread.
    #[error("connecting took too long")]
    TimedOut,
}

/// Where to connect, and whom to trust.
#[derive(Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
    path: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    proxy: Option<Proxy>,
}

impl Target {
    /// Reads a `wss://` URL; `ca_file` adds to the built-in roots.
    pub(super) fn new(url: &str, ca_file: Option<&Path>, proxy: Option<Proxy>) -> Result<Self, String> {
        let rest = url.strip_prefix("wss://").ok_or_else(|| format!("{url}: must begin with wss://"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = split_authority(authority).ok_or_else(|| format!("{url}: bad host or port"))?;
        let name = ServerName::try_from(host.clone()).map_err(|_| format!("{url}: bad host name"))?;
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(format!("{url}: blanks and control characters must be escaped"));
        }
        Ok(Self { host, port, path: path.to_owned(), name, tls: tls_config(ca_file)?, proxy })
    }

    /// Connects, with a deadline for the whole of it.
    pub(super) fn dial(&self) -> Result<Connection, DialError> {
        self.dial_until(Instant::now() + DIAL)
    }

    fn dial_until(&self, deadline: Instant) -> Result<Connection, DialError> {
        let (host, port) = self.proxy.as_ref().map_or((self.host.as_str(), self.port), Proxy::address);
        let mut tcp = reach(host, port, deadline)?;
        if let Some(proxy) = &self.proxy {
            proxy.connect(&tcp, &self.host, self.port, deadline)?;
        }
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), self.name.clone())
            .map_err(|source| DialError::Tls { host: self.host.clone(), source })?;
        let authority =
            if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        let mut handshake = Handshake::new(&authority, &self.path, ORIGIN);
        tls.writer().write_all(handshake.request())?;
        let first = loop {
            while tls.wants_write() {
                set_deadline(&tcp, deadline)?;
                tls.write_tls(&mut tcp)?;
            }
            set_deadline(&tcp, deadline)?;
            if tls.read_tls(&mut tcp)? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            if let Err(source) = tls.process_new_packets() {
                // The alert says why to the other side; best effort.
                drop(tls.write_tls(&mut tcp));
                return Err(DialError::Tls { host: self.host.clone(), source });
            }
            if let Some(first) = upgraded(&mut tls, &mut handshake)? {
                break first;
            }
        };
        Ok(Connection::new(tcp, tls, &first)?)
    }
}

/// A TCP connection. IPv6 and IPv4 addresses by turns, each with a part of the time, so that one broken family does no
/// harm.
fn reach(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, DialError> {
    let resolve = |source| DialError::Resolve { host: host.to_owned(), source };
    let all: Vec<_> = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(resolve)?.collect();
    let addresses = by_turns(all);
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    let count = addresses.len();
    for (index, address) in addresses.into_iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = if index + 1 == count { left } else { left.min(ONE_ADDRESS) };
        if share.is_zero() {
            last = std::io::ErrorKind::TimedOut.into();
            break;
        }
        match TcpStream::connect_timeout(&address, share) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(DialError::Connect { host: host.to_owned(), source: last })
}

/// Feeds what TLS has to the handshake; the bytes behind it once it is complete.
fn upgraded(tls: &mut ClientConnection, handshake: &mut Handshake) -> Result<Option<Vec<u8>>, DialError> {
    let mut piece = [0u8; 1024];
    let mut first: Option<Vec<u8>> = None;
    loop {
        match tls.reader().read(&mut piece) {
            Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(length) => {
                let bytes = piece.get(..length).unwrap_or_default();
                match &mut first {
                    Some(first) => first.extend_from_slice(bytes),
                    None => first = handshake.response(bytes)?,
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(first),
            Err(error) => return Err(error.into()),
        }
    }
}

fn set_deadline(tcp: &TcpStream, deadline: Instant) -> std::io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    tcp.set_read_timeout(Some(left))?;
    tcp.set_write_timeout(Some(left))
}

fn by_turns(all: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (first, second): (Vec<_>, Vec<_>) = {
        let is_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
        all.into_iter().partition(|address| address.is_ipv6() == is_v6)
    };
    let mut second = second.into_iter();
    let mut mixed: Vec<_> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    mixed.extend(second);
    mixed
}

/// `host`, `host:port`, `[v6]:port`.
fn split_authority(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (authority, 443),
    };
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty() && !host.contains('@')).then(|| (host.to_owned(), port))
}

fn tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = ca_file {
        let bad = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
        let mut added = 0;
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(&error))? {
            roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
            added += 1;
        }
        if added == 0 {
            return Err(bad(&"no certificate in this file"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
