//! Whether somebody can stop the others: a chat at a fixed rate, alone and beside one who disturbs it.
//!
//! Three disturb, one after the other: readers who stop taking what is written to them, a sender who sends as fast as one
//! device can, and a storm of log-ins. The same users are measured alone right before each, because a machine differs from one
//! minute to the next.
//!
//! Invariants: the users go on throughout at their rate; what the disturbers sent and were sent is judged like the messages
//! of the users; the readers take in the end what waited for them, and that is not more than an outbox holds.

mod report;
mod storm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::{Address, Credentials};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use tokio::task::JoinSet;

use super::chat::Interval;
use super::chat::course::{Load, Shared, Talking, Tally, Way, interval, settle, talk, wait_until};
use super::check::{Verdict, judge_pairs};
use super::plan::Plan;
use super::server::Server;
use super::users::{self, Sockets, User};
use super::{BenchError, Step, Target, Watch};
use storm::Tries;

pub use report::{Disturbance, IsolationReport};

/// How many readers stop.
pub const STOPPED_READERS: usize = 4;

/// Messages per second to each of them, and how many there are at the most: a part of what an outbox holds, which is 10,000.
const TO_STOPPED_PER_S: f64 = 250.0;
const TO_STOPPED_MAX: f64 = 5_000.0;

/// How long a disturbance lasts before it is measured beside it, and how long it may take afterwards until it is over. One that
/// takes longer, on a machine that has other things to do, shortens the stretch behind it.
const LEAD: Duration = Duration::from_secs(2);
const TAIL: Duration = Duration::from_secs(6);

/// How long the users talk before the first of all stretches.
const WARM_UP: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Clone, Debug)]
pub struct IsolationOptions {
    /// The server; it must be a private one.
    pub target: Target,
    /// How many users talk; even, because they come in pairs.
    pub users: usize,
    /// Messages per second of all of them together.
    pub rate: f64,
    /// Length of a body in bytes, from [`SIZE_MIN`](super::SIZE_MIN).
    pub size: usize,
    /// How long each stretch is measured: two for each disturbance.
    pub measured: Duration,
}

/// Who disturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturber {
    StoppedReaders,
    Bulk,
    Storm,
}

const DISTURBERS: [Disturber; 3] = [Disturber::StoppedReaders, Disturber::Bulk, Disturber::Storm];

impl Disturber {
    fn name(self) -> &'static str {
        match self {
            Self::StoppedReaders => "stopped_readers",
            Self::Bulk => "bulk_sender",
            Self::Storm => "log_in_storm",
        }
    }
}

/// When the stretches of one disturbance are, since the users began.
#[derive(Clone, Copy, Debug)]
struct Times {
    alone: (Duration, Duration),
    /// When the disturber begins.
    begins: Duration,
    beside: (Duration, Duration),
}

impl Times {
    fn of(turn: usize, measured: Duration) -> Self {
        let first = WARM_UP + (2 * measured + LEAD + TAIL) * turn as u32;
        let begins = first + measured;
        let beside = begins + LEAD;
        Self { alone: (first, begins), begins, beside: (beside, beside + measured) }
    }

    fn all_over(measured: Duration) -> Duration {
        Self::of(DISTURBERS.len(), measured).alone.0
    }
}

/// What came of a disturber: how much it did, what was refused, and what its devices did and saw.
struct Came {
    did_per_s: f64,
    refused: BTreeMap<String, u64>,
    tallies: Vec<Tally>,
}

/// A disturber at work.
enum Working {
    Talking { shared: Arc<Shared>, users: usize, talking: Talking },
    Storm(JoinSet<Result<Tries, BenchError>>),
}

/// A disturber who is ready.
struct Ready {
    disturber: Disturber,
    users: Vec<User>,
    credentials: Vec<Credentials>,
    handles: Vec<String>,
}

