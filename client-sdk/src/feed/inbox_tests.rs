//! The inbox against hand-written scenes and against a model of a server that brings everything again after a cut.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use quail_protocol::id::{AccountId, MessageId};

use super::*;

const ORIGIN: Origin = Origin(3);

fn key(number: u64) -> MessageKey {
    (AccountId([1; 16]), MessageId(u128::from(number).to_be_bytes()))
}

fn prepare_and_arrive(inbox: &mut Inbox, place: Place, arrival: Arrival, hold: bool) -> Verdict {
    inbox.prepare(place, arrival, hold, Instant::now());
    inbox.arrive(place, arrival, hold).unwrap()
}

/// A message whose identity follows from its position.
fn arrive(inbox: &mut Inbox, position: u64) -> Verdict {
    prepare_and_arrive(inbox, (ORIGIN, Position(position)), Arrival::Message(key(position)), false)
}

fn acknowledge(inbox: &mut Inbox, position: u64) {
    inbox.acknowledge((ORIGIN, Position(position)));
}

/// Commits what is pending to a store.
fn commit(inbox: &mut Inbox, store: &mut FeedState) {
    if let Some(batch) = inbox.take_batch() {
        batch.changes.iter().for_each(|change| store.apply(change));
        inbox.committed(&batch);
    }
}

/// Commits, and returns what is acknowledged.
fn acks(inbox: &mut Inbox) -> Vec<u64> {
    commit(inbox, &mut FeedState::default());
    inbox.take_acks().0.into_iter().map(|(_, position)| position.0).collect()
}

#[test]
fn acknowledgements_out_of_order_wait_for_the_lowest() {
    let mut inbox = Inbox::default();
    for position in [2, 5, 9] {
        assert_eq!(arrive(&mut inbox, position), Verdict::HandOut);
    }
    acknowledge(&mut inbox, 9);
    acknowledge(&mut inbox, 5);
    assert_eq!(acks(&mut inbox), [0_u64; 0]);
    acknowledge(&mut inbox, 2);
    assert_eq!(acks(&mut inbox), [9]);
    assert_eq!(acks(&mut inbox), [0_u64; 0], "an acknowledgement is written once");
}

#[test]
fn nothing_is_acknowledged_before_it_is_committed() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    acknowledge(&mut inbox, 1);
    assert!(inbox.take_acks().0.is_empty());
    let batch = inbox.take_batch().unwrap();
    assert!(inbox.take_acks().0.is_empty());
    let is_shown = |change: &FeedChange| *change == FeedChange::Shown(key(1));
    let is_cursor = |change: &FeedChange| matches!(change, FeedChange::Cursors(_));
    assert!(batch.changes.iter().any(is_shown) && batch.changes.iter().any(is_cursor), "in one commit");
    assert!(inbox.committed(&batch));
    assert_eq!(inbox.take_acks().0, [(ORIGIN, Position(1))]);
}

#[test]
fn what_the_application_never_sees_counts_in_its_turn() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    let internal = |inbox: &mut Inbox, position| {
        prepare_and_arrive(inbox, (ORIGIN, Position(position)), Arrival::Internal, false)
    };
    assert_eq!((internal(&mut inbox, 2), acks(&mut inbox).len()), (Verdict::Done, 0));
    acknowledge(&mut inbox, 1);
    assert_eq!(acks(&mut inbox), [2]);
    internal(&mut inbox, 3);
    assert_eq!(acks(&mut inbox), [3]);
}

#[test]
fn a_repeated_message_is_handed_out_once_and_counts_as_done() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    let elsewhere = (Origin(4), Position(7));
    assert_eq!(
        prepare_and_arrive(&mut inbox, elsewhere, Arrival::Message(key(1)), false),
        Verdict::Duplicate
    );
    assert_eq!(acks(&mut inbox), [0_u64; 0], "the application has it in hand only");
    acknowledge(&mut inbox, 1);
    let mut acks = acks(&mut inbox);
    acks.sort_unstable();
    assert_eq!(acks, [1, 7]);
    let again = prepare_and_arrive(&mut inbox, (Origin(5), Position(2)), Arrival::Message(key(1)), false);
    assert_eq!((again, super::tests::acks(&mut inbox)), (Verdict::Duplicate, vec![2]));
}

#[test]
fn after_a_reconnect_what_the_application_holds_is_not_handed_out_again() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    arrive(&mut inbox, 2);
    acknowledge(&mut inbox, 1);
    inbox.attach();
    commit(&mut inbox, &mut FeedState::default());
    let attaching = inbox.attaching();
    assert_eq!((attaching.number, attaching.cursors), (1, vec![(ORIGIN, Position(1))]));
    assert_eq!(acks(&mut inbox), [0_u64; 0], "the attach has acknowledged");
    assert_eq!(arrive(&mut inbox, 2), Verdict::Again);
    acknowledge(&mut inbox, 2);
    assert_eq!(acks(&mut inbox), [2]);
}

