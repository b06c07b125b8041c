//! The inbox against hand-written scenes and against a model of a server that brings everything again after a cut.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ORIGIN: Origin = Origin(3);

fn key(number: u64) -> MessageKey {
    (AccountId([1; 16]), MessageId(u128::from(number).to_be_bytes()))
}

/// A message whose identity follows from its position.
fn arrive(inbox: &mut Inbox, position: u64) -> Verdict {
    inbox.arrive(ORIGIN, Position(position), Arrival::Message(key(position)), false).unwrap()
}

fn acks(inbox: &mut Inbox) -> Vec<u64> {
    inbox.take_acks().into_iter().map(|(_, position)| position.0).collect()
}

#[test]
fn acknowledgements_out_of_order_wait_for_the_lowest() {
    let mut inbox = Inbox::default();
    for position in [2, 5, 9] {
        assert_eq!(arrive(&mut inbox, position), Verdict::HandOut);
    }
    assert!(!inbox.acknowledge(ORIGIN, Position(9)));
    assert!(!inbox.acknowledge(ORIGIN, Position(5)));
    assert_eq!(acks(&mut inbox), [0_u64; 0]);
    assert!(inbox.acknowledge(ORIGIN, Position(2)));
    assert_eq!(acks(&mut inbox), [9]);
    assert_eq!(acks(&mut inbox), [0_u64; 0], "an acknowledgement is written once");
}

#[test]
fn what_the_application_never_sees_counts_in_its_turn() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    let verdict = inbox.arrive(ORIGIN, Position(2), Arrival::Internal, false);
    assert_eq!((verdict, acks(&mut inbox).len()), (Ok(Verdict::Done), 0));
    inbox.acknowledge(ORIGIN, Position(1));
    assert_eq!(acks(&mut inbox), [2]);
    inbox.arrive(ORIGIN, Position(3), Arrival::Internal, false).unwrap();
    assert_eq!(acks(&mut inbox), [3]);
}

#[test]
fn a_repeated_message_is_handed_out_once_and_counts_as_done() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    let elsewhere = inbox.arrive(Origin(4), Position(7), Arrival::Message(key(1)), false);
    assert_eq!(elsewhere, Ok(Verdict::Duplicate));
    assert_eq!(inbox.take_acks(), [(Origin(4), Position(7))]);
}

#[test]
fn after_a_reconnect_what_the_application_holds_is_not_handed_out_again() {
    let mut inbox = Inbox::default();
    arrive(&mut inbox, 1);
    arrive(&mut inbox, 2);
    inbox.acknowledge(ORIGIN, Position(1));
    assert_eq!(inbox.attach(), 1);
    assert_eq!(inbox.state().cursors, [(ORIGIN, Position(1))]);
    assert_eq!(acks(&mut inbox), [0_u64; 0], "the attach has acknowledged");
    assert_eq!(arrive(&mut inbox, 2), Verdict::Again);
    inbox.acknowledge(ORIGIN, Position(2));
    assert_eq!(acks(&mut inbox), [2]);
}

#[test]
fn what_comes_again_below_the_cursor_is_acknowledged_again() {
    let mut inbox = Inbox::restore(&FeedState { attach_number: 4, cursors: vec![(ORIGIN, Position(10))] });
    assert_eq!(inbox.attach(), 5);
    assert_eq!(arrive(&mut inbox, 8), Verdict::Again);
    assert_eq!(acks(&mut inbox), [10]);
}

#[test]
fn while_nobody_reads_messages_stay_and_receipts_before_them_count() {
    let mut inbox = Inbox::default();
    let hold = |inbox: &mut Inbox, position, arrival| inbox.arrive(ORIGIN, Position(position), arrival, true);
    assert_eq!(hold(&mut inbox, 1, Arrival::Internal), Ok(Verdict::Done));
    assert_eq!(hold(&mut inbox, 2, Arrival::Message(key(2))), Ok(Verdict::Hold));
    assert_eq!(hold(&mut inbox, 3, Arrival::Internal), Ok(Verdict::Done));
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
    let more = inbox.arrive(ORIGIN, Position(1_000_000), Arrival::Gap, false);
    assert_eq!(more, Err(TooManyPending));
}

#[test]
fn the_cursors_that_moved_last_are_kept() {
    let mut inbox = Inbox::default();
    for origin in 1..=1000 {
        inbox.arrive(Origin(origin), Position(1), Arrival::Internal, false).unwrap();
        inbox.take_acks();
    }
    let state = inbox.state();
    assert_eq!(state.cursors.len(), CURSORS_MAX);
    assert_eq!(state.cursors.last(), Some(&(Origin(1000), Position(1))));
    assert!(inbox.origins.len() <= 2 * CURSORS_MAX);
    assert!(inbox.take_unsaved().is_some() && inbox.take_unsaved().is_none());
}

#[test]
fn the_memory_of_messages_is_bounded() {
    let mut recent = Recent::default();
    for number in 0..=RECENT_MESSAGES_MAX as u64 {
        assert!(recent.insert(key(number)));
    }
    assert!(!recent.insert(key(1)));
    assert!(recent.insert(key(0)), "the oldest is forgotten");
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
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..3_u32, prop::option::weighted(0.2, 0..20_u64), 1..4_u64)
            .prop_map(|(origin, repeat, skip)| Step::Accept { origin, repeat, skip }),
        4 => Just(Step::Write),
        3 => any::<usize>().prop_map(Step::Acknowledge),
        2 => Just(Step::Ack),
        1 => Just(Step::Cut),
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

proptest! {
    #[test]
    fn every_message_is_handed_out_once_and_acknowledged_only_by_the_application(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut inbox = Inbox::default();
        let mut server = Server::default();
        let mut held: Vec<(Origin, Position)> = Vec::new();
        let mut handed_out = Vec::new();
        let wind_up = steps.iter().flat_map(|_| [Step::Write, Step::Acknowledge(0), Step::Ack]);
        for step in steps.iter().cloned().chain([Step::Cut]).chain(wind_up) {
            match step {
                Step::Accept { origin, repeat, skip } => server.accept(Origin(origin), repeat, skip),
                Step::Write => {
                    let Some((origin, position, key)) = server.write() else { continue };
                    if inbox.arrive(origin, position, Arrival::Message(key), false).unwrap() == Verdict::HandOut {
                        held.push((origin, position));
                        handed_out.push(key);
                    }
                }
                Step::Acknowledge(index) => {
                    if !held.is_empty() {
                        let (origin, position) = held.swap_remove(index % held.len());
                        inbox.acknowledge(origin, position);
                    }
                }
                Step::Ack => server.ack(inbox.take_acks()),
                Step::Cut => {
                    inbox.attach();
                    server.ack(inbox.state().cursors);
                    server.written = 0;
                }
            }
            for (origin, position) in &held {
                prop_assert!(server.cursors.get(origin).is_none_or(|cursor| cursor < position));
            }
        }
        let expected: HashSet<_> = server.events.iter().map(|(_, _, key)| *key).collect();
        prop_assert_eq!(handed_out.len(), expected.len(), "once each");
        prop_assert_eq!(handed_out.into_iter().collect::<HashSet<_>>(), expected);
        for (origin, last) in &server.last {
            prop_assert_eq!(server.cursors.get(origin), Some(&Position(*last)), "everything is acknowledged");
        }
    }
}
