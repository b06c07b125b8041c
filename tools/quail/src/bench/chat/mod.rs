//! Users in pairs who send to each other: what a server carries, how long it takes, what it costs.
//!
//! Either every user keeps a window of messages without an answer, as fast as the server lets it, or all together send at
//! a fixed rate. A message counts as accepted when the server has answered that it has it, and as delivered when the
//! receipt is back: the daemon has journalled that the recipient's device acknowledged it. After a warm-up comes the
//! measured time, after that everything on its way is waited for, and then the checker judges what all users did and saw.
//!
//! Invariants: every message of the run is judged, those of the warm-up too; at a fixed rate times count from the
//! moment at which a message was due.

mod pacer;
mod user;

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::Credentials;
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::check::{Verdict, judge_pairs};
use super::plan::{Plan, Schedule};
use super::process::Usage;
use super::report::{Figures, Floors, Latency, Times, per_second};
use super::server::Server;
use super::users::{self, Sockets, User};
use super::{BenchError, PROGRESS_INTERVAL, Phase, Step, Target, Watch, floors};
use user::{Flights, Tally};

/// Most messages that a user may have without an answer: the server's limit.
pub const WINDOW_MAX: usize = SENDS_UNANSWERED_MAX;

/// How long before the users begin they are told to, so that all are there.
const HEAD_START: Duration = Duration::from_millis(20);

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
    /// Returns whether everything accepted was shown once, unaltered, and its receipt came back.
    pub fn is_flawless(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.altered == 0 && self.undelivered == 0
    }
}

/// What all users share.
#[derive(Debug)]
struct Shared {
    /// The measurement's zero.
    zero: Instant,
    plan: Plan,
    /// How many users have everything back that they sent.
    settled: watch::Sender<usize>,
}

impl Shared {
    /// Returns the time since zero.
    fn now(&self) -> Duration {
        self.zero.elapsed()
    }
}

/// Measures. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`BenchError`]. What was found wrong with the server's work is no error: the report says so.
pub async fn run(options: ChatOptions, watch: &mut Watch<'_>) -> Result<ChatReport, BenchError> {
    let mut server = Server::start(&options.target).await?;
    let credentials = server.provision(options.users, watch).await?;
    let sockets = Sockets::bind(server.address(), options.users)?;
    let users = users::open_all(server.address(), &credentials, &sockets, watch).await?;
    let floors = match users.first() {
        Some(user) => floors::take(&user.client, server.data(), options.rate).await?,
        None => Floors::default(),
    };
    let name = server_name(&users).await?;
    let shared = Arc::new(Shared {
        zero: Instant::now() + HEAD_START,
        plan: Plan::new(options.measured),
        settled: watch::Sender::new(0),
    });
    let mut talking = talk(&options, users, &credentials, &shared);
    let figures = measured(&server, &shared, &mut talking, watch).await?;
    let tallies = settle(&shared, options.users, &mut talking, watch).await?;
    let judged = users::blocking(move || {
        let verdict = judge_pairs(tallies.iter().map(|tally| &tally.track));
        (tallies, verdict)
    });
    let (tallies, verdict) = judged.await?;
    Ok(report(&options, &shared, (&tallies, verdict), floors, name, figures))
}

async fn server_name(users: &[User]) -> Result<String, BenchError> {
    match users.first() {
        Some(user) => Ok(user.client.ping().await.map_err(BenchError::client("ping"))?.server_name),
        None => Ok(String::new()),
    }
}

/// What runs while users talk: the users, each of which ends with its tally, and the pacer, which has none.
type Talking = JoinSet<Result<Option<Tally>, BenchError>>;