#[test]
fn what_comes_again_below_the_cursor_is_acknowledged_again() {
    let cursors = vec![(ORIGIN, Position(10))];
    let mut inbox = Inbox::restore(FeedState { attach_number: 4, cursors, ..FeedState::default() });
    inbox.attach();
    assert_eq!(inbox.attaching().number, 5);
    assert_eq!(arrive(&mut inbox, 8), Verdict::Again);
    assert_eq!(acks(&mut inbox), [10]);
}

#[test]
fn while_nobody_reads_messages_stay_and_receipts_before_them_count() {
    let mut inbox = Inbox::default();
    let hold = |inbox: &mut Inbox, position, arrival| {
        prepare_and_arrive(inbox, (ORIGIN, Position(position)), arrival, true)
    };
    assert_eq!(hold(&mut inbox, 1, Arrival::Internal), Verdict::Done);
    assert_eq!(hold(&mut inbox, 2, Arrival::Message(key(2))), Verdict::Hold);
    assert_eq!(hold(&mut inbox, 3, Arrival::Internal), Verdict::Done);
    assert_eq!(acks(&mut inbox), [1]);
    inbox.forget_held();
    inbox.attach();
    assert_eq!(arrive(&mut inbox, 2), Verdict::HandOut);
}

#[test]
fn no_more_is_kept_than_a_server_may_send() {
    let mut inbox = Inbox::default();
    for position in 1..=PENDING_EVENTS_MAX as u64 {
        arrive(&mut inbox, position);
    }
    let more = inbox.arrive((ORIGIN, Position(1_000_000)), Arrival::Gap, false);
    assert_eq!(more, Err(TooManyPending));
}

#[test]
fn the_cursors_that_moved_last_are_kept() {
    let mut inbox = Inbox::default();
    let mut store = FeedState::default();
    for origin in 1..=1000 {
        inbox.arrive((Origin(origin), Position(1)), Arrival::Internal, false).unwrap();
        commit(&mut inbox, &mut store);
        inbox.take_acks();
    }
    assert_eq!(store.cursors.len(), CURSORS_MAX);
    assert_eq!(store.cursors.last(), Some(&(Origin(1000), Position(1))));
    assert!(inbox.origins.len() <= 2 * CURSORS_MAX);
}

#[test]
fn what_was_set_aside_is_told_at_every_attach_and_acknowledged_once_the_server_has_heard() {
    let mut store = FeedState::default();
    for _ in 0..3 {
        let mut inbox = Inbox::restore(store.clone());
        arrive(&mut inbox, 1);
        arrive(&mut inbox, 2);
        inbox.take_in_hand((ORIGIN, Position(1)), Instant::now());
        commit(&mut inbox, &mut store);
    }
    let mut inbox = Inbox::restore(store.clone());
    arrive(&mut inbox, 1);
    arrive(&mut inbox, 2);
    let offered = |inbox: &Inbox, position| inbox.offered((ORIGIN, Position(position))).gives_up;
    assert!(offered(&inbox, 1) && !offered(&inbox, 2));
    acknowledge(&mut inbox, 1);
    commit(&mut inbox, &mut store);
    let aside = vec![(ORIGIN, Position(1))];
    assert_eq!(inbox.take_acks(), (aside.clone(), aside.clone()));

    // Whether that was read is not known.
    let mut inbox = Inbox::restore(store.clone());
    inbox.attach();
    assert_eq!(inbox.attaching().set_aside, aside);
    inbox.caught_up();
    arrive(&mut inbox, 2);
    acknowledge(&mut inbox, 2);
    commit(&mut inbox, &mut store);
    assert_eq!(inbox.take_acks(), (vec![(ORIGIN, Position(2))], vec![]), "it was heard");

    // A server that was restored from a copy has forgotten it.
    let mut inbox = Inbox::restore(store);
    inbox.attach();
    assert_eq!(inbox.attaching().set_aside, aside);
}

#[test]
fn a_message_that_another_origin_brings_too_is_done_there_when_the_application_is_done_with_it() {
    let mut inbox = Inbox::default();
    let other = Origin(9);
    assert_eq!(arrive(&mut inbox, 1), Verdict::HandOut);
    let twin = prepare_and_arrive(&mut inbox, (other, Position(1)), Arrival::Message(key(1)), false);
    assert_eq!(twin, Verdict::Duplicate);
    let behind = prepare_and_arrive(&mut inbox, (other, Position(2)), Arrival::Message(key(2)), false);
    assert_eq!(behind, Verdict::HandOut);
    inbox.acknowledge((other, Position(2)));
    assert_eq!(acks(&mut inbox), [0_u64; 0], "who dies now has not seen the first one");
    acknowledge(&mut inbox, 1);
    commit(&mut inbox, &mut FeedState::default());
    let mut acks = inbox.take_acks().0;
    acks.sort_unstable();
    assert_eq!(acks, [(ORIGIN, Position(1)), (other, Position(2))]);
    assert!(inbox.twins.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    /// A message at the next position of an origin; now and then a repetition of one before.
    Accept {
        origin: u32,
        repeat: Option<u64>,
        skip: u64,
    },
    /// The server writes its next event.
    Write,
    /// The application acknowledges one of those it holds.
    Acknowledge(usize),
    /// The client's acknowledgements reach the server.
    Ack,
    Commit,
    Cut,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..3_u32, prop::option::weighted(0.2, 0..20_u64), 1..4_u64)
            .prop_map(|(origin, repeat, skip)| Step::Accept { origin, repeat, skip }),
        4 => Just(Step::Write),
        3 => any::<usize>().prop_map(Step::Acknowledge),
        2 => Just(Step::Ack),
        2 => Just(Step::Commit),
        1 => Just(Step::Cut),
        1 => Just(Step::Crash),
    ]
}

