//! Who may call: a bearer token, or a local program when that is allowed.

use std::net::IpAddr;

use subtle::ConstantTimeEq as _;

use super::{http::Request, respond::ApiError};
use crate::config::ApiAuth;

/// The rule of one server.
#[derive(Clone)]
pub(super) struct Auth {
    mode: ApiAuth,
    token: Option<String>,
}

impl Auth {
    pub(super) fn new(mode: ApiAuth, token: Option<String>) -> Self {
        Self { mode, token }
    }

    /// Lets a request pass or says why not. The body is not looked at.
    ///
    /// # Errors
    /// 401 without or with a wrong token; 403 for a local request that a browser or proxy passed on.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        if self.mode == ApiAuth::Off || self.has_token(request) {
            return Ok(());
        }
        let may_be_local = self.mode == ApiAuth::Auto && request.is_loopback;
        if may_be_local && request.header("authorization").is_none() {
            return match foreign_origin(request) {
                None => Ok(()),
                Some(header) if self.token.is_some() => {
                    Err(unauthorized(&format!("a bearer token is required because of the header {header}")))
                }
                Some(header) => Err(ApiError::new(
                    403,
                    "FORBIDDEN_ORIGIN",
                    format!(
                        "without WORKER_AUTH_TOKEN only direct local requests are answered; header {header}"
                    ),
                )
                .with_detail("field", header)),
            };
        }
        Err(unauthorized("a valid `Authorization: Bearer <token>` is required"))
    }

    fn has_token(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return false };
        request
            .header("authorization")
            .and_then(|value| {
                let (scheme, given) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
            })
            .is_some_and(|given| bool::from(given.as_bytes().ct_eq(token.as_bytes())))
    }
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(401, "UNAUTHORIZED", message).with_detail("field", "Authorization")
}

/// The header that shows that somebody else stands behind a local connection: a proxy (then the peer is not local),
/// a foreign host name (DNS rebinding) or a web page (a browser sends its `Origin`).
fn foreign_origin(request: &Request) -> Option<&'static str> {
    if let Some(name) = FORWARDING.iter().find(|name| request.header(name).is_some()) {
        return Some(name);
    }
    if !request.header("host").is_some_and(is_loopback_host) {
        return Some("Host");
    }
    let is_local_origin =
        |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback_host(host));
    if request.header("origin").is_some_and(|origin| !is_local_origin(origin)) {
        return Some("Origin");
    }
    if request.header("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
        return Some("Sec-Fetch-Site");
    }
    None
}

/// `localhost`, `127.0.0.1`, `[::1]`, each with or without a port.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const FORWARDING: [&str; 6] =
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via"];

#[cfg(test)]
mod tests {
    use super::*;

    fn request(is_loopback: bool, headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Request { headers, is_loopback, ..Request::default() }
    }

    fn auth(mode: ApiAuth, token: Option<&str>) -> Auth {
        Auth::new(mode, token.map(str::to_owned))
    }

    const HOST: (&str, &str) = ("Host", "localhost:8001");
    const TOKEN: (&str, &str) = ("Authorization", "Bearer s3cret");

    #[test]
    fn the_right_token_passes_from_anywhere() {
        for mode in [ApiAuth::Auto, ApiAuth::Required] {
            let auth = auth(mode, Some("s3cret"));
            assert_eq!(auth.check(&request(false, &[("Host", "worker.example"), TOKEN])), Ok(()));
            assert_eq!(auth.check(&request(true, &[HOST, ("authorization", "bearer  s3cret")])), Ok(()));
        }
    }

    #[test]
    fn no_or_a_wrong_token_is_401_for_others() {
        for mode in [ApiAuth::Auto, ApiAuth::Required] {
            let auth = auth(mode, Some("s3cret"));
            for value in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cretX", "Basic s3cret", "s3cret"]
            {
                let error = auth.check(&request(false, &[HOST, ("Authorization", value)])).unwrap_err();
                assert_eq!(error.status, 401, "{value}");
            }
            assert_eq!(auth.check(&request(false, &[HOST])).unwrap_err().status, 401);
        }
    }

    #[test]
    fn local_programs_need_no_token_in_auto_but_a_wrong_one_is_told() {
        let both = [auth(ApiAuth::Auto, Some("s3cret")), auth(ApiAuth::Auto, None)];
        for auth in both {
            assert_eq!(auth.check(&request(true, &[HOST])), Ok(()));
            let wrong = request(true, &[HOST, ("Authorization", "Bearer x")]);
            assert_eq!(auth.check(&wrong).unwrap_err().status, 401);
        }
        let required = auth(ApiAuth::Required, Some("s3cret"));
        assert_eq!(required.check(&request(true, &[HOST])).unwrap_err().status, 401);
        assert_eq!(auth(ApiAuth::Off, None).check(&request(false, &[])), Ok(()));
    }

    #[test]
    fn proxies_rebound_names_and_web_pages_are_not_local_programs() {
        for headers in [
            &[HOST, ("X-Forwarded-For", "192.0.2.1")][..],
            &[HOST, ("Forwarded", "for=192.0.2.1")],
            &[("Host", "evil.example")],
            &[],
            &[HOST, ("Origin", "https://evil.example")],
            &[HOST, ("Origin", "null")],
            &[HOST, ("Origin", "http://localhost.evil.example")],
            &[HOST, ("Sec-Fetch-Site", "cross-site")],
        ] {
            let request = request(true, headers);
            assert_eq!(
                auth(ApiAuth::Auto, Some("s3cret")).check(&request).unwrap_err().status,
                401,
                "{headers:?}"
            );
            assert_eq!(auth(ApiAuth::Auto, None).check(&request).unwrap_err().status, 403, "{headers:?}");
        }
        let local =
            [("Host", "[::1]:8001"), ("Origin", "http://127.0.0.1:8001"), ("Sec-Fetch-Site", "same-origin")];
        assert_eq!(auth(ApiAuth::Auto, None).check(&request(true, &local)), Ok(()));
    }

    #[test]
    fn without_a_token_nobody_else_gets_in() {
        assert_eq!(auth(ApiAuth::Auto, None).check(&request(false, &[HOST, TOKEN])).unwrap_err().status, 401);
    }
}
