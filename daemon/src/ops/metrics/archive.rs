//! Metrics of the archive: how far behind it is, and what went wrong.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the archive's writer shows of itself.
#[derive(Debug, Default)]
pub struct ArchiveMetrics {
    /// Positions that were given and are not archived.
    pub lag_events: Gauge,
    /// Age of the oldest event that is being archived.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// Batches applied.
    pub batches: Counter,
    /// Messages archived.
    pub rows: Counter,
    /// Tries that failed.
    pub failures: Counter,
    /// Events kept as dead letters.
    pub dead_letters: Counter,
    /// Messages that used the id of another one.
    pub losers: Counter,
    /// Questions that were answered before the archive had what they asked for.
    pub behind: Counter,
    /// One while the breaker is open.
    pub breaker: Gauge,
}

impl ArchiveMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("archive");
        registry.register("lag_events", "Positions given and not archived yet", self.lag_events.clone());
        registry.register(
            "lag_seconds",
            "Age of the oldest event that is being archived",
            self.lag_seconds.clone(),
        );
        registry.register("batches", "Batches applied to the archive", self.batches.clone());
        registry.register("rows", "Messages archived", self.rows.clone());
        registry.register("failures", "Tries to archive that failed", self.failures.clone());
        registry.register("dead_letters", "Events kept as dead letters", self.dead_letters.clone());
        registry.register(
            "losers",
            "Messages not archived because they used the id of another one",
            self.losers.clone(),
        );
        registry.register(
            "behind",
            "Questions of history answered before the archive had what they asked for",
            self.behind.clone(),
        );
        registry.register(
            "breaker_open",
            "Whether the archive fails and is tried with pauses only",
            self.breaker.clone(),
        );
    }
}
