//! A small bounded cache: what was used least recently leaves first. Knows nothing of what it holds.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Values by key, at most `capacity` of them.
#[derive(Debug)]
pub(in crate::whatsapp) struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    capacity: usize,
    tick: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// An empty cache. Memory is taken as it fills.
    pub(in crate::whatsapp) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity, tick: 0 }
    }

    /// The value of a key; counts as a use.
    pub(in crate::whatsapp) fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.tick += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.tick;
        Some(&mut entry.value)
    }

    /// Sets a value. Returns what had to leave for it: never the value just set.
    pub(in crate::whatsapp) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.tick += 1;
        self.entries.insert(key, Entry { value, used: self.tick });
        if self.entries.len() <= self.capacity {
            return None;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())?;
        self.entries.remove_entry(&oldest).map(|(key, entry)| (key, entry.value))
    }

    /// Takes a value out.
    pub(in crate::whatsapp) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.remove(key).map(|entry| entry.value)
    }

    /// Takes everything out and gives the memory back.
    pub(in crate::whatsapp) fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        std::mem::take(&mut self.entries).into_iter().map(|(key, entry)| (key, entry.value))
    }

    /// The keys a condition holds for.
    pub(in crate::whatsapp) fn keys_with(&self, holds: impl Fn(&K) -> bool) -> Vec<K> {
        self.entries.keys().filter(|key| holds(key)).cloned().collect()
    }

    /// How many values there are.
    pub(in crate::whatsapp) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_unused_for_longest_leaves_first() {
        let mut cache = Cache::new(2);
        assert_eq!(cache.insert("a", 1), None);
        assert_eq!(cache.insert("b", 2), None);
        assert_eq!(cache.get("a").copied(), Some(1));
        assert_eq!(cache.insert("c", 3), Some(("b", 2)));
        assert_eq!(cache.insert("c", 4), None);
        assert_eq!(cache.len(), 2);
    }
}
