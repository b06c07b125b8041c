//! Marks of what was read that the server has not answered: a state machine without IO.
//!
//! A mark waits until the device has acknowledged what it names, for the server takes nothing else; then it is written, and
//! stays here until it is answered. A new lane writes again what was not. To say the same twice changes nothing, so marks
//! need no number.
//!
//! Invariants: marks that touch are one; at most [`MARKS_MAX`] are held; answers come in the order of the writes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::limits::{READ_STRETCHES_MAX, READS_UNANSWERED_MAX};
use quail_protocol::v1;

use crate::backoff::Backoff;
use crate::store::Mark;

/// Most marks without an answer that a client holds. [`Client::read`](crate::Client::read) waits for room.
pub const MARKS_MAX: usize = 4096;

/// Upper end of the first and of the longest pause after temporary refusals that come without advice.
const REFUSAL_PAUSE_MIN: Duration = Duration::from_millis(100);
const REFUSAL_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Longest advice that is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Marks without an answer.
#[derive(Debug)]
pub(super) struct Marks {
    /// Not written on this lane.
    waiting: BTreeMap<(AccountId, Origin), Vec<(Position, Position)>>,
    /// Written and not answered, the oldest first.
    written: VecDeque<Vec<Mark>>,
    /// How many there are of both.
    count: usize,
    pause_until: Option<Instant>,
    backoff: Backoff,
}

/// The server answered what it was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to a mark that was not made")]
pub(crate) struct NothingAsked;

