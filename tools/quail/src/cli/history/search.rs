//! `quail search`: finds what was said.

use std::io::{self, IsTerminal};

use clap::{Args, value_parser};
use quail::output::escape::escape;
use quail_client::{Body, Found, Remains};

use super::super::Context;
use super::super::failure::Outcome;
use super::super::session::handle;
use super::line::{self, Names, connect, shown};

/// Search what was said, the newest first
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in super::super) struct Search {
    /// What to look for: all of the words
    #[arg(value_name = "WORD", required = true)]
    words: Vec<String>,

    /// Only in the conversation with this account
    #[arg(long = "with", value_name = "HANDLE", value_parser = handle)]
    peer: Option<String>,

    /// How many messages
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = value_parser!(u64).range(1..))]
    count: u64,
}

const EXAMPLES: &str = "\
Examples:
  quail search maps
  quail search 'see you' eight           all of these words, anywhere
  quail search '\"see you\"' 'map*'        a phrase, and the beginning of a word
  quail search from:grace after:2026-11-01 before:2026-11-21 maps
  quail search --with grace maps --json | jq -r .body

A beginning has at least three characters; a shorter one is a whole word.
Days are those of UTC. Words that begin with a dash stand behind --.";

impl Search {
    pub(in super::super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let client = connect(&context).await?;
        let peer = match &self.peer {
            Some(handle) => Some(client.look_up(handle).await?.account),
            None => None,
        };
        let limit = u32::try_from(self.count.min(100)).unwrap_or(100);
        let mut pager = client.search(&self.words.join(" "), peer, limit);
        let (mut names, mut left) = (Names::new(client.clone()), self.count);
        let is_bold = io::stdout().is_terminal();
        while left > 0
            && context.output.is_read()
            && let Some(page) = pager.next_page().await?
        {
            line::tell_behind(&context, &page.archived);
            for found in page.items.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                left -= 1;
                let message = &found.message;
                let own = message.sender == client.account();
                let peer = names.name(if own { message.recipient } else { message.sender }).await;
                let sign = if own { "to" } else { "from" };
                let text = names.with_marks(message, &highlighted(&found, is_bold)).await;
                let people = format!("{} {sign} {}: {text}", names.time(message.stamp), escape(&peer));
                let mut programs = names.line(message).await;
                let pair = |range: &std::ops::Range<usize>| [range.start, range.end];
                programs.highlights = Some(found.highlights.iter().map(pair).collect());
                context.output.result(people, &programs)?;
            }
        }
        client.close().await?;
        Ok(Outcome::Good)
    }
}

/// Returns the text with what matched in bold, if a terminal is there to show it.
fn highlighted(found: &Found, is_bold: bool) -> String {
    let Remains::There(Body::Text(text)) = &found.message.content else {
        return shown(&found.message.content).into_owned();
    };
    if !is_bold {
        return escape(text).into_owned();
    }
    let (mut marked, mut at) = (String::new(), 0);
    for range in &found.highlights {
        // The SDK has checked that they lie within the text.
        let (before, inside) = (text.get(at..range.start), text.get(range.clone()));
        marked += &escape(before.unwrap_or_default());
        marked += &format!("\x1b[1m{}\x1b[0m", escape(inside.unwrap_or_default()));
        at = range.end;
    }
    marked += &escape(text.get(at..).unwrap_or_default());
    marked
}
