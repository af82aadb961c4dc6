//! Padding of the plaintext inside an `<enc v="2">`: n bytes of value n, 1 to 16.
//!
//! Seen: whatsmeow `message.go` `padMessage`/`unpadMessage` @33cfac51; Baileys `Utils/generics.js` @7.0.0-rc14.

use rand_core::CryptoRngCore;

/// The padding is not 1..=16 equal bytes of their own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the padding is wrong")]
pub(super) struct PaddingError;

/// Appends 1 to 16 bytes.
pub(super) fn pad(mut plaintext: Vec<u8>, rng: &mut dyn CryptoRngCore) -> Vec<u8> {
    // The low four bits are uniform; 0 becomes 16 by the `+ 1`.
    let count = (rng.next_u32() & 0x0f) as u8 + 1;
    plaintext.extend(std::iter::repeat_n(count, usize::from(count)));
    plaintext
}

/// Removes the padding.
pub(super) fn unpad(padded: &[u8]) -> Result<&[u8], PaddingError> {
    let count = *padded.last().ok_or(PaddingError)?;
    if !(1..=16).contains(&count) {
        return Err(PaddingError);
    }
    let keep = padded.len().checked_sub(usize::from(count)).ok_or(PaddingError)?;
    let (plaintext, padding) = padded.split_at(keep);
    if padding.iter().all(|byte| *byte == count) { Ok(plaintext) } else { Err(PaddingError) }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn every_padding_length_occurs_and_comes_off_again() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut seen = [false; 17];
        for _ in 0..400 {
            let padded = pad(b"hello".to_vec(), &mut rng);
            seen[padded.len() - 5] = true;
            assert_eq!(unpad(&padded), Ok(&b"hello"[..]));
        }
        assert!(!seen[0] && seen[1..].iter().all(|seen| *seen));
    }

    #[test]
    fn wrong_padding_is_refused() {
        for bad in [&[][..], &[0], &[17; 17], &[2], &[1, 3, 3], &[9, 2, 3, 3]] {
            assert_eq!(unpad(bad), Err(PaddingError), "{bad:?}");
        }
        assert_eq!(unpad(&[1]), Ok(&[][..]));
    }
}
