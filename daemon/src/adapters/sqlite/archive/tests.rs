//! The archive in SQLite against the port's suite, and what only SQLite can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_core::ports::archive::conformance::histories::a_random_history_ends_as_in_the_twin;
use quail_core::ports::archive::conformance::{Archive, archive_conformance};
use quail_core::ports::archive::{Change, ChangeKind, MessageRef, NewMessage, Place};
use quail_protocol::id::{DeviceId, MessageId, Stamp};
use tempfile::TempDir;

use super::*;

/// An archive whose file goes with it.
struct Temporary {
    archive: SqliteArchive,
    _directory: TempDir,
}

async fn temporary() -> Temporary {
    let directory = TempDir::new().unwrap();
    let archive = SqliteArchive::open(&directory.path().join("archive.sqlite")).await.unwrap();
    Temporary { archive, _directory: directory }
}

#[tokio::test]
async fn sqlite_conforms() {
    let kept = std::sync::Mutex::new(Vec::new());
    archive_conformance(async || {
        let Temporary { archive, _directory } = temporary().await;
        kept.lock().unwrap().push(_directory);
        Box::new(archive) as Box<dyn Archive>
    })
    .await;
}

#[tokio::test]
async fn histories_over_months_end_as_in_the_twin() {
    for seed in 0..20 {
        let Temporary { archive, _directory } = temporary().await;
        a_random_history_ends_as_in_the_twin(&archive, seed).await;
    }
}

/// Explains a statement and returns what SQLite would do.
async fn plan(archive: &SqliteArchive, mut query: sqlx::QueryBuilder<Sqlite>) -> Vec<String> {
    let sql = format!("EXPLAIN QUERY PLAN {}", sqlx::Execute::sql(query.build()).as_str());
    // What is not bound is null; the plan is the same.
    let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    let rows = statement.fetch_all(&archive.readers).await.unwrap();
    rows.iter().map(|row| sqlx::Row::get::<String, _>(row, "detail")).collect()
}

fn message(sender: u8, recipient: u8, number: u64) -> NewMessage {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NewMessage {
        message: MessageRef { sender: AccountId([sender; 16]), id: MessageId(id) },
        device: DeviceId([sender; 16]),
        recipient: AccountId([recipient; 16]),
        origin: Origin(1),
        position: Position(number),
        stamp: Stamp(number),
        kind: 1,
        body: format!("message {number} of many").into(),
        reply: None,
    }
}

fn batch(upto: u64, messages: Vec<NewMessage>) -> ArchiveBatch {
    ArchiveBatch { origin: Some(Origin(1)), upto: Position(upto), messages, ..ArchiveBatch::default() }
}

/// `QUAIL_ROWS=1000000` looks at an archive of a million messages.
#[tokio::test]
async fn no_query_goes_through_all_messages() {
    /// Enough for SQLite to have a choice.
    const ROWS: u64 = 100_000;
    let rows = std::env::var("QUAIL_ROWS").map_or(ROWS, |rows| rows.parse().expect("a number of rows"));
    let Temporary { archive, _directory } = temporary().await;
    for first in (0..rows).step_by(10_000) {
        let some = (first + 1..=first + 10_000).map(|number| {
            let (sender, recipient) = ((number % 50) as u8, (number % 49) as u8 + 50);
            message(sender, recipient, number)
        });
        archive.apply(&batch(first + 10_000, some.collect())).await.unwrap();
    }
    // One of two has written nearly everything.
    let lopsided = (rows + 1..=rows + 10_000).map(|number| {
        let (sender, recipient) = if number.is_multiple_of(1_000) { (111, 110) } else { (110, 111) };
        message(sender, recipient, number)
    });
    archive.apply(&batch(rows + 10_000, lopsided.collect())).await.unwrap();
    let conversation = quail_core::ports::archive::direct(AccountId([110; 16]), AccountId([111; 16]));
    assert_eq!(archive.unread(AccountId([110; 16]), conversation).await, Ok(10));
    sqlx::query("ANALYZE").execute(&archive.writer).await.unwrap();
    let (account, conversation) = (AccountId([1; 16]), ConversationId([2; 16]));
    let place = Some(Place { stamp: Stamp(1), origin: Origin(1) });
    let key = place.map(|place| ConversationKey { place, conversation });
    let search = Search {
        conversation: Some(conversation),
        from: Some(account),
        since: Some(Stamp(1)),
        until: Some(Stamp(9)),
        before: place,
        ..Search::default()
    };
    let queries = [
        ("conversations", read::list_query(account, None)),
        ("more conversations", read::list_query(account, key)),
        ("unread", read::unread_query(account, conversation)),
        ("by row", read::by_n_query(account, &[1, 2, 3])),
        ("newest", read::browse_query(account, conversation, Browse::Before(None), 10)),
        ("before", read::browse_query(account, conversation, Browse::Before(place), 10)),
        ("after", read::browse_query(account, conversation, Browse::After(place), 10)),
        ("sync", read::sync_query(conversation, 5, 10)),
        ("search", search::search_query(account, "x", &Search::default())),
        ("narrow search", search::search_query(account, "x", &search)),
        ("highlights", search::highlight_query("x", &[1, 2, 3])),
        ("known", write::known_query(&[message(1, 2, 3)])),
        ("change", changes::find_query(message(1, 2, 3).message)),
    ];
    for (name, query) in queries {
        let plan = plan(&archive, query).await;
        assert!(!plan.is_empty());
        for step in &plan {
            // The index of words is found by its words; what is bound in the statement itself, or was found before, is no table.
            let is_scan = step.starts_with("SCAN");
            let is_harmless = step.contains("VIRTUAL TABLE INDEX")
                || step.contains("keys")
                || step.contains("(subquery")
                || step.contains("CONSTANT ROW");
            assert!(!is_scan || is_harmless, "{name}: {step} in {plan:?}");
            let is_sorted_twice = step.contains("TEMP B-TREE") && !name.contains("search");
            assert!(!is_sorted_twice, "{name}: {step} in {plan:?}");
        }
        if ["conversations", "more conversations", "unread"].contains(&name) {
            let of_the_peer =
                "messages_by_position (conversation=? AND origin=? AND sender=? AND position>?)";
            assert!(plan.iter().any(|step| step.contains(of_the_peer)), "{name}: {plan:?}");
        }
    }
}

