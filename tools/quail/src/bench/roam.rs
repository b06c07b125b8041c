//! What a conversation notices of changing networks: one of two who talk moves to another address again and again, and now and
//! then nothing comes back any more.
//!
//! A *move* is another UDP socket: the connection goes on under its new address. A *cut* is a socket on which nothing is heard:
//! the connection is lost without a word, so that the session is resumed on another one. Either way the SDK is told that the
//! network has changed, as an operating system tells an application.
//!
//! The gap of a disturbance is the time from it until a message that was written after it has arrived, in the direction in which
//! that took longer.
//!
//! Invariants: both write at a fixed pace, whatever happens; a disturbance comes only after the one before is over.

mod talk;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quail_checker::Violation;
use quail_client::Client;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::report::micro;
use super::server::Server;
use super::users::{self, User};
use talk::{Scene, Writer, read};

use super::{BenchError, DRAIN_TIMEOUT, PROGRESS_INTERVAL, Phase, Step, Target, Watch};

/// Most moves, and most cuts, of one run.
pub const DISTURBANCES_MAX: u32 = 10_000;

/// How long a conversation may be interrupted before the run is given up.
const GAP_MAX: Duration = Duration::from_secs(60);

/// How often is looked whether it goes on.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What to do.
#[derive(Clone, Debug)]
pub struct RoamOptions {
    /// The server.
    pub target: Target,
    /// How often the one who roams moves to another address.
    pub moves: u32,
    /// How often its connection is cut.
    pub cuts: u32,
    /// How long the conversation lasts, unless the disturbances take longer.
    pub measured: Duration,
}

/// What was found. Serializes as the object that `quail roam --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RoamReport {
    /// How often the one who roams moved.
    pub moves: u32,
    /// How often its connection was cut.
    pub cuts: u32,
    /// How long the conversation was interrupted.
    pub gap_ms: Gaps,
    /// Messages that did not arrive, or got no answer.
    pub missing: u64,
    /// Messages that arrived more than once, or otherwise not as they were sent.
    pub duplicates: u64,
    /// Messages of both.
    pub messages: u64,
    /// How often the one who roams had to resume on another connection.
    pub reconnects: u64,
    /// How long the conversation lasted, in seconds.
    pub seconds: f64,
    /// The version of this program.
    pub version: &'static str,
}

/// Interruptions, in milliseconds. Zero if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gaps {
    /// Half of them were no longer.
    pub p50: f64,
    /// The longest.
    pub max: f64,
}

impl RoamReport {
    /// Returns whether every message arrived once.
    pub fn is_flawless(&self) -> bool {
        self.missing == 0 && self.duplicates == 0
    }
}

