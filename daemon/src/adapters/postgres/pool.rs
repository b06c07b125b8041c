//! Connections to Postgres, a bounded number of them, and how a command runs on one.
//!
//! Why not sqlx's own pool: while the server refuses, it tries until its whole timeout is over, and a connection that hangs
//! goes back to a task that nobody bounds. Here a refusal is told at once with its reason, and a connection on which anything
//! was left open is closed, never used again.
//!
//! Invariants: at most `connections` are open to the server at any time; a command waits at most `patience` for one and takes
//! at most `patience` on it, whatever the server does; a command is done again only where the first try certainly did nothing.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Why a command did not do what it was asked, as the pool has to know it.
pub(super) trait Fault: From<sqlx::Error> + std::fmt::Display + Send {
    /// The server cannot be reached, or not in time.
    fn unavailable(reason: String) -> Self;

    /// Returns whether somebody else's transaction came between: the same one again may pass at once.
    fn is_conflict(&self) -> bool;

    /// Returns whether the connection is of no use any more, as after a restart of the server.
    fn is_lost_connection(&self) -> bool;

    /// Returns whether it was found by the command, and not by the database.
    fn is_found(&self) -> bool;
}

/// How often a command is tried on account of other transactions that came between. Each of them got something done, so
/// more than a few in a row means that something else is wrong.
const CONFLICTS_MAX: u32 = 5;

/// How long a command waits after its first such conflict; then twice as long each time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// How long closing a connection in good order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a transaction begins whose statements see one state.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// The statements of a command on a connection.
pub(super) type Work<'a, T, F> = Pin<Box<dyn Future<Output = Result<T, F>> + Send + 'a>>;

/// What a command does. What it needs comes as a value, so that it can be done again.
pub(super) type Command<I, T, F> = for<'a> fn(&'a mut PgConnection, &'a I) -> Work<'a, T, F>;

/// Whether a command needs a transaction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One statement that reads.
    Read,
    /// Statements that read one state.
    Snapshot,
    /// What has to happen whole or not at all.
    Write,
}

/// Connections to one server.
pub(super) struct Pool {
    options: PgConnectOptions,
    connections: u32,
    patience: Duration,
    places: Semaphore,
    /// Those that nobody uses; the last one used comes first.
    idle: Mutex<Vec<PgConnection>>,
}

