//! Which accepted messages wait for their receipt: a table without IO.
//!
//! A receipt names a stretch of positions, not messages, and it may overtake the answer to the send it is about: the two
//! travel on different streams. So the table keeps both: messages that wait for a receipt, and the stretches that came
//! last, for messages whose answer is still on its way. Such an answer may come after several receipts: who sent much, lost
//! the connection and sends all of it again finds the receipts first, and a server that was killed meanwhile begins a
//! stretch that does not touch the one before.
//!
//! Invariant: both are bounded; what falls out is the oldest.

use std::collections::VecDeque;
use std::sync::Weak;

use quail_protocol::id::{AccountId, Origin, Position};

use crate::ids::IdMap;

/// Most accepted messages that are watched for their receipt at once.
pub const TRACKED_MESSAGES_MAX: usize = 65_536;

/// Most recipients and origins whose stretches are kept for answers which come after their receipt. An answer is late by a
/// round trip or by a reconnect, so these are many.
const TARGETS_MAX: usize = 1024;

/// Most stretches of one recipient and origin that are kept; those that touch are one. One begins where the server was killed
/// or had a gap, so these are many in the time of one answer.
const STRETCHES_MAX: usize = 16;

/// Whom a message went to, and who holds it.
type Target = (AccountId, Origin);

/// How many entries of the order may be of messages that wait no more, besides as many as there are that wait.
const STALE_MAX: usize = 64;

/// Messages that wait for their receipt; `T` is whatever is told.
#[derive(Debug)]
pub(crate) struct Receipts<T> {
    /// By rising position, which is almost always the order in which they come and go.
    waiting: IdMap<Target, VecDeque<(Position, T)>>,
    /// How many wait.
    count: usize,
    /// Everything in `waiting` and perhaps some that are no longer, oldest first.
    order: VecDeque<(Target, Position)>,
    /// Oldest first; none touches another.
    stretches: IdMap<Target, VecDeque<Stretch>>,
    /// Oldest first.
    target_order: VecDeque<Target>,
}

/// Positions above `after`, up to and including `upto`.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    after: Position,
    upto: Position,
}

/// Who is told of a receipt.
pub(crate) trait Waiter {
    /// Returns whether nobody would hear it any more.
    fn is_gone(&self) -> bool;
}

impl<T> Waiter for Weak<T> {
    fn is_gone(&self) -> bool {
        self.strong_count() == 0
    }
}

/// What became of a message that was to be watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Watch<T> {
    /// It waits; another may have had to make room for it.
    Waiting { evicted: Option<T> },
    /// Its receipt was here before.
    Delivered(T),
}

