//! The ops port: what a supervisor or Prometheus may ask this daemon.
//!
//! It opens before everything else, so that a port that is taken is found at once and whoever watches a start is told what it
//! waits for, and closes last, so that a drain can be watched.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::ops::http::{self, Probe, Readiness, Shown};
use crate::ops::metrics::Metrics;

/// What is said of a full disk.
const DISK_FULL: &str = "the disk is full: new messages are refused, and what waits is still delivered";

/// Tells whether the disk is full.
type DiskFull = Arc<dyn Fn() -> bool + Send + Sync>;

/// The ops port, or its absence.
pub(super) struct OpsPort {
    address: Option<SocketAddr>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl OpsPort {
    /// Opens the port and serves it; without an address there is none.
    pub(super) async fn open(listen: Option<SocketAddr>, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let readiness = Arc::new(Readiness::default());
        let mut address = None;
        if let Some(listen) = listen {
            let listener = TcpListener::bind(listen).await.with_context(|| {
                format!("cannot listen on tcp {listen} for health and metrics; ops.listen sets another address, \"\" none")
            })?;
            let bound = listener.local_addr().context("read the address of the ops port")?;
            tracing::info!(address = %bound, "health and metrics");
            address = Some(bound);
            let shown = Shown { metrics, readiness: readiness.clone() };
            tasks.spawn(http::serve(listener, shown, stop.clone()));
        }
        tasks.close();
        Ok(Self { address, readiness, stop, tasks })
    }

    /// Takes note of what the start waits for.
    pub(super) fn waits(&self, name: &'static str, reason: String) {
        self.readiness.waits(name, reason);
    }

    /// Takes note that everything stands that is asked from now on.
    pub(super) fn started(&self, gateway: &Arc<Gateway>, disk_full: DiskFull) {
        self.readiness.started(probes(gateway, disk_full));
    }

    /// Returns where the port is, if there is one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes note that the daemon is about to stop.
    pub(super) fn drain(&self) {
        self.readiness.drain();
    }

    /// Closes the port.
    pub(super) async fn close(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// What the daemon depends on. A probe holds no gateway: the sequencer ends when all of those are gone.
fn probes(gateway: &Arc<Gateway>, disk_full: DiskFull) -> Vec<(&'static str, Probe)> {
    let probe = |ask: fn(Arc<Gateway>) -> http::ProbeAnswer| -> Probe {
        let gateway = Arc::downgrade(gateway);
        Box::new(move || match gateway.upgrade() {
            Some(gateway) => ask(gateway),
            None => Box::pin(async { Err("the daemon is stopping".to_owned()) }),
        })
    };
    let disk: Probe = Box::new(move || {
        let is_full = disk_full();
        Box::pin(async move { if is_full { Err(DISK_FULL.to_owned()) } else { Ok(()) } })
    });
    vec![
        ("sequencer", probe(|gateway| Box::pin(async move { gateway.probe_sequencer().await }))),
        ("directory", probe(|gateway| Box::pin(async move { gateway.probe_directory().await }))),
        ("disk", disk),
    ]
}
