//! The harness of the promise tests: real daemons, real clients, nothing shared.
//!
//! Every test has a daemon of its own on a free port with a temporary data directory, and may kill it. A test waits for a
//! state, never for a time; what does not come within [`PATIENCE`] fails the test with a word on what was waited for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A harness is test code: what goes wrong ends the test.

pub mod archive;
pub mod crowd;
pub mod deaf;
pub mod hostile;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod traffic;
pub mod witness;
mod world;

/// The judge of what devices did and saw.
pub use quail_checker as checker;
pub use world::{
    PASSWORD, Person, World, binary, missing, next_delivery, next_message, options, quaild, quaild_with, text,
};

use std::time::Duration;

/// How long a test waits for something that must happen. Long, because the machine may be busy; nothing waits it out.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future` and names what was waited for if it does not come.
pub async fn expect<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain for {what}", PATIENCE.as_secs()),
    }
}

/// Returns how many rounds a test of chance runs: `QUAIL_ROUNDS`, or `default`.
pub fn rounds(default: usize) -> usize {
    std::env::var("QUAIL_ROUNDS").ok().map_or(default, |text| text.parse().expect("QUAIL_ROUNDS is a number"))
}

/// Returns the seed of a test of chance: `QUAIL_SEED`, or one of this moment. Says how to have it again.
pub fn seed() -> u64 {
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let seed = std::env::var("QUAIL_SEED")
        .map_or_else(|_| now(), |text| text.parse().expect("QUAIL_SEED is a number"));
    println!("QUAIL_SEED={seed}");
    seed
}

/// A small generator of chance with a seed that a failing test can print (SplitMix64, Steele et al. 2014).
pub struct Chance(pub u64);

impl Chance {
    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