/// A server: every event ever, its cursors, and how far the present feed has been written.
#[derive(Default)]
struct Server {
    events: Vec<(Origin, Position, MessageKey)>,
    last: BTreeMap<Origin, u64>,
    cursors: BTreeMap<Origin, Position>,
    written: usize,
}

impl Server {
    fn accept(&mut self, origin: Origin, repeat: Option<u64>, skip: u64) {
        let last = self.last.entry(origin).or_default();
        *last += skip;
        let key = key(repeat.unwrap_or(1000 + self.events.len() as u64));
        self.events.push((origin, Position(*last), key));
    }

    fn write(&mut self) -> Option<(Origin, Position, MessageKey)> {
        loop {
            let event = *self.events.get(self.written)?;
            self.written += 1;
            if event.1 > self.cursors.get(&event.0).copied().unwrap_or_default() {
                return Some(event);
            }
        }
    }

    fn ack(&mut self, acks: Vec<(Origin, Position)>) {
        for (origin, position) in acks {
            let cursor = self.cursors.entry(origin).or_default();
            *cursor = position.max(*cursor);
        }
    }
}

/// The application: what it has in hand, and its own log.
#[derive(Default)]
struct App {
    held: Vec<(Place, Option<MessageKey>)>,
    log: HashSet<MessageKey>,
    acknowledged: HashSet<MessageKey>,
    set_aside: HashSet<MessageKey>,
}

impl App {
    fn take(&mut self, place: Place, key: MessageKey, offer: &Offer) {
        if offer.gives_up {
            self.set_aside.insert(key);
            return self.held.push((place, None));
        }
        assert!(!self.acknowledged.contains(&key), "what was acknowledged for good is not handed out again");
        assert!(self.log.insert(key) || offer.attempt > 1, "attempt 1 is given once");
        self.held.push((place, Some(key)));
    }
}

proptest! {
    #[test]
    fn every_message_is_shown_once_over_cuts_and_crashes(steps in prop::collection::vec(step(), 1..300)) {
        let (mut inbox, mut store) = (Inbox::default(), FeedState::default());
        let (mut server, mut app) = (Server::default(), App::default());
        let mut unsaved = HashSet::new();
        let wind_up = steps.iter().flat_map(|_| [Step::Write, Step::Acknowledge(0), Step::Commit, Step::Ack]);
        for step in steps.iter().cloned().chain([Step::Cut]).chain(wind_up) {
            match step {
                Step::Accept { origin, repeat, skip } => server.accept(Origin(origin), repeat, skip),
                Step::Write => {
                    let Some((origin, position, key)) = server.write() else { continue };
                    let (place, arrival) = ((origin, position), Arrival::Message(key));
                    inbox.prepare(place, arrival, false, Instant::now());
                    commit(&mut inbox, &mut store);
                    app.acknowledged.extend(unsaved.drain());
                    if inbox.arrive(place, arrival, false).unwrap() == Verdict::HandOut {
                        app.take(place, key, &inbox.offered(place));
                    }
                }
                Step::Acknowledge(index) => {
                    if !app.held.is_empty() {
                        let (place, key) = app.held.swap_remove(index % app.held.len());
                        inbox.acknowledge(place);
                        unsaved.extend(key);
                    }
                }
                Step::Commit => {
                    commit(&mut inbox, &mut store);
                    app.acknowledged.extend(unsaved.drain());
                }
                Step::Ack => server.ack(inbox.take_acks().0),
                Step::Cut | Step::Crash => {
                    if matches!(step, Step::Crash) {
                        inbox = Inbox::restore(store.clone());
                        (app.held, unsaved) = (Vec::new(), HashSet::new());
                    }
                    inbox.attach();
                    commit(&mut inbox, &mut store);
                    app.acknowledged.extend(unsaved.drain());
                    server.ack(inbox.attaching().cursors);
                    server.written = 0;
                }
            }
            for ((origin, position), _) in &app.held {
                prop_assert!(server.cursors.get(origin).is_none_or(|cursor| cursor < position));
            }
        }
        let expected: HashSet<_> = server.events.iter().map(|(_, _, key)| *key).collect();
        let told: HashSet<_> = app.log.union(&app.set_aside).copied().collect();
        prop_assert_eq!(told, expected);
        for (origin, last) in &server.last {
            prop_assert_eq!(server.cursors.get(origin), Some(&Position(*last)), "everything is acknowledged");
        }
    }
}
