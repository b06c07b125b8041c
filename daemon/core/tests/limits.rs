//! What the core does where something ends: a lane after a temporary refusal, an outbox that is full, a store that lost an
//! event, a device that forgot.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

mod support;

use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Batch, Entry, Note, Outbox};
use quail_core::{Command, Effect, OUTBOX_EVENTS_MAX, State};
use quail_protocol::id::{DeviceId, Position, Stamp};
use quail_protocol::limits::FEED_WINDOW_EVENTS;
use quail_protocol::v1::Reason;
use support::{ADA, BOB, Core, LANE, ORIGIN, delivered, device, feed, refused};

#[test]
fn a_session_that_was_read_before_its_device_was_removed_is_closed() {
    let mut core = Core::new();
    core.introduce(ADA);
    let bound = |device| Command::Bound { account: ADA, device };
    assert_eq!(core.turn(bound(device(ADA))), []);
    let stranger = device(BOB);
    assert_eq!(core.turn(bound(stranger)), [Effect::CloseDevice { device: stranger }]);
    let facts = AccountFacts {
        account: ADA,
        handle: "ada".to_owned(),
        version: 2,
        read_receipts: true,
        devices: vec![],
    };
    core.turn(Command::Facts { facts, ticket: None });
    assert_eq!(core.turn(bound(device(ADA))), [Effect::CloseDevice { device: device(ADA) }]);
}

#[test]
fn after_a_temporary_refusal_everything_is_refused_until_restart() {
    let mut core = Core::new();
    core.introduce(ADA);
    // Nobody has told the core of the recipient yet.
    assert_eq!(refused(&core.send(1)), Reason::DirectoryUnavailable);
    core.introduce(BOB);
    assert_eq!(refused(&core.send(2)), Reason::AfterRefused);
    assert_eq!(refused(&core.send(1)), Reason::AfterRefused);
    assert_eq!(core.turn(Command::Restart { connection: LANE }), []);
    for number in [1, 2] {
        let effects = core.send(number);
        assert!(matches!(effects[..], [Effect::Accepted { .. }]), "{effects:?}");
    }
}

#[test]
fn a_lane_that_is_gone_leaves_no_refusal_behind() {
    let mut core = Core::new();
    core.introduce(ADA);
    refused(&core.send(1));
    core.turn(Command::Disconnected { connection: LANE, account: ADA, device: device(ADA) });
    core.introduce(BOB);
    assert!(matches!(core.send(1)[..], [Effect::Accepted { .. }]));
}

#[test]
fn a_full_outbox_becomes_a_gap_and_no_receipt_covers_it() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    for number in 1..=OUTBOX_EVENTS_MAX as u64 + 1 {
        assert!(matches!(core.send(number)[..], [Effect::Accepted { .. }]), "absence never refuses a sender");
    }
    core.attach(ADA, 1, 0);
    let effects = core.attach(BOB, 2, 0);
    let Effect::Gap { from, upto, .. } = &effects[0] else { panic!("{:?}", effects[0]) };
    assert_eq!(*from, Position(1));
    assert!(upto.0 >= OUTBOX_EVENTS_MAX as u64 / 8);
    let first = delivered(&effects);
    assert_eq!(first[0], upto.0 + 1);

    let effects = core.ack(BOB, 2, first[0]);
    let notes = effects.iter().filter_map(|effect| match effect {
        Effect::Deliver { feed: to, event } if *to == feed(1) => Some(event.note),
        _ => None,
    });
    let receipt =
        quail_core::ports::outbox::Note::Receipt { account: BOB, after: *upto, upto: Position(first[0]) };
    assert_eq!(notes.collect::<Vec<_>>(), [receipt]);
}

#[test]
fn a_gap_comes_again_until_it_is_acknowledged() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    for number in 1..=OUTBOX_EVENTS_MAX as u64 + 1 {
        core.send(number);
    }
    let gap = |effects: &[Effect]| {
        let upto = |effect: &Effect| match effect {
            Effect::Gap { from: Position(1), upto, .. } => Some(upto.0),
            _ => None,
        };
        effects.iter().find_map(upto)
    };
    let upto = gap(&core.attach(BOB, 1, 0)).unwrap();
    assert_eq!(gap(&core.attach(BOB, 2, 0)), Some(upto));
    core.ack(BOB, 2, upto);
    assert_eq!(gap(&core.attach(BOB, 3, upto)), None);
}