/// Measures. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`BenchError`]. What was found wrong with the server's work is no error: the report says so.
pub async fn run(options: IsolationOptions, watch: &mut Watch<'_>) -> Result<IsolationReport, BenchError> {
    let mut server = Server::start(&options.target).await?;
    let extra = 2 * STOPPED_READERS + 2;
    let credentials = server.provision(options.users + extra, watch).await?;
    let sockets = Sockets::bind(server.address(), credentials.len())?;
    let (chatting, disturbing) = credentials.split_at(options.users);
    let users = users::open_all(server.address(), chatting, &sockets, watch).await?;
    let ready = ready(&server, disturbing).await?;
    let name = super::chat::server_name(&users).await?;

    let upto = Times::all_over(options.measured);
    let shared = Shared::soon(Plan { from: WARM_UP, upto }, true);
    let load = Load { size: options.size, window: 1, rate: Some(options.rate), way: Way::Both };
    let mut talking = talk(&load, users, chatting, &shared);
    let (mut disturbances, mut disturbed) = (Vec::new(), Vec::new());
    for (turn, ready) in ready.into_iter().enumerate() {
        let times = Times::of(turn, options.measured);
        let mut chat = Chat { server: &server, shared: &shared, talking: &mut talking, watch: &mut *watch };
        let (disturbance, tallies) = chat.disturbed_by(ready, times, options.size).await?;
        disturbances.push(disturbance);
        disturbed.push(tallies);
    }
    wait_until(upto, &shared, &mut talking, watch).await?;
    let tallies = settle(&shared, options.users, &mut talking, watch).await?;
    let judged = users::blocking(move || judge(&tallies, &disturbed));
    let (verdict, messages, reconnects) = judged.await?;
    Ok(IsolationReport {
        disturbances,
        missing: verdict.missing,
        duplicates: verdict.duplicates,
        altered: verdict.altered,
        undelivered: verdict.undelivered,
        messages,
        users: options.users,
        rate: options.rate,
        size: options.size,
        seconds: options.measured.as_secs_f64(),
        reconnects,
        cores: super::chat::cores(),
        version: env!("CARGO_PKG_VERSION"),
        server: name,
    })
}

/// Judges what everybody did and saw, and counts messages and lost connections of the users.
fn judge(users: &[Tally], disturbed: &[Vec<Tally>]) -> (Verdict, u64, u64) {
    let mut verdict = judge_pairs(users.iter().map(|tally| &tally.track));
    let mut messages = users.iter().map(|tally| tally.track.accepted.len()).sum();
    for tallies in disturbed {
        verdict.join(judge_pairs(tallies.iter().map(|tally| &tally.track)));
        messages += tallies.iter().map(|tally| tally.track.accepted.len()).sum::<u64>();
    }
    (verdict, messages, users.iter().map(|tally| tally.reconnects).sum())
}

/// Connects those who will disturb, before anything is measured.
async fn ready(server: &Server, disturbing: &[Credentials]) -> Result<Vec<Ready>, BenchError> {
    let (stopped, bulk) = disturbing.split_at(2 * STOPPED_READERS);
    let mut ready = Vec::new();
    for disturber in DISTURBERS {
        let (credentials, handles) = match disturber {
            Disturber::StoppedReaders => (stopped, Vec::new()),
            Disturber::Bulk => (bulk, Vec::new()),
            Disturber::Storm => (&[][..], storm::sign_up(server.address()).await?),
        };
        let mut users = Vec::new();
        for credentials in credentials {
            // Sockets of their own, so that nobody waits for packets behind theirs.
            users.push(users::open(server.address(), credentials, None).await?);
        }
        ready.push(Ready { disturber, users, credentials: credentials.to_vec(), handles });
    }
    Ok(ready)
}

