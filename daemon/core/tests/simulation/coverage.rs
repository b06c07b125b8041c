//! What happened in the worlds of a run: so that no scenario vanishes in silence.
//!
//! A simulation that is green because nothing interesting happens any more proves nothing. Each kind of trouble is counted
//! where it has its effect, not where it is planned, and a run of many worlds must have had enough of each.

use std::collections::BTreeMap;

/// A kind of thing that must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A device was added beside others while messages were on their way to its account.
    NewDevice,
    /// A device was added to an account without devices for which mail waited.
    Heir,
    /// A device was removed while mail waited for it.
    RemovedWithMail,
    LastDeviceRemoved,
    /// A message was stored for an account without devices.
    MailWithoutDevice,
    Receipt,
    /// Two receipts that nobody was shown became one.
    ReceiptsMerged,
    /// A feed ended because a newer one of its device was attached.
    FeedReplaced,
    /// The same, before it had caught up with its backlog.
    FeedReplacedInBacklog,
    /// An attach came behind a newer one.
    LateAttach,
    /// An outbox had more than it may hold.
    Overflow,
    /// Events were too old.
    Expiry,
    GapTold,
    /// A gap told to the next device of an account that had none.
    GapInherited,
    DiesBeforeAppend,
    DiesBeforeSync,
    DiesInSync,
    DiesBeforeRelease,
    DiesInRelease,
    /// A sync covered more than one turn.
    SharedSync,
    /// An acknowledgement was written and never arrived.
    AckLost,
    /// An answer was written and never arrived.
    AnswerLost,
    /// A send that had been accepted before was answered again.
    SentAgain,
    /// A client died and took again what it had not acknowledged.
    ClientDied,
    /// Everything behind a temporary refusal was refused.
    RefusedBehind,
    /// A device named a stamp ahead of the clock, and was believed.
    SeenAhead,
    /// A device gave a message up.
    SetAside,
    /// The daemon learnt of that from an attach, because the acknowledgement that said so was lost.
    SetAsideAtAttach,
    /// A device said what was read, and it was so.
    ReadSaid,
    /// What was said to be read was taken.
    ReadTaken,
    /// A sender was told of a message that it was read.
    ReadTold,
    /// Another device of the reader was told.
    ReadElsewhere,
    /// A message was read while its reader hides that.
    ReadInSecret,
    /// A device said to have read what nobody ever got.
    FalseReadBeyond,
    /// A device said to have read what it did not get, though that was sent.
    FalseReadNeverGot,
    /// A device said to have read what lies in a gap or what it gave up.
    FalseReadOverMissing,
    /// Nothing of what was said to be read had been acknowledged.
    ReadRefused,
    /// A directory was replaced by an older one.
    Restored,
    /// A directory was replaced by an empty one.
    SetAsideWhole,
    /// A device was told that an origin has ended.
    EndTold,
    /// An event of an ancestor left the daemon under the name of the new origin.
    CarriedOver,
    /// A message that an ancestor had stored, and that was not carried over, was stored a second time.
    StoredAnew,
    /// The same, at a device that had it.
    StoredAnewAndKnown,
    /// A device sent an edit, a deletion, a reaction or a reply.
    Change,
    /// A change for the own devices alone became durable.
    Private,
    /// A device that lied of the time before the process began was believed: only devices know of that.
    TakenAtItsWord,
}

/// How often each kind must happen in the worlds of a CI run.
const LEAST: &[(Kind, u64)] = &[
    (Kind::NewDevice, 100),
    (Kind::Heir, 30),
    (Kind::RemovedWithMail, 50),
    (Kind::LastDeviceRemoved, 50),
    (Kind::MailWithoutDevice, 200),
    (Kind::Receipt, 5_000),
    (Kind::ReceiptsMerged, 500),
    (Kind::FeedReplaced, 200),
    (Kind::FeedReplacedInBacklog, 100),
    (Kind::LateAttach, 50),
    (Kind::Overflow, 30),
    (Kind::Expiry, 10),
    (Kind::GapTold, 20),
    (Kind::GapInherited, 1),
    (Kind::DiesBeforeAppend, 50),
    (Kind::DiesBeforeSync, 50),
    (Kind::DiesInSync, 50),
    (Kind::DiesBeforeRelease, 50),
    (Kind::DiesInRelease, 50),
    (Kind::SharedSync, 1_000),
    (Kind::AckLost, 500),
    (Kind::AnswerLost, 500),
    (Kind::SentAgain, 500),
    (Kind::ClientDied, 100),
    (Kind::RefusedBehind, 500),
    (Kind::SeenAhead, 500),
    (Kind::SetAside, 200),
    (Kind::SetAsideAtAttach, 60),
    (Kind::ReadSaid, 2_000),
    (Kind::ReadTaken, 2_000),
    (Kind::ReadTold, 4_000),
    (Kind::ReadElsewhere, 5_000),
    (Kind::ReadInSecret, 1_500),
    (Kind::FalseReadBeyond, 50),
    (Kind::FalseReadNeverGot, 100),
    (Kind::FalseReadOverMissing, 30),
    (Kind::ReadRefused, 150),
    (Kind::Change, 2_000),
    (Kind::Private, 200),
    (Kind::TakenAtItsWord, 0),
    (Kind::Restored, 15),
    (Kind::SetAsideWhole, 4),
    (Kind::EndTold, 50),
    (Kind::CarriedOver, 50),
    (Kind::StoredAnew, 10),
    (Kind::StoredAnewAndKnown, 2),
];

/// How often each kind happened.
#[derive(Default)]
pub(crate) struct Coverage(BTreeMap<Kind, u64>);

impl Coverage {
    pub(crate) fn count(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(*kind).or_default() += count;
        }
    }

    /// Fails if something has become too rare.
    pub(crate) fn assert_enough(&self) {
        let count = |kind| self.0.get(kind).copied().unwrap_or(0);
        let all: Vec<_> = LEAST.iter().map(|(kind, least)| (kind, count(kind), *least)).collect();
        for (kind, count, least) in &all {
            println!("{kind:?}: {count}, at least {least}");
        }
        let rare: Vec<_> = all.iter().filter(|(_, count, least)| count < least).collect();
        assert!(rare.is_empty(), "too rare, so these worlds prove nothing of it: {rare:?}");
    }
}
