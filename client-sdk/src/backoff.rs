//! Pauses between tries: exponential with full jitter.
//!
//! Clients that lost the same server together must not return together, so a pause is drawn evenly between zero and an
//! upper end that doubles ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015). Chance is an argument, so
//! the decision can be tested.
//!
//! Invariant: no pause is longer than the given maximum.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Counts failures in a row and says how long to wait after each.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts without failures; `min` is the upper end of the first pause, `max` that of the longest.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min: min.min(max), max, failures: 0 }
    }

    /// Counts a failure and returns the pause after it; `chance` is from 0 to 1.
    pub(crate) fn pause(&mut self, chance: f64) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).and_then(|factor| self.min.checked_mul(factor));
        let upper = doubled.map_or(self.max, |doubled| doubled.min(self.max));
        self.failures = self.failures.saturating_add(1);
        upper.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// Forgets the failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns a random number from 0 to 1. For spreading load only: it is not fit for secrets.
pub(crate) fn chance() -> f64 {
    // The standard library seeds its hashers from the system and never twice alike: no dependency needed for jitter.
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_end_doubles_up_to_the_maximum_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(700));
        let upper: Vec<_> = (0..5).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(upper, [100, 200, 400, 700, 700]);
        backoff.reset();
        assert_eq!(backoff.pause(0.5), Duration::from_millis(50));
    }

    #[test]
    fn a_hundred_failures_overflow_nothing() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let longest = (0..100).map(|_| backoff.pause(1.0)).max();
        assert_eq!(longest, Some(Duration::from_secs(30)));
    }

    #[test]
    fn chance_stays_in_its_range_and_varies() {
        let drawn: Vec<_> = (0..100).map(|_| chance()).collect();
        assert!(drawn.iter().all(|chance| (0.0..1.0).contains(chance)));
        assert!(drawn.iter().any(|chance| *chance < 0.5) && drawn.iter().any(|chance| *chance > 0.5));
    }
}
