//! The SQLite directory against the port's promises, and against what only a file can get wrong.

use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use quail_core::ports::directory::Administration;
use quail_core::ports::directory::conformance::directory_conformance;
use sqlx::Row;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::*;
use crate::adapters::sql::schema::SchemaError;

const NOW_MS: u64 = 1_720_000_000_000;

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("directory.db")
}

fn new_account(seed: u8, handle: &str) -> NewAccount {
    NewAccount {
        account: AccountId([seed; 16]),
        handle: handle.to_owned(),
        password_hash: "hash".to_owned(),
        invite_hash: None,
        device: NewDevice {
            device: DeviceId([seed; 16]),
            name: "phone".to_owned(),
            platform: "android 15".to_owned(),
            token_hash: [seed; 32],
        },
    }
}

#[tokio::test]
async fn the_file_keeps_the_promises_of_the_port() {
    let folder = TempDir::new().unwrap();
    let count = AtomicU32::new(0);
    directory_conformance(async || {
        let name = format!("{}.db", count.fetch_add(1, Ordering::Relaxed));
        let directory = SqliteDirectory::open(&folder.path().join(name)).await.unwrap();
        Box::new(directory) as Box<dyn Administration>
    })
    .await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let first = directory.register_origin(NOW_MS).await.unwrap();
    directory.create_invite([9; 32], NOW_MS).await.unwrap();
    let ada = directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    directory.close().await;
    let error = directory.facts(ada.account).await.unwrap_err();
    assert!(error.is_temporary(), "a closed directory is unavailable: {error}");

    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    assert_eq!(directory.facts(ada.account).await, Ok(Some(ada.clone())));
    assert_eq!(directory.session([1; 32]).await.unwrap().unwrap().account, ada.account);
    let invited = NewAccount { invite_hash: Some([9; 32]), ..new_account(2, "bob") };
    directory.create_account(invited, NOW_MS).await.unwrap();
    assert!(directory.register_origin(NOW_MS).await.unwrap() > first);
}

#[tokio::test]
async fn what_was_answered_is_there_without_closing() {
    // The file as another process finds it after a kill: a copy taken while this one still has it open.
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let ada = directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    let copy = TempDir::new().unwrap();
    for name in ["directory.db", "directory.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let recovered = SqliteDirectory::open(&file(&copy)).await.unwrap();
    assert_eq!(recovered.facts(ada.account).await, Ok(Some(ada)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_ask_for_one_handle_at_once_one_gets_it() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    for round in 0..20 {
        let handle = format!("handle{round}");
        let (first, second) = tokio::join!(
            directory.create_account(new_account(1 + 2 * round, &handle), NOW_MS),
            directory.create_account(new_account(2 + 2 * round, &handle), NOW_MS),
        );
        let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(loser, Err(DirectoryError::HandleTaken));
        assert_eq!(directory.look_up(handle).await, Ok(Some(winner.unwrap())));
    }
}

#[tokio::test]
async fn of_two_processes_that_ask_for_one_handle_one_gets_it() {
    let folder = TempDir::new().unwrap();
    let one = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let other = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let (first, second) = tokio::join!(
        one.create_account(new_account(1, "ada"), NOW_MS),
        other.create_account(new_account(2, "ada"), NOW_MS),
    );
    let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
    assert_eq!(loser, Err(DirectoryError::HandleTaken));
    assert_eq!(one.look_up("ada".to_owned()).await, Ok(Some(winner.unwrap())));
}

#[tokio::test]
async fn a_command_that_is_dropped_halfway_is_rolled_back() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let mut transaction = directory.begin().await.unwrap();
    accounts::create(&mut transaction, &new_account(1, "ada"), NOW_MS).await.unwrap();
    drop(transaction);
    assert_eq!(directory.look_up("ada".to_owned()).await, Ok(None));
    directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
}

#[tokio::test]
async fn a_session_opens_while_a_command_is_running() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    let transaction = directory.begin().await.unwrap();
    assert!(directory.session([1; 32]).await.unwrap().is_some());
    drop(transaction);
}

/// A file of the schema before devices had platforms, with two accounts and three devices.
async fn write_schema_2(path: &std::path::Path) {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path).create_if_missing(true));
    let pool = pool.await.unwrap();
    let known = open::MIGRATIONS.iter().filter(|migration| migration.version <= 2).cloned().collect();
    Migrator { migrations: Cow::Owned(known), ..Migrator::DEFAULT }.run(&pool).await.unwrap();
    for (seed, handle) in [(1_u8, "ada"), (2, "bob")] {
        sqlx::query(
            "INSERT INTO accounts (account, handle, password_hash, version, created_ms) VALUES (?1, ?2, 'hash', 7, ?3)",
        )
        .bind(vec![seed; 16])
        .bind(handle)
        .bind(NOW_MS as i64)
        .execute(&pool)
        .await
        .unwrap();
    }
    for (seed, owner) in [(1_u8, 1_u8), (2, 2), (3, 1)] {
        sqlx::query(
            "INSERT INTO devices (device, account, name, token_hash, created_ms, last_used_ms)
             VALUES (?1, ?2, 'old phone', ?3, ?4, ?5)",
        )
        .bind(vec![seed; 16])
        .bind(vec![owner; 16])
        .bind(vec![seed; 32])
        .bind(NOW_MS as i64 + i64::from(seed))
        .bind(NOW_MS as i64 + 100 * i64::from(seed))
        .execute(&pool)
        .await
        .unwrap();
    }
    pool.close().await;
}

