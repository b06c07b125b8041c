//! The gateway: what comes off the wire becomes a command here, or is refused.
//!
//! It checks form and session, tells the core what the directory knows of everybody a command names, and hands over. A
//! refusal that is clear here still takes the way through the sequencer where answers must keep their order.
//!
//! Invariant: when a send reaches the core, the directory's facts on its recipient were handed over before it, by the same
//! queue.

mod hello;
mod history;
mod known;
mod lanes;
mod rates;
mod requests;
mod seen;
mod sends;
mod signals;
mod unread;

use std::sync::Arc;

use quail_core::ports::directory::{AccountFacts, Directory, SessionFacts};
use quail_core::{Command, ConnectionId};
use quail_protocol::id::{AccountId, Origin};
use quail_protocol::v1::Reason;
use tokio_util::task::TaskTracker;

pub use rates::{Limited, Prefix, Rates};
pub use requests::{Requested, SessionChange};
pub use unread::Unread;

use crate::delivery::Delivery;
use crate::directory::DirectoryService;
use crate::ops::metrics::{CommandLabels, Metrics, Refusals};
use crate::query::History;
use crate::sequencer::{SequencerEnded, SequencerHandle};
use known::KnownAccounts;
use seen::Seen;

/// Most commands that a connection hands over at once: its share of a turn.
pub const BATCH_COMMANDS_MAX: usize = 256;

/// What all connections share.
pub struct Gateway {
    origin: Origin,
    sequencer: SequencerHandle,
    delivery: Arc<Delivery>,
    directory: DirectoryService,
    /// For reads, and for when devices were seen; commands go through the directory service.
    reads: Arc<dyn Directory>,
    seen: Seen,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    known: KnownAccounts,
    /// None where no history is kept.
    history: Option<History>,
    rates: Arc<Rates>,
    back_pressure: Arc<dyn Fn() -> bool + Send + Sync>,
    metrics: Arc<Metrics>,
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
    /// Answers queries on the directory, and keeps when devices were seen.
    pub reads: Arc<dyn Directory>,
    /// Answers queries on history, if it is kept.
    pub history: Option<History>,
    /// Milliseconds since the Unix epoch.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What peers may try how often.
    pub rates: Arc<Rates>,
    /// Whether so much waits for the disk that new messages are better not read for a while.
    pub back_pressure: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    /// Returns a gateway.
    pub fn new(parts: GatewayParts) -> Self {
        let GatewayParts {
            origin,
            sequencer,
            delivery,
            directory,
            reads,
            history,
            clock,
            rates,
            back_pressure,
            metrics,
        } = parts;
        let (known, requests) = (KnownAccounts::default(), TaskTracker::new());
        Self {
            origin,
            sequencer,
            delivery,
            directory,
            reads,
            seen: Seen::default(),
            clock,
            known,
            history,
            rates,
            back_pressure,
            metrics,
            requests,
        }
    }

    /// Returns the delivery that this gateway's connections register with.
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Returns where commands go.
    pub fn sequencer(&self) -> &SequencerHandle {
        &self.sequencer
    }

    /// Returns whether so much waits for the disk that new messages are better not read for a while.
    pub fn is_backed_up(&self) -> bool {
        (self.back_pressure)()
    }

    /// Returns the counts of refusals.
    pub fn refusals(&self) -> &Refusals {
        &self.metrics.refusals
    }

    /// Returns what is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns what peers may try how often.
    pub fn rates(&self) -> &Rates {
        &self.rates
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

    /// Takes note that a connection carries a session. Should the device have been removed since the session was read, the
    /// connection is told to close: the removal closed only those that were bound by then.
    pub async fn bind(&self, connection: ConnectionId, session: &SessionFacts) {
        self.delivery.bind(connection, session.device);
        self.seen.note(session.device);
        let (account, device) = (session.account, session.device);
        // If the sequencer has ended, so has the process.
        let _ = self.submit(vec![Command::Bound { account, device }]).await;
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

    /// Returns once a command has gone through the sequencer and what was before it is durable.
    ///
    /// # Errors
    /// Why it did not.
    pub async fn probe_sequencer(&self) -> Result<(), String> {
        let (ticket, applied) = self.delivery.ticket();
        let submitted = self.submit(vec![Command::Probe { ticket }]).await;
        submitted.map_err(|ended| ended.to_string())?;
        applied.await.map_err(|_| SequencerEnded.to_string())
    }

    /// Returns once the directory has answered a question.
    ///
    /// # Errors
    /// Why it did not.
    pub async fn probe_directory(&self) -> Result<(), String> {
        let nobody = AccountId([0; 16]);
        self.reads.facts(nobody).await.map(drop).map_err(|error| error.to_string())
    }

    /// Counts commands with what came of them: `OK` or the name of a reason.
    fn count(&self, command: &'static str, result: &'static str, count: u64) {
        self.metrics.commands.get_or_create(&CommandLabels { command, result }).inc_by(count);
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}