/// Why a try failed, and what is known of it.
enum Failed<F> {
    /// The server undid it, and the connection is good.
    Undone(F),
    /// The connection broke before the server was asked to make anything durable.
    Lost(F),
    /// The connection broke while the server was making it durable.
    Unknown(F),
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, connections: u32, patience: Duration) -> Self {
        let places = Semaphore::new(usize::try_from(connections).unwrap_or(usize::MAX));
        Self { options, connections, patience, places, idle: Mutex::default() }
    }

    /// Runs a command. Dropping the future closes its connection, and the server undoes what was not committed.
    pub(super) async fn run<I: Sync, T, F: Fault>(
        &self,
        kind: Kind,
        input: &I,
        command: Command<I, T, F>,
    ) -> Result<T, F> {
        let place = tokio::time::timeout(self.patience, self.places.acquire());
        let Ok(place) = place.await else {
            let (connections, waited) = (self.connections, self.patience.as_millis());
            return Err(F::unavailable(format!(
                "all {connections} connections were busy for {waited} ms; storage.connections allows more"
            )));
        };
        let place = place.map_err(|_| F::unavailable("the database is closed".to_owned()))?;
        match tokio::time::timeout(self.patience, self.run_on(place, kind, input, command)).await {
            Ok(done) => done,
            Err(_) => {
                // Whatever else waits there is as old as this one.
                self.forget_idle();
                Err(F::unavailable(format!(
                    "Postgres did not answer within {} ms",
                    self.patience.as_millis()
                )))
            }
        }
    }

    /// Keeps a connection that is open already.
    pub(super) fn keep(&self, connection: PgConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Lets no command begin any more, waits for those that run, and closes all connections.
    pub(super) async fn close(&self) {
        let all = self.places.acquire_many(self.connections);
        // A command that does not end in time loses its connection when the process does.
        let waited = tokio::time::timeout(self.patience, all).await;
        self.places.close();
        drop(waited);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        }
    }

    async fn run_on<I: Sync, T, F: Fault>(
        &self,
        _place: SemaphorePermit<'_>,
        kind: Kind,
        input: &I,
        command: Command<I, T, F>,
    ) -> Result<T, F> {
        let mut kept = self.take_idle();
        let mut conflicts = 0;
        loop {
            let is_new = kept.is_none();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => connect(&self.options, self.patience).await?,
            };
            match attempt(&mut connection, kind, input, command).await {
                Ok(answer) => {
                    self.keep(connection);
                    return Ok(answer);
                }
                Err(Failed::Undone(failure)) => {
                    if failure.is_conflict() && conflicts < CONFLICTS_MAX {
                        tokio::time::sleep(CONFLICT_PAUSE * (1 << conflicts)).await;
                        conflicts += 1;
                        kept = Some(connection);
                        continue;
                    }
                    self.keep(connection);
                    return Err(failure);
                }
                // The server was away since this connection was used last, and then all others are as dead.
                Err(Failed::Lost(_)) if !is_new => self.forget_idle(),
                Err(Failed::Lost(failure)) => return Err(failure),
                Err(Failed::Unknown(failure)) => {
                    self.forget_idle();
                    return Err(F::unavailable(format!(
                        "whether the command was done is not known: {failure}"
                    )));
                }
            }
        }
    }

    fn take_idle(&self) -> Option<PgConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Dropping a connection closes its socket and waits for nobody.
    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Opens a connection that keeps the promises of the port, whatever the server's own defaults are.
pub(super) async fn connect(
    options: &PgConnectOptions,
    patience: Duration,
) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    // An answer must survive a crash of the server; stronger settings than "on" stay. What this side has given up, the server
    // gives up too. Locks are waited for and rows read again after that, which is what the statements rely on.
    sqlx::query(
        "SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
                    THEN 'on' ELSE current_setting('synchronous_commit') END, false),
                set_config('statement_timeout', $1, false),
                set_config('lock_timeout', $1, false),
                set_config('idle_in_transaction_session_timeout', $1, false),
                set_config('default_transaction_isolation', 'read committed', false)",
    )
    .bind(format!("{}ms", patience.as_millis()))
    .execute(&mut connection)
    .await?;
    Ok(connection)
}

async fn attempt<I: Sync, T, F: Fault>(
    connection: &mut PgConnection,
    kind: Kind,
    input: &I,
    command: Command<I, T, F>,
) -> Result<T, Failed<F>> {
    let sorted = |failure: F| {
        if failure.is_lost_connection() { Failed::Lost(failure) } else { Failed::Undone(failure) }
    };
    if kind == Kind::Read {
        return command(connection, input).await.map_err(sorted);
    }
    let begun = match kind {
        Kind::Snapshot => connection.begin_with(SNAPSHOT).await,
        _ => connection.begin().await,
    };
    let mut transaction = begun.map_err(|error| sorted(error.into()))?;
    match command(&mut transaction, input).await {
        Ok(answer) => match transaction.commit().await {
            Ok(()) => Ok(answer),
            Err(error) => Err(match sorted(error.into()) {
                Failed::Lost(failure) => Failed::Unknown(failure),
                undone => undone,
            }),
        },
        Err(failure) if failure.is_lost_connection() => Err(Failed::Lost(failure)),
        Err(failure) => match transaction.rollback().await {
            Ok(()) => Err(Failed::Undone(failure)),
            // What the command found still counts; only the connection does not.
            Err(error) => Err(Failed::Lost(if failure.is_found() { failure } else { error.into() })),
        },
    }
}
