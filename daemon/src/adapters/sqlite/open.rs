//! Opening the file: its rights, its connections, its schema.
//!
//! Invariants: the file is readable by its owner only, since it holds password hashes, and SQLite gives its side files
//! the same rights; a schema this daemon does not know is never touched.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::SqliteDirectory;

/// How many reads run at once; each connection is a thread. A read takes well under a millisecond.
pub(super) const READERS_MAX: u32 = 4;

/// How long a command waits for its turn on a connection. The gateway bounds how many wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long SQLite waits for another process, such as a backup, to let go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Rights of the file: its owner reads and writes.
const FILE_MODE: u32 = 0o600;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Why the directory's file cannot be used. All are for whoever runs the daemon to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirectoryError {
    /// The file can be neither opened nor created: rights, a missing folder, a full disk.
    #[error("create the directory file {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite does not accept the file: not a database, damaged, or held by another process.
    #[error("open the directory file {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// A newer daemon has worked with the file. Run that one, or restore the backup from before.
    #[error(
        "the directory file {path} has schema {version}, this quaild knows up to {known}: run the newer quaild or restore the backup made before it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's version.
        version: i64,
        /// The newest version this daemon knows.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("bring the schema of the directory file {path} up to date")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: MigrateError,
    },
}

impl SqliteDirectory {
    /// Opens the directory in the file at `path` and brings its schema up to date; creates it if it is not there. The
    /// folder must exist.
    ///
    /// # Errors
    /// See [`OpenDirectoryError`]; what the file holds is left as it was.
    pub async fn open(path: &Path) -> Result<Self, OpenDirectoryError> {
        let owned = || path.to_owned();
        create(path).await.map_err(|source| OpenDirectoryError::Create { path: owned(), source })?;
        let unopened = |source| OpenDirectoryError::Open { path: owned(), source };
        let writer = pool(1).connect_with(writer_options(path)).await.map_err(unopened)?;
        MIGRATIONS.run(&writer).await.map_err(|error| migrate_error(path, error))?;
        let readers = pool(READERS_MAX).connect_with(reader_options(path)).await.map_err(unopened)?;
        Ok(Self { writer, readers })
    }
}

/// Makes sure that the file is there, with its rights, even after power loss.
pub(super) async fn create(path: &Path) -> io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    options.open(path).await?.sync_all().await?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tokio::fs::File::open(folder).await?.sync_all().await
}

pub(super) fn pool(connections_max: u32) -> sqlx::pool::PoolOptions<sqlx::Sqlite> {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Connections to a file do not go stale.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

pub(super) fn writer_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

pub(super) fn reader_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // Not opened read-only: the first connection after a crash has to recover the write-ahead log.
        .pragma("query_only", "ON")
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

fn migrate_error(path: &Path, error: MigrateError) -> OpenDirectoryError {
    let path = path.to_owned();
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    match error {
        MigrateError::VersionMissing(version) if version > known => {
            OpenDirectoryError::Newer { path, version, known }
        }
        source => OpenDirectoryError::Migrate { path, source },
    }
}
