//! Fills an archive: messages both ways between a reader and its peers, as clients send them.

use std::collections::VecDeque;

use quail_client::{AccountId, Address, Client, Credentials, MemoryStore, Sending};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::super::{BenchError, Phase, Step, Watch, users};

/// The word that stands in all messages.
pub(super) const COMMON: &str = "common";

/// The word that stands in one of a thousand.
pub(super) const RARE: &str = "needle";

/// Of so many messages one is the peer's, and unread.
const PEERS_SHARE: u32 = 10;

/// One of so many messages has the rare word.
const RARE_SHARE: u32 = 1_000;

/// How many messages are filled between two words on progress.
const PROGRESS_MESSAGES: u32 = 256;

/// Sends so many messages, spread evenly over the conversations; returns when all are accepted.
pub(super) async fn fill(
    reader: &Client,
    address: &Address,
    peers: &[Credentials],
    messages: u32,
    watch: &mut Watch<'_>,
) -> Result<(), BenchError> {
    let mut number = 0;
    let mut told = |number: u32| {
        if number.is_multiple_of(PROGRESS_MESSAGES) {
            watch(Step { phase: Phase::Store, done: u64::from(number), of: u64::from(messages) });
        }
    };
    let conversations = u32::try_from(peers.len()).unwrap_or(u32::MAX);
    for (peer, place) in peers.iter().zip(0..) {
        // What does not divide evenly goes to the first ones.
        let count = messages / conversations + u32::from(place < messages % conversations);
        let theirs = count / PEERS_SHARE;
        let mut sending = Pipeline::default();
        for _ in theirs..count {
            sending.send(reader, peer.account, number).await?;
            number += 1;
            told(number);
        }
        sending.finish().await?;
        if theirs > 0 {
            let client = Client::open(address, peer, MemoryStore::new(), users::options(None)).await;
            let client = client.map_err(BenchError::client("connect"))?;
            for _ in 0..theirs {
                sending.send(&client, reader.account(), number).await?;
                number += 1;
                told(number);
            }
            sending.finish().await?;
            // Everything is answered; whether the server hears of the end does not matter.
            let _ = client.close().await;
        }
    }
    Ok(())
}

/// Messages on their way: the answer to each is waited for a window later, so that the lane never runs dry.
#[derive(Default)]
struct Pipeline(VecDeque<Sending>);

impl Pipeline {
    async fn send(&mut self, client: &Client, to: AccountId, number: u32) -> Result<(), BenchError> {
        let rare = if number.is_multiple_of(RARE_SHARE) { RARE } else { "hay" };
        let text = format!("message {number} of many, {COMMON} words and a {rare}");
        let sending = client.send(to, text).await.map_err(BenchError::client("send"))?;
        self.0.push_back(sending);
        if self.0.len() >= SENDS_UNANSWERED_MAX {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), BenchError> {
        if let Some(oldest) = self.0.pop_front() {
            oldest.accepted().await.map_err(BenchError::Refused)?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), BenchError> {
        while !self.0.is_empty() {
            self.next().await?;
        }
        Ok(())
    }
}
