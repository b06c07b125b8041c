//! Accounts with a session each, for the users of a measurement.
//!
//! A private daemon is asked through its administration, which hashes no passwords; a server that belongs to somebody
//! else is asked like by anybody, one sign-up after the other, as its limits allow.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use quail_client::{Address, Credentials, Error, Guest, Reason};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{BenchError, Phase, Step, Watch, users};
use crate::launcher::Daemon;

/// How often a sign-up is tried again while the server is busy hashing other passwords.
const BUSY_TRIES: u32 = 20;

/// Pause between two tries, where the server gives no advice.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Longest advice of a server that is followed. One that says more wants fewer users.
const ADVICE_MAX: Duration = Duration::from_secs(2);

/// How long the daemon may take to its next answer: to a batch of accounts, while it writes to its disk.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How many accounts are made between two words on progress.
const PROGRESS_ACCOUNTS: usize = 500;

/// Makes accounts `bench0001` and on at a private daemon.
pub(super) async fn privately(
    daemon: &mut Daemon,
    count: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Credentials>, BenchError> {
    create(daemon, "bench", count, count, watch).await
}

/// Makes accounts `other0001` and on, who only are there, with a device each. Returns the first `kept` of them.
pub(super) async fn others(
    daemon: &mut Daemon,
    count: usize,
    kept: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Credentials>, BenchError> {
    create(daemon, "other", count, kept, watch).await
}

async fn create(
    daemon: &mut Daemon,
    prefix: &str,
    count: usize,
    kept: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Credentials>, BenchError> {
    let handles: String = (1..=count).map(|number| format!("{prefix}{number:04}\n")).collect();
    let mut child = creator(daemon.command()).map_err(BenchError::Administration)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // One that ends before it has read all says why by its exit code.
            let _ = stdin.write_all(handles.as_bytes()).await;
        }
    };
    let complaining = async {
        let mut detail = String::new();
        if let Some(mut stderr) = stderr {
            // What it says is for people; without it the exit code is left.
            let _ = stderr.read_to_string(&mut detail).await;
        }
        detail
    };
    let reading = async {
        match stdout {
            Some(stdout) => created(stdout, count, kept, watch).await,
            None => Ok((0, Vec::new())),
        }
    };
    let ((), detail, read) = tokio::join!(feeding, complaining, reading);
    let (got, credentials) = read?;
    let status = child.wait().await.map_err(BenchError::Administration)?;
    if !status.success() {
        return Err(BenchError::Provision { status, detail: detail.trim().to_owned() });
    }
    if got != count || credentials.len() != kept.min(count) {
        return Err(BenchError::Accounts { expected: count, got });
    }
    Ok(credentials)
}

fn creator(mut command: Command) -> io::Result<Child> {
    command
        .args(["admin", "accounts", "create", "--handles-from", "-", "--session", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Counts the accounts as they are made and returns the first of them.
async fn created(
    stdout: ChildStdout,
    count: usize,
    kept: usize,
    watch: &mut Watch<'_>,
) -> Result<(usize, Vec<Credentials>), BenchError> {
    let of = count as u64;
    let mut lines = BufReader::new(stdout).lines();
    let (mut got, mut credentials) = (0, Vec::with_capacity(kept.min(count)));
    watch(Step { phase: Phase::Provision, done: 0, of });
    loop {
        let line = tokio::time::timeout(SILENCE_MAX, lines.next_line()).await;
        let line = line.map_err(|_| BenchError::Stuck { what: "the accounts" })?;
        let Some(line) = line.map_err(BenchError::Administration)? else { break };
        got += 1;
        if credentials.len() < kept {
            credentials.extend(serde_json::from_str::<Credentials>(&line).ok());
        }
        if got % PROGRESS_ACCOUNTS == 0 {
            watch(Step { phase: Phase::Provision, done: got as u64, of });
        }
    }
    watch(Step { phase: Phase::Provision, done: of, of });
    Ok((got, credentials))
}

/// Asks a private daemon how many events it holds that some device has yet to acknowledge.
pub(super) async fn unacknowledged(daemon: &Daemon) -> Result<u64, BenchError> {
    let mut command = daemon.command();
    command.args(["admin", "status", "--json"]).stdin(Stdio::null()).kill_on_drop(true);
    let asked = tokio::time::timeout(SILENCE_MAX, command.output()).await;
    let output = asked.map_err(|_| BenchError::Stuck { what: "the daemon's status" })?;
    let output = output.map_err(BenchError::Administration)?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["unacknowledged_events"].as_u64().ok_or_else(|| BenchError::Provision {
        status: output.status,
        detail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Signs up accounts with handles of chance.
pub(super) async fn publicly(
    address: &Address,
    count: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Credentials>, BenchError> {
    let run = quail_client::new_message_id().0;
    // The last bytes of the id are of chance.
    let run: String = run[10..].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut made = Vec::with_capacity(count);
    for number in 0..count {
        watch(Step { phase: Phase::Provision, done: number as u64, of: count as u64 });
        let handle = format!("bench_{run}_{number}");
        made.push(sign_up(address, &handle).await.map_err(BenchError::client("sign up"))?);
    }
    Ok(made)
}

async fn sign_up(address: &Address, handle: &str) -> Result<Credentials, Error> {
    // Nobody logs in a second time, so nobody needs to know it.
    let password = quail_client::new_message_id().to_string();
    let guest = Guest::connect(address, users::options(None)).await?;
    let mut tries = 0;
    let signed_up = loop {
        match guest.sign_up(handle, &password, None).await {
            Err(error) if error.reason() == Some(Reason::Busy) && tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(error.retry_after().unwrap_or(BUSY_PAUSE).min(ADVICE_MAX)).await;
            }
            other => break other,
        }
    };
    guest.close().await;
    signed_up
}
