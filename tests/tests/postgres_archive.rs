//! The archive in a real Postgres: the promises of its port, with several daemons at once and with what only a server can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use quail_core::ports::archive::conformance::histories::a_random_history_ends_as_in_the_twin;
use quail_core::ports::archive::conformance::{Archive, archive_conformance};
use quail_core::ports::archive::{
    ArchiveBatch, ArchiveError, Browse, Change, ChangeKind, MessageRef, NewMessage, ReadArchive, Search,
    Term, WriteArchive, direct,
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

/// The months that have a table, and how many rows are in each.
async fn months(postgres: &Postgres) -> Vec<String> {
    let found = postgres.sql("SELECT month, count(*) FROM messages GROUP BY month ORDER BY month").await;
    found.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_message_has_one_place_by_way_of_two_origins_and_over_the_border_of_a_month() {
    let Some(postgres) = Postgres::start().await else { return };
    let archive = open(&postgres).await;
    let (ada, conversation) = (account(1), direct(account(1), account(2)));
    // Minted in February, accepted in March and once more, after a restore, in April; a change came first of all.
    let minted_at = MARCH_MS - 1;
    let first = NewMessage { stamp: Stamp::from_ms(MARCH_MS + 5), ..message(1, 2, 1, minted_at) };
    let again = NewMessage {
        origin: Origin(2),
        position: Position(9),
        stamp: Stamp::from_ms(MARCH_MS + 45 * DAY_MS),
        ..first.clone()
    };
    let react = Change {
        message: first.message,
        recipient: account(2),
        origin: Origin(2),
        stamp: Stamp::from_ms(MARCH_MS + 46 * DAY_MS),
        kind: ChangeKind::React { account: account(2), reaction: Some("+".to_owned()) },
    };
    let of_second =
        |upto, messages, changes| ArchiveBatch { origin: Some(Origin(2)), changes, ..batch(upto, messages) };
    archive.apply(&of_second(8, Vec::new(), vec![react])).await.unwrap();
    assert!(archive.conversations(ada, None).await.unwrap().conversations.is_empty());
    assert_eq!(archive.apply(&of_second(9, vec![again], Vec::new())).await.unwrap().inserted, 1);
    let between = message(2, 1, 2, MARCH_MS + 20 * DAY_MS);
    let applied = archive.apply(&batch(2, vec![first.clone(), between.clone()])).await.unwrap();
    assert_eq!((applied.inserted, applied.losers.len()), (1, 0));
    assert_eq!(months(&postgres).await, ["202602|1", "202603|1"]);
    for which in [Browse::After(None), Browse::Before(None)] {
        let mut rows = archive.browse(ada, conversation, which, 10).await.unwrap().rows;
        rows.sort_by_key(|row| row.stamp);
        let found: Vec<_> = rows.iter().map(|row| (row.message, row.origin, row.stamp)).collect();
        let expected = [&first, &between].map(|new| (new.message, Origin(1), new.stamp));
        assert_eq!(found, expected);
        assert_eq!(rows[0].reactions, [(account(2), "+".to_owned())]);
    }
}

#[tokio::test]
async fn what_is_late_is_found_and_what_was_deleted_before_it_came_is_not() {
    let Some(postgres) = Postgres::start().await else { return };
    let archive = open(&postgres).await;
    let (ada, conversation) = (account(1), direct(account(1), account(2)));
    // Ids up to 60 days older than the moment at which they were accepted, and clocks that were years wrong.
    let late = [0, 1, 30, 59, 60, 1_000, 9_000].map(|days: u64| {
        let number = days + 1;
        let stamp = Stamp(Stamp::from_ms(MARCH_MS + days * DAY_MS / 1_000).0 + number);
        NewMessage { stamp, ..message(1, 2, number, MARCH_MS - days * DAY_MS) }
    });
    let delete = Change {
        message: late[3].message,
        recipient: account(2),
        origin: Origin(1),
        stamp: Stamp::from_ms(MARCH_MS + DAY_MS),
        kind: ChangeKind::DeleteForAll,
    };
    archive.apply(&ArchiveBatch { changes: vec![delete], ..batch(1, Vec::new()) }).await.unwrap();
    archive.apply(&batch(20_000, late.to_vec())).await.unwrap();
    let rows = archive.browse(ada, conversation, Browse::After(None), 100).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.stamp).collect::<Vec<_>>(), late.clone().map(|new| new.stamp));
    let mut down = archive.browse(ada, conversation, Browse::Before(None), 100).await.unwrap().rows;
    down.reverse();
    assert_eq!(down, rows);
    let terms = vec![Term::Prefix("word".to_owned())];
    let found = archive.search(ada, Search { terms, limit: 100, ..Search::default() }).await.unwrap();
    assert_eq!(found.rows.len(), late.len() - 1, "what is deleted is not found");
    assert!(found.rows.iter().all(|found| found.message.message != late[3].message));
    assert!(
        postgres.sql("SELECT count(body) FROM messages WHERE is_deleted").await == "0",
        "nothing is left of it"
    );
}

