//! The course of a chat: its users begin together, talk until the time is over, and wait until everything is back.
//!
//! A chat measures itself; beside another one, with users who only read or do not even that, it is what disturbs it.
//!
//! Invariants: all users of a chat have one zero and one plan; nothing is waited for longer than the drain may take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::Credentials;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::plan::{Plan, Schedule};
use super::super::process::Usage;
use super::super::report::Figures;
use super::super::server::Server;
use super::super::users::User;
use super::super::{BenchError, PROGRESS_INTERVAL, Phase, Step, Watch};
use super::gauge::{Gauge, Interval};
use super::pacer;
use super::user::{Flights, Talker, Writing};

pub(in crate::bench) use super::user::Tally;

/// How long before the users begin they are told to, so that all are there.
const HEAD_START: Duration = Duration::from_millis(20);

/// What all users share.
#[derive(Debug)]
pub(in crate::bench) struct Shared {
    /// The measurement's zero.
    pub(in crate::bench) zero: Instant,
    pub(in crate::bench) plan: Plan,
    /// How many users have everything back that they sent.
    pub(in crate::bench) settled: watch::Sender<usize>,
    /// What came since somebody looked, if anybody does.
    pub(in crate::bench) gauge: Option<Gauge>,
}

impl Shared {
    /// Returns what users share who begin as soon as they can.
    pub(in crate::bench) fn soon(plan: Plan, gauged: bool) -> Arc<Self> {
        Self::at(Instant::now() + HEAD_START, plan, gauged)
    }

    /// Returns what users share who begin at a moment.
    pub(in crate::bench) fn at(zero: Instant, plan: Plan, gauged: bool) -> Arc<Self> {
        Arc::new(Self { zero, plan, settled: watch::Sender::new(0), gauge: gauged.then(Gauge::default) })
    }

    /// Returns the time since zero.
    pub(in crate::bench) fn now(&self) -> Duration {
        self.zero.elapsed()
    }
}

/// Who sends in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Way {
    /// Both.
    Both,
    /// The first; the second takes what comes.
    First,
    /// The first; the second is attached, and takes nothing until the time is over.
    FirstToOneWhoStops,
}

/// What users send.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Load {
    /// Length of a body in bytes.
    pub(in crate::bench) size: usize,
    /// Messages of a user without an answer. Without meaning at a fixed rate.
    pub(in crate::bench) window: usize,
    /// Messages per second of all together; without it as many as the windows allow.
    pub(in crate::bench) rate: Option<f64>,
    pub(in crate::bench) way: Way,
}

/// What runs while users talk: the users, each of which ends with its tally, and the pacer, which has none.
pub(in crate::bench) type Talking = JoinSet<Result<Option<Tally>, BenchError>>;

/// Starts all users. Each two that follow each other are a pair.
pub(in crate::bench) fn talk(
    load: &Load,
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
        let writing = Writing::new(user.client.clone(), number as u32, account, load.size);
        let flights = match (load.way, load.rate) {
            (Way::First, _) if number % 2 == 1 => Flights::None { stopped: false },
            (Way::FirstToOneWhoStops, _) if number % 2 == 1 => Flights::None { stopped: true },
            (_, None) => Flights::Window { writing, window: load.window },
            (_, Some(_)) => {
                let (lane, receiver) = pacer::lane(writing);
                lanes.push(lane);
                Flights::Paced(receiver)
            }
        };
        let talker = Talker::new(user, (partner as u32, account), flights, shared.clone(), count);
        talking.spawn(async move { talker.run().await.map(Some) });
    }
    if let Some(rate) = load.rate {
        let (schedule, shared) = (Schedule::new(lanes.len(), rate), shared.clone());
        let runtime = tokio::runtime::Handle::current();
        talking.spawn_blocking(move || pacer::run(lanes, schedule, &shared, &runtime).map(|()| None));
    }
    talking
}

/// What the daemon and this process had used at one moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Look {
    pub(in crate::bench) server: Option<Usage>,
    own: Option<Usage>,
}

impl Look {
    pub(in crate::bench) fn now(server: &Server) -> Result<Self, BenchError> {
        // Of another server's users nothing more is known than of the server, where the kernel does not tell.
        Ok(Self { server: server.usage()?, own: Usage::of(std::process::id()).ok() })
    }

    /// Returns what server and users used until `later`, spread over so many messages.
    pub(in crate::bench) fn until(self, later: Self, messages: u64) -> (Figures, Option<f64>) {
        let figures = |before: Option<Usage>, after: Option<Usage>| {
            let both = before.zip(after);
            both.map(|(before, after)| Figures::between(before, after, messages)).unwrap_or_default()
        };
        let own = figures(self.own, later.own).server_cpu_us_per_message;
        (figures(self.server, later.server), own)
    }
}

/// Waits until the measured time is over and looks at the server at its beginning and its end, and after each stretch of
/// `every`.
pub(super) async fn measured(
    server: &Server,
    shared: &Shared,
    every: Option<Duration>,
    talking: &mut Talking,
    watch: &mut Watch<'_>,
    told: &mut (dyn FnMut(&Interval) + Send),
) -> Result<((Look, Look), Vec<Interval>), BenchError> {
    let Plan { from, upto } = shared.plan;
    wait_until(from, shared, talking, watch).await?;
    let before = Look::now(server)?;
    let mut intervals = Vec::new();
    if let Some(every) = every {
        let mut at = from;
        while at < upto {
            // A last stretch that is hardly one belongs to that before it.
            let next = if at + every + every / 2 > upto { upto } else { at + every };
            let interval = interval(server, shared, (at, next), talking, watch).await?;
            told(&interval);
            intervals.push(interval);
            at = next;
        }
    }
    wait_until(upto, shared, talking, watch).await?;
    Ok(((before, Look::now(server)?), intervals))
}

/// Waits until a stretch is over and returns what came in it. It begins now, whatever its plan was.
pub(in crate::bench) async fn interval(
    server: &Server,
    shared: &Shared,
    (from, upto): (Duration, Duration),
    talking: &mut Talking,
    watch: &mut Watch<'_>,
) -> Result<Interval, BenchError> {
    wait_until(from, shared, talking, watch).await?;
    let (before, began) = (Look::now(server)?, shared.now());
    if let Some(gauge) = &shared.gauge {
        gauge.take();
    }
    wait_until(upto, shared, talking, watch).await?;
    let counted = shared.gauge.as_ref().map(Gauge::take).unwrap_or_default();
    let (figures, _) = before.until(Look::now(server)?, counted.accepted());
    Ok(Interval::new(&counted, (began, shared.now()), figures))
}

/// Waits for a moment. A user who fails ends the wait.
pub(in crate::bench) async fn wait_until(
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
pub(in crate::bench) async fn settle(
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
