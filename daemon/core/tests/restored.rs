//! A data directory that was replaced by an older one: what devices name by the number that it had before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

mod support;

use prost::Message as _;
use quail_core::ports::outbox::TwinOutbox;
use quail_core::{Accepted, Ancestor, Command, Effect, ReadCommand, State, ValidRead};
use quail_protocol::id::{Origin, Position};
use quail_protocol::v1::{self, ReceiptKind, event::Body, feed_down::Frame};

use support::{ADA, BOB, Core, ORIGIN, device, feed};

const NEXT: Origin = Origin(2);

fn restore(core: Core) -> Core {
    let twin: TwinOutbox = core.twin;
    let recovered = twin.reopen().1;
    let ancestor = Ancestor { origin: ORIGIN, inherited: recovered.last_position };
    let state = State::new(NEXT, recovered).with_ancestors(vec![ancestor]);
    let mut core = Core { state, twin };
    core.introduce(ADA);
    core.introduce(BOB);
    core
}

/// Bob's device has attached, and Ada has written five messages. Then the directory is replaced by a copy in which Bob has
/// acknowledged nothing.
fn restored() -> Core {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    core.attach(BOB, 1, 0);
    (1..=5).for_each(|number| drop(core.send(number)));
    restore(core)
}

/// What Bob's device says when it attaches: that it has taken what the ancestor gave it up to a position, but for some.
fn attach_bob(core: &mut Core, number: u64, (of, upto): (Origin, Position), aside: &[u64]) -> Vec<Effect> {
    let set_aside = aside.iter().map(|position| (ORIGIN, Position(*position))).collect();
    let (account, device, cursors) = (BOB, device(BOB), vec![(of, upto)]);
    core.turn(Command::Attach { feed: feed(number), account, device, cursors, set_aside })
}

/// The receipts that Ada finds, in their order: kind, origin, after, upto.
fn receipts(core: &mut Core, number: u64) -> Vec<(ReceiptKind, u32, u64, u64)> {
    let effects = core.attach(ADA, number, 0);
    let receipt = |effect: Effect| {
        let Effect::Deliver { event, .. } = effect else { return None };
        let down = v1::FeedDown::decode_length_delimited(event.frame.clone()).unwrap();
        match down.frame {
            Some(Frame::Event(v1::Event { body: Some(Body::Receipt(receipt)), .. })) => {
                Some((receipt.kind(), receipt.origin, receipt.after, receipt.upto))
            }
            _ => None,
        }
    };
    effects.into_iter().filter_map(receipt).collect()
}

#[test]
fn what_was_given_up_before_is_not_delivered_after() {
    let mut core = restored();
    attach_bob(&mut core, 2, (ORIGIN, Position(4)), &[2]);
    let told = receipts(&mut core, 1);
    let covers = |position| told.iter().any(|(_, _, after, upto)| *after < position && position <= *upto);
    assert!(covers(1) && covers(3) && covers(4), "{told:?}");
    assert!(!covers(2), "it was given up: {told:?}");
    assert!(!covers(5), "it was not acknowledged: {told:?}");
}

#[test]
fn a_receipt_names_a_message_as_its_sender_and_as_its_other_devices_know_it() {
    let mut core = restored();
    attach_bob(&mut core, 2, (ORIGIN, Position(5)), &[]);
    let told = receipts(&mut core, 1);
    assert_eq!(told, [(ReceiptKind::Delivered, NEXT.0, 0, 5), (ReceiptKind::Delivered, ORIGIN.0, 0, 5)]);
}

#[test]
fn what_a_device_names_that_is_younger_than_the_copy_does_not_come_again_and_proves_nothing() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    (1..=5).for_each(|number| drop(core.send(number)));
    let mut core = restore(core);
    // Where it began to get messages the copy does not say: it may have had none of these.
    let effects = attach_bob(&mut core, 1, (ORIGIN, Position(4)), &[]);
    assert_eq!(support::delivered(&effects), [5]);
    assert_eq!(receipts(&mut core, 1), []);
}

#[test]
fn a_send_that_is_answered_again_stands_where_it_stood() {
    let mut core = restored();
    let accepted = |effects: Vec<Effect>| match &effects[..] {
        [Effect::Accepted { accepted: Accepted { origin, position, .. }, .. }] => (*origin, position.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(accepted(core.send(3)), (ORIGIN, 3));
    let last = core.state.last_position().0;
    assert_eq!(accepted(core.send(6)), (NEXT, last + 1));
}

#[test]
fn what_was_read_before_may_be_said_after() {
    let mut core = restored();
    attach_bob(&mut core, 2, (ORIGIN, Position(5)), &[]);
    let read = |of: Origin, after, upto| {
        let read = Ok(ValidRead { sender: ADA, stretches: vec![(of, Position(after), Position(upto))] });
        Command::Read(ReadCommand { feed: feed(2), account: BOB, device: device(BOB), read })
    };
    let answered = |effects: Vec<Effect>| {
        assert!(matches!(effects[..], [Effect::ReadAnswered { error: None, .. }]), "{effects:?}");
    };
    answered(core.turn(read(ORIGIN, 1, 3)));
    // What the ancestor gave beyond the copy is nowhere, and an origin of somebody else says nothing here.
    answered(core.turn(read(ORIGIN, 700, 900)));
    answered(core.turn(read(Origin(77), 3, 4)));
    let read = |(kind, ..): &(ReceiptKind, u32, u64, u64)| *kind == ReceiptKind::Read;
    let told: Vec<_> = receipts(&mut core, 1).into_iter().filter(read).collect();
    assert_eq!(told, [(ReceiptKind::Read, NEXT.0, 1, 3), (ReceiptKind::Read, ORIGIN.0, 1, 3)]);
}

#[test]
fn what_a_device_took_before_its_origin_ended_does_not_come_again_once_it_was_told_so() {
    let mut core = restored();
    assert_eq!(support::delivered(&attach_bob(&mut core, 2, (ORIGIN, Position(3)), &[])), [4, 5]);
    // The daemon ends before Bob's device says more, and the device has nothing of the new origin to name.
    let effects = attach_bob(&mut core, 3, (ORIGIN, Position::END), &[]);
    assert_eq!(support::delivered(&effects), [4, 5]);
}

#[test]
fn what_a_device_took_before_is_remembered_before_its_backlog_was_looked_through() {
    let mut core = restored();
    // Only the attach becomes durable: what would come of the read does not.
    let mut outcome = quail_core::Outcome::default();
    let set_aside = vec![];
    let (account, device, cursors) = (BOB, device(BOB), vec![(ORIGIN, Position(3))]);
    let attach = Command::Attach { feed: feed(2), account, device, cursors, set_aside };
    core.state.decide(attach, support::NOW_MS, &mut outcome);
    use quail_core::ports::outbox::Outbox as _;
    core.twin.commit(core.state.batch(&outcome.entries)).unwrap();
    let effects = attach_bob(&mut core, 3, (ORIGIN, Position::END), &[]);
    assert_eq!(support::delivered(&effects), [4, 5]);
}