/// Starts all users.
fn talk(
    options: &ChatOptions,
    users: Vec<User>,
    credentials: &[Credentials],
    shared: &Arc<Shared>,
) -> Talking {
    let mut talking = JoinSet::new();
    let mut lanes = Vec::new();
    let count = users.len();
    for (number, user) in users.into_iter().enumerate() {
        let partner = number ^ 1;
        let Some(account) = credentials.get(partner).map(|partner| partner.account) else {
            continue;
        };
        let writing = user::Writing::new(user.client.clone(), number as u32, account, options.size);
        let flights = match options.rate {
            None => Flights::Window { writing, window: options.window },
            Some(_) => {
                let (lane, receiver) = pacer::lane(writing);
                lanes.push(lane);
                Flights::Paced(receiver)
            }
        };
        let talker = user::Talker::new(user, (partner as u32, account), flights, shared.clone(), count);
        talking.spawn(async move { talker.run().await.map(Some) });
    }
    if let Some(rate) = options.rate {
        let (schedule, shared) = (Schedule::new(count, rate), shared.clone());
        let runtime = tokio::runtime::Handle::current();
        talking.spawn_blocking(move || pacer::run(lanes, schedule, &shared, &runtime).map(|()| None));
    }
    talking
}

/// What the daemon and this process had used at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    server: Option<Usage>,
    own: Option<Usage>,
}

impl Look {
    fn now(server: &Server) -> Result<Self, BenchError> {
        // Of another server's users nothing more is known than of the server, where the kernel does not tell.
        Ok(Self { server: server.usage()?, own: Usage::of(std::process::id()).ok() })
    }

    /// Returns what server and users used until `later`, spread over so many messages.
    fn until(self, later: Self, messages: u64) -> (Figures, Option<f64>) {
        let figures = |before: Option<Usage>, after: Option<Usage>| {
            let both = before.zip(after);
            both.map(|(before, after)| Figures::between(before, after, messages)).unwrap_or_default()
        };
        let own = figures(self.own, later.own).server_cpu_us_per_message;
        (figures(self.server, later.server), own)
    }
}

/// Waits until the measured time is over and looks at the server at its beginning and its end.
async fn measured(
    server: &Server,
    shared: &Shared,
    talking: &mut Talking,
    watch: &mut Watch<'_>,
) -> Result<(Look, Look), BenchError> {
    let Plan { from, upto } = shared.plan;
    wait_until(from, shared, talking, watch).await?;
    let before = Look::now(server)?;
    wait_until(upto, shared, talking, watch).await?;
    Ok((before, Look::now(server)?))
}

async fn wait_until(
    moment: Duration,
    shared: &Shared,
    talking: &mut Talking,
    watch: &mut Watch<'_>,
) -> Result<(), BenchError> {
    let of = shared.plan.upto.as_millis() as u64;
    loop {
        let now = shared.now();
        watch(Step { phase: Phase::Measure, done: now.as_millis() as u64, of });
        if now >= moment {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(PROGRESS_INTERVAL.min(moment - now)) => {}
            // Nobody ends before the time but by an error.
            Some(ended) = talking.join_next() => drop(tally(ended)?),
        }
    }
}

fn tally(
    ended: Result<Result<Option<Tally>, BenchError>, tokio::task::JoinError>,
) -> Result<Option<Tally>, BenchError> {
    ended.map_err(|error| BenchError::Part(error.to_string()))?
}

/// Waits until everybody has everything back, and returns what they counted, in the order of the users.
async fn settle(
    shared: &Shared,
    users: usize,
    talking: &mut Talking,
    watch: &mut Watch<'_>,
) -> Result<Vec<Tally>, BenchError> {
    let mut tallies = Vec::with_capacity(users);
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            ended = talking.join_next() => match ended {
                None => {
                    tallies.sort_unstable_by_key(|tally: &Tally| tally.user);
                    return Ok(tallies);
                }
                Some(ended) => tallies.extend(tally(ended)?),
            },
            _ = tick.tick() => {
                let done = *shared.settled.borrow() as u64;
                watch(Step { phase: Phase::Drain, done, of: users as u64 });
            }
        }
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
        archive: "none",
        floor_ms,
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