impl<T: Waiter> Receipts<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: IdMap::default(),
            count: 0,
            order: VecDeque::new(),
            stretches: IdMap::default(),
            target_order: VecDeque::new(),
        }
    }

    /// Watches an accepted message.
    pub(crate) fn watch(
        &mut self,
        recipient: AccountId,
        origin: Origin,
        position: Position,
        waiter: T,
    ) -> Watch<T> {
        let target = (recipient, origin);
        let stretches = self.stretches.get(&target);
        if stretches.is_some_and(|known| known.iter().any(|stretch| stretch.contains(position))) {
            return Watch::Delivered(waiter);
        }
        let waiting = self.waiting.entry(target).or_default();
        // Many are never told: whoever sends and asks for nothing must not pay for keeping them.
        while waiting.front().is_some_and(|(_, oldest)| oldest.is_gone()) {
            waiting.pop_front();
            self.count -= 1;
        }
        let at = match waiting.back() {
            Some((last, _)) if *last >= position => waiting.partition_point(|(other, _)| *other < position),
            _ => waiting.len(),
        };
        if waiting.get(at).is_some_and(|(other, _)| *other == position) {
            waiting[at].1 = waiter;
        } else {
            waiting.insert(at, (position, waiter));
            self.count += 1;
        }
        self.order.push_back((target, position));
        self.tidy_order();
        let overflow = if self.order.len() > TRACKED_MESSAGES_MAX { self.order.pop_front() } else { None };
        let evicted = overflow.and_then(|(target, position)| self.remove(target, position));
        Watch::Waiting { evicted }
    }

    /// Takes in a receipt and returns those it was for.
    pub(crate) fn receipt(
        &mut self,
        recipient: AccountId,
        origin: Origin,
        after: Position,
        upto: Position,
    ) -> Vec<T> {
        if upto <= after {
            return Vec::new();
        }
        let target = (recipient, origin);
        self.remember(target, Stretch { after, upto });
        let Some(waiting) = self.waiting.get_mut(&target) else {
            return Vec::new();
        };
        let from = waiting.partition_point(|(position, _)| *position <= after);
        let to = waiting.partition_point(|(position, _)| *position <= upto);
        let covered: Vec<_> = waiting.drain(from..to).map(|(_, waiter)| waiter).collect();
        self.count -= covered.len();
        if waiting.is_empty() {
            self.waiting.remove(&target);
        }
        covered
    }

    /// Takes out all that wait.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.order.clear();
        self.count = 0;
        self.waiting.drain().flat_map(|(_, waiting)| waiting).map(|(_, waiter)| waiter).collect()
    }

    fn remove(&mut self, target: Target, position: Position) -> Option<T> {
        let waiting = self.waiting.get_mut(&target)?;
        let at = waiting.binary_search_by_key(&position, |(other, _)| *other).ok()?;
        let (_, waiter) = waiting.remove(at)?;
        self.count -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&target);
        }
        Some(waiter)
    }

    /// Forgets the order of those that wait no more, once they are the most: a device that sends for weeks must not keep a
    /// line for each of the last [`TRACKED_MESSAGES_MAX`].
    fn tidy_order(&mut self) {
        if self.order.len() <= 2 * self.count + STALE_MAX {
            return;
        }
        let waiting = &self.waiting;
        self.order.retain(|(target, position)| {
            let of = waiting.get(target);
            of.is_some_and(|of| of.binary_search_by_key(position, |(other, _)| *other).is_ok())
        });
    }

    fn remember(&mut self, target: Target, mut new: Stretch) {
        if !self.stretches.contains_key(&target) {
            self.target_order.push_back(target);
            if self.target_order.len() > TARGETS_MAX
                && let Some(oldest) = self.target_order.pop_front()
            {
                self.stretches.remove(&oldest);
            }
        }
        let known = self.stretches.entry(target).or_default();
        // Receipts of one target follow one another, so they usually grow the newest stretch.
        known.retain(|stretch| {
            let touches = new.touches(*stretch);
            if touches {
                new = Stretch { after: new.after.min(stretch.after), upto: new.upto.max(stretch.upto) };
            }
            !touches
        });
        known.push_back(new);
        if known.len() > STRETCHES_MAX {
            known.pop_front();
        }
    }
}

impl Stretch {
    fn touches(self, other: Self) -> bool {
        self.after <= other.upto && other.after <= self.upto
    }

