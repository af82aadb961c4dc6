//! What an answer that is no success means, and what it means that there is none.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use ureq::{Error, Timeout, http::HeaderMap};

use super::super::{ObjectError, Place};

/// Why there is no success.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no such object.
    NoObject,
    /// The condition of a conditional write does not hold.
    ConditionNotMet,
    /// Somebody else does the same at this moment.
    Conflict {
        /// HTTP status.
        status: u16,
        /// The store's word.
        code: String,
    },
    /// Everything else.
    Failed(ObjectError),
}

/// MinIO, which listens before it can do anything.
const NOT_STARTED: &str = "XMinioServerNotInitialized";

impl Refusal {
    /// Whether trying again soon may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::NoObject | Self::ConditionNotMet => false,
            Self::Conflict { .. } => true,
            Self::Failed(error) => matches!(
                error,
                ObjectError::Resolve { .. }
                    | ObjectError::Unreachable { .. }
                    | ObjectError::Timeout { .. }
                    | ObjectError::Broken { .. }
                    | ObjectError::Unavailable { .. }
            ),
        }
    }

    /// Whether the store certainly did nothing, and trying again soon may help.
    pub(super) fn did_not_arrive(&self) -> bool {
        match self {
            Self::NoObject | Self::ConditionNotMet => false,
            // What then holds is for the caller to find out.
            Self::Conflict { .. } => false,
            Self::Failed(ObjectError::Resolve { .. } | ObjectError::Unreachable { .. }) => true,
            Self::Failed(ObjectError::Timeout { wait, .. }) => *wait == CONNECTING || *wait == RESOLVING,
            Self::Failed(ObjectError::Unavailable { code, .. }) => code == NOT_STARTED,
            Self::Failed(_) => false,
        }
    }

    pub(super) fn into_error(self, place: &Place) -> ObjectError {
        let place = place.clone();
        match self {
            Self::Failed(error) => error,
            Self::NoObject => ObjectError::Other { place, problem: "answers 404".to_owned() },
            Self::ConditionNotMet => {
                ObjectError::Other { place, problem: "answers 412 though nothing was a condition".to_owned() }
            }
            Self::Conflict { code, .. } if code == "BucketAlreadyExists" => {
                ObjectError::NoBucket { place, problem: "the name is taken by somebody else".to_owned() }
            }
            Self::Conflict { status, code } => ObjectError::Unavailable { place, status, code },
        }
    }
}

/// An answer that is no success.
pub(super) struct Refused<'a> {
    pub(super) place: &'a Place,
    pub(super) is_https: bool,
    /// Not the bucket.
    pub(super) is_object: bool,
    /// There is no body to explain it.
    pub(super) is_head: bool,
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// Our clock when the request was signed.
    pub(super) now: SystemTime,
}

