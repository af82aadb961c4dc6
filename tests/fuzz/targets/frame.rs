//! Frames cut from any stream in any pieces are the same as from the whole stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use whatsapp_worker::whatsapp::noise::{
    frame::{FrameError, FrameReader, write_frame},
    responder::strip_intro,
};

fuzz_target!(|data: &[u8]| {
    let _ = strip_intro(data);
    let Some((&piece, stream)) = data.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    assert_eq!(whole, frames(stream, usize::from(piece).max(1)));
    if let Ok(frames) = whole {
        let mut again = Vec::new();
        frames.iter().for_each(|frame| write_frame(&mut again, frame));
        assert!(stream.starts_with(&again));
    }
});

fn frames(stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut reader = FrameReader::with_limit(100_000);
    let mut frames = Vec::new();
    for piece in stream.chunks(piece) {
        reader.push(piece);
        while let Some(frame) = reader.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}
