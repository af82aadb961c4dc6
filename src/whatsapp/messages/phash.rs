//! The participant hash: a short fingerprint of a set of devices, by which server and clients notice that one of
//! them has an old list.
//!
//! Seen: whatsmeow `send.go` `participantListHashV2` @33cfac51; whatsapp-rust `wacore/src/messages.rs` @1489b7da.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use crate::whatsapp::jid::Jid;

/// `2:` and the base64 of the first 6 bytes of SHA-256 over the sorted `user.0:device@server` texts.
pub(in crate::whatsapp) fn phash<'a>(devices: impl IntoIterator<Item = &'a Jid>) -> String {
    let mut texts: Vec<String> = devices
        .into_iter()
        .map(|jid| {
            let mut text = String::with_capacity(jid.user.len() + 24);
            let _ = write!(text, "{}.0:{}@{}", jid.user, jid.device, jid.server.as_str());
            text
        })
        .collect();
    texts.sort_unstable();
    let mut digest = Sha256::new();
    texts.iter().for_each(|text| digest.update(text));
    format!("2:{}", STANDARD_NO_PAD.encode(&digest.finalize()[..6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(jids: &[&str]) -> String {
        let jids: Vec<Jid> = jids.iter().map(|jid| jid.parse().unwrap()).collect();
        phash(&jids)
    }

    /// Vectors: whatsapp-rust `wacore/src/messages.rs` tests @1489b7da.
    #[test]
    fn the_hash_matches_the_vectors_of_another_implementation() {
        assert_eq!(of(&["5511999999999:3@s.whatsapp.net"]), "2:5s+YxCff");
        assert_eq!(of(&["5511999999999@s.whatsapp.net"]), "2:RJWVxcMQ");
        assert_eq!(of(&["7469250125917:21@s.whatsapp.net", "5511988887777:14@s.whatsapp.net"]), "2:AAv/hwhn");
        assert_eq!(of(&["5511988887777:14@s.whatsapp.net", "7469250125917:21@lid"]), "2:iNJfGzeZ");
    }
}
