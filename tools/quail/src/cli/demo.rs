//! `quail demo`: plays the demo of the library and tells it as a story.
//!
//! Invariant: whatever ends it, the daemon it started is gone and, unless asked otherwise, its directory too.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, value_parser};
use indicatif::ProgressBar;
use quail::demo::{self, DemoOptions, DemoReport, KILLS_MAX, Step};
use quail::launcher::find_quaild;
use quail::output::{Output, table};
use quail::text;
use tempfile::TempDir;

use super::failure::{Failure, Outcome};
use super::stop::Stop;
use super::{Context, bar};

/// Send a text through a private server that is killed on the way, and check what arrives
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// The text to send, one message per line; without it the first chapter of Alice in Wonderland
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// How often to kill the server
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = value_parser!(u32).range(..=KILLS_MAX as i64))]
    kills: u32,

    /// The server's program; without it QUAIL_DAEMON, beside this program, or in PATH
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,

    /// Keep the server's data and log
    #[arg(long)]
    keep: bool,
}

const EXAMPLES: &str = "\
Examples:
  quail demo
  quail demo --kills 5 --input /usr/share/dict/words
  quail demo --json | jq .confirm_ms

It needs nothing running and leaves nothing behind. It exits with 1 if a line is missing, doubled,
altered or out of order.";

impl Demo {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let output = context.output;
        let quaild = find_quaild(self.daemon.as_deref())?;
        let lines = self.lines()?;
        // From here on Ctrl-C means: clean up, then end.
        let mut stop = Stop::new()?;
        let directory =
            tempfile::Builder::new().prefix("quail-demo-").tempdir().context("make a directory")?;
        let bar = bar::new(output, lines.len(), "shown");
        let options =
            DemoOptions { quaild, directory: directory.path().to_owned(), lines, kills: self.kills as usize };
        let mut tell = |step: &Step| tell(output, &bar, step);
        let played = tokio::select! {
            report = demo::run(options, &mut tell) => report.map_err(anyhow::Error::from),
            () = stop.asked() => Err(Failure::failed("INTERRUPTED", "interrupted").into()),
        };
        bar.finish_and_clear();
        self.clean_up(output, directory)?;
        let report = played?;
        output.result(verdict(&report), &report)?;
        Ok(if report.ok { Outcome::Good } else { Outcome::Bad })
    }

    fn lines(&self) -> anyhow::Result<Vec<String>> {
        let read;
        let input = match &self.input {
            Some(path) => {
                let open = || format!("open {}", path.display());
                read = text::read(std::fs::File::open(path).with_context(open)?)?;
                &read
            }
            None => demo::TEXT.as_bytes(),
        };
        Ok(text::lines(input)?.into_iter().map(str::to_owned).collect())
    }

    fn clean_up(&self, output: Output, directory: TempDir) -> anyhow::Result<()> {
        if self.keep {
            output.note(format!("data and log are in {}", directory.keep().display()));
            return Ok(());
        }
        directory.close().context("remove the demo's directory")
    }
}

fn tell(output: Output, bar: &ProgressBar, step: &Step) {
    let line = match step {
        Step::Started { pid, address } => format!("quaild serves as process {pid} at {address}"),
        Step::Sending { lines, offline } => {
            format!("alice sends {lines} lines to dinah, who is offline for the first {offline}")
        }
        Step::RecipientOnline(_) => "dinah comes online".to_owned(),
        Step::Killed { number, in_flight, counts } => format!(
            "kill {number}: {} lines accepted, {in_flight} on their way, {} shown to dinah, {} receipts back at alice",
            counts.accepted, counts.shown, counts.delivered
        ),
        Step::Restarted { number, away } => format!("kill {number}: back after {}", seconds(*away)),
        Step::RecipientAgain => {
            "dinah's program ends and starts again, to see whether anything comes twice".to_owned()
        }
        Step::Progress(counts) => return bar.set_position(counts.shown as u64),
        _ => return,
    };
    // What cannot be printed now cannot be printed later; the result will say so.
    bar.suspend(|| drop(output.people(line)));
}

fn verdict(report: &DemoReport) -> String {
    let milliseconds = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1000.0);
    let rows = table(&[
        ("lines", report.lines.to_string()),
        ("accepted", report.accepted.to_string()),
        ("delivered", report.delivered.to_string()),
        ("shown twice", report.duplicates.to_string()),
        ("missing", report.missing.to_string()),
        ("out of order", report.out_of_order.to_string()),
        ("altered", report.altered.to_string()),
        ("kills", report.kills.to_string()),
        ("reconnects", report.reconnects.to_string()),
        ("sent again", report.resent.to_string()),
        (
            "confirmed",
            format!("p50 {}, p99 {}", milliseconds(report.confirm.p50), milliseconds(report.confirm.p99)),
        ),
        ("time", seconds(report.elapsed)),
    ]);
    let verdict = match (report.ok, &report.problem) {
        (true, _) => {
            "Every line was accepted, delivered, and shown once, in order, byte for byte.".to_owned()
        }
        (false, Some(problem)) => format!("PROMISES BROKEN: {problem}"),
        (false, None) => "PROMISES BROKEN: see the table.".to_owned(),
    };
    format!("\n{rows}\n\n{verdict}")
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