impl Ready {
    /// Begins at a moment and goes on for a time.
    fn start(self, address: &Address, zero: Instant, lasts: Duration, size: usize) -> Working {
        let window = SENDS_UNANSWERED_MAX;
        let (way, rate) = match self.disturber {
            Disturber::Storm => {
                let mut raging = JoinSet::new();
                raging.spawn(storm::rage(address.clone(), self.handles, (zero, zero + lasts)));
                return Working::Storm(raging);
            }
            Disturber::StoppedReaders => {
                let each = TO_STOPPED_PER_S.min(TO_STOPPED_MAX / lasts.as_secs_f64());
                (Way::FirstToOneWhoStops, Some(each * STOPPED_READERS as f64))
            }
            Disturber::Bulk => (Way::First, None),
        };
        let shared = Shared::at(zero, Plan { from: Duration::ZERO, upto: lasts }, false);
        let users = self.users.len();
        let load = Load { size, window, rate, way };
        Working::Talking { users, talking: talk(&load, self.users, &self.credentials, &shared), shared }
    }
}

impl Working {
    /// Waits until it is over and returns what came of it.
    async fn end(self, lasted: Duration) -> Result<Came, BenchError> {
        let per_s = |count: u64| super::report::per_second(count, lasted);
        match self {
            Self::Talking { shared, users, mut talking } => {
                let tallies = settle(&shared, users, &mut talking, &mut |_: Step| {}).await?;
                let resent: u64 = tallies.iter().map(|tally| tally.resent).sum();
                let lost: u64 = tallies.iter().map(|tally| tally.reconnects).sum();
                let refused = [("SEND", resent), ("CONNECTION_LOST", lost)];
                let refused = refused.into_iter().filter(|(_, count)| *count > 0);
                Ok(Came {
                    did_per_s: per_s(tallies.iter().map(|tally| tally.track.accepted.len()).sum()),
                    refused: refused.map(|(reason, count)| (reason.to_owned(), count)).collect(),
                    tallies,
                })
            }
            Self::Storm(mut raging) => {
                let ended = raging.join_next().await.unwrap_or_else(|| Ok(Ok(Tries::default())));
                let tries = ended.map_err(|error| BenchError::Part(error.to_string()))??;
                Ok(Came { did_per_s: per_s(tries.logged_in), refused: tries.refused, tallies: Vec::new() })
            }
        }
    }
}

/// The chat that is disturbed.
struct Chat<'a, 'w> {
    server: &'a Server,
    shared: &'a Shared,
    talking: &'a mut Talking,
    watch: &'a mut Watch<'w>,
}

impl Chat<'_, '_> {
    async fn disturbed_by(
        &mut self,
        ready: Ready,
        times: Times,
        size: usize,
    ) -> Result<(Disturbance, Vec<Tally>), BenchError> {
        let (disturber, lasts) = (ready.disturber, times.beside.1 - times.begins);
        let alone = self.stretch(times.alone).await?;
        let zero = self.shared.zero + times.begins;
        let working = ready.start(self.server.address(), zero, lasts, size);
        let beside = self.stretch(times.beside).await?;
        let came = working.end(lasts).await?;
        let readers = (disturber == Disturber::StoppedReaders).then_some(STOPPED_READERS);
        let (did, refused) = (came.did_per_s, came.refused);
        Ok((Disturbance::new(disturber.name(), (alone, beside), did, readers, refused), came.tallies))
    }

    async fn stretch(&mut self, stretch: (Duration, Duration)) -> Result<Interval, BenchError> {
        interval(self.server, self.shared, stretch, self.talking, self.watch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_follow_one_another() {
        let measured = Duration::from_secs(5);
        let mut at = WARM_UP;
        for turn in 0..DISTURBERS.len() {
            let times = Times::of(turn, measured);
            assert_eq!(times.alone.0, at);
            assert_eq!((times.alone.1, times.beside.0), (times.begins, times.begins + LEAD));
            at = times.beside.1 + TAIL;
        }
        assert_eq!(Times::all_over(measured), at);
    }
}