#[tokio::test]
async fn what_is_answered_is_synced_and_survives_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("archive.sqlite");
    let archive = SqliteArchive::open(&path).await.unwrap();
    let synchronous = sqlx::query_scalar::<_, i64>("PRAGMA synchronous");
    assert_eq!(synchronous.fetch_one(&archive.writer).await.unwrap(), 2, "FULL: every commit is synced");
    let journal = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
    assert_eq!(journal.fetch_one(&archive.writer).await.unwrap(), "wal");
    for upto in 1..=20 {
        archive.apply(&batch(upto, vec![message(1, 2, upto)])).await.unwrap();
        // What a kill at this moment leaves.
        let left = TempDir::new().unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("archive.sqlite{suffix}");
            std::fs::copy(directory.path().join(&name), left.path().join(&name)).unwrap();
        }
        let found = SqliteArchive::open(&left.path().join("archive.sqlite")).await.unwrap();
        assert_eq!(found.archived(Origin(1)).await, Ok(Some(Position(upto))));
        let conversation = quail_core::ports::archive::direct(AccountId([1; 16]), AccountId([2; 16]));
        let rows = found.browse(AccountId([1; 16]), conversation, Browse::After(None), 100).await.unwrap();
        assert_eq!(rows.rows.len() as u64, upto, "archived is not ahead of the rows");
    }
}

#[tokio::test]
async fn the_index_of_words_is_what_is_there() {
    let Temporary { archive, _directory } = temporary().await;
    archive.apply(&batch(9, (1..=9).map(|number| message(1, 2, number)).collect())).await.unwrap();
    let change = |id, kind| Change {
        message: message(1, 2, id).message,
        recipient: AccountId([2; 16]),
        origin: Origin(1),
        stamp: Stamp(50),
        kind,
    };
    let changes = vec![
        change(1, ChangeKind::Edit { kind: 1, body: "other words".into() }),
        change(2, ChangeKind::DeleteForAll),
        change(20, ChangeKind::Edit { kind: 1, body: "early".into() }),
    ];
    archive.apply(&ArchiveBatch { changes, ..batch(10, Vec::new()) }).await.unwrap();
    let earlier = NewMessage { stamp: Stamp(0), position: Position(30), ..message(1, 2, 3) };
    let other = NewMessage { body: "another".into(), ..earlier };
    archive.apply(&batch(30, vec![other, message(1, 2, 20)])).await.unwrap();
    let check = sqlx::query("INSERT INTO found (found, rank) VALUES ('integrity-check', 1)");
    check.execute(&archive.writer).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_the_future_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("archive.sqlite");
    let archive = SqliteArchive::open(&path).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'of the future', 1, x'00', 0)";
    sqlx::query(newer).execute(&archive.writer).await.unwrap();
    archive.close().await;
    let refused = SqliteArchive::open(&path).await;
    assert!(matches!(refused, Err(OpenArchiveError::Newer { version: 99, .. })));
    std::fs::write(&path, "no database at all, but a text that is long enough to be looked at as one")
        .unwrap();
    assert!(matches!(
        SqliteArchive::open(&path).await,
        Err(OpenArchiveError::Open { .. } | OpenArchiveError::Migrate { .. })
    ));
}

mod properties;
