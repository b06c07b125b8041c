//! What a server holds of others while it is measured: accounts that only are there, and messages that wait for them.
//!
//! Neither is to make a message slower. The accounts have a device each that was never connected, so that the daemon knows
//! them; the messages come from some of these accounts and lie evenly in the outboxes of all others.
//!
//! Invariants: no outbox gets near what it holds, so everything that waits must still be there at the end; the measurement
//! begins when the daemon has put all of it where it stays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quail_client::{AccountId, Address, Client, Credentials, MemoryStore, Sending};
use serde::Serialize;
use tokio::task::JoinSet;

use super::message::{Stub, Writer};
use super::report::per_second;
use super::server::Server;
use super::users::{self, Sockets};
use super::{BenchError, PROGRESS_INTERVAL, Phase, Step, Watch};

/// Most messages that wait for one account: half of what an outbox holds.
const WAITING_EACH_MAX: u64 = 5_000;

/// How many accounts the waiting messages come from.
const SENDERS: usize = 64;

/// How many of its messages a sender has on their way.
const WINDOW: usize = 128;

/// Length of a waiting message in bytes.
const SIZE: usize = 256;

/// From how little of a processor the daemon counts as having put everything in its place, how long it must be so (it does so
/// every 5 s), and how long that is waited for.
const QUIET_SHARE: f64 = 0.05;
const QUIET_TIME: Duration = Duration::from_secs(6);
const QUIET_TIMEOUT: Duration = Duration::from_secs(120);

/// Most accounts.
pub const ACCOUNTS_MAX: usize = 10_000_000;

/// Most messages that wait.
pub const BACKLOG_MAX: u64 = 100_000_000;

/// What a server is to hold of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackgroundOptions {
    /// So many accounts. More are made if the backlog needs them.
    pub accounts: usize,
    /// So many messages of 256 bytes that wait for them.
    pub backlog: u64,
}

/// What a server held of others, and what making that took.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Background {
    /// How many accounts.
    pub accounts: usize,
    /// Accounts made per second.
    pub accounts_per_s: f64,
    /// Memory of the daemon's process per account.
    pub bytes_per_account: Option<f64>,
    /// How many messages wait.
    pub backlog: u64,
    /// Messages stored per second.
    pub backlog_per_s: f64,
    /// Memory of the daemon's process per waiting message.
    pub bytes_per_waiting: Option<f64>,
    /// How many of the waiting messages the daemon did not hold any more at the end.
    pub missing: u64,
}

impl Background {
    /// Looks whether all that waits is still there.
    pub(super) async fn look_again(&mut self, server: &Server) -> Result<(), BenchError> {
        let held = server.unacknowledged().await?.unwrap_or_default();
        self.missing = self.backlog.saturating_sub(held);
        Ok(())
    }
}

/// Fills a server.
pub(super) async fn prepare(
    server: &mut Server,
    options: &BackgroundOptions,
    watch: &mut Watch<'_>,
) -> Result<Option<Background>, BenchError> {
    let recipients = options.backlog.div_ceil(WAITING_EACH_MAX) as usize;
    let senders = if options.backlog > 0 { SENDERS } else { 0 };
    let accounts = options.accounts.max(senders + recipients);
    if accounts == 0 {
        return Ok(None);
    }
    let empty = memory(server)?;
    let began = Instant::now();
    let kept = if options.backlog > 0 { accounts } else { 0 };
    let others = server.provision_others(accounts, kept, watch).await?;
    let accounts_per_s = per_second(accounts as u64, began.elapsed());
    settle(server).await?;
    let with_accounts = memory(server)?;
    let mut backlog_per_s = 0.0;
    if options.backlog > 0 {
        let began = Instant::now();
        store(server.address(), &others, options.backlog, watch).await?;
        backlog_per_s = per_second(options.backlog, began.elapsed());
        settle(server).await?;
    }
    Ok(Some(Background {
        accounts,
        accounts_per_s,
        bytes_per_account: each(empty, with_accounts, accounts as u64),
        backlog: options.backlog,
        backlog_per_s,
        bytes_per_waiting: each(with_accounts, memory(server)?, options.backlog),
        missing: 0,
    }))
}

