//! A circuit breaker: pauses that grow while the archive fails, each with some chance in it, so that daemons that share a database do
//! not come back all at once. It says what is wrong when it opens, not with every try.

use std::time::Duration;

use quail_core::ports::archive::ArchiveError;

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// So many failures in a row open it.
const OPENS_AT: u32 = 3;

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
}

impl Breaker {
    /// Logs why the archive fails, where that is news.
    pub(super) fn says(&self, error: &ArchiveError) {
        if self.failures + 1 == OPENS_AT {
            tracing::error!(%error, "the archive fails: what is to be archived waits in the journal");
        } else {
            tracing::debug!(%error, failures = self.failures + 1, "the archive failed");
        }
    }

    /// Takes note of a failure, and returns how long to wait before the next try.
    pub(super) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = PAUSE_MIN.saturating_mul(1 << (self.failures - 1).min(16)).min(PAUSE_MAX);
        let mut chance = [128; 1];
        // Without chance it is the middle.
        let _ = getrandom::fill(&mut chance);
        pause / 2 + pause * u32::from(chance[0]) / 255 / 2
    }

    /// Takes note that it works; returns whether it did not before.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) >= OPENS_AT
    }

    /// Returns 0 while it is closed, 1 while it is open.
    pub(super) fn state(&self) -> i64 {
        (self.failures >= OPENS_AT).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut breaker = Breaker::default();
        for failures in 1..=100_u32 {
            let full = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
            let pause = breaker.failed();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} after {failures} failures");
            assert_eq!(breaker.state(), i64::from(failures >= OPENS_AT));
        }
        assert!(breaker.succeeded() && !breaker.succeeded());
        assert!(breaker.failed() <= PAUSE_MIN);
    }
}
