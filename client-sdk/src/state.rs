//! What an application can see of a client from outside: the state of its connection and its counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Error;

/// Longest time for a sign of life on a connection that was moved after a change of networks, before another connection is tried
/// beside it. Most of the time it is three round trips.
pub const PROBE_PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Where a client stands. Watch it with [`Client::state`](crate::Client::state).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// A try to connect is under way.
    Connecting {
        /// Number of the try since the last time the client was online, from 1.
        attempt: u32,
    },
    /// The server has answered the hello; everything flows.
    Online,
    /// Nothing has come back for a while although something should have: after a change of networks for a few round trips,
    /// otherwise for some seconds. The connection may still be alive, and is [`Online`](Self::Online) again with the first packet;
    /// meanwhile another one is tried beside it and takes its place if it is answered first.
    Silent {
        /// What is missing.
        reason: Error,
    },
    /// The connection failed; the next try follows after a pause.
    Waiting {
        /// Length of the pause, from the moment the state was entered.
        delay: Duration,
        /// Why the connection failed.
        reason: Error,
    },
    /// Another client of this device attached its feed later. Final: no more events arrive here. Sends and requests go
    /// on over the connection, which is still kept up but no longer reported.
    Replaced,
    /// The client has ended. Final.
    Closed {
        /// Why: [`Error::Closed`] after [`Client::close`](crate::Client::close), [`Error::LoggedOut`] after
        /// [`Client::log_out`](crate::Client::log_out), else what ended it.
        reason: Error,
    },
}

/// Counters of a client since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections on which the hello was answered with a welcome, the first included.
    pub connections: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Times the connection was moved to another socket ([`Client::network_changed`](crate::Client::network_changed)).
    pub moves: u64,
    /// Connections whose early data the server accepted: they were resumed without a round trip for the handshake.
    pub early: u64,
    /// Messages accepted by the server.
    pub accepted: u64,
    /// Messages written again, after a lost connection or a temporary refusal.
    pub resent: u64,
    /// Events handed to the application.
    pub handed_out: u64,
    /// Messages dropped because they were handed out before, or were on their way to the application.
    pub duplicates_dropped: u64,
    /// Acknowledgement frames written.
    pub acks_written: u64,
    /// Writes of message frames; compare with messages to see how many share a write.
    pub publish_writes: u64,
}

/// The counters while they count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) moves: AtomicU64,
    pub(crate) early: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) handed_out: AtomicU64,
    pub(crate) duplicates_dropped: AtomicU64,
    pub(crate) acks_written: AtomicU64,
    pub(crate) publish_writes: AtomicU64,
}

impl Counters {
    /// Adds to one of the counters.
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        // Counters order nothing.
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let connections = read(&self.connections);
        Stats {
            connections,
            reconnects: connections.saturating_sub(1),
            moves: read(&self.moves),
            early: read(&self.early),
            accepted: read(&self.accepted),
            resent: read(&self.resent),
            handed_out: read(&self.handed_out),
            duplicates_dropped: read(&self.duplicates_dropped),
            acks_written: read(&self.acks_written),
            publish_writes: read(&self.publish_writes),
        }
    }
}
