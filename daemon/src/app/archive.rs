//! The archive of the running daemon: its file, the thread that writes it, and how both end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use quail_core::ports::directory::Directory;
use quail_core::ports::outbox::StoreError;
use quail_protocol::id::{Origin, Position};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::DataPaths;
use super::origin::Lineage;
use crate::adapters::outbox::ArchiveReader;
use crate::adapters::sqlite::archive::SqliteArchive;
use crate::archive::dead::DeadLetters;
use crate::archive::{self, JournalEvent, Source, Stop, Taken, Writer, WriterParts};
use crate::config::Config;
use crate::delivery::Delivery;
use crate::gateway::Unread;
use crate::ops::metrics::Metrics;
use crate::query::History;
use crate::sequencer::SequencerHandle;

/// How long the writer may take for what is in the journal when the daemon stops. The next start takes the rest.
const DRAIN: Duration = Duration::from_secs(3);

/// Opens the archive, if it is on.
pub(super) async fn open(config: &Config, paths: &DataPaths) -> anyhow::Result<Option<SqliteArchive>> {
    if !config.storage.archive {
        return Ok(None);
    }
    let archive = SqliteArchive::open(&paths.archive_file()).await.context("open the archive")?;
    Ok(Some(archive))
}

/// The archive with its writer.
pub(super) struct RunningArchive {
    archive: SqliteArchive,
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
    dead: DeadLetters,
    /// Up to where it is.
    archived: watch::Receiver<Position>,
    origin: Origin,
    unread: Arc<Unread>,
}

/// Starts the writer. `ended` is cancelled when it has ended, however it did.
pub(super) fn start(
    archive: SqliteArchive,
    (lineage, archived, reader): (Lineage, Position, ArchiveReader),
    metrics: Arc<Metrics>,
    delivery: Arc<Delivery>,
    ended: &CancellationToken,
) -> anyhow::Result<RunningArchive> {
    let ancestors = lineage.ancestors.iter().map(|ancestor| (ancestor.origin, ancestor.inherited));
    let lineage = archive::Lineage { origin: lineage.origin, ancestors: ancestors.collect() };
    let dead = DeadLetters::new(Arc::new(archive.clone()), lineage.clone());
    let (stop, origin) = (Arc::new(Stop::default()), lineage.origin);
    let (told, progress) = watch::channel(archived);
    let unread = Arc::new(Unread::new(delivery));
    let noted = unread.clone();
    let writer = Writer::new(WriterParts {
        source: Journal { reader, told },
        archive: Arc::new(archive.clone()),
        lineage,
        archived,
        runtime: Handle::current(),
        metrics,
        stop: stop.clone(),
        changed: Box::new(move |batch| noted.changed(batch)),
    });
    let ended = ended.clone().drop_guard();
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
        writer.run();
        drop(ended);
    });
    let thread = thread.context("start the archive's thread")?;
    Ok(RunningArchive { archive, stop, thread, dead, archived: progress, origin, unread })
}

impl RunningArchive {
    /// Returns what the operator may do with dead letters.
    pub(super) fn dead(&self) -> DeadLetters {
        self.dead.clone()
    }

    /// Returns what tells devices how much is unread, until it is asked to stop.
    pub(super) fn tell_unread(
        &self,
        sequencer: SequencerHandle,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (unread, archive) = (self.unread.clone(), Arc::new(self.archive.clone()));
        async move { unread.tell_until(archive, sequencer, stop).await }
    }

    /// Returns who answers questions of history.
    pub(super) fn history(&self, directory: Arc<dyn Directory>, metrics: Arc<Metrics>) -> History {
        let (archive, archived) = (Arc::new(self.archive.clone()), self.archived.clone());
        History { archive, directory, origin: self.origin, archived, metrics }
    }

    /// Lets the writer take what is there, for a while, and closes the file.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.ask(DRAIN);
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        anyhow::ensure!(joined.context("wait for the archive's thread")?, "the archive's thread panicked");
        self.archive.close().await;
        Ok(())
    }
}

/// The journal as the writer reads it.
struct Journal {
    reader: ArchiveReader,
    /// Is told what the journal is told.
    told: watch::Sender<Position>,
}

impl Source for Journal {
    fn next(&mut self, bytes_max: usize, patience: Duration) -> Result<Taken, StoreError> {
        let tailed = self.reader.next(bytes_max, patience)?;
        let events = tailed.events.into_iter();
        let events = events.map(|tailed| JournalEvent { event: tailed.event, accounts: tailed.accounts });
        Ok(Taken { events: events.collect(), upto: tailed.upto })
    }

    fn archived(&self, upto: Position) {
        self.reader.archived(upto);
        self.told.send_replace(upto);
    }

    fn last_position(&self) -> Position {
        self.reader.last_position()
    }
}