/// Runs a conversation with disturbances. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`BenchError`].
pub async fn run(options: RoamOptions, watch: &mut Watch<'_>) -> Result<RoamReport, BenchError> {
    let mut server = Server::start(&options.target).await?;
    let address = server.address().clone();
    let [roams, stays]: [_; 2] = server
        .provision(2, watch)
        .await?
        .try_into()
        .map_err(|accounts: Vec<_>| BenchError::Accounts { expected: 2, got: accounts.len() })?;
    let scene = Arc::new(Scene::new(&roams, &stays));
    let User { client: roamer, events: to_roamer } = users::open(&address, &roams, None).await?;
    let User { client: stayer, events: to_stayer } = users::open(&address, &stays, None).await?;

    let began = Instant::now();
    let ways = [Way::default(), Way::default()];
    let stop = Arc::new(watch::Sender::new(false));
    let mut tasks = JoinSet::new();
    tasks.spawn(Writer::new(&roamer, (&roams, &stays), &ways[0], &scene).run(stop.subscribe()));
    tasks.spawn(Writer::new(&stayer, (&stays, &roams), &ways[1], &scene).run(stop.subscribe()));
    let mut reading = JoinSet::new();
    reading.spawn(read(to_stayer, stays, ways[0].clone(), scene.clone()));
    reading.spawn(read(to_roamer, roams, ways[1].clone(), scene.clone()));
    let gaps = tokio::select! {
        gaps = disturb(&options, &roamer, &ways, watch) => gaps?,
        Some(ended) = tasks.join_next() => {
            return Err(ended.map_err(|error| BenchError::Part(error.to_string()))?
                .err()
                .unwrap_or(BenchError::Stuck { what: "the conversation" }));
        }
    };
    let lasted = began.elapsed();
    // Nobody listens only if both have ended.
    stop.send_replace(true);
    watch(Step { phase: Phase::Drain, done: 0, of: 2 });
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| BenchError::Part(error.to_string()))??;
    }
    let arrived = async {
        while ways.iter().any(|way| way.lock().awaits()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // What has not come by then is missing, and counted.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, arrived).await;
    let reconnects = roamer.stats().reconnects;
    let closing = tokio::join!(roamer.close(), stayer.close());
    for closed in [closing.0, closing.1] {
        closed.map_err(BenchError::client("close"))?;
    }
    let found = scene.finish();
    let is_missing =
        |found: &&Violation| matches!(found, Violation::Lost { .. } | Violation::Unanswered { .. });
    let missing = found.iter().filter(is_missing).count() as u64;
    Ok(RoamReport {
        moves: options.moves,
        cuts: options.cuts,
        gap_ms: Gaps::of(gaps),
        missing,
        duplicates: found.len() as u64 - missing,
        messages: ways.iter().map(|way| way.lock().written.len() as u64).sum(),
        reconnects,
        seconds: micro(lasted.as_secs_f64()),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Moves and cuts, evenly over the time, and returns the gaps.
async fn disturb(
    options: &RoamOptions,
    roamer: &Client,
    ways: &[Way; 2],
    watch: &mut Watch<'_>,
) -> Result<Vec<Duration>, BenchError> {
    let began = Instant::now();
    let of = options.measured.as_millis() as u64;
    let count = options.moves + options.cuts;
    let mut gaps = Vec::new();
    for number in 0..count {
        let due = options.measured.mul_f64(f64::from(number + 1) / f64::from(count + 1));
        until(began + due, began, of, watch).await;
        let at = Instant::now();
        if is_cut(number, options.cuts, count) {
            cut(roamer)?;
        } else {
            roamer.network_changed().map_err(BenchError::client("move"))?;
        }
        let gap = async {
            loop {
                if let Some(gap) = gap(ways, at) {
                    return gap;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let gap = tokio::time::timeout(GAP_MAX, gap).await;
        gaps.push(gap.map_err(|_| BenchError::Stuck { what: "the conversation to go on" })?);
    }
    until(began + options.measured, began, of, watch).await;
    Ok(gaps)
}

/// Spreads the cuts among all disturbances.
fn is_cut(number: u32, cuts: u32, count: u32) -> bool {
    let before = |number: u32| u64::from(number) * u64::from(cuts) / u64::from(count);
    before(number + 1) > before(number)
}

async fn until(due: Instant, began: Instant, of: u64, watch: &mut Watch<'_>) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        watch(Step { phase: Phase::Measure, done: began.elapsed().as_millis() as u64, of });
        tokio::time::sleep(left.min(PROGRESS_INTERVAL)).await;
    }
}

/// Moves a connection to where nothing is heard. The library listens at the last socket too, so it takes two.
fn cut(roamer: &Client) -> Result<(), BenchError> {
    for _ in 0..2 {
        let deaf =
            deaf().map_err(|error| BenchError::Part(format!("a socket that hears nothing: {error}")))?;
        roamer.network_changed_to(deaf).map_err(BenchError::client("cut"))?;
    }
    Ok(())
}

/// Returns a socket that hears nobody but a port at which nobody is.
fn deaf() -> std::io::Result<UdpSocket> {
    const DISCARD: u16 = 9;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, DISCARD))?;
    Ok(socket)
}

/// Returns how long it took from then until something that was written later had arrived both ways, once it has.
fn gap(ways: &[Way; 2], at: Instant) -> Option<Duration> {
    let gaps: Option<Vec<_>> = ways.iter().map(|way| way.lock().first_after(at)).collect();
    gaps?.into_iter().max()
}

/// One direction of the conversation.
#[derive(Clone, Debug, Default)]
struct Way(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    /// When each message was written.
    written: Vec<Instant>,
    /// When each arrived for the first time.
    arrived: Vec<Option<Instant>>,
}

impl Way {
    fn lock(&self) -> MutexGuard<'_, Record> {
        // Whole between two operations, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn awaits(&self) -> bool {
        self.arrived.iter().any(Option::is_none)
    }

    fn arrived(&mut self, number: usize) {
        if let Some(arrived @ None) = self.arrived.get_mut(number) {
            *arrived = Some(Instant::now());
        }
    }

    /// Returns after which time the first message that was written after an instant has arrived.
    fn first_after(&self, at: Instant) -> Option<Duration> {
        let first = self.written.partition_point(|written| *written < at);
        Some((*self.arrived.get(first)?)?.duration_since(at))
    }
}

impl Gaps {
    fn of(mut gaps: Vec<Duration>) -> Self {
        gaps.sort_unstable();
        let ms = |gap: Option<&Duration>| gap.map_or(0.0, |gap| micro(gap.as_secs_f64() * 1000.0));
        Self { p50: ms(gaps.get(gaps.len().saturating_sub(1) / 2)), max: ms(gaps.last()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_spread_among_the_moves() {
        let cuts = |cuts, count| (0..count).filter(|number| is_cut(*number, cuts, count)).collect::<Vec<_>>();
        assert_eq!(cuts(2, 6), [2, 5]);
        assert_eq!(cuts(0, 3), [0; 0]);
        assert_eq!(cuts(3, 3), [0, 1, 2]);
    }

    #[test]
    fn a_gap_ends_with_what_was_written_after_it_began() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut record = Record { written: vec![at(0), at(10), at(20)], arrived: vec![None; 3] };
        record.arrived[0] = Some(at(9));
        record.arrived[1] = Some(at(70));
        assert_eq!(record.first_after(at(5)), Some(Duration::from_millis(65)));
        assert_eq!(record.first_after(at(15)), None, "it has not arrived");
        assert_eq!(record.first_after(at(25)), None, "nothing was written");
        assert!(record.awaits());
        record.arrived(2);
        assert!(!record.awaits());
    }

    #[test]
    fn gaps_are_told_by_their_middle_and_their_longest() {
        let ms = Duration::from_millis;
        assert_eq!(Gaps::of(vec![ms(9), ms(1), ms(2)]), Gaps { p50: 2.0, max: 9.0 });
        assert_eq!(Gaps::of(Vec::new()), Gaps::default());
    }
}