    fn contains(&self, position: Position) -> bool {
        self.after < position && position <= self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: AccountId = AccountId([1; 16]);

    /// Nobody lets go of a number, but of zero.
    impl Waiter for u64 {
        fn is_gone(&self) -> bool {
            *self == 0
        }
    }
    const ORIGIN: Origin = Origin(1);

    fn watch(receipts: &mut Receipts<u64>, position: u64) -> Watch<u64> {
        receipts.watch(PEER, ORIGIN, Position(position), position)
    }

    fn receipt(receipts: &mut Receipts<u64>, after: u64, upto: u64) -> Vec<u64> {
        receipts.receipt(PEER, ORIGIN, Position(after), Position(upto))
    }

    #[test]
    fn a_receipt_is_for_its_stretch_its_account_and_its_origin() {
        let mut receipts = Receipts::new();
        for position in [1, 2, 3, 4] {
            assert_eq!(watch(&mut receipts, position), Watch::Waiting { evicted: None });
        }
        receipts.watch(AccountId([2; 16]), ORIGIN, Position(2), 102);
        receipts.watch(PEER, Origin(2), Position(2), 202);
        assert_eq!(receipt(&mut receipts, 1, 3), [2, 3]);
        assert_eq!(receipt(&mut receipts, 0, 10), [1, 4]);
        assert_eq!(receipts.drain().len(), 2);
    }

    #[test]
    fn a_receipt_that_overtakes_the_answer_still_counts() {
        let mut receipts = Receipts::new();
        assert!(receipt(&mut receipts, 0, 2).is_empty());
        assert!(receipt(&mut receipts, 2, 5).is_empty());
        assert_eq!(watch(&mut receipts, 1), Watch::Delivered(1));
        assert_eq!(watch(&mut receipts, 5), Watch::Delivered(5));
        assert_eq!(watch(&mut receipts, 6), Watch::Waiting { evicted: None });
    }

    #[test]
    fn a_stretch_with_a_hole_before_it_does_not_cover_the_hole() {
        let mut receipts = Receipts::new();
        receipt(&mut receipts, 0, 2);
        receipt(&mut receipts, 6, 9);
        assert_eq!(watch(&mut receipts, 5), Watch::Waiting { evicted: None });
        assert!(receipt(&mut receipts, 9, 9).is_empty(), "an empty stretch covers nothing");
    }

    #[test]
    fn receipts_that_do_not_touch_both_count_for_answers_that_come_after_them() {
        let mut receipts = Receipts::new();
        receipt(&mut receipts, 0, 2);
        receipt(&mut receipts, 6, 9);
        for (position, is_delivered) in [(2, true), (5, false), (7, true)] {
            let watch = watch(&mut receipts, position);
            assert_eq!(watch == Watch::Delivered(position), is_delivered, "{position}");
        }
        assert_eq!(receipt(&mut receipts, 2, 6), [5], "what lies between closes the hole");
        assert_eq!(receipts.stretches[&(PEER, ORIGIN)].len(), 1);
    }

    #[test]
    fn of_stretches_that_do_not_touch_the_oldest_makes_room() {
        let mut receipts = Receipts::new();
        for number in 0..=STRETCHES_MAX as u64 {
            receipt(&mut receipts, 10 * number, 10 * number + 5);
        }
        assert_eq!(watch(&mut receipts, 1), Watch::Waiting { evicted: None });
        assert_eq!(watch(&mut receipts, 11), Watch::Delivered(11));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten_and_so_is_its_order() {
        let mut receipts = Receipts::new();
        for position in 1..=9 * STALE_MAX as u64 {
            receipts.watch(PEER, ORIGIN, Position(position), 0);
        }
        assert_eq!(receipts.count, 1);
        assert!(receipts.order.len() <= 3 + STALE_MAX);
        for position in 1000..1003 {
            watch(&mut receipts, position);
        }
        assert_eq!(receipt(&mut receipts, 1000, 1002), [1001, 1002]);
        assert_eq!((receipts.count, receipts.drain()), (1, vec![1000]));
    }

    #[test]
    fn an_answer_that_comes_late_stands_where_it_belongs() {
        let mut receipts = Receipts::new();
        for position in [5, 9, 3, 7, 5] {
            watch(&mut receipts, position);
        }
        assert_eq!(receipt(&mut receipts, 4, 7), [5, 7]);
        assert_eq!(receipts.drain(), [3, 9]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut receipts = Receipts::new();
        let last = TRACKED_MESSAGES_MAX as u64;
        for position in 1..=last {
            watch(&mut receipts, position);
        }
        assert_eq!(watch(&mut receipts, last + 1), Watch::Waiting { evicted: Some(1) });
        assert_eq!(receipt(&mut receipts, 1, 2), [2]);
        assert_eq!(watch(&mut receipts, last + 2), Watch::Waiting { evicted: None }, "the oldest was gone");
        for peer in 0..2 * TARGETS_MAX as u128 {
            receipts.receipt(AccountId(peer.to_be_bytes()), ORIGIN, Position(0), Position(1));
        }
        assert!(receipts.stretches.len() <= TARGETS_MAX);
    }
}
