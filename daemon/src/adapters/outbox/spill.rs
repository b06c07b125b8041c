//! The spill thread: moves what is not acknowledged soon out of memory into the settled store.
//!
//! It freezes the fresh generation after a while or at a byte limit, waits until the journal has synced all of it, writes
//! what is still unacknowledged, and lets memory and journal go. It also keeps the things a journal and a disk need: a spare
//! segment, a look at the free space, a rotation of the settled store when it holds too much that is dead.
//!
//! Invariants: a spill begins only when every batch of its generation is durable in the journal, so a half-done spill is
//! superseded by the replay; a failed spill is final, and the process ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quail_core::ports::outbox::StoreError;

use super::engine::Shared;
use super::types::{Mark, Settled, Spill};
use crate::ops::failpoint::{is_held, reached, setting};

/// A generation is frozen when it is so old. Often enough that a restart has little to replay, and so seldom that its syncs,
/// which every answer meanwhile has to wait behind, are rare.
const SPILL_AFTER: Duration = Duration::from_secs(5);

/// ...or when its events take so many bytes of memory. The more events an account has in it, the fewer rows its backlog
/// takes, and a row costs more than an event: with half of this a backlog of many accounts took a third more time.
pub(super) const SPILL_BYTES: usize = 64 * 1024 * 1024;

/// ...or when the journal has taken so many bytes for it: what a restart has to read.
const SPILL_JOURNALLED_BYTES: u64 = 192 * 1024 * 1024;

/// How often the thread looks around when nobody wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often the oldest event is looked for: it takes a walk through an index.
const OLDEST_EVERY: Duration = Duration::from_secs(60);

/// How often events are looked for that are too old to be held.
pub(super) const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

/// How many accounts are taken out of the table under one hold of its lock.
const ACCOUNTS_PER_HOLD: usize = 256;

/// What others tell the spill thread, and what it tells them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of the last batch that the journal has synced.
    pub(super) synced: u64,
    /// Somebody waits for that.
    pub(super) awaited: bool,
    /// Somebody wants a spill now: the table is large.
    pub(super) wanted: bool,
    /// The engine is being dropped.
    pub(super) stop: bool,
    /// Why the thread has ended, if it failed.
    pub(super) failed: Option<StoreError>,
    /// How many spills were done.
    pub(super) spills: u64,
}

/// The progress of journal and spill, and those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Watch {
    pub(super) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the progress and wakes everybody who waits for it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Takes note of what is durable. Hardly ever does anybody wait for it, and waking nobody is cheap.
    pub(super) fn synced(&self, batch: u64) {
        let mut progress = self.lock();
        progress.synced = progress.synced.max(batch);
        let awaited = progress.awaited;
        drop(progress);
        if awaited {
            self.changed.notify_all();
        }
    }

    /// Waits until the progress is as wanted, at most so long.
    pub(super) fn wait(&self, patience: Duration, mut until: impl FnMut(&Progress) -> bool) {
        let waiting = |progress: &mut Progress| !until(progress);
        drop(self.changed.wait_timeout_while(self.lock(), patience, waiting));
    }
}

/// The thread's own things.
pub(super) struct Spiller {
    pub(super) shared: Arc<Shared>,
    pub(super) settled: Box<dyn Settled>,
    pub(super) looked_for_oldest: Option<Instant>,
    pub(super) looked_for_expired: Instant,
    pub(super) expire_every: Duration,
}

/// Returns the age at which a generation is frozen.
fn spill_after() -> Duration {
    Duration::from_millis(setting("QUAIL_SPILL_AFTER_MS", SPILL_AFTER.as_millis() as u64))
}

