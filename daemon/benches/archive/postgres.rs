//! The same on Postgres. CPU time is that of this process; `private-postgres` tells that of the server.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_core::ports::archive::words;
use quail_protocol::v1;
use quaild::adapters::postgres::archive::PostgresArchive;
use quaild::adapters::postgres::{PostgresOptions, PostgresPlace, Secret, TlsMode};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::{BATCH, Cost, PEOPLE, cpu, message, written};

/// The database that is measured, if there is one.
pub(crate) fn place() -> Option<PostgresOptions> {
    let options = PgConnectOptions::from_str(&std::env::var("POSTGRES_URL").ok()?).unwrap();
    let password = std::env::var_os("POSTGRES_PASSWORD_FILE");
    let password = password.map(|file| Secret(std::fs::read_to_string(file).unwrap().trim_end().to_owned()));
    Some(PostgresOptions {
        place: PostgresPlace {
            host: options.get_host().to_owned(),
            port: options.get_port(),
            user: options.get_username().to_owned(),
            database: options.get_database().unwrap().to_owned(),
            tls: TlsMode::Prefer,
            root_certificate: None,
        },
        password,
        connections: 4,
        statement_timeout: Duration::from_secs(60),
    })
}

/// What the writer takes for so many messages, and what a bare insert takes.
pub(crate) async fn round(options: &PostgresOptions, rows: u64) -> (Cost, Cost) {
    let archive = PostgresArchive::open(options).await.unwrap();
    let place = &options.place;
    let mut connecting = PgConnectOptions::new_without_pgpass().host(&place.host).port(place.port);
    connecting = connecting.username(&place.user).database(&place.database).disable_statement_logging();
    if let Some(Secret(password)) = &options.password {
        connecting = connecting.password(password);
    }
    let mut connection = connecting.connect().await.unwrap();
    // The schema is made by who knows it.
    clear(&mut connection).await;
    sqlx::query("SELECT archive_month(202603, 0, $1)").bind(i64::MAX).execute(&mut connection).await.unwrap();
    let floor = bare(&mut connection, rows).await;
    clear(&mut connection).await;
    let written = written(Arc::new(archive.clone()), rows).await;
    let found: i64 =
        sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut connection).await.unwrap();
    assert_eq!(found.cast_unsigned(), rows);
    archive.close().await;
    connection.close().await.unwrap();
    (written, floor)
}

async fn clear(connection: &mut PgConnection) {
    let tables = "TRUNCATE messages, archived, conversations, members, reach, markers";
    sqlx::query(tables).execute(&mut *connection).await.unwrap();
    // What came before is not to be paid for by what comes now.
    sqlx::raw_sql("VACUUM").execute(connection).await.unwrap();
}

/// What the same rows take with the same schema, put in by as many rows per transaction, all that is known beforehand.
async fn bare(connection: &mut PgConnection, rows: u64) -> Cost {
    let messages: Vec<_> = (1..=rows).map(|number| (number, message(number))).map(row).collect();
    let (began, cpu_before) = (Instant::now(), cpu());
    for batch in messages.chunks(BATCH) {
        insert(connection, batch).await;
    }
    Cost { time: began.elapsed(), cpu: cpu() - cpu_before }
}

struct Row {
    number: i64,
    message: v1::Message,
    conversation: [u8; 16],
    words: String,
}

fn row((number, message): (u64, v1::Message)) -> Row {
    let mut conversation = [9; 16];
    // As far from each other as hashes are.
    let pair = ((number % PEOPLE) / 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    conversation[..8].copy_from_slice(&pair.to_be_bytes());
    let text = std::str::from_utf8(&message.body).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut all: String =
        words(text).iter().enumerate().map(|(at, (_, word))| format!("'{word}':{} ", at + 1)).collect();
    all.push_str(&format!("'@{}' '@{}'", hex(&message.sender), hex(&message.recipient)));
    Row { number: number.cast_signed(), message, conversation, words: all }
}

async fn insert(connection: &mut PgConnection, batch: &[Row]) {
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO messages (month, sender, id, device, recipient, conversation, origin, position, stamp, seq, state, kind, body,
            hash, is_deleted, words)
         SELECT 202603, sender, id, device, recipient, conversation, 1, number, number << 16, number, 1, 1, body, device, FALSE,
            words::tsvector
         FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bytea[], $8::text[])
            AS k (sender, id, device, recipient, conversation, number, body, words)",
    )
    .bind(batch.iter().map(|row| &row.message.sender[..]).collect::<Vec<_>>())
    .bind(batch.iter().map(|row| &row.message.id[..]).collect::<Vec<_>>())
    .bind(batch.iter().map(|_| &[1_u8; 16][..]).collect::<Vec<_>>())
    .bind(batch.iter().map(|row| &row.message.recipient[..]).collect::<Vec<_>>())
    .bind(batch.iter().map(|row| &row.conversation[..]).collect::<Vec<_>>())
    .bind(batch.iter().map(|row| row.number).collect::<Vec<_>>())
    .bind(batch.iter().map(|row| &row.message.body[..]).collect::<Vec<_>>())
    .bind(batch.iter().map(|row| &row.words[..]).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
}
