//! Input no honest peer sends: every answer is a typed error, within bounded memory and time.

use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};
use proptest::prelude::*;

use crate::whatsapp::{
    binary::{DecodeError, Node, decode, encode},
    limits, vectors,
};

const LIST_8: u8 = 248;
const LIST_16: u8 = 249;
/// The token `iq`.
const IQ: u8 = 0x19;

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(vec![2], Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Vectors short enough to try every cut and every bit in a moment.
fn short_vectors() -> impl Iterator<Item = Vec<u8>> {
    let all = vectors::read("binary/nodes.json").into_iter();
    all.map(|vector| vectors::bytes(&vector, "wire")).filter(|wire| wire.len() < 200)
}

#[test]
fn every_truncation_of_every_vector_is_refused() {
    for wire in short_vectors() {
        for len in 0..wire.len() {
            assert!(decode(&wire[..len]).is_err(), "{len} of {wire:02x?}");
        }
    }
}

#[test]
fn no_flipped_bit_of_any_vector_panics() {
    for mut wire in short_vectors() {
        for i in 0..wire.len() * 8 {
            wire[i / 8] ^= 1 << (i % 8);
            if let Ok(node) = decode(&wire) {
                assert!(decode(&encode(&node)).is_ok(), "what was read can be written: {wire:02x?}");
            }
            wire[i / 8] ^= 1 << (i % 8);
        }
    }
}

#[test]
fn bytes_behind_the_stanza_are_refused() {
    let mut wire = encode(&Node::new("iq"));
    wire.push(0);
    assert_eq!(decode(&wire), Err(DecodeError::Leftover(1)));
}

#[test]
fn nodes_nested_up_to_the_limit_are_read_and_deeper_ones_refused() {
    let nested = |depth: usize| {
        let mut wire = vec![0];
        (1..depth).for_each(|_| wire.extend([LIST_8, 2, IQ, LIST_8, 1]));
        wire.extend([LIST_8, 1, IQ]);
        wire
    };
    assert!(decode(&nested(limits::MAX_STANZA_DEPTH)).is_ok());
    assert_eq!(decode(&nested(limits::MAX_STANZA_DEPTH + 1)), Err(DecodeError::TooDeep));
    assert_eq!(decode(&nested(1_000_000)), Err(DecodeError::TooDeep));
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_before_allocating() {
    assert_eq!(decode(&[0, LIST_8, 2, IQ, LIST_16, 0xff, 0xff]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0, LIST_16, 0xff, 0xff, IQ]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0, LIST_8, 2, IQ, 254, 0xff, 0xff, 0xff, 0xff]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0, LIST_8, 2, IQ, 253, 0xff, 0xff, 0xff]), Err(DecodeError::Truncated));
}

#[test]
fn a_bomb_that_inflates_too_far_is_refused() {
    let wire = compressed(&vec![0; limits::MAX_INFLATED + 1]);
    assert!(wire.len() < 40_000);
    assert_eq!(decode(&wire), Err(DecodeError::TooLarge));
}

#[test]
fn a_bomb_of_many_small_nodes_is_refused() {
    // 65,535 lists of 100 empty nodes each: 20 MiB inflated, half a gigabyte as a tree.
    let mut group = vec![LIST_8, 2, IQ, LIST_8, 100];
    group.extend([LIST_8, 1, IQ].repeat(100));
    let mut body = vec![LIST_8, 2, IQ, LIST_16, 0xff, 0xff];
    body.extend(group.repeat(0xffff));
    assert!(body.len() < limits::MAX_INFLATED);
    assert_eq!(decode(&compressed(&body)), Err(DecodeError::TooLarge));
}

#[test]
fn a_large_account_still_fits() {
    // 300 groups with 200 members: the largest answer a busy account gets.
    let member = Node::new("participant")
        .attr("jid", "100000000000011@lid")
        .attr("phone_number", "4915100000002@c.us");
    let group = Node::new("group").attr("id", "120363000000000021").nodes(vec![member; 200]);
    let answer = Node::new("iq").child(Node::new("groups").nodes(vec![group; 300]));
    let wire = compressed(&encode(&answer)[1..]);
    assert!(decode(&wire).is_ok());
}

#[test]
fn a_compressed_stanza_that_does_not_inflate_is_refused() {
    assert_eq!(decode(&[2, 1, 2, 3, 4]), Err(DecodeError::BadCompression));
    let whole = compressed(&encode(&Node::new("iq").bytes([7; 500]))[1..]);
    assert!(decode(&whole).is_ok());
    for len in 1..whole.len() {
        assert!(decode(&whole[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let cases: [(&[u8], DecodeError); 14] = [
        (&[], DecodeError::Truncated),
        (&[0], DecodeError::Truncated),
        (&[0, 0], DecodeError::NoTag),
        (&[0, LIST_8, 0], DecodeError::NoTag),
        (&[0, LIST_8, 1, 0], DecodeError::NoTag),
        (&[0, IQ], DecodeError::BadTag(IQ)),
        (&[0, LIST_8, 1, 240], DecodeError::BadTag(240)),
        (&[0, LIST_8, 1, LIST_8], DecodeError::BadTag(LIST_8)),
        // Attribute values: nibble 12, odd text without digits, unknown domain, empty server.
        (&[0, LIST_8, 3, IQ, IQ, 255, 1, 0x1c], DecodeError::BadPacked),
        (&[0, LIST_8, 3, IQ, IQ, 255, 0x80], DecodeError::BadPacked),
        (&[0, LIST_8, 3, IQ, IQ, 247, 7, 1, 255, 1, 0x12], DecodeError::BadJid),
        (&[0, LIST_8, 3, IQ, IQ, 250, 255, 1, 0x12, 0], DecodeError::BadJid),
        // A user with an @, a messenger JID elsewhere.
        (&[0, LIST_8, 3, IQ, IQ, 250, 252, 3, b'a', b'@', b'b', 3], DecodeError::BadJid),
        (&[0, LIST_8, 3, IQ, IQ, 246, 255, 1, 0x12, 0, 0, 3], DecodeError::BadJid),
    ];
    for (wire, error) in cases {
        assert_eq!(decode(wire), Err(error), "{wire:?}");
    }
}

#[test]
fn a_name_that_is_not_utf8_does_not_lose_the_stanza() {
    let node = decode(&[0, LIST_8, 3, IQ, IQ, 252, 2, b'a', 0xff]).unwrap();
    assert_eq!(node.get("iq").as_deref(), Some("a\u{fffd}"));
}

proptest! {
    #[test]
    fn no_bytes_panic(wire in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&wire);
        let _ = decode(&[&[0, LIST_8, 5, IQ], wire.as_slice()].concat());
    }
}
