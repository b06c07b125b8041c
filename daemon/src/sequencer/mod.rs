//! The sequencer: the one thread that decides, in order, everything that must be durable; and the committer behind it.
//!
//! A turn takes all batches that wait, lets the core decide each command, appends the entries to the store and hands the
//! effects to the committer. The committer syncs the store once for all that was handed over and only then releases the
//! effects. There is no timer: while one sync runs, the turns for the next one are decided. When there is little to do, and
//! nobody to wait for, the sequencer does the committer's part itself: waking another thread takes longer than the sync.
//!
//! Invariants: effects never leave before their entries are durable, and leave in the order of decision, whoever releases
//! them; a failed sync ends the thread that asked for it, and with it the process, without releasing anything; the sequencer
//! never waits for anybody but the disk.

mod handoff;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quail_core::ports::outbox::{Entry, Outbox, StoreError, Syncer};
use quail_core::{Command, Outcome, SignalOut, State};
use tokio::sync::mpsc;

use crate::delivery::Release;
use crate::ops::metrics::Metrics;
use handoff::{Giver, Taker, Waiting};

/// Most batches that wait for the sequencer. A connection has at most one on its way.
const QUEUE_BATCHES_MAX: usize = 4096;

/// Most batches taken in one turn.
const TURN_BATCHES_MAX: usize = 1024;

/// After so many commands what was decided is handed over, so that their sync begins while the rest is decided.
const HAND_OVER_COMMANDS: u32 = 128;

/// Entries whose room is kept from one turn to the next.
const ENTRIES_ROOM_MAX: usize = 4096;

/// A turn of so few commands is committed by the sequencer, if nothing else waits. With more there is something to decide
/// while the disk syncs.
const COMMIT_ALONE_COMMANDS_MAX: u64 = 8;

/// A batch, and when it was handed over.
struct Submitted {
    at: Instant,
    batch: Vec<Command>,
}

impl Submitted {
    fn now(batch: Vec<Command>) -> Self {
        Self { at: Instant::now(), batch }
    }
}

/// Hands commands to the sequencer. Cheap to clone; the sequencer ends when all handles are gone.
#[derive(Clone)]
pub struct SequencerHandle {
    queue: mpsc::Sender<Submitted>,
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
        self.queue.send(Submitted::now(batch)).await.map_err(|_| SequencerEnded)
    }

    /// Hands over a command that may be dropped, and returns whether there was room for it.
    pub fn try_submit(&self, command: Command) -> bool {
        self.queue.try_send(Submitted::now(vec![command])).is_ok()
    }

    /// Returns a handle that does not keep the sequencer running.
    pub fn downgrade(&self) -> WeakSequencerHandle {
        WeakSequencerHandle { queue: self.queue.downgrade() }
    }

    /// As [`submit`](Self::submit), for threads outside the runtime.
    ///
    /// # Errors
    /// [`SequencerEnded`].
    pub fn submit_blocking(&self, batch: Vec<Command>) -> Result<(), SequencerEnded> {
        self.queue.blocking_send(Submitted::now(batch)).map_err(|_| SequencerEnded)
    }
}

/// A handle that does not keep the sequencer running.
#[derive(Clone)]
pub struct WeakSequencerHandle {
    queue: mpsc::WeakSender<Submitted>,
}

impl WeakSequencerHandle {
    /// Hands over a batch if the sequencer still runs; waits while the queue is full. For threads outside the runtime.
    pub fn submit_blocking(&self, batch: Vec<Command>) {
        if let Some(queue) = self.queue.upgrade() {
            // A sequencer that has just ended needs nothing more.
            let _ = queue.blocking_send(Submitted::now(batch));
        }
    }
}

/// The sequencer before its thread runs.
pub struct Sequencer {
    queue: mpsc::Receiver<Submitted>,
    state: State,
    outbox: Box<dyn Outbox>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    metrics: Arc<Metrics>,
    giver: Giver,
    /// For one thread at a time, as the hand-over sees to.
    sink: Arc<Mutex<Sink>>,
    /// Where signals go, which wait for no sync.
    signals: Box<dyn Fn(Vec<SignalOut>) + Send>,
    /// Commands decided since the last hand-over.
    decided: u32,
    /// Room for the entries of a turn, empty between two.
    entries: Vec<Entry>,
}

/// What makes durable and then releases; runs beside the sequencer.
pub struct Committer {
    taker: Taker,
    sink: Arc<Mutex<Sink>>,
}

