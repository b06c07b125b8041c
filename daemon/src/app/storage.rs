//! The directory as it is configured: in the data directory's own file, or in a database of the network.
//!
//! A data directory belongs to one directory of accounts for ever. The number of its origin was given by that one, and so were
//! the ids of everybody whose messages wait in it; in another one the same number may be somebody else's. So the data
//! directory remembers which one it is (`directory.id`), and a start with another one is refused.
//!
//! A server that is away is waited for: it may start at the same time as this daemon, and nobody is let in before. What
//! waiting cannot mend ends the start at once.
//!
//! Invariant: `directory.id` is written before the first origin number is asked for.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quail_core::ports::directory::Administration;
use uuid::Uuid;

use super::DataPaths;
use crate::adapters::postgres::{
    PostgresDirectory, PostgresError, PostgresOptions, PostgresPlace, Secret, TlsMode,
};
use crate::adapters::sql::schema::DueMigration;
use crate::adapters::sqlite::SqliteDirectory;
use crate::config::{PostgresTls, PostgresUrl, Storage, StorageUrl};
use crate::ops::files::write_atomically;

/// First line of the file `directory.id`.
const HEAD: &str = "quail-directory 1";

/// Largest password file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The first and the longest pause between two tries to reach a server.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Which kind of directory a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryKind {
    Sqlite,
    Postgres,
}

/// Why the directory cannot be used that is configured. The operator has to act on each.
#[derive(Debug, thiserror::Error)]
pub(super) enum StorageError {
    /// The data directory began with another one.
    #[error(
        "the data directory {} belongs to a directory of accounts in {was}, and storage.url names another one, in {is}",
        data.display()
    )]
    Other {
        /// The data directory.
        data: PathBuf,
        /// Which one it belongs to.
        was: String,
        /// Which one was found.
        is: String,
    },
    /// The file that says which one it belongs to is not what a daemon writes.
    #[error("{} does not begin with \"{HEAD}\" and the id of a directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The password cannot be had.
    #[error("read the password file {}: {reason}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl StorageError {
    /// Returns the operator's next step.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Other { .. } => {
                "point storage.url back to the one it began with, or begin an empty data directory with --data; accounts and what waits for them do not move between directories"
            }
            Self::Damaged { .. } => "restore the file from a backup of the data directory",
            Self::PasswordFile { .. } => {
                "see that storage.password_file holds the password and nothing else, and that the daemon's user may read it"
            }
        }
    }
}

/// Opens the directory, brings its schema up to date and makes sure that it is the one of this data directory. As long as a
/// server is away, `waits` is told why, and it is tried again.
///
/// # Errors
/// Whatever waiting does not mend.
pub(super) async fn open(
    storage: &Storage,
    paths: &DataPaths,
    waits: impl Fn(String),
) -> anyhow::Result<Arc<dyn Administration>> {
    check_kind(paths, kind(storage))?;
    match &storage.url {
        StorageUrl::Sqlite => {
            let directory = SqliteDirectory::open(&paths.directory_file()).await?;
            belong(paths, DirectoryKind::Sqlite, directory.identity())?;
            Ok(Arc::new(directory))
        }
        StorageUrl::Postgres(url) => {
            let options = postgres(storage, url)?;
            let was = read(&paths.directory_id())?;
            let Some(directory) = reach(&options, was.is_none(), waits).await? else {
                let was = was.map(|(kind, id)| format!("{kind} ({id})")).unwrap_or_default();
                let is = format!("{}, which is empty", DirectoryKind::Postgres);
                return Err(StorageError::Other { data: paths.root().to_owned(), was, is }.into());
            };
            belong(paths, DirectoryKind::Postgres, directory.identity())?;
            tracing::info!(at = %options.place, "the directory is in Postgres");
            Ok(Arc::new(directory))
        }
    }
}

/// Returns which kind of directory is configured.
pub(super) fn kind(storage: &Storage) -> DirectoryKind {
    match storage.url {
        StorageUrl::Sqlite => DirectoryKind::Sqlite,
        StorageUrl::Postgres(_) => DirectoryKind::Postgres,
    }
}

/// Returns how a server is used.
///
/// # Errors
/// `PasswordFile`.
pub(super) fn postgres(storage: &Storage, url: &PostgresUrl) -> Result<PostgresOptions, StorageError> {
    let tls = match url.tls {
        PostgresTls::Disable => TlsMode::Disable,
        PostgresTls::Prefer => TlsMode::Prefer,
        PostgresTls::Require => TlsMode::Require,
        PostgresTls::VerifyCa => TlsMode::VerifyCa,
        PostgresTls::VerifyFull => TlsMode::VerifyFull,
    };
    let place = PostgresPlace {
        host: url.host.clone(),
        port: url.port,
        user: url.user.clone(),
        database: url.database.clone(),
        tls,
        root_certificate: url.root_certificate.clone(),
    };
    Ok(PostgresOptions {
        place,
        password: password(storage)?,
        connections: storage.connections,
        statement_timeout: storage.statement_timeout,
    })
}

