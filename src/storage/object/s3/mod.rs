//! Objects in a bucket: MinIO, Ceph radosgw, or another server that speaks S3. Path-style addresses.
//!
//! rust-s3 signs requests and knows the shape of listings; requests go out through our own pooled agent
//! (`crate::http_client`), because rust-s3 by itself opens a connection per call, cannot trust a private authority,
//! and with TLS brings a second provider. Of its features only `sync` is on: without one of its HTTP backends it does
//! not compile, and this one (attohttpc, built without TLS) is the smallest. It is linked and never called.
//!
//! - `exchange`: one request, signed, sent, with deadlines and retries.
//! - `answer`: what an answer or its absence means.
//! - `listing`: pages of a listing.
//!
//! **Retries.** `get`, `list`, `put` and `delete` may be done twice, so they are tried up to three
//! times while the trouble may pass. `put_if` is tried again only when the request certainly did not arrive: otherwise
//! the second try would meet the first one's object and report a lost race that was won. Its error means: read it.
//!
//! **Whole bodies.** Requests carry the SHA-256 of their body inside the signature, so the store refuses a mangled one.
//! Answers must have their announced length and, where the ETag is an MD5 (single-part, no server-side encryption), the
//! right digest.

mod answer;
mod exchange;
mod listing;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use md5::{Digest as _, Md5};
use ureq::http::{HeaderMap, Method};

use super::{Condition, Object, ObjectError, ObjectInfo, ObjectStore, Place, Version, check_key, shown};
use crate::{
    config::S3Config,
    http_client::{AgentOptions, agent},
};
use answer::Refusal;
use exchange::{Answer, Exchange, Request, Retry};

/// Objects in a bucket.
pub struct S3Store {
    exchange: Exchange,
    place: Place,
    region: String,
    /// How this server wants the ETag in `If-Match`: see [`S3Store::put_if_is`].
    wants_bare_etag: AtomicBool,
}

impl S3Store {
    /// Prepares; sends nothing. A bucket that is missing is made by the first write.
    ///
    /// # Errors
    /// [`ObjectError::Tls`] when the CA file is of no use, [`ObjectError::Other`] when the address is none.
    pub fn open(config: &S3Config) -> Result<Self, ObjectError> {
        Self::open_with_clock(config, SystemTime::now)
    }

    /// As [`S3Store::open`], with a clock: signatures hold the time.
    ///
    /// # Errors
    /// As [`S3Store::open`].
    pub fn open_with_clock(config: &S3Config, clock: fn() -> SystemTime) -> Result<Self, ObjectError> {
        let place = Place(format!("{}/{}", config.endpoint, config.bucket));
        let options = AgentOptions {
            timeout: exchange::WHOLE,
            connect_timeout: exchange::CONNECT,
            stall_timeout: Some(exchange::STALL),
            idle_connections: 16,
            ca_file: config.ca_file.clone(),
            ..AgentOptions::default()
        };
        let agent = agent(&options)
            .map_err(|error| ObjectError::Tls { place: place.clone(), problem: error.to_string() })?;
        let exchange = Exchange::new(agent, config, place.clone(), clock)?;
        Ok(Self { exchange, place, region: config.region.clone(), wants_bare_etag: AtomicBool::new(false) })
    }

    /// Sends a write; makes the bucket when that is what is missing.
    fn write(&self, request: &Request<'_>) -> Result<Answer, Refusal> {
        match self.exchange.send(request) {
            Err(Refusal::Failed(ObjectError::NoBucket { .. })) => {
                self.create_bucket()?;
                self.exchange.send(request)
            }
            result => result,
        }
    }

