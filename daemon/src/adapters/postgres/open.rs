//! Reaching the server, and bringing the schema up to date.
//!
//! Invariants: the password is in no message, log line or debug output; a server that is too old, a standby and a schema that
//! this daemon does not know are refused before anything is changed; migrations run on one node at a time, under an advisory
//! lock of the database.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{AppliedMigration, Migrate, Migrator};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::PostgresDirectory;
use super::error::{MAJOR_MIN, PostgresError, migrate_error, sort};
use super::pool::{self, Pool};
use crate::adapters::sql::failure::Failure;
use crate::adapters::sql::rows;
use crate::adapters::sql::schema::{self, DueMigration};

/// How long bringing the schema up to date may take, waiting for another node that does it included.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Something that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(
    /// What it is. Only for whoever needs the secret itself.
    pub String,
);

/// How the way to the server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// By TLS if the server has it, without knowing who the server is.
    Prefer,
    /// By TLS, without knowing who the server is.
    Require,
    /// By TLS, with a certificate of an authority that is trusted.
    VerifyCa,
    /// By TLS, with a certificate of an authority that is trusted, for the host that is named.
    VerifyFull,
}

/// Which database, and the way there. Shown without anything secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPlace {
    /// A host name, an IP address without brackets, or the directory of a Unix socket, which begins with `/`.
    pub host: String,
    /// The port; it is part of a socket's name too.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The database.
    pub database: String,
    /// How the way is protected.
    pub tls: TlsMode,
    /// The authorities to trust, a PEM file; `None`: those of Mozilla.
    pub root_certificate: Option<PathBuf>,
}

/// How the directory is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Which database.
    pub place: PostgresPlace,
    /// The password of the user, if the server wants one.
    pub password: Option<Secret>,
    /// Most connections at a time, at least 1: of the directory, or of those who read the archive.
    pub connections: u32,
    /// The longest wait for a connection, and the longest time a command may take on it.
    pub statement_timeout: Duration,
}

impl PostgresDirectory {
    /// Reaches the database and brings its schema up to date.
    ///
    /// # Errors
    /// See [`PostgresError`]; a database that is refused is left as it was.
    pub async fn open(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let place = &options.place;
        let patience = options.statement_timeout;
        Self::migrate(options).await?;
        let connecting = connect_options(options).await?;
        bounded(place, patience, async {
            let failed = |error: sqlx::Error| sort(place, &error);
            let mut connection = pool::connect(&connecting, patience).await.map_err(failed)?;
            warn_of_lost_writes(&mut connection).await.map_err(failed)?;
            let row = sqlx::query("SELECT directory FROM identity WHERE single = 1")
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
            let identity = rows::identity(&row, "directory").map_err(|failure| match failure {
                Failure::Sql(error) => sort(place, &error),
                Failure::Directory(error) => {
                    PostgresError::Failed { place: Box::new(place.clone()), reason: error.to_string() }
                }
            })?;
            let pool = Pool::new(connecting.clone(), options.connections, patience);
            pool.keep(connection);
            Ok(Self { pool: Arc::new(pool), identity })
        })
        .await
    }

    /// Returns the migrations that are due, and applies none.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn due(options: &PostgresOptions) -> Result<Vec<DueMigration>, PostgresError> {
        bounded(&options.place, options.statement_timeout, async {
            let mut connection = reach(options).await?;
            due(&mut connection, &options.place).await
        })
        .await
    }

    /// Brings the schema up to date and returns what was applied. Where nothing is due, no right to change it is needed.
    ///
    /// # Errors
    /// See [`PostgresError`]; what was applied before the one that failed stays.
    pub async fn migrate(options: &PostgresOptions) -> Result<Vec<DueMigration>, PostgresError> {
        let due = Self::due(options).await?;
        if due.is_empty() {
            return Ok(due);
        }
        let place = &options.place;
        bounded(place, MIGRATE_TIMEOUT, async {
            let mut connection = reach(options).await?;
            // The lock of sqlx is one of the session, for the whole database: another node waits there, and then finds all done.
            connection.lock().await.map_err(|error| migrate_error(place, error))?;
            // What was due is looked at again, behind the lock.
            let due = self::due(&mut connection, place).await?;
            // Not `run`, whose future no other task may be given (its trait is "not general enough" for the compiler).
            MIGRATIONS
                .run_direct(None, &mut connection, false)
                .await
                .map_err(|error| migrate_error(place, error))?;
            for migration in &due {
                tracing::info!(
                    version = migration.version,
                    what = migration.description,
                    "migrated the database"
                );
            }
            let _ = connection.close().await;
            Ok(due)
        })
        .await
    }
}

