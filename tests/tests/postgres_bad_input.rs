//! What is wrong with a database or with the way to it, as the operator is told: what failed, and the next step.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::Path;
use std::process::Output;

use quail_tests::postgres::{PASSWORD, Postgres};
use quail_tests::{World, expect, quaild};
use tempfile::TempDir;

/// Runs `quaild` to its end, which is to be a refusal or a report.
async fn run(data: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(quaild());
    command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).args(args).kill_on_drop(true);
    command.env("QUAIL_OPS_LISTEN", "").env_remove("RUST_LOG").envs(env.iter().copied());
    expect("the end of quaild", command.output()).await.unwrap()
}

async fn refused(data: &Path, env: &[(&str, &str)], args: &[&str], says: &[&str]) {
    let output = run(data, env, args).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in says {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    assert!(!told.contains(PASSWORD) && !told.contains("panicked"), "{told}");
}

/// Returns the URL of another database of the same server.
fn database(postgres: &Postgres, name: &str) -> String {
    let url = postgres.url();
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

#[tokio::test]
async fn what_is_wrong_is_told_with_the_next_step() {
    let Some(postgres) = Postgres::start().await else { return };
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (url, file) = (postgres.url(), postgres.password_file().display().to_string());
    let good = ("QUAIL_STORAGE_URL", url.as_str());
    let wrong = postgres.write("wrong", "guess\n").display().to_string();

    refused(
        &data,
        &[good, ("QUAIL_STORAGE_PASSWORD_FILE", &wrong)],
        &[],
        &["password authentication failed", "hint: see that storage.password_file"],
    )
    .await;
    for command in [&[][..], &["check-config"], &["migrate", "--dry-run"]] {
        let missing = [good, ("QUAIL_STORAGE_PASSWORD_FILE", "/nowhere/password")];
        refused(&data, &missing, command, &["read the password file /nowhere/password", "hint: "]).await;
    }
    let other = database(&postgres, "missing");
    let missing = [("QUAIL_STORAGE_URL", other.as_str()), ("QUAIL_STORAGE_PASSWORD_FILE", &file)];
    refused(&data, &missing, &[], &["does not exist", "hint: make it"]).await;

    // A password in the URL is refused and not repeated.
    let spread = url.replace("quail@", &format!("quail:{PASSWORD}@"));
    for command in [&[][..], &["check-config"]] {
        let says = ["storage.url = \"postgres://quail:...@127.0.0.1:", "without password"];
        refused(&data, &[("QUAIL_STORAGE_URL", &spread)], command, &says).await;
    }
    refused(&data, &[("QUAIL_STORAGE_URL", "mysql://db/chat")], &[], &["storage.url = \"mysql://db/chat\""])
        .await;
    refused(&data, &[("QUAIL_STORAGE_CONNECTIONS", "0")], &[], &["from 1 to 64"]).await;
    refused(
        &data,
        &[("QUAIL_STORAGE_URI", "sqlite")],
        &["check-config"],
        &["did you mean QUAIL_STORAGE_URL?"],
    )
    .await;
    // Nothing of all that has begun a data directory with another database.
    assert!(!data.join("directory.id").exists() && !data.join("directory.sqlite").exists());

    postgres.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'").await;
    let guest = postgres.write("guest", "guest").display().to_string();
    let as_guest = url.replace("//quail@", "//guest@");
    let env = [("QUAIL_STORAGE_URL", as_guest.as_str()), ("QUAIL_STORAGE_PASSWORD_FILE", &guest)];
    refused(
        &data,
        &env,
        &[],
        &["permission denied", "hint: let the user own the database, or run `quaild migrate`"],
    )
    .await;
}

#[tokio::test]
async fn a_data_directory_stays_with_the_database_it_began_with() {
    let Some(postgres) = Postgres::start().await else { return };
    let file = postgres.password_file().display().to_string();
    let (url, other) = (postgres.url(), database(&postgres, "other"));
    postgres.sql("CREATE DATABASE other OWNER quail").await;
    let password = ("QUAIL_STORAGE_PASSWORD_FILE", file.as_str());
    let (here, there) = (("QUAIL_STORAGE_URL", url.as_str()), ("QUAIL_STORAGE_URL", other.as_str()));

    // Begun on a file, also by a release that knew nothing else.
    let mut world = World::start().await;
    world.sign_up("ada").await;
    assert!(world.daemon.stop().await.unwrap().success());
    let data = world.daemon.data().to_owned();
    let says = [
        "belongs to a directory of accounts in sqlite",
        "names another one, in postgres",
        "hint: point storage.url back",
    ];
    refused(&data, &[here, password], &[], &says).await;
    std::fs::remove_file(data.join("directory.id")).unwrap();
    refused(&data, &[here, password], &[], &says).await;
    assert_eq!(postgres.sql("SELECT to_regclass('accounts') IS NULL").await, "t");
    world.daemon.restart().await.unwrap();
    world.log_in("ada").await;

    // Begun on a server.
    let mut world = World::start_with(|options| postgres.configure(options)).await;
    let ada = world.sign_up("ada").await;
    assert!(world.daemon.stop().await.unwrap().success());
    let data = world.daemon.data().to_owned();
    refused(&data, &[], &[], &["belongs to a directory of accounts in postgres", "in sqlite"]).await;
    assert!(!data.join("directory.sqlite").exists());
    let belongs = "belongs to a directory of accounts in postgres (";
    refused(&data, &[there, password], &[], &[belongs, "in postgres, which is empty"]).await;
    let output = run(&data, &[there, password], &["migrate"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    refused(&data, &[there, password], &[], &[belongs, "names another one, in postgres ("]).await;
    world.daemon.restart().await.unwrap();
    ada.open().await.ping().await.unwrap();

    // A second data directory at the same database is an origin of its own.
    let second = World::start_with(|options| postgres.configure(options)).await;
    assert_eq!(second.log_in("ada").await.account(), ada.account());
    assert_eq!(
        postgres.sql("SELECT string_agg(origin::text, ' ' ORDER BY origin) FROM origins").await,
        "1 2"
    );
}

#[tokio::test]
async fn a_migration_is_told_before_it_is_made() {
    let Some(postgres) = Postgres::start().await else { return };
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (url, file) = (postgres.url(), postgres.password_file().display().to_string());
    let here = [("QUAIL_STORAGE_URL", url.as_str()), ("QUAIL_STORAGE_PASSWORD_FILE", file.as_str())];
    for env in [&here[..], &[]] {
        let told = async |args: &[&str]| {
            let output = run(&data, env, args).await;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        for _ in 0..2 {
            let told = told(&["migrate", "--dry-run"]).await;
            assert!(
                told.starts_with("would apply 0001 directory\n") && told.contains(" archive\n"),
                "{told}"
            );
            assert!(!data.exists());
        }
        let applied = told(&["migrate"]).await;
        assert!(
            applied.starts_with("applied 0001 directory\n") && applied.contains(" archive\n"),
            "{applied}"
        );
        for args in [&["migrate", "--dry-run"][..], &["migrate"]] {
            assert_eq!(told(args).await, "The schema of directory and archive is up to date.\n");
        }
    }
}