/// Where what was decided goes.
struct Sink {
    syncer: Box<dyn Syncer>,
    release: Box<dyn Release>,
    metrics: Arc<Metrics>,
}

/// The two threads and the handle that feeds them.
pub struct Parts {
    /// Decides.
    pub sequencer: Sequencer,
    /// Makes durable and releases.
    pub committer: Committer,
    /// Hands commands over.
    pub handle: SequencerHandle,
}

impl Sequencer {
    /// Returns a sequencer over a recovered state and the store it came from, with what belongs to it. Effects go to
    /// `release`. `clock` returns milliseconds since the Unix epoch.
    pub fn parts(
        state: State,
        outbox: Box<dyn Outbox>,
        release: Box<dyn Release>,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
        metrics: Arc<Metrics>,
    ) -> Parts {
        let (sender, queue) = mpsc::channel(QUEUE_BATCHES_MAX);
        metrics.unacknowledged.set(state.unresolved() as i64);
        let (giver, taker) = handoff::handoff();
        let sink = Sink { syncer: outbox.syncer(), release, metrics: metrics.clone() };
        let sink = Arc::new(Mutex::new(sink));
        let committer = Committer { taker, sink: sink.clone() };
        let signals = Box::new(drop);
        let sequencer = Self {
            queue,
            state,
            outbox,
            clock,
            metrics,
            giver,
            sink,
            signals,
            decided: 0,
            entries: Vec::new(),
        };
        Parts { sequencer, committer, handle: SequencerHandle { queue: sender } }
    }

    /// Says where signals go; without it they are dropped. Must not wait.
    #[must_use]
    pub fn with_signals(mut self, signals: impl Fn(Vec<SignalOut>) + Send + 'static) -> Self {
        self.signals = Box::new(signals);
        self
    }

