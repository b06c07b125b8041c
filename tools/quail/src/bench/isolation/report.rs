//! What was found of each disturbance. Figures are for people to judge; only messages have right and wrong.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::chat::Interval;
use super::super::report::{Latency, micro};

/// A latency as a multiple of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the medians. Zero if there is nothing to compare with.
    pub p50: f64,
    /// Of what 99 of 100 did not exceed.
    pub p99: f64,
}

impl Ratio {
    fn of(beside: Latency, alone: Latency) -> Self {
        let ratio = |beside: f64, alone: f64| if alone > 0.0 { micro(beside / alone) } else { 0.0 };
        Self { p50: ratio(beside.p50, alone.p50), p99: ratio(beside.p99, alone.p99) }
    }
}

/// The users alone and beside somebody who disturbs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Disturbance {
    /// Who disturbed.
    pub name: &'static str,
    /// The users right before.
    pub alone: Interval,
    /// The users meanwhile.
    pub beside: Interval,
    /// How much longer an answer took.
    pub confirm_ratio: Ratio,
    /// How much longer it took to the partner's feed.
    pub receive_ratio: Ratio,
    /// By how much the memory of the daemon's process grew, in bytes; below zero if it shrank.
    pub server_rss_growth_bytes: Option<i64>,
    /// The same for each reader who stopped; absent for others.
    pub growth_bytes_per_reader: Option<i64>,
    /// What the disturber got done per second: messages that were accepted, or log-ins.
    pub did_per_s: f64,
    /// What was refused to the disturber, by the reason.
    pub refused: BTreeMap<String, u64>,
}

impl Disturbance {
    pub(super) fn new(
        name: &'static str,
        (alone, beside): (Interval, Interval),
        did_per_s: f64,
        readers: Option<usize>,
        refused: BTreeMap<String, u64>,
    ) -> Self {
        let memory = |interval: &Interval| {
            interval.figures.server_rss_bytes.and_then(|bytes| i64::try_from(bytes).ok())
        };
        let growth = memory(&alone).zip(memory(&beside)).map(|(before, after)| after - before);
        Self {
            name,
            alone,
            beside,
            confirm_ratio: Ratio::of(beside.confirm_ms, alone.confirm_ms),
            receive_ratio: Ratio::of(beside.receive_ms, alone.receive_ms),
            server_rss_growth_bytes: growth,
            growth_bytes_per_reader: growth.zip(readers).map(|(growth, readers)| growth / readers as i64),
            did_per_s,
            refused,
        }
    }
}

/// What was found. Serializes as the object that `quail bench isolation --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IsolationReport {
    /// One for each who disturbed.
    pub disturbances: Vec<Disturbance>,
    /// Messages, of users and disturbers, that were accepted and not shown.
    pub missing: u64,
    /// Messages that were shown again.
    pub duplicates: u64,
    /// Messages that were not what was sent, or not in the order in which it was.
    pub altered: u64,
    /// Messages whose answer or receipt did not come back.
    pub undelivered: u64,
    /// How many messages were judged.
    pub messages: u64,
    /// How many users talked.
    pub users: usize,
    /// Their rate in messages per second.
    pub rate: f64,
    /// Length of a body in bytes.
    pub size: usize,
    /// How long each stretch was, in seconds.
    pub seconds: f64,
    /// How often a user had to connect again.
    pub reconnects: u64,
    /// Processors of this machine, which server, users and disturbers share.
    pub cores: usize,
    /// The version of this program.
    pub version: &'static str,
    /// The server program, as it names itself.
    pub server: String,
}

impl IsolationReport {
    /// Returns whether everything accepted was shown once, unaltered, and its receipt came back.
    pub fn is_flawless(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.altered == 0 && self.undelivered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_same_figure_and_none_of_nothing() {
        let (alone, beside) = (Latency { p50: 2.0, p99: 4.0 }, Latency { p50: 3.0, p99: 10.0 });
        assert_eq!(Ratio::of(beside, alone), Ratio { p50: 1.5, p99: 2.5 });
        assert_eq!(Ratio::of(beside, Latency::default()), Ratio::default());
    }
}
