//! `quaild migrate`: the schema of directory and archive, told or brought up to date without serving.
//!
//! A start does the same. The command is for those who want to know beforehand, and for databases in which the daemon's own
//! user may not change the schema.
//!
//! Invariant: with `--dry-run` nothing is changed or made.

use clap::Args;

use super::data_dir::{DataDir, DataPaths};
use super::{block_on, print, storage};
use crate::adapters::postgres::PostgresDirectory;
use crate::adapters::sql::schema::DueMigration;
use crate::adapters::sqlite::SqliteDirectory;
use crate::adapters::sqlite::archive::SqliteArchive;
use crate::config::{Config, StorageUrl};

const EXAMPLES: &str = "\
Examples:
  quaild migrate --dry-run                                    see what an upgrade would do
  QUAIL_STORAGE_URL=postgres://owner@db/quail quaild migrate  do it as a user who may

Exit code 0: the schema is up to date, or with --dry-run could be looked at. 1: it could not. 2: wrong usage.";

/// Bring the schema of directory and archive up to date, as the next start would
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub(super) struct Migrate {
    /// Say what would be applied, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Runs the command.
pub(super) fn run(config: &Config, command: &Migrate) -> anyhow::Result<()> {
    let mut due = Vec::new();
    block_on(async {
        due = if command.dry_run { look(config).await? } else { apply(config).await? };
        Ok(())
    })?;
    print(&told(&due, command.dry_run))
}

async fn look(config: &Config) -> anyhow::Result<Vec<DueMigration>> {
    let storage = &config.storage;
    Ok(match &storage.url {
        StorageUrl::Sqlite => sqlite(config, &DataPaths::new(&config.data.directory)).await?,
        StorageUrl::Postgres(url) => PostgresDirectory::due(&storage::postgres(storage, url)?).await?,
    })
}

async fn apply(config: &Config) -> anyhow::Result<Vec<DueMigration>> {
    let storage = &config.storage;
    match &storage.url {
        StorageUrl::Sqlite => {
            // Its lock stands for the one of the file.
            let data = DataDir::open(&config.data.directory)?;
            let due = sqlite(config, data.paths()).await?;
            SqliteDirectory::open(&data.paths().directory_file()).await?.close().await;
            if storage.archive {
                SqliteArchive::open(&data.paths().archive_file()).await?.close().await;
            }
            Ok(due)
        }
        StorageUrl::Postgres(url) => Ok(PostgresDirectory::migrate(&storage::postgres(storage, url)?).await?),
    }
}

/// Returns what is due in the files of a data directory. In Postgres directory and archive are one schema.
async fn sqlite(config: &Config, paths: &DataPaths) -> anyhow::Result<Vec<DueMigration>> {
    let mut due = SqliteDirectory::due(&paths.directory_file()).await?;
    if config.storage.archive {
        due.extend(SqliteArchive::due(&paths.archive_file()).await?);
    }
    Ok(due)
}

fn told(due: &[DueMigration], is_dry: bool) -> String {
    if due.is_empty() {
        return "The schema of directory and archive is up to date.\n".to_owned();
    }
    let done = if is_dry { "would apply" } else { "applied" };
    due.iter().map(|one| format!("{done} {:04} {}\n", one.version, one.description)).collect()
}
