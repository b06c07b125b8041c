//! How much one connection may ask for that must be refused, before it is closed.
//!
//! Every refusal costs the daemon a little, and who is refused can go on at once. A fault of a client, a race, a person who
//! mistypes cost a few; a flood or a guesser costs hundreds. So refusals that an honest client has no reason to meet are taken
//! from a budget, and who has used it up is told so by the end of its connection: from there the rate class of connections holds
//! it back.
//!
//! Invariant: one number per connection, no timer; the budget fills up by being looked at.

use std::time::Duration;

use tokio::time::Instant;

/// Refusals that a connection may meet at once. A client keeps to its limits by what the daemon told it in the hello, so one is
/// a fault and ten are a bad day: a person who tries every password they ever had, an application whose eight requests at once are
/// all limited and tried again without waiting. Three times that is nobody's day.
const REFUSALS_MAX: u32 = 32;

/// How long it takes until one refusal is forgiven. An application that tries again every few seconds never gets to the end.
const FORGIVEN_EVERY: Duration = Duration::from_secs(1);

/// The refusals that a connection may still meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusalBudget {
    /// When everything will be forgiven.
    clean_at: Instant,
}

impl RefusalBudget {
    /// Begins with nothing to forgive.
    pub(super) fn new(now: Instant) -> Self {
        Self { clean_at: now }
    }

    /// Takes one refusal, and returns whether there was one left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let clean_at = self.clean_at.max(now) + FORGIVEN_EVERY;
        let has_one = clean_at - now <= FORGIVEN_EVERY * REFUSALS_MAX;
        if has_one {
            self.clean_at = clean_at;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_refusal_does_not() {
        let now = Instant::now();
        let mut budget = RefusalBudget::new(now);
        assert!((0..REFUSALS_MAX).all(|_| budget.take(now)));
        assert!(!budget.take(now));
        assert!(!budget.take(now + FORGIVEN_EVERY / 2));
    }

    #[test]
    fn one_is_forgiven_at_a_time_and_no_more_than_all() {
        let now = Instant::now();
        let mut budget = RefusalBudget::new(now);
        while budget.take(now) {}
        assert!(budget.take(now + FORGIVEN_EVERY) && !budget.take(now + FORGIVEN_EVERY));
        let much_later = now + FORGIVEN_EVERY * REFUSALS_MAX * 10;
        assert!((0..REFUSALS_MAX).all(|_| budget.take(much_later)));
        assert!(!budget.take(much_later));
    }

    #[test]
    fn who_is_refused_no_faster_than_is_forgiven_goes_on_for_ever() {
        let now = Instant::now();
        let mut budget = RefusalBudget::new(now);
        assert!((0..REFUSALS_MAX * 10).all(|second| budget.take(now + FORGIVEN_EVERY * second)));
    }
}
