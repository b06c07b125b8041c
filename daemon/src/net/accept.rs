//! Accepting connections: who may begin a handshake, and how many may be at it.
//!
//! A handshake costs the daemon a key exchange and some memory, and the sender of its first packet perhaps nothing: the
//! address may be forged. So an address that has not been validated gets in for free only while few handshakes are under
//! way; beyond that it is sent a token to come back with (Retry, RFC 9000 section 8.1), which costs no memory here. Only an
//! address that has shown that it receives is counted in its rate class; else a forger could use up somebody else's.
//!
//! Invariant: at most [`HANDSHAKES_MAX`] handshakes and [`CONNECTIONS_MAX`] connections.

use std::sync::Arc;
use std::time::Duration;

use quail_core::ConnectionId;
use quinn::{Endpoint, Incoming};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::handshake::{Handshake, count};
use super::runtime::Watched;
use crate::gateway::{Gateway, Prefix};
use crate::ops::metrics::Held;

/// Most connections at once. Beyond it new ones are refused before their handshake costs anything.
const CONNECTIONS_MAX: usize = 100_000;

/// From how many connections on that are not (or no longer) established an address must be validated first. One that ended
/// in its handshake holds its memory for three probe timeouts more (RFC 9000, section 10.2), which is a second each before
/// a round trip was measured; so those count as well.
const RETRY_STRANGERS: usize = 256;

/// Most handshakes under way. Beyond it new ones are refused.
const HANDSHAKES_MAX: i64 = 2_048;

/// What accepting needs.
pub struct Accepting {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// What connections talk to.
    pub gateway: Arc<Gateway>,
    /// Counts the connections; closed and waited for by who drains.
    pub connections: TaskTracker,
    /// Tells everybody to finish.
    pub drain: CancellationToken,
    /// How long what waits for a peer may wait without any progress, before its connection is closed.
    pub stall: Duration,
}

/// What becomes of somebody who knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    /// To come back with a token.
    Retry,
    /// Too many of its own.
    Limited,
    /// Too many of everybody's.
    Refuse,
}

/// Accepts connections until told to drain.
pub async fn accept_all(accepting: Accepting) {
    let Accepting { endpoint, gateway, connections, drain, stall } = accepting;
    let mut next = 1;
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = drain.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        let verdict = judge(&gateway, &incoming, endpoint.open_connections());
        let result = match verdict {
            Verdict::Accept => {
                // Counted before the next one is judged, not when the task first runs.
                let open = Held::new(&gateway.metrics().handshakes_open);
                let knock = Knock { id: ConnectionId(next), incoming, open };
                let task = serve(knock, gateway.clone(), drain.child_token(), stall);
                connections.spawn(Watched::connection(Box::pin(task), gateway.metrics().clone()));
                next += 1;
                continue;
            }
            Verdict::Retry => match incoming.retry() {
                Ok(()) => "retried",
                // It had been sent away with a token before and is back without: it gets no second one.
                Err(error) => {
                    error.into_incoming().refuse();
                    "refused"
                }
            },
            Verdict::Limited => {
                incoming.refuse();
                "limited"
            }
            Verdict::Refuse => {
                incoming.refuse();
                "refused"
            }
        };
        count(&gateway, result);
    }
}

fn judge(gateway: &Gateway, incoming: &Incoming, connections: usize) -> Verdict {
    let metrics = gateway.metrics();
    if connections >= CONNECTIONS_MAX || metrics.handshakes_open.get() >= HANDSHAKES_MAX {
        return Verdict::Refuse;
    }
    let prefix = Prefix::of(incoming.remote_address().ip());
    if incoming.remote_address_validated() {
        return if gateway.rates().handshake(prefix).is_ok() { Verdict::Accept } else { Verdict::Limited };
    }
    let established = usize::try_from(metrics.connections.get()).unwrap_or_default();
    let is_quiet = connections.saturating_sub(established) < RETRY_STRANGERS;
    let is_free = is_quiet && gateway.rates().may_handshake(prefix);
    if is_free { Verdict::Accept } else { Verdict::Retry }
}

/// Somebody who may come in.
struct Knock {
    id: ConnectionId,
    incoming: Incoming,
    open: Held,
}

/// Serves a connection from its first packet to its end. What happens once lies in boxes of its own, which are gone when it has
/// happened: a connection waits most of its life, and its task shall be small then.
fn serve(
    knock: Knock,
    gateway: Arc<Gateway>,
    drain: CancellationToken,
    stall: Duration,
) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(open(knock, gateway, drain, stall));
    async move {
        let Some(mut connection) = opening.await else { return };
        let end = connection.live().await;
        Box::pin(connection.finish(end)).await;
    }
}

async fn open(
    knock: Knock,
    gateway: Arc<Gateway>,
    drain: CancellationToken,
    stall: Duration,
) -> Option<Connection> {
    let arrived = Handshake::arrive(knock.incoming, knock.open, &gateway).await?;
    Connection::open(knock.id, arrived, gateway, drain, stall).await
}
