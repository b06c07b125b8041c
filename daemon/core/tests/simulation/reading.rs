//! What the person at a modelled device has read and says so, and what its client gave up. All of it is on the device's disk.
//!
//! A device that keeps to the protocol names stretches of what it acknowledged, breaks them where it misses something, and
//! repeats a mark until it is answered. Some devices lie: what they name must not become a receipt.

use std::collections::{BTreeMap, VecDeque};

use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::v1::Reason;

use crate::random::Random;

/// Most marks that wait for an answer.
const MARKS_MAX: usize = 8;

/// No position is ever this large.
const BEYOND: u64 = u64::MAX / 2;

/// What is wrong with a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It names what was never sent.
    Beyond,
    /// It names what the device did not acknowledge.
    NeverGot,
    /// It names what lies in a gap or was given up.
    OverMissing,
}

/// A stretch of one sender's messages that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) sender: AccountId,
    pub(crate) origin: Origin,
    pub(crate) after: u64,
    pub(crate) upto: u64,
    pub(crate) lie: Option<Lie>,
}

#[derive(Default)]
pub(crate) struct Reading {
    /// Messages for this account that were acknowledged, by origin and position: who sent each, and whether it was read.
    kept: BTreeMap<(u32, u64), (AccountId, bool)>,
    /// Stretches that the device was left out of, from the first position to the last.
    missing: Vec<(Origin, u64, u64)>,
    /// What it gave up.
    pub(crate) asides: Vec<(Origin, Position)>,
    marks: VecDeque<Mark>,
    /// How many of the marks were written to the feed that is attached.
    written: usize,
    /// Marks that were true and refused all the same.
    pub(crate) refused: usize,
}

impl Reading {
    pub(crate) fn keep(&mut self, origin: Origin, position: u64, sender: AccountId) {
        self.kept.insert((origin.0, position), (sender, false));
    }

    pub(crate) fn give_up(&mut self, origin: Origin, position: u64) {
        self.asides.push((origin, Position(position)));
        self.missing.push((origin, position, position));
    }

    pub(crate) fn miss(&mut self, origin: Origin, from: u64, upto: u64) {
        self.missing.push((origin, from, upto));
    }

    /// Whether every mark was answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.marks.is_empty()
    }

    /// The person reads some messages that follow each other, and the device says so.
    pub(crate) fn read_some(&mut self, random: &mut Random) {
        let unread: Vec<(u32, u64)> =
            self.kept.iter().filter(|(_, kept)| !kept.1).map(|(at, _)| *at).collect();
        let Some((of, first)) = random.pick(&unread).filter(|_| self.marks.len() < MARKS_MAX) else { return };
        let (origin, sender) = (Origin(of), self.kept[&(of, first)].0);
        let missing = self.missing.iter().filter(|(missing, ..)| *missing == origin);
        let end = missing.map(|(_, from, _)| *from).filter(|from| *from > first).min();
        let of_sender = self
            .kept
            .range_mut((of, first)..(of, end.unwrap_or(BEYOND)))
            .filter(|(_, kept)| kept.0 == sender);
        let mut upto = first;
        for ((_, position), kept) in of_sender.take(random.within(1, 5) as usize) {
            kept.1 = true;
            upto = *position;
        }
        self.marks.push_back(Mark { sender, origin, after: first - 1, upto, lie: None });
    }

    /// The device says something that is not so. `cursor` is up to where it has acknowledged.
    pub(crate) fn lie(&mut self, sender: AccountId, (origin, cursor): (Origin, u64), random: &mut Random) {
        let (after, upto, lie) = match (random.below(4), random.pick(&self.missing)) {
            (0, _) => (cursor, BEYOND, Lie::Beyond),
            (2.., Some((_, from, upto))) => {
                ((from - 1).saturating_sub(random.below(10)), upto + random.below(10), Lie::OverMissing)
            }
            _ => (cursor, cursor + random.within(1, 20), Lie::NeverGot),
        };
        if self.marks.len() < MARKS_MAX {
            self.marks.push_back(Mark { sender, origin, after, upto, lie: Some(lie) });
        }
    }

    /// A new feed knows of no marks.
    pub(crate) fn attached(&mut self) {
        self.written = 0;
    }

    /// Marks that are not on their way.
    pub(crate) fn unwritten(&mut self) -> Vec<Mark> {
        self.marks.iter().skip(std::mem::replace(&mut self.written, self.marks.len())).copied().collect()
    }

    /// Takes the answer to the oldest mark on its way, and returns whether to say it again.
    pub(crate) fn answered(&mut self, error: Option<(Reason, bool)>) -> bool {
        self.written -= 1;
        let mark = self.marks.pop_front().expect("an answer to no mark");
        if mark.lie == Some(Lie::Beyond) {
            assert_eq!(error, Some((Reason::ReadInvalid, false)), "what was never sent was read: {mark:?}");
        }
        match error {
            None => false,
            Some((_, true)) => {
                self.marks.push_back(mark);
                true
            }
            Some((reason, false)) => {
                assert_eq!(reason, Reason::ReadInvalid, "{mark:?}");
                self.refused += usize::from(mark.lie.is_none());
                false
            }
        }
    }
}