    fn create_bucket(&self) -> Result<(), Refusal> {
        let body = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
            quick_xml::escape::escape(&self.region)
        );
        // The default region must not be named, and others need not be known to the server by this name.
        let bodies: &[&str] = if self.region == DEFAULT_REGION { &[""] } else { &[&body, ""] };
        let mut last = Ok(());
        for body in bodies {
            let request = Request { body: body.as_bytes(), ..Request::new(Method::PUT, "") };
            last = match self.exchange.send(&request) {
                Ok(_) => return Ok(()),
                // Another worker was faster.
                Err(Refusal::Conflict { code, .. }) if code == "BucketAlreadyOwnedByYou" => return Ok(()),
                Err(refusal) => Err(refusal),
            };
        }
        last.map_err(|refusal| {
            let problem = match refusal.into_error(&self.place) {
                ObjectError::Denied { code, .. } => format!("it is missing, and making it is denied: {code}"),
                ObjectError::Other { problem, .. } => {
                    format!("it is missing, and making it failed: {problem}")
                }
                error => return Refusal::Failed(error),
            };
            Refusal::Failed(ObjectError::NoBucket { place: self.place.clone(), problem })
        })
    }

    fn version(&self, answer: &Answer) -> Result<Version, ObjectError> {
        let etag = answer.header("etag").map(bare).filter(|etag| !etag.is_empty());
        let problem = || "the answer has no ETag; is this an S3 server?".to_owned();
        etag.map(Version::new).ok_or_else(|| self.other(problem()))
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<Option<Version>, ObjectError> {
        let request = Request {
            body: bytes,
            content_type: Some(content_type_of(key)),
            condition: Some(("if-none-match", "*".to_owned())),
            retry: Retry::WhenItDidNotArrive,
            ..Request::new(Method::PUT, key)
        };
        self.conditional(&request)
    }

    /// A conditional write with a version. RFC 9110 wants the ETag in quotes; radosgw 16 compares the header's text with
    /// its own ETag, bare, so a quoted one never matches there. After a refusal the ETag is read: when it is the wanted
    /// one, the same is tried in the other form, which is remembered. Both forms are conditional, so nothing is lost.
    fn put_if_is(&self, key: &str, bytes: &[u8], version: &Version) -> Result<Option<Version>, ObjectError> {
        let is_bare = self.wants_bare_etag.load(Ordering::Relaxed);
        let attempt = |is_bare: bool| {
            let etag = version.as_str();
            let etag = if is_bare { etag.to_owned() } else { format!("\"{etag}\"") };
            self.conditional(&Request {
                body: bytes,
                content_type: Some(content_type_of(key)),
                condition: Some(("if-match", etag)),
                retry: Retry::WhenItDidNotArrive,
                ..Request::new(Method::PUT, key)
            })
        };
        if let Some(written) = attempt(is_bare)? {
            return Ok(Some(written));
        }
        if self.current_version(key)?.as_ref() != Some(version) {
            return Ok(None);
        }
        let written = attempt(!is_bare)?;
        if written.is_some() {
            self.wants_bare_etag.store(!is_bare, Ordering::Relaxed);
        }
        Ok(written)
    }

    /// A write that meets another one (S3's 409, radosgw's 500) is tried again, to learn who won. Whoever loses then,
    /// looks whether it was itself that won before: that its own bytes are there says so, for the contents of
    /// conditional writes name their writer.
    fn conditional(&self, request: &Request<'_>) -> Result<Option<Version>, ObjectError> {
        let mut is_in_doubt = false;
        for attempt in 1.. {
            match self.write(request) {
                Ok(answer) => return self.version(&answer).map(Some),
                Err(Refusal::Conflict { .. }) if attempt < exchange::ATTEMPTS => {
                    is_in_doubt = true;
                    exchange::rest(attempt);
                }
                // A missing object does not match: some say 404, some 412.
                Err(Refusal::ConditionNotMet | Refusal::NoObject) if is_in_doubt => {
                    let stored = self.get(request.key)?;
                    let own = stored.filter(|object| object.bytes == request.body);
                    return Ok(own.map(|object| object.version));
                }
                Err(Refusal::ConditionNotMet | Refusal::NoObject) => return Ok(None),
                Err(refusal) => return Err(refusal.into_error(&self.place)),
            }
        }
        unreachable!("the loop ends by its last attempt")
    }

    fn current_version(&self, key: &str) -> Result<Option<Version>, ObjectError> {
        match self.exchange.send(&Request::new(Method::HEAD, key)) {
            Ok(answer) => self.version(&answer).map(Some),
            Err(Refusal::NoObject) => Ok(None),
            Err(refusal) => Err(refusal.into_error(&self.place)),
        }
    }

    fn other(&self, problem: String) -> ObjectError {
        ObjectError::Other { place: self.place.clone(), problem }
    }
}

