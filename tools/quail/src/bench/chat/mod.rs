//! Users in pairs who send to each other: what a server carries, how long it takes, what it costs.
//!
//! Either every user keeps a window of messages without an answer, as fast as the server lets it, or all together send at
//! a fixed rate. A message counts as accepted when the server has answered that it has it, and as delivered when the
//! receipt is back: the daemon has journalled that the recipient's device acknowledged it. After a warm-up comes the
//! measured time, after that everything on its way is waited for, and then the checker judges what all users did and saw.
//!
//! Invariants: every message of the run is judged, those of the warm-up too; at a fixed rate times count from the
//! moment at which a message was due.

pub(super) mod course;
mod gauge;
mod pacer;
mod user;

use std::time::Duration;

use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use serde::Serialize;

use super::background::{self, Background, BackgroundOptions};
use super::check::{Verdict, judge_pairs};
use super::plan::Plan;
use super::report::{Figures, Floors, Latency, Times, per_second};
use super::server::Server;
use super::users::{self, Sockets, User};
use super::{BenchError, Target, Watch, floors};
use course::{Load, Look, Shared, Way, measured, settle, talk};
pub use gauge::Interval;
use user::Tally;

/// Most messages that a user may have without an answer: the server's limit.
pub const WINDOW_MAX: usize = SENDS_UNANSWERED_MAX;

/// What to send.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// The server.
    pub target: Target,
    /// How many users; even, because they come in pairs.
    pub users: usize,
    /// How many messages a user has without an answer. Without meaning at a fixed rate.
    pub window: usize,
    /// Length of a body in bytes, from [`SIZE_MIN`](super::SIZE_MIN).
    pub size: usize,
    /// The measured time.
    pub measured: Duration,
    /// Messages per second of all users together; without it as many as the windows allow.
    pub rate: Option<f64>,
    /// What the server holds of others meanwhile.
    pub background: BackgroundOptions,
    /// Besides the whole, each stretch of this length is told by itself.
    pub every: Option<Duration>,
}

/// What was found. Serializes as the object that `quail bench chat --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChatReport {
    /// Messages accepted per second of the measured time.
    pub accepted_per_s: f64,
    /// Messages whose receipt came back, per second of the measured time.
    pub delivered_per_s: f64,
    /// From sending to the server's answer.
    pub confirm_ms: Latency,
    /// From sending to the partner's feed.
    pub receive_ms: Latency,
    /// What the daemon used.
    #[serde(flatten)]
    pub figures: Figures,
    /// CPU time of this process, which plays all users, per accepted message, in microseconds: it takes the same
    /// processors as the daemon.
    pub client_cpu_us_per_message: Option<f64>,
    /// Messages that were accepted and not shown to the partner.
    pub missing: u64,
    /// Messages that the partner was shown again.
    pub duplicates: u64,
    /// Messages that were not what was sent, or not in the order in which it was.
    pub altered: u64,
    /// Messages whose answer or receipt did not come back.
    pub undelivered: u64,
    /// What the server keeps of messages that were delivered.
    pub archive: &'static str,
    /// What the machine gives without messages.
    pub floor_ms: Floors,
    /// What the server held of others; absent if nothing.
    pub background: Option<Background>,
    /// The stretches of the measured time, if they were asked for.
    pub intervals: Vec<Interval>,
    /// How many users.
    pub users: usize,
    /// Messages of a user without an answer; absent at a fixed rate.
    pub window: Option<usize>,
    /// Length of a body in bytes.
    pub size: usize,
    /// The measured time in seconds.
    pub seconds: f64,
    /// The fixed rate, if there was one.
    pub rate: Option<f64>,
    /// Messages accepted in the whole run, with warm-up and drain.
    pub accepted: u64,
    /// Messages that were sent again, because the server refused them for now or a connection was lost.
    pub resent: u64,
    /// How often a client had to connect again.
    pub reconnects: u64,
    /// Processors of this machine, which server and users share.
    pub cores: usize,
    /// The version of this program.
    pub version: &'static str,
    /// The server program, as it names itself.
    pub server: String,
}

