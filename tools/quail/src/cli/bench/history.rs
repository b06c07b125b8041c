//! `quail bench history`: what reading history takes.

use clap::{Args, value_parser};
use quail::bench::history::{
    CONVERSATIONS_MAX, HistoryOptions, HistoryReport, MESSAGES_MAX, PAGES_MAX, Pages, run,
};
use quail::output::{Output, table};

use super::super::failure::Outcome;
use super::{DaemonArgs, Stage, latency};

/// Fill an archive and read it: the list, pages of a conversation, searches
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct History {
    /// How many conversations the reader has
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=i64::from(CONVERSATIONS_MAX)))]
    conversations: u32,

    /// How many messages there are in all of them
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = value_parser!(u32).range(1..=i64::from(MESSAGES_MAX)))]
    messages: u32,

    /// How many pages of each kind are asked for
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..=i64::from(PAGES_MAX)))]
    pages: u32,

    #[command(flatten)]
    daemon: DaemonArgs,
}

const EXAMPLES: &str = "\
Examples:
  quail bench history
  quail bench history --conversations 2000 --messages 1000000
  quail bench history --json | jq .search_common.page_ms.p99

One client asks for a page when it has the one before. The archive is read whole before anything is
measured, so it lies in memory as far as it fits. It exits with 1 if a message that was accepted is
not in the archive.";

impl History {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let Self { conversations, messages, pages, daemon } = self;
        let measure = async |target, watch: &mut quail::bench::Watch<'_>| {
            run(HistoryOptions { target, conversations, messages, pages }, watch).await
        };
        let daemon = DaemonArgs { archive: true, ..daemon };
        let report = Stage::private(&daemon)?.play(output, measure).await?;
        output.result(text(&report), &report)?;
        Ok(if report.is_flawless() { Outcome::Good } else { Outcome::Bad })
    }
}

fn text(report: &HistoryReport) -> String {
    let pages = |pages: Pages| format!("{:.0} pages/s, {}", pages.pages_per_s, latency(pages.page_ms));
    let filled = format!(
        "{} messages in {} conversations, in {:.1} s",
        report.messages, report.conversations, report.fill_s
    );
    let rows = table(&[
        ("archive", filled),
        ("list", pages(report.list)),
        ("first page", pages(report.first_page)),
        ("browse", pages(report.browse)),
        ("search, rare word", pages(report.search_rare)),
        ("search, common word", pages(report.search_common)),
        ("missing", report.missing.to_string()),
    ]);
    let verdict = if report.is_flawless() {
        "Everything that was accepted is in the archive."
    } else {
        "PROMISES BROKEN: see the table."
    };
    format!("{rows}\n\n{verdict}")
}
