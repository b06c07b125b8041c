//! Writing the archive: reads the journal along, behind everything else, and is never in the way.
//!
//! A thread of its own takes what is durable in the journal, makes batches of it, has each applied in one transaction, and then tells
//! the journal that it may forget. Nobody waits for it: when the archive fails, it tries again with pauses that grow, and what waits
//! lies in the journal, whose space `[limits] unarchived` bounds.
//!
//! `item.rs` says what an event means to the archive, `breaker.rs` how long to wait after a failure, `dead.rs` what becomes of events
//! that can never be archived.
//!
//! Invariants: the journal is told of a position only after everything up to it is durable in the archive, or is kept as a dead letter
//! there; a batch that comes again changes nothing, so a restart loses and doubles nothing; an event that is refused takes no other
//! with it.

mod breaker;
mod change;
pub mod dead;
mod item;
mod stop;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_core::ports::archive::{Applied, ArchiveBatch, ArchiveError, WriteArchive};
use quail_core::ports::outbox::{Accounts, StoreError, StoredEvent};
use quail_protocol::id::{Origin, Position};
use tokio::runtime::Handle;

use breaker::Breaker;
use item::Item;
pub use stop::Stop;

use crate::ops::clock::unix_ms;
use crate::ops::metrics::Metrics;

/// Most bytes of frames of one batch.
const BATCH_BYTES: usize = 1024 * 1024;

/// Most events of one batch.
const BATCH_EVENTS: usize = 1_000;

/// How long the thread waits for events before it looks around.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long it lets events gather after a small batch: each batch costs a sync of the disk that answers wait for, too.
const LINGER: Duration = Duration::from_millis(50);

/// How often positions without events are written down.
const QUIET_EVERY: Duration = Duration::from_secs(5);

/// How long one batch may take.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// So many times in a row the archive may be away for a batch before the batch is applied in halves: it may be too large for the time
/// that it has.
const HALVES_AT: u32 = 3;

/// An event of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEvent {
    /// The event.
    pub event: Arc<StoredEvent>,
    /// The accounts it is for; none where only the archive is to know.
    pub accounts: Accounts,
}

/// Events in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The events.
    pub events: Vec<JournalEvent>,
    /// With these, everything up to here was handed out.
    pub upto: Position,
}

/// The journal, as the archive reads it along.
pub trait Source: Send {
    /// Waits until there are events and returns what there is, at most so many bytes of frames but at least one event; none if
    /// nothing comes in time.
    ///
    /// # Errors
    /// [`StoreError`]; the next call tries again at the same place.
    fn next(&mut self, bytes_max: usize, patience: Duration) -> Result<Taken, StoreError>;

    /// Takes note that everything up to a position is durable elsewhere.
    fn archived(&self, upto: Position);

    /// Returns the last position that was given.
    fn last_position(&self) -> Position;
}

/// Whose journal it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The origin.
    pub origin: Origin,
    /// The origins that it carries on, each with the last position that it took over.
    pub ancestors: Vec<(Origin, Position)>,
}

/// What the writer is made of.
pub struct WriterParts<S> {
    /// The journal.
    pub source: S,
    /// Where it goes.
    pub archive: Arc<dyn WriteArchive>,
    /// Whose journal it is.
    pub lineage: Lineage,
    /// Up to where it is archived.
    pub archived: Position,
    /// Where the archive's own tasks run.
    pub runtime: Handle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How it is asked to stop.
    pub stop: Arc<Stop>,
    /// Is shown each batch once it is applied. Must not wait.
    pub changed: Box<dyn Fn(&ArchiveBatch) + Send>,
}

/// The writer; a thread runs it.
pub struct Writer<S> {
    parts: WriterParts<S>,
    breaker: Breaker,
    quiet_since: Instant,
}

/// The daemon stops, and what is not archived waits for the next start.
struct Stopped;

impl<S: Source> Writer<S> {
    /// Returns a writer.
    pub fn new(parts: WriterParts<S>) -> Self {
        Self { parts, breaker: Breaker::default(), quiet_since: Instant::now() }
    }

    /// Archives until it is asked to stop; then what is there, for as long as it may.
    pub fn run(mut self) {
        loop {
            let is_asked = self.parts.stop.is_asked();
            let patience = if is_asked { Duration::ZERO } else { PATIENCE };
            match self.parts.source.next(BATCH_BYTES, patience) {
                Ok(taken) => {
                    let count = taken.events.len();
                    if count == 0 && is_asked || self.take(taken).is_err() {
                        break;
                    }
                    if count < BATCH_EVENTS / 2 {
                        self.parts.stop.wait(LINGER);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the archive cannot read the journal");
                    if self.failed(None).is_err() {
                        break;
                    }
                }
            }
            if self.parts.stop.is_over() {
                break;
            }
        }
        self.show(None);
    }

    /// Archives what was taken.
    fn take(&mut self, taken: Taken) -> Result<(), Stopped> {
        if taken.events.is_empty() {
            // Positions without events are worth a transaction now and then only.
            if taken.upto > self.parts.archived && self.quiet_since.elapsed() >= QUIET_EVERY {
                self.commit(&[], taken.upto)?;
            }
            self.show(None);
            return Ok(());
        }
        let items: Vec<_> = taken.events.into_iter().map(Item::of).collect();
        let mut rest = &items[..];
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(rest.len().min(BATCH_EVENTS));
            rest = left;
            self.commit(piece, below(left, taken.upto))?;
        }
        Ok(())
    }

