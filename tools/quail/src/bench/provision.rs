//! Accounts with a session each, for the users of a measurement.
//!
//! A private daemon is asked through its administration, which hashes no passwords; a server that belongs to somebody
//! else is asked like by anybody, one sign-up after the other, as its limits allow.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use quail_client::{Address, Credentials, Error, Guest, Reason};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{BenchError, Phase, Step, Watch, users};
use crate::launcher::Daemon;

/// How often a sign-up is tried again while the server is busy hashing other passwords.
const BUSY_TRIES: u32 = 20;

/// Pause between two tries, where the server gives no advice.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Longest advice of a server that is followed. One that says more wants fewer users.
const ADVICE_MAX: Duration = Duration::from_secs(2);

/// How long the daemon may take to make accounts.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes accounts `bench0001` and on at a private daemon.
pub(super) async fn privately(
    daemon: &mut Daemon,
    count: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Credentials>, BenchError> {
    let of = count as u64;
    watch(Step { phase: Phase::Provision, done: 0, of });
    let handles: String = (1..=count).map(|number| format!("bench{number:04}\n")).collect();
    let creating = tokio::time::timeout(CREATE_TIMEOUT, create(daemon.command(), &handles));
    let output = creating.await.map_err(|_| BenchError::Stuck { what: "the accounts" })?;
    let output = output.map_err(BenchError::Administration)?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BenchError::Provision { status: output.status, detail });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let created: Vec<_> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    if created.len() != count {
        return Err(BenchError::Accounts { expected: count, got: created.len() });
    }
    watch(Step { phase: Phase::Provision, done: of, of });
    Ok(created)
}

async fn create(mut command: Command, handles: &str) -> io::Result<Output> {
    command
        .args(["admin", "accounts", "create", "--handles-from", "-", "--session", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // One that ends before it has read all says why by its exit code.
            let _ = stdin.write_all(handles.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feeding, child.wait_with_output());
    output
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
