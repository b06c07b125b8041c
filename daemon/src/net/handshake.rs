//! A handshake, from the first packet to its end, which may come after the first words of the client.
//!
//! Mostly nothing is said before the handshake is complete. A client with a ticket of an earlier connection may do so (early data), and
//! then its connection is served while the handshake goes on.
//!
//! Invariants: a handshake is over after [`HANDSHAKE_TIMEOUT`], whatever the peer does; its end is counted once; only an address
//! that has shown that it receives is counted in its rate class.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Incoming, RecvStream, SendStream, ZeroRttAccepted};
use tokio::time::Instant;

use crate::gateway::{Gateway, Prefix};
use crate::ops::metrics::{EarlyDataLabel, HandshakeLabel, Held};

/// How long a handshake may take: four round trips of a very slow network, with losses.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handshake under way.
pub(super) struct Handshake {
    ended: ZeroRttAccepted,
    deadline: Instant,
    address: SocketAddr,
    validated: bool,
    /// Counts it while it is under way.
    _open: Held,
}

/// A connection that can be served.
pub(super) struct Arrived {
    pub(super) quic: quinn::Connection,
    /// The stream that was opened in early data, if the handshake is still under way.
    pub(super) first: Option<(SendStream, RecvStream)>,
    /// There while it is under way.
    pub(super) handshake: Option<Handshake>,
}

impl Handshake {
    /// Goes on with the handshake of somebody who knocked, and returns the connection once that is complete or the client has said
    /// something in early data.
    pub(super) async fn arrive(incoming: Incoming, open: Held, gateway: &Gateway) -> Option<Arrived> {
        let (address, validated) = (incoming.remote_address(), incoming.remote_address_validated());
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let accepted =
            incoming.accept().map_err(|error| tracing::debug!(%address, %error, "handshake failed"));
        // A server may speak before the handshake is complete, so this never fails.
        let Some((quic, ended)) = accepted.ok().and_then(|connecting| connecting.into_0rtt().ok()) else {
            count(gateway, "failed");
            return None;
        };
        let mut handshake = Self { ended, deadline, address, validated, _open: open };
        let early = tokio::select! {
            biased;
            complete = handshake.done(&quic, gateway) => {
                return complete.then_some(Arrived { quic, first: None, handshake: None });
            }
            stream = quic.accept_bi() => stream,
        };
        match early {
            Ok(first) => {
                let metrics = gateway.metrics();
                metrics.early_data.get_or_create(&EarlyDataLabel { result: "accepted" }).inc();
                Some(Arrived { quic, first: Some(first), handshake: Some(handshake) })
            }
            // The connection has ended, and so has the handshake.
            Err(_) => {
                handshake.done(&quic, gateway).await;
                None
            }
        }
    }

    /// Waits for the end and returns whether the handshake is complete. Must not be asked again after that. Cancel safe.
    pub(super) async fn done(&mut self, quic: &quinn::Connection, gateway: &Gateway) -> bool {
        let ended = tokio::time::timeout_at(self.deadline, &mut self.ended).await;
        let (address, reason) = (self.address, quic.close_reason());
        let result = match (ended, reason) {
            (Err(_), _) => {
                tracing::debug!(%address, "handshake took too long");
                "timeout"
            }
            (Ok(_), Some(error)) => {
                tracing::debug!(%address, %error, "handshake failed");
                "failed"
            }
            (Ok(_), None) => "completed",
        };
        count(gateway, result);
        let complete = result == "completed";
        if complete && !self.validated {
            // It is now. The place is taken whether there is one left or not: this connection stands.
            let _ = gateway.rates().handshake(Prefix::of(address.ip()));
        }
        complete
    }
}

/// Counts the end of a handshake, or what became of it before it began.
pub(super) fn count(gateway: &Gateway, result: &'static str) {
    gateway.metrics().handshakes.get_or_create(&HandshakeLabel { result }).inc();
}
