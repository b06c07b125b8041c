//! What users did and saw, written down in little room while it is measured, and judged by the checker afterwards.
//!
//! Messages have numbers, and in a flawless run everything happens to them in the order of their numbers. So what happened is
//! kept as runs of numbers, whatever the length of a measurement: one run each, and one more for each fault. Where messages stand is
//! not kept; that they come once, unaltered and in order, with an answer and a receipt, is.
//!
//! Bounds: [`RUNS_MAX`] runs of eight bytes for each of four lists of a user, [`ALTERED_MAX`] altered messages, and in the judge
//! [`REMEMBERED_MAX`] messages of one sender that are not settled.

use quail_checker::{Entry, Judge, Key, Place, ReceiptKind, Terms, Violation, What};
use quail_client::{AccountId, DeviceId, MessageId};

/// Most runs of a list. What breaks the order after so many is not written down, and is missing.
const RUNS_MAX: usize = 1 << 16;

/// Most altered messages of a user that are written down.
const ALTERED_MAX: usize = 1024;

/// Most messages of a sender that are judged together. What comes later than so many others counts as altered.
const REMEMBERED_MAX: usize = 1 << 17;

/// How many messages are read before the judge looks what it may forget.
const BLOCK: usize = 1024;

/// Nobody's outbox overflows, and every receipt is waited for.
const TERMS: Terms = Terms { gaps: false, receipts: true };

/// Numbers in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// First number and length of each.
    runs: Vec<(u32, u32)>,
    len: u64,
}

impl Runs {
    /// Adds the next number.
    pub(super) fn push(&mut self, number: u64) {
        self.len += 1;
        let number = number as u32;
        let room = self.runs.len() < RUNS_MAX;
        match self.runs.last_mut() {
            Some((first, len)) if *first + *len == number => *len += 1,
            _ if room => self.runs.push((number, 1)),
            _ => {}
        }
    }

    /// Returns how many numbers came.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(first, len)| u64::from(*first)..u64::from(*first) + u64::from(*len))
    }
}

/// What one user did and saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// How many messages were sent.
    pub(super) sent: u64,
    pub(super) accepted: Runs,
    /// Own messages whose receipt came.
    pub(super) delivered: Runs,
    /// Own messages whose receipt the client cannot tell any more.
    pub(super) unwatched: Runs,
    /// What the partner sent and this user was shown, and then acknowledged.
    pub(super) shown: Runs,
    altered: Vec<Key>,
}

impl Track {
    /// A message was shown that is not what it says it is, or from somebody else.
    pub(super) fn altered(&mut self, message: Key) {
        if self.altered.len() < ALTERED_MAX {
            self.altered.push(message);
        }
    }
}

/// What the checker found, in the words of the reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Messages that were accepted and not shown.
    pub(super) missing: u64,
    /// Messages that were shown again.
    pub(super) duplicates: u64,
    /// Messages without an answer, or without a receipt.
    pub(super) undelivered: u64,
    /// Whatever else is wrong: messages that are not what was sent, or not in that order.
    pub(super) altered: u64,
}

impl Verdict {
    /// Counts what another one found, too.
    pub(super) fn join(&mut self, other: Self) {
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.undelivered += other.undelivered;
        self.altered += other.altered;
    }

    /// Counts what was found.
    pub(super) fn add(&mut self, found: &[Violation]) {
        for violation in found {
            let count = match violation {
                Violation::Lost { .. } => &mut self.missing,
                Violation::ShownTwice { .. } => &mut self.duplicates,
                Violation::MissingReceipt { .. } | Violation::Unanswered { .. } => &mut self.undelivered,
                _ => &mut self.altered,
            };
            *count += 1;
        }
    }
}

/// Judges users of whom each two that follow each other wrote to one another.
pub(super) fn judge_pairs<'a>(tracks: impl IntoIterator<Item = &'a Track>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut tracks = tracks.into_iter();
    while let Some(one) = tracks.next() {
        let nobody = Track::default();
        let other = tracks.next().unwrap_or(&nobody);
        Way::new(one, other).judge(&mut verdict);
        Way::new(other, one).judge(&mut verdict);
    }
    verdict
}

const SENDER: (AccountId, DeviceId) = (AccountId([1; 16]), DeviceId([1; 16]));
const RECIPIENT: (AccountId, DeviceId) = (AccountId([2; 16]), DeviceId([2; 16]));

/// A message by its number. Ids of checks and of the wire have nothing in common.
fn id(number: u64) -> MessageId {
    MessageId(u128::from(number).to_be_bytes())
}

/// What one of two sent to the other, told to a judge in an order in which it may have happened.
struct Way<'a> {
    from: &'a Track,
    to: &'a Track,
    judge: Judge,
    /// How many sends the judge was told of.
    told: u64,
}

impl<'a> Way<'a> {
    fn new(from: &'a Track, to: &'a Track) -> Self {
        Self { from, to, judge: joined(), told: 0 }
    }

