//! `quail privacy`: what the account lets others know.

use clap::{Args, Subcommand, ValueEnum};
use quail::output::table;
use quail_client::{Client, MemoryStore, Privacy as Settings};
use serde::Serialize;

use super::Context;
use super::failure::Outcome;
use super::session::options;

/// Show or change what the account lets others know
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Privacy {
    #[command(subcommand)]
    command: Option<PrivacyCommand>,
}

const EXAMPLES: &str = "\
Examples:
  quail privacy
  quail privacy read-receipts off
  quail privacy --json | jq .read_receipts

It holds for all devices of the account, which still tell each other what was read.";

#[derive(Debug, Subcommand)]
enum PrivacyCommand {
    ReadReceipts(ReadReceipts),
}

/// Say whether those who write to you are told what you have read
#[derive(Args, Debug)]
#[command(after_help = READ_RECEIPTS_EXAMPLES)]
struct ReadReceipts {
    /// Whether they are told
    #[arg(value_enum)]
    switch: Switch,
}

const READ_RECEIPTS_EXAMPLES: &str = "\
Examples:
  quail privacy read-receipts off
  quail privacy read-receipts on

What they were told before stays told.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// The settings, as programs get them.
#[derive(Serialize)]
struct Shown {
    read_receipts: bool,
}

impl Privacy {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (_, login) = context.login()?;
        // Neither sends nor receives, so the counters stay free for a process that does.
        let client = Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?;
        if let Some(PrivacyCommand::ReadReceipts(ReadReceipts { switch })) = self.command {
            client.set_read_receipts(switch == Switch::On).await?;
        }
        let Settings { read_receipts, .. } = client.privacy().await?;
        client.close().await?;
        let people = if read_receipts { "on" } else { "off" };
        let people = table(&[("read receipts", people.to_owned())]);
        context.output.result(people, &Shown { read_receipts })?;
        Ok(Outcome::Good)
    }
}
