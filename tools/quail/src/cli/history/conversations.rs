//! `quail conversations`: with whom, how much is unread, what was said last.

use clap::{Args, Subcommand, ValueEnum, value_parser};
use quail::output::escape::escape;
use quail_client::{Conversation, ConversationChange, ConversationFlags};
use serde::Serialize;

use super::super::Context;
use super::super::failure::Outcome;
use super::super::session::handle;
use super::line::{self, Line, Names, connect, shown};

/// Characters of the last message that people are shown.
const PREVIEW_CHARS: usize = 60;

/// Unread messages are counted up to here.
const UNREAD_MAX: u32 = quail_protocol::limits::UNREAD_MAX as u32;

/// Show the conversations, the newest first
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in super::super) struct Conversations {
    /// How many of them
    #[arg(long, short = 'n', value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(subcommand)]
    command: Option<ConversationsCommand>,
}

#[derive(Debug, Subcommand)]
enum ConversationsCommand {
    Set(Set),
}

/// Say how you want to see a conversation, on all of your devices
#[derive(Args, Debug)]
#[command(after_help = SET_EXAMPLES)]
struct Set {
    /// With whom
    #[arg(value_name = "HANDLE", value_parser = handle)]
    handle: String,

    #[command(flatten)]
    flags: Flags,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Flags {
    /// No noise about it
    #[arg(long, value_enum, value_name = "SWITCH")]
    mute: Option<Switch>,

    /// It stands above the others
    #[arg(long, value_enum, value_name = "SWITCH")]
    pin: Option<Switch>,

    /// It is out of the list; many programs call that archived
    #[arg(long, value_enum, value_name = "SWITCH")]
    put_away: Option<Switch>,
}

const SET_EXAMPLES: &str = "\
Examples:
  quail conversations set grace --mute on
  quail conversations set grace --pin on --put-away off --json

What is not named stays as it is. The server keeps it and shows it to nobody else; what it means is up
to each program. This one lists all conversations and says what is set.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What was set, as programs get it.
#[derive(Serialize)]
struct Changed {
    peer: String,
    handle: String,
    muted: Option<bool>,
    pinned: Option<bool>,
    put_away: Option<bool>,
}

const EXAMPLES: &str = "\
Examples:
  quail conversations
  quail conversations --count 10
  quail conversations --json | jq -r 'select(.unread > 0) | .handle'
  quail conversations set grace --mute on

Unread is what none of your devices said that it was read: quail tail --read says so. It is counted
up to 999.";

/// A conversation, as programs get it.
#[derive(Serialize)]
struct Listed {
    peer: String,
    /// Nothing if it cannot be found out now.
    handle: Option<String>,
    unread: u32,
    seq: u64,
    last: Option<Line>,
    markers: Vec<Marker>,
    muted: bool,
    pinned: bool,
    put_away: bool,
}

#[derive(Serialize)]
struct Marker {
    account: String,
    kind: &'static str,
    origin: u32,
    position: u64,
}

impl Conversations {
    pub(in super::super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        if let Some(ConversationsCommand::Set(set)) = self.command {
            return set.run(&context).await;
        }
        let client = connect(&context).await?;
        let mut names = Names::new(client.clone());
        let (mut pager, mut left) = (client.conversations(), self.count.unwrap_or(u64::MAX));
        let mut rows = Vec::new();
        while left > 0
            && context.output.is_read()
            && let Some(page) = pager.next_page().await?
        {
            line::tell_behind(&context, &page.archived);
            for conversation in page.items {
                if left == 0 {
                    break;
                }
                left -= 1;
                if context.output.is_json() {
                    context.output.programs(&listed(&conversation, &mut names).await)?;
                } else {
                    rows.push(row(&conversation, &mut names).await);
                }
            }
        }
        client.close().await?;
        context.output.people(table(rows))?;
        Ok(Outcome::Good)
    }
}

impl Set {
    async fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let client = connect(context).await?;
        let peer = client.look_up(&self.handle).await?.account;
        let is_on = |switch: Option<Switch>| switch.map(|switch| switch == Switch::On);
        let Flags { mute, pin, put_away } = self.flags;
        let (muted, pinned, put_away) = (is_on(mute), is_on(pin), is_on(put_away));
        client.set_conversation(peer, ConversationChange { muted, pinned, put_away }).await?;
        client.close().await?;
        let (peer, handle) = (peer.to_string(), self.handle);
        let people = format!("it is set for {}", escape(&handle));
        context.output.result(people, &Changed { peer, handle, muted, pinned, put_away })?;
        Ok(Outcome::Good)
    }
}

async fn listed(conversation: &Conversation, names: &mut Names) -> Listed {
    let marker = |marker: &quail_client::Marker| Marker {
        account: marker.account.to_string(),
        kind: if marker.is_read { "read" } else { "delivered" },
        origin: marker.origin.0,
        position: marker.position.0,
    };
    let last = match &conversation.last {
        Some(last) => Some(names.line(last).await),
        None => None,
    };
    Listed {
        peer: conversation.peer.to_string(),
        handle: names.handle(conversation.peer).await,
        unread: conversation.unread,
        seq: conversation.seq,
        last,
        markers: conversation.markers.iter().map(marker).collect(),
        muted: conversation.flags.muted,
        pinned: conversation.flags.pinned,
        put_away: conversation.flags.put_away,
    }
}

async fn row(conversation: &Conversation, names: &mut Names) -> [String; 4] {
    let name = names.name(conversation.peer).await;
    let unread = match conversation.unread {
        0 => String::new(),
        UNREAD_MAX.. => format!("{UNREAD_MAX}+"),
        unread => unread.to_string(),
    };
    let (time, text) = match &conversation.last {
        Some(last) => {
            let text = preview(&shown(&last.content), last.is_cut);
            (names.time(last.stamp), names.with_marks(last, &text).await)
        }
        None => Default::default(),
    };
    [escape(&name).into_owned() + &set(conversation.flags), unread, time, text]
}

/// Returns what is set of a conversation, to stand behind its name.
fn set(flags: ConversationFlags) -> String {
    let words = [(flags.muted, "muted"), (flags.pinned, "pinned"), (flags.put_away, "put away")];
    let words: Vec<_> = words.into_iter().filter_map(|(is_set, word)| is_set.then_some(word)).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// Cuts a text to what fits on a line.
fn preview(text: &str, is_cut: bool) -> String {
    let short = line::cut(text, PREVIEW_CHARS);
    if is_cut && short.len() == text.len() { format!("{short}...") } else { short }
}

fn table(mut rows: Vec<[String; 4]>) -> String {
    rows.insert(0, ["HANDLE", "UNREAD", "LAST", "MESSAGE"].map(str::to_owned));
    let widths =
        [0, 1, 2].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    let line = |[name, unread, time, text]: &[String; 4]| {
        let [name_width, unread_width, time_width] = widths;
        let line = format!("{name:name_width$}  {unread:>unread_width$}  {time:time_width$}  {text}");
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        let rows = vec![row(["ada", "3", "2026-11-21 19:02", "hi"]), row(["bo_the_long", "", "", ""])];
        let expected = "\
HANDLE       UNREAD  LAST              MESSAGE
ada               3  2026-11-21 19:02  hi
bo_the_long";
        assert_eq!(table(rows), expected);
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(preview("short", false), "short");
        assert_eq!(preview("short", true), "short...");
        assert_eq!(preview(&"x".repeat(61), false), format!("{}...", "x".repeat(60)));
    }
}
