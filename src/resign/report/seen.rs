//! Which items are there more than once, found in two readings and little memory: a filter of
//! fixed size names all that may be doubled (and a few that are not), the next reading makes sure.

use std::collections::HashMap;

use crate::resign::item::Item;
use crate::resign::journal::{ItemKey, item_key};

/// 4 MiB: of a million items, some hundred are suspected wrongly.
const BITS: usize = 1 << 25;

/// Names the old signature that an item tells of.
pub(crate) fn key_of(item: &Item) -> ItemKey {
    item_key(&item.repository, &item.digest_text(), item.blob.as_deref().unwrap_or_default())
}

/// The first reading.
#[derive(Debug)]
pub(crate) struct Seen {
    bits: Vec<u64>,
    suspects: HashMap<ItemKey, u64>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self { bits: vec![0; BITS / 64], suspects: HashMap::new() }
    }

    /// Notes an item.
    pub(crate) fn note(&mut self, key: ItemKey) {
        let mut new = false;
        for part in 0..4 {
            let bit = usize::try_from((key >> (32 * part)) % BITS as u128).unwrap_or_default();
            if let Some(word) = self.bits.get_mut(bit / 64) {
                let mask = 1u64 << (bit % 64);
                new |= *word & mask == 0;
                *word |= mask;
            }
        }
        if !new {
            self.suspects.insert(key, 0);
        }
    }

    /// Returns what may be there several times, each with a zero to count with.
    pub(crate) fn suspects(self) -> HashMap<ItemKey, u64> {
        self.suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_doubles_are_suspected_and_little_else() {
        let mut seen = Seen::new();
        let key = |n: u32| item_key("a", &n.to_string(), "");
        for n in 0..50_000 {
            seen.note(key(n));
        }
        for n in 0..100 {
            seen.note(key(n * 7));
        }
        let suspects = seen.suspects();
        assert!((0..100).all(|n| suspects.contains_key(&key(n * 7))));
        assert!(suspects.len() < 110, "{}", suspects.len());
    }
}
