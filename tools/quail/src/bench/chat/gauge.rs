//! What users count together between two looks: the stretches of a long measurement, one by one.
//!
//! A stretch counts what came in it, whenever that was due, so a server that stands still is slow in the stretch in which it
//! goes on.
//!
//! Invariant: a look begins the next stretch; nothing is counted in two of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::super::report::{Figures, Latency, Times, per_second};

/// One stretch of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Interval {
    /// When it began, in seconds since the users did.
    pub from_s: f64,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Messages accepted per second.
    pub accepted_per_s: f64,
    /// Messages whose receipt came back, per second.
    pub delivered_per_s: f64,
    /// From sending to the server's answer.
    pub confirm_ms: Latency,
    /// From sending to the partner's feed.
    pub receive_ms: Latency,
    /// What the daemon used.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Interval {
    pub(super) fn new(counted: &Counted, (from, upto): (Duration, Duration), figures: Figures) -> Self {
        let time = upto.saturating_sub(from);
        let rounded = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
        Self {
            from_s: rounded(from),
            seconds: rounded(time),
            accepted_per_s: per_second(counted.accepted, time),
            delivered_per_s: per_second(counted.delivered, time),
            confirm_ms: counted.confirm.latency(),
            receive_ms: counted.receive.latency(),
            figures,
        }
    }
}

/// What came since the last look.
#[derive(Debug)]
pub(in crate::bench) struct Counted {
    accepted: u64,
    delivered: u64,
    confirm: Times,
    receive: Times,
}

impl Default for Counted {
    fn default() -> Self {
        Self { accepted: 0, delivered: 0, confirm: Times::new(), receive: Times::new() }
    }
}

impl Counted {
    /// Returns how many messages were accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }
}

/// Counts for all users.
#[derive(Debug, Default)]
pub(in crate::bench) struct Gauge(Mutex<Counted>);

impl Gauge {
    /// A message was accepted so long after it was due.
    pub(super) fn accepted(&self, time: Duration) {
        let mut counted = self.lock();
        counted.accepted += 1;
        counted.confirm.record(time);
    }

    /// A message arrived so long after it was due.
    pub(super) fn received(&self, time: Duration) {
        self.lock().receive.record(time);
    }

    /// The receipt of a message came.
    pub(super) fn delivered(&self) {
        self.lock().delivered += 1;
    }

    /// Returns what came since the last look.
    pub(super) fn take(&self) -> Counted {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_begins_anew() {
        let gauge = Gauge::default();
        gauge.accepted(Duration::from_millis(2));
        gauge.received(Duration::from_millis(3));
        gauge.delivered();
        let seconds = |from, upto| (Duration::from_secs(from), Duration::from_secs(upto));
        let first = Interval::new(&gauge.take(), seconds(1, 3), Figures::default());
        assert_eq!((first.from_s, first.seconds), (1.0, 2.0));
        assert_eq!((first.accepted_per_s, first.delivered_per_s), (0.5, 0.5));
        assert!(first.confirm_ms.p99 > 1.9 && first.receive_ms.p50 > 2.9, "{first:?}");
        let second = Interval::new(&gauge.take(), seconds(3, 4), Figures::default());
        assert_eq!((second.accepted_per_s, second.confirm_ms), (0.0, Latency::default()));
    }
}
