//! Accepting connections: each gets a number and a task, up to a limit.

use std::sync::Arc;

use quail_core::ConnectionId;
use quinn::Endpoint;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use crate::gateway::Gateway;

/// Most connections at once. Beyond it new ones are refused before their handshake costs anything.
const CONNECTIONS_MAX: usize = 100_000;

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
}

/// Accepts connections until told to drain.
pub async fn accept_all(accepting: Accepting) {
    let Accepting { endpoint, gateway, connections, drain } = accepting;
    let mut next = 1;
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = drain.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        if connections.len() >= CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        let id = ConnectionId(next);
        next += 1;
        let (gateway, drain) = (gateway.clone(), drain.child_token());
        connections.spawn(async move {
            let address = incoming.remote_address();
            match incoming.await {
                Ok(connection) => Connection::run(id, connection, gateway, drain).await,
                Err(error) => tracing::debug!(%address, %error, "handshake failed"),
            }
        });
    }
}
