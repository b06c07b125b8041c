//! Maps and sets whose keys are identities: a hash that costs little and cannot be foreseen.
//!
//! Every message is looked up by its id a dozen times on its way. The hash of the standard library takes longer for that than
//! all that is done with what is found. Ids come from others, who must not be able to choose them so that all fall into one place; so
//! the hash depends on two numbers that each map draws by chance.
//!
//! Invariant: only for keys of fixed length (ids, positions, tuples of them): lengths are not told apart.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map by identity.
pub(crate) type IdMap<K, V> = HashMap<K, V, IdHash>;

/// A set of identities.
pub(crate) type IdSet<K> = HashSet<K, IdHash>;

/// Makes the hashers of one map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHash {
    seed: u64,
    multiplier: u64,
}

impl Default for IdHash {
    fn default() -> Self {
        let chance = RandomState::new();
        // Odd, so that no bit of what is multiplied is lost.
        Self { seed: chance.hash_one(0_u64), multiplier: chance.hash_one(1_u64) | 1 }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.seed, multiplier: self.multiplier }
    }
}

/// Folds a key into 64 bits.
#[derive(Debug)]
pub(crate) struct IdHasher {
    state: u64,
    multiplier: u64,
}

impl IdHasher {
    fn fold(&mut self, low: u64, high: u64) {
        let product = u128::from(low ^ self.state) * u128::from(high ^ self.multiplier);
        self.state = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<16>();
        for chunk in chunks {
            let whole = u128::from_le_bytes(*chunk);
            self.fold(whole as u64, (whole >> 64) as u64);
        }
        if !rest.is_empty() {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            let whole = u128::from_le_bytes(last);
            self.fold(whole as u64, (whole >> 64) as u64);
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value), self.state.rotate_left(32));
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value, self.state.rotate_left(32));
    }

    /// The length of an array, which is the same for all keys.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        // The map takes its place from the low bits and a tag from the high ones: both depend on all of the key.
        let product = u128::from(self.state) * u128::from(self.multiplier);
        (product as u64) ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::{AccountId, MessageId, Origin, Position};

    use super::*;

    #[test]
    fn keys_that_differ_in_one_bit_spread_over_all_places() {
        let hash = IdHash::default();
        let mut low = HashSet::new();
        let mut high = HashSet::new();
        for bit in 0..128 {
            let hashed = hash.hash_one((AccountId([7; 16]), MessageId((1_u128 << bit).to_be_bytes())));
            low.insert(hashed & 0xffff);
            high.insert(hashed >> 48);
        }
        assert!(low.len() > 120 && high.len() > 120, "{} {}", low.len(), high.len());
        let places: HashSet<_> =
            (0..4096).map(|at| hash.hash_one((Origin(1), Position(at))) & 0xf_ffff).collect();
        assert!(places.len() > 4000, "{}", places.len());
    }

    #[test]
    fn two_maps_hash_differently() {
        let key = MessageId([3; 16]);
        assert_ne!(IdHash::default().hash_one(key), IdHash::default().hash_one(key));
    }
}
