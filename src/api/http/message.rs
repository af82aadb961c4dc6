//! What a handler gets and what it gives back.

use serde::{Serialize, de::DeserializeOwned};

/// Path segments and query parameters of a request target.
pub type Target = (Vec<String>, Vec<(String, String)>);

/// One complete, checked request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST`, … as sent.
    pub method: String,
    /// The path split at `/`, percent-decoded; empty segments are dropped, so `//a/` is `["a"]`.
    pub segments: Vec<String>,
    /// Query parameters in order, percent-decoded.
    pub query: Vec<(String, String)>,
    /// Header fields in order; names as sent, values without surrounding blanks.
    pub headers: Vec<(String, String)>,
    /// The body, framing removed.
    pub body: Vec<u8>,
    /// The peer's socket address is a loopback address. Comes from the socket, never from a header.
    pub is_loopback: bool,
}

impl Request {
    /// Splits and decodes a request target such as `/session/a/messages?limit=2`.
    ///
    /// `None` when a percent escape is broken, is not UTF-8, or hides a `/` or a control character inside a segment.
    #[must_use]
    pub fn split_target(target: &str) -> Option<Target> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let segments = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode(segment, false).filter(|text| is_plain_segment(text)))
            .collect::<Option<Vec<_>>>()?;
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((percent_decode(name, true)?, percent_decode(value, true)?))
            })
            .collect::<Option<Vec<_>>>()?;
        Some((segments, query))
    }

    /// The path segments as slices, for `match`.
    #[must_use]
    pub fn path(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// First value of a query parameter.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// First value of a header field; names compare without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Whatever `serde_json` says when the body is not JSON or not of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// One complete answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Header fields besides `Content-Length`, `Date`, `Server` and `Connection`, which the server adds.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a body of this media type.
    #[must_use]
    pub fn bytes(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body }
    }

    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        // Only a map with non-text keys or a failing `Serialize` could end here; neither is ever answered.
        let body = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
        Self::bytes(status, "application/json", body)
    }

    /// A plain text answer.
    #[must_use]
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::bytes(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// The same answer with one more header field. Line breaks in the value become blanks.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn is_plain_segment(text: &str) -> bool {
    !text.contains('/') && !text.chars().any(char::is_control)
}

fn percent_decode(text: &str, plus_is_blank: bool) -> Option<String> {
    if !text.bytes().any(|byte| byte == b'%' || plus_is_blank && byte == b'+') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus_is_blank => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_and_decoded() {
        let (segments, query) = Request::split_target("//session/a%2Db/?limit=5&chat=1%40lid&x=a+b").unwrap();
        assert_eq!(segments, ["session", "a-b"]);
        let wanted = [("limit", "5"), ("chat", "1@lid"), ("x", "a b")];
        assert_eq!(query, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_slash_hidden_in_a_segment_is_refused() {
        for target in ["/session/..%2f..%2fetc", "/a%00b", "/a%", "/a%4", "/a%zz", "/%ff"] {
            assert_eq!(Request::split_target(target), None, "{target}");
        }
    }

    #[test]
    fn headers_are_found_without_case() {
        let request = Request { headers: vec![("X-A".into(), "1".into())], ..Request::default() };
        assert_eq!(request.header("x-a"), Some("1"));
        assert_eq!(request.header("x-b"), None);
    }
}
