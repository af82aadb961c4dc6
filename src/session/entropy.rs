//! Random bytes of the operating system, fetched some at a time: an engine draws a few for every message, and each
//! draw would be a system call.

use rand_core::{CryptoRng, CryptoRngCore, Error, OsRng, RngCore};
use zeroize::Zeroize;

/// Gives each session's engine its random source, by session id: an argument, as the trust root and the clock are.
pub(super) type Entropy = Box<dyn Fn(&str) -> Box<dyn CryptoRngCore + Send> + Send + Sync>;

/// Bytes fetched at a time; larger draws go past the stock.
const STOCK_BYTES: usize = 256;

/// See the module. What was given out is wiped.
pub(super) struct Stock {
    bytes: [u8; STOCK_BYTES],
    used: usize,
}

impl Default for Stock {
    fn default() -> Self {
        Self { bytes: [0; STOCK_BYTES], used: STOCK_BYTES }
    }
}

impl RngCore for Stock {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, wanted: &mut [u8]) {
        if wanted.len() > STOCK_BYTES / 4 {
            return OsRng.fill_bytes(wanted);
        }
        if STOCK_BYTES - self.used < wanted.len() {
            OsRng.fill_bytes(&mut self.bytes);
            self.used = 0;
        }
        let given = &mut self.bytes[self.used..self.used + wanted.len()];
        wanted.copy_from_slice(given);
        given.zeroize();
        self.used += wanted.len();
    }

    fn try_fill_bytes(&mut self, wanted: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(wanted);
        Ok(())
    }
}

impl CryptoRng for Stock {}

impl Drop for Stock {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_given_out_twice_and_none_stays_behind() {
        let mut stock = Stock::default();
        let mut seen = std::collections::HashSet::new();
        for length in (8..=80).chain(8..=80) {
            let mut drawn = vec![0; length];
            stock.fill_bytes(&mut drawn);
            for piece in drawn.windows(8) {
                assert!(seen.insert(piece.to_vec()), "{length}");
            }
            assert!(stock.bytes[..stock.used % STOCK_BYTES].iter().all(|byte| *byte == 0));
        }
        assert_ne!(stock.next_u64(), stock.next_u64());
    }
}
