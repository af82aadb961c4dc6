//! Transport encryption after the handshake: AES-256-GCM with one key and one counter per direction.
//!
//! Seen: whatsmeow `socket/noisesocket.go` @33cfac51.

use std::fmt;

use aes_gcm::{Aes256Gcm, aead::AeadInPlace};

use super::{
    frame,
    symmetric::{TAG, cipher, nonce},
};

/// A frame that does not decrypt: changed, out of order or not from our peer. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame does not decrypt")]
pub struct TransportError;

/// One established connection. Counters are 64 bits wide and never repeat.
pub struct Transport {
    write: Direction,
    read: Direction,
}

impl Transport {
    pub(super) fn new(write_key: &[u8; 32], read_key: &[u8; 32]) -> Self {
        let direction = |key| Direction { cipher: Box::new(cipher(key)), counter: 0 };
        Self { write: direction(write_key), read: direction(read_key) }
    }

    /// Encrypts the plaintext of one frame; the result is the whole frame, length included.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(frame::HEADER + plaintext.len() + TAG);
        out.extend(frame::header(plaintext.len() + TAG));
        out.extend_from_slice(plaintext);
        let nonce = self.write.next_nonce();
        let tag = self
            .write
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &[], &mut out[frame::HEADER..])
            .expect("AES-GCM encrypts up to 64 GiB");
        out.extend_from_slice(&tag);
        out
    }

    /// Decrypts one frame, given without its length. A `Vec` is decrypted in place.
    ///
    /// # Errors
    ///
    /// [`TransportError`] when the frame is not the next one of our peer.
    pub fn decrypt(&mut self, frame: impl Into<Vec<u8>>) -> Result<Vec<u8>, TransportError> {
        let mut data = frame.into();
        let nonce = self.read.next_nonce();
        self.read.cipher.decrypt_in_place(&nonce.into(), &[], &mut data).map_err(|_| TransportError)?;
        Ok(data)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport(..)")
    }
}

struct Direction {
    /// Boxed: the expanded key takes about a kilobyte.
    cipher: Box<Aes256Gcm>,
    counter: u64,
}

impl Direction {
    fn next_nonce(&mut self) -> [u8; 12] {
        let nonce = nonce(self.counter);
        self.counter += 1;
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Transport, Transport) {
        (Transport::new(&[1; 32], &[2; 32]), Transport::new(&[2; 32], &[1; 32]))
    }

    #[test]
    fn frames_decrypt_in_order_in_both_directions() {
        let (mut client, mut server) = pair();
        for text in [&b"one"[..], b"", b"three"] {
            let framed = client.encrypt(text);
            assert_eq!(framed.len(), text.len() + 19);
            assert_eq!(server.decrypt(&framed[3..]).unwrap(), text);
            assert_eq!(client.decrypt(&server.encrypt(text)[3..]).unwrap(), text);
        }
    }

    #[test]
    fn a_replayed_or_changed_frame_is_refused() {
        let (mut client, mut server) = pair();
        let framed = client.encrypt(b"text");
        assert!(server.decrypt(&framed[3..]).is_ok());
        assert_eq!(server.decrypt(&framed[3..]), Err(TransportError));

        let (mut client, mut server) = pair();
        let mut framed = client.encrypt(b"text");
        framed[5] ^= 1;
        assert_eq!(server.decrypt(&framed[3..]), Err(TransportError));
        assert_eq!(server.decrypt(Vec::new()), Err(TransportError));
    }
}
