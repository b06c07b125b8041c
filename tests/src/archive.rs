//! Looking into the archive of a daemon from outside, while it writes there.

use std::path::Path;
use std::time::Instant;

use quail_client::{AccountId, DeviceId};
use quail_protocol::id::{MessageId, MessageRef, Origin, Position, Stamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};

use crate::PATIENCE;
use crate::checker::{Key, Place, What, fingerprint};
use crate::postgres::Postgres;
use crate::witness::Record;

/// A message in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Its identity.
    pub message: Key,
    /// Whom it is for.
    pub recipient: AccountId,
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub body: Vec<u8>,
}

/// A message as an account is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its identity.
    pub message: MessageRef,
    /// What it says; `None` if it was deleted for everybody.
    pub body: Option<String>,
    /// Who reacts with what.
    pub reactions: Vec<(AccountId, String)>,
}

/// The archive in a data directory.
pub struct ArchiveFile(SqliteConnection);

impl ArchiveFile {
    /// Opens it to read.
    pub async fn open(data: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(data.join("archive.sqlite"));
        let options = options.pragma("query_only", "ON").busy_timeout(PATIENCE);
        Self(options.disable_statement_logging().connect().await.expect("the archive opens"))
    }

    /// Returns every message, in the order in which people see them.
    pub async fn messages(&mut self) -> Vec<Archived> {
        let rows = sqlx::query(
            "SELECT sender, id, recipient, origin, position, stamp, body FROM messages ORDER BY stamp, origin",
        );
        let rows = rows.fetch_all(&mut self.0).await.expect("the archive answers");
        let archived = |row: &sqlx::sqlite::SqliteRow| {
            let account = |column| AccountId::try_from(row.get::<&[u8], _>(column)).expect("an id");
            let number = |column| row.get::<i64, _>(column).unsigned_abs();
            let id = MessageId::try_from(row.get::<&[u8], _>("id")).expect("an id");
            Archived {
                message: Key { sender: account("sender"), id },
                recipient: account("recipient"),
                place: Place {
                    origin: Origin(number("origin") as u32),
                    position: Position(number("position")),
                    stamp: Stamp(number("stamp")),
                },
                body: row.get("body"),
            }
        };
        rows.iter().map(archived).collect()
    }

    /// Returns what an account is shown: messages in order, without their body where they are deleted for everybody, and who reacts
    /// with what.
    pub async fn shown_to(&mut self, account: AccountId) -> Vec<Shown> {
        let rows = sqlx::query(
            "SELECT n, sender, id, CAST(body AS TEXT) AS body FROM messages
             WHERE state > 0 AND (sender = ?1 OR recipient = ?1)
               AND n NOT IN (SELECT n FROM hidden WHERE account = ?1) ORDER BY stamp, origin",
        );
        let rows = rows.bind(account.as_bytes().as_slice()).fetch_all(&mut self.0).await;
        let mut shown = Vec::new();
        for row in rows.expect("the archive answers") {
            let reactions = sqlx::query(
                "SELECT account, reaction FROM reactions WHERE n = ?1 AND reaction IS NOT NULL ORDER BY account",
            );
            let reactions = reactions.bind(row.get::<i64, _>("n")).fetch_all(&mut self.0).await;
            let body: Option<String> = row.get("body");
            let reaction = |row: &sqlx::sqlite::SqliteRow| {
                (AccountId::try_from(row.get::<&[u8], _>("account")).expect("an id"), row.get("reaction"))
            };
            let reactions = reactions.expect("the archive answers");
            // What is deleted for everybody need not show who reacted to it.
            let reactions = reactions.iter().filter(|_| body.is_some()).map(reaction).collect();
            let message = MessageRef {
                sender: AccountId::try_from(row.get::<&[u8], _>("sender")).expect("an id"),
                id: MessageId::try_from(row.get::<&[u8], _>("id")).expect("an id"),
            };
            shown.push(Shown { message, body, reactions });
        }
        shown
    }

