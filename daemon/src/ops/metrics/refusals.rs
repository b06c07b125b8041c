//! How often peers were refused, by reason.
//!
//! Somebody who misbehaves is told so and costs a line of the debug log; an operator wants to know how many there were.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use quail_protocol::error::REASONS;
use quail_protocol::v1::Reason;

use super::ReasonLabel;

/// One counter per row of the error table.
#[derive(Debug)]
pub struct Refusals {
    family: Family<ReasonLabel, Counter>,
    /// In the order of the table, so that counting needs no lock.
    counts: [Counter; REASONS.len()],
}

impl Default for Refusals {
    fn default() -> Self {
        let family: Family<ReasonLabel, Counter> = Family::default();
        let count = |at: usize| family.get_or_create(&ReasonLabel { reason: REASONS[at].name }).clone();
        let counts = std::array::from_fn(count);
        Self { family, counts }
    }
}

impl Refusals {
    /// Counts a refusal.
    pub fn count(&self, reason: Reason) {
        if let Some(at) = REASONS.iter().position(|meta| meta.reason == reason) {
            self.counts[at].inc();
        }
    }

    /// Returns the counts that are not zero, as `NAME=count` separated by blanks.
    pub fn summary(&self) -> String {
        let counts = self.counts.iter().map(Counter::get);
        let named = REASONS.iter().zip(counts).filter(|(_, count)| *count > 0);
        named.map(|(meta, count)| format!("{}={count}", meta.name)).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn family(&self) -> Family<ReasonLabel, Counter> {
        self.family.clone()
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
