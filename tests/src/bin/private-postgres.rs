//! Runs a program beside a private Postgres, and says what that cost the server: for benchmarks.
//!
//! `private-postgres sh -c 'quail bench chat --archive --storage-url "$POSTGRES_URL" --storage-password-file "$POSTGRES_PASSWORD_FILE"'`
//!
//! The server lies in a temporary directory (`TMPDIR`), has the settings of the tests but for more memory, and is gone afterwards.
#![allow(clippy::expect_used)] // A benchmark without a server ends.

use std::process::{Command, ExitCode};

use quail_tests::postgres::Postgres;
use tempfile::TempDir;

/// As much as a small machine would give it.
const SETTINGS: &[&str] = &["shared_buffers=256MB", "max_wal_size=4GB", "log_connections=off"];

/// Ticks of the kernel's clock in a second, on every Linux there is.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().expect("a program to run");
    let directory = TempDir::new().expect("a temporary directory");
    let Some(postgres) = Postgres::start_with(directory, SETTINGS).await else { return ExitCode::FAILURE };
    let before = postgres.cpu_ticks();
    let mut command = Command::new(program);
    command.args(arguments).env("POSTGRES_URL", postgres.url());
    let status = command.env("POSTGRES_PASSWORD_FILE", postgres.password_file()).status();
    let status = status.expect("the program runs");
    let seconds = (postgres.cpu_ticks() - before) as f64 / TICKS;
    let rows = postgres.sql("SELECT CASE WHEN to_regclass('messages') IS NULL THEN 0 ELSE 1 END").await;
    let rows = if rows == "1" { postgres.sql("SELECT count(*) FROM messages").await } else { rows };
    let rows: u64 = rows.parse().expect("a number");
    let each = seconds * 1e6 / rows.max(1) as f64;
    println!("postgres: {seconds:.2} s of CPU, {rows} messages archived, {each:.1} us each");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
