//! How often peers were refused, by reason.
//!
//! Somebody who misbehaves is told so and costs a line of the debug log; an operator wants to know how many there were. The
//! counts are logged when the daemon stops.

use std::sync::atomic::{AtomicU64, Ordering};

use quail_protocol::error::REASONS;
use quail_protocol::v1::Reason;

/// One counter per row of the error table.
#[derive(Debug)]
pub struct Refusals {
    counts: [AtomicU64; REASONS.len()],
}

impl Default for Refusals {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Refusals {
    /// Counts a refusal.
    pub fn count(&self, reason: Reason) {
        if let Some(at) = REASONS.iter().position(|meta| meta.reason == reason) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the counts that are not zero, as `NAME=count` separated by blanks.
    pub fn summary(&self) -> String {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let named = REASONS.iter().zip(counts).filter(|(_, count)| *count > 0);
        named.map(|(meta, count)| format!("{}={count}", meta.name)).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_named() {
        let refusals = Refusals::default();
        assert_eq!(refusals.summary(), "");
        refusals.count(Reason::Malformed);
        refusals.count(Reason::IdTime);
        refusals.count(Reason::IdTime);
        assert_eq!(refusals.summary(), "MALFORMED=1 ID_TIME=2");
    }
}
