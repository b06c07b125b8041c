//! Dead letters: what could not be archived.

use quail_core::ports::archive::DeadLetter;
use quail_protocol::id::Position;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::fault::Fault;
use super::rows::{self, bound};

/// Keeps what could not be archived.
pub(super) async fn bury(connection: &mut PgConnection, dead: &[DeadLetter]) -> Result<(), Fault> {
    for letter in dead {
        sqlx::query(
            "INSERT INTO dead_letters (origin, position, error, frame, context) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(i64::from(letter.origin.0))
        // What cannot be archived because of its position is kept all the same.
        .bind(bound(letter.position.0))
        // A text of Postgres has no zeros.
        .bind(letter.error.replace('\0', "\u{fffd}"))
        .bind(&letter.frame[..])
        .bind(&letter.context[..])
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Lists what could not be archived.
pub(super) async fn list(
    connection: &mut PgConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<DeadLetter>, Fault> {
    let rows = sqlx::query(
        "SELECT number, origin, position, error, frame, context FROM dead_letters
         WHERE number > $1 ORDER BY number LIMIT $2",
    )
    .bind(bound(after))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let letter = |row: &PgRow| {
        Ok(DeadLetter {
            number: rows::number(row, "number")?,
            origin: rows::origin(row, "origin")?,
            position: Position(rows::number(row, "position")?),
            error: row.try_get("error")?,
            frame: row.try_get::<Vec<u8>, _>("frame")?.into(),
            context: row.try_get::<Vec<u8>, _>("context")?.into(),
        })
    };
    rows.iter().map(letter).collect()
}

/// Forgets what could not be archived; returns whether it was there.
pub(super) async fn drop(connection: &mut PgConnection, number: u64) -> Result<bool, Fault> {
    let dropped = sqlx::query("DELETE FROM dead_letters WHERE number = $1")
        .bind(bound(number))
        .execute(connection)
        .await?;
    Ok(dropped.rows_affected() > 0)
}
