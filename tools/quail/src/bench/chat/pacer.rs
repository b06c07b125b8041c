//! Sends at a fixed rate, each message at its moment, whatever became of those before it.
//!
//! It has a thread of its own: the runtime's timer counts in milliseconds, which is longer than a message takes.
//!
//! Invariant: a message carries the moment at which it was due, also when the pacer comes too late.

use std::num::NonZero;
use std::time::{Duration, Instant};

use quail_client::sending::QUEUED_MESSAGES_MAX;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::BenchError;
use super::super::plan::Schedule;
use super::course::Shared;
use super::user::{Flight, Writing};

/// Longest sleep before it is looked whether anybody still listens.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A sleep is this much shorter than it should be, because a wake-up takes its time; the rest is waited out awake.
const WAKE_UP: Duration = Duration::from_micros(20);

/// How much later than asked for the kernel may wake up this thread, in nanoseconds; 50 us unless it is told.
const TIMER_SLACK: NonZero<u64> = NonZero::<u64>::MIN;

/// Where the pacer sends for one user.
#[derive(Debug)]
pub(super) struct Lane {
    writing: Writing,
    flights: mpsc::Sender<Flight>,
}

/// Makes a lane and the end at which the user learns what was sent. The SDK takes no more than fit in between.
pub(super) fn lane(writing: Writing) -> (Lane, mpsc::Receiver<Flight>) {
    let (flights, receiver) = mpsc::channel(QUEUED_MESSAGES_MAX);
    (Lane { writing, flights }, receiver)
}

/// Sends until the measured time is over or a user is gone. Blocks.
pub(super) fn run(
    mut lanes: Vec<Lane>,
    schedule: Schedule,
    shared: &Shared,
    runtime: &Handle,
) -> Result<(), BenchError> {
    // Without it, messages leave a little later than they should, and their times say so.
    let _ = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK));
    for message in 0.. {
        let (due, user) = schedule.turn(message);
        let Some(lane) = lanes.get_mut(user).filter(|_| due < shared.plan.upto) else {
            break;
        };
        if !wait_for(shared.zero + due, lane) {
            break;
        }
        let flight = runtime.block_on(lane.writing.send(due))?;
        if lane.flights.blocking_send(flight).is_err() {
            break;
        }
    }
    Ok(())
}

/// Waits for a moment; returns false if the user is gone.
fn wait_for(moment: Instant, lane: &Lane) -> bool {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if lane.flights.is_closed() || left.is_zero() {
            return !lane.flights.is_closed();
        }
        match left.checked_sub(WAKE_UP) {
            Some(sleep) if !sleep.is_zero() => std::thread::sleep(sleep.min(SLEEP_MAX)),
            _ => std::hint::spin_loop(),
        }
    }
}
