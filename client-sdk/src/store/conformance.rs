//! What every store must do, run on each of them: after any commits and reopenings, what is loaded is what the changes
//! mean.

use bytes::Bytes;
use proptest::prelude::*;
use quail_protocol::id::{AccountId, MessageId, Origin, Position, Stamp};

use super::*;
use crate::Accepted;

/// One commit; numbers of new messages are given when it is made.
#[derive(Clone, Debug)]
enum Step {
    Queue(usize),
    Tried,
    Edit(usize),
    Cancel(usize),
    Renumber(usize),
    Accept,
    Refuse,
    Note(u8),
    Seen(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..300_usize).prop_map(Step::Queue),
        1 => Just(Step::Tried),
        1 => (0..9_usize).prop_map(Step::Edit),
        1 => (0..9_usize).prop_map(Step::Cancel),
        1 => (0..9_usize).prop_map(Step::Renumber),
        3 => Just(Step::Accept),
        1 => Just(Step::Refuse),
        1 => any::<u8>().prop_map(Step::Note),
        1 => any::<u64>().prop_map(Step::Seen),
        1 => Just(Step::Reopen),
    ]
}

fn changes(step: &Step, state: &PublishState) -> Vec<PublishChange> {
    let queued = |at: usize| state.queue.get(at).cloned();
    let number = state.next_number;
    let change = match step {
        Step::Queue(length) => Some(PublishChange::Queued(QueuedSend {
            number,
            id: MessageId([number as u8; 16]),
            recipient: AccountId([3; 16]),
            kind: 1,
            body: Bytes::from(vec![b'x'; *length]),
            // Every third says more than a body.
            extra: Bytes::from(vec![b'y'; if length % 3 == 0 { length / 2 } else { 0 }]),
        })),
        Step::Tried => Some(PublishChange::Tried(number - 1)),
        Step::Edit(at) => queued(*at)
            .map(|send| PublishChange::Edited(QueuedSend { body: Bytes::from_static(b"new"), ..send })),
        Step::Cancel(at) => queued(*at).map(|send| PublishChange::Cancelled(send.number)),
        Step::Renumber(at) => queued(*at).map(|send| PublishChange::Renumbered(send.number, number)),
        // Answers come in the order of numbers.
        Step::Accept => queued(0).map(|send| {
            let accepted = Accepted { origin: Origin(1), position: Position(number), stamp: Stamp(number) };
            let (digest, QueuedSend { number, id, .. }) = (send.digest(), send);
            PublishChange::Accepted(AnsweredSend { number, id, digest, accepted })
        }),
        Step::Refuse => queued(0)
            .map(|send| PublishChange::Refused(RefusedSend { send, reason: 41, text: "too large".into() })),
        Step::Note(id) => Some(PublishChange::Noted(MessageId([*id; 16]))),
        Step::Seen(stamp) => Some(PublishChange::Seen(Stamp(*stamp))),
        Step::Reopen => None,
    };
    change.into_iter().collect()
}

fn mark(((origin, after), upto): (Place, u64)) -> Mark {
    Mark { sender: AccountId([7; 16]), origin, after, upto: Position(upto) }
}

fn feed_change() -> impl Strategy<Value = FeedChange> {
    let place = || (1..3_u32, 1..6_u64).prop_map(|(o, p)| (Origin(o), Position(p)));
    let standing = prop_oneof![Just(Standing::Released), Just(Standing::InHand), Just(Standing::Done)];
    let hand = (any::<u32>(), any::<u32>(), standing).prop_map(|(attempts, deaths, standing)| Hand {
        attempts,
        deaths,
        standing,
    });
    prop_oneof![
        any::<u64>().prop_map(FeedChange::Attached),
        any::<u64>().prop_map(|stamp| FeedChange::Seen(Stamp(stamp))),
        prop::collection::vec(place(), 0..5).prop_map(FeedChange::Cursors),
        prop::collection::vec(place(), 0..5).prop_map(FeedChange::SetAside),
        prop::collection::vec((place(), any::<u64>()).prop_map(mark), 0..5).prop_map(FeedChange::Marks),
        any::<[u8; 16]>().prop_map(|id| FeedChange::Shown((AccountId([1; 16]), MessageId(id)))),
        (0..4_usize).prop_map(FeedChange::Forgotten),
        (place(), hand).prop_map(|(place, hand)| FeedChange::Hand(place, hand)),
        place().prop_map(FeedChange::HandGone),
    ]
}

fn publish_conforms<S: Store>(open: impl Fn() -> S, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut store, mut expected) = (Some(open()), PublishState::default());
    for step in steps {
        let Some(opened) = &store else { unreachable!() };
        let changes = changes(step, &expected);
        opened.commit_publish(&changes).unwrap();
        changes.iter().for_each(|change| expected.apply(change));
        if matches!(step, Step::Reopen) {
            // One at a time: the part has one owner.
            drop(store.take());
            store = Some(open());
        }
    }
    prop_assert_eq!(store.unwrap().load_publish().unwrap(), expected);
    Ok(())
}

fn feed_conforms<S: Store>(open: impl Fn() -> S, commits: &[Vec<FeedChange>]) -> Result<(), TestCaseError> {
    let mut expected = FeedState::default();
    for (index, changes) in commits.iter().enumerate() {
        let store = open();
        store.commit_feed(changes).unwrap();
        changes.iter().for_each(|change| expected.apply(change));
        if index + 1 == commits.len() {
            prop_assert_eq!(store.load_feed().unwrap(), expected.clone());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_publish_part_is_what_its_changes_mean(steps in prop::collection::vec(step(), 1..60)) {
        let memory = Arc::new(MemoryStore::new());
        publish_conforms(|| memory.clone(), &steps)?;
        let directory = tempfile::tempdir().unwrap();
        publish_conforms(|| FileStore::open(directory.path()).unwrap(), &steps)?;
    }

    #[test]
    fn the_feed_part_is_what_its_changes_mean(
        commits in prop::collection::vec(prop::collection::vec(feed_change(), 0..8), 1..12),
    ) {
        let memory = Arc::new(MemoryStore::new());
        feed_conforms(|| memory.clone(), &commits)?;
        let directory = tempfile::tempdir().unwrap();
        feed_conforms(|| FileStore::open(directory.path()).unwrap(), &commits)?;
    }
}

#[test]
fn what_is_kept_of_answers_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    let changes: Vec<_> = (1..=ANSWERS_KEPT_MAX as u64 + 5)
        .map(|number| {
            let accepted = Accepted { origin: Origin(1), position: Position(number), stamp: Stamp(1) };
            let id = MessageId(u128::from(number).to_be_bytes());
            PublishChange::Accepted(AnsweredSend { number, id, digest: [0; 16], accepted })
        })
        .collect();
    store.commit_publish(&changes).unwrap();
    let answered = store.load_publish().unwrap().answered;
    assert_eq!((answered.len(), answered[0].number), (ANSWERS_KEPT_MAX, 6));
}
