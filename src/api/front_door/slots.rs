//! A table of connections with tokens that stay wrong once a slot is used again.

/// Names one entry of a [`Slots`] for as long as that entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) index: u32,
    generation: u32,
}

impl Token {
    /// One number, for `epoll`.
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Back from [`Token::to_u64`].
    pub(super) fn from_u64(raw: u64) -> Self {
        let low = u32::try_from(raw & 0xffff_ffff).expect("masked to 32 bits");
        let high = u32::try_from(raw >> 32).expect("shifted to 32 bits");
        Self { index: low, generation: high }
    }
}

/// Entries by index, with reuse of freed places.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> Token {
        if let Some(index) = self.free.pop() {
            let (generation, place) = &mut self.entries[index as usize];
            *place = Some(value);
            return Token { index, generation: *generation };
        }
        let index = u32::try_from(self.entries.len()).expect("connections are capped far below 2^32");
        self.entries.push((0, Some(value)));
        Token { index, generation: 0 }
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        match self.entries.get_mut(token.index as usize) {
            Some((generation, place)) if *generation == token.generation => place.as_mut(),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let (generation, place) = self.entries.get_mut(token.index as usize)?;
        if *generation != token.generation {
            return None;
        }
        let value = place.take()?;
        // 31 bits: the highest bit of a token marks connections to tiny_http.
        *generation = (*generation + 1) & 0x7fff_ffff;
        self.free.push(token.index);
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.entries.iter().zip(0u32..).filter_map(|((generation, place), index)| {
            place.as_ref().map(|value| (Token { index, generation: *generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_dies_with_its_entry() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!(first.index, second.index);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.get_mut(Token::from_u64(second.to_u64())), Some(&mut 'b'));
        assert_eq!(slots.iter().count(), 1);
    }
}
