//! What a connection is refused, and what that costs it.

use quail_protocol::v1::Reason;
use tokio::time::Instant;

use super::{Connection, End};
use crate::delivery::{Down, FeedItem};

impl Connection {
    /// Refused sends are not charged: the core refuses everything behind the first one until the client says `Restart`.
    pub(super) fn count_refusals(&mut self, downs: &[Down]) -> Result<(), End> {
        let mut within_budget = Ok(());
        for down in downs {
            match down {
                Down::Refused { error, .. } => self.gateway.refusals().count(error.reason()),
                Down::Feed(number, FeedItem::Ended(error)) => {
                    self.gateway.refusals().count(error.reason());
                    // A feed that this connection has replaced itself is nothing to hold against it.
                    if *number == self.lanes.feed_number() {
                        within_budget = within_budget.and(self.charge());
                    }
                }
                Down::Accepted(_) | Down::Feed(..) | Down::Close(_) => {}
            }
        }
        within_budget
    }

    /// Counts a refusal and charges it.
    pub(super) fn refused(&mut self, reason: Reason) -> Result<(), End> {
        self.gateway.refusals().count(reason);
        self.charge()
    }

    /// Takes one refusal from the budget, whose end is that of the connection.
    pub(super) fn charge(&mut self) -> Result<(), End> {
        if self.budget.take(Instant::now()) {
            return Ok(());
        }
        // All streams of a connection that is gone fail at once; that is nobody's fault.
        Err(if self.quic.close_reason().is_some() { End::Gone } else { End::Close(Reason::RateLimited) })
    }
}
