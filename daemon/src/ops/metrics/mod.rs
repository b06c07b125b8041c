//! What the daemon counts, for `/metrics`.
//!
//! One struct with a field per metric: a misspelt name does not compile, and what is not registered cannot be counted.
//! Every name begins with `quail_` and ends in its unit, counters in `_total`. `daemon/METRICS.md` lists them all; a test
//! compares that table with what the endpoint says.
//!
//! Invariants: labels come from tables of the program, never from a peer, so the number of series is bounded; nothing here
//! holds a handle, an id or a secret; counting never waits for anything but a short lock.

mod archive;
mod held;
mod labels;
mod outbox;
mod process;
mod refusals;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use archive::ArchiveMetrics;
pub use held::Held;
pub use labels::{
    ClassLabel, CommandLabels, EarlyDataLabel, HandshakeLabel, LaneLabel, PlaceLabel, ReasonLabel,
    ReloadLabel,
};
pub use outbox::OutboxMetrics;
pub use refusals::Refusals;

use quail_protocol::commands::COMMANDS;
use quail_protocol::error::REASONS;

use crate::config::Class;
use crate::ops::version;

/// Everything that is counted. Shared by all modules.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Connections whose handshake is complete.
    pub connections: Gauge,
    /// Of those, the ones with a session.
    pub sessions: Gauge,
    /// Handshakes under way.
    pub handshakes_open: Gauge,
    /// Handshakes by their end.
    pub handshakes: Family<HandshakeLabel, Counter>,
    /// Connections with early data, by whether it was accepted.
    pub early_data: Family<EarlyDataLabel, Counter>,
    /// Changes of the address of a peer.
    pub migrations: Counter,
    /// Open lanes.
    pub lanes: Family<LaneLabel, Gauge>,
    /// Requests under way.
    pub requests: Gauge,
    /// Commands by name and result.
    pub commands: Family<CommandLabels, Counter>,
    /// Refusals by reason.
    pub refusals: Refusals,
    /// Connections that the daemon closed, by reason.
    pub closed: Family<ReasonLabel, Counter>,
    /// Tries refused by a rate class.
    pub rate_refusals: Family<ClassLabel, Counter>,
    /// Commands decided in one turn of the sequencer.
    pub turn_commands: Histogram,
    /// Time from the first write of a turn's entries to the end of their sync.
    pub commit_seconds: Histogram,
    /// Time of the fdatasync alone.
    pub fdatasync_seconds: Histogram,
    /// Batches that wait for the sequencer.
    pub sequencer_queue: Gauge,
    /// Reads of backlogs that wait.
    pub backlog_queue: Gauge,
    /// Events that some device has yet to acknowledge.
    pub unacknowledged: Gauge,
    /// Events written to feeds.
    pub delivered: Counter,
    /// Mailboxes that overflowed.
    pub mailbox_overflows: Counter,
    /// Signals that were dropped because they found no room.
    pub signals_dropped: Counter,
    /// The outbox.
    pub outbox: OutboxMetrics,
    /// The archive.
    pub archive: ArchiveMetrics,
    /// Panics that were contained.
    pub panics: Family<PlaceLabel, Counter>,
    /// When the certificate expires, in seconds since the Unix epoch.
    pub certificate_expiry: Gauge,
    /// Reloads of the configuration by whether they were taken.
    pub reloads: Family<ReloadLabel, Counter>,
    resident_bytes: Gauge,
    cpu_seconds: Counter<f64, AtomicU64>,
    wakeups: Counter,
    open_files: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Returns metrics that all stand at zero.
    pub fn new() -> Self {
        // 50 us to 1.6 s; a disk that takes longer is out of order.
        let seconds = || Histogram::new(exponential_buckets(50e-6, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::with_prefix("quail"),
            connections: Gauge::default(),
            sessions: Gauge::default(),
            handshakes_open: Gauge::default(),
            handshakes: Family::default(),
            early_data: Family::default(),
            migrations: Counter::default(),
            lanes: Family::default(),
            requests: Gauge::default(),
            commands: Family::default(),
            refusals: Refusals::default(),
            closed: Family::default(),
            rate_refusals: Family::default(),
            turn_commands: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            commit_seconds: seconds(),
            fdatasync_seconds: seconds(),
            sequencer_queue: Gauge::default(),
            backlog_queue: Gauge::default(),
            unacknowledged: Gauge::default(),
            delivered: Counter::default(),
            mailbox_overflows: Counter::default(),
            signals_dropped: Counter::default(),
            outbox: OutboxMetrics::default(),
            archive: ArchiveMetrics::default(),
            panics: Family::default(),
            certificate_expiry: Gauge::default(),
            reloads: Family::default(),
            resident_bytes: Gauge::default(),
            cpu_seconds: Counter::default(),
            wakeups: Counter::default(),
            open_files: Gauge::default(),
        };
        metrics.register_traffic();
        metrics.register_journal();
        metrics.register_process();
        metrics.register_outbox();
        metrics.begin_at_zero();
        metrics
    }

    /// Makes every series whose labels are known, so that a rate over the first of something is seen.
    fn begin_at_zero(&self) {
        for result in ["completed", "failed", "timeout", "retried", "refused", "limited"] {
            let _ = self.handshakes.get_or_create(&HandshakeLabel { result });
        }
        for result in ["accepted", "rejected"] {
            let _ = self.early_data.get_or_create(&EarlyDataLabel { result });
        }
        for lane in ["publish", "feed"] {
            let _ = self.lanes.get_or_create(&LaneLabel { lane });
        }
        for command in COMMANDS {
            let _ = self.commands.get_or_create(&CommandLabels { command: command.name, result: "OK" });
        }
        for meta in REASONS {
            let _ = self.closed.get_or_create(&ReasonLabel { reason: meta.name });
        }
        for class in Class::ALL {
            let _ = self.rate_refusals.get_or_create(&ClassLabel { class: class.name() });
        }
        for place in ["connection", "transport"] {
            let _ = self.panics.get_or_create(&PlaceLabel { place });
        }
        for result in ["taken", "refused"] {
            let _ = self.reloads.get_or_create(&ReloadLabel { result });
        }
    }

    /// Returns all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only if a text cannot grow.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        process::sample(self);
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn register_traffic(&mut self) {
        let registry = &mut self.registry;
        registry.register("connections", "Connections whose handshake is complete", self.connections.clone());
        registry.register("sessions", "Connections with a session", self.sessions.clone());
        registry.register("handshakes_open", "Handshakes under way", self.handshakes_open.clone());
        registry.register("handshakes", "Handshakes by their end", self.handshakes.clone());
        registry.register(
            "early_data",
            "Connections with early data, by what became of it",
            self.early_data.clone(),
        );
        registry.register("migrations", "Changes of the address of a peer", self.migrations.clone());
        registry.register("lanes", "Open lanes by kind", self.lanes.clone());
        registry.register("requests", "Requests under way", self.requests.clone());
        registry.register("commands", "Commands by name and result", self.commands.clone());
        registry.register("refusals", "Refusals told to peers, by reason", self.refusals.family());
        registry.register("closed", "Connections that the daemon closed, by reason", self.closed.clone());
        registry.register(
            "rate_refusals",
            "Tries refused by a rate class, by class",
            self.rate_refusals.clone(),
        );
        registry.register(
            "delivered_events",
            "Events written to feeds, repetitions included",
            self.delivered.clone(),
        );
        registry.register(
            "signals_dropped",
            "Signals dropped on their way to a connection or to the core, because there was no room",
            self.signals_dropped.clone(),
        );
        registry.register(
            "mailbox_overflows",
            "Connections closed because they were handed more than they took",
            self.mailbox_overflows.clone(),
        );
    }

    fn register_journal(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "turn_commands",
            "Commands decided in one turn of the sequencer",
            self.turn_commands.clone(),
        );
        registry.register(
            "commit_seconds",
            "Time to write and sync the entries of one turn",
            self.commit_seconds.clone(),
        );
        registry.register("fdatasync_seconds", "Time of one fdatasync", self.fdatasync_seconds.clone());
        registry.register(
            "sequencer_queue_batches",
            "Batches that wait for the sequencer",
            self.sequencer_queue.clone(),
        );
        registry.register("backlog_queue_reads", "Reads of backlogs that wait", self.backlog_queue.clone());
        registry.register(
            "unacknowledged_events",
            "Events in outboxes that some device has yet to acknowledge",
            self.unacknowledged.clone(),
        );
    }

    fn register_outbox(&mut self) {
        self.outbox.register(&mut self.registry);
        self.archive.register(&mut self.registry);
    }

    fn register_process(&mut self) {
        let build =
            Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("fingerprint", version::FINGERPRINT)]);
        let registry = &mut self.registry;
        registry.register("build", "Version and source fingerprint of the daemon", build);
        registry.register(
            "panics",
            "Panics that ended one connection and no more, by place",
            self.panics.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate expires, in seconds since the Unix epoch",
            self.certificate_expiry.clone(),
        );
        registry.register(
            "reloads",
            "Reloads of configuration and certificates, by result",
            self.reloads.clone(),
        );
        registry.register(
            "process_resident_memory_bytes",
            "Resident memory of the process",
            self.resident_bytes.clone(),
        );
        registry.register(
            "process_cpu_seconds",
            "CPU time of the process, user and system",
            self.cpu_seconds.clone(),
        );
        registry.register(
            "process_wakeups",
            "How often a thread of the process had nothing to do and was woken again",
            self.wakeups.clone(),
        );
        registry.register(
            "process_open_files",
            "Open file descriptors of the process",
            self.open_files.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, type and help of every metric in the endpoint's text.
    fn described(text: &str) -> Vec<(String, String, String)> {
        let mut all: Vec<(String, String, String)> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                all.push((name.to_owned(), String::new(), help.trim_end_matches('.').to_owned()));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (_, kind) = rest.split_once(' ').unwrap();
                all.last_mut().unwrap().1 = kind.to_owned();
            }
        }
        all
    }

    #[test]
    fn the_documented_table_is_what_the_endpoint_says() {
        let rows = include_str!("../../../METRICS.md").lines().filter(|line| line.starts_with("| `quail_"));
        let documented: Vec<_> = rows
            .map(|row| {
                let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
                let name = cells[0].trim_matches('`').trim_end_matches("_total").trim_end_matches("_info");
                (name.to_owned(), cells[1].to_owned(), cells[3].to_owned())
            })
            .collect();
        assert_eq!(documented, described(&Metrics::new().render().unwrap()));
    }

    #[test]
    fn counting_shows() {
        let metrics = Metrics::new();
        metrics.rate_refusals.get_or_create(&ClassLabel { class: "send" }).inc();
        metrics.delivered.inc_by(3);
        let held = Held::new(&metrics.connections);
        let text = metrics.render().unwrap();
        assert!(text.contains("quail_rate_refusals_total{class=\"send\"} 1"), "{text}");
        assert!(text.contains("quail_delivered_events_total 3"), "{text}");
        assert!(text.contains("quail_connections 1"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        drop(held);
        assert!(metrics.render().unwrap().contains("quail_connections 0"));
    }

    #[test]
    fn the_process_shows_that_it_lives() {
        let text = Metrics::new().render().unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert!(value("quail_process_resident_memory_bytes ") > 1e6);
        assert!(value("quail_process_open_files ") > 2.0);
        assert!(value("quail_process_cpu_seconds_total ") >= 0.0);
    }
}
