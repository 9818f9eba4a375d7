//! Hashes of secrets by which answers are remembered: no secret stays in memory, and nobody else can compute
//! the hash of a guess.

use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};

/// A hash under the salt of one [`SaltedHasher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SaltedHash([u8; 32]);

#[cfg(test)]
impl From<[u8; 32]> for SaltedHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl SaltedHash {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Computes hashes under a salt that changes with each start of the server.
#[derive(Debug)]
pub(super) struct SaltedHasher([u64; 4]);

impl Default for SaltedHasher {
    fn default() -> Self {
        let seeds = RandomState::new();
        Self([0u8, 1, 2, 3].map(|part| seeds.hash_one(part)))
    }
}

impl SaltedHasher {
    /// Returns the hash of these parts, in this order. Their lengths are part of it.
    pub(super) fn hash(&self, parts: &[&[u8]]) -> SaltedHash {
        let mut hash = Sha256::new();
        self.0.iter().for_each(|part| hash.update(part.to_be_bytes()));
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        SaltedHash(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_salt_parts_and_their_borders() {
        let hasher = SaltedHasher::default();
        assert_eq!(hasher.hash(&[b"ab", b"c"]), hasher.hash(&[b"ab", b"c"]));
        assert_ne!(hasher.hash(&[b"ab", b"c"]), hasher.hash(&[b"a", b"bc"]));
        assert_ne!(hasher.hash(&[b"ab"]), SaltedHasher::default().hash(&[b"ab"]));
    }
}
