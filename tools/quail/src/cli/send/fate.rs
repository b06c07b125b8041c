//! What became of messages, one by one and all together.
//!
//! Invariant: what was not answered is `unknown` or `not_sent`, never `refused`: a script that sends again must know the
//! difference.

use std::ops::RangeInclusive;

use quail_client::{Accepted, MessageId, SendError};
use serde::Serialize;

/// Most stretches of lines that an error names.
const STRETCHES_SHOWN_MAX: usize = 10;

/// How far a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// On the server's disk.
    Accepted,
    /// Acknowledged by a device of the recipient.
    Delivered,
    /// Read, as a device of the recipient says.
    Read,
    /// Refused for good; it is nowhere.
    Refused,
    /// Taken out of the queue before it was sent.
    Cancelled,
    /// Sent, and no answer came.
    Unknown,
    /// Never sent.
    NotSent,
}

/// What became of one message.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    id: Option<MessageId>,
    accepted: Option<Accepted>,
    state: State,
    error: Option<Why>,
}

/// Why a message did not get as far as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Why {
    reason: &'static str,
    text: String,
}

/// What is printed of one message.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    number: usize,
    id: Option<String>,
    origin: Option<u32>,
    position: Option<u64>,
    stamp: Option<u64>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Why>,
}

impl Fate {
    pub(super) fn accepted(id: MessageId, accepted: Accepted) -> Self {
        Self { id: Some(id), accepted: Some(accepted), state: State::Accepted, error: None }
    }

    /// An earlier call was told so.
    pub(super) fn accepted_before(id: MessageId) -> Self {
        Self { id: Some(id), accepted: None, state: State::Accepted, error: None }
    }

    pub(super) fn cancelled(id: MessageId) -> Self {
        let why = Why { reason: "CANCELLED", text: SendError::Cancelled.to_string() };
        Self { state: State::Cancelled, error: Some(why), ..Self::unknown(id, String::new()) }
    }

    pub(super) fn failed(id: MessageId, error: &SendError) -> Self {
        match error {
            SendError::Cancelled => Self::cancelled(id),
            SendError::Refused(refusal) => Self {
                state: State::Refused,
                error: Some(Why { reason: refusal.reason.meta().name, text: refusal.text.clone() }),
                ..Self::unknown(id, String::new())
            },
            other => Self::unknown(id, other.to_string()),
        }
    }

    pub(super) fn unknown(id: MessageId, text: String) -> Self {
        Self {
            id: Some(id),
            accepted: None,
            state: State::Unknown,
            error: Some(Why { reason: "UNKNOWN", text }),
        }
    }

    pub(super) fn not_sent(why: &str) -> Self {
        Self {
            id: None,
            accepted: None,
            state: State::NotSent,
            error: Some(Why { reason: "NOT_SENT", text: why.to_owned() }),
        }
    }

    pub(super) fn reached(&mut self, state: State) {
        self.state = state;
    }

    /// It stays accepted.
    pub(super) fn fell_short(&mut self, wanted: State, text: String) {
        let reason = if wanted == State::Read { "NOT_READ" } else { "NOT_DELIVERED" };
        self.error = Some(Why { reason, text });
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.state == State::Accepted
    }

    /// Returns what is printed of it.
    pub(super) fn line(&self, number: usize) -> Line<'_> {
        let accepted = self.accepted.as_ref();
        Line {
            number,
            id: self.id.map(|id| id.to_string()),
            origin: accepted.map(|accepted| accepted.origin.0),
            position: accepted.map(|accepted| accepted.position.0),
            stamp: accepted.map(|accepted| accepted.stamp.0),
            state: self.state,
            error: self.error.as_ref(),
        }
    }
}

/// What became of all.
#[derive(Debug)]
pub(super) struct Tally {
    /// How far each should get.
    wanted: State,
    total: usize,
    count: usize,
    good: usize,
    unanswered: usize,
    bad: Vec<RangeInclusive<usize>>,
    first: Option<Why>,
}

impl Tally {
    pub(super) fn new(wanted: State, total: usize) -> Self {
        Self { wanted, total, count: 0, good: 0, unanswered: 0, bad: Vec::new(), first: None }
    }

    /// Adds the next message.
    pub(super) fn add(&mut self, number: usize, fate: &Fate) {
        self.count += 1;
        self.unanswered += usize::from(matches!(fate.state, State::Unknown | State::NotSent));
        if fate.state == self.wanted {
            self.good += 1;
            return;
        }
        if self.first.is_none() {
            self.first.clone_from(&fate.error);
        }
        match self.bad.last_mut() {
            Some(last) if *last.end() + 1 == number => *last = *last.start()..=number,
            _ => self.bad.push(number..=number),
        }
    }

    /// Returns how many were added.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns whether the server has decided on every message.
    pub(super) fn is_answered(&self) -> bool {
        self.unanswered == 0
    }