#[test]
fn an_event_that_the_store_lost_is_told_as_a_gap() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    core.send(1);
    core.send(2);
    let lost = [Entry::Resolved { account: BOB, upto: Position(2) }];
    let (last_position, last_stamp) = (Position(2), Stamp(0));
    core.twin.commit(Batch { entries: &lost, last_position, last_stamp }).unwrap();
    let effects = core.attach(BOB, 1, 0);
    let gap = Effect::Gap { feed: feed(1), from: Position(1), upto: Position(2) };
    assert_eq!(effects, [gap, Effect::CaughtUp { feed: feed(1) }]);
}

#[test]
fn what_is_too_old_becomes_a_gap_and_what_is_gone_already_does_not() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    (1..=3).for_each(|number| drop(core.send(number)));
    let expire = |upto| Command::Expire { account: BOB, upto: Position(upto) };
    core.turn(expire(2));
    assert_eq!(core.state.unresolved(), 1);
    // Said again, it changes nothing.
    core.turn(expire(2));
    let effects = core.attach(BOB, 1, 0);
    let gap = Effect::Gap { feed: feed(1), from: Position(1), upto: Position(2) };
    assert!(effects.contains(&gap), "{effects:?}");
    assert_eq!(delivered(&effects), [3]);
}

#[test]
fn a_device_that_forgot_what_it_acknowledged_is_told_so() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    core.send(1);
    core.send(2);
    assert_eq!(delivered(&core.attach(BOB, 1, 0)), [1, 2]);
    core.ack(BOB, 1, 2);
    let effects = core.attach(BOB, 2, 1);
    assert_eq!(effects[1], Effect::Gap { feed: feed(2), from: Position(2), upto: Position(2) });
    assert!(matches!(effects[0], Effect::Ended { .. }), "the older feed ends");
}