impl ObjectStore for S3Store {
    fn get(&self, key: &str) -> Result<Option<Object>, ObjectError> {
        check_key(key)?;
        for attempt in 1.. {
            let answer = match self.exchange.send(&Request::new(Method::GET, key)) {
                Ok(answer) => answer,
                Err(Refusal::NoObject) => return Ok(None),
                Err(refusal) => return Err(refusal.into_error(&self.place)),
            };
            let version = self.version(&answer)?;
            if is_whole(&answer, &version) {
                return Ok(Some(Object { bytes: answer.body, version }));
            }
            // Mangled on the way, perhaps; at rest if it stays so.
            if attempt == exchange::ATTEMPTS {
                let problem = "its content does not have the MD5 that its ETag tells".to_owned();
                return Err(ObjectError::Damaged { key: shown(key), problem });
            }
        }
        unreachable!("the loop ends by its last attempt")
    }

    fn put(&self, key: &str, bytes: &[u8], content_type: &str) -> Result<Version, ObjectError> {
        check_key(key)?;
        let request =
            Request { body: bytes, content_type: Some(content_type), ..Request::new(Method::PUT, key) };
        let answer = self.write(&request).map_err(|refusal| refusal.into_error(&self.place))?;
        self.version(&answer)
    }

    fn put_if(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Option<Version>, ObjectError> {
        check_key(key)?;
        match condition {
            Condition::Absent => self.put_if_absent(key, bytes),
            Condition::Is(version) => self.put_if_is(key, bytes, version),
        }
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        check_key(key)?;
        match self.exchange.send(&Request::new(Method::DELETE, key)) {
            Ok(_) | Err(Refusal::NoObject) => Ok(()),
            Err(refusal) => Err(refusal.into_error(&self.place)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let mut found = Vec::new();
        self.pages(
            |token| listing::query(prefix, token),
            |page| {
                found.extend(page.objects.into_iter().filter(|info| info.key.starts_with(prefix)));
            },
        )?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let mut found = Vec::new();
        self.pages(
            |token| listing::query_folders(prefix, token),
            |page| {
                let names =
                    page.folders.iter().filter_map(|folder| folder.strip_prefix(prefix)?.strip_suffix('/'));
                found.extend(names.map(str::to_owned));
            },
        )?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn place(&self) -> Place {
        self.place.clone()
    }
}

impl S3Store {
    /// All pages of a listing, in order.
    fn pages(
        &self,
        query: impl Fn(Option<&str>) -> String,
        mut take: impl FnMut(listing::Page),
    ) -> Result<(), ObjectError> {
        let mut token: Option<String> = None;
        loop {
            let request = Request { query: query(token.as_deref()), ..Request::new(Method::GET, "") };
            let answer = self.exchange.send(&request).map_err(|refusal| refusal.into_error(&self.place))?;
            let mut page = listing::parse(&answer.body).map_err(|problem| self.other(problem))?;
            let next = page.next.take();
            take(page);
            match next {
                None => return Ok(()),
                next if next == token => return Err(self.other("the listing does not advance".to_owned())),
                next => token = next,
            }
        }
    }
}

/// Whether the body has the digest that the ETag promises, where it promises one.
fn is_whole(answer: &Answer, version: &Version) -> bool {
    let etag = version.as_str();
    let is_md5 = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_md5 || is_encrypted_by_server(&answer.headers) {
        return true;
    }
    let digest = Md5::digest(&answer.body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().eq_ignore_ascii_case(etag)
}

/// Then the ETag need not be the content's MD5.
fn is_encrypted_by_server(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-amz-server-side-encryption"))
}

/// An ETag without its quotes and without the mark of a weak one.
fn bare(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

fn content_type_of(key: &str) -> &'static str {
    if key.ends_with(".json") { "application/json" } else { "application/octet-stream" }
}

/// Of S3 and of everything that has no regions.
const DEFAULT_REGION: &str = "us-east-1";
