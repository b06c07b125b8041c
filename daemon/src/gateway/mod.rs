//! The gateway: what comes off the wire becomes a command here, or is refused.
//!
//! It checks form and session, tells the core what the directory knows of everybody a command names, and hands over. A
//! refusal that is clear here still takes the way through the sequencer where answers must keep their order.
//!
//! Invariant: when a send reaches the core, the directory's facts on its recipient were handed over before it, by the same
//! queue.

mod hello;
mod known;
mod lanes;
mod requests;

use std::sync::Arc;

use quail_core::ports::directory::{AccountFacts, Directory, SessionFacts};
use quail_core::{Command, ConnectionId};
use quail_protocol::id::Origin;
use quail_protocol::v1::Reason;
use tokio_util::task::TaskTracker;

pub use requests::{Requested, SessionChange};

use crate::delivery::Delivery;
use crate::directory::DirectoryService;
use crate::ops::refusals::Refusals;
use crate::sequencer::{SequencerEnded, SequencerHandle};
use known::KnownAccounts;

/// Most commands that a connection hands over at once: its share of a turn.
pub const BATCH_COMMANDS_MAX: usize = 256;

/// What all connections share.
pub struct Gateway {
    origin: Origin,
    sequencer: SequencerHandle,
    delivery: Arc<Delivery>,
    directory: DirectoryService,
    /// For reads; commands go through the directory service.
    reads: Arc<dyn Directory>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    known: KnownAccounts,
    refusals: Refusals,
    /// Requests run here and not on their connection: once begun, a command is carried through.
    requests: TaskTracker,
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// The origin of this data directory.
    pub origin: Origin,
    /// Where commands go.
    pub sequencer: SequencerHandle,
    /// Who waits for what.
    pub delivery: Arc<Delivery>,
    /// Decides directory commands.
    pub directory: DirectoryService,
    /// Answers queries on the directory.
    pub reads: Arc<dyn Directory>,
    /// Milliseconds since the Unix epoch.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Gateway {
    /// Returns a gateway.
    pub fn new(parts: GatewayParts) -> Self {
        let GatewayParts { origin, sequencer, delivery, directory, reads, clock } = parts;
        let (known, refusals, requests) = (KnownAccounts::default(), Refusals::default(), TaskTracker::new());
        Self { origin, sequencer, delivery, directory, reads, clock, known, refusals, requests }
    }

    /// Returns the delivery that this gateway's connections register with.
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Returns the counts of refusals.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Returns the tracker of requests under way.
    pub fn requests(&self) -> &TaskTracker {
        &self.requests
    }

    /// Returns the origin of this data directory.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Hands over a batch of commands.
    ///
    /// # Errors
    /// [`SequencerEnded`].
    pub async fn submit(&self, batch: Vec<Command>) -> Result<(), SequencerEnded> {
        if batch.is_empty() { Ok(()) } else { self.sequencer.submit(batch).await }
    }

    /// Takes note that a connection carries a session.
    pub fn bind(&self, connection: ConnectionId, session: &SessionFacts) {
        self.delivery.bind(connection, session.device);
    }

    /// Takes note that a connection is gone.
    pub async fn disconnected(&self, connection: ConnectionId, session: &SessionFacts) {
        let (account, device) = (session.account, session.device);
        // If the sequencer has ended, its state is gone too.
        let _ = self.submit(vec![Command::Disconnected { connection, account, device }]).await;
    }

    /// Tells the core facts and waits until they are applied and durable: once this returns, devices that they leave out
    /// send nothing more and get nothing more.
    ///
    /// # Errors
    /// `DRAINING` if the sequencer ends.
    pub async fn apply(&self, facts: Vec<AccountFacts>) -> Result<(), Reason> {
        let Some(last) = facts.len().checked_sub(1) else { return Ok(()) };
        let accounts: Vec<_> = facts.iter().map(|facts| facts.account).collect();
        let (ticket, applied) = self.delivery.ticket();
        let command = |(at, facts)| Command::Facts { facts, ticket: (at == last).then_some(ticket) };
        let mut commands = facts.into_iter().enumerate().map(command).peekable();
        while commands.peek().is_some() {
            let batch = commands.by_ref().take(BATCH_COMMANDS_MAX).collect();
            self.submit(batch).await.map_err(|SequencerEnded| Reason::Draining)?;
        }
        applied.await.map_err(|_| Reason::Draining)?;
        for account in accounts {
            self.known.insert(account);
        }
        Ok(())
    }

    /// Waits until the sequencer has taken a turn that began after this. Returns `false` if it has ended; if it hangs, this
    /// does too.
    pub async fn probe(&self) -> bool {
        let (ticket, answered) = self.delivery.ticket();
        let told = self.submit(vec![Command::Probe { ticket }]).await;
        told.is_ok() && answered.await.is_ok()
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}
