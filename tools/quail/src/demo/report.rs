//! What the demo found out, and what it tells on the way.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::launcher::LauncherError;

/// What the demo found out. Serializes as the object that `quail demo --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DemoReport {
    /// Whether every line was accepted, delivered, and shown exactly once, in order, byte for byte.
    pub ok: bool,
    /// Lines of the text.
    pub lines: usize,
    /// Lines that the server accepted.
    pub accepted: usize,
    /// Lines whose receipt came back to the sender.
    pub delivered: usize,
    /// Messages that the recipient was shown again.
    pub duplicates: usize,
    /// Lines that the recipient was never shown.
    pub missing: usize,
    /// Lines that were shown after a later one.
    pub out_of_order: usize,
    /// Messages whose text differs from its line.
    pub altered: usize,
    /// How often the daemon was killed.
    pub kills: usize,
    /// For each kill, how many sends had no answer when it came.
    pub in_flight_at_kill: Vec<usize>,
    /// How often the two clients found their server again.
    pub reconnects: u64,
    /// Messages that were sent again because the answer was lost.
    pub resent: u64,
    /// Copies of messages that the SDK did not show because it had shown them before.
    pub duplicates_dropped: u64,
    /// Seconds from the start of the daemon to the last check.
    #[serde(rename = "elapsed_s", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// How long accepting took, outages included.
    #[serde(rename = "confirm_ms")]
    pub confirm: Confirm,
    /// What went wrong first, if anything did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How long the server took to accept messages, from handing them to the SDK to the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confirm {
    /// Half of the messages took no longer. Zero if there were none.
    #[serde(serialize_with = "milliseconds")]
    pub p50: Duration,
    /// 99 of 100 messages took no longer.
    #[serde(serialize_with = "milliseconds")]
    pub p99: Duration,
    /// No message took longer.
    #[serde(serialize_with = "milliseconds")]
    pub max: Duration,
}

/// How far the messages have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages accepted by the server.
    pub accepted: usize,
    /// Messages refused for good.
    pub refused: usize,
    /// Messages whose receipt came back, or can no longer come.
    pub settled: usize,
    /// Of these, messages that were delivered.
    pub delivered: usize,
    /// Messages shown to the recipient, every showing counted.
    pub shown: usize,
}

/// Something that happens during the demo, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The daemon serves.
    Started {
        /// Its process id.
        pid: u32,
        /// Its address.
        address: String,
    },
    /// Both accounts exist and the sender begins.
    Sending {
        /// All lines.
        lines: usize,
        /// Those that are sent while the recipient is offline.
        offline: usize,
    },
    /// Something has moved.
    Progress(Counts),
    /// The recipient comes online.
    RecipientOnline(Counts),
    /// The daemon was killed.
    Killed {
        /// The number of the kill, from 1.
        number: usize,
        /// Sends without an answer.
        in_flight: usize,
        /// How far the messages had come.
        counts: Counts,
    },
    /// The daemon serves again.
    Restarted {
        /// The number of the kill, from 1.
        number: usize,
        /// How long it was away.
        away: Duration,
    },
    /// The recipient has ended and starts again, to see whether anything comes twice.
    RecipientAgain,
}

/// Why the demo could not come to a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The text has more lines than a demo sends.
    #[error("the text has {lines} lines; the demo sends at most {max}")]
    TooManyLines {
        /// Its lines.
        lines: usize,
        /// The limit.
        max: usize,
    },
    /// More kills than a demo does.
    #[error("{kills} kills are too many; the demo does at most {max}")]
    TooManyKills {
        /// The kills.
        kills: usize,
        /// The limit.
        max: usize,
    },
    /// The daemon could not be started or killed.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// The SDK failed where nothing was killed.
    #[error("{action}")]
    Client {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: quail_client::Error,
    },
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(duration.as_secs_f64()))
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(duration.as_secs_f64() * 1000.0))
}

/// Microseconds of milliseconds, milliseconds of seconds: more digits are noise.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_a_stable_shape() {
        let report = DemoReport {
            ok: true,
            lines: 5,
            accepted: 5,
            delivered: 5,
            duplicates: 0,
            missing: 0,
            out_of_order: 0,
            altered: 0,
            kills: 1,
            in_flight_at_kill: vec![2],
            reconnects: 2,
            resent: 2,
            duplicates_dropped: 1,
            elapsed: Duration::from_micros(1_234_567),
            confirm: Confirm { p50: Duration::from_micros(1500), ..Confirm::default() },
            problem: None,
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            concat!(
                r#"{"ok":true,"lines":5,"accepted":5,"delivered":5,"duplicates":0,"missing":0,"out_of_order":0,"#,
                r#""altered":0,"kills":1,"in_flight_at_kill":[2],"reconnects":2,"resent":2,"duplicates_dropped":1,"#,
                r#""elapsed_s":1.235,"confirm_ms":{"p50":1.5,"p99":0.0,"max":0.0}}"#
            )
        );
    }
}
