//! One request and its answer: signed by rust-s3, sent by the pooled agent, tried again where that is right.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use rand_core::{OsRng, RngCore as _};
use s3::{region::Region, signing};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use ureq::{
    Agent,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST},
    },
};
use url::Url;

use super::{
    super::{ObjectError, Place},
    answer::{self, Refusal},
};
use crate::config::{S3Config, Secret};

/// A request, before it is signed.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Empty: the bucket.
    pub(super) key: &'a str,
    /// Already encoded.
    pub(super) query: String,
    pub(super) body: &'a [u8],
    pub(super) content_type: Option<&'a str>,
    /// Name and value of the header.
    pub(super) condition: Option<(&'static str, String)>,
    pub(super) retry: Retry,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, key: &'a str) -> Self {
        Self {
            method,
            key,
            query: String::new(),
            body: &[],
            content_type: None,
            condition: None,
            retry: Retry::WhenItMayHelp,
        }
    }
}

/// When a request is sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Doing it twice is the same as once.
    WhenItMayHelp,
    /// Doing it twice is not.
    WhenItDidNotArrive,
}

/// An answer that is no refusal.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The way to one bucket.
pub(super) struct Exchange {
    agent: Agent,
    place: Place,
    clock: fn() -> SystemTime,
    /// `https://host:port/bucket`
    base: String,
    host: String,
    region: Region,
    access_key: String,
    secret_key: Secret,
}

impl Exchange {
    pub(super) fn new(
        agent: Agent,
        config: &S3Config,
        place: Place,
        clock: fn() -> SystemTime,
    ) -> Result<Self, ObjectError> {
        let bad = |problem: &str| ObjectError::Other { place: place.clone(), problem: problem.to_owned() };
        let base = format!("{}/{}", config.endpoint, config.bucket);
        let url = Url::parse(&base).map_err(|_| bad("MINIO_ENDPOINT is no address"))?;
        let host = url.host_str().ok_or_else(|| bad("MINIO_ENDPOINT names no host"))?;
        // As the agent writes it: without the port that the scheme implies.
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let region = Region::Custom { region: config.region.clone(), endpoint: config.endpoint.clone() };
        Ok(Self {
            agent,
            place,
            clock,
            base,
            host,
            region,
            access_key: config.access_key.clone(),
            secret_key: config.secret_key.clone(),
        })
    }

