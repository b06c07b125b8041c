//! The engine: opens journal and settled store, puts them together, and is the outbox of the sequencer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quail_core::OUTBOX_AGE_MAX;
use quail_core::ports::outbox::{BacklogReader, Batch, Outbox, Recovered, Room, StoreError, Syncer};
use quail_protocol::id::{AccountId, Origin, Position, Stamp};

use super::archive::ArchiveReader;
use super::ballast::Ballast;
use super::journal::{Journal, JournalKeeper, JournalSyncer};
use super::read::{EngineReader, stamp_of};
use super::room::{Gauge, Limits};
use super::spill::{EXPIRE_EVERY, Progress, SPILL_BYTES, Spiller, Watch};
use super::table::Table;
use super::types::{ReadSettled, Settled, Sizes};
use crate::ops::clock::unix_ms;
use crate::ops::failpoint::setting;
use crate::ops::metrics::Metrics;

/// How often who waits for a spill looks whether it is still coming.
const SETTLE_LOOK: Duration = Duration::from_millis(100);

/// What an outbox is opened with.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// What may wait.
    pub limits: Limits,
    /// Up to where an archive that reads along has everything; segments wait for it, too, then. `None` without an archive.
    pub archived: Option<Position>,
    /// How old an event may become.
    pub age_max: Duration,
    /// How often it is looked for what is older.
    pub expire_every: Duration,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        let default = |variable, usual: Duration| setting(variable, usual.as_millis() as u64);
        Self {
            limits: Limits::default(),
            archived: None,
            age_max: Duration::from_millis(default("QUAIL_OUTBOX_AGE_MS", OUTBOX_AGE_MAX)),
            expire_every: Duration::from_millis(default("QUAIL_EXPIRE_EVERY_MS", EXPIRE_EVERY)),
        }
    }
}

/// What was found when an outbox was opened.
pub struct Opened {
    /// The outbox.
    pub engine: OutboxEngine,
    /// What it holds.
    pub recovered: Recovered,
    /// Where the settled store is that has lost what nobody knows whose it was: this must become a new origin. It was mended
    /// and is still in its place, or it was beyond that and was set aside.
    pub set_aside: Option<PathBuf>,
}

/// Another origin's events under this one's name: what a restored or set aside outbox still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// This origin.
    pub origin: Origin,
    /// Events up to here were accepted under another.
    pub inherited: Position,
}

/// What all threads of an outbox share.
pub(super) struct Shared {
    table: Mutex<Table>,
    pub(super) settled: Arc<dyn ReadSettled>,
    journal: JournalKeeper,
    pub(super) gauge: Gauge,
    pub(super) watch: Watch,
    pub(super) metrics: Arc<Metrics>,
    limits: Limits,
    age_max: Duration,
    path: PathBuf,
    ballast: Ballast,
    /// Whether an archive reads along.
    is_archiving: bool,
    /// Up to where it has.
    pub(super) archived: AtomicU64,
    /// Number of the last batch that journal and table have. Beside the table, whose lock the sequencer holds while it appends: the
    /// committer must not wait for that.
    appended: AtomicU64,
    adopted: OnceLock<Adopted>,
    expired: OnceLock<Expired>,
}

/// Where to say who is to be told that events are too old.
pub struct Expiry(Arc<Shared>);

impl Expiry {
    /// Says it, once.
    pub fn tell(&self, expired: Expired) {
        // A second word would be a fault of the caller; the first one stands.
        let _ = self.0.expired.set(expired);
    }
}