impl Refused<'_> {
    pub(super) fn read(&self) -> Refusal {
        let text = String::from_utf8_lossy(self.body);
        let code = match quick_xml::de::from_str::<ErrorBody>(&text) {
            Ok(error) => error.code,
            Err(error) if text.starts_with("<?xml") || text.starts_with("<Error") => {
                let problem =
                    format!("the error in an answer with HTTP {} cannot be read: {error}", self.status);
                return self.failed(|place| ObjectError::Broken { place, problem });
            }
            Err(_) => String::new(),
        };
        match (self.status, code.as_str()) {
            (_, "NoSuchBucket") => self.failed(|place| ObjectError::NoBucket {
                place,
                problem: "there is none of this name".to_owned(),
            }),
            (404, "NoSuchKey") => Refusal::NoObject,
            (404, "") if self.is_object && self.is_head => Refusal::NoObject,
            (412, _) => Refusal::ConditionNotMet,
            (409, _) => Refusal::Conflict { status: self.status, code },
            // radosgw's word to who loses a race of conditional writes in its last step (its ECANCELED).
            (500, "UnknownError") => Refusal::Conflict { status: self.status, code },
            (_, "RequestTimeTooSkewed") => {
                self.failed(|place| ObjectError::ClockSkew { place, seconds: self.skew() })
            }
            (403, "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded")
            | (507, _)
            | (_, "XMinioStorageFull") => {
                self.failed(|place| ObjectError::Full { place, problem: self.told(&code) })
            }
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "AuthorizationHeaderMalformed"
                | "InvalidToken"
                | "ExpiredToken"
                | "XMinioInvalidIAMCredentials",
            )
            | (401, _) => self.failed(|place| ObjectError::Credentials { place, code: self.told(&code) }),
            (403, _) => self.failed(|place| ObjectError::Denied { place, code: self.told(&code) }),
            (408 | 429 | 500.., _) | (_, "SlowDown" | "RequestTimeout") => self
                .failed(|place| ObjectError::Unavailable { place, status: self.status, code: code.clone() }),
            (_, "") => self.failed(|place| self.not_s3(place)),
            _ => self.failed(|place| ObjectError::Other {
                place,
                problem: format!("answers {}", self.told(&code)),
            }),
        }
    }

    fn failed(&self, make: impl FnOnce(Place) -> ObjectError) -> Refusal {
        Refusal::Failed(make(self.place.clone()))
    }

    fn told(&self, code: &str) -> String {
        if code.is_empty() { format!("HTTP {}", self.status) } else { code.to_owned() }
    }

    /// No error that an S3 server would write.
    fn not_s3(&self, place: Place) -> ObjectError {
        if self.status == 400 && !self.is_https && !self.is_head {
            let problem =
                "an S3 server does not answer like this without TLS; is MINIO_USE_SSL=true missing?";
            return ObjectError::Tls { place, problem: problem.to_owned() };
        }
        let problem = match self.status {
            300..400 => format!(
                "answers HTTP {} to somewhere else; check MINIO_ENDPOINT and MINIO_REGION",
                self.status
            ),
            _ => format!("answers HTTP {} and no S3 error; is MINIO_ENDPOINT the S3 port?", self.status),
        };
        ObjectError::Other { place, problem }
    }

    /// Ours minus theirs, from the answer's `Date`.
    fn skew(&self) -> Option<i64> {
        let theirs = self.headers.get("date")?.to_str().ok()?;
        let theirs = jiff::fmt::rfc2822::parse(theirs).ok()?.timestamp().as_second();
        let ours = self.now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(i64::try_from(ours).ok()? - theirs)
    }
}

/// `<Error><Code>…</Code>…</Error>`
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "Code", default)]
    code: String,
}

/// No answer at all.
pub(super) fn no_answer(place: &Place, error: Error) -> Refusal {
    let place = place.clone();
    Refusal::Failed(match error {
        Error::HostNotFound => ObjectError::Resolve { place },
        Error::Timeout(wait) => ObjectError::Timeout { place, wait: name_of(wait) },
        Error::Io(source) => of_io(place, source),
        Error::Rustls(error) => ObjectError::Tls { place, problem: error.to_string() },
        Error::Tls(problem) => ObjectError::Tls { place, problem: problem.to_owned() },
        Error::ConnectionFailed => {
            ObjectError::Unreachable { place, source: io::ErrorKind::AddrNotAvailable.into() }
        }
        Error::Protocol(error) => ObjectError::Broken { place, problem: error.to_string() },
        error => ObjectError::Other { place, problem: error.to_string() },
    })
}

/// An answer whose body did not come whole.
pub(super) fn broken_body(place: &Place, error: Error) -> Refusal {
    match no_answer(place, error) {
        Refusal::Failed(ObjectError::Other { place, problem }) => {
            Refusal::Failed(ObjectError::Broken { place, problem })
        }
        refusal => refusal,
    }
}

fn of_io(place: Place, source: io::Error) -> ObjectError {
    use io::ErrorKind as Kind;
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return ObjectError::Tls { place, problem: tls.to_string() };
    }
    match source.kind() {
        Kind::ConnectionRefused
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::AddrNotAvailable => ObjectError::Unreachable { place, source },
        Kind::TimedOut | Kind::WouldBlock => ObjectError::Timeout { place, wait: "moving bytes" },

        // The resolver's errors have no kind of their own.
        _ if source.to_string().contains("failed to lookup address") => ObjectError::Resolve { place },
        _ => ObjectError::Broken { place, problem: source.to_string() },
    }
}

fn name_of(wait: Timeout) -> &'static str {
    match wait {
        Timeout::Resolve => RESOLVING,
        Timeout::Connect => CONNECTING,
        Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => "sending",
        Timeout::RecvResponse | Timeout::Await100 => "the answer",
        Timeout::RecvBody | Timeout::PerRead => "receiving",
        _ => "the whole exchange",
    }
}

const RESOLVING: &str = "resolving the name";
const CONNECTING: &str = "connecting";