impl Marks {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(REFUSAL_PAUSE_MIN, REFUSAL_PAUSE_MAX);
        Self { waiting: BTreeMap::new(), written: VecDeque::new(), count: 0, pause_until: None, backoff }
    }

    pub(super) fn has_room(&self) -> bool {
        self.count < MARKS_MAX
    }

    /// Adds a mark; one that is empty says nothing.
    pub(super) fn add(&mut self, mark: Mark) {
        let Mark { sender, origin, after, upto } = mark;
        if upto <= after {
            return;
        }
        let stretches = self.waiting.entry((sender, origin)).or_default();
        let mut whole = (after, upto);
        let before = stretches.len();
        stretches.retain(|stretch| {
            let touches = stretch.0 <= whole.1 && whole.0 <= stretch.1;
            if touches {
                whole = (whole.0.min(stretch.0), whole.1.max(stretch.1));
            }
            !touches
        });
        stretches.push(whole);
        self.count = self.count + stretches.len() - before;
    }

    /// All marks without an answer.
    pub(super) fn all(&self) -> Vec<Mark> {
        let waiting = self.waiting.iter().flat_map(|((sender, origin), stretches)| {
            stretches.iter().map(|(after, upto)| Mark {
                sender: *sender,
                origin: *origin,
                after: *after,
                upto: *upto,
            })
        });
        waiting.chain(self.written.iter().flatten().copied()).collect()
    }

    /// A new lane begins from the front.
    pub(super) fn lane_opened(&mut self) {
        for mark in std::mem::take(&mut self.written).into_iter().flatten() {
            self.count -= 1;
            self.add(mark);
        }
    }

    /// Takes out what may be written now: messages of one sender, as far as they are `acknowledged`.
    pub(super) fn next(
        &mut self,
        now: Instant,
        acknowledged: impl Fn(Origin) -> Position,
    ) -> Option<v1::Read> {
        if self.written.len() >= READS_UNANSWERED_MAX || self.pause_until.is_some_and(|until| now < until) {
            return None;
        }
        self.pause_until = None;
        let is_due = |origin: Origin, upto: Position| upto <= acknowledged(origin);
        let sender = self.waiting.iter().find_map(|((sender, origin), stretches)| {
            stretches.iter().any(|(_, upto)| is_due(*origin, *upto)).then_some(*sender)
        })?;
        let mut marks = Vec::new();
        for ((of, origin), stretches) in &mut self.waiting {
            if *of != sender {
                continue;
            }
            stretches.retain(|(after, upto)| {
                let is_taken = is_due(*origin, *upto) && marks.len() < READ_STRETCHES_MAX;
                if is_taken {
                    marks.push(Mark { sender, origin: *origin, after: *after, upto: *upto });
                }
                !is_taken
            });
        }
        self.waiting.retain(|_, stretches| !stretches.is_empty());
        let stretch =
            |mark: &Mark| v1::ReadStretch { origin: mark.origin.0, after: mark.after.0, upto: mark.upto.0 };
        let read = v1::Read { sender: sender.to_bytes(), stretches: marks.iter().map(stretch).collect() };
        self.written.push_back(marks);
        Some(read)
    }

    /// The oldest written marks are answered, for good.
    pub(super) fn decided(&mut self) -> Result<(), NothingAsked> {
        let marks = self.written.pop_front().ok_or(NothingAsked)?;
        self.count -= marks.len();
        self.backoff.reset();
        Ok(())
    }

    /// The oldest written marks are refused for now.
    pub(super) fn refused_for_now(
        &mut self,
        retry_after: Option<Duration>,
        now: Instant,
        chance: f64,
    ) -> Result<(), NothingAsked> {
        let marks = self.written.pop_front().ok_or(NothingAsked)?;
        for mark in marks {
            self.count -= 1;
            self.add(mark);
        }
        let pause = match retry_after {
            Some(advice) => {
                let advice = advice.min(RETRY_AFTER_MAX);
                advice + advice.mul_f64(chance / 4.0)
            }
            None => self.backoff.pause(chance),
        };
        self.pause_until = self.pause_until.max(Some(now + pause));
        Ok(())
    }

    /// Returns until when nothing is written.
    pub(super) fn pause_until(&self) -> Option<Instant> {
        self.pause_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: AccountId = AccountId([1; 16]);
    const BOB: AccountId = AccountId([2; 16]);
    const HERE: Origin = Origin(1);

    fn mark(sender: AccountId, after: u64, upto: u64) -> Mark {
        Mark { sender, origin: HERE, after: Position(after), upto: Position(upto) }
    }

    fn next(marks: &mut Marks, acknowledged: u64) -> Option<(AccountId, Vec<(u64, u64)>)> {
        let read = marks.next(Instant::now(), |_| Position(acknowledged))?;
        let stretches = read.stretches.iter().map(|stretch| (stretch.after, stretch.upto)).collect();
        Some((AccountId::try_from(&*read.sender).unwrap(), stretches))
    }

    #[test]
    fn marks_that_touch_are_one_and_a_hole_stays_one() {
        let mut marks = Marks::new();
        for (after, upto) in [(0, 3), (7, 9), (3, 5), (9, 9), (8, 11)] {
            marks.add(mark(ADA, after, upto));
        }
        marks.add(mark(BOB, 5, 7));
        assert_eq!(marks.count, 3);
        assert_eq!(next(&mut marks, 20), Some((ADA, vec![(0, 5), (7, 11)])));
        assert_eq!(next(&mut marks, 20), Some((BOB, vec![(5, 7)])));
        assert_eq!(next(&mut marks, 20), None);
    }

    #[test]
    fn what_is_not_acknowledged_waits() {
        let mut marks = Marks::new();
        marks.add(mark(ADA, 0, 3));
        marks.add(mark(ADA, 4, 6));
        assert_eq!(next(&mut marks, 2), None);
        assert_eq!(next(&mut marks, 5), Some((ADA, vec![(0, 3)])));
        assert_eq!(next(&mut marks, 6), Some((ADA, vec![(4, 6)])));
    }

    #[test]
    fn what_is_not_answered_is_written_again_on_the_next_lane() {
        let mut marks = Marks::new();
        marks.add(mark(ADA, 0, 3));
        next(&mut marks, 9).unwrap();
        marks.add(mark(ADA, 3, 4));
        assert_eq!(marks.all(), [mark(ADA, 3, 4), mark(ADA, 0, 3)]);
        marks.lane_opened();
        assert_eq!(next(&mut marks, 9), Some((ADA, vec![(0, 4)])));
        assert_eq!(marks.decided(), Ok(()));
        assert_eq!((marks.count, marks.all()), (0, vec![]));
        assert_eq!(marks.decided(), Err(NothingAsked));
    }

    #[test]
    fn a_refusal_for_now_is_waited_out() {
        let mut marks = Marks::new();
        marks.add(mark(ADA, 0, 3));
        next(&mut marks, 9).unwrap();
        let now = Instant::now();
        marks.refused_for_now(Some(Duration::from_secs(60)), now, 0.0).unwrap();
        assert_eq!(next(&mut marks, 9), None);
        let later = marks.next(now + Duration::from_secs(61), |_| Position(9));
        assert!(later.is_some());
        assert_eq!(marks.count, 1);
    }

    #[test]
    fn a_frame_holds_so_many_and_a_lane_so_many_frames() {
        let mut marks = Marks::new();
        for number in 0..READ_STRETCHES_MAX as u64 + 1 {
            marks.add(mark(ADA, 10 * number, 10 * number + 1));
        }
        assert_eq!(
            next(&mut marks, u64::MAX).map(|(_, stretches)| stretches.len()),
            Some(READ_STRETCHES_MAX)
        );
        assert_eq!(next(&mut marks, u64::MAX).map(|(_, stretches)| stretches.len()), Some(1));
        for sender in 0..READS_UNANSWERED_MAX as u8 {
            marks.add(mark(AccountId([10 + sender; 16]), 0, 1));
        }
        while next(&mut marks, u64::MAX).is_some() {}
        assert_eq!(marks.written.len(), READS_UNANSWERED_MAX);
        while marks.has_room() {
            marks.add(mark(ADA, 10 * marks.count as u64, 10 * marks.count as u64 + 1));
        }
        assert_eq!(marks.count, MARKS_MAX);
    }
}
