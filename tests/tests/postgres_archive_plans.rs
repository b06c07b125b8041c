//! How the archive in Postgres finds its rows: no statement reads a table of messages from one end to the other, and what each call
//! looks at does not grow with what is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use quail_core::ports::archive::{
    Advance, ArchiveBatch, Browse, Change, ChangeKind, ConversationKey, MessageRef, NewMessage, Place,
    ReadArchive, Search, Term, WriteArchive, direct,
};
use quail_protocol::id::{AccountId, ConversationId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_tests::missing;
use quail_tests::postgres::{PASSWORD, Postgres, USER};
use quaild::adapters::postgres::archive::PostgresArchive;
use quaild::adapters::postgres::{PostgresOptions, PostgresPlace, Secret, TlsMode};

/// The first moment of a year.
const BEGIN_MS: u64 = 1_767_225_600_000;

/// The messages are spread over so long.
const YEAR_MS: u64 = 365 * 86_400_000;

/// People, each of whom writes to a few.
const PEOPLE: u64 = 500;

/// How often each call is made: more often than Postgres looks at the values before it settles on one plan for all.
const TIMES: usize = 8;

/// Most entries of indexes of messages that a call may look at in all: pages of a hundred, in a dozen tables, unread up to 999.
const READ_MAX: u64 = 20_000;

/// How many messages there are: `QUAIL_ROWS`, or enough for Postgres to have a choice.
fn rows() -> u64 {
    std::env::var("QUAIL_ROWS").map_or(100_000, |rows| rows.parse().expect("a number"))
}

async fn open(postgres: &Postgres) -> PostgresArchive {
    let options = PostgresOptions {
        place: PostgresPlace {
            host: "127.0.0.1".to_owned(),
            port: postgres.port(),
            user: USER.to_owned(),
            database: USER.to_owned(),
            tls: TlsMode::Prefer,
            root_certificate: None,
        },
        password: Some(Secret(PASSWORD.to_owned())),
        connections: 1,
        statement_timeout: Duration::from_secs(60),
    };
    PostgresArchive::open(&options).await.unwrap()
}

fn account(number: u64) -> AccountId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AccountId(id)
}

fn message(number: u64, rows: u64) -> NewMessage {
    let unix_ms = BEGIN_MS + number * (YEAR_MS / rows);
    let mut id = [0x80; 16];
    id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    id[6] = 0x70;
    id[9..].copy_from_slice(&number.to_be_bytes()[1..]);
    let sender = number % PEOPLE;
    NewMessage {
        message: MessageRef { sender: account(sender), id: MessageId(id) },
        device: DeviceId([1; 16]),
        recipient: account((sender ^ 1) + number / PEOPLE % 4 * 2),
        origin: Origin(1),
        position: Position(number + 1),
        stamp: Stamp::from_ms(unix_ms),
        kind: 1,
        body: format!("everybody says word{} and other{}", number % 2_000, number % 7).into(),
        reply: None,
    }
}

/// Somebody who has written nearly everything of a conversation, and the other one.
const WRITER: u64 = 2 * PEOPLE;
const READER: u64 = WRITER + 1;

/// How many messages of that conversation there are: more than a call may look at.
const WRITTEN: u64 = READ_MAX + 1_000;

/// Every so many of them is of the other one.
const ANSWERED: u64 = 1_000;

fn lopsided(number: u64) -> NewMessage {
    let (sender, recipient) =
        if number.is_multiple_of(ANSWERED) { (READER, WRITER) } else { (WRITER, READER) };
    let message = message(number, WRITTEN);
    let id = message.message.id;
    NewMessage {
        message: MessageRef { sender: account(sender), id },
        recipient: account(recipient),
        origin: Origin(2),
        ..message
    }
}

async fn fill(archive: &PostgresArchive, rows: u64) {
    let began = Instant::now();
    for first in (0..WRITTEN).step_by(1_000) {
        let batch = ArchiveBatch {
            origin: Some(Origin(2)),
            upto: Position(first + 1_000),
            messages: (first..first + 1_000).map(lopsided).collect(),
            ..ArchiveBatch::default()
        };
        archive.apply(&batch).await.unwrap();
    }
    for first in (0..rows).step_by(1_000) {
        let messages = (first..rows.min(first + 1_000)).map(|number| message(number, rows)).collect();
        let batch = ArchiveBatch {
            origin: Some(Origin(1)),
            upto: Position(first + 1_000),
            messages,
            ..ArchiveBatch::default()
        };
        archive.apply(&batch).await.unwrap();
    }
    println!("{rows} messages in {:?}", began.elapsed());
}

