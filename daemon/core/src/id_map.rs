//! Maps by ids, which are most of what deciding and storing a message costs.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by ids that the directory drew at random, or that this process counts: nobody can choose what is in it so that it
/// collides, so it needs no keyed hash. Not for ids that clients mint.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Takes the last eight bytes of an id for its hash; they are random in every kind of id that the directory draws.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    /// The length of an id, which is always the same.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        // Multiplied, because the map takes its bits from both ends.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
