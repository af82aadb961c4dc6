//! Request bodies: counted or chunked on the way in, plain bytes on the way out.

use super::refusal::Refusal;

/// Longest chunk-size line, extensions included.
const MAX_CHUNK_LINE_BYTES: usize = 256;

/// Most bytes of trailer fields; they are read and dropped.
const MAX_TRAILER_BYTES: usize = 4096;

/// Reads one body.
#[derive(Debug)]
pub(super) enum BodyReader {
    /// So many bytes are still to come.
    Counted(usize),
    /// Chunked coding.
    Chunked(ChunkedReader),
}

impl BodyReader {
    /// Takes what belongs to the body from `input` and appends its content to `body`.
    /// Returns how many bytes of `input` were used, and whether the body is complete.
    ///
    /// # Errors
    /// The [`Refusal`] to answer when the coding is broken or the body grows above `max_body_bytes`.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        max_body_bytes: usize,
    ) -> Result<(usize, bool), Refusal> {
        match self {
            Self::Counted(left) => {
                let taken = input.len().min(*left);
                body.extend_from_slice(&input[..taken]);
                *left -= taken;
                Ok((taken, *left == 0))
            }
            Self::Chunked(chunks) => chunks.feed(input, body, max_body_bytes),
        }
    }

    /// How much may be read from the socket without touching the next request; `None` when unknown.
    pub(super) fn known_left(&self) -> Option<usize> {
        match self {
            Self::Counted(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }
}

/// Decoder of chunked transfer coding. Spec: RFC 9112 §7.1; line ends must be CRLF.
#[derive(Debug, Default)]
pub(super) struct ChunkedReader {
    state: ChunkState,
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// In a chunk-size line.
    #[default]
    Size,
    /// In chunk data; this much is left.
    Data(usize),
    /// In the CRLF behind chunk data.
    DataEnd,
    /// In the trailer section.
    Trailer,
}

impl ChunkedReader {
    fn feed(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        max_body_bytes: usize,
    ) -> Result<(usize, bool), Refusal> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            if let ChunkState::Data(left) = self.state {
                let taken = left.min(rest.len());
                body.extend_from_slice(&rest[..taken]);
                used += taken;
                self.state = if taken == left { ChunkState::DataEnd } else { ChunkState::Data(left - taken) };
                continue;
            }
            let (taken, complete) = self.take_line(rest)?;
            used += taken;
            if complete && self.line_done(body.len(), max_body_bytes)? {
                return Ok((used, true));
            }
        }
        Ok((used, false))
    }

    /// Collects a line up to its LF.
    fn take_line(&mut self, rest: &[u8]) -> Result<(usize, bool), Refusal> {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(rest.len(), |at| at + 1);
        if self.line.len() + taken > MAX_CHUNK_LINE_BYTES.max(MAX_TRAILER_BYTES) {
            return Err(broken());
        }
        self.line.extend_from_slice(&rest[..taken]);
        Ok((taken, end.is_some()))
    }

    /// Acts on a whole line; `true` when it ends the body.
    fn line_done(&mut self, body_len: usize, max_body_bytes: usize) -> Result<bool, Refusal> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r\n").ok_or_else(broken)?;
        match self.state {
            ChunkState::Size => {
                let size = parse_chunk_size(line).ok_or_else(broken)?;
                if size > max_body_bytes - body_len.min(max_body_bytes) {
                    return Err(super::head::too_large(max_body_bytes));
                }
                self.state = if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
            }
            ChunkState::DataEnd if line.is_empty() => self.state = ChunkState::Size,
            ChunkState::DataEnd => return Err(broken()),
            ChunkState::Trailer if line.is_empty() => return Ok(true),
            ChunkState::Trailer => {
                self.trailer_bytes += line.len();
                if self.trailer_bytes > MAX_TRAILER_BYTES {
                    return Err(broken());
                }
            }
            ChunkState::Data(_) => {}
        }
        Ok(false)
    }
}

/// Hexadecimal size, at most 8 digits; an extension behind `;` is ignored.
fn parse_chunk_size(line: &[u8]) -> Option<usize> {
    if line.len() > MAX_CHUNK_LINE_BYTES {
        return None;
    }
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0usize, |size, digit| {
        Some(size << 4 | usize::try_from(char::from(*digit).to_digit(16)?).ok()?)
    })
}

fn broken() -> Refusal {
    Refusal::malformed("the chunked body is malformed").about("body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Refusal> {
        let mut reader = BodyReader::Chunked(ChunkedReader::default());
        let (mut body, mut used, mut done) = (Vec::new(), 0, false);
        while used < bytes.len() && !done {
            let piece = &bytes[used..bytes.len().min(used + step)];
            let (taken, complete) = reader.feed(piece, &mut body, 100)?;
            used += taken;
            done = complete;
        }
        Ok((body, used, done))
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let bytes = b"4\r\nWiki\r\n6;ext=1\r\npedia \r\n0\r\nX: y\r\n\r\nNEXT";
        for step in 1..bytes.len() {
            let (body, used, done) = decode(bytes, step).unwrap();
            assert_eq!((body.as_slice(), used, done), (&b"Wikipedia "[..], bytes.len() - 4, true), "{step}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for bytes in [
            &b"4\nWiki\r\n0\r\n\r\n"[..],
            b"4\r\nWikiX\r\n0\r\n\r\n",
            b"x\r\n",
            b"\r\n",
            b"-1\r\n",
            b"ffffffffffffffff1\r\n",
            b"0x4\r\nWiki\r\n",
        ] {
            assert_eq!(decode(bytes, 64).unwrap_err().status, 400, "{bytes:?}");
        }
    }

    #[test]
    fn a_chunked_body_above_the_limit_is_413() {
        assert_eq!(decode(b"65\r\n", 64).unwrap_err().status, 413);
        let long = [&b"64\r\n"[..], &[b'a'; 100], b"\r\n1\r\nb\r\n"].concat();
        assert_eq!(decode(&long, 64).unwrap_err().status, 413);
    }

    #[test]
    fn endless_size_lines_and_trailers_are_refused() {
        assert!(decode(&[b'1'; 5000], 64).is_err());
        let trailers =
            [&b"0\r\n"[..], &b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(200)].concat();
        assert!(decode(&trailers, 64).is_err());
    }

    #[test]
    fn a_counted_body_leaves_the_next_request_alone() {
        let mut reader = BodyReader::Counted(3);
        let mut body = Vec::new();
        assert_eq!(reader.feed(b"ab", &mut body, 100).unwrap(), (2, false));
        assert_eq!(reader.known_left(), Some(1));
        assert_eq!(reader.feed(b"cGET", &mut body, 100).unwrap(), (1, true));
        assert_eq!(body, b"abc");
    }
}