fn memory(server: &Server) -> Result<Option<u64>, BenchError> {
    Ok(server.usage()?.map(|usage| usage.rss_bytes))
}

/// Spreads what grew over so many.
fn each(before: Option<u64>, after: Option<u64>, count: u64) -> Option<f64> {
    let grown = before.zip(after).map(|(before, after)| after.saturating_sub(before))?;
    (count > 0).then(|| (grown as f64 / count as f64).round())
}

/// Waits until the daemon has nothing more to do.
async fn settle(server: &Server) -> Result<(), BenchError> {
    let began = Instant::now();
    while began.elapsed() < QUIET_TIMEOUT {
        let before = server.usage()?;
        tokio::time::sleep(QUIET_TIME).await;
        let Some((before, after)) = before.zip(server.usage()?) else { return Ok(()) };
        if after.cpu.saturating_sub(before.cpu) < QUIET_TIME.mul_f64(QUIET_SHARE) {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends so many messages to those who are away.
async fn store(
    address: &Address,
    others: &[Credentials],
    count: u64,
    watch: &mut Watch<'_>,
) -> Result<(), BenchError> {
    let (senders, recipients) = others.split_at(SENDERS.min(others.len() / 2));
    let recipients: Arc<[AccountId]> = recipients.iter().map(|other| other.account).collect();
    let sockets = Sockets::bind(address, senders.len())?;
    let stored = Arc::new(AtomicU64::new(0));
    let mut storing = JoinSet::new();
    for (number, credentials) in senders.iter().enumerate() {
        let socket = sockets.of(number);
        let client = Client::open(address, credentials, MemoryStore::new(), users::options(socket)).await;
        let client = client.map_err(BenchError::client("connect"))?;
        let (recipients, stored, step) = (recipients.clone(), stored.clone(), senders.len());
        storing.spawn(async move {
            let turns = (number as u64..count).step_by(step);
            send_all(client, number as u32, turns, &recipients, &stored).await
        });
    }
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            ended = storing.join_next() => match ended {
                None => return Ok(()),
                Some(ended) => ended.map_err(|error| BenchError::Part(error.to_string()))??,
            },
            _ = tick.tick() => {
                let done = stored.load(Ordering::Relaxed);
                watch(Step { phase: Phase::Store, done, of: count });
            }
        }
    }
}

/// Sends the messages of one sender, each to the recipient whose turn it is.
async fn send_all(
    client: Client,
    sender: u32,
    turns: impl Iterator<Item = u64>,
    recipients: &[AccountId],
    stored: &AtomicU64,
) -> Result<(), BenchError> {
    let mut writer = Writer::new(SIZE);
    let began = Instant::now();
    let mut unanswered: VecDeque<Sending> = VecDeque::with_capacity(WINDOW);
    for (number, turn) in turns.enumerate() {
        let Some(recipient) = recipients.get((turn % recipients.len().max(1) as u64) as usize) else { break };
        let stub = Stub { sender, number: number as u64, due: began.elapsed() };
        let (id, body) = writer.write(&stub);
        let sending = client.send_with_id(id, *recipient, body).await;
        unanswered.push_back(sending.map_err(BenchError::client("send"))?);
        if unanswered.len() >= WINDOW
            && let Some(sending) = unanswered.pop_front()
        {
            sending.accepted().await.map_err(BenchError::Refused)?;
            stored.fetch_add(1, Ordering::Relaxed);
        }
    }
    for sending in unanswered {
        sending.accepted().await.map_err(BenchError::Refused)?;
        stored.fetch_add(1, Ordering::Relaxed);
    }
    // Everything is answered; whether the server hears of the end does not matter.
    let _ = client.close().await;
    Ok(())
}
