//! Protobuf by hand for the four Signal containers and our own records: borrowed on the way in, one buffer on the way
//! out, so that the hot path does not allocate per field and no copy of a secret stays behind.
//!
//! Knows field numbers and sizes, nothing of keys' use. Seen: libsignal `rust/protocol/src/proto/wire.proto`.

use zeroize::Zeroizing;

use super::error::SignalError;
use crate::whatsapp::keys::PublicKey;

/// First byte of every message: version 3 of the message, made by a client that speaks up to version 3.
pub(super) const VERSION_BYTE: u8 = 0x33;

/// Bytes of the truncated MAC at the end of a `msg`.
pub(super) const MAC_LEN: usize = 8;

/// Bytes of the signature at the end of a `skmsg`.
pub(super) const SIGNATURE_LEN: usize = 64;

/// A `msg`: `33 || protobuf || mac8`.
pub(super) struct SignalMessage<'a> {
    pub(super) ratchet_key: PublicKey,
    pub(super) counter: u32,
    pub(super) ciphertext: &'a [u8],
    /// What the MAC covers, besides the two identity keys.
    pub(super) authenticated: &'a [u8],
    pub(super) mac: &'a [u8],
}

impl<'a> SignalMessage<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (authenticated, mac) = split_tail(bytes, MAC_LEN)?;
        let (mut ratchet_key, mut counter, mut ciphertext) = (None, 0, None);
        for field in Fields(body(authenticated)?) {
            match field? {
                (1, value) => ratchet_key = Some(value.key()?),
                (2, value) => counter = value.number()?,
                (4, value) => ciphertext = Some(value.bytes()?),
                _ => {}
            }
        }
        Ok(Self {
            ratchet_key: ratchet_key.ok_or(SignalError::InvalidMessage)?,
            counter,
            ciphertext: ciphertext.ok_or(SignalError::InvalidMessage)?,
            authenticated,
            mac,
        })
    }
}

/// A `pkmsg`: `33 || protobuf` around a `msg`.
pub(super) struct PreKeySignalMessage<'a> {
    pub(super) prekey_id: Option<u32>,
    pub(super) signed_prekey_id: u32,
    pub(super) base_key: PublicKey,
    pub(super) identity: PublicKey,
    pub(super) registration_id: Option<u32>,
    pub(super) message: SignalMessage<'a>,
}

impl<'a> PreKeySignalMessage<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (mut prekey_id, mut signed_prekey_id, mut registration_id) = (None, None, None);
        let (mut base_key, mut identity, mut message) = (None, None, None);
        for field in Fields(body(bytes)?) {
            match field? {
                (1, value) => prekey_id = Some(value.number()?),
                (2, value) => base_key = Some(value.key()?),
                (3, value) => identity = Some(value.key()?),
                (4, value) => message = Some(SignalMessage::parse(value.bytes()?)?),
                (5, value) => registration_id = Some(value.number()?),
                (6, value) => signed_prekey_id = Some(value.number()?),
                _ => {}
            }
        }
        Ok(Self {
            prekey_id,
            signed_prekey_id: signed_prekey_id.ok_or(SignalError::InvalidMessage)?,
            base_key: base_key.ok_or(SignalError::InvalidMessage)?,
            identity: identity.ok_or(SignalError::InvalidMessage)?,
            registration_id,
            message: message.ok_or(SignalError::InvalidMessage)?,
        })
    }
}

/// A `skmsg`: `33 || protobuf || signature64`.
pub(super) struct SenderKeyMessage<'a> {
    pub(super) key_id: u32,
    pub(super) iteration: u32,
    pub(super) ciphertext: &'a [u8],
    pub(super) signed: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> SenderKeyMessage<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (signed, signature) = split_tail(bytes, SIGNATURE_LEN)?;
        let (mut key_id, mut iteration, mut ciphertext) = (None, 0, None);
        for field in Fields(body(signed)?) {
            match field? {
                (1, value) => key_id = Some(value.number()?),
                (2, value) => iteration = value.number()?,
                (3, value) => ciphertext = Some(value.bytes()?),
                _ => {}
            }
        }
        Ok(Self {
            key_id: key_id.ok_or(SignalError::InvalidMessage)?,
            iteration,
            ciphertext: ciphertext.ok_or(SignalError::InvalidMessage)?,
            signed,
            signature,
        })
    }
}

/// An SKDM: `33 || protobuf`.
pub(super) struct SenderKeyDistribution<'a> {
    pub(super) key_id: u32,
    pub(super) iteration: u32,
    pub(super) chain_key: &'a [u8; 32],
    pub(super) signing_key: PublicKey,
}

impl<'a> SenderKeyDistribution<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (mut key_id, mut iteration, mut chain_key, mut signing_key) = (None, 0, None, None);
        for field in Fields(body(bytes)?) {
            match field? {
                (1, value) => key_id = Some(value.number()?),
                (2, value) => iteration = value.number()?,
                (3, value) => chain_key = Some(value.array()?),
                (4, value) => signing_key = Some(value.key()?),
                _ => {}
            }
        }
        Ok(Self {
            key_id: key_id.ok_or(SignalError::InvalidMessage)?,
            iteration,
            chain_key: chain_key.ok_or(SignalError::InvalidMessage)?,
            signing_key: signing_key.ok_or(SignalError::InvalidMessage)?,
        })
    }
}

