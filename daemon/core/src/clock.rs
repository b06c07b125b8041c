//! The hybrid logical clock that gives events their stamps (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! A stamp follows the wall clock where it can and causality where it must: it is larger than every stamp given before
//! and than every stamp the sender had seen. A wall clock that jumps back stops the milliseconds, not the order.

use quail_protocol::id::Stamp;
use quail_protocol::limits::SEEN_AHEAD_MAX;

/// The clock of one origin.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

/// A stamp from a peer lies further ahead than clocks may differ. The peer's clock, or another node's, is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarAhead;

impl Clock {
    /// Returns a clock that goes on after `last`, the largest stamp known from before.
    pub fn resume(last: Stamp) -> Self {
        Self { last }
    }

    /// Returns the largest stamp given so far.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// Returns the next stamp: after all before it, after `seen`, and not behind the wall clock.
    ///
    /// # Errors
    /// [`TooFarAhead`] if `seen` is more than [`SEEN_AHEAD_MAX`] ahead of `now_ms`; nothing is merged then.
    pub fn next(&mut self, now_ms: u64, seen: Stamp) -> Result<Stamp, TooFarAhead> {
        if seen.unix_ms() > now_ms.max(self.last.unix_ms()) + SEEN_AHEAD_MAX.as_millis() as u64 {
            return Err(TooFarAhead);
        }
        self.last = self.last.next().max(seen.next()).max(Stamp::from_ms(now_ms));
        Ok(self.last)
    }

    /// Returns the next stamp for an event of the server's own making.
    pub fn tick(&mut self, now_ms: u64) -> Stamp {
        self.last = self.last.next().max(Stamp::from_ms(now_ms));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_when_the_wall_clock_goes_back() {
        let mut clock = Clock::default();
        let first = clock.tick(5_000);
        let second = clock.tick(1_000);
        assert!(second > first);
        assert_eq!(second.unix_ms(), 5_000);
    }

    #[test]
    fn a_stamp_comes_after_what_its_sender_had_seen() {
        let mut clock = Clock::default();
        let seen = Stamp::from_ms(14_000);
        assert_eq!(clock.next(5_000, seen), Ok(seen.next()));
    }

    #[test]
    fn a_seen_stamp_too_far_ahead_changes_nothing() {
        let mut clock = Clock::default();
        assert_eq!(clock.next(5_000, Stamp::from_ms(16_001)), Err(TooFarAhead));
        assert_eq!(clock.last(), Stamp::default());
        assert_eq!(clock.next(5_000, Stamp(u64::MAX)), Err(TooFarAhead));
    }
}
