//! Opening the outbox: migration, engine, origin, and the state of the core that comes of them.

use std::sync::Arc;

use anyhow::Context;
use quail_core::ports::directory::Directory;
use quail_core::{Command, State};
use quail_protocol::id::{Origin, Position};

use super::DataPaths;
use super::archive::OpenArchive;
use super::migrate::migrate;
use super::origin::{Lineage, OriginFiles, Past};
use crate::adapters::outbox::{Adopted, ArchiveReader, Expiry, Limits, Opened, OutboxEngine, OutboxOptions};
use crate::config::Config;
use crate::ops::metrics::Metrics;
use crate::sequencer::SequencerHandle;

/// An outbox that is open, and what it makes of this daemon.
pub(super) struct OpenOutbox {
    pub(super) engine: OutboxEngine,
    pub(super) state: State,
    pub(super) origin: Origin,
    /// Whose journal it is, up to where that is archived, and what reads it along, where there is an archive.
    pub(super) archiving: Option<(Lineage, Position, ArchiveReader)>,
}

/// What is known of an outbox before it is opened.
pub(super) struct Known {
    past: Past,
    /// Up to where it is archived; `None` where there is no archive.
    archived: Option<Position>,
}

/// Finds out what has to be known before the outbox of a data directory is opened. It may wait long for an archive, and may be given up
/// at any moment.
pub(super) async fn look(
    paths: &DataPaths,
    directory: &dyn Directory,
    archive: Option<&OpenArchive>,
) -> anyhow::Result<Known> {
    let files = OriginFiles { outbox: paths.outbox(), history: paths.origins() };
    let past = Past::look(files, directory).await?;
    let archived = match archive {
        // What was here before there was an archive and is still in the journal is archived, too.
        Some(archive) => Some(archive.archived(past.found()).await?.unwrap_or(Position::ZERO)),
        None => None,
    };
    Ok(Known { past, archived })
}

/// Opens the outbox of a data directory.
pub(super) async fn open(
    config: &Config,
    paths: &DataPaths,
    directory: &dyn Directory,
    Known { past, archived }: Known,
    metrics: Arc<Metrics>,
) -> anyhow::Result<OpenOutbox> {
    let (path, options) = (paths.outbox(), OutboxOptions { archived, ..options(config) });
    let opening = tokio::task::spawn_blocking(move || -> anyhow::Result<Opened> {
        migrate(&path)?;
        Ok(OutboxEngine::open(&path, &options, metrics)?)
    });
    let Opened { engine, recovered, set_aside } = opening.await.context("open the outbox")??;
    let lineage = past.decide(recovered.last_position, set_aside.is_some(), directory).await?;
    let Lineage { origin, ancestors } = lineage.clone();
    let engine = if set_aside.is_some() {
        // A spill makes the store forget what it has lost; until then the next start would become one more origin.
        let settling = tokio::task::spawn_blocking(move || engine.settle().map(|()| engine));
        settling.await.context("settle the outbox")??
    } else {
        engine
    };
    if let Some(inherited) = ancestors.iter().map(|ancestor| ancestor.inherited).max() {
        engine.adopt(Adopted { origin, inherited });
    }
    // A backup that was restored does not go as far as the archive of what it was taken from.
    let archived = archived.unwrap_or(Position::ZERO).min(recovered.last_position);
    let archiving = engine.archive_from(archived).map(|reader| (lineage, archived, reader));
    tracing::info!(%origin, last_position = %recovered.last_position, unresolved = recovered.slots.len(), "outbox open");
    let state = State::new(origin, recovered).with_ancestors(ancestors);
    let state = state.with_delete_for_all(config.messages.delete_for_all);
    Ok(OpenOutbox { engine, state, origin, archiving })
}

/// Lets the outbox tell the core what is too old.
pub(super) fn watch_age(expiry: &Expiry, sequencer: &SequencerHandle) {
    let sequencer = sequencer.downgrade();
    expiry.tell(Box::new(move |account, upto| {
        sequencer.submit_blocking(vec![Command::Expire { account, upto }]);
    }));
}

fn options(config: &Config) -> OutboxOptions {
    let limits = &config.limits;
    let limits = Limits {
        unsettled_bytes: limits.unsettled,
        unarchived_bytes: limits.unarchived,
        free_bytes: limits.free_space,
    };
    OutboxOptions { limits, ..OutboxOptions::default() }
}
