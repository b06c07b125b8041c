//! A storm of log-ins: with right and wrong passwords in turns, as fast as the server lets it.
//!
//! Invariant: whatever the server answers is counted under its reason; only that it does not answer at all ends a try without
//! a count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quail_client::{Address, Error, Guest};
use tokio::task::JoinSet;

use super::super::{BenchError, users};

/// How many log in at once: more than the daemon hashes at once and lets wait for that on a few cores.
const CLIENTS: usize = 32;

/// How many accounts they log in to. Each has room for 32 devices; what is above is refused, after the password was checked.
const ACCOUNTS: usize = 16;

/// How many tries a connection is used for.
const TRIES_PER_CONNECTION: usize = 8;

/// How long who was told that the server is busy waits at the most. Who keeps asking without a pause measures himself.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

const RIGHT: &str = "correct horse battery";
const WRONG: &str = "correct horse buttery";

/// What came of the tries.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries {
    /// How many were logged in.
    pub(super) logged_in: u64,
    /// How many were refused, by the reason.
    pub(super) refused: BTreeMap<String, u64>,
}

impl Tries {
    fn add(&mut self, other: Self) {
        self.logged_in += other.logged_in;
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }
}

/// Makes the accounts that are logged in to.
pub(super) async fn sign_up(address: &Address) -> Result<Vec<String>, BenchError> {
    let handles: Vec<_> = (1..=ACCOUNTS).map(|number| format!("storm{number:04}")).collect();
    for handle in &handles {
        let guest = Guest::connect(address, users::options(None)).await;
        let guest = guest.map_err(BenchError::client("connect"))?;
        guest.sign_up(handle, RIGHT, None).await.map_err(BenchError::client("sign up"))?;
        guest.close().await;
    }
    Ok(handles)
}

/// Logs in from one moment to another.
pub(super) async fn rage(
    address: Address,
    handles: Vec<String>,
    (from, upto): (Instant, Instant),
) -> Result<Tries, BenchError> {
    tokio::time::sleep_until(from.into()).await;
    let mut raging = JoinSet::new();
    for number in 0..CLIENTS {
        let (address, handle) = (address.clone(), handles[number % handles.len().max(1)].clone());
        raging.spawn(async move {
            let mut tries = Tries::default();
            // Who is just waiting for an answer at the end does not wait for it any more.
            let _ = tokio::time::timeout_at(upto.into(), log_in(&address, &handle, &mut tries)).await;
            tries
        });
    }
    let mut all = Tries::default();
    while let Some(ended) = raging.join_next().await {
        all.add(ended.map_err(|error| BenchError::Part(error.to_string()))?);
    }
    Ok(all)
}

/// Logs in for ever.
async fn log_in(address: &Address, handle: &str, tries: &mut Tries) {
    loop {
        let guest = match Guest::connect(address, users::options(None)).await {
            Ok(guest) => guest,
            Err(error) => {
                refused(&error, tries).await;
                continue;
            }
        };
        for number in 0..TRIES_PER_CONNECTION {
            let password = if number % 2 == 0 { WRONG } else { RIGHT };
            match guest.log_in(handle, password).await {
                // It has a session now; who logs in again does so on another connection.
                Ok(_) => {
                    tries.logged_in += 1;
                    break;
                }
                Err(error) => {
                    refused(&error, tries).await;
                    if error.reason().is_none() {
                        break;
                    }
                }
            }
        }
        guest.close().await;
    }
}

async fn refused(error: &Error, tries: &mut Tries) {
    let reason = error.reason().map_or("CONNECTION_LOST", |reason| reason.as_str_name());
    *tries.refused.entry(reason.to_owned()).or_default() += 1;
    if let Some(pause) = error.retry_after() {
        tokio::time::sleep(pause.min(BUSY_PAUSE)).await;
    }
}
