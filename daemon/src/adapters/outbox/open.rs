//! Opening: what the settled store holds, what the journal adds to it, and what of both was lost.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quail_core::ports::outbox::{Accounts, Batch, Entry, Recovered};
use smallvec::smallvec;

use super::ballast::Ballast;
use super::engine::{Opened, OutboxEngine, OutboxOptions, Parts};
use super::error::OpenOutboxError;
use super::journal::{self, Disk, JournalOptions, RealDisk, Replayed, ReplayedBatch};
use super::read::stand_in;
use super::recovery::Recovery;
use super::settled::{OpenSettledError, SettledOptions, SettledRecovered, SettledStore};
use super::table::Table;
use super::types::{Lost, Mark, Settled};
use crate::ops::clock::unix_ms;
use crate::ops::metrics::Metrics;

/// Most entries of lost stretches in one batch of the journal.
const STAND_INS_PER_BATCH: usize = 256;

impl OutboxEngine {
    /// Opens the outbox in the directory `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenOutboxError`].
    pub fn open(
        path: &Path,
        options: &OutboxOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Opened, OpenOutboxError> {
        let unusable = |error| OpenOutboxError::unusable(path, error);
        fs::create_dir_all(path).map_err(unusable)?;
        if Ballast::of(path).give_way(path).map_err(unusable)? {
            tracing::warn!(path = %path.display(), "the disk is full: gave up the ballast to open the outbox");
        }
        let (settled, found, set_aside) = open_settled(path)?;
        for repaired in &found.repaired {
            tracing::warn!(path = %path.display(), repaired, "repaired the settled store");
        }
        // Where nobody knows whose it was, only a new origin tells everybody.
        let is_anybodys = found.lost.iter().any(|lost| lost.account.is_none());
        let set_aside = set_aside.or_else(|| is_anybodys.then(|| path.join("settled")));
        let disk = RealDisk::new(&path.join("journal")).map_err(unusable)?;
        sync_names(path).map_err(unusable)?;
        let opened = Self::put_together(path, Arc::new(disk), Box::new(settled), found, options, metrics)?;
        Ok(Opened { set_aside, ..opened })
    }

    /// Replays the journal on top of a settled store.
    pub(super) fn put_together(
        path: &Path,
        disk: Arc<dyn Disk>,
        settled: Box<dyn Settled>,
        found: SettledRecovered,
        options: &OutboxOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Opened, OpenOutboxError> {
        let SettledRecovered { mark, recovered, lost, .. } = found;
        let mut replay = Replay::over(mark, Recovery::of(recovered));
        let stand_ins = replay.settled_lost(lost);
        let on_sync = metrics.fdatasync_seconds.clone();
        let options_of_journal = JournalOptions {
            archived: options.archived,
            on_sync: Arc::new(move |took| on_sync.observe(took.as_secs_f64())),
            ..JournalOptions::default()
        };
        let visit = &mut |batch: ReplayedBatch| replay.batch(batch);
        let opening = journal::open(disk, &options_of_journal, mark, visit);
        let (mut journal, replayed) = opening.map_err(|error| OpenOutboxError::journal(path, error))?;
        for damage in replayed.damage.iter().filter(|damage| damage.is_mended) {
            tracing::warn!(file = damage.file, what = damage.what, "mended the journal");
        }
        let Replay { mut recovery, mut table, losses } = replay;
        recovery.counted(replayed.last_position, replayed.last_stamp);
        table.begin(replayed.generation, replayed.last_number);
        metrics.outbox.lost.inc_by(stand_ins.len() as u64 + losses);
        let recovered = recovery.finish();
        if !stand_ins.is_empty() {
            // The settled store names what it has lost until the next spill, so by then it must be durable elsewhere.
            let Recovered { last_position, last_stamp, .. } = recovered;
            for entries in stand_ins.chunks(STAND_INS_PER_BATCH) {
                let batch = Batch { entries, last_position, last_stamp };
                let appended = journal.append(table.generation, &batch);
                let appended = appended.map_err(|error| OpenOutboxError::journal(path, error))?;
                table.apply(batch, appended.number, appended.bytes);
            }
            let synced = journal.syncer().sync();
            synced.map_err(|error| OpenOutboxError::journal(path, error))?;
        }
        let parts = Parts { journal, table, settled };
        let engine = Self::assemble(path, parts, options, metrics);
        let engine = engine.map_err(|error| OpenOutboxError::unusable(path, error))?;
        Ok(Opened { engine, recovered, set_aside: None })
    }
}

/// Puts a journal on top of a settled store.
struct Replay {
    recovery: Recovery,
    table: Table,
    /// How often something was lost from the journal.
    losses: u64,
}

impl Replay {
    fn over(mark: Mark, recovery: Recovery) -> Self {
        Self { recovery, table: Table::new(mark, mark.generation + 1), losses: 0 }
    }

    /// Returns what stands for what the settled store had lost, and lets the core know that there is something.
    fn settled_lost(&mut self, lost: Vec<Lost>) -> Vec<Entry> {
        let stand_in = |lost: Lost| {
            tracing::error!(from = %lost.from, upto = %lost.upto, what = lost.what, "lost from the settled store");
            let accounts = self.accounts_of(&lost);
            let entry = Entry::Event { event: Arc::new(stand_in(&lost)), accounts };
            self.recovery.apply(&entry);
            entry
        };
        lost.into_iter().map(stand_in).collect()
    }

    fn accounts_of(&self, lost: &Lost) -> Accounts {
        lost.account.map_or_else(|| self.recovery.accounts().into(), |account| smallvec![account])
    }

    fn batch(&mut self, batch: ReplayedBatch) {
        let ReplayedBatch { number, generation, last_position, last_stamp, entries, bytes } = batch;
        let mut whole = Vec::with_capacity(entries.len());
        for replayed in entries {
            match replayed {
                Replayed::Entry(entry) => {
                    self.recovery.apply(&entry);
                    whole.push(entry);
                }
                Replayed::Lost(lost) => {
                    tracing::error!(from = %lost.from, upto = %lost.upto, what = lost.what, "lost from the journal");
                    let accounts = self.accounts_of(&lost);
                    let entry = Entry::Event { event: Arc::new(stand_in(&lost)), accounts };
                    self.recovery.apply(&entry);
                    self.losses += 1;
                    whole.push(entry);
                }
            }
        }
        self.recovery.counted(last_position, last_stamp);
        self.table.generation = self.table.generation.max(generation);
        self.table.apply(Batch { entries: &whole, last_position, last_stamp }, number, bytes);
    }
}

/// Opens the settled store. One that cannot be mended is set aside, and an empty one takes its place.
fn open_settled(outbox: &Path) -> Result<(SettledStore, SettledRecovered, Option<PathBuf>), OpenOutboxError> {
    let path = outbox.join("settled");
    match SettledStore::open(&path, SettledOptions::default()) {
        Ok((store, found)) => Ok((store, found, None)),
        Err(OpenSettledError::Damaged { what: reason, .. }) => {
            let aside = outbox.join(format!("settled.damaged-{}", unix_ms()));
            tracing::error!(
                path = %path.display(), aside = %aside.display(), reason,
                "the settled store is damaged beyond repair: setting it aside and beginning a new origin"
            );
            fs::rename(&path, &aside).map_err(|error| OpenOutboxError::unusable(outbox, error))?;
            let (store, found) = SettledStore::open(&path, SettledOptions::default())
                .map_err(|error| OpenOutboxError::settled(outbox, error))?;
            Ok((store, found, Some(aside)))
        }
        Err(error) => Err(OpenOutboxError::settled(outbox, error)),
    }
}

/// Makes the names in the outbox directory, and its own, as durable as what will be written.
fn sync_names(path: &Path) -> io::Result<()> {
    let directories = [Some(path), path.parent().filter(|parent| !parent.as_os_str().is_empty())];
    directories.into_iter().flatten().try_for_each(|directory| File::open(directory)?.sync_all())
}
