//! The sequencer: the one thread that decides, in order, everything that must be durable.
//!
//! A turn takes all batches that wait, lets the core decide each command, makes the entries of the whole turn durable with
//! one commit, and only then releases the effects. There is no timer: the next turn's batches gather while the disk syncs.
//!
//! Invariants: effects never leave before their entries are durable; a failed commit ends the sequencer, and with it the
//! process, without releasing anything; the sequencer never waits for anybody but the disk.

use std::sync::Arc;
use std::time::Instant;

use quail_core::ports::outbox::{Entry, Outbox, StoreError};
use quail_core::{Command, Effect, Outcome, State};
use tokio::sync::mpsc;

use crate::delivery::Release;
use crate::ops::metrics::Metrics;

/// Most batches that wait for the sequencer. A connection has at most one on its way.
const QUEUE_BATCHES_MAX: usize = 4096;

/// Most batches decided in one turn: bounds how long the first of them waits for its answer.
const TURN_BATCHES_MAX: usize = 1024;

/// Hands commands to the sequencer. Cheap to clone; the sequencer ends when all handles are gone.
#[derive(Clone)]
pub struct SequencerHandle {
    queue: mpsc::Sender<Vec<Command>>,
}

/// The sequencer has ended; the process is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sequencer has ended")]
pub struct SequencerEnded;

impl SequencerHandle {
    /// Hands over a batch, in the order of its commands; waits while the queue is full.
    ///
    /// # Errors
    /// [`SequencerEnded`].
    pub async fn submit(&self, batch: Vec<Command>) -> Result<(), SequencerEnded> {
        self.queue.send(batch).await.map_err(|_| SequencerEnded)
    }

    /// As [`submit`](Self::submit), for threads outside the runtime.
    ///
    /// # Errors
    /// [`SequencerEnded`].
    pub fn submit_blocking(&self, batch: Vec<Command>) -> Result<(), SequencerEnded> {
        self.queue.blocking_send(batch).map_err(|_| SequencerEnded)
    }
}

/// The sequencer before its thread runs.
pub struct Sequencer {
    queue: mpsc::Receiver<Vec<Command>>,
    state: State,
    outbox: Box<dyn Outbox>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    metrics: Arc<Metrics>,
    /// Events in all outboxes, kept along so that nobody has to count them.
    unacknowledged: usize,
}

impl Sequencer {
    /// Returns a sequencer over a recovered state and the store it came from, and the handle that feeds it. `clock` returns
    /// milliseconds since the Unix epoch.
    pub fn new(
        state: State,
        outbox: Box<dyn Outbox>,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
        metrics: Arc<Metrics>,
    ) -> (Self, SequencerHandle) {
        let (sender, queue) = mpsc::channel(QUEUE_BATCHES_MAX);
        let unacknowledged = state.unresolved();
        metrics.unacknowledged.set(unacknowledged as i64);
        let sequencer = Self { queue, state, outbox, clock, metrics, unacknowledged };
        (sequencer, SequencerHandle { queue: sender })
    }

    /// Takes turns until all handles are gone. Runs on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError`] when a commit failed. What was not released must count as not done; the process must end.
    pub fn run(mut self, mut release: impl Release) -> Result<(), StoreError> {
        let mut batches = Vec::with_capacity(TURN_BATCHES_MAX);
        while self.queue.blocking_recv_many(&mut batches, TURN_BATCHES_MAX) > 0 {
            let effects = self.turn(batches.drain(..).flatten())?;
            release.release(effects);
        }
        Ok(())
    }

    fn turn(&mut self, commands: impl Iterator<Item = Command>) -> Result<Vec<Effect>, StoreError> {
        let now_ms = (self.clock)();
        let mut outcome = Outcome::default();
        let mut decided = 0_u32;
        for command in commands {
            self.state.decide(command, now_ms, &mut outcome);
            decided += 1;
        }
        if !outcome.entries.is_empty() {
            let began = Instant::now();
            self.outbox.commit(self.state.batch(&outcome.entries))?;
            self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
            self.recount(&outcome.entries);
        }
        self.metrics.turn_commands.observe(decided.into());
        self.metrics.sequencer_queue.set(self.queue.len() as i64);
        Ok(outcome.after)
    }