impl Spiller {
    /// Spills until the engine is dropped. Whatever is in memory then is in the journal, too, and stays there.
    pub(super) fn run(mut self) {
        let look_every = LOOK_EVERY.min(spill_after());
        let outcome = loop {
            let watch = &self.shared.watch;
            watch.wait(look_every, |progress| progress.stop || progress.wanted);
            let wanted = {
                let mut progress = watch.lock();
                if progress.stop {
                    break Ok(());
                }
                std::mem::take(&mut progress.wanted)
            };
            if let Err(error) = self.look(wanted) {
                break Err(error);
            }
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "the settled store failed");
            self.shared.watch.change(|progress| progress.failed = Some(error));
        }
    }

    /// Does what is due.
    fn look(&mut self, wanted: bool) -> Result<(), StoreError> {
        self.shared.measure_disk();
        self.shared.journal_spare();
        if (wanted || self.is_due()) && !is_held("QUAIL_SPILL_HELD") {
            self.spill()?;
            self.shared.watch.change(|progress| progress.spills += 1);
        }
        // Not only after a spill: a reader that met a damaged page waits for the copy that goes around it.
        if self.settled.rotate_if_grown()? {
            self.shared.metrics.outbox.rotations.inc();
            self.shared.measure_settled(self.settled.sizes());
        }
        if self.looked_for_expired.elapsed() >= self.expire_every {
            self.looked_for_expired = Instant::now();
            self.shared.expire(&*self.settled);
        }
        if self.looked_for_oldest.is_none_or(|at| at.elapsed() >= OLDEST_EVERY) {
            self.looked_for_oldest = Some(Instant::now());
            self.shared.measure_oldest(self.settled.oldest());
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let table = self.shared.table();
        table.since.is_some_and(|since| since.elapsed() >= spill_after())
            || table.bytes() >= SPILL_BYTES
            || table.journalled >= SPILL_JOURNALLED_BYTES
    }

    /// Moves the fresh generation into the settled store, if it holds anything.
    pub(super) fn spill(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let (mark, last_batch) = {
            let mut table = self.shared.table();
            let Some(mark) = table.freeze() else { return Ok(()) };
            (mark, table.last_batch)
        };
        reached("spill-frozen");
        if !self.wait_for_journal(last_batch) {
            return Ok(());
        }
        let spill = self.collect(mark);
        self.settled.spill(&spill)?;
        let done = self.shared.table().settled(mark);
        self.shared.gauge.unsettled_bytes.store(self.shared.table().bytes() as u64, Ordering::Relaxed);
        reached("spill-released");
        self.shared.journal_release()?;
        self.shared.metrics.outbox.spill_seconds.observe(began.elapsed().as_secs_f64());
        // Freeing many events takes a while; nobody waits for it here.
        drop((done, spill));
        self.shared.measure_settled(self.settled.sizes());
        Ok(())
    }

    /// Returns whether the journal has synced a batch; not if the engine stops first.
    fn wait_for_journal(&self, batch: u64) -> bool {
        let watch = &self.shared.watch;
        watch.lock().awaited = true;
        let synced = loop {
            watch.wait(LOOK_EVERY, |progress| progress.stop || progress.synced >= batch);
            let progress = watch.lock();
            if progress.synced >= batch || progress.stop {
                break progress.synced >= batch;
            }
        };
        watch.lock().awaited = false;
        synced
    }

    /// Takes what is left of the frozen generation, a few accounts at a time, so that the sequencer never waits long.
    fn collect(&self, mark: Mark) -> Spill {
        let mut spill = Spill { mark, ..Spill::default() };
        let accounts = {
            let table = self.shared.table();
            let Some(frozen) = &table.frozen else { return spill };
            spill.devices = frozen.devices();
            frozen.accounts()
        };
        for accounts in accounts.chunks(ACCOUNTS_PER_HOLD) {
            let table = self.shared.table();
            let Some(frozen) = &table.frozen else { return spill };
            spill.accounts.extend(accounts.iter().filter_map(|id| Some((*id, frozen.account(*id)?))));
        }
        if let Some(frozen) = &self.shared.table().frozen {
            spill.sends = frozen.sends();
        }
        spill
    }
}