/// Tells who decides that events of an account, up to a position, are too old.
pub type Expired = Box<dyn Fn(AccountId, Position) + Send + Sync>;

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // A panic of a thread that held it ends the process; until then the table is whole between two entries.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn adopted(&self) -> Option<Adopted> {
        self.adopted.get().copied()
    }

    /// Gives back what the journal need not hold any longer.
    pub(super) fn journal_release(&self) -> Result<(), StoreError> {
        let generation = self.table().mark.generation;
        let archived = self.is_archiving.then(|| Position(self.archived.load(Ordering::Relaxed)));
        self.journal.release(generation, archived)?;
        self.show();
        Ok(())
    }

    /// Keeps a spare segment ready. A failure is no matter: who needs one makes it, or fails then.
    pub(super) fn journal_spare(&self) {
        if let Err(error) = self.journal.prepare_spare() {
            tracing::warn!(%error, "cannot prepare a segment of the journal");
        }
    }

    /// Looks at the free space and tells who wants to know.
    pub(super) fn measure_disk(&self) {
        match self.gauge.measure(&self.path, &self.limits) {
            Ok((changed, full)) => {
                self.metrics.outbox.disk_full.set(full.into());
                if changed && full {
                    tracing::error!(path = %self.path.display(), "disk is full: refusing new messages until there is space");
                } else if changed {
                    tracing::info!("disk has space again: taking new messages");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot ask for the free space of the disk"),
        }
        if let Err(error) = self.ballast.restore(&self.path) {
            tracing::warn!(%error, "cannot restore the ballast");
        }
        self.show();
    }

    pub(super) fn measure_settled(&self, sizes: Sizes) {
        self.metrics.outbox.settled_disk_bytes.set(sizes.disk_bytes as i64);
        self.metrics.outbox.settled_live_bytes.set(sizes.live_bytes as i64);
    }

    /// Tells what is older than an outbox holds.
    pub(super) fn expire(&self, settled: &dyn Settled) {
        let Some(expired) = self.expired.get() else { return };
        let oldest_ms = unix_ms().saturating_sub(self.age_max.as_millis() as u64);
        for (account, upto) in settled.older_than(Stamp::from_ms(oldest_ms)) {
            expired(account, upto);
        }
    }

    /// Shows how old the oldest event is, wherever it is.
    pub(super) fn measure_oldest(&self, settled: Option<Stamp>) {
        let oldest = settled.or_else(|| self.table().oldest().and_then(|event| stamp_of(&event)));
        let age = oldest.map_or(0, |stamp| unix_ms().saturating_sub(stamp.unix_ms()));
        self.metrics.outbox.oldest_unacknowledged_seconds.set(Duration::from_millis(age).as_secs_f64());
    }

    /// Brings the gauge and the metrics up to date. While nothing new is taken nobody appends, so room that was made would
    /// not be seen otherwise.
    fn show(&self) {
        let (bytes, since) = {
            let table = self.table();
            (table.bytes(), table.since)
        };
        let unarchived = self.journal.unarchived_bytes();
        self.gauge.unsettled_bytes.store(bytes as u64, Ordering::Relaxed);
        self.gauge.unarchived_bytes.store(unarchived, Ordering::Relaxed);
        let metrics = &self.metrics.outbox;
        metrics.unsettled_bytes.set(bytes as i64);
        metrics.unarchived_bytes.set(unarchived as i64);
        metrics.journal_bytes.set(self.journal.disk_bytes() as i64);
        metrics.spill_lag_seconds.set(since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
    }
}

/// The outbox on journal and settled store.
pub struct OutboxEngine {
    shared: Arc<Shared>,
    journal: Journal,
    spiller: Option<JoinHandle<()>>,
}

/// Parts of an outbox that were opened.
pub(super) struct Parts {
    pub(super) journal: Journal,
    pub(super) table: Table,
    pub(super) settled: Box<dyn Settled>,
}

impl OutboxEngine {
    /// Puts opened parts together and starts the spill thread.
    pub(super) fn assemble(
        path: &Path,
        parts: Parts,
        options: &OutboxOptions,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let Parts { journal, table, settled } = parts;
        let replayed = table.last_batch;
        let shared = Arc::new(Shared {
            table: Mutex::new(table),
            settled: settled.reader(),
            journal: journal.keeper(),
            gauge: Gauge::default(),
            watch: Watch::default(),
            metrics,
            limits: options.limits,
            age_max: options.age_max,
            path: path.to_owned(),
            ballast: Ballast::of(path),
            is_archiving: options.archived.is_some(),
            archived: AtomicU64::new(options.archived.unwrap_or(Position::ZERO).0),
            appended: AtomicU64::new(replayed),
            adopted: OnceLock::new(),
            expired: OnceLock::new(),
        });
        // What was replayed lies synced in fresh segments.
        shared.watch.synced(replayed);
        shared.measure_disk();
        shared.measure_settled(settled.sizes());
        let spiller = Spiller {
            shared: shared.clone(),
            settled,
            looked_for_oldest: None,
            looked_for_expired: Instant::now(),
            expire_every: options.expire_every,
        };
        let spiller = std::thread::Builder::new().name("spill".to_owned()).spawn(move || spiller.run())?;
        Ok(Self { shared, journal, spiller: Some(spiller) })
    }

    /// Presents events up to a position, which another origin accepted, as this origin's. To be said once, before the first
    /// reader is made.
    pub fn adopt(&self, adopted: Adopted) {
        // A second word would be a fault of the caller; the first one stands.
        let _ = self.shared.adopted.set(adopted);
    }

    /// Returns where to say who is to be told that events are too old. It outlives the outbox.
    pub fn expiry(&self) -> Expiry {
        Expiry(self.shared.clone())
    }

    /// Returns a reader of the journal for the archive; `None` unless the outbox was opened for one.
    pub fn archive(&self) -> Option<ArchiveReader> {
        let after = Position(self.shared.archived.load(Ordering::Relaxed));
        self.shared
            .is_archiving
            .then(|| ArchiveReader::new(self.shared.journal.tail(after), self.shared.clone()))
    }

    /// As [`archive`](Self::archive), but from a position on: what this outbox was before may have been archived further than
    /// this one goes. To be said before the first reader is made.
    pub fn archive_from(&self, after: Position) -> Option<ArchiveReader> {
        self.shared.archived.store(after.0, Ordering::Relaxed);
        self.archive()
    }

    /// Returns the memory held by events that are not settled yet, in bytes.
    pub fn unsettled_bytes(&self) -> u64 {
        self.shared.gauge.unsettled_bytes.load(Ordering::Relaxed)
    }

    /// Returns what tells whether so much waits that new messages are better not read for a while. It outlives the outbox.
    pub fn back_pressure(&self) -> Arc<dyn Fn() -> bool + Send + Sync> {
        let shared = self.shared.clone();
        Arc::new(move || shared.gauge.is_backed_up(&shared.limits))
    }

    /// Returns what tells whether the disk is full, so that new messages are refused. It outlives the outbox.
    pub fn disk_full(&self) -> Arc<dyn Fn() -> bool + Send + Sync> {
        let shared = self.shared.clone();
        Arc::new(move || shared.gauge.is_disk_full())
    }

    /// Moves everything that is durable and not acknowledged into the settled store now, and waits until it is there.
    ///
    /// # Errors
    /// [`StoreError`]; the outbox is of no more use then.
    pub fn settle(&self) -> Result<(), StoreError> {
        let watch = &self.shared.watch;
        let before = watch.lock().spills;
        // One spill may be under way that began before; the one after it began later.
        for spills in [before + 1, before + 2] {
            watch.change(|progress| progress.wanted = true);
            let done = |progress: &Progress| progress.spills >= spills || progress.failed.is_some();
            while !done(&watch.lock()) {
                watch.wait(SETTLE_LOOK, done);
            }
        }
        self.failed().map_or(Ok(()), Err)
    }

    fn failed(&self) -> Option<StoreError> {
        self.shared.watch.lock().failed.clone()
    }
}

impl Outbox for OutboxEngine {
    fn append(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        if let Some(error) = self.failed() {
            return Err(error);
        }
        let mut table = self.shared.table();
        let appended = self.journal.append(table.generation, &batch)?;
        self.shared.metrics.outbox.journalled_bytes.inc_by(appended.bytes);
        table.apply(batch, appended.number, appended.bytes);
        self.shared.appended.store(appended.number, Ordering::Release);
        let bytes = table.bytes();
        let spill = bytes >= SPILL_BYTES && table.frozen.is_none();
        drop(table);
        if spill {
            self.shared.watch.change(|progress| progress.wanted = true);
        }
        let gauge = &self.shared.gauge;
        gauge.unsettled_bytes.store(bytes as u64, Ordering::Relaxed);
        gauge.unarchived_bytes.store(self.shared.journal.unarchived_bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn syncer(&self) -> Box<dyn Syncer> {
        Box::new(EngineSyncer { shared: self.shared.clone(), journal: self.journal.syncer() })
    }

    fn reader(&self) -> Arc<dyn BacklogReader> {
        Arc::new(EngineReader { shared: self.shared.clone() })
    }

    fn room(&self) -> Room {
        self.shared.gauge.room(&self.shared.limits)
    }
}

impl Drop for OutboxEngine {
    fn drop(&mut self) {
        self.shared.watch.change(|progress| progress.stop = true);
        if let Some(spiller) = self.spiller.take() {
            // It has said already why it failed, if it did.
            let _ = spiller.join();
        }
    }
}

/// Syncs the journal and tells the spill thread.
struct EngineSyncer {
    shared: Arc<Shared>,
    journal: JournalSyncer,
}

impl Syncer for EngineSyncer {
    fn sync(&mut self) -> Result<(), StoreError> {
        // Whatever was appended before this is covered.
        let appended = self.shared.appended.load(Ordering::Acquire);
        self.journal.sync()?;
        self.shared.watch.synced(appended);
        Ok(())
    }
}