impl ChatReport {
    /// Returns whether everything accepted was shown once, unaltered, and its receipt came back, and the server still holds
    /// what waits for others.
    pub fn is_flawless(&self) -> bool {
        let kept = self.background.as_ref().is_none_or(|background| background.missing == 0);
        kept && self.missing == 0 && self.duplicates == 0 && self.altered == 0 && self.undelivered == 0
    }
}

/// Measures, and tells each stretch as soon as it is over. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`BenchError`]. What was found wrong with the server's work is no error: the report says so.
pub async fn run(
    options: ChatOptions,
    watch: &mut Watch<'_>,
    told: &mut (dyn FnMut(&Interval) + Send),
) -> Result<ChatReport, BenchError> {
    let mut server = Server::start(&options.target).await?;
    let mut background = background::prepare(&mut server, &options.background, watch).await?;
    let credentials = server.provision(options.users, watch).await?;
    let sockets = Sockets::bind(server.address(), options.users)?;
    let users = users::open_all(server.address(), &credentials, &sockets, watch).await?;
    let floors = match users.first() {
        Some(user) => floors::take(&user.client, server.data(), options.rate).await?,
        None => Floors::default(),
    };
    let name = server_name(&users).await?;
    let shared = Shared::soon(Plan::new(options.measured), options.every.is_some());
    let load = Load { size: options.size, window: options.window, rate: options.rate, way: Way::Both };
    let mut talking = talk(&load, users, &credentials, &shared);
    let (looks, intervals) = measured(&server, &shared, options.every, &mut talking, watch, told).await?;
    let tallies = settle(&shared, options.users, &mut talking, watch).await?;
    if let Some(background) = &mut background {
        background.look_again(&server).await?;
    }
    let judged = users::blocking(move || {
        let verdict = judge_pairs(tallies.iter().map(|tally| &tally.track));
        (tallies, verdict)
    });
    let (tallies, verdict) = judged.await?;
    let report = report(&options, &shared, (&tallies, verdict), floors, name, looks);
    Ok(ChatReport { background, intervals, ..report })
}

pub(super) async fn server_name(users: &[User]) -> Result<String, BenchError> {
    match users.first() {
        Some(user) => Ok(user.client.ping().await.map_err(BenchError::client("ping"))?.server_name),
        None => Ok(String::new()),
    }
}

fn report(
    options: &ChatOptions,
    shared: &Shared,
    (tallies, verdict): (&[Tally], Verdict),
    floor_ms: Floors,
    server: String,
    (before, after): (Look, Look),
) -> ChatReport {
    let (mut confirm, mut receive) = (Times::new(), Times::new());
    for tally in tallies {
        confirm.add(&tally.confirm);
        receive.add(&tally.receive);
    }
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let accepted = sum(|tally| tally.accepted_measured);
    let (figures, client_cpu_us_per_message) = before.until(after, accepted);
    let time = shared.plan.measured();
    ChatReport {
        accepted_per_s: per_second(accepted, time),
        delivered_per_s: per_second(sum(|tally| tally.delivered_measured), time),
        confirm_ms: confirm.latency(),
        receive_ms: receive.latency(),
        figures,
        client_cpu_us_per_message,
        missing: verdict.missing,
        duplicates: verdict.duplicates,
        altered: verdict.altered,
        undelivered: verdict.undelivered,
        archive: options.target.archive(),
        floor_ms,
        background: None,
        intervals: Vec::new(),
        users: options.users,
        window: options.rate.is_none().then_some(options.window),
        size: options.size,
        seconds: time.as_secs_f64(),
        rate: options.rate,
        accepted: sum(|tally| tally.track.accepted.len()),
        resent: sum(|tally| tally.resent),
        reconnects: sum(|tally| tally.reconnects),
        cores: cores(),
        version: env!("CARGO_PKG_VERSION"),
        server,
    }
}

/// Returns how many processors this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
