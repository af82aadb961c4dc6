//! `X-Webhook-Signature`, checked as a receiver would: `t=<unix s>,v1=<hex>[,v1=<hex>]` over `<t>.<body>`.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::server::Request;

/// Whether one of the signatures was made with the secret, and how many seconds its time lies off the arrival.
///
/// # Panics
/// When the header is missing or has another form.
pub fn check(request: &Request, secret: &str) -> (bool, u64) {
    let header = request.header("X-Webhook-Signature").expect("a signature");
    let mut parts = header.split(',').map(|part| part.split_once('=').expect("name=value"));
    let time = match parts.next() {
        Some(("t", time)) => time,
        other => panic!("the time comes first: {other:?}"),
    };
    let signatures: Vec<&str> = parts
        .map(|(name, value)| {
            assert_eq!(name, "v1", "{header}");
            value
        })
        .collect();
    assert!((1..=2).contains(&signatures.len()), "{header}");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(format!("{time}.").as_bytes());
    mac.update(&request.body);
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let seconds: u64 = time.parse().expect("seconds since 1970");
    (signatures.contains(&expected.as_str()), seconds.abs_diff(request.unix_s))
}

/// How many signatures the header carries.
pub fn count(request: &Request) -> usize {
    request.header("X-Webhook-Signature").map_or(0, |header| header.matches("v1=").count())
}
