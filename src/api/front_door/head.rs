//! Request heads: found, checked and written anew for tiny_http.
//!
//! What tiny_http gets is built here from checked parts, so that the two can never disagree about where a request
//! ends: no `Transfer-Encoding`, no `Connection`, no `Expect`, at most one `Content-Length`, ASCII only.

use super::refusal::Refusal;

/// Longest request head, request line included.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most header fields in one head.
const MAX_HEADERS: usize = 100;

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// This many bytes, within the limit.
    Length(usize),
    /// Chunked coding.
    Chunked,
}

/// A checked head.
#[derive(Debug)]
pub(super) struct Head {
    /// How the body comes.
    pub(super) framing: Framing,
    /// The connection may carry another request.
    pub(super) keep_alive: bool,
    /// `HEAD`: the answer has no body.
    pub(super) is_head: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// Request line and fields for tiny_http, without `Content-Length` and the blank line.
    pub(super) forward: Vec<u8>,
}

/// Index behind the blank line that ends a head. Looks only at what came since `scanned`.
pub(super) fn find_end(input: &[u8], scanned: usize) -> Option<usize> {
    let start = scanned.saturating_sub(3);
    let fresh = input.get(start..)?;
    fresh.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(offset, _)| {
        let before = &input[..start + offset];
        (before.ends_with(b"\n") || before.ends_with(b"\n\r")).then_some(start + offset + 1)
    })
}

/// Checks a complete head (blank line included) and builds what tiny_http will read.
///
/// # Errors
/// The [`Refusal`] to answer.
pub(super) fn check(bytes: &[u8], max_body_bytes: usize) -> Result<Head, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::malformed("the request head is incomplete")),
        Err(error) => return Err(parse_refusal(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::malformed("the request line is incomplete"));
    };
    let fields = Fields::read(request.headers)?;
    if minor == 1 && fields.host.is_none() {
        return Err(Refusal::header("Host", "missing"));
    }
    let framing = fields.framing(minor, max_body_bytes)?;
    let expects_continue = fields.expects_continue()?;
    let mut forward = Vec::with_capacity(bytes.len() + 32);
    push_request_line(&mut forward, method, target)?;
    push_fields(&mut forward, request.headers)?;
    Ok(Head {
        framing,
        keep_alive: if minor == 1 { !fields.close } else { fields.keep_alive && !fields.close },
        is_head: method == "HEAD",
        expects_continue: expects_continue && minor == 1,
        forward,
    })
}

/// Whether a forwarded head asks for this path, with or without a query.
pub(super) fn is_for(forward: &[u8], path: &str) -> bool {
    let target = forward.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    target.strip_prefix(path.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"?"))
}

/// Ends a forwarded head once the body's length is known.
pub(super) fn finish_forward(forward: &mut Vec<u8>, body_len: usize) {
    if body_len > 0 {
        forward.extend_from_slice(format!("Content-Length: {body_len}\r\n").as_bytes());
    }
    forward.extend_from_slice(b"\r\n");
}

/// The fields that decide about framing, each seen at most once.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    idempotency_key: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let name = header.name;
            let slot = match name.len() {
                4 if name.eq_ignore_ascii_case("host") => &mut fields.host,
                6 if name.eq_ignore_ascii_case("expect") => &mut fields.expect,
                12 if name.eq_ignore_ascii_case("content-type") => &mut fields.content_type,
                13 if name.eq_ignore_ascii_case("authorization") => &mut fields.authorization,
                14 if name.eq_ignore_ascii_case("content-length") => &mut fields.content_length,
                15 if name.eq_ignore_ascii_case("idempotency-key") => &mut fields.idempotency_key,
                17 if name.eq_ignore_ascii_case("transfer-encoding") => &mut fields.transfer_encoding,
                10 if name.eq_ignore_ascii_case("connection") => {
                    fields.note_connection(header.value);
                    continue;
                }
                _ => continue,
            };
            if slot.replace(header.value).is_some() {
                return Err(Refusal::header(name, "must not be given twice"));
            }
        }
        Ok(fields)
    }

    fn note_connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn framing(&self, minor: u8, max_body_bytes: usize) -> Result<Framing, Refusal> {
        match (self.content_length, self.transfer_encoding) {
            (None, None) => Ok(Framing::Empty),
            (Some(_), Some(_)) => {
                Err(Refusal::header("Transfer-Encoding", "must not come together with Content-Length"))
            }
            (None, Some(coding)) if minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            (None, Some(_)) => Err(Refusal::header("Transfer-Encoding", "only `chunked` is understood")),
            (Some(length), None) => match parse_length(length) {
                None => Err(Refusal::header("Content-Length", "must be a number of bytes")),
                Some(0) => Ok(Framing::Empty),
                Some(length) => usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= max_body_bytes)
                    .map(Framing::Length)
                    .ok_or_else(|| too_large(max_body_bytes)),
            },
        }
    }

    fn expects_continue(&self) -> Result<bool, Refusal> {
        match self.expect {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
            Some(_) => Err(Refusal::new(
                417,
                "EXPECTATION_FAILED",
                "header Expect: only `100-continue` is understood",
            )
            .about("Expect")),
        }
    }
}

/// 413 for a body above the limit.
pub(super) fn too_large(max_body_bytes: usize) -> Refusal {
    Refusal::new(413, "BODY_TOO_LARGE", format!("the body must not be longer than {max_body_bytes} bytes"))
        .about("body")
}

