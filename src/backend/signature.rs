//! Proof that a webhook comes from us and is not an old one: HMAC-SHA256 over the time and the body.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::config::Secret;

/// Name of the header.
pub(super) const HEADER: &str = "X-Webhook-Signature";

/// `t=<unix seconds>,v1=<hex>`, with one `v1` for each secret; `None` without one.
pub(super) fn header(secrets: &[Secret], unix_s: u64, body: &[u8]) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    let signed = secrets.iter().map(|secret| format!(",v1={}", sign(secret.as_str(), unix_s, body)));
    Some(format!("t={unix_s}{}", signed.collect::<String>()))
}

/// Hex of HMAC-SHA256 over `<unix seconds>.<body>`.
fn sign(secret: &str, unix_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        // printf '1705314600.{"sessionId":"a"}' | openssl dgst -sha256 -hmac 'whsec-0123456789abcdef'
        let made = sign("whsec-0123456789abcdef", 1_705_314_600, br#"{"sessionId":"a"}"#);
        assert_eq!(made, "082c4ddf0b772f10affd6d63e276a00f2dbab951ed96033557f6d934e19213e7");
    }

    #[test]
    fn while_secrets_change_both_sign() {
        let secrets = [Secret::new("new-secret-new-secret"), Secret::new("old-secret-old-secret")];
        let header = header(&secrets, 7, b"x").unwrap();
        let expected = format!(
            "t=7,v1={},v1={}",
            sign("new-secret-new-secret", 7, b"x"),
            sign("old-secret-old-secret", 7, b"x")
        );
        assert_eq!(header, expected);
        assert_eq!(super::header(&[], 7, b"x"), None);
    }
}
