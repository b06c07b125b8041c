//! Reaching the archive's tables, and its connections.
//!
//! Invariant: a database whose texts cannot hold what people write is refused before anything is written there.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;

use super::PostgresArchive;
use super::months::Months;
use crate::adapters::postgres::error::sort;
use crate::adapters::postgres::open::{bounded, connect_options};
use crate::adapters::postgres::pool::{self, Pool};
use crate::adapters::postgres::{PostgresDirectory, PostgresError, PostgresOptions};

/// Connections that write: one for batches, one for the operator.
const WRITERS: u32 = 2;

/// How long a batch may take, and each statement of it. Nobody waits for it, and one that is given up has to be begun anew.
const WRITE_TIMEOUT: Duration = Duration::from_secs(25);

/// What the statements rely on. Each finds its rows by an index; what Postgres guesses of tables that have just been made, or that
/// nobody has analyzed, must not talk it into reading all of them. To compile a statement takes longer than to run it.
const PLANNING: &[(&str, &str)] =
    &[("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("jit", "off")];

impl PostgresArchive {
    /// Reaches the database and brings its schema up to date.
    ///
    /// # Errors
    /// See [`PostgresError`]; a database that is refused is left as it was.
    pub async fn open(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let (place, patience) = (&options.place, options.statement_timeout);
        PostgresDirectory::migrate(options).await?;
        let connecting = connect_options(options).await?.options(PLANNING.iter().copied());
        bounded(place, patience, async {
            let failed = |error: sqlx::Error| sort(place, &error);
            let mut connection = pool::connect(&connecting, patience).await.map_err(failed)?;
            let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')")
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
            // It lasts for as long as a read may take, and a batch may take longer.
            let _ = connection.close().await;
            if encoding != "UTF8" {
                return Err(PostgresError::Encoding { place: Box::new(place.clone()), encoding });
            }
            let readers = Pool::new(connecting.clone(), options.connections, patience);
            let writers = Pool::new(connecting.clone(), WRITERS, WRITE_TIMEOUT);
            Ok(Self {
                writers: Arc::new(writers),
                readers: Arc::new(readers),
                months: Arc::new(Months::default()),
            })
        })
        .await
    }
}