/// Digits only: no sign, no list, no blanks. Longer than `u64` counts as too large, which is what it is.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn parse_refusal(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(431, "HEAD_TOO_LARGE", format!("more than {MAX_HEADERS} header fields"))
        }
        httparse::Error::Version => {
            Refusal::new(505, "HTTP_VERSION", "only HTTP/1.0 and HTTP/1.1 are understood")
        }
        httparse::Error::HeaderName => Refusal::malformed("a header name holds a character it must not"),
        httparse::Error::HeaderValue => Refusal::malformed("a header value holds a character it must not"),
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            Refusal::malformed("the request is not HTTP")
        }
    }
}

fn push_request_line(out: &mut Vec<u8>, method: &str, target: &str) -> Result<(), Refusal> {
    // Absolute form (`GET http://host/path`) is legal towards an origin server; the path is what counts.
    let path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') && !scheme.contains('?') => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::malformed("the request target must be a path that starts with `/`"));
    }
    for part in [method, " ", path, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

fn push_fields(out: &mut Vec<u8>, headers: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    for header in headers {
        if HOP_BY_HOP.iter().any(|name| name.eq_ignore_ascii_case(header.name)) {
            continue;
        }
        if !header.value.iter().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t')) {
            return Err(Refusal::header(header.name, "must be plain ASCII"));
        }
        out.extend_from_slice(header.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(header.value);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Fields that concern only the connection between the client and the front door.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Result<Head, Refusal> {
        check(text.as_bytes(), 1000)
    }

    fn post(fields: &str) -> Result<Head, Refusal> {
        check_text(&format!("POST /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
    }

    #[test]
    fn the_end_of_a_head_is_found_across_reads() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
        assert_eq!(find_end(head, 0), Some(head.len() - 4));
        for scanned in 0..head.len() - 4 {
            assert_eq!(find_end(&head[..head.len() - 4], scanned), Some(head.len() - 4), "{scanned}");
        }
        assert_eq!(find_end(&head[..head.len() - 5], 0), None);
        assert_eq!(find_end(b"GET / HTTP/1.1\n\n", 0), Some(16));
    }

    #[test]
    fn a_good_head_is_written_anew_without_hop_by_hop_fields() {
        let head = check_text(
            "POST /a?b=c HTTP/1.1\r\nHost: h\r\nConnection: close, x\r\nContent-Length: 7\r\nTE: trailers\r\nX-A:  1 \r\n\r\n",
        )
        .unwrap();
        assert_eq!(head.framing, Framing::Length(7));
        assert!(!head.keep_alive);
        let mut forward = head.forward;
        finish_forward(&mut forward, 7);
        assert_eq!(
            String::from_utf8(forward).unwrap(),
            "POST /a?b=c HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nContent-Length: 7\r\n\r\n"
        );
    }

    #[test]
    fn the_path_of_a_forwarded_head_is_known() {
        let head = check_text("GET /health?x=1 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(is_for(&head.forward, "/health"));
        assert!(!is_for(&head.forward, "/heal") && !is_for(&head.forward, "/health/a"));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 0x5\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content-Length: 5\r\n folded: 1\r\n",
        ] {
            assert_eq!(post(fields).unwrap_err().status, 400, "{fields:?}");
        }
    }

    #[test]
    fn a_header_that_matters_is_refused_when_given_twice_and_named() {
        for name in ["Host", "Authorization", "Content-Type", "Idempotency-Key", "Expect"] {
            let refusal = post(&format!("{name}: a\r\n{name}: a\r\n")).unwrap_err();
            assert_eq!((refusal.status, refusal.field.as_deref()), (400, Some(name)));
        }
    }

    #[test]
    fn a_body_above_the_limit_is_413_however_absurd() {
        for length in ["1001", "200000000000000", "99999999999999999999999999"] {
            assert_eq!(post(&format!("Content-Length: {length}\r\n")).unwrap_err().status, 413);
        }
        assert_eq!(post("Content-Length: 1000\r\n").unwrap().framing, Framing::Length(1000));
    }

    #[test]
    fn host_is_required_in_http_1_1_only() {
        assert_eq!(check_text("GET / HTTP/1.1\r\n\r\n").unwrap_err().field.as_deref(), Some("Host"));
        let head = check_text("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!head.keep_alive);
        assert!(check_text("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
    }

    #[test]
    fn other_versions_expectations_and_targets_are_refused() {
        assert_eq!(check_text("GET / HTTP/2.0\r\nHost: h\r\n\r\n").unwrap_err().status, 505);
        assert_eq!(post("Expect: cake\r\n").unwrap_err().status, 417);
        assert!(post("Expect: 100-continue\r\nContent-Length: 1\r\n").unwrap().expects_continue);
        for line in ["GET a HTTP/1.1", "CONNECT h:1 HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /\u{fc} HTTP/1.1"] {
            assert_eq!(check_text(&format!("{line}\r\nHost: h\r\n\r\n")).unwrap_err().status, 400, "{line}");
        }
        let head = check_text("GET http://h:8/x?y=http://z HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(head.forward.starts_with(b"GET /x?y=http://z HTTP/1.1\r\n"));
        let head = check_text("GET /x?y=http://z/ HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(head.forward.starts_with(b"GET /x?y=http://z/ HTTP/1.1\r\n"));
    }

    #[test]
    fn a_non_ascii_header_is_named() {
        let refusal = post("X-Name: J\u{f6}rg\r\n").unwrap_err();
        assert_eq!((refusal.status, refusal.field.as_deref()), (400, Some("X-Name")));
    }

    #[test]
    fn too_many_fields_are_431() {
        assert_eq!(post(&"X: 1\r\n".repeat(100)).unwrap_err().status, 431);
    }
}
