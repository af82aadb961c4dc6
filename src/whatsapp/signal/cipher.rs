//! AES-256-CBC with PKCS#7 padding, into and out of the caller's buffers.

use aes::Aes256;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::Pkcs7};

use super::error::SignalError;

const BLOCK: usize = 16;

/// Bytes that `len` bytes of plaintext become.
pub(super) fn ciphertext_len(len: usize) -> usize {
    (len / BLOCK + 1) * BLOCK
}

/// Appends the ciphertext of `plaintext` to `out`.
pub(super) fn encrypt(key: &[u8; 32], iv: &[u8; 16], plaintext: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(plaintext);
    out.resize(start + ciphertext_len(plaintext.len()), 0);
    cbc::Encryptor::<Aes256>::new(key.into(), iv.into())
        .encrypt_padded_mut::<Pkcs7>(out.split_at_mut(start).1, plaintext.len())
        .expect("the buffer has room for the padding");
}

/// The plaintext of an authentic `ciphertext`.
pub(super) fn decrypt(key: &[u8; 32], iv: &[u8; 16], ciphertext: &[u8]) -> Result<Vec<u8>, SignalError> {
    cbc::Decryptor::<Aes256>::new(key.into(), iv.into())
        .decrypt_padded_vec_mut::<Pkcs7>(ciphertext)
        .map_err(|_| SignalError::InvalidMessage)
}
