//! When what happens: the measured time and the schedule of a fixed rate, without clock.
//!
//! With a fixed rate every message has its moment, whatever became of those before it, and latencies count from there.
//! Counting from the actual send would hide that a server which stands still keeps the senders waiting too
//! ("coordinated omission").
//!
//! Invariant: times count from the measurement's zero, the moment at which the users begin.

use std::time::Duration;

/// Longest time at the beginning that is not measured.
const WARM_UP_MAX: Duration = Duration::from_secs(2);

/// What part of the measured time the warm-up takes where that is shorter.
const WARM_UP_PART: u32 = 4;

/// The stretches of a measurement under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where the measured time begins.
    pub(super) from: Duration,
    /// Where it ends, and with it the sending.
    pub(super) upto: Duration,
}

impl Plan {
    /// Plans so many measured seconds, with a warm-up before them.
    pub(super) fn new(measured: Duration) -> Self {
        let from = (measured / WARM_UP_PART).min(WARM_UP_MAX);
        Self { from, upto: from + measured }
    }

    /// Returns whether a moment is measured.
    pub(super) fn measures(&self, moment: Duration) -> bool {
        self.from <= moment && moment < self.upto
    }

    /// Returns the measured time.
    pub(super) fn measured(&self) -> Duration {
        self.upto - self.from
    }
}

/// The moments of a fixed rate over many users, who take turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Schedule {
    users: u64,
    /// Messages per second, of all users together.
    rate: f64,
}

impl Schedule {
    /// `rate` is above zero, `users` too.
    pub(super) fn new(users: usize, rate: f64) -> Self {
        Self { users: users.max(1) as u64, rate }
    }

    /// Returns the moment of a message, counted over all users from 0, and whose it is.
    pub(super) fn turn(&self, message: u64) -> (Duration, usize) {
        // Never added up, so that rounding does not either.
        (Duration::from_secs_f64(message as f64 / self.rate), (message % self.users) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_measurement_has_a_short_warm_up() {
        let plan = Plan::new(Duration::from_secs(1));
        assert_eq!((plan.from, plan.upto), (Duration::from_millis(250), Duration::from_millis(1250)));
        let plan = Plan::new(Duration::from_secs(60));
        assert_eq!((plan.from, plan.measured()), (WARM_UP_MAX, Duration::from_secs(60)));
    }

    #[test]
    fn only_what_lies_in_the_measured_time_counts() {
        let plan = Plan::new(Duration::from_secs(4));
        let measured = [0, 999, 1000, 4999, 5000].map(|ms| plan.measures(Duration::from_millis(ms)));
        assert_eq!(measured, [false, false, true, true, false]);
    }

    #[test]
    fn a_schedule_keeps_its_rate_and_takes_turns() {
        let schedule = Schedule::new(3, 100.0);
        let turns: Vec<_> = (0..4).map(|message| schedule.turn(message)).collect();
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(turns, [(at(0), 0), (at(10), 1), (at(20), 2), (at(30), 0)]);
        assert_eq!(schedule.turn(360_000).0, Duration::from_secs(3600), "it does not drift");
    }
}