#[tokio::test]
async fn a_batch_that_is_given_up_at_any_moment_is_there_once_when_it_comes_again() {
    let Some(postgres) = Postgres::start().await else { return };
    let archive = open(&postgres).await;
    let mut lost = 0;
    for upto in 1..=rounds(40) as u64 {
        let messages = (0..50).map(|number| message(1, 2, upto * 50 + number, MARCH_MS + upto));
        let batch = batch(upto, messages.collect());
        // From at once to what a batch takes: some are given up while they are committed.
        for tries in 0.. {
            let patience = Duration::from_micros(tries * 700 + upto * 37);
            match tokio::time::timeout(patience, archive.apply(&batch)).await {
                Ok(applied) => {
                    // Zero, where one that was given up was done all the same.
                    let inserted = applied.unwrap().inserted;
                    lost += usize::from(inserted == 0);
                    assert!(inserted == 0 || inserted == 50);
                    break;
                }
                Err(_) => assert!(tries < 10_000, "it never ends"),
            }
        }
        let rows = postgres.sql("SELECT count(*), max(seq) FROM messages").await;
        assert_eq!(rows, format!("{0}|{0}", upto * 50));
    }
    println!("{lost} commits whose answer was lost");
}

#[tokio::test]
async fn daemons_that_write_at_once_leave_what_one_after_the_other_would() {
    let Some(postgres) = Postgres::start().await else { return };
    let mut daemons = JoinSet::new();
    let batches = rounds(25) as u64;
    for origin in 1..=4_u32 {
        let archive = open(&postgres).await;
        daemons.spawn(async move {
            for upto in 1..=batches {
                // All write the same messages, each in its own order; some ids go to somebody else by way of one origin.
                let messages = (0..40).map(|turn| {
                    let number = (turn * 7 + u64::from(origin) * 11 + upto * 3) % 200 + 1;
                    let recipient = if number % 20 == 0 { 10 + u64::from(origin) } else { number % 3 };
                    let new = message(5 + number % 2, recipient, number, MARCH_MS + number);
                    let position = Position(number * 10 + u64::from(origin));
                    NewMessage { origin: Origin(origin), position, ..new }
                });
                let messages: Vec<_> = messages.collect();
                let changes = messages.iter().step_by(5).map(|new| Change {
                    message: new.message,
                    recipient: new.recipient,
                    origin: Origin(origin),
                    stamp: Stamp::from_ms(MARCH_MS + upto),
                    kind: ChangeKind::React {
                        account: account(1),
                        reaction: Some(format!("{origin} {upto}")),
                    },
                });
                let changes = changes.collect();
                let batch = ArchiveBatch { origin: Some(Origin(origin)), changes, ..batch(upto, messages) };
                while let Err(error) = archive.apply(&batch).await {
                    // Each of them got something done; the writer tries again.
                    assert!(matches!(error, ArchiveError::Unavailable { .. }), "{error:?}");
                }
            }
            archive.close().await;
        });
    }
    expect("the daemons", daemons.join_all()).await;
    assert_eq!(postgres.sql("SELECT count(*) FROM messages").await, "200", "each message once");
    assert_eq!(postgres.sql("SELECT DISTINCT origin FROM messages").await, "1", "of all copies the smallest");
    let doubled =
        "SELECT count(*) FROM (SELECT 1 FROM messages GROUP BY conversation, seq HAVING count(*) > 1) AS x";
    assert_eq!(postgres.sql(doubled).await, "0", "a seq was given once");
    let ahead = "SELECT count(*) FROM messages JOIN conversations AS c USING (conversation) WHERE messages.seq > c.seq";
    assert_eq!(postgres.sql(ahead).await, "0");
    let wrong = "SELECT count(*) FROM members AS m WHERE stamp > 0 AND (stamp, origin) <> (SELECT x.stamp, x.origin FROM messages AS x
        WHERE x.conversation = m.conversation ORDER BY x.stamp DESC, x.origin DESC LIMIT 1)";
    assert_eq!(postgres.sql(wrong).await, "0", "lists show the newest message");
    let newest = format!("SELECT count(*) FROM reactions WHERE reaction = '4 {batches}'");
    assert_ne!(postgres.sql(&newest).await, "0", "of reactions the latest");
}

