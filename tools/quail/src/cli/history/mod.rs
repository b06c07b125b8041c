//! `quail history` and what belongs to it: reading what was said, in all conversations.
//!
//! Invariants: nothing here acknowledges a message, and only `quail read` marks one as read; texts are text of strangers, so a terminal is shown them and
//! does not obey them.

pub(super) mod conversations;
mod line;
pub(super) mod read;
pub(super) mod search;
pub(super) mod sync;

use clap::{Args, value_parser};
use quail_client::Direction;

use super::Context;
use super::failure::Outcome;
use super::session::handle;
use line::{Names, connect};

/// Show what was said with somebody
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct History {
    /// With whom; yourself for notes to yourself
    #[arg(value_name = "HANDLE", value_parser = handle)]
    handle: String,

    /// How many messages
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = value_parser!(u64).range(1..), conflicts_with = "all")]
    count: u64,

    /// All of them
    #[arg(long)]
    all: bool,

    /// The first ones, not the last ones
    #[arg(long)]
    first: bool,
}

const EXAMPLES: &str = "\
Examples:
  quail history grace                    the last 20 messages, the newest at the end
  quail history grace --count 100
  quail history grace --first            how it began
  quail history grace --all --json | jq -r .body

It shows what the server has kept, read or not, and acknowledges nothing: quail tail still gets what
waits for this device.";

impl History {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let client = connect(&context).await?;
        let peer = client.look_up(&self.handle).await?.account;
        let count = if self.all { u64::MAX } else { self.count };
        let direction = if self.first || self.all { Direction::Newer } else { Direction::Older };
        let mut names = Names::new(client.clone());
        let mut pager = client.history(peer, direction, None, u32::try_from(count.min(100)).unwrap_or(100));
        let (mut left, mut newest_first) = (count, Vec::new());
        while left > 0
            && context.output.is_read()
            && let Some(page) = pager.next_page().await?
        {
            line::tell_behind(&context, &page.archived);
            for message in page.items {
                if left == 0 {
                    break;
                }
                left -= 1;
                match direction {
                    Direction::Newer => names.print(&context, &message).await?,
                    // People read downwards; at most --count of them are held.
                    Direction::Older => newest_first.push(message),
                }
            }
        }
        for message in newest_first.iter().rev() {
            names.print(&context, message).await?;
        }
        client.close().await?;
        Ok(Outcome::Good)
    }
}
