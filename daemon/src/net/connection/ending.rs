//! How a connection ends: what has arrived is still taken, what is owed is still said, and then why.

use std::time::Duration;

use quail_protocol::error::close;
use quail_protocol::v1::Reason;
use quinn::VarInt;

use super::early;
use super::{Connection, DRAIN_PATIENCE, END_PATIENCE, End};
use crate::gateway::Gateway;
use crate::ops::metrics::ReasonLabel;

/// Most turns in which a connection that ends reads what had arrived. Its windows allow no more than that.
const REST_TURNS_MAX: usize = 64;

impl Connection {
    /// Takes what had arrived before the end: above all the last acknowledgements of a client that said goodbye right after
    /// them. QUIC told it that they had come; that we have read them it cannot know.
    async fn take_the_rest(&mut self) {
        for _ in 0..REST_TURNS_MAX {
            // What is not ready now is not among it. The feed is read first, so no lost lane hides its acknowledgements.
            let up = tokio::select! {
                biased;
                up = self.lanes.turn(|| false) => up,
                () = std::future::ready(()) => return,
            };
            match up {
                Ok(Some(up)) => {
                    if self.take(up).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the connection.
    pub(in crate::net) async fn finish(mut self, why: End) {
        if matches!(why, End::Gone | End::Drain) {
            self.take_the_rest().await;
        }
        let (patience, reason) = match why {
            End::Gone => (Duration::ZERO, Reason::Internal),
            End::Close(reason) => (END_PATIENCE, reason),
            End::Drain => (DRAIN_PATIENCE, Reason::Draining),
        };
        if !patience.is_zero() {
            self.gateway.refusals().count(reason);
            count_closed(&self.gateway, reason);
            tracing::debug!(connection = self.id.0, reason = reason.as_str_name(), "closing");
            // Answers that are on their way still go out: what the client was told it need not ask again.
            let _ = tokio::time::timeout(patience, self.settle()).await;
            self.lanes.finish(patience).await;
            let handshake = self.early.take().map(|early| early.into_handshake());
            early::end(handshake, &self.quic, &self.gateway, reason).await;
        }
        if let Some(session) = &self.session {
            self.gateway.disconnected(self.id, session).await;
        }
    }

    /// Waits until every send that was handed over and every request is answered.
    async fn settle(&mut self) {
        while self.lanes.unanswered() > 0 || self.requests.len() > 0 {
            tokio::select! {
                downs = self.mailbox.receive() => {
                    let Some(downs) = downs else { return };
                    // A reason to close is no news any more.
                    let _ = self.lanes.push(downs, self.gateway.origin());
                }
                step = self.requests.next() => {
                    // Nor is what it costs.
                    let _ = self.request_step(step);
                }
                _ = self.quic.closed() => return,
            }
        }
    }
}

/// Counts a connection that the daemon closes.
pub(super) fn count_closed(gateway: &Gateway, reason: Reason) {
    gateway.metrics().closed.get_or_create(&ReasonLabel { reason: reason.meta().name }).inc();
}

/// Closes a connection and says why.
pub(super) fn end(quic: &quinn::Connection, reason: Reason) {
    quic.close(VarInt::from_u32(close::code(reason)), reason.as_str_name().as_bytes());
}
