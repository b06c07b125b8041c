//! The archive in a real Postgres: the promises of its port, with several daemons at once and with what only a server can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use quail_core::ports::archive::conformance::histories::a_random_history_ends_as_in_the_twin;
use quail_core::ports::archive::conformance::{Archive, archive_conformance};
use quail_core::ports::archive::{
    ArchiveBatch, ArchiveError, Browse, Change, ChangeKind, ConversationKey, MessageRef, NewMessage, Place,
    ReadArchive, Search, Synced, Term, WriteArchive, direct,
};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_tests::postgres::{PASSWORD, Postgres, USER};
use quail_tests::{expect, rounds};
use quaild::adapters::postgres::archive::PostgresArchive;
use quaild::adapters::postgres::{PostgresError, PostgresOptions, PostgresPlace, Secret, TlsMode};
use tokio::task::JoinSet;

/// The first moment of a month.
const MARCH_MS: u64 = 1_772_323_200_000;

const DAY_MS: u64 = 86_400_000;

/// Everything that histories leave behind. Not what is known of months, which an open archive remembers.
const TABLES: &str =
    "messages, archived, conversations, members, reach, hidden, reactions, markers, dead_letters";

fn options(postgres: &Postgres) -> PostgresOptions {
    PostgresOptions {
        place: PostgresPlace {
            host: "127.0.0.1".to_owned(),
            port: postgres.port(),
            user: USER.to_owned(),
            database: USER.to_owned(),
            tls: TlsMode::Prefer,
            root_certificate: None,
        },
        password: Some(Secret(PASSWORD.to_owned())),
        connections: 4,
        statement_timeout: Duration::from_secs(30),
    }
}

async fn open(postgres: &Postgres) -> PostgresArchive {
    PostgresArchive::open(&options(postgres)).await.unwrap()
}

fn account(seed: u64) -> AccountId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AccountId(id)
}

/// Returns an id of version 7 of this time.
fn minted(unix_ms: u64, number: u64) -> MessageId {
    let mut id = [0x80; 16];
    id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    id[6] = 0x70;
    id[9..].copy_from_slice(&number.to_be_bytes()[1..]);
    MessageId(id)
}

/// A message that was minted when it was accepted.
fn message(sender: u64, recipient: u64, number: u64, unix_ms: u64) -> NewMessage {
    NewMessage {
        message: MessageRef { sender: account(sender), id: minted(unix_ms, number) },
        device: DeviceId([1; 16]),
        recipient: account(recipient),
        origin: Origin(1),
        position: Position(number),
        stamp: Stamp(Stamp::from_ms(unix_ms).0 + number % 60_000),
        kind: 1,
        body: format!("message {number} says word{} to you", number % 1_000).into(),
        reply: None,
    }
}

fn batch(upto: u64, messages: Vec<NewMessage>) -> ArchiveBatch {
    ArchiveBatch { origin: Some(Origin(1)), upto: Position(upto), messages, ..ArchiveBatch::default() }
}

#[tokio::test]
async fn postgres_keeps_the_promises_of_the_port() {
    let Some(postgres) = Postgres::start().await else { return };
    let archive = open(&postgres).await;
    archive_conformance(async || {
        postgres.sql(&format!("TRUNCATE {TABLES}")).await;
        Box::new(archive.clone()) as Box<dyn Archive>
    })
    .await;
}

#[tokio::test]
async fn random_histories_over_months_end_as_in_the_twin() {
    let Some(postgres) = Postgres::start().await else { return };
    let archive = open(&postgres).await;
    for seed in 0..rounds(40) as u64 {
        postgres.sql(&format!("TRUNCATE {TABLES}")).await;
        a_random_history_ends_as_in_the_twin(&archive, seed).await;
    }
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass";
    assert!(postgres.sql(months).await.parse::<u32>().unwrap() >= 3, "they lay in several tables");
}
