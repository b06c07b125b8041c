//! `quail bench idle`: connections that only stay.

use clap::{Args, value_parser};
use quail::bench::idle::{IdleOptions, IdleReport, run};
use quail::bench::{SECONDS_MAX, USERS_MAX};
use quail::output::{Output, table};

use super::super::failure::Outcome;
use super::{DaemonArgs, Stage, mebibytes, or_unknown, seconds};

/// Open connections that only stay, and see what they cost
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Idle {
    /// How many connections, each with a session and an attached feed
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=USERS_MAX as i64))]
    connections: u32,

    /// How long to leave them alone; every 20 s each sends a keep-alive
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,

    #[command(flatten)]
    daemon: DaemonArgs,
}

const EXAMPLES: &str = "\
Examples:
  quail bench idle
  quail bench idle --connections 10000 --seconds 60
  quail bench idle --json | jq .bytes_per_connection

Memory per connection is what the server's process grew by, beyond what it had after a few
connections had come and gone. It exits with 1 if a connection is lost on the way.";

impl Idle {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let measure = async |target, watch: &mut quail::bench::Watch<'_>| {
            let (connections, measured) = (self.connections as usize, seconds(self.seconds));
            run(IdleOptions { target, connections, measured }, watch).await
        };
        let report = Stage::private(&self.daemon)?.play(output, measure).await?;
        output.result(text(&report), &report)?;
        Ok(if report.is_flawless() { Outcome::Good } else { Outcome::Bad })
    }
}

fn text(report: &IdleReport) -> String {
    let memory = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), mebibytes);
    let idle = report.idle_cpu_percent;
    table(&[
        ("connections", format!("{}, {} lost on the way", report.connections, report.reconnects)),
        ("connecting", format!("{:.0} connections/s", report.connect_per_s)),
        ("server CPU", or_unknown(report.handshake_cpu_us, "us/connection to connect")),
        (
            "idle",
            idle.map_or_else(
                || "unknown".to_owned(),
                |idle| format!("{idle:.2} % of a processor for {} s", report.seconds),
            ),
        ),
        ("memory", or_unknown(report.bytes_per_connection.map(|bytes| bytes / 1024.0), "KiB/connection")),
        (
            "server memory",
            format!("{}, {} before", memory(report.rss_bytes), memory(report.baseline_rss_bytes)),
        ),
    ])
}