/// Returns a connection for looking at the schema and changing it, to a server that will do.
async fn reach(options: &PostgresOptions) -> Result<PgConnection, PostgresError> {
    let place = &options.place;
    let failed = |error: sqlx::Error| sort(place, &error);
    let connecting = connect_options(options).await?;
    let mut connection = PgConnection::connect_with(&connecting).await.map_err(failed)?;
    check_version(place, connection.server_version_num().unwrap_or(0))?;
    let is_standby: bool =
        sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await.map_err(failed)?;
    if is_standby {
        return Err(PostgresError::Standby { place: Box::new(place.clone()) });
    }
    Ok(connection)
}

fn check_version(place: &PostgresPlace, version: u32) -> Result<(), PostgresError> {
    if version / 10_000 < MAJOR_MIN {
        return Err(PostgresError::TooOld { place: Box::new(place.clone()), version });
    }
    Ok(())
}

async fn due(
    connection: &mut PgConnection,
    place: &PostgresPlace,
) -> Result<Vec<DueMigration>, PostgresError> {
    let failed = |error: sqlx::Error| sort(place, &error);
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let mut applied = Vec::new();
    if is_there {
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
                .fetch_all(connection)
                .await
                .map_err(failed)?;
        let read = rows.into_iter();
        applied
            .extend(read.map(|(version, checksum)| AppliedMigration { version, checksum: checksum.into() }));
    }
    schema::due(&MIGRATIONS, &applied)
        .map_err(|source| PostgresError::Schema { place: Box::new(place.clone()), source })
}

/// Says so if the server does not sync: what it answers may be gone after a crash, and nothing here can help it.
async fn warn_of_lost_writes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let fsync: String = sqlx::query_scalar("SELECT current_setting('fsync')").fetch_one(connection).await?;
    if fsync == "off" {
        tracing::warn!(
            "fsync is off in Postgres: accounts that were answered for may be gone after a crash of its machine"
        );
    }
    Ok(())
}

pub(super) async fn connect_options(options: &PostgresOptions) -> Result<PgConnectOptions, PostgresError> {
    let PostgresOptions { place, password, .. } = options;
    let mode = match place.tls {
        TlsMode::Disable => PgSslMode::Disable,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    };
    let mut connecting = PgConnectOptions::new_without_pgpass()
        .port(place.port)
        .username(&place.user)
        .database(&place.database)
        .ssl_mode(mode)
        .application_name("quaild")
        .disable_statement_logging();
    connecting = if place.host.starts_with('/') {
        connecting.socket(&place.host)
    } else {
        connecting.host(&place.host)
    };
    if let Some(Secret(password)) = password {
        connecting = connecting.password(password);
    }
    if let Some(path) = &place.root_certificate {
        let read = tokio::fs::read(path).await;
        let pem = read.map_err(|source| PostgresError::RootCertificate { path: path.clone(), source })?;
        connecting = connecting.ssl_root_cert_from_pem(pem);
    }
    Ok(connecting)
}

pub(super) async fn bounded<T>(
    place: &PostgresPlace,
    patience: Duration,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} ms", patience.as_millis());
        Err(PostgresError::Unreachable { place: Box::new(place.clone()), reason })
    })
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, .. } = self;
        if host.contains(':') {
            write!(f, "{user}@[{host}]:{port}/{database}")
        } else {
            write!(f, "{user}@{host}:{port}/{database}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> PostgresPlace {
        PostgresPlace {
            host: "db.example".to_owned(),
            port: 5432,
            user: "quail".to_owned(),
            database: "chat".to_owned(),
            tls: TlsMode::VerifyFull,
            root_certificate: None,
        }
    }

    #[test]
    fn an_old_server_is_refused_with_its_version() {
        for version in [0, 90_600, 140_012] {
            let error = check_version(&place(), version).unwrap_err();
            assert!(error.to_string().contains("needs 15 or newer"), "{error}");
            assert!(!error.is_temporary() && error.hint().contains("upgrade"));
        }
        for version in [150_000, 180_001] {
            check_version(&place(), version).unwrap();
        }
    }

    #[test]
    fn a_place_is_shown_and_a_password_is_not() {
        assert_eq!(place().to_string(), "quail@db.example:5432/chat");
        let numbered = PostgresPlace { host: "::1".to_owned(), ..place() };
        assert_eq!(numbered.to_string(), "quail@[::1]:5432/chat");
        let password = Some(Secret("canary".to_owned()));
        let options = PostgresOptions {
            place: place(),
            password,
            connections: 1,
            statement_timeout: Duration::from_secs(1),
        };
        assert!(!format!("{options:?}").contains("canary"));
    }
}