#[test]
fn an_acknowledgement_beyond_everything_ends_the_feed() {
    let mut core = Core::new();
    core.introduce(BOB);
    core.attach(BOB, 1, 0);
    let effects = core.ack(BOB, 1, 1);
    let Effect::Ended { error, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(error.reason(), Reason::AckInvalid);
}

/// The stretches of the receipts that the sender's feed was brought.
fn receipts(effects: &[Effect]) -> Vec<(u64, u64)> {
    let stretch = |effect: &Effect| match effect {
        Effect::Deliver { event, .. } => match event.note {
            Note::Receipt { after, upto, .. } => Some((after.0, upto.0)),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(stretch).collect()
}

fn two_who_write() -> Core {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    core.attach(ADA, 1, 0);
    (1..=3).for_each(|number| drop(core.send(number)));
    core
}

#[test]
fn what_was_set_aside_is_passed_and_not_delivered() {
    let mut core = two_who_write();
    assert_eq!(delivered(&core.attach(BOB, 2, 0)), [1, 2, 3]);
    assert_eq!(receipts(&core.ack_aside(BOB, 2, &[3], &[2])), [(0, 1), (2, 3)]);
    assert_eq!(delivered(&core.attach(BOB, 3, 3)), [0_u64; 0], "it does not come again");
}

#[test]
fn what_is_set_aside_before_it_is_passed_is_remembered_until_then() {
    let mut core = two_who_write();
    core.attach(BOB, 2, 0);
    assert_eq!(core.ack_aside(BOB, 2, &[], &[2]), []);
    assert_eq!(receipts(&core.ack(BOB, 2, 1)), [(0, 1)]);
    assert_eq!(receipts(&core.ack(BOB, 2, 3)), [(2, 3)]);
}

#[test]
fn what_an_attach_set_aside_is_not_delivered_by_its_cursor() {
    let mut core = two_who_write();
    core.attach(BOB, 2, 0);
    assert_eq!(receipts(&core.attach_aside(BOB, 3, 3, &[2])), [(0, 1), (2, 3)]);
}

#[test]
fn what_was_set_aside_on_an_older_feed_counts_on_the_next_one_before_it_is_written() {
    let mut core = two_who_write();
    core.attach(BOB, 2, 0);
    core.attach(BOB, 3, 0);
    assert_eq!(receipts(&core.ack_aside(BOB, 3, &[3], &[1, 3])), [(1, 2)]);
}

#[test]
fn setting_aside_what_was_never_sent_ends_the_feed() {
    let mut core = two_who_write();
    core.attach(BOB, 2, 0);
    let effects = core.ack_aside(BOB, 2, &[3], &[4]);
    let Effect::Ended { error, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(error.reason(), Reason::AckInvalid);
}

#[test]
fn mail_of_an_account_without_devices_waits_for_its_next_one() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    let facts = |version, devices| AccountFacts {
        account: BOB,
        handle: "bob".to_owned(),
        version,
        read_receipts: true,
        devices,
    };
    core.turn(Command::Facts { facts: facts(2, vec![]), ticket: None });
    core.send(1);
    // An older word of the directory that comes late changes nothing.
    core.introduce(BOB);
    core.turn(Command::Facts { facts: facts(3, vec![device(BOB)]), ticket: None });
    assert_eq!(delivered(&core.attach(BOB, 1, 0)), [1]);
}

#[test]
fn what_an_account_without_devices_could_not_keep_is_told_to_its_next_device() {
    let facts = |version, devices| {
        let facts =
            AccountFacts { account: BOB, handle: "bob".to_owned(), version, read_receipts: true, devices };
        Command::Facts { facts, ticket: None }
    };
    for restarts in [false, true] {
        let mut core = Core::new();
        core.introduce(ADA);
        core.introduce(BOB);
        core.turn(facts(2, vec![]));
        (1..=3).for_each(|number| drop(core.send(number)));
        core.turn(Command::Expire { account: BOB, upto: Position(2) });
        if restarts {
            core.state = State::new(ORIGIN, core.twin.reopen().1);
        }
        core.turn(facts(3, vec![device(BOB)]));
        let effects = core.attach(BOB, 1, 0);
        let gap = Effect::Gap { feed: feed(1), from: Position(1), upto: Position(2) };
        assert!(effects.contains(&gap), "{effects:?}");
        assert_eq!(delivered(&effects), [3]);
        // Once a device was told, the next one is not.
        core.ack(BOB, 1, 3);
        core.turn(facts(4, vec![]));
        core.turn(facts(5, vec![DeviceId([9; 16])]));
        let (feed, device) = (feed(1), DeviceId([9; 16]));
        let effects =
            core.turn(Command::Attach { feed, account: BOB, device, cursors: vec![], set_aside: vec![] });
        assert_eq!(effects, [Effect::CaughtUp { feed }]);
    }
}

fn stalls(effects: &[Effect]) -> Vec<(u64, bool)> {
    let stall = |effect: &Effect| match effect {
        Effect::Stalled { feed, stalled } => Some((feed.number, *stalled)),
        _ => None,
    };
    effects.iter().filter_map(stall).collect()
}

#[test]
fn a_live_feed_is_stalled_by_the_first_event_without_room_and_told_of_each_step_until_it_goes_on() {
    const WINDOW: u64 = FEED_WINDOW_EVENTS as u64;
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    core.attach(BOB, 1, 0);
    for number in 1..=WINDOW {
        assert_eq!(stalls(&core.send(number)), [], "it was written at once");
    }
    // A window may be full for ever while nothing waits.
    assert_eq!(stalls(&core.send(WINDOW + 1)), [(1, true)]);
    assert_eq!(stalls(&core.send(WINDOW + 2)), [], "that is no news");
    assert_eq!(stalls(&core.ack(BOB, 1, 1)), [(1, true)], "a step, and not enough");
    assert_eq!(stalls(&core.ack(BOB, 1, 1)), [], "no step");
    assert_eq!(stalls(&core.ack(BOB, 1, 2)), [(1, true)]);
    let effects = core.ack(BOB, 1, WINDOW / 4);
    assert_eq!(stalls(&effects), [(1, false)]);
    assert_eq!(delivered(&effects), [WINDOW + 1, WINDOW + 2]);
}

#[test]
fn a_backlog_larger_than_the_window_stalls_its_feed_until_the_last_stretch_is_read() {
    const WINDOW: u64 = FEED_WINDOW_EVENTS as u64;
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    for number in 1..=2 * WINDOW + 1 {
        core.send(number);
    }
    assert_eq!(stalls(&core.attach(BOB, 1, 0)), [(1, true)]);
    assert_eq!(stalls(&core.ack(BOB, 1, WINDOW)), [(1, false), (1, true)], "read on, and full again");
    assert_eq!(stalls(&core.ack(BOB, 1, WINDOW + 1)), [(1, true)]);
    let effects = core.ack(BOB, 1, 2 * WINDOW);
    assert_eq!((stalls(&effects), delivered(&effects)), (vec![(1, false)], vec![2 * WINDOW + 1]));
    assert_eq!(stalls(&core.ack(BOB, 1, 2 * WINDOW + 1)), []);
}

#[test]
fn a_newer_attach_begins_without_the_stall_of_the_older_one() {
    let mut core = Core::new();
    core.introduce(ADA);
    core.introduce(BOB);
    core.attach(BOB, 1, 0);
    for number in 1..=FEED_WINDOW_EVENTS as u64 + 1 {
        core.send(number);
    }
    // What the older one left is read again, fills the window again, and waits again.
    let effects = core.attach(BOB, 2, 0);
    assert_eq!(stalls(&effects), [(2, true)]);
    assert_eq!(stalls(&core.ack(BOB, 1, FEED_WINDOW_EVENTS as u64)), [], "of the older one nothing counts");
}
