//! Metrics of the outbox: how much waits where, and how long.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What the outbox shows of itself.
#[derive(Debug)]
pub struct OutboxMetrics {
    /// Time from handing a batch to the sequencer to its turn.
    pub queue_wait_seconds: Histogram,
    /// Memory of events that are not settled yet.
    pub unsettled_bytes: Gauge,
    /// Bytes of the journal that the archive has not taken.
    pub unarchived_bytes: Gauge,
    /// Bytes appended to the journal.
    pub journalled_bytes: Counter,
    /// What the journal takes on disk.
    pub journal_bytes: Gauge,
    /// Age of the oldest batch that is not settled.
    pub spill_lag_seconds: Gauge<f64, AtomicU64>,
    /// Time of one spill.
    pub spill_seconds: Histogram,
    /// What the settled store takes on disk.
    pub settled_disk_bytes: Gauge,
    /// What of it is live.
    pub settled_live_bytes: Gauge,
    /// Rotations of the settled store.
    pub rotations: Counter,
    /// Age of the oldest event that some device has yet to acknowledge.
    pub oldest_unacknowledged_seconds: Gauge<f64, AtomicU64>,
    /// Gaps told to devices.
    pub gaps: Counter,
    /// Stretches that were found damaged.
    pub lost: Counter,
    /// One while the disk is below its free-space mark.
    pub disk_full: Gauge,
}

impl Default for OutboxMetrics {
    fn default() -> Self {
        Self {
            // 5 us to 2.6 s.
            queue_wait_seconds: Histogram::new(exponential_buckets(5e-6, 2.0, 20)),
            unsettled_bytes: Gauge::default(),
            unarchived_bytes: Gauge::default(),
            journalled_bytes: Counter::default(),
            journal_bytes: Gauge::default(),
            spill_lag_seconds: Gauge::default(),
            // 1 ms to 33 s.
            spill_seconds: Histogram::new(exponential_buckets(1e-3, 2.0, 16)),
            settled_disk_bytes: Gauge::default(),
            settled_live_bytes: Gauge::default(),
            rotations: Counter::default(),
            oldest_unacknowledged_seconds: Gauge::default(),
            gaps: Counter::default(),
            lost: Counter::default(),
            disk_full: Gauge::default(),
        }
    }
}

impl OutboxMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "queue_wait_seconds",
            "Time from handing a batch to the sequencer to its turn",
            self.queue_wait_seconds.clone(),
        );
        let registry = registry.sub_registry_with_prefix("outbox");
        registry.register(
            "unsettled_bytes",
            "Memory of events that are not in the settled store yet",
            self.unsettled_bytes.clone(),
        );
        registry.register(
            "unarchived_bytes",
            "Bytes of the journal that the archive has not taken yet",
            self.unarchived_bytes.clone(),
        );
        registry.register("journalled_bytes", "Bytes appended to the journal", self.journalled_bytes.clone());
        registry.register(
            "journal_bytes",
            "Space that the journal takes on disk",
            self.journal_bytes.clone(),
        );
        registry.register(
            "spill_lag_seconds",
            "Age of the oldest batch that is not in the settled store yet",
            self.spill_lag_seconds.clone(),
        );
        registry.register("spill_seconds", "Time of one spill", self.spill_seconds.clone());
        let disk = self.settled_disk_bytes.clone();
        registry.register("settled_disk_bytes", "Space that the settled store takes on disk", disk);
        registry.register(
            "settled_live_bytes",
            "Part of the settled store that is not acknowledged",
            self.settled_live_bytes.clone(),
        );
        registry.register("rotations", "Rotations of the settled store", self.rotations.clone());
        registry.register(
            "oldest_unacknowledged_seconds",
            "Age of the oldest event that some device has yet to acknowledge, looked at every minute",
            self.oldest_unacknowledged_seconds.clone(),
        );
        registry.register("gaps", "Gaps told to devices", self.gaps.clone());
        registry.register("lost", "Stretches of outboxes that were found damaged", self.lost.clone());
        registry.register(
            "disk_full",
            "Whether free space is below its mark and new messages are refused",
            self.disk_full.clone(),
        );
    }
}
