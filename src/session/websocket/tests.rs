//! Against tungstenite's server, and against servers that break the standard.

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::{
    Message,
    protocol::{Role, WebSocket, frame::CloseFrame, frame::coding::CloseCode},
};

use super::*;

/// A duplex in memory: reads what was put in, keeps what is written.
#[derive(Default)]
struct Pipe {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.input.read(buf)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.output.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn server_with(input: Vec<u8>) -> WebSocket<Pipe> {
    WebSocket::from_raw_socket(Pipe { input: Cursor::new(input), output: Vec::new() }, Role::Server, None)
}

/// Everything that came, data joined, in words.
fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<String>), WebSocketError> {
    let mut decoder = Decoder::default();
    let (mut data, mut control) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        decoder.feed(piece, |incoming| match incoming {
            Incoming::Data(bytes) => data.extend_from_slice(bytes),
            Incoming::Ping(bytes) => control.push(format!("ping {bytes:?}")),
            Incoming::Close(code) => control.push(format!("close {code:?}")),
        })?;
    }
    Ok((data, control))
}

#[test]
fn the_handshake_is_accepted_by_tungstenite_and_its_answer_by_us() {
    let mut handshake = Handshake::new("127.0.0.1:4443", "/ws/chat", "https://web.whatsapp.com");
    let pipe = Pipe { input: Cursor::new(handshake.request().to_vec()), output: Vec::new() };
    let server = tungstenite::accept(pipe).unwrap();
    let mut answer = server.get_ref().output.clone();
    answer.extend_from_slice(b"\x82\x01x");
    let (last, rest) = answer.split_last().unwrap();
    for byte in &rest[..rest.len() - 2] {
        if let Some(behind) = handshake.response(&[*byte]).unwrap() {
            assert!(behind.is_empty());
        }
    }
    let mut whole = Handshake::new("h", "/", "o");
    whole.accept = handshake.accept;
    assert_eq!(whole.response(&answer).unwrap().unwrap(), [0x82, 1, *last]);
}

#[test]
fn a_wrong_answer_to_the_handshake_is_refused() {
    let good = |accept: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    };
    let answer_to = |edit: &dyn Fn(String) -> String| {
        let mut handshake = Handshake::new("h", "/", "o");
        let answer = edit(good(&handshake.accept));
        handshake.response(answer.as_bytes())
    };
    assert_eq!(answer_to(&|text| text), Ok(Some(Vec::new())));
    assert_eq!(answer_to(&|text| text.replace("101", "503")), Err(WebSocketError::Refused(503)));
    for (from, to) in [
        ("Accept: ", "Accept: x"),
        ("Upgrade: WebSocket\r\n", ""),
        ("keep-alive, Upgrade", "close"),
        ("HTTP/1.1", "SMTP"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ] {
        let answer = answer_to(&|text| text.replace(from, to));
        assert!(matches!(answer, Err(WebSocketError::BadResponse(_))), "{from}: {answer:?}");
    }
    let mut endless = Handshake::new("h", "/", "o");
    let line = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(20);
    assert_eq!(endless.response(b"HTTP/1.1 101 x\r\n"), Ok(None));
    assert!((0..100).any(|_| endless.response(&line).is_err()));
}

#[test]
fn ping_and_close_between_the_pieces_of_a_message_are_seen() {
    let bytes = b"\x02\x03abc\x89\x02hi\x00\x00\x80\x03def\x8a\x00\x88\x02\x03\xe8";
    for piece in 1..=bytes.len() {
        let (data, control) = decode(bytes, piece).unwrap();
        assert_eq!(data, b"abcdef");
        assert_eq!(control, ["ping [104, 105]", "close Some(1000)"]);
    }
}

#[test]
fn text_is_skipped() {
    assert_eq!(decode(b"\x81\x03abc\x82\x01x", 2).unwrap().0, b"x");
}

#[test]
fn broken_frames_are_refused_before_any_of_their_payload_is_taken() {
    for (bytes, why) in [
        (&b"\x82\x83abcd"[..], "a server must not mask"),
        (b"\xc2\x01x", "reserved bits are set"),
        (b"\x83\x01x", "unknown opcode"),
        (b"\x80\x01x", "nothing to continue"),
        (b"\x02\x01x\x82\x01x", "a message inside a message"),
        (b"\x09\x01x", "control frame too long or in pieces"),
        (b"\x89\x7e\x00\x7e", "control frame too long or in pieces"),
    ] {
        assert_eq!(decode(bytes, 1), Err(WebSocketError::BadFrame(why)));
    }
    let huge = b"\x82\x7f\x00\x00\x00\x00\x01\x00\x00\x01";
    assert_eq!(decode(huge, 99), Err(WebSocketError::TooLarge(MAX_MESSAGE_BYTES + 1)));
    let pieces = b"\x02\x01x\x00\x7f\x00\x00\x00\x00\x01\x00\x00\x00";
    assert_eq!(decode(pieces, 99), Err(WebSocketError::TooLarge(MAX_MESSAGE_BYTES + 1)));
    let overflow = b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(decode(overflow, 99), Err(WebSocketError::TooLarge(u64::MAX)));
}

#[test]
fn tungstenite_understands_every_frame_of_ours() {
    let mut encoder = Encoder::default();
    let mut out = Vec::new();
    let payloads: Vec<Vec<u8>> =
        [0usize, 1, 125, 126, 127, 65_535, 65_536, 300_000].map(|n| (0..n).map(|i| i as u8).collect()).into();
    for payload in &payloads {
        encoder.binary(&mut out, payload);
    }
    encoder.pong(&mut out, b"p");
    encoder.close(&mut out, 1000);
    let mut server = server_with(out);
    for payload in payloads {
        assert_eq!(server.read().unwrap(), Message::Binary(payload.into()));
    }
    assert_eq!(server.read().unwrap(), Message::Pong(b"p".to_vec().into()));
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    assert_eq!(server.read().unwrap(), Message::Close(Some(close)));
}

#[test]
fn mask_keys_do_not_repeat() {
    let mut encoder = Encoder::default();
    let keys: std::collections::HashSet<_> = (0..100).map(|_| encoder.mask_key()).collect();
    assert_eq!(keys.len(), 100);
}

proptest! {
    #[test]
    fn what_tungstenite_sends_arrives_whatever_the_pieces(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..8),
        piece in 1usize..600,
    ) {
        let mut server = server_with(Vec::new());
        for message in &messages {
            server.send(Message::Binary(message.clone().into())).unwrap();
            server.send(Message::Ping(b"x".to_vec().into())).unwrap();
        }
        let (data, control) = decode(&server.get_ref().output, piece).unwrap();
        prop_assert_eq!(data, messages.concat());
        prop_assert_eq!(control.len(), messages.len());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..9) {
        drop(decode(&bytes, piece));
    }
}
