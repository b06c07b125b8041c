//! Promise: what was accepted is on disk, and everything that follows from it, wherever the daemon dies. It is made to die at
//! each place where the outbox is between two states that a restart could take for each other, under load, while one
//! recipient acknowledges at once and another is away; then at moments of chance.
//!
//! Events are moved into the settled store every tenth of a second here, segments of the journal are small, and the settled
//! store is rotated at every chance, so that all places are reached in a moment.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::os::unix::process::ExitStatusExt;

use quail::launcher::LauncherError;
use quail_tests::traffic::Traffic;
use quail_tests::{Chance, PATIENCE, World, quaild_with, rounds};

/// The list of the daemon's places.
const SOURCE: &str = include_str!("../../daemon/src/ops/failpoint.rs");

/// A place, and at which visit to it the daemon dies in turn.
type Place = (&'static str, &'static [u32]);

/// Places of the journal that are passed with every write, and where a segment begins.
const JOURNAL: &[Place] = &[
    ("journal-before-write", &[1, 30]),
    ("journal-written", &[1, 30]),
    ("journal-synced", &[1, 30]),
    ("journal-segment-begun", &[1, 3]),
];

/// Places that are passed once at each start. There it dies as many times in a row.
const START: &[Place] = &[
    ("journal-replayed", &[1, 2]),
    ("journal-copied", &[1, 2]),
    ("journal-epoch-switched", &[1, 2]),
    ("journal-recycled", &[1, 2]),
];

/// Places of a move into the settled store.
const SPILL: &[Place] = &[
    ("spill-frozen", &[1, 3]),
    ("settled-chunk-written", &[1, 4]),
    ("settled-deleted", &[1, 3]),
    ("settled-before-mark", &[1, 3]),
    ("settled-marked", &[1, 3]),
    ("spill-released", &[1, 3]),
];

/// Places of a rotation of the settled store.
const ROTATION: &[Place] = &[("settled-rotate-copied", &[1, 2]), ("settled-rotate-switched", &[1, 2])];

/// SIGABRT, which is how a daemon dies at a place.
const ABORTED: i32 = 6;

/// Messages accepted before each death, so that there is something to lose.
const BEFORE: usize = 150;

async fn world() -> Option<World> {
    let program = quaild_with("failpoints")?;
    let world = World::start_with(|options| {
        options.quaild = program;
        for (name, value) in
            [("QUAIL_SPILL_AFTER_MS", "100"), ("QUAIL_ROTATE_BYTES", "0"), ("QUAIL_SEGMENT_BYTES", "262144")]
        {
            options.env.push((name.into(), value.into()));
        }
    });
    Some(world.await)
}

/// Lets the daemon die at a place at each of some visits, in one life after the other, and checks everything at the end.
async fn die_at(places: &[Place]) {
    for (place, visits) in places {
        let Some(mut world) = world().await else { return };
        let mut traffic = Traffic::begin(&world).await;
        for visit in *visits {
            traffic.flows(BEFORE).await;
            world.daemon.kill().await.unwrap();
            traffic.crashed().await;
            let began = std::time::Instant::now();
            die(&mut world, &mut traffic, place, *visit).await;
            println!("{place}:{visit} after {:?}", began.elapsed());
            world.daemon.restart().await.unwrap_or_else(|error| panic!("after {place}:{visit}: {error}"));
            traffic.back(&world);
        }
        traffic.flows(BEFORE).await;
        traffic.finish(&mut world).await;
    }
}

/// Starts the daemon so that it dies at a place, and waits until it has.
async fn die(world: &mut World, traffic: &mut Traffic, place: &str, visit: u32) {
    let at_start = START.iter().any(|(name, _)| *name == place);
    let (visit, lives) = if at_start { (1, visit) } else { (visit, 1) };
    world.daemon.options_mut().env.push(("QUAIL_FAILPOINT".into(), format!("{place}:{visit}").into()));
    for _ in 0..lives {
        let status = match world.daemon.restart().await {
            Ok(()) => {
                traffic.back(world);
                let ended = tokio::time::timeout(PATIENCE, world.daemon.wait()).await;
                ended.unwrap_or_else(|_| panic!("{place} was not reached {visit} times")).unwrap()
            }
            Err(LauncherError::Exited { status, .. }) => status,
            Err(error) => panic!("{place}:{visit}: {error}"),
        };
        assert_eq!(status.signal(), Some(ABORTED), "{place}:{visit}: {status}, {}", world.daemon.log_tail());
        traffic.crashed().await;
    }
    world.daemon.options_mut().env.pop();
}

#[test]
fn every_place_of_the_daemon_is_tried() {
    let (_, list) = SOURCE.split_once("NAMES: &[&str] = &[").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let mut names: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    let mut tried: Vec<_> =
        [JOURNAL, START, SPILL, ROTATION].concat().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    tried.sort_unstable();
    assert_eq!(tried, names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable_where_the_journal_is_written() {
    die_at(JOURNAL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable_where_a_start_replays_and_copies() {
    die_at(START).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable_where_events_move_into_the_settled_store() {
    die_at(SPILL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable_where_the_settled_store_is_rotated() {
    die_at(ROTATION).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable_at_any_moment_while_events_move() {
    let Some(mut world) = world().await else { return };
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut traffic = Traffic::begin(&world).await;
    let rounds = rounds(50);
    for round in 1..=rounds {
        traffic.flows(chance.below(200) as usize).await;
        world.daemon.kill().await.unwrap();
        traffic.crashed().await;
        world.daemon.restart().await.unwrap_or_else(|error| panic!("round {round}, seed {seed}: {error}"));
        traffic.back(&world);
        if round % 10 == 0 {
            println!("round {round}: {} messages waited", traffic.visit(&world).await);
        }
        if round % 25 == 0 && round < rounds {
            traffic.finish(&mut world).await;
            world = self::world().await.unwrap();
            traffic = Traffic::begin(&world).await;
        }
    }
    traffic.finish(&mut world).await;
}