    fn recount(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Event { accounts, .. } => self.unacknowledged += accounts.len(),
                Entry::Resolved { positions, .. } => {
                    self.unacknowledged = self.unacknowledged.saturating_sub(positions.len());
                }
                // How many went into the gap it does not say, and it is rare.
                Entry::Collapsed { .. } => {
                    self.unacknowledged = self.state.unresolved();
                    break;
                }
                _ => {}
            }
        }
        self.metrics.unacknowledged.set(self.unacknowledged as i64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use quail_core::ports::directory::AccountFacts;
    use quail_core::ports::outbox::{BacklogReader, Batch, Recovered, TwinOutbox};
    use quail_core::{ConnectionId, SendCommand, ValidSend};
    use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Stamp};
    use quail_protocol::v1;

    use super::*;

    #[derive(Clone, Default)]
    struct Watched {
        twin: TwinOutbox,
        committed: Arc<AtomicBool>,
        fail: bool,
    }

    impl Outbox for Watched {
        fn commit(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
            if self.fail {
                return Err(StoreError::Io { action: "sync", reason: "the test says so".to_owned() });
            }
            self.twin.commit(batch)?;
            self.committed.store(true, Ordering::SeqCst);
            Ok(())
        }

        fn reader(&self) -> Arc<dyn BacklogReader> {
            self.twin.reader()
        }
    }

    #[derive(Clone, Default)]
    struct Log {
        effects: Arc<Mutex<Vec<(bool, Effect)>>>,
        committed: Arc<AtomicBool>,
    }

    impl Release for Log {
        fn release(&mut self, effects: Vec<Effect>) {
            let committed = self.committed.load(Ordering::SeqCst);
            self.effects.lock().unwrap().extend(effects.into_iter().map(|effect| (committed, effect)));
        }
    }

    fn commands() -> Vec<Command> {
        let (account, device) = (AccountId([1; 16]), DeviceId([1; 16]));
        let facts = AccountFacts { account, handle: "ada".to_owned(), version: 1, devices: vec![device] };
        let mut id = MessageId([0; 16]);
        id.0[6] = 0x70;
        id.0[8] = 0x80;
        let kind = v1::BodyKind::PlainText;
        let send = ValidSend { id, recipient: account, kind, body: "hi".into(), seen: Stamp(0) };
        let connection = ConnectionId(1);
        let send = Command::Send(SendCommand { connection, account, device, number: 1, send: Ok(send) });
        vec![Command::Facts { facts, ticket: None }, send]
    }

    fn run(fail: bool) -> (Result<(), StoreError>, Vec<(bool, Effect)>) {
        let metrics = Arc::new(Metrics::new());
        let committed = Arc::new(AtomicBool::new(false));
        let outbox = Watched { committed: committed.clone(), fail, ..Watched::default() };
        let state = State::new(Origin(1), Recovered::default());
        let (sequencer, handle) = Sequencer::new(state, Box::new(outbox), Arc::new(|| 1_000), metrics);
        let log = Log { committed, ..Log::default() };
        handle.submit_blocking(commands()).unwrap();
        drop(handle);
        let result = sequencer.run(log.clone());
        let effects = log.effects.lock().unwrap().clone();
        (result, effects)
    }

    #[test]
    fn effects_leave_after_the_commit() {
        let (result, effects) = run(false);
        assert_eq!(result, Ok(()));
        assert!(matches!(effects[..], [(true, Effect::Accepted { .. })]), "{effects:?}");
    }

    #[test]
    fn a_failed_commit_ends_the_sequencer_and_releases_nothing() {
        let (result, effects) = run(true);
        assert!(result.is_err());
        assert_eq!(effects, []);
    }
}