/// Returns the password that is configured, if there is one.
///
/// # Errors
/// `PasswordFile`.
pub(super) fn password(storage: &Storage) -> Result<Option<Secret>, StorageError> {
    let Some(path) = &storage.password_file else { return Ok(None) };
    let failed = |reason: String| StorageError::PasswordFile { path: path.clone(), reason };
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > PASSWORD_BYTES_MAX {
        return Err(failed(format!("it has more than {PASSWORD_BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    // An editor ends the line; a password that ends with a line end there is none.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    Ok(Some(Secret(password.to_owned())))
}

/// Opens the directory as soon as its server is there. `None` if there is none yet and none `may_begin`: a data directory that
/// belongs to one would only make a second one there.
async fn reach(
    options: &PostgresOptions,
    may_begin: bool,
    waits: impl Fn(String),
) -> Result<Option<PostgresDirectory>, PostgresError> {
    let mut pause = RETRY_MIN;
    loop {
        let attempt = async {
            let begins = |due: &DueMigration| due.version == 1;
            if !may_begin && PostgresDirectory::due(options).await?.iter().any(begins) {
                return Ok(None);
            }
            PostgresDirectory::open(options).await.map(Some)
        };
        match attempt.await {
            Err(error) if error.is_temporary() => {
                tracing::warn!(%error, hint = error.hint(), "the directory is not there yet, trying again");
                waits(error.to_string());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            opened => return opened,
        }
    }
}

/// Refuses a directory of another kind than the data directory's, before anything is opened or made.
fn check_kind(paths: &DataPaths, kind: DirectoryKind) -> Result<(), StorageError> {
    let was = match read(&paths.directory_id())? {
        Some((was, _)) => was,
        // Before there was a choice, there was no file.
        None if has_begun(paths) => DirectoryKind::Sqlite,
        None => kind,
    };
    if was == kind {
        return Ok(());
    }
    let data = paths.root().to_owned();
    Err(StorageError::Other { data, was: was.to_string(), is: kind.to_string() })
}

/// Makes sure that the data directory belongs to a directory; a new one does from now on.
fn belong(paths: &DataPaths, kind: DirectoryKind, identity: [u8; 16]) -> anyhow::Result<()> {
    let (path, id) = (paths.directory_id(), Uuid::from_bytes(identity));
    match read(&path)? {
        Some((_, was)) if was == id => Ok(()),
        Some((was_kind, was)) => {
            let (was, is) = (format!("{was_kind} ({was})"), format!("{kind} ({id})"));
            Err(StorageError::Other { data: paths.root().to_owned(), was, is }.into())
        }
        None => Ok(write_atomically(&path, format!("{HEAD}\n{kind} {id}\n").as_bytes(), 0o600)?),
    }
}

fn has_begun(paths: &DataPaths) -> bool {
    paths.directory_file().exists() || paths.origins().exists() || paths.outbox().exists()
}

fn read(path: &Path) -> Result<Option<(DirectoryKind, Uuid)>, StorageError> {
    let damaged = || StorageError::Damaged { path: path.to_owned() };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(damaged()),
    };
    let line = text.strip_prefix(HEAD).map(str::trim).ok_or_else(damaged)?;
    let (kind, id) = line.split_once(' ').ok_or_else(damaged)?;
    let kinds = [DirectoryKind::Sqlite, DirectoryKind::Postgres];
    let kind = kinds.into_iter().find(|known| known.to_string() == kind).ok_or_else(damaged)?;
    Ok(Some((kind, id.parse().map_err(|_| damaged())?)))
}

impl fmt::Display for DirectoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn storage(password_file: PathBuf) -> Storage {
        Storage {
            url: StorageUrl::Sqlite,
            password_file: Some(password_file),
            connections: 1,
            statement_timeout: Duration::from_secs(1),
            archive: true,
        }
    }

    #[test]
    fn a_data_directory_stays_with_its_directory() {
        let data = TempDir::new().unwrap();
        let paths = DataPaths::new(data.path());
        for kind in [DirectoryKind::Sqlite, DirectoryKind::Postgres] {
            check_kind(&paths, kind).unwrap();
        }
        for _ in 0..2 {
            belong(&paths, DirectoryKind::Postgres, [7; 16]).unwrap();
        }
        check_kind(&paths, DirectoryKind::Postgres).unwrap();
        let error = check_kind(&paths, DirectoryKind::Sqlite).unwrap_err();
        assert!(
            error.to_string().contains("in postgres, and storage.url names another one, in sqlite"),
            "{error}"
        );
        let error = belong(&paths, DirectoryKind::Postgres, [8; 16]).unwrap_err();
        assert!(
            error.to_string().contains("07070707-") && error.to_string().contains("08080808-"),
            "{error}"
        );
    }

    #[test]
    fn one_from_before_there_was_a_choice_belongs_to_its_own_file() {
        let data = TempDir::new().unwrap();
        let paths = DataPaths::new(data.path());
        fs::write(paths.origins(), "").unwrap();
        check_kind(&paths, DirectoryKind::Postgres).unwrap_err();
        check_kind(&paths, DirectoryKind::Sqlite).unwrap();
        belong(&paths, DirectoryKind::Sqlite, [7; 16]).unwrap();
        assert_eq!(
            read(&paths.directory_id()).unwrap(),
            Some((DirectoryKind::Sqlite, Uuid::from_bytes([7; 16])))
        );
    }

    #[test]
    fn a_file_that_no_daemon_wrote_is_refused() {
        let data = TempDir::new().unwrap();
        let path = data.path().join("directory.id");
        for text in ["", "quail-directory 1\n", "quail-directory 1\nmysql 0", "quail-directory 1\nsqlite x\n"]
        {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(StorageError::Damaged { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_password_file_holds_a_password_and_perhaps_a_line_end() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "two words \r\n").unwrap();
        assert_eq!(password(&storage(path.clone())).unwrap(), Some(Secret("two words ".to_owned())));
        for text in [String::new(), "\n".to_owned(), "x".repeat(5000)] {
            fs::write(&path, text).unwrap();
            password(&storage(path.clone())).unwrap_err();
        }
        let error = password(&storage(folder.path().join("none"))).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
