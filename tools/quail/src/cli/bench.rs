//! `quail bench`: measures a server. Each measurement has a file in `bench/`; here is what they share.
//!
//! Invariants: whatever ends it, the daemon it started is gone and its directory too; a measurement that found a message
//! missing or doubled exits with 1, whatever its figures.

mod chat;
mod history;
mod idle;
mod isolation;
mod offline;

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use quail::bench::{BenchError, Latency, Phase, Step, Storage, Target, Watch};
use quail::launcher::find_quaild;
use quail::output::Output;
use quail_client::Address;
use tempfile::TempDir;

use super::failure::{Failure, Outcome};
use super::stop::Stop;
use super::{Context, bar};

/// Measure a server: messages between users, pages of history, idle connections, a backlog, users beside who disturbs
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  quail bench chat
  quail bench chat --rate 100 --seconds 20
  quail bench history
  quail bench idle --connections 5000
  quail bench isolation
  quail bench offline --json | jq .drain_per_s

Without --server each starts a private server on a fresh directory below $TMPDIR: what is synced is
synced to that disk. Server and users share this machine, so compare figures of one machine only.";

#[derive(Debug, Subcommand)]
enum What {
    Chat(chat::Chat),
    History(history::History),
    Idle(idle::Idle),
    Isolation(isolation::Isolation),
    Offline(offline::Offline),
}

impl Bench {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        match self.what {
            What::Chat(command) => command.run(context.output).await,
            What::History(command) => command.run(context.output).await,
            What::Idle(command) => command.run(context.output).await,
            What::Isolation(command) => command.run(context.output).await,
            What::Offline(command) => command.run(context.output).await,
        }
    }
}

/// Which daemon program is started for a measurement.
#[derive(Args, Debug)]
pub(super) struct DaemonArgs {
    /// The private server's program; without it QUAIL_DAEMON, beside this program, or in PATH
    #[arg(long, value_name = "PATH")]
    daemon: Option<std::path::PathBuf>,

    /// Have the private server keep the history of conversations too
    #[arg(long)]
    archive: bool,

    /// Have the private server keep accounts and history in this database of Postgres, as in its storage.url; they stay there
    #[arg(long, value_name = "URL")]
    storage_url: Option<String>,

    /// The file that holds the password for that database
    #[arg(long, value_name = "PATH", requires = "storage_url")]
    storage_password_file: Option<std::path::PathBuf>,
}

/// What is measured, with the directory that goes when it is done.
pub(super) struct Stage {
    target: Target,
    directory: Option<TempDir>,
}

impl Stage {
    pub(super) fn server(address: Address) -> Self {
        Self { target: Target::Server(address), directory: None }
    }

    pub(super) fn private(daemon: &DaemonArgs) -> anyhow::Result<Self> {
        let quaild = find_quaild(daemon.daemon.as_deref())?;
        let directory = tempfile::Builder::new().prefix("quail-bench-").tempdir();
        let directory = directory.context("make a directory")?;
        let (directory_path, archive) = (directory.path().to_owned(), daemon.archive);
        let storage = daemon.storage_url.clone();
        let storage = storage.map(|url| Storage { url, password_file: daemon.storage_password_file.clone() });
        let target = Target::Private { quaild, directory: directory_path, archive, storage };
        Ok(Self { target, directory: Some(directory) })
    }

    /// Measures until it is done or interrupted, and cleans up.
    pub(super) async fn play<T>(
        self,
        output: Output,
        measure: impl AsyncFnOnce(Target, &mut Watch<'_>) -> Result<T, BenchError>,
    ) -> anyhow::Result<T> {
        // From here on Ctrl-C means: clean up, then end.
        let mut stop = Stop::new()?;
        let mut bars = Bars { output, shown: None };
        let mut tell = |step: Step| bars.show(step);
        let measured = tokio::select! {
            measured = measure(self.target, &mut tell) => measured.map_err(anyhow::Error::from),
            () = stop.asked() => Err(Failure::failed("INTERRUPTED", "interrupted").into()),
        };
        bars.clear();
        if let Some(directory) = self.directory {
            directory.close().context("remove the server's directory")?;
        }
        measured
    }
}

/// A bar for what is being done just now.
struct Bars {
    output: Output,
    shown: Option<(Phase, ProgressBar)>,
}

impl Bars {
    fn show(&mut self, step: Step) {
        if self.shown.as_ref().is_none_or(|(phase, _)| *phase != step.phase) {
            self.clear();
            let unit = match step.phase {
                Phase::Provision => "accounts",
                Phase::Connect => "connections",
                Phase::Store => "messages stored",
                Phase::Measure => "ms",
                Phase::Drain => "users done",
            };
            self.shown = Some((step.phase, bar::new(self.output, step.of as usize, unit)));
        }
        if let Some((_, bar)) = &self.shown {
            bar.set_position(step.done.min(step.of));
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

/// Tells what to do about limits of rates that a measurement has run into.
fn note_resent(output: Output, resent: u64) {
    if resent > 0 {
        output.note(format!(
            "the server refused {resent} sends for now, so its limits of rates were measured, not the server; its \
             operator can lift them (section [rates] of its configuration), or leave out --server"
        ));
    }
}

fn latency(latency: Latency) -> String {
    format!("p50 {:.3} ms, p99 {:.3} ms", latency.p50, latency.p99)
}

/// A figure, or that there is none.
fn or_unknown(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1} {unit}"))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