    /// Says for people how many got as far as they should.
    pub(super) fn summary(&self, handle: &str) -> String {
        let (good, total, state) = (self.good, self.total, self.word());
        let messages = if total == 1 { "message" } else { "messages" };
        match good == total {
            true => format!("{total} {messages} to {handle} {state}"),
            false => format!("{good} of {total} {messages} to {handle} {state}"),
        }
    }

    /// Says which did not, and why the first of them; nothing if all did.
    pub(super) fn failure(&self, is_text: bool) -> Option<String> {
        if self.bad.is_empty() {
            return None;
        }
        let lines = match (is_text, &self.bad[..]) {
            (true, _) => "the message was".to_owned(),
            (false, [line]) if line.start() == line.end() => format!("line {} was", line.start()),
            (false, bad) => format!("lines {} were", stretches(bad)),
        };
        let why = self.first.as_ref().map(|why| format!(": {} ({})", why.text, why.reason));
        Some(format!("{lines} not {}{}", self.word(), why.unwrap_or_default()))
    }

    fn word(&self) -> &'static str {
        match self.wanted {
            State::Delivered => "delivered",
            State::Read => "read",
            _ => "accepted",
        }
    }
}

fn stretches(bad: &[RangeInclusive<usize>]) -> String {
    let shown = bad.iter().take(STRETCHES_SHOWN_MAX).map(|lines| match (lines.start(), lines.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    });
    let text = shown.collect::<Vec<_>>().join(", ");
    let hidden: usize = bad.iter().skip(STRETCHES_SHOWN_MAX).map(|lines| lines.clone().count()).sum();
    match hidden {
        0 => text,
        hidden => format!("{text} and {hidden} more"),
    }
}

#[cfg(test)]
mod tests {
    use quail_client::{Origin, Position, Stamp};

    use super::*;

    const ID: MessageId = MessageId([1; 16]);

    fn accepted() -> Fate {
        let accepted = Accepted { origin: Origin(1), position: Position(7), stamp: Stamp(9) };
        Fate::accepted(ID, accepted)
    }

    #[test]
    fn every_message_has_a_line_of_stable_shape() {
        let id = "01010101-0101-0101-0101-010101010101";
        let json = |fate: &Fate| serde_json::to_string(&fate.line(3)).unwrap();
        assert_eq!(
            json(&accepted()),
            format!(r#"{{"number":3,"id":"{id}","origin":1,"position":7,"stamp":9,"state":"accepted"}}"#)
        );
        let mut delivered = accepted();
        delivered.reached(State::Delivered);
        assert!(json(&delivered).ends_with(r#""state":"delivered"}"#));
        assert_eq!(
            json(&Fate::not_sent("the client is closed")),
            concat!(
                r#"{"number":3,"id":null,"origin":null,"position":null,"stamp":null,"state":"not_sent","#,
                r#""error":{"reason":"NOT_SENT","text":"the client is closed"}}"#
            )
        );
        let unknown = Fate::failed(ID, &SendError::Stopped(quail_client::Error::Closed));
        assert_eq!(unknown.state, State::Unknown);
    }

    #[test]
    fn those_that_failed_are_named_in_stretches_with_the_first_cause() {
        let mut tally = Tally::new(State::Accepted, 9);
        for number in 1..=9 {
            match number {
                2 | 5 | 6 | 7 => tally.add(number, &Fate::unknown(ID, format!("cause {number}"))),
                _ => tally.add(number, &accepted()),
            }
        }
        assert_eq!(tally.failure(false).unwrap(), "lines 2, 5-7 were not accepted: cause 2 (UNKNOWN)");
        assert_eq!(tally.failure(true).unwrap(), "the message was not accepted: cause 2 (UNKNOWN)");
        assert_eq!(tally.summary("ada"), "5 of 9 messages to ada accepted");
        assert!(!tally.is_answered());
    }

    #[test]
    fn nothing_to_report_is_good() {
        let mut tally = Tally::new(State::Accepted, 1);
        tally.add(1, &accepted());
        assert_eq!(
            (tally.failure(false), tally.summary("ada")),
            (None, "1 message to ada accepted".to_owned())
        );
        assert_eq!(Tally::new(State::Accepted, 0).failure(false), None);
    }

    #[test]
    fn accepted_is_not_enough_where_delivered_was_asked_for() {
        let mut tally = Tally::new(State::Delivered, 1);
        let mut fate = accepted();
        fate.fell_short(State::Delivered, "no answer within 1s".to_owned());
        tally.add(1, &fate);
        let expected = "line 1 was not delivered: no answer within 1s (NOT_DELIVERED)";
        assert_eq!(tally.failure(false).unwrap(), expected);
        assert!(tally.is_answered());
    }

    #[test]
    fn many_stretches_are_cut() {
        let bad: Vec<_> = (0..12).map(|number| number * 2..=number * 2).collect();
        assert_eq!(stretches(&bad), "0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and 2 more");
    }
}
