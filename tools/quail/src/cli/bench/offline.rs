//! `quail bench offline`: a backlog for somebody who is away.

use clap::{Args, value_parser};
use quail::bench::SIZE_MIN;
use quail::bench::offline::{MESSAGES_MAX, OfflineOptions, OfflineReport, run, too_much};
use quail::output::{Output, table};
use quail_protocol::limits::BODY_BYTES_MAX;

use super::super::failure::{Failure, Outcome};
use super::{DaemonArgs, Stage, note_resent};

/// Store a backlog for somebody who is away, and hand it out
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Offline {
    /// How many messages wait; an outbox holds 10000
    #[arg(long, value_name = "N", default_value_t = MESSAGES_MAX as u32, value_parser = value_parser!(u32).range(1..=MESSAGES_MAX as i64))]
    messages: u32,

    /// Length of a message in bytes; an outbox holds 32 MiB
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = value_parser!(u32).range(SIZE_MIN as i64..=BODY_BYTES_MAX as i64))]
    size: u32,

    #[command(flatten)]
    daemon: DaemonArgs,
}

const EXAMPLES: &str = "\
Examples:
  quail bench offline
  quail bench offline --messages 500 --size 61440
  quail bench offline --json | jq .drain_per_s

The drain ends when the recipient's last acknowledgement is journalled. It exits with 1 if a message
that was accepted is missing or comes twice.";

impl Offline {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let (messages, size) = (self.messages as usize, self.size as usize);
        if let Some(why) = too_much(messages, size) {
            return Err(Failure::usage(why)
                .hint("take fewer with --messages, or shorter ones with --size")
                .into());
        }
        let measure = async |target, watch: &mut quail::bench::Watch<'_>| {
            run(OfflineOptions { target, messages, size }, watch).await
        };
        let report = Stage::private(&self.daemon)?.play(output, measure).await?;
        output.result(text(&report), &report)?;
        note_resent(output, report.resent);
        Ok(if report.is_flawless() { Outcome::Good } else { Outcome::Bad })
    }
}

fn text(report: &OfflineReport) -> String {
    let rows = table(&[
        ("backlog", format!("{} messages of {} bytes", report.messages, report.size)),
        ("store", format!("{:.0} messages/s, {:.3} s", report.store_per_s, report.store_s)),
        ("drain", format!("{:.0} messages/s, {:.3} s", report.drain_per_s, report.drain_s)),
        ("missing", report.missing.to_string()),
        ("duplicates", report.duplicates.to_string()),
        ("altered", report.altered.to_string()),
        ("without receipt", report.undelivered.to_string()),
    ]);
    let verdict = if report.is_flawless() {
        "Everything that waited was shown once, and every receipt came back."
    } else {
        "PROMISES BROKEN: see the table."
    };
    format!("{rows}\n\n{verdict}")
}
