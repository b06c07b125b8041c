//! `quail read`: says that everything in a conversation was read, without printing it.

use std::time::{Duration, Instant};

use clap::Args;
use quail::output::escape::escape;
use quail_client::{AccountId, Client, Conversation};
use serde::Serialize;

use super::super::Context;
use super::super::failure::Outcome;
use super::super::session::handle;

/// How long it waits until the server has archived that.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// Say that you have read what somebody wrote
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in super::super) struct Read {
    /// Who wrote it
    #[arg(value_name = "HANDLE", value_parser = handle)]
    handle: String,
}

const EXAMPLES: &str = "\
Examples:
  quail read grace
  quail read grace --json | jq .read

It holds for all devices of the account; grace is told unless you do not want that (quail privacy).
What this device has not taken yet is read once quail tail has printed it.";

/// What programs get.
#[derive(Serialize)]
struct Told {
    peer: String,
    handle: String,
    /// How many messages were unread.
    read: u64,
    /// How many still are.
    unread: u32,
}

impl Read {
    pub(in super::super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let client = context.connect().await?;
        let peer = client.look_up(&self.handle).await?.account;
        let (mut read, mut unread) = (0, 0);
        if let Some(conversation) = find(&client, peer).await? {
            read = client.read_conversation(&conversation).await?;
            unread = settled(&client, peer).await?;
        }
        client.close().await?;
        if unread > 0 {
            context.output.note("what this device has not taken yet is read once quail tail has printed it");
        }
        let name = escape(&self.handle);
        let people = match read {
            0 => format!("nothing of {name} is unread"),
            1 => format!("1 message of {name} is read"),
            read => format!("{read} messages of {name} are read"),
        };
        let told = Told { peer: peer.to_string(), handle: self.handle.clone(), read, unread };
        context.output.result(people, &told)?;
        Ok(Outcome::Good)
    }
}

/// Finds the conversation with somebody.
async fn find(client: &Client, peer: AccountId) -> anyhow::Result<Option<Conversation>> {
    let mut pager = client.conversations();
    while let Some(page) = pager.next_page().await? {
        if let Some(found) = page.items.into_iter().find(|one| one.peer == peer) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Waits until nothing is unread, and returns how much is when it was waited long enough.
async fn settled(client: &Client, peer: AccountId) -> anyhow::Result<u32> {
    let began = Instant::now();
    loop {
        let unread = find(client, peer).await?.map_or(0, |conversation| conversation.unread);
        if unread == 0 || began.elapsed() >= PATIENCE {
            return Ok(unread);
        }
        tokio::time::sleep(EVERY).await;
    }
}
