//! quinn's runtime, watched: a panic in a task of quinn is counted, and one in the endpoint's own task ends the process.
//!
//! quinn gives each connection a task of its own and the endpoint one. A panic in the former ends that connection, as it
//! should. Without the latter the daemon would look alive and hear nobody.
//!
//! Invariant: the first task that quinn spawns is the endpoint's; a test holds it to that.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::segments::{Beginning, SegmentedSocket};
use crate::ops::metrics::{Metrics, PlaceLabel};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A runtime for one endpoint.
#[derive(Debug)]
pub(super) struct WatchedRuntime {
    tokio: TokioRuntime,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
    /// Whether the endpoint's task has been spawned.
    has_endpoint: AtomicBool,
    /// Cancelled when the endpoint's task panics.
    endpoint_failed: CancellationToken,
}

impl WatchedRuntime {
    pub(super) fn new(metrics: Arc<Metrics>, endpoint_failed: CancellationToken) -> Self {
        let (tokio, tasks, has_endpoint) = (TokioRuntime, TaskTracker::new(), AtomicBool::new(false));
        Self { tokio, tasks, metrics, has_endpoint, endpoint_failed }
    }
}

impl Runtime for WatchedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        self.tokio.new_timer(at)
    }

    fn spawn(&self, task: Task) {
        let is_endpoint = !self.has_endpoint.swap(true, Ordering::Relaxed);
        let failed = is_endpoint.then(|| self.endpoint_failed.clone());
        self.tasks.spawn(Watched {
            task: Some(task),
            metrics: self.metrics.clone(),
            place: "transport",
            failed,
            beginning: Beginning::new(),
        });
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(SegmentedSocket::new(self.tokio.wrap_udp_socket(socket)?)))
    }

    fn now(&self) -> Instant {
        self.tokio.now()
    }
}

/// A task whose panic is counted instead of lost.
pub(super) struct Watched {
    task: Option<Task>,
    metrics: Arc<Metrics>,
    place: &'static str,
    failed: Option<CancellationToken>,
    /// Of the connection whose packets this task sends.
    beginning: Beginning,
}

impl Watched {
    /// Watches the task of a connection.
    pub(super) fn connection(task: Task, metrics: Arc<Metrics>) -> Self {
        let beginning = Beginning::new();
        Self { task: Some(task), metrics, place: "connection", failed: None, beginning }
    }
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { task, beginning, .. } = &mut *self;
        let Some(task) = task else { return Poll::Ready(()) };
        // A task that panicked is not polled again, and what it shared with others stands behind locks that say so.
        let polled = beginning.poll(|| catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))));
        if let Ok(polled) = polled {
            return polled;
        }
        tracing::error!(place = self.place, "a task panicked");
        self.metrics.panics.get_or_create(&PlaceLabel { place: self.place }).inc();
        if let Some(failed) = &self.failed {
            failed.cancel();
        }
        self.task = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(metrics: &Metrics, place: &'static str) -> u64 {
        metrics.panics.get_or_create(&PlaceLabel { place }).get()
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_the_endpoints_is_told() {
        let (metrics, failed) = (Arc::new(Metrics::new()), CancellationToken::new());
        let runtime = WatchedRuntime::new(metrics.clone(), failed.clone());
        runtime.spawn(Box::pin(std::future::pending()));
        runtime.spawn(Box::pin(async { panic!("the test says so") }));
        while panics(&metrics, "transport") == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!failed.is_cancelled(), "that was a connection's");
        Watched::connection(Box::pin(async { panic!("the test says so") }), metrics.clone()).await;
        assert_eq!(panics(&metrics, "connection"), 1);

        let runtime = WatchedRuntime::new(metrics, failed.clone());
        runtime.spawn(Box::pin(async { panic!("the test says so") }));
        failed.cancelled().await;
    }

    #[tokio::test]
    async fn the_first_task_of_quinn_is_the_endpoints() {
        let (metrics, failed) = (Arc::new(Metrics::new()), CancellationToken::new());
        let runtime = Arc::new(WatchedRuntime::new(metrics, failed));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint =
            quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime.clone()).unwrap();
        assert!(runtime.has_endpoint.load(Ordering::Relaxed));
        assert_eq!(runtime.tasks.len(), 1, "before there can be a connection");
        endpoint.close(quinn::VarInt::from_u32(0), b"");
    }
}
