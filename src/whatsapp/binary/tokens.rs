//! Looking up strings in the token dictionary, and the tag bytes around them.

use super::dictionary::{DOUBLE, SINGLE};

/// A string's place in the dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// One byte on the wire.
    Single(u8),
    /// Two bytes on the wire: table tag and index.
    Double(u8, u8),
}

/// The dictionary place of a string; `None` when it is not a token.
pub(super) fn find(text: &str) -> Option<Token> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let mut slot = hash(text.as_bytes());
    loop {
        let place = *INDEX.get(slot)?;
        if place == 0 {
            return None;
        }
        if text_at(place) == text {
            return Some(token_at(place));
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// The string of a one-byte token; `None` for byte 0 and for bytes that are not tokens.
pub(super) fn single(byte: u8) -> Option<&'static str> {
    SINGLE.get(usize::from(byte)).copied().filter(|text| !text.is_empty())
}

/// The string of a two-byte token; `None` when `table` is not one of the four table tags.
pub(super) fn double(table: u8, index: u8) -> Option<&'static str> {
    let table = DOUBLE.get(usize::from(table.checked_sub(tag::DICTIONARY_0)?))?;
    table.get(usize::from(index)).copied()
}

/// The bytes that are not tokens.
pub(super) mod tag {
    pub(in crate::whatsapp::binary) const LIST_EMPTY: u8 = 0;
    pub(in crate::whatsapp::binary) const DICTIONARY_0: u8 = 236;
    pub(in crate::whatsapp::binary) const DICTIONARY_3: u8 = 239;
    pub(in crate::whatsapp::binary) const INTEROP_JID: u8 = 245;
    pub(in crate::whatsapp::binary) const FB_JID: u8 = 246;
    pub(in crate::whatsapp::binary) const AD_JID: u8 = 247;
    pub(in crate::whatsapp::binary) const LIST_8: u8 = 248;
    pub(in crate::whatsapp::binary) const LIST_16: u8 = 249;
    pub(in crate::whatsapp::binary) const JID_PAIR: u8 = 250;
    pub(in crate::whatsapp::binary) const HEX_8: u8 = 251;
    pub(in crate::whatsapp::binary) const BINARY_8: u8 = 252;
    pub(in crate::whatsapp::binary) const BINARY_20: u8 = 253;
    pub(in crate::whatsapp::binary) const BINARY_32: u8 = 254;
    pub(in crate::whatsapp::binary) const NIBBLE_8: u8 = 255;
}

/// Longest token in the dictionary, in bytes.
const LONGEST: usize = 48;

/// A power of two about three times the number of tokens, so that a search takes one or two probes.
const SLOTS: usize = 4096;

/// Open-addressing hash table over all tokens, made at compile time. 0 marks a free slot; other values are places:
/// 1 to 235 one-byte tokens, from 236 on the four tables of two-byte tokens behind each other.
static INDEX: [u16; SLOTS] = build_index();

const fn build_index() -> [u16; SLOTS] {
    let mut index = [0; SLOTS];
    let mut place = 1;
    while place < SINGLE.len() + 4 * 256 {
        let mut slot = hash(text_at(place as u16).as_bytes());
        while index[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = place as u16;
        place += 1;
    }
    index
}

/// FNV-1a, folded to a slot number.
const fn hash(bytes: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5_u32;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % SLOTS
}

const fn text_at(place: u16) -> &'static str {
    let place = place as usize;
    if place < SINGLE.len() {
        SINGLE[place]
    } else {
        let place = place - SINGLE.len();
        DOUBLE[place / 256][place % 256]
    }
}

fn token_at(place: u16) -> Token {
    match u8::try_from(place) {
        Ok(byte) if usize::from(byte) < SINGLE.len() => Token::Single(byte),
        _ => {
            let [table, index] = (place - SINGLE.len() as u16).to_be_bytes();
            Token::Double(tag::DICTIONARY_0 + table, index)
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_dictionary_is_version_3() {
        let all: Vec<_> = SINGLE.iter().chain(DOUBLE.iter().flatten()).copied().collect();
        let digest = Sha256::digest(all.join("\n"));
        assert_eq!(
            format!("{digest:x}"),
            "cfe8fcd3ef24f232ec7df9824e1baa277f6a736543efc0e5f48aa46abb0f8cd0",
            "the order of tokens is part of the protocol"
        );
    }

    #[test]
    fn every_token_is_found_at_its_place() {
        for (i, text) in SINGLE.iter().enumerate().skip(1) {
            assert_eq!(find(text), Some(Token::Single(i as u8)), "{text}");
            assert_eq!(single(i as u8), Some(*text));
        }
        for (table, texts) in DOUBLE.iter().enumerate() {
            for (i, text) in texts.iter().enumerate() {
                let tag = tag::DICTIONARY_0 + table as u8;
                assert_eq!(find(text), Some(Token::Double(tag, i as u8)), "{text}");
                assert_eq!(double(tag, i as u8), Some(*text));
            }
        }
    }

    #[test]
    fn other_strings_are_not_tokens() {
        for text in ["", "Message", "messages", "6281200000001", &"x".repeat(48), &"x".repeat(4096)] {
            assert_eq!(find(text), None, "{text}");
        }
        assert_eq!(single(0), None);
        assert_eq!(single(236), None);
        assert_eq!(double(235, 0), None);
        assert_eq!(double(240, 0), None);
    }

    #[test]
    fn no_token_is_longer_than_the_search_allows() {
        let longest = SINGLE.iter().chain(DOUBLE.iter().flatten()).map(|text| text.len()).max();
        assert_eq!(longest, Some(LONGEST));
    }
}
