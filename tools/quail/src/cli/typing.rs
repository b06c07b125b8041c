//! `quail typing`: tells somebody that a message is being typed, for a moment.

use std::time::Duration;

use clap::Args;
use quail_client::{Client, MemoryStore};
use quail_protocol::limits::TYPING_RENEWAL;
use serde::Serialize;

use super::failure::Outcome;
use super::session::{handle, options};
use super::stop::Stop;
use super::{Context, duration};

/// Tell somebody that you are typing
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Typing {
    /// The account to tell
    #[arg(value_parser = handle)]
    handle: String,

    /// How long you type, or until Ctrl-C
    #[arg(long = "for", value_name = "DURATION", default_value = "3s", value_parser = duration::parse)]
    length: Duration,
}

const EXAMPLES: &str = "\
Examples:
  quail typing grace
  quail typing grace --for 20s

Who is away is told nothing, and nobody learns who is away.";

#[derive(Serialize)]
struct Typed<'a> {
    handle: &'a str,
}

impl Typing {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (_, login) = context.login()?;
        // Neither sends nor receives, so the counters stay free for a process that does.
        let client = Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?;
        let peer = client.look_up(&self.handle).await?.account;
        let mut stop = Stop::new()?;
        let typing = async {
            loop {
                client.typing(peer, true);
                tokio::time::sleep(TYPING_RENEWAL).await;
            }
        };
        tokio::select! {
            () = stop.asked() => {}
            () = typing => {}
            () = tokio::time::sleep(self.length) => {}
        }
        client.typing(peer, false);
        // A datagram that is on its way when the connection closes is gone; what comes behind it shows that it is not.
        client.ping().await?;
        client.close().await?;
        context.output.result(format!("{} was told", self.handle), &Typed { handle: &self.handle })?;
        Ok(Outcome::Good)
    }
}