/// Makes one kind of call.
async fn call(archive: &PostgresArchive, name: &str, rows: u64, turn: u64) {
    let (ada, conversation) = (account(4), direct(account(4), account(5)));
    let place = message(rows / 2 + turn, rows);
    let place = Place { stamp: place.stamp, origin: Origin(1) };
    let key = ConversationKey { place, conversation };
    let search =
        |text: &str| Search { terms: vec![Term::Phrase(text.to_owned())], limit: 50, ..Search::default() };
    let narrow = || Search {
        conversation: Some(conversation),
        from: Some(ada),
        since: Some(Stamp::from_ms(BEGIN_MS)),
        until: Some(place.stamp),
        before: Some(place),
        ..search("everybody")
    };
    let browse =
        async |which| assert_ne!(archive.browse(ada, conversation, which, 50).await.unwrap().rows, []);
    let found = async |search| assert_ne!(archive.search(ada, search).await.unwrap().rows, []);
    match name {
        "conversations" => assert!(archive.conversations(ada, None).await.unwrap().conversations.len() > 3),
        "more conversations" => drop(archive.conversations(ada, Some(key)).await.unwrap()),
        "unread" => assert!(archive.unread(ada, conversation).await.unwrap() > 0),
        "unread of who wrote nearly everything" => {
            let conversation = direct(account(WRITER), account(READER));
            let unread = archive.unread(account(WRITER), conversation).await.unwrap();
            assert_eq!(u64::from(unread), WRITTEN / ANSWERED);
        }
        "newest" => browse(Browse::Before(None)).await,
        "before" => browse(Browse::Before(Some(place))).await,
        "oldest" => browse(Browse::After(None)).await,
        "after" => browse(Browse::After(Some(place))).await,
        "sync" => {
            drop(archive.sync(ada, vec![(conversation, 5), (ConversationId([1; 16]), 0)], 50).await.unwrap());
        }
        "search" => found(search("other4")).await,
        "prefix" => {
            let terms = vec![Term::Prefix("ever".to_owned()), Term::Phrase("and other4".to_owned())];
            found(Search { terms, ..search("") }).await;
        }
        "narrow search" => found(narrow()).await,
        "writing" => {
            // One that is new, one that is there, one that moves, and what becomes of another.
            let upto = Position(2 * rows + turn);
            let new = NewMessage { position: upto, ..message(rows + turn, rows) };
            let moved = message(3 * turn, rows);
            let moved = NewMessage { stamp: Stamp(moved.stamp.0 - 1), ..moved };
            let changed = message(7 * turn + 1, rows);
            let change = |kind| Change {
                message: changed.message,
                recipient: changed.recipient,
                origin: Origin(1),
                stamp: Stamp(changed.stamp.0 + 1 + turn),
                kind,
            };
            let react = ChangeKind::React { account: ada, reaction: Some("+".to_owned()) };
            let batch = ArchiveBatch {
                origin: Some(Origin(1)),
                upto,
                messages: vec![new, message(5 * turn, rows), moved],
                changes: vec![
                    change(react),
                    change(ChangeKind::DeleteForMe { account: ada }),
                    change(ChangeKind::DeleteForAll),
                ],
                advances: vec![Advance {
                    sender: ada,
                    account: account(5),
                    origin: Origin(1),
                    delivered: Some(Position(turn)),
                    read: Some(Position(turn)),
                    read_told: None,
                }],
                ..ArchiveBatch::default()
            };
            assert_eq!(archive.apply(&batch).await.unwrap().inserted, 1);
        }
        other => panic!("{other}"),
    }
}

/// How often a table of messages was read from one end to the other, and how many entries of their indexes were looked at.
async fn counted(postgres: &Postgres) -> (u64, u64) {
    let scans =
        "SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_all_tables WHERE relname ~ '^messages_[0-9]+$'";
    let reads =
        "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_all_indexes WHERE relname ~ '^messages_[0-9]+$'";
    let number = async |statement| postgres.sql(statement).await.parse().expect("a number");
    (number(scans).await, number(reads).await)
}

#[tokio::test]
async fn no_query_goes_through_all_messages() {
    let Some(postgres) = Postgres::start().await else { return };
    let rows = rows();
    let archive = open(&postgres).await;
    fill(&archive, rows).await;
    archive.close().await;
    // As autovacuum does some time later, and not on its own account while it is counted.
    postgres.sql("VACUUM ANALYZE").await;
    postgres.sql("ALTER SYSTEM SET autovacuum = off").await;
    postgres.sql("SELECT pg_reload_conf()").await;
    if postgres.try_sql("LOAD 'auto_explain'").await.is_err() {
        missing(
            "PostgreSQL lacks auto_explain; run: apt-get install --no-install-recommends postgresql-contrib",
        );
        return;
    }
    for setting in ["session_preload_libraries = 'auto_explain'", "auto_explain.log_min_duration = 0"] {
        postgres.sql(&format!("ALTER DATABASE {USER} SET {setting}")).await;
    }
    let names = [
        "conversations",
        "more conversations",
        "unread",
        "unread of who wrote nearly everything",
        "newest",
        "before",
        "oldest",
        "after",
        "sync",
        "search",
        "prefix",
        "narrow search",
        "writing",
    ];
    for name in names {
        let archive = open(&postgres).await;
        let (before, logged) = (counted(&postgres).await, postgres.log().len());
        let began = Instant::now();
        for turn in 1..=TIMES {
            call(&archive, name, rows, turn as u64).await;
        }
        let took = began.elapsed() / TIMES as u32;
        // What a connection has counted is told when it is closed.
        archive.close().await;
        let log = postgres.log();
        let plans = &log[logged..];
        assert!(plans.contains("Query Text:"), "{name}: plans are logged");
        let after = settled(&postgres).await;
        let (scans, reads) = (after.0 - before.0, (after.1 - before.1) / TIMES as u64);
        println!("{name}: {took:?}, {reads} entries of indexes");
        let scan = plans.lines().find(|line| line.contains("Seq Scan on messages"));
        let is_well = scan.is_none() && scans == 0 && reads < READ_MAX;
        assert!(is_well, "{name}: {scans} scans, {reads} entries of indexes, {scan:?} in {plans}");
    }
}

/// Waits until nobody has anything to count any more.
async fn settled(postgres: &Postgres) -> (u64, u64) {
    let others = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
    while postgres.sql(&others).await != "0" {}
    counted(postgres).await
}
