//! The driver: the one task of a client that keeps it connected.
//!
//! ```text
//! Connecting ──hello answered──> Online ──lost──> Waiting ──pause over──> Connecting ...
//! ```
//!
//! It connects, runs the connection until it ends (`connection.rs`), and decides what comes next: another try after a
//! pause, the connection that was answered while this one was silent, or the end. The lanes of a connection (`publish.rs`,
//! `feed.rs`) run inside this task, so nothing of a client runs on after it. Beside them it notices a server that is gone
//! (`silence.rs`) and commits what has changed
//! (`saver.rs`).
//!
//! Invariants: between two tries there is a pause, which grows while they fail; a final error ends the client; whatever
//! ends this task, everything that waits for the client is told.

mod arrivals;
mod connection;
mod feed;
mod part;
mod publish;
mod saver;
mod signals;
mod silence;

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::SendStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, chance};
use crate::error::local_fault;
use crate::link::Link;
use crate::shared::Shared;
use crate::state::ConnectionState;
use crate::transport::{Connected, Transport};
use crate::{Error, frames};

/// A connection that held so long was a good one: pauses start small again after it.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Longest advice of a server on when to return that is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// How long the server is given to receive the end of a lane when the client closes.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that called `open` and waits for the first hello.
#[derive(Debug)]
pub(crate) struct Opening {
    waiting: Option<oneshot::Sender<()>>,
    patient: bool,
}

impl Opening {
    pub(crate) fn new(waiting: oneshot::Sender<()>, patient: bool) -> Self {
        Self { waiting: Some(waiting), patient }
    }

    /// The hello was answered.
    fn succeeded(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            // Whoever waited may have given up; its handle then ends the client.
            let _ = waiting.send(());
        }
    }

    /// Returns whether a temporary failure is the end, because `open` is to return it.
    fn is_impatient(&self) -> bool {
        self.waiting.is_some() && !self.patient
    }
}

/// Runs a client to its end.
pub(crate) async fn run(shared: Arc<Shared>, transport: Transport, opening: Opening) {
    // Also when this task is cancelled with its runtime or panics.
    let guard = EndGuard(&shared);
    let stop = CancellationToken::new();
    let connected = async {
        let reason = Box::pin(keep_connected(&shared, &transport, opening)).await;
        stop.cancel();
        reason
    };
    let ((), reason) = tokio::join!(saver::run(&shared, &stop), connected);
    tracing::debug!(%reason, "client ends");
    shared.end(reason);
    drop(guard);
}

struct EndGuard<'a>(&'a Shared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        // Changes nothing if the end was reached in order.
        self.0.end(local_fault("the driver of the client was stopped".into()));
    }
}

/// Connects again and again; returns why the client ends.
async fn keep_connected(shared: &Arc<Shared>, transport: &Transport, mut opening: Opening) -> Error {
    let mut backoff = Backoff::new(shared.options.backoff_min, shared.options.backoff_max);
    let mut attempt = 0_u32;
    let mut other = None;
    let mut network = shared.network.subscribe();
    loop {
        attempt = attempt.saturating_add(1);
        shared.set_state(ConnectionState::Connecting { attempt });
        let connected = match other.take() {
            Some(link) => Ok(Connected { link, early: None }),
            None => tokio::select! {
                connected = transport.connect() => connected,
                // What is under way may belong to a network that is gone.
                _ = network.changed() => continue,
                () = asked_to_stop(shared) => return Error::Closed,
            },
        };
        let error = match connected {
            Ok(connected) => {
                let began = Instant::now();
                let ended = connection::run(shared, transport, connected, &mut opening).await;
                network.mark_unchanged();
                other = ended.other;
                if ended.was_online {
                    attempt = 0;
                }
                if ended.was_online && began.elapsed() >= STABLE_AFTER {
                    backoff.reset();
                }
                match ended.result {
                    Ok(()) if other.is_some() => continue,
                    Ok(()) => return Error::Closed,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if error.is_final() || opening.is_impatient() {
            return error;
        }
        let delay = backoff.pause(chance()).max(advice(&error));
        tracing::debug!(%error, ?delay, "connection failed");
        shared.set_state(ConnectionState::Waiting { delay, reason: error });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = network.changed() => backoff.reset(),
            () = asked_to_stop(shared) => return Error::Closed,
        }
    }
}

/// The pause the server asks for, and a little more, so that not everybody returns at the same moment.
fn advice(error: &Error) -> Duration {
    let advice = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
    advice + advice.mul_f64(chance() / 4.0)
}

async fn asked_to_stop(shared: &Shared) {
    tokio::select! {
        () = shared.finish.cancelled() => {}
        () = shared.over.cancelled() => {}
    }
}

/// Says that nothing more will be written on a lane and waits, for a while, until the server has all of it.
async fn finish_lane(mut stream: SendStream) {
    frames::finish(&mut stream);
    // An error means that the connection is gone; there is nothing to wait for then.
    let _ = tokio::time::timeout(FINISH_TIMEOUT, stream.stopped()).await;
}

/// What a connection came to.
struct Ended {
    was_online: bool,
    /// `Ok` if it ended because the client is to end, or for the other one.
    result: Result<(), Error>,
    /// The connection that takes its place.
    other: Option<Link>,
}

impl Ended {
    async fn close(self, link: &Link) -> Self {
        link.close().await;
        self
    }
}
