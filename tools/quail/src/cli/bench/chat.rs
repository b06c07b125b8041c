//! `quail bench chat`: users in pairs under load.

use clap::{Args, value_parser};
use quail::bench::background::{ACCOUNTS_MAX, BACKLOG_MAX, Background, BackgroundOptions};
use quail::bench::chat::{ChatOptions, ChatReport, Interval, WINDOW_MAX, run};
use quail::bench::{Phase, SECONDS_MAX, SIZE_MIN, Step, USERS_MAX};
use quail::output::{Output, table};
use quail_client::Address;
use quail_protocol::limits::BODY_BYTES_MAX;

use super::super::failure::{Failure, Outcome};
use super::{DaemonArgs, Stage, latency, mebibytes, note_resent, or_unknown, seconds};

/// Let users in pairs send to each other, as fast as it goes or at a fixed rate
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Chat {
    /// How many users; an even number
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(2..=USERS_MAX as i64))]
    users: u32,

    /// How many messages a user has on their way to the server
    #[arg(long, value_name = "N", default_value_t = 16, conflicts_with = "rate", value_parser = value_parser!(u32).range(1..=WINDOW_MAX as i64))]
    window: u32,

    /// Length of a message in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = value_parser!(u32).range(SIZE_MIN as i64..=BODY_BYTES_MAX as i64))]
    size: u32,

    /// How long to measure, after a warm-up
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,

    /// Messages per second of all users together, instead of as many as it goes
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,

    /// Have so many other accounts on the server, each with a device
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "server", value_parser = value_parser!(u32).range(0..=ACCOUNTS_MAX as i64))]
    accounts: u32,

    /// Have so many messages of 256 bytes wait for other accounts
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "server", value_parser = value_parser!(u64).range(0..=BACKLOG_MAX))]
    backlog: u64,

    /// Tell each stretch of so many seconds by itself, as soon as it is over
    #[arg(long, value_name = "S", value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    every: Option<u64>,

    /// Measure this server instead of a private one; accounts are signed up there and stay
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["daemon", "archive", "storage_url"])]
    server: Option<Address>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Largest rate: more than any machine sends.
const RATE_MAX: i64 = 1_000_000;

const EXAMPLES: &str = "\
Examples:
  quail bench chat
  quail bench chat --users 1000 --window 64 --seconds 30
  quail bench chat --rate 100 --seconds 20 --json | jq .confirm_ms
  quail bench chat --rate 1000 --accounts 1000000 --backlog 10000000
  quail bench chat --rate 1000 --seconds 600 --every 10
  quail bench chat --users 10 --rate 20 --server 'quail://chat.example.org?pin=sha256:...'

confirm is from sending to the server's answer, receive from sending to the partner's feed; with
--rate both count from the moment at which the message was due. Delivered is a message when its
receipt is back. It exits with 1 if a message that was accepted is missing or comes twice.";

impl Chat {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        if !self.users.is_multiple_of(2) {
            return Err(Failure::usage("--users must be even: users come in pairs").into());
        }
        let stage = match &self.server {
            Some(address) => Stage::server(address.clone()),
            None => Stage::private(&self.daemon)?,
        };
        let every = self.every.map(seconds);
        let measure = async |target, watch: &mut quail::bench::Watch<'_>| {
            let options = ChatOptions {
                target,
                users: self.users as usize,
                window: self.window as usize,
                size: self.size as usize,
                measured: seconds(self.seconds),
                rate: self.rate.map(f64::from),
                background: BackgroundOptions { accounts: self.accounts as usize, backlog: self.backlog },
                every,
            };
            // The lines of the stretches stand where a bar would be drawn.
            let mut steps = |step: Step| {
                let is_told = every.is_some() && step.phase == Phase::Measure;
                watch(if is_told { Step { done: 0, of: 0, ..step } } else { step });
            };
            let mut told = |interval: &Interval| {
                // Whoever reads no more has been told enough; the end of the measurement says so too.
                let _ = output.people(line(interval));
            };
            run(options, &mut steps, &mut told).await
        };
        let report = stage.play(output, measure).await?;
        output.result(text(&report), &report)?;
        note_resent(output, report.resent);
        Ok(if report.is_flawless() { Outcome::Good } else { Outcome::Bad })
    }
}

/// A stretch as one line.
fn line(interval: &Interval) -> String {
    let Interval { confirm_ms, receive_ms, figures, .. } = interval;
    format!(
        "  {:7.1} s  {:8.0} messages/s  confirm {:.3} / {:.3} ms  receive {:.3} / {:.3} ms  {}  {}",
        interval.from_s,
        interval.accepted_per_s,
        confirm_ms.p50,
        confirm_ms.p99,
        receive_ms.p50,
        receive_ms.p99,
        figures.server_rss_bytes.map_or_else(|| "unknown".to_owned(), mebibytes),
        or_unknown(figures.server_cpu_us_per_message, "us/message"),
    )
}

/// What the server held of others.
fn background(background: &Background) -> String {
    let each = |bytes: Option<f64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{bytes:.0}"));
    format!(
        "{} accounts ({:.0}/s, {} bytes of memory each), {} messages that wait ({:.0}/s, {} bytes each, {} missing)",
        background.accounts,
        background.accounts_per_s,
        each(background.bytes_per_account),
        background.backlog,
        background.backlog_per_s,
        each(background.bytes_per_waiting),
        background.missing,
    )
}

fn text(report: &ChatReport) -> String {
    let load = match (report.rate, report.window) {
        (Some(rate), _) => format!("{} users, {rate} messages/s, {} bytes", report.users, report.size),
        (None, window) => {
            let window = window.unwrap_or_default();
            format!("{} users, {window} on their way each, {} bytes", report.users, report.size)
        }
    };
    let floors = report.floor_ms;
    let rows = table(&[
        ("load", load),
        ("beside", report.background.as_ref().map_or_else(|| "nothing".to_owned(), background)),
        ("accepted", format!("{:.0} messages/s", report.accepted_per_s)),
        ("delivered", format!("{:.0} messages/s", report.delivered_per_s)),
        ("confirm", latency(report.confirm_ms)),
        ("receive", latency(report.receive_ms)),
        ("server CPU", or_unknown(report.figures.server_cpu_us_per_message, "us/message")),
        ("users' CPU", or_unknown(report.client_cpu_us_per_message, "us/message")),
        ("server memory", report.figures.server_rss_bytes.map_or_else(|| "unknown".to_owned(), mebibytes)),
        ("server wake-ups", or_unknown(report.figures.server_wakeups_per_message, "per message")),
        ("server writes", or_unknown(report.figures.server_write_bytes_per_message, "bytes/message")),
        ("floor: ping", format!("p50 {:.3} ms", floors.ping_p50)),
        (
            "floor: ping, paced",
            floors.ping_paced_p50.map_or_else(|| "not taken".to_owned(), |p50| format!("p50 {p50:.3} ms")),
        ),
        (
            "floor: fdatasync",
            floors.fdatasync_p50.map_or_else(|| "unknown".to_owned(), |p50| format!("p50 {p50:.3} ms")),
        ),
        ("checked", format!("{} messages", report.accepted)),
        ("missing", report.missing.to_string()),
        ("duplicates", report.duplicates.to_string()),
        ("altered", report.altered.to_string()),
        ("without receipt", report.undelivered.to_string()),
        ("server", format!("{} on {} cores, shared with the users", report.server, report.cores)),
    ]);
    let verdict = if report.is_flawless() {
        "Everything accepted was shown once, and every receipt came back."
    } else {
        "PROMISES BROKEN: see the table."
    };
    format!("{rows}\n\n{verdict}")
}