    /// Sends until there is an answer, a refusal, or no point in trying again.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer, Refusal> {
        let mut attempt = 1;
        loop {
            let result = self.send_once(request);
            let Err(refusal) = &result else { return result };
            let is_again = match request.retry {
                Retry::WhenItMayHelp => refusal.may_pass(),
                Retry::WhenItDidNotArrive => refusal.did_not_arrive(),
            };
            if !is_again || attempt == ATTEMPTS {
                return result;
            }
            rest(attempt);
            attempt += 1;
        }
    }

    fn send_once(&self, request: &Request<'_>) -> Result<Answer, Refusal> {
        let now = (self.clock)();
        let (url, headers) = self
            .sign(request, now)
            .map_err(|problem| Refusal::Failed(ObjectError::Other { place: self.place.clone(), problem }))?;
        let mut outgoing = ureq::http::Request::builder().method(&request.method).uri(url.as_str());
        for (name, value) in &headers {
            outgoing = outgoing.header(name, value);
        }
        let with_body = request.method == Method::PUT;
        let sent = if with_body {
            outgoing.body(request.body).map_err(Into::into).and_then(|outgoing| self.agent.run(outgoing))
        } else {
            outgoing.body(()).map_err(Into::into).and_then(|outgoing| self.agent.run(outgoing))
        };
        let mut response = sent.map_err(|error| answer::no_answer(&self.place, error))?;
        let body = if request.method == Method::HEAD {
            Vec::new()
        } else {
            let body = response.body_mut().with_config().limit(MAX_OBJECT_BYTES).read_to_vec();
            body.map_err(|error| answer::broken_body(&self.place, error))?
        };
        let (status, headers) = (response.status(), response.headers().clone());
        if is_success(&request.method, status) {
            return Ok(Answer { headers, body });
        }
        let refused = answer::Refused {
            place: &self.place,
            is_https: self.base.starts_with("https:"),
            is_object: !request.key.is_empty(),
            is_head: request.method == Method::HEAD,
            status: status.as_u16(),
            headers: &headers,
            body: &body,
            now,
        };
        Err(refused.read())
    }

    /// The URL and every header, `authorization` with the signature among them.
    fn sign(&self, request: &Request<'_>, now: SystemTime) -> Result<(Url, HeaderMap), String> {
        let path = if request.key.is_empty() {
            String::new()
        } else {
            format!("/{}", signing::uri_encode(request.key, false))
        };
        let query = if request.query.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{query}{}", self.base, request.query);
        let url = Url::parse(&url).map_err(|error| error.to_string())?;
        let now = OffsetDateTime::from(now);
        let digest: String = Sha256::digest(request.body).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, header(&self.host)?);
        headers.insert(HeaderName::from_static("x-amz-content-sha256"), header(&digest)?);
        headers.insert(HeaderName::from_static("x-amz-date"), header(&timestamp(now))?);
        if let Some(content_type) = request.content_type {
            headers.insert(CONTENT_TYPE, header(content_type)?);
        }
        if let Some((name, value)) = &request.condition {
            headers.insert(HeaderName::from_static(name), header(value)?);
        }
        let bad = |error: s3::error::S3Error| format!("the request cannot be signed: {error}");
        let canonical =
            signing::canonical_request(request.method.as_str(), &url, &headers, &digest).map_err(bad)?;
        let text = signing::string_to_sign(&now, &self.region, &canonical).map_err(bad)?;
        let key = signing::signing_key(&now, self.secret_key.as_str(), &self.region, "s3").map_err(bad)?;
        let signature = hmac_hex(&key, text.as_bytes());
        let names = signing::signed_header_string(&headers);
        let authorization =
            signing::authorization_header(&self.access_key, &now, &self.region, &names, &signature)
                .map_err(bad)?;
        headers.insert(AUTHORIZATION, header(&authorization)?);
        // Not signed: proxies take it away. A store that refuses says so before a large body is on its way.
        if request.body.len() >= EXPECT_FROM_BYTES {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        Ok((url, headers))
    }
}

/// A listing of a bucket that is missing is no success although some answer 200 with an error inside.
fn is_success(method: &Method, status: StatusCode) -> bool {
    match *method {
        Method::GET | Method::HEAD => status == StatusCode::OK,
        _ => status.is_success(),
    }
}

fn header(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| "a header would have characters that it cannot have".to_owned())
}

/// `20260102T030405Z`
fn timestamp(time: OffsetDateTime) -> String {
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn hmac_hex(key: &[u8], text: &[u8]) -> String {
    use hmac::Mac as _;
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits before the attempt after this one.
pub(super) fn rest(attempt: u32) {
    thread::sleep(pause(attempt));
}

/// Twice as long after each attempt, with up to half of it by chance, so that workers do not come back in step.
fn pause(attempt: u32) -> Duration {
    let full = FIRST_PAUSE * 2u32.saturating_pow(attempt - 1);
    let half = full / 2;
    half + half.mul_f64(f64::from(OsRng.next_u32()) / f64::from(u32::MAX))
}

/// Tries per call.
pub(super) const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// Name and connection, TLS included.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Without a byte moving, in either direction.
pub(super) const STALL: Duration = Duration::from_secs(20);
/// A whole exchange: 100 MB at 1 MB/s, with some patience.
pub(super) const WHOLE: Duration = Duration::from_secs(150);

/// WhatsApp's largest documents have 2 GB; nobody keeps those here.
const MAX_OBJECT_BYTES: u64 = 1 << 30;
const EXPECT_FROM_BYTES: usize = 1 << 20;