#[tokio::test]
async fn a_table_that_somebody_removes_is_made_again_and_costs_no_other_message() {
    let Some(postgres) = Postgres::start().await else { return };
    let archive = open(&postgres).await;
    archive.apply(&batch(1, vec![message(1, 2, 1, MARCH_MS)])).await.unwrap();
    // As an operator may do with what is old.
    postgres.sql("DROP TABLE messages_202603").await;
    let next = vec![message(1, 2, 2, MARCH_MS), message(1, 2, 3, MARCH_MS + 40 * DAY_MS)];
    assert_eq!(archive.apply(&batch(3, next)).await.unwrap().inserted, 2);
    assert_eq!(months(&postgres).await, ["202603|1", "202604|1"]);
    let rows = archive
        .browse(account(1), direct(account(1), account(2)), Browse::After(None), 9)
        .await
        .unwrap()
        .rows;
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_daemon_that_may_not_make_tables_has_those_of_new_months() {
    let Some(postgres) = Postgres::start().await else { return };
    let owner = open(&postgres).await;
    postgres.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'").await;
    postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest").await;
    let mut guest = options(&postgres);
    guest.place.user = "guest".to_owned();
    guest.password = Some(Secret("guest".to_owned()));
    let archive = PostgresArchive::open(&guest).await.unwrap();
    assert_eq!(archive.apply(&batch(1, vec![message(1, 2, 1, MARCH_MS)])).await.unwrap().inserted, 1);
    let delete = Change {
        message: message(1, 2, 1, MARCH_MS).message,
        recipient: account(2),
        origin: Origin(1),
        stamp: Stamp::from_ms(MARCH_MS + 1),
        kind: ChangeKind::DeleteForMe { account: account(2) },
    };
    archive.apply(&ArchiveBatch { changes: vec![delete], ..batch(2, Vec::new()) }).await.unwrap();
    assert_eq!(months(&postgres).await, ["202603|1"]);
    // A right that is taken away is for an operator to give back: nothing is set aside for it.
    postgres.sql("REVOKE INSERT ON messages FROM guest").await;
    let refused = archive.apply(&batch(3, vec![message(1, 2, 3, MARCH_MS)])).await;
    assert!(matches!(refused, Err(ArchiveError::Unavailable { .. })), "{refused:?}");
    owner.close().await;
}

#[tokio::test]
async fn a_database_that_cannot_keep_all_characters_is_refused() {
    let Some(postgres) = Postgres::start().await else { return };
    postgres
        .sql(&format!("CREATE DATABASE other OWNER {USER} ENCODING 'SQL_ASCII' TEMPLATE template0"))
        .await;
    let mut other = options(&postgres);
    other.place.database = "other".to_owned();
    let error = PostgresArchive::open(&other).await.err().unwrap();
    assert!(matches!(&error, PostgresError::Encoding { encoding, .. } if encoding == "SQL_ASCII"), "{error}");
    assert!(error.hint().contains("--encoding UTF8") && !error.is_temporary());
}

#[tokio::test]
async fn readers_who_wait_keep_neither_the_writer_nor_a_log_in() {
    let Some(postgres) = Postgres::start().await else { return };
    let hasty = PostgresOptions { statement_timeout: Duration::from_secs(2), ..options(&postgres) };
    let archive = PostgresArchive::open(&hasty).await.unwrap();
    let directory = quaild::adapters::postgres::PostgresDirectory::open(&hasty).await.unwrap();
    archive.apply(&batch(1, vec![message(1, 2, 1, MARCH_MS)])).await.unwrap();
    // Every browse waits for this table, until its time is over.
    let locking =
        postgres.sql("BEGIN; LOCK TABLE months IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(6); COMMIT");
    let others = async {
        let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'months'::regclass";
        while postgres.sql(locked).await == "0" {}
        let mut waiting = JoinSet::new();
        for _ in 0..12 {
            let archive = archive.clone();
            waiting.spawn(async move {
                let conversation = direct(account(1), account(2));
                archive.browse(account(1), conversation, Browse::After(None), 9).await
            });
        }
        let began = Instant::now();
        for upto in 2..20 {
            use quail_core::ports::directory::Directory;
            archive.apply(&batch(upto, vec![message(1, 2, upto, MARCH_MS)])).await.unwrap();
            assert_eq!(directory.look_up("nobody".to_owned()).await, Ok(None));
        }
        let took = began.elapsed();
        let answers = expect("answers", waiting.join_all()).await;
        for answer in answers {
            assert!(matches!(answer, Err(ArchiveError::Unavailable { .. })), "{answer:?}");
        }
        took
    };
    let (_, took) = tokio::join!(locking, others);
    println!("18 batches and look-ups took {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let rows = archive
        .browse(account(1), direct(account(1), account(2)), Browse::After(None), 99)
        .await
        .unwrap()
        .rows;
    assert_eq!(rows.len(), 19);
}
