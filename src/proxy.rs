//! A proxy between us and a server: `http://` (by CONNECT) or `socks5://`, with or without a name and a password.
//!
//! The proxy resolves the server's name; TLS goes through it untouched. Spec: RFC 9110 §9.3.6, RFC 1928, RFC 1929.
//! Knows nothing of who connects where.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Longest answer of an HTTP proxy to a CONNECT; its head only.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Which proxy, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<Login>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    name: String,
    password: String,
}

/// Why a proxy does not let us through.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection to it broke, or it was too slow.
    #[error("the connection to the proxy broke: {0}")]
    Io(#[from] io::Error),
    /// It wants another name or password.
    #[error("the proxy refuses our name and password")]
    Login,
    /// It will not connect us.
    #[error("the proxy refuses: {0}")]
    Refused(String),
    /// It does not speak the protocol it should.
    #[error("the proxy does not answer like one")]
    NotAProxy,
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({:?} {}:{})", self.kind, self.host, self.port)
    }
}

impl Proxy {
    /// Reads `http://[name:password@]host[:port]` or `socks5://…` (also `socks5h://`). Name and password may be
    /// percent-encoded. Ports default to 8080 and 1080.
    ///
    /// # Errors
    /// What it must be, without what it was: there may be a password in it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "must be http://[name:password@]host[:port] or socks5://[name:password@]host[:port]";
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 8080),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            _ => return Err(FORM),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Some(Login::parse(login).ok_or(FORM)?), authority),
            None => (None, rest),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().ok().filter(|port| *port > 0).ok_or(FORM)?)
            }
            _ => (authority, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty()
            || host.bytes().any(|byte| byte <= b' ' || matches!(byte, b'/' | b'?' | b'#' | 0x7f))
        {
            return Err(FORM);
        }
        Ok(Self { kind, host: host.to_owned(), port, login })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Asks the proxy at the other end of `tcp` for a connection to `host`; afterwards `tcp` leads there.
    ///
    /// # Errors
    /// [`ProxyError`]; the connection is of no use then.
    pub(crate) fn connect(
        &self,
        tcp: &TcpStream,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<(), ProxyError> {
        let mut timed = Timed { tcp, deadline };
        match self.kind {
            Kind::Http => self.http(&mut timed, host, port),
            Kind::Socks5 => self.socks5(&mut timed, host, port),
        }
    }

    fn http(&self, stream: &mut Timed<'_>, host: &str, port: u16) -> Result<(), ProxyError> {
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(Login { name, password }) = &self.login {
            let credentials = BASE64_STANDARD.encode(format!("{name}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes())?;
        // Byte by byte: what comes behind the head is not ours.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD_BYTES {
                return Err(ProxyError::NotAProxy);
            }
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8_lossy(&head);
        let line = head.lines().next().unwrap_or_default();
        let mut words = line.splitn(3, ' ');
        let (version, status) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !version.starts_with("HTTP/1.") {
            return Err(ProxyError::NotAProxy);
        }
        match status {
            "407" => Err(ProxyError::Login),
            status if status.len() == 3 && status.starts_with('2') => Ok(()),
            status => Err(ProxyError::Refused(status.chars().filter(char::is_ascii_digit).take(3).collect())),
        }
    }

    fn socks5(&self, stream: &mut Timed<'_>, host: &str, port: u16) -> Result<(), ProxyError> {
        let methods: &[u8] = if self.login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
        stream.write_all(methods)?;
        let [version, method] = stream.array()?;
        match (version, method, &self.login) {
            (5, 0, _) => {}
            (5, 2, Some(login)) => {
                let mut request = vec![1];
                put_text(&mut request, &login.name);
                put_text(&mut request, &login.password);
                stream.write_all(&request)?;
                let [_, status] = stream.array()?;
                if status != 0 {
                    return Err(ProxyError::Login);
                }
            }
            (5, _, _) => return Err(ProxyError::Login),
            _ => return Err(ProxyError::NotAProxy),
        }
        let mut request = vec![5, 1, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend(ip.octets());
            }
            Err(_) => {
                request.push(3);
                put_text(&mut request, host);
            }
        }
        request.extend(port.to_be_bytes());
        stream.write_all(&request)?;
        let [version, status, _, kind] = stream.array()?;
        match (version, status) {
            (5, 0) => {}
            (5, status) => return Err(ProxyError::Refused(socks_words(status).to_owned())),
            _ => return Err(ProxyError::NotAProxy),
        }
        // The address it connects from, and its port: nobody asks.
        let length = match kind {
            1 => 4,
            3 => {
                let [length] = stream.array()?;
                usize::from(length)
            }
            4 => 16,
            _ => return Err(ProxyError::NotAProxy),
        };
        stream.read_exact(&mut vec![0; length + 2])?;
        Ok(())
    }
}

impl Login {
    fn parse(text: &str) -> Option<Self> {
        let (name, password) = text.split_once(':').unwrap_or((text, ""));
        let login = Self { name: percent_decode(name)?, password: percent_decode(password)? };
        // RFC 1929 has one byte for each length.
        let fits = !login.name.is_empty() && login.name.len() <= 255 && login.password.len() <= 255;
        fits.then_some(login)
    }
}

/// A socket whose every wait ends at the deadline.
struct Timed<'a> {
    tcp: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<std::time::Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        self.tcp.read(bytes)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// One byte of length, then the text. Both ends have checked that it fits.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

/// RFC 1928 §6.
fn socks_words(status: u8) -> &'static str {
    match status {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the connection took too long",
        7 => "it does not connect",
        8 => "it does not know this kind of address",
        _ => "for a reason of its own",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_with_its_defaults_and_its_login() {
        let proxy = Proxy::parse("http://10.0.0.1").unwrap();
        assert_eq!(
            (proxy.kind, proxy.address(), proxy.login.is_none()),
            (Kind::Http, ("10.0.0.1", 8080), true)
        );
        let proxy = Proxy::parse("socks5h://a%40b:p%3Aw@[::1]:9050/").unwrap();
        assert_eq!((proxy.kind, proxy.address()), (Kind::Socks5, ("::1", 9050)));
        let login = proxy.login.clone().unwrap();
        assert_eq!((login.name.as_str(), login.password.as_str()), ("a@b", "p:w"));
        assert!(!format!("{proxy:?}").contains("p:w"));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        let wrong = [
            "",
            "proxy:8080",
            "https://p",
            "ftp://p",
            "http://",
            "http://:80",
            "http://p:0",
            "http://p:x",
            "http://a b",
            "http://p/path",
            "socks5://%zz:1@p",
            "http://:pw@p",
            "socks5://p:99999",
        ];
        for text in wrong {
            let problem = Proxy::parse(text).unwrap_err();
            assert!(problem.contains("http://[name:password@]host"), "{text}");
        }
    }
}
