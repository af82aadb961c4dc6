//! Message ids in the shape of WhatsApp Web's own.

use rand_core::CryptoRngCore;
use sha2::{Digest, Sha256};

/// `3EB0` and 18 upper-case hex digits: recipients infer the kind of client from this shape.
/// Seen: whatsmeow `send.go` `GenerateMessageID` @33cfac51; Baileys `generateMessageIDV2` @7.0.0-rc14.
pub(in crate::whatsapp) fn generate(own_user: &str, unix_s: u64, rng: &mut dyn CryptoRngCore) -> String {
    let mut random = [0u8; 16];
    rng.fill_bytes(&mut random);
    let digest = Sha256::new()
        .chain_update(unix_s.to_be_bytes())
        .chain_update(own_user)
        .chain_update("@c.us")
        .chain_update(random)
        .finalize();
    digest.iter().take(9).fold(String::from("3EB0"), |mut id, byte| {
        id.push(hex_digit(byte >> 4));
        id.push(hex_digit(byte & 0x0f));
        id
    })
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_id_has_the_web_shape_and_no_two_are_alike() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let one = generate("6281200000001", 1_780_000_000, &mut rng);
        assert_eq!(one.len(), 22);
        assert!(one.starts_with("3EB0"));
        assert!(one.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)));
        assert_ne!(one, generate("6281200000001", 1_780_000_000, &mut rng));
    }
}
