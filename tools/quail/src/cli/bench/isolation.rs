//! `quail bench isolation`: users beside somebody who disturbs.

use clap::{Args, value_parser};
use quail::bench::isolation::{Disturbance, IsolationOptions, IsolationReport, STOPPED_READERS, run};
use quail::bench::{SECONDS_MAX, SIZE_MIN, USERS_MAX};
use quail::output::{Output, table};
use quail_protocol::limits::BODY_BYTES_MAX;

use super::super::failure::{Failure, Outcome};
use super::{DaemonArgs, Stage, latency, mebibytes, seconds};

/// Let users send to each other at a fixed rate, alone and beside who disturbs, and see what they notice
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Isolation {
    /// How many users; an even number
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(2..=USERS_MAX as i64))]
    users: u32,

    /// Messages per second of all users together
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=RATE_MAX))]
    rate: u32,

    /// Length of a message in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = value_parser!(u32).range(SIZE_MIN as i64..=BODY_BYTES_MAX as i64))]
    size: u32,

    /// How long to measure alone and how long beside each who disturbs
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Largest rate: more than any machine sends.
const RATE_MAX: i64 = 1_000_000;

const EXAMPLES: &str = "\
Examples:
  quail bench isolation
  quail bench isolation --users 1000 --rate 5000 --seconds 30
  quail bench isolation --json | jq '.disturbances[] | {name, confirm_ratio}'

Readers who stop are attached and acknowledge nothing while somebody writes to them; the bulk sender
sends as fast as one device can; the storm logs in with right and wrong passwords. The limits of
rates are lifted. It exits with 1 if a message that was accepted is missing or comes twice, whatever
the figures.";

impl Isolation {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        if !self.users.is_multiple_of(2) {
            return Err(Failure::usage("--users must be even: users come in pairs").into());
        }
        let measure = async |target, watch: &mut quail::bench::Watch<'_>| {
            let options = IsolationOptions {
                target,
                users: self.users as usize,
                rate: f64::from(self.rate),
                size: self.size as usize,
                measured: seconds(self.seconds),
            };
            run(options, watch).await
        };
        let report = Stage::private(&self.daemon)?.play(output, measure).await?;
        output.result(text(&report), &report)?;
        Ok(if report.is_flawless() { Outcome::Good } else { Outcome::Bad })
    }
}

fn text(report: &IsolationReport) -> String {
    let mut parts = vec![table(&[(
        "load",
        format!("{} users, {} messages/s, {} bytes", report.users, report.rate, report.size),
    )])];
    parts.extend(report.disturbances.iter().map(disturbance));
    parts.push(table(&[
        ("checked", format!("{} messages", report.messages)),
        ("missing", report.missing.to_string()),
        ("duplicates", report.duplicates.to_string()),
        ("altered", report.altered.to_string()),
        ("without receipt", report.undelivered.to_string()),
        ("server", format!("{} on {} cores, shared with all others", report.server, report.cores)),
    ]));
    parts.push(
        if report.is_flawless() {
            "Everything accepted was shown once, and every receipt came back."
        } else {
            "PROMISES BROKEN: see the table."
        }
        .to_owned(),
    );
    parts.join("\n\n")
}

fn disturbance(disturbance: &Disturbance) -> String {
    let Disturbance { alone, beside, confirm_ratio, receive_ratio, did_per_s, .. } = disturbance;
    let (title, did) = match disturbance.name {
        "stopped_readers" => (format!("beside {STOPPED_READERS} readers who stop"), "messages/s to them"),
        "bulk_sender" => ("beside a bulk sender".to_owned(), "messages/s of it"),
        _ => ("beside a storm of log-ins".to_owned(), "log-ins/s"),
    };
    let growth = |bytes: Option<i64>| {
        bytes.map_or_else(
            || "unknown".to_owned(),
            |bytes| format!("{}{}", if bytes < 0 { "-" } else { "+" }, mebibytes(bytes.unsigned_abs())),
        )
    };
    let memory = match disturbance.growth_bytes_per_reader {
        Some(each) => {
            format!("{}, {} each", growth(disturbance.server_rss_growth_bytes), growth(Some(each)))
        }
        None => growth(disturbance.server_rss_growth_bytes),
    };
    let refused: Vec<_> =
        disturbance.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let rows = table(&[
        ("confirm alone", latency(alone.confirm_ms)),
        ("confirm beside", latency(beside.confirm_ms)),
        ("ratio", format!("p50 {:.2}, p99 {:.2}", confirm_ratio.p50, confirm_ratio.p99)),
        ("receive alone", latency(alone.receive_ms)),
        ("receive beside", latency(beside.receive_ms)),
        ("ratio", format!("p50 {:.2}, p99 {:.2}", receive_ratio.p50, receive_ratio.p99)),
        ("server memory", memory),
        ("disturber", format!("{did_per_s:.0} {did}")),
        ("refused", if refused.is_empty() { "nothing".to_owned() } else { refused.join(", ") }),
    ]);
    format!("{title}\n{rows}")
}