    /// Has items applied, whatever it takes; those that are refused become dead letters.
    fn commit(&mut self, items: &[Item], upto: Position) -> Result<(), Stopped> {
        let lineage = self.parts.lineage.clone();
        let batch = item::batch(&lineage, items, upto);
        let mut failures = 0;
        loop {
            self.show(items.first());
            match self.apply(&batch) {
                Ok(applied) => {
                    self.applied(&batch, &applied);
                    return Ok(());
                }
                Err(ArchiveError::Refused { reason }) if items.len() > 1 => {
                    tracing::debug!(
                        events = items.len(),
                        reason,
                        "the archive refuses a batch: looking for what it is"
                    );
                    return self.commit_halves(items, upto);
                }
                Err(ArchiveError::Refused { reason }) if items.len() == 1 && batch.dead.is_empty() => {
                    return self.bury(items, &reason, upto);
                }
                Err(error) => {
                    self.breaker.says(&error);
                    self.failed(items.first())?;
                    failures =
                        if matches!(error, ArchiveError::Unavailable { .. }) { failures + 1 } else { 0 };
                    if failures >= HALVES_AT && items.len() > 1 {
                        tracing::debug!(events = items.len(), %error, "the archive does not take a batch: trying halves");
                        return self.commit_halves(items, upto);
                    }
                }
            }
        }
    }

    /// The same, one half after the other.
    fn commit_halves(&mut self, items: &[Item], upto: Position) -> Result<(), Stopped> {
        let (left, right) = items.split_at(items.len() / 2);
        self.commit(left, below(right, upto))?;
        self.commit(right, upto)
    }

    /// Keeps what is refused as a dead letter.
    fn bury(&mut self, items: &[Item], reason: &str, upto: Position) -> Result<(), Stopped> {
        for item in items {
            tracing::error!(position = %item.position(), reason, "an event cannot be archived: kept as a dead letter");
        }
        let buried: Vec<_> = items.iter().map(|item| item.buried(reason)).collect();
        self.commit(&buried, upto)
    }

    fn apply(&self, batch: &ArchiveBatch) -> Result<Applied, ArchiveError> {
        let began = Instant::now();
        self.parts.runtime.block_on(async {
            let mut applying = self.parts.archive.apply(batch);
            // Looking up now and then: it may be asked to stop while a server does not answer.
            loop {
                if let Ok(applied) = tokio::time::timeout(PATIENCE, &mut applying).await {
                    return applied;
                }
                if began.elapsed() >= APPLY_TIMEOUT || self.parts.stop.is_over() {
                    let reason = format!("no answer within {} ms", began.elapsed().as_millis());
                    return Err(ArchiveError::Unavailable { reason });
                }
            }
        })
    }

    fn applied(&mut self, batch: &ArchiveBatch, applied: &Applied) {
        if self.breaker.succeeded() {
            tracing::info!(upto = %batch.upto, "the archive takes events again");
        }
        for loser in &applied.losers {
            tracing::warn!(
                sender = %loser.message.sender, id = %loser.message.id, origin = %loser.origin, position = %loser.position,
                "a message uses the id of another one: it is not in the archive"
            );
        }
        let metrics = &self.parts.metrics.archive;
        metrics.batches.inc();
        metrics.rows.inc_by(applied.inserted);
        metrics.losers.inc_by(applied.losers.len() as u64);
        metrics.dead_letters.inc_by(batch.dead.len() as u64);
        self.parts.archived = batch.upto;
        self.quiet_since = Instant::now();
        self.parts.source.archived(batch.upto);
        (self.parts.changed)(batch);
        self.show(None);
    }

    /// Waits after a failure.
    fn failed(&mut self, oldest: Option<&Item>) -> Result<(), Stopped> {
        self.parts.metrics.archive.failures.inc();
        let pause = self.breaker.failed();
        self.show(oldest);
        // What fails now will hardly do better within the few seconds that are left.
        if self.parts.stop.wait(pause) { Err(Stopped) } else { Ok(()) }
    }

    /// Brings the gauges up to date; `oldest` waits to be archived.
    fn show(&self, oldest: Option<&Item>) {
        let metrics = &self.parts.metrics.archive;
        let last = self.parts.source.last_position();
        metrics.lag_events.set(last.0.saturating_sub(self.parts.archived.0).cast_signed());
        let since = oldest.and_then(Item::stamp).map(|stamp| unix_ms().saturating_sub(stamp.unix_ms()));
        metrics.lag_seconds.set(Duration::from_millis(since.unwrap_or(0)).as_secs_f64());
        metrics.breaker.set(self.breaker.state());
    }
}

/// Returns up to where everything is archived once what is before `left` is.
fn below(left: &[Item], upto: Position) -> Position {
    let next = left.iter().map(Item::position).min();
    next.map_or(upto, |next| Position(next.0.saturating_sub(1)).min(upto))
}