#[tokio::test]
async fn devices_of_an_older_file_keep_their_sessions_names_and_times() {
    let folder = TempDir::new().unwrap();
    write_schema_2(&file(&folder)).await;
    // The second time there is nothing to migrate.
    for _ in 0..2 {
        let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
        let ada = AccountId([1; 16]);
        let summary = |seed: u8| DeviceSummary {
            device: DeviceId([seed; 16]),
            name: "old phone".to_owned(),
            platform: String::new(),
            created_ms: NOW_MS + u64::from(seed),
            last_seen_ms: NOW_MS + 100 * u64::from(seed),
        };
        assert_eq!(directory.devices(ada).await, Ok(vec![summary(1), summary(3)]));
        for (seed, handle) in [(1, "ada"), (2, "bob"), (3, "ada")] {
            let session = directory.session([seed; 32]).await.unwrap().unwrap();
            assert_eq!((session.device, &*session.handle), (DeviceId([seed; 16]), handle));
        }
        let facts = directory.facts(ada).await.unwrap().unwrap();
        assert_eq!((facts.version, facts.devices.len()), (7, 2));
        directory.close().await;
    }

    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let ada = AccountId([1; 16]);
    let new = new_account(9, "unused").device;
    directory.add_device(ada, new, "hash".to_owned(), NOW_MS + 9).await.unwrap();
    directory.record_seen(vec![(DeviceId([3; 16]), NOW_MS + 1_000)]).await.unwrap();
    let listed = directory.devices(ada).await.unwrap();
    let shown: Vec<_> = listed.iter().map(|one| (&*one.platform, one.last_seen_ms - NOW_MS)).collect();
    assert_eq!(shown, [("", 100), ("", 1_000), ("android 15", 9)]);
}

#[tokio::test]
async fn commits_are_synced_and_only_the_owner_reads_the_file() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let mut connection = directory.writer.acquire().await.unwrap();
    let synchronous = sqlx::query("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(synchronous.get::<i64, _>(0), 2, "FULL");
    let journal_mode = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(journal_mode.get::<String, _>(0), "wal");
    let foreign_keys = sqlx::query("PRAGMA foreign_keys").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(foreign_keys.get::<i64, _>(0), 1);

    for name in ["directory.db", "directory.db-wal", "directory.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mut reader = directory.readers.acquire().await.unwrap();
    sqlx::query("DELETE FROM devices").execute(&mut *reader).await.unwrap_err();
}

#[tokio::test]
async fn a_schema_from_the_future_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    let mut connection = directory.writer.acquire().await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut *connection)
    .await
    .unwrap();
    drop(connection);
    directory.close().await;

    let error = SqliteDirectory::open(&file(&folder)).await.err().unwrap();
    assert!(
        matches!(
            error,
            OpenDirectoryError::Schema { source: SchemaError::Newer { version: 9999, known: 1.. }, .. }
        ),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("directory.db") && text.contains("9999"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing").join("directory.db");
    let error = SqliteDirectory::open(&missing).await.err().unwrap();
    assert!(matches!(&error, OpenDirectoryError::Create { path, .. } if *path == missing), "{error:?}");

    std::fs::write(
        file(&folder),
        "this is no database, but it is long enough to look like a file".repeat(100),
    )
    .unwrap();
    let error = SqliteDirectory::open(&file(&folder)).await.err().unwrap();
    assert!(matches!(error, OpenDirectoryError::Open { .. }), "{error:?}");
}

#[tokio::test]
async fn what_this_daemon_cannot_have_written_is_damage() {
    let folder = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(&file(&folder)).await.unwrap();
    directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    let mut connection = directory.writer.acquire().await.unwrap();
    for statement in [
        "PRAGMA ignore_check_constraints = ON",
        "PRAGMA foreign_keys = OFF",
        "UPDATE devices SET device = x'0102'",
    ] {
        sqlx::query(statement).execute(&mut *connection).await.unwrap();
    }
    let error = directory.facts(AccountId([1; 16])).await.unwrap_err();
    assert_eq!(
        error,
        DirectoryError::Corrupt { reason: "column device: device id must be 16 bytes, not 2".to_owned() }
    );
}
