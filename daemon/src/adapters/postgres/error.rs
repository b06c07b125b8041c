//! What keeps a daemon from its directory in Postgres, and what its operator does about it.
//!
//! Invariant: no message has anything secret; the server's own texts name users, databases and tables.

use std::io;
use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::PostgresPlace;
use crate::adapters::sql::schema::SchemaError;

/// The oldest major version of Postgres that is tested with.
pub(super) const MAJOR_MIN: u32 = 15;

/// Why the directory in Postgres cannot be used. All are for whoever runs the daemon or the database to mend.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Nobody answers there, or not in time. A retry may help.
    #[error("reach Postgres at {place}: {reason}")]
    Unreachable {
        /// Where.
        place: Box<PostgresPlace>,
        /// What the system said.
        reason: String,
    },
    /// The server starts, stops or has no place for one more client. A retry may help.
    #[error("Postgres at {place} takes no client now: {reason}")]
    Busy {
        /// Where.
        place: Box<PostgresPlace>,
        /// What the server said.
        reason: String,
    },
    /// Wrong password, unknown user, or a rule of the server against this client.
    #[error("Postgres at {place} lets this daemon not in: {reason}")]
    Refused {
        /// Where.
        place: Box<PostgresPlace>,
        /// What the server said.
        reason: String,
    },
    /// There is no such database.
    #[error("Postgres at {place}: {reason}")]
    NoDatabase {
        /// Where.
        place: Box<PostgresPlace>,
        /// What the server said.
        reason: String,
    },
    /// The way cannot be protected as it is asked for.
    #[error("protect the way to Postgres at {place}: {reason}")]
    Tls {
        /// Where.
        place: Box<PostgresPlace>,
        /// What failed.
        reason: String,
    },
    /// The file of the authorities to trust cannot be read.
    #[error("read the root certificate {}", path.display())]
    RootCertificate {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server is older than what this daemon is tested with.
    #[error("Postgres at {place} has version {version}, quaild needs {MAJOR_MIN} or newer")]
    TooOld {
        /// Where.
        place: Box<PostgresPlace>,
        /// Its version, as `server_version_num` has it.
        version: u32,
    },
    /// The server copies another one and cannot write.
    #[error("Postgres at {place} is a standby that cannot write")]
    Standby {
        /// Where.
        place: Box<PostgresPlace>,
    },
    /// The user may log in, but not do what the daemon does.
    #[error("Postgres at {place} does not let this user do that: {reason}")]
    Rights {
        /// Where.
        place: Box<PostgresPlace>,
        /// What the server said.
        reason: String,
    },
    /// The database cannot keep what people write, but only some of its characters.
    #[error("Postgres at {place} keeps texts as {encoding}, quaild's archive needs UTF8")]
    Encoding {
        /// Where.
        place: Box<PostgresPlace>,
        /// How it keeps texts.
        encoding: String,
    },
    /// The schema is not for this daemon.
    #[error("Postgres at {place}: {source}")]
    Schema {
        /// Where.
        place: Box<PostgresPlace>,
        /// Why not.
        source: SchemaError,
    },
    /// Anything else: what stands there is no directory, or damaged.
    #[error("use Postgres at {place}: {reason}")]
    Failed {
        /// Where.
        place: Box<PostgresPlace>,
        /// What failed.
        reason: String,
    },
}

impl PostgresError {
    /// Returns whether the same may succeed later, without anybody changing a setting.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Standby { .. })
    }

    /// Returns the operator's next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "see that Postgres runs and listens there, and that storage.url has its host and port"
            }
            Self::Busy { .. } => {
                "wait until it is up; if it has too many clients, raise its max_connections or lower storage.connections"
            }
            Self::Refused { .. } => {
                "see that storage.password_file holds the password of that user, and that pg_hba.conf lets it in from here"
            }
            Self::NoDatabase { .. } => {
                "make it, as in createdb --owner USER DATABASE, or name another one in storage.url"
            }
            Self::Tls { .. } => {
                "name the authority with ?sslrootcert=FILE in storage.url, or weaken ?sslmode= if you trust the network"
            }
            Self::RootCertificate { .. } => {
                "see that the file is there and that the daemon's user may read it"
            }
            Self::TooOld { .. } => "upgrade the server, or use storage.url = \"sqlite\"",
            Self::Standby { .. } => "name the primary in storage.url",
            Self::Rights { .. } => {
                "let the user own the database, or run `quaild migrate` as one who may and grant it SELECT, INSERT, UPDATE and DELETE on all tables"
            }
            Self::Encoding { .. } => {
                "make the database with createdb --encoding UTF8 --template template0, or set archive = \"off\" in [storage]"
            }
            Self::Schema { .. } => {
                "run the quaild that belongs to this schema; `quaild migrate --dry-run` tells what another one would do"
            }
            Self::Failed { .. } => "see that storage.url names the database of a quaild, or an empty one",
        }
    }
}

/// Says of an error of the server or of the way there whose it is.
pub(super) fn sort(place: &PostgresPlace, error: &sqlx::Error) -> PostgresError {
    let place = Box::new(place.clone());
    let reason = match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        error => error.to_string(),
    };
    match error {
        // What TLS does not like comes as an error of the socket.
        sqlx::Error::Io(error) if is_of_tls(error) => PostgresError::Tls { place, reason },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => PostgresError::Unreachable { place, reason },
        sqlx::Error::Tls(_) => PostgresError::Tls { place, reason },
        sqlx::Error::Database(database) => match database.code().unwrap_or_default().as_ref() {
            state if state.starts_with("28") => PostgresError::Refused { place, reason },
            "3D000" => PostgresError::NoDatabase { place, reason },
            "42501" => PostgresError::Rights { place, reason },
            state if state.starts_with("53") || state.starts_with("57") => {
                PostgresError::Busy { place, reason }
            }
            _ => PostgresError::Failed { place, reason },
        },
        _ => PostgresError::Failed { place, reason },
    }
}

/// Says the same of a migration.
pub(super) fn migrate_error(place: &PostgresPlace, error: MigrateError) -> PostgresError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => sort(place, &error),
        error => PostgresError::Failed { place: Box::new(place.clone()), reason: error.to_string() },
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}
