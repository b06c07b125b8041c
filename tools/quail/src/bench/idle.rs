//! Connections that only stay: what one costs in memory, what its handshake costs, what keeping it costs.
//!
//! Every connection has a session and an attached feed, as that of a person whose device is on and silent. The memory that
//! a server needs once, whatever the number of connections, is no cost of a connection: what is subtracted is the memory
//! after some connections have come and gone.
//!
//! Invariant: in the idle time nothing is sent but keep-alives; a connection that was lost on the way is told.

use std::time::{Duration, Instant};

use quail_protocol::limits::KEEP_ALIVE;
use serde::Serialize;

use super::process::Usage;
use super::report::{micro, per_second};
use super::server::Server;
use super::users::{self, Sockets};
use super::{BenchError, PROGRESS_INTERVAL, Phase, Step, Target, Watch};

/// How many connections come and go before the first look at the server's memory.
const WARM_UP: usize = 50;

/// How long the server is given to put in order what a stage has left behind, before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Clone, Debug)]
pub struct IdleOptions {
    /// The server.
    pub target: Target,
    /// How many connections.
    pub connections: usize,
    /// How long they are left alone. A keep-alive comes every 20 s, so less sees only some of them.
    pub measured: Duration,
}

/// What was found. Serializes as the object that `quail bench idle --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IdleReport {
    /// Memory of the daemon's process per connection, beyond the baseline.
    pub bytes_per_connection: Option<f64>,
    /// CPU time of the daemon's process while nothing happens but keep-alives, in percent of one processor.
    pub idle_cpu_percent: Option<f64>,
    /// Connections per second that got as far as an attached feed.
    pub connect_per_s: f64,
    /// CPU time of the daemon's process per connection from the first packet to the attached feed, in microseconds.
    pub handshake_cpu_us: Option<f64>,
    /// Memory of the daemon's process after some connections have come and gone, before those that are measured.
    pub baseline_rss_bytes: Option<u64>,
    /// Memory of the daemon's process with all connections.
    pub rss_bytes: Option<u64>,
    /// How many connections came and went before the baseline.
    pub baseline_connections: usize,
    /// Who manages the daemon's memory.
    pub allocator: &'static str,
    /// How many connections.
    pub connections: usize,
    /// How many of them were lost and found again.
    pub reconnects: u64,
    /// How long they were left alone, in seconds.
    pub seconds: f64,
    /// How often a connection that is left alone sends a packet, in seconds.
    pub keep_alive_s: u64,
    /// Processors of this machine.
    pub cores: usize,
    /// The version of this program.
    pub version: &'static str,
}

impl IdleReport {
    /// Returns whether every connection stayed.
    pub fn is_flawless(&self) -> bool {
        self.reconnects == 0
    }
}

/// Measures. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`BenchError`].
pub async fn run(options: IdleOptions, watch: &mut Watch<'_>) -> Result<IdleReport, BenchError> {
    let mut server = Server::start(&options.target).await?;
    let address = server.address().clone();
    let baseline_connections = options.connections.min(WARM_UP);
    let credentials = server.provision(baseline_connections + options.connections, watch).await?;
    // Devices of their own: those that are measured have never been connected.
    let (first, credentials) = credentials.split_at(baseline_connections.min(credentials.len()));
    let sockets = Sockets::bind(&address, options.connections)?;
    users::close_all(users::open_all(&address, first, &sockets, watch).await?).await;
    tokio::time::sleep(SETTLE).await;

    let baseline = server.usage()?;
    let began = Instant::now();
    let users = users::open_all(&address, credentials, &sockets, watch).await?;
    let connecting = began.elapsed();
    let connected = server.usage()?;
    tokio::time::sleep(SETTLE).await;
    let settled = server.usage()?;
    leave_alone(options.measured, watch).await;
    let end = server.usage()?;

    let reconnects = users.iter().map(|user| user.client.stats().reconnects).sum();
    let connections = users.len();
    users::close_all(users).await;
    let grown = baseline.zip(settled);
    Ok(IdleReport {
        bytes_per_connection: grown.and_then(|(before, after)| bytes_each(before, after, connections)),
        idle_cpu_percent: cpu(settled, end).map(|cpu| percent(cpu, options.measured)),
        connect_per_s: per_second(connections as u64, connecting),
        handshake_cpu_us: cpu(baseline, connected)
            .filter(|_| connections > 0)
            .map(|cpu| micro(cpu.as_secs_f64() * 1e6 / connections as f64)),
        baseline_rss_bytes: baseline.map(|usage| usage.rss_bytes),
        rss_bytes: settled.map(|usage| usage.rss_bytes),
        baseline_connections,
        // Of the target that this is built for; quaild chooses no other.
        allocator: if cfg!(target_env = "gnu") { "glibc malloc" } else { "system malloc" },
        connections,
        reconnects,
        seconds: options.measured.as_secs_f64(),
        keep_alive_s: KEEP_ALIVE.as_secs(),
        cores: super::chat::cores(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

async fn leave_alone(time: Duration, watch: &mut Watch<'_>) {
    let began = Instant::now();
    let of = time.as_millis() as u64;
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        watch(Step { phase: Phase::Measure, done: began.elapsed().as_millis() as u64, of });
        tokio::time::sleep(left.min(PROGRESS_INTERVAL)).await;
    }
}

fn cpu(before: Option<Usage>, after: Option<Usage>) -> Option<Duration> {
    before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu))
}

fn percent(cpu: Duration, time: Duration) -> f64 {
    micro(cpu.as_secs_f64() / time.as_secs_f64() * 100.0)
}

fn bytes_each(before: Usage, after: Usage, connections: usize) -> Option<f64> {
    let grown = after.rss_bytes.saturating_sub(before.rss_bytes);
    (connections > 0).then(|| (grown as f64 / connections as f64).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_is_shared_out() {
        let usage = |rss_bytes| Usage { cpu: Duration::ZERO, rss_bytes, write_bytes: 0, wakeups: 0 };
        assert_eq!(bytes_each(usage(1000), usage(4000), 2), Some(1500.0));
        assert_eq!(bytes_each(usage(4000), usage(1000), 2), Some(0.0), "memory given back is no cost");
        assert_eq!(bytes_each(usage(1), usage(2), 0), None);
    }

    #[test]
    fn percent_is_of_one_processor() {
        assert_eq!(percent(Duration::from_millis(30), Duration::from_secs(10)), 0.3);
    }
}
