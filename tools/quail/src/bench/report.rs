//! The parts that reports share: latencies, the server's figures, the floors.
//!
//! Invariant: numbers are rounded to what the clocks are good for, here and nowhere else.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::process::Usage;

/// Longest time that is told apart from longer ones, in nanoseconds: 100 s.
const LATENCY_MAX: u64 = 100_000_000_000;

/// How many digits of a time are kept: an error of one percent, and a histogram small enough for one per user.
const DIGITS: u8 = 2;

/// How long something took, over many messages, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them took no longer. Zero if there were none.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

/// What the daemon used per accepted message. Everything is absent for a server that is not this program's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// CPU time of the daemon's process per accepted message, in microseconds.
    pub server_cpu_us_per_message: Option<f64>,
    /// Memory of the daemon's process at the end of the measured time, in bytes.
    pub server_rss_bytes: Option<u64>,
    /// Bytes that the daemon's process had written to disk per accepted message.
    pub server_write_bytes_per_message: Option<f64>,
    /// How often a thread of the daemon was woken per accepted message.
    pub server_wakeups_per_message: Option<f64>,
}

/// What the machine gives without any messages: the measure for the rest. In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Floors {
    /// Median round trip of a request that is answered at once, over an idle connection.
    pub ping_p50: f64,
    /// The same with the pauses that a fixed rate has: a processor that sleeps in between takes its time to wake up. Absent
    /// without one.
    pub ping_paced_p50: Option<f64>,
    /// Median of appending 512 bytes and syncing them where the daemon keeps its data. Absent for a server that is not
    /// this program's own.
    pub fdatasync_p50: Option<f64>,
}

/// Times of many messages.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        // Cannot fail: the bounds are fixed and a test makes one. An unbounded one is as good.
        let bounded = Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS);
        Self(bounded.unwrap_or_else(|_| Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!())))
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so all of it fits.
        let _ = self.0.add(&other.0);
    }

    /// Returns how many times there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn latency(&self) -> Latency {
        Latency { p50: self.percentile(50.0), p99: self.percentile(99.0) }
    }

    /// Returns what so many percent do not exceed, in milliseconds.
    pub(super) fn percentile(&self, percent: f64) -> f64 {
        micro(self.0.value_at_percentile(percent) as f64 / 1e6)
    }
}

impl Figures {
    /// Returns what a process used between two looks, spread over so many messages.
    pub(super) fn between(before: Usage, after: Usage, messages: u64) -> Self {
        let per_message = |total: f64| (messages > 0).then(|| micro(total / messages as f64));
        let cpu = after.cpu.saturating_sub(before.cpu);
        Self {
            server_cpu_us_per_message: per_message(cpu.as_secs_f64() * 1e6),
            server_rss_bytes: Some(after.rss_bytes),
            server_write_bytes_per_message: per_message(
                after.write_bytes.saturating_sub(before.write_bytes) as f64
            ),
            server_wakeups_per_message: per_message(after.wakeups.saturating_sub(before.wakeups) as f64),
        }
    }
}

/// Events per second.
pub(super) fn per_second(events: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (events as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

/// Rounds to three digits behind the point.
pub(super) fn micro(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_percent() {
        let (mut all, mut part) = (Times::new(), Times::new());
        for microseconds in 1..=1000 {
            let times = if microseconds % 2 == 0 { &mut all } else { &mut part };
            times.record(Duration::from_micros(microseconds));
        }
        all.add(&part);
        let Latency { p50, p99 } = all.latency();
        assert!((0.495..=0.505).contains(&p50) && (0.98..=1.0).contains(&p99), "{p50} {p99}");
        assert_eq!(all.len(), 1000);
        assert_eq!(Times::new().latency(), Latency::default());
    }

    #[test]
    fn a_time_beyond_all_bounds_counts_as_the_longest() {
        let mut times = Times::new();
        times.record(Duration::MAX);
        assert!(times.latency().p50 > 99_000.0);
    }

    #[test]
    fn figures_are_per_message_and_absent_without_messages() {
        let usage = |ms, bytes| Usage {
            cpu: Duration::from_millis(ms),
            rss_bytes: 7,
            write_bytes: bytes,
            wakeups: bytes / 4,
        };
        let figures = Figures::between(usage(10, 100), usage(20, 1100), 1000);
        assert_eq!(figures.server_cpu_us_per_message, Some(10.0));
        assert_eq!(figures.server_write_bytes_per_message, Some(1.0));
        assert_eq!(figures.server_wakeups_per_message, Some(0.25));
        assert_eq!(figures.server_rss_bytes, Some(7));
        assert_eq!(Figures::between(usage(1, 1), usage(2, 2), 0).server_cpu_us_per_message, None);
        assert_eq!(per_second(25, Duration::from_secs(10)), 2.5);
        assert_eq!(per_second(25, Duration::ZERO), 0.0);
    }
}