    /// Waits until everything up to a position is archived.
    pub async fn reaches(&mut self, position: Position) {
        let began = Instant::now();
        loop {
            let row = sqlx::query("SELECT coalesce(max(position), 0) AS position FROM archived");
            let row = row.fetch_one(&mut self.0).await.expect("the archive answers");
            let archived = row.get::<i64, _>("position").unsigned_abs();
            if archived >= position.0 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{archived} of {position} is archived");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has so many messages, and returns them all.
    pub async fn has(&mut self, count: usize) -> Vec<Archived> {
        let began = Instant::now();
        loop {
            let messages = self.messages().await;
            if messages.len() >= count {
                return messages;
            }
            assert!(began.elapsed() < PATIENCE, "{} of {count} messages are archived", messages.len());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Returns how far an account has read, and how far the others may know it has, of anybody.
    pub async fn read_markers(&mut self, account: AccountId) -> (u64, u64) {
        let kind = async |connection: &mut SqliteConnection, kind: i64| {
            let row = sqlx::query(
                "SELECT coalesce(max(position), 0) AS position FROM markers WHERE account = ?1 AND kind = ?2",
            );
            let row = row.bind(account.as_bytes().as_slice()).bind(kind).fetch_one(connection).await;
            row.expect("the archive answers").get::<i64, _>("position").unsigned_abs()
        };
        (kind(&mut self.0, 2).await, kind(&mut self.0, 3).await)
    }
}

/// Returns every message of an archive in Postgres, in the order in which people see them.
pub async fn in_postgres(postgres: &Postgres) -> Vec<Archived> {
    let rows = postgres
        .sql(
            "SELECT encode(sender, 'hex'), encode(id, 'hex'), encode(recipient, 'hex'), origin, position, stamp, encode(body, 'hex')
             FROM messages WHERE state > 0 ORDER BY stamp, origin",
        )
        .await;
    let archived = |line: &str| {
        let [sender, id, recipient, origin, position, stamp, body] =
            line.split('|').collect::<Vec<_>>().try_into().expect("seven columns");
        let account = |text| AccountId::try_from(&unhex(text)[..]).expect("an id");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let id = MessageId::try_from(&unhex(id)[..]).expect("an id");
        Archived {
            message: Key { sender: account(sender), id },
            recipient: account(recipient),
            place: Place {
                origin: Origin(number(origin) as u32),
                position: Position(number(position)),
                stamp: Stamp(number(stamp)),
            },
            body: unhex(body),
        }
    };
    rows.lines().map(archived).collect()
}

/// Waits until an archive in Postgres has so many messages, and returns them all.
pub async fn postgres_has(postgres: &Postgres, count: usize) -> Vec<Archived> {
    let began = Instant::now();
    loop {
        // It may be about to have the tables only, or to be away.
        let found = postgres.try_sql("SELECT count(*) FROM messages WHERE state > 0").await;
        if found.as_ref().is_ok_and(|found| found.parse::<usize>().is_ok_and(|found| found >= count)) {
            return in_postgres(postgres).await;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?} of {count} messages are archived");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// An archive that cannot be written, and can still be read, until it is released.
pub struct HeldArchive(SqliteConnection);

impl HeldArchive {
    /// Takes the lock of whoever writes.
    pub async fn hold(data: &Path) -> Self {
        let options =
            SqliteConnectOptions::new().filename(data.join("archive.sqlite")).busy_timeout(PATIENCE);
        let mut connection = options.disable_statement_logging().connect().await.expect("the archive opens");
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.expect("the archive is free");
        Self(connection)
    }

    /// Gives it back.
    pub async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.expect("the archive is held");
    }
}

/// Puts something into the archive's dead letters that no daemon could have archived, as a fault of the daemon would.
pub async fn bury_garbage(data: &Path) {
    let options = SqliteConnectOptions::new().filename(data.join("archive.sqlite")).busy_timeout(PATIENCE);
    let mut connection = options.disable_statement_logging().connect().await.expect("the archive opens");
    sqlx::query(
        "INSERT INTO dead_letters (origin, position, error, frame, context) VALUES (1, 5, 'no', ?1, ?2)",
    )
    .bind(&b"\xff\xff"[..])
    .bind([&[1_u8, 1][..], &[0; 48]].concat())
    .execute(&mut connection)
    .await
    .expect("the archive takes it");
}

/// Lets the archive testify as if it were a device of `account` that was there from the beginning: `device` has joined before the
/// first message. It shows everything to and from the account, in order.
pub fn testify(record: &Record, device: DeviceId, account: AccountId, messages: &[Archived]) {
    let is_mine = |archived: &&Archived| archived.recipient == account || archived.message.sender == account;
    for archived in messages.iter().filter(is_mine) {
        let (message, body) = (archived.message, fingerprint(&archived.body));
        record.note(device, What::Shown { message, body, place: archived.place });
        record.note(device, What::Acknowledged { message });
    }
}
