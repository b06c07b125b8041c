//! `quail roam`: a conversation over changing networks, as `quail::bench::roam` plays it.

use clap::{Args, value_parser};
use quail::bench::SECONDS_MAX;
use quail::bench::roam::{DISTURBANCES_MAX, RoamOptions, RoamReport, run};
use quail::output::table;
use quail_client::Address;

use super::Context;
use super::bench::{DaemonArgs, Stage, seconds};
use super::failure::Outcome;

/// Keep a conversation going while one of the two changes networks, and see what it notices
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Roam {
    /// How often to move to another address
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = value_parser!(u32).range(0..=i64::from(DISTURBANCES_MAX)))]
    moves: u32,

    /// How often to cut the connection, so that the session must be resumed on another one
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = value_parser!(u32).range(0..=i64::from(DISTURBANCES_MAX)))]
    cuts: u32,

    /// How long the conversation lasts
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,

    /// Use a server that runs already; two accounts are signed up there and stay
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["daemon", "archive", "storage_url"])]
    server: Option<Address>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

const EXAMPLES: &str = "\
Examples:
  quail roam
  quail roam --moves 100 --cuts 20 --seconds 60
  quail roam --json | jq .gap_ms

Without --server it starts a private server. A gap lasts from a change of networks until something
written after it has arrived. It exits with 1 if a message is missing or doubled.";

impl Roam {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let output = context.output;
        let (moves, cuts, measured) = (self.moves, self.cuts, seconds(self.seconds));
        let roam = async |target, watch: &mut quail::bench::Watch<'_>| {
            run(RoamOptions { target, moves, cuts, measured }, watch).await
        };
        let stage = match self.server {
            Some(address) => Stage::server(address),
            None => Stage::private(&self.daemon)?,
        };
        let report = stage.play(output, roam).await?;
        output.result(text(&report), &report)?;
        Ok(if report.is_flawless() { Outcome::Good } else { Outcome::Bad })
    }
}

fn text(report: &RoamReport) -> String {
    let rows = table(&[
        ("moves", report.moves.to_string()),
        ("cuts", format!("{}, resumed {} times", report.cuts, report.reconnects)),
        ("gaps", format!("p50 {:.1} ms, longest {:.1} ms", report.gap_ms.p50, report.gap_ms.max)),
        ("messages", format!("{} in {:.1} s", report.messages, report.seconds)),
        ("missing", report.missing.to_string()),
        ("shown twice", report.duplicates.to_string()),
    ]);
    match report.is_flawless() {
        true => rows,
        false => format!("{rows}\n\nPROMISES BROKEN: a message is missing or came twice."),
    }
}
