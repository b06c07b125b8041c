//! The archive of the running daemon: its database, the thread that writes it, and how both end.
//!
//! It lies where the directory lies: in a file of the data directory, or in the directory's database of the network.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use quail_core::ports::archive::{ArchiveError, ReadArchive, WriteArchive};
use quail_core::ports::directory::Directory;
use quail_core::ports::outbox::StoreError;
use quail_protocol::id::{Origin, Position};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::origin::Lineage;
use super::{DataPaths, storage};
use crate::adapters::outbox::ArchiveReader;
use crate::adapters::postgres::archive::PostgresArchive;
use crate::adapters::sqlite::archive::SqliteArchive;
use crate::archive::dead::DeadLetters;
use crate::archive::{self, JournalEvent, Source, Stop, Taken, Writer, WriterParts};
use crate::config::{Config, StorageUrl};
use crate::delivery::Delivery;
use crate::gateway::Unread;
use crate::ops::metrics::Metrics;
use crate::query::History;
use crate::sequencer::SequencerHandle;

/// How long the writer may take for what is in the journal when the daemon stops. The next start takes the rest.
const DRAIN: Duration = Duration::from_secs(3);

/// How long those who read may keep the database from being closed when the daemon stops. Nothing is lost with them: the writer has
/// ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The first and the longest pause between two tries to ask an archive that is away.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long an archive that was opened may not answer before the start fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// An archive in either database.
#[derive(Clone)]
pub(super) enum OpenArchive {
    Sqlite(SqliteArchive),
    Postgres(PostgresArchive),
}

impl OpenArchive {
    fn writes(&self) -> Arc<dyn WriteArchive> {
        match self {
            Self::Sqlite(archive) => Arc::new(archive.clone()),
            Self::Postgres(archive) => Arc::new(archive.clone()),
        }
    }

    fn reads(&self) -> Arc<dyn ReadArchive> {
        match self {
            Self::Sqlite(archive) => Arc::new(archive.clone()),
            Self::Postgres(archive) => Arc::new(archive.clone()),
        }
    }

    async fn close(&self) {
        match self {
            Self::Sqlite(archive) => archive.close().await,
            Self::Postgres(archive) => archive.close().await,
        }
    }

    /// Returns up to where an origin is archived, as soon as the archive can tell: its server may have gone since it was opened.
    ///
    /// # Errors
    /// What waiting for a minute does not mend.
    pub(super) async fn archived(&self, origin: Origin) -> Result<Option<Position>, ArchiveError> {
        let (archive, mut pause, since) = (self.writes(), RETRY_MIN, Instant::now());
        loop {
            match archive.archived(origin).await {
                Err(error @ ArchiveError::Unavailable { .. }) if since.elapsed() < ANSWER_TIMEOUT => {
                    tracing::warn!(%error, "the archive does not answer yet, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                answered => return answered,
            }
        }
    }
}

/// Opens the archive, if it is on. As long as a server is away, `waits` is told why, and it is tried again.
pub(super) async fn open(
    config: &Config,
    paths: &DataPaths,
    waits: impl Fn(String),
) -> anyhow::Result<Option<OpenArchive>> {
    if !config.storage.archive {
        return Ok(None);
    }
    let file = paths.archive_file();
    Ok(Some(match &config.storage.url {
        StorageUrl::Sqlite => {
            OpenArchive::Sqlite(SqliteArchive::open(&file).await.context("open the archive")?)
        }
        StorageUrl::Postgres(url) => {
            if file.exists() {
                tracing::warn!(
                    file = %file.display(),
                    "the archive is in Postgres; what an earlier release wrote to this file is not used"
                );
            }
            let options = storage::postgres(&config.storage, url)?;
            let mut pause = RETRY_MIN;
            loop {
                match PostgresArchive::open(&options).await {
                    Err(error) if error.is_temporary() => {
                        tracing::warn!(%error, hint = error.hint(), "the archive is not there yet, trying again");
                        waits(error.to_string());
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                    opened => break OpenArchive::Postgres(opened.context("open the archive")?),
                }
            }
        }
    }))
}

/// The archive with its writer.
pub(super) struct RunningArchive {
    archive: OpenArchive,
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
    archive: OpenArchive,
    (lineage, archived, reader): (Lineage, Position, ArchiveReader),
    metrics: Arc<Metrics>,
    delivery: Arc<Delivery>,
    ended: &CancellationToken,
) -> anyhow::Result<RunningArchive> {
    let ancestors = lineage.ancestors.iter().map(|ancestor| (ancestor.origin, ancestor.inherited));
    let lineage = archive::Lineage { origin: lineage.origin, ancestors: ancestors.collect() };
    let dead = DeadLetters::new(archive.writes(), lineage.clone());
    let (stop, origin) = (Arc::new(Stop::default()), lineage.origin);
    let (told, progress) = watch::channel(archived);
    let unread = Arc::new(Unread::new(delivery));
    let noted = unread.clone();
    let writer = Writer::new(WriterParts {
        source: Journal { reader, told },
        archive: archive.writes(),
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
        let (unread, archive) = (self.unread.clone(), self.archive.reads());
        async move { unread.tell_until(archive, sequencer, stop).await }
    }

    /// Returns who answers questions of history.
    pub(super) fn history(&self, directory: Arc<dyn Directory>, metrics: Arc<Metrics>) -> History {
        let (archive, archived) = (self.archive.reads(), self.archived.clone());
        History { archive, directory, origin: self.origin, archived, metrics }
    }

    /// Lets the writer take what is there, for a while, and closes the database.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.ask(DRAIN);
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        anyhow::ensure!(joined.context("wait for the archive's thread")?, "the archive's thread panicked");
        if tokio::time::timeout(CLOSE_TIMEOUT, self.archive.close()).await.is_err() {
            tracing::warn!("the archive is still read, and is left open");
        }
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
