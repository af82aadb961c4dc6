//! Frames: a 3-byte big-endian length, then that many bytes. They know nothing of websocket message boundaries.
//!
//! Seen: whatsmeow `socket/framesocket.go` @33cfac51; whatsapp-rust `wacore/noise/src/framing.rs` @1489b7da.

use crate::whatsapp::limits;

/// Why the byte stream cannot be cut into frames any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer announced a longer frame than this side takes.
    #[error("a frame of {len} bytes was announced, the limit is {limit}")]
    TooLong {
        /// Announced length.
        len: usize,
        /// This reader's limit.
        limit: usize,
    },
}

/// Puts frames together from pieces of any size.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that were given out already.
    taken: usize,
    limit: usize,
}

impl Default for FrameReader {
    /// A reader that takes every length the format can express.
    fn default() -> Self {
        Self::with_limit(limits::MAX_FRAME)
    }
}

impl FrameReader {
    /// A reader that refuses frames longer than `limit` bytes as soon as they are announced.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { buffer: Vec::new(), taken: 0, limit }
    }

    /// Appends bytes as they came from the peer. Take all frames with [`Self::next`] before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame without its length; `None` until more bytes are pushed.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`]; it stays, the connection is of no more use.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end; this goes on after a push")]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some(([high, middle, low], rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        if len > self.limit {
            return Err(FrameError::TooLong { len, limit: self.limit });
        }
        let Some(frame) = rest.get(..len) else {
            return Ok(None);
        };
        let frame = frame.to_vec();
        self.taken += HEADER + len;
        if self.taken == self.buffer.len() {
            self.taken = 0;
            self.buffer.clear();
            // A connection lives for weeks; one large stanza must not keep its memory.
            self.buffer.shrink_to(limits::FRAME_BUFFER_KEPT);
        }
        Ok(Some(frame))
    }
}

/// Appends `payload` as one frame.
///
/// # Panics
///
/// When `payload` has more than [`limits::MAX_FRAME`] bytes; nothing we build comes near it.
pub fn write_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.reserve(HEADER + payload.len());
    out.extend(header(payload.len()));
    out.extend_from_slice(payload);
}

/// The length in front of a frame.
pub(super) fn header(len: usize) -> [u8; HEADER] {
    let bytes = u32::try_from(len).expect("no frame of ours has 4 GiB").to_be_bytes();
    let [0, header @ ..] = bytes else { panic!("no frame of ours has 16 MiB, this one has {len} bytes") };
    header
}

/// Bytes of the length in front of a frame.
pub(super) const HEADER: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(reader: &mut FrameReader) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in prop::collection::vec(1_usize..200, 1..50),
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| write_frame(&mut stream, frame));
            let mut reader = FrameReader::default();
            let mut read = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                reader.push(piece);
                read.extend(read_all(&mut reader));
                rest = after;
            }
            prop_assert_eq!(read, frames);
        }
    }

    #[test]
    fn one_push_may_hold_several_frames_and_a_part_of_the_next() {
        let mut reader = FrameReader::default();
        reader.push(&[0, 0, 1, 7, 0, 0, 0, 0, 0, 2, 8]);
        assert_eq!(read_all(&mut reader), [vec![7], vec![]]);
        reader.push(&[9]);
        assert_eq!(read_all(&mut reader), [vec![8, 9]]);
    }

    #[test]
    fn memory_is_given_back_after_a_large_frame() {
        let mut stream = Vec::new();
        write_frame(&mut stream, &vec![1; 1_000_000]);
        let mut reader = FrameReader::default();
        reader.push(&stream);
        assert_eq!(reader.next().unwrap().unwrap().len(), 1_000_000);
        assert!(reader.buffer.capacity() <= limits::FRAME_BUFFER_KEPT);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_when_announced() {
        let mut reader = FrameReader::with_limit(1000);
        reader.push(&[0, 3, 233]);
        assert_eq!(reader.next(), Err(FrameError::TooLong { len: 1001, limit: 1000 }));
    }
}
