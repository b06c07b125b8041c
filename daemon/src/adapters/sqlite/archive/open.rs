//! Opening the archive's file: its rights, its connections, its schema.
//!
//! Invariants: the file is readable by its owner only, since it holds everything that was written; a schema this daemon does not
//! know is never touched.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{ConnectOptions, Connection};

use super::SqliteArchive;
use crate::adapters::sql::schema::{self, DueMigration, SchemaError};
use crate::adapters::sqlite::open::{READERS_MAX, applied, create, pool, reader_options, writer_options};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite_archive");

/// Why the archive's file cannot be used. All are for whoever runs the daemon to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenArchiveError {
    /// The file can be neither opened nor created: rights, a missing folder, a full disk.
    #[error("create the archive file {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite does not accept the file: not a database, damaged, or held by another process.
    #[error("open the archive file {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// A newer daemon has worked with the file. Run that one, or restore the backup from before.
    #[error(
        "the archive file {path} has schema {version}, this quaild knows up to {known}: run the newer quaild or restore the backup made before it"
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
    #[error("bring the schema of the archive file {path} up to date")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: MigrateError,
    },
}

impl SqliteArchive {
    /// Opens the archive in the file at `path` and brings its schema up to date; creates it if it is not there. The folder must
    /// exist.
    ///
    /// # Errors
    /// See [`OpenArchiveError`]; what the file holds is left as it was.
    pub async fn open(path: &Path) -> Result<Self, OpenArchiveError> {
        let owned = || path.to_owned();
        create(path).await.map_err(|source| OpenArchiveError::Create { path: owned(), source })?;
        let unopened = |source| OpenArchiveError::Open { path: owned(), source };
        let writer = pool(1).connect_with(writer_options(path)).await.map_err(unopened)?;
        MIGRATIONS.run(&writer).await.map_err(|error| migrate_error(path, error))?;
        let readers = pool(READERS_MAX).connect_with(reader_options(path)).await.map_err(unopened)?;
        Ok(Self { writer, readers })
    }
}

impl SqliteArchive {
    /// Returns the migrations that are due in the file at `path`, and applies none; all of them if there is no file.
    ///
    /// # Errors
    /// `Open`, `Newer`, `Migrate`.
    pub async fn due(path: &Path) -> Result<Vec<DueMigration>, OpenArchiveError> {
        let mut known = Vec::new();
        if path.exists() {
            let unopened = |source| OpenArchiveError::Open { path: path.to_owned(), source };
            let mut connection = reader_options(path).connect().await.map_err(unopened)?;
            known = applied(&mut connection).await.map_err(unopened)?;
            connection.close().await.map_err(unopened)?;
        }
        schema::due(&MIGRATIONS, &known).map_err(|error| match error {
            SchemaError::Newer { version, known } => {
                OpenArchiveError::Newer { path: path.to_owned(), version, known }
            }
            SchemaError::Other { version } => {
                let source = MigrateError::VersionMismatch(version);
                OpenArchiveError::Migrate { path: path.to_owned(), source }
            }
        })
    }
}

fn migrate_error(path: &Path, error: MigrateError) -> OpenArchiveError {
    let path = path.to_owned();
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    match error {
        MigrateError::VersionMissing(version) if version > known => {
            OpenArchiveError::Newer { path, version, known }
        }
        source => OpenArchiveError::Migrate { path, source },
    }
}