    /// Takes turns until all handles are gone or the committer has ended. Runs on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError`] when the store takes no more. What was not released must count as not done; the process must end.
    pub fn run(mut self) -> Result<(), StoreError> {
        let mut batches = Vec::with_capacity(TURN_BATCHES_MAX);
        while self.queue.blocking_recv_many(&mut batches, TURN_BATCHES_MAX) > 0 {
            if !self.turn(batches.drain(..))? {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the committer still takes what is decided.
    fn turn(&mut self, batches: impl Iterator<Item = Submitted>) -> Result<bool, StoreError> {
        let now_ms = (self.clock)();
        self.state.set_room(self.outbox.room());
        let mut outcome = Outcome { entries: std::mem::take(&mut self.entries), ..Outcome::default() };
        let mut commands: u64 = 0;
        let began = Instant::now();
        for Submitted { at, batch } in batches {
            let waited = began.saturating_duration_since(at);
            self.metrics.outbox.queue_wait_seconds.observe(waited.as_secs_f64());
            for command in batch {
                self.state.decide(command, now_ms, &mut outcome);
                self.decided += 1;
                commands += 1;
            }
            if self.decided >= HAND_OVER_COMMANDS && !self.hand_over(&mut outcome, false)? {
                return Ok(false);
            }
        }
        let waiting = self.queue.len();
        self.metrics.turn_commands.observe(commands as f64);
        self.metrics.sequencer_queue.set(waiting as i64);
        let alone = waiting == 0 && commands <= COMMIT_ALONE_COMMANDS_MAX;
        let going_on = self.hand_over(&mut outcome, alone);
        self.entries = outcome.entries;
        going_on
    }

    /// Hands over what was decided and leaves an empty outcome.
    fn hand_over(&mut self, outcome: &mut Outcome, alone: bool) -> Result<bool, StoreError> {
        self.decided = 0;
        if !outcome.signals.is_empty() {
            (self.signals)(std::mem::take(&mut outcome.signals));
        }
        let to_sync = !outcome.entries.is_empty();
        if to_sync {
            self.outbox.append(self.state.batch(&outcome.entries))?;
            self.metrics.unacknowledged.set(self.state.unresolved() as i64);
            outcome.entries.clear();
            outcome.entries.shrink_to(ENTRIES_ROOM_MAX);
        }
        let after = Vec::with_capacity(outcome.after.len());
        let waiting = Waiting { effects: std::mem::replace(&mut outcome.after, after), to_sync };
        if waiting.is_empty() {
            return Ok(true);
        }
        if alone && self.giver.is_idle() {
            lock(&self.sink).commit(waiting)?;
            return Ok(true);
        }
        Ok(self.giver.give(waiting))
    }
}

impl Sink {
    fn commit(&mut self, waiting: Waiting) -> Result<(), StoreError> {
        if waiting.to_sync {
            let began = Instant::now();
            self.syncer.sync()?;
            self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        }
        self.release.release(waiting.effects);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic on either thread ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Committer {
    /// Syncs and releases until the sequencer has ended and everything it handed over is out. Runs on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError`] when a sync failed. What was not released must count as not done; the process must end.
    pub fn run(self) -> Result<(), StoreError> {
        while let Some(waiting) = self.taker.take() {
            lock(&self.sink).commit(waiting)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use quail_core::ports::directory::AccountFacts;
    use quail_core::ports::outbox::{BacklogReader, Batch, Recovered, TwinOutbox};
    use quail_core::{ConnectionId, Content, Effect, SendCommand, ValidSend};
    use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Stamp};

    use super::*;

    #[derive(Clone, Default)]
    struct Watched {
        twin: TwinOutbox,
        committed: Arc<AtomicBool>,
        fail: bool,
    }

    impl Outbox for Watched {
        fn append(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
            self.twin.append(batch)
        }

        fn syncer(&self) -> Box<dyn Syncer> {
            Box::new(self.clone())
        }

        fn reader(&self) -> Arc<dyn BacklogReader> {
            self.twin.reader()
        }
    }

    impl Syncer for Watched {
        fn sync(&mut self) -> Result<(), StoreError> {
            if self.fail {
                return Err(StoreError::Io { action: "sync", reason: "the test says so".to_owned() });
            }
            self.twin.sync()?;
            self.committed.store(true, Ordering::SeqCst);
            Ok(())
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

    fn commands(filler: u64) -> Vec<Command> {
        let (account, device) = (AccountId([1; 16]), DeviceId([1; 16]));
        let facts = AccountFacts {
            account,
            handle: "ada".to_owned(),
            version: 1,
            read_receipts: true,
            devices: vec![device],
        };
        let mut id = MessageId([0; 16]);
        id.0[6] = 0x70;
        id.0[8] = 0x80;
        let send = ValidSend { id, recipient: account, content: Content::text("hi"), seen: Stamp(0) };
        let connection = ConnectionId(1);
        let send = Command::Send(SendCommand { connection, account, device, number: 1, send: Ok(send) });
        let fact = Command::Facts { facts, ticket: None };
        (0..filler).map(|_| fact.clone()).chain([fact.clone(), send]).collect()
    }

    /// What both threads end with, and what was released and whether it was durable then.
    type Run = (Result<(), StoreError>, Result<(), StoreError>, Vec<(bool, Effect)>);

    /// Runs one turn with so many commands beside the send.
    fn run(fail: bool, filler: u64) -> Run {
        let metrics = Arc::new(Metrics::new());
        let committed = Arc::new(AtomicBool::new(false));
        let outbox = Watched { committed: committed.clone(), fail, ..Watched::default() };
        let state = State::new(Origin(1), Recovered::default());
        let log = Log { committed, ..Log::default() };
        let clock = Arc::new(|| 1_000);
        let Parts { sequencer, committer, handle } =
            Sequencer::parts(state, Box::new(outbox), Box::new(log.clone()), clock, metrics);
        handle.submit_blocking(commands(filler)).unwrap();
        drop(handle);
        let (decided, committed) = (sequencer.run(), committer.run());
        let effects = log.effects.lock().unwrap().clone();
        (decided, committed, effects)
    }

    #[test]
    fn effects_leave_after_the_sync() {
        for filler in [0, COMMIT_ALONE_COMMANDS_MAX] {
            let (decided, committed, effects) = run(false, filler);
            assert_eq!((decided, committed), (Ok(()), Ok(())));
            assert!(matches!(effects[..], [(true, Effect::Accepted { .. })]), "{effects:?}");
        }
    }

    #[test]
    fn a_failed_sync_ends_the_thread_that_asked_for_it_and_releases_nothing() {
        let (decided, committed, effects) = run(true, 0);
        assert!(decided.is_err(), "one that is alone commits itself");
        assert_eq!((committed, effects), (Ok(()), vec![]));
        let (decided, committed, effects) = run(true, COMMIT_ALONE_COMMANDS_MAX);
        assert_eq!((decided, effects), (Ok(()), vec![]));
        assert!(committed.is_err(), "a large turn is handed over");
    }
}
