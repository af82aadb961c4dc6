//! A random stream forked from another one, so that service and phones each own a source that a test's seed decides.

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use rand_core::{CryptoRng, CryptoRngCore, Error, RngCore, impls};

/// AES-256-CTR over zeros: unpredictable without its key, the same for the same key.
pub(super) struct StreamRng(ctr::Ctr64BE<aes::Aes256>);

impl StreamRng {
    /// Takes its key from `parent`.
    pub(super) fn fork(parent: &mut dyn CryptoRngCore) -> Self {
        let mut key = [0; 32];
        parent.fill_bytes(&mut key);
        Self(ctr::Ctr64BE::new(&key.into(), &[0; 16].into()))
    }
}

impl RngCore for StreamRng {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
        self.0.apply_keystream(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for StreamRng {}