    fn judge(mut self, verdict: &mut Verdict) {
        let (from, to) = (self.from, self.to);
        let mut accepted = from.accepted.iter().peekable();
        let mut delivered = from.delivered.iter().peekable();
        let mut unwatched = from.unwatched.iter().peekable();
        let mut shown = to.shown.iter().peekable();
        let (reader, kind, place) = (RECIPIENT.0, ReceiptKind::Delivered, Place::UNSEEN);
        let mut upto = 0;
        loop {
            for number in shown.by_ref().take(BLOCK) {
                upto = upto.max(number + 1);
                self.sent(upto);
                let message = Key { sender: SENDER.0, id: id(number) };
                self.note(RECIPIENT, What::Shown { message, body: number, place });
                self.note(RECIPIENT, What::Acknowledged { message });
            }
            if shown.peek().is_none() {
                upto = u64::MAX;
                self.sent(from.sent);
            }
            while let Some(number) = accepted.next_if(|number| *number < upto) {
                self.note(SENDER, What::Accepted { id: id(number), place });
            }
            while let Some(number) = delivered.next_if(|number| *number < upto) {
                self.note(SENDER, What::Receipt { id: id(number), reader, kind });
            }
            while let Some(number) = unwatched.next_if(|number| *number < upto) {
                self.note(SENDER, What::Unwatched { id: id(number) });
            }
            if shown.peek().is_none() {
                break;
            }
            self.judge.forget_settled();
            if self.judge.remembered() > REMEMBERED_MAX {
                verdict.add(&std::mem::replace(&mut self.judge, joined()).finish());
            }
        }
        for message in &to.altered {
            self.note(RECIPIENT, What::Shown { message: *message, body: 0, place });
        }
        verdict.add(&self.judge.finish());
    }

    fn sent(&mut self, upto: u64) {
        for number in self.told..upto.min(self.from.sent) {
            self.note(SENDER, What::Sent { id: id(number), to: vec![RECIPIENT.0], body: number });
        }
        self.told = self.told.max(upto.min(self.from.sent));
    }

    fn note(&mut self, (_, device): (AccountId, DeviceId), what: What) {
        self.judge.read(&Entry { device, what });
    }
}

/// Returns a judge of two devices.
fn joined() -> Judge {
    let mut judge = Judge::new(TERMS);
    for (account, device) in [SENDER, RECIPIENT] {
        judge.read(&Entry { device, what: What::Joined { account } });
    }
    judge
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(numbers: impl IntoIterator<Item = u64>) -> Runs {
        let mut runs = Runs::default();
        numbers.into_iter().for_each(|number| runs.push(number));
        runs
    }

    /// One sends so many messages, which go their whole way to the other.
    fn whole(count: u64) -> [Track; 2] {
        let all = || runs(0..count);
        let sender = Track { sent: count, accepted: all(), delivered: all(), ..Track::default() };
        [sender, Track { shown: all(), ..Track::default() }]
    }

    #[track_caller]
    fn check(tracks: &[Track; 2], expected: Verdict) {
        assert_eq!(judge_pairs(tracks), expected);
    }

    #[test]
    fn a_flawless_run_of_any_length_is_one_run_and_found_good() {
        let tracks = whole(200_000);
        assert_eq!((tracks[1].shown.runs.len(), tracks[1].shown.len()), (1, 200_000));
        check(&tracks, Verdict::default());
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        let none = Verdict::default();
        let with = |count, change: fn(&mut [Track; 2])| {
            let mut tracks = whole(count);
            change(&mut tracks);
            tracks
        };
        // What never came has no receipt either; that it lacks one is not counted again.
        let missing = with(5000, |[one, other]| {
            (one.delivered, other.shown) = (runs((0..3).chain(4..4990)), runs((0..3).chain(4..4990)));
        });
        check(&missing, Verdict { missing: 11, ..none });
        let again = with(5000, |[_, other]| other.shown = runs((0..5000).chain([7])));
        check(&again, Verdict { duplicates: 1, ..none });
        let swapped = with(10, |[_, other]| other.shown = runs([0, 2, 1, 3, 4, 5, 6, 7, 8, 9]));
        check(&swapped, Verdict { altered: 1, ..none });
        let unsent = with(10, |[_, other]| other.shown.push(10));
        check(&unsent, Verdict { altered: 1, ..none });
        let foreign = with(10, |[_, other]| other.altered(Key { sender: RECIPIENT.0, id: id(3) }));
        check(&foreign, Verdict { altered: 1, ..none });
        let unanswered = with(10, |[one, _]| one.sent = 11);
        check(&unanswered, Verdict { undelivered: 1, ..none });
        let without_receipt = with(10, |[one, _]| one.delivered = runs(0..9));
        check(&without_receipt, Verdict { undelivered: 1, ..none });
        let lost_sight = with(10, |[one, _]| (one.delivered, one.unwatched) = (runs(0..9), runs(9..10)));
        check(&lost_sight, none);
        let untrue = with(10, |[one, other]| (one.sent, other.shown) = (11, runs(0..9)));
        assert!(judge_pairs(&untrue).altered > 0, "a receipt for what nobody acknowledged");
    }

    #[test]
    fn a_run_that_is_broken_from_its_beginning_is_judged_in_parts() {
        let count = 3 * REMEMBERED_MAX as u64;
        let mut tracks = whole(count);
        (tracks[0].delivered, tracks[1].shown) = (runs(1..count), runs(1..count));
        check(&tracks, Verdict { missing: 1, ..Verdict::default() });
    }

    #[test]
    fn runs_are_bounded() {
        let backwards = runs((0..2 * RUNS_MAX as u64).rev());
        assert_eq!((backwards.runs.len(), backwards.len()), (RUNS_MAX, 2 * RUNS_MAX as u64));
    }
}