/// Checks and strips the version byte. The lower half says what else the sender speaks and is of no interest.
fn body(bytes: &[u8]) -> Result<&[u8], SignalError> {
    match bytes {
        [version, rest @ ..] if version >> 4 == VERSION_BYTE >> 4 => Ok(rest),
        _ => Err(SignalError::InvalidMessage),
    }
}

fn split_tail(bytes: &[u8], tail: usize) -> Result<(&[u8], &[u8]), SignalError> {
    let at = bytes.len().checked_sub(tail).ok_or(SignalError::InvalidMessage)?;
    bytes.split_at_checked(at).ok_or(SignalError::InvalidMessage)
}

/// Walks the fields of one protobuf message.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// One field's value.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A fixed-size number; nothing here uses those.
    Fixed,
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u32, SignalError> {
        u32::try_from(self.long()?).map_err(|_| SignalError::InvalidMessage)
    }

    pub(super) fn long(self) -> Result<u64, SignalError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(SignalError::InvalidMessage),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], SignalError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(SignalError::InvalidMessage),
        }
    }

    pub(super) fn array<const N: usize>(self) -> Result<&'a [u8; N], SignalError> {
        self.bytes()?.try_into().map_err(|_| SignalError::InvalidMessage)
    }

    /// A public key in its 33-byte form.
    ///
    /// The top bit must be clear: X25519 ignores it, so that one set-up message could be shown twice as two.
    pub(super) fn key(self) -> Result<PublicKey, SignalError> {
        let bytes: &[u8; 33] = self.bytes()?.try_into().map_err(|_| SignalError::InvalidKey)?;
        let key = PublicKey::from_slice(bytes).ok_or(SignalError::InvalidKey)?;
        if key.0[31] & 0x80 == 0 { Ok(key) } else { Err(SignalError::InvalidKey) }
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), SignalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            // Nothing behind a malformed field can be trusted.
            self.0 = &[];
        }
        Some(field.ok_or(SignalError::InvalidMessage))
    }
}

/// Appends a number field, also when it is zero.
pub(super) fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put_varint(out, value);
}

/// Appends a bytes field.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    put_header(out, field, value.len());
    out.extend_from_slice(value);
}

/// Appends the head of a bytes field whose `len` bytes the caller appends.
pub(super) fn put_header(out: &mut Vec<u8>, field: u8, len: usize) {
    out.push(field << 3 | 2);
    put_varint(out, len as u64);
}

/// Appends a message field; the buffer it is built in is wiped.
pub(super) fn put_message(out: &mut Vec<u8>, field: u8, build: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Zeroizing::new(Vec::with_capacity(512));
    build(&mut message);
    put_bytes(out, field, &message);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: &[u8]) -> Result<Vec<(u32, u32)>, SignalError> {
        Fields(bytes).map(|field| field.and_then(|(tag, value)| Ok((tag, value.number()?)))).collect()
    }

    #[test]
    fn what_is_put_is_read() {
        let mut out = Vec::new();
        put_number(&mut out, 1, 0);
        put_number(&mut out, 2, u32::MAX.into());
        assert_eq!(numbers(&out), Ok(vec![(1, 0), (2, u32::MAX)]));
        let mut out = Vec::new();
        put_message(&mut out, 3, |out| put_bytes(out, 4, &[7; 300]));
        let (_, outer) = Fields(&out).next().unwrap().unwrap();
        let (tag, inner) = Fields(outer.bytes().unwrap()).next().unwrap().unwrap();
        assert_eq!((tag, inner.bytes().unwrap()), (4, &[7u8; 300][..]));
    }

    #[test]
    fn unknown_fields_of_every_size_are_passed_over() {
        let bytes = [0x3d, 1, 2, 3, 4, 0x41, 1, 2, 3, 4, 5, 6, 7, 8, 0x4a, 1, 9, 0x08, 5];
        let tags: Vec<_> = Fields(&bytes).map(|field| field.map(|(tag, _)| tag)).collect();
        assert_eq!(tags, [Ok(7), Ok(8), Ok(9), Ok(1)]);
    }

    #[test]
    fn malformed_fields_end_the_reading_with_an_error() {
        let bad: [&[u8]; 7] = [
            &[0x08],                                                                   // no value
            &[0x08, 0xff],                                                             // unfinished number
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // overlong number
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0x1f],                                     // more than 32 bits
            &[0x0a, 0x05, 1, 2],                                                       // shorter than it says
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],             // absurd length
            &[0x0b, 0x0c],                                                             // group
        ];
        for bytes in bad {
            assert_eq!(numbers(bytes), Err(SignalError::InvalidMessage), "{bytes:x?}");
        }
    }

    #[test]
    fn keys_need_their_type_byte_and_a_clear_top_bit() {
        let mut key = [9u8; 33];
        assert_eq!(Value::Bytes(&key).key(), Err(SignalError::InvalidKey));
        key[0] = 5;
        assert_eq!(Value::Bytes(&key).key(), Ok(PublicKey([9; 32])));
        key[32] = 0x89;
        assert_eq!(Value::Bytes(&key).key(), Err(SignalError::InvalidKey));
        assert_eq!(Value::Bytes(&key[1..]).key(), Err(SignalError::InvalidKey));
    }

    #[test]
    fn another_protocol_version_is_refused() {
        assert!(body(&[0x33, 1]).is_ok());
        assert!(body(&[0x34, 1]).is_ok());
        for version in [0x23, 0x43, 0x00] {
            assert_eq!(body(&[version, 1]), Err(SignalError::InvalidMessage));
        }
        assert_eq!(body(&[]), Err(SignalError::InvalidMessage));
    }
}
