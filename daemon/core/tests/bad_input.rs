//! What the core does with what no honest client says: a typed refusal or a gap, and no effect on anybody.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

mod support;

use quail_core::ports::outbox::Note;
use quail_core::{Command, Content, Effect, ValidSend};
use quail_protocol::id::{AccountId, Position, Stamp};
use quail_protocol::limits::{ID_AGE_MAX, ID_AHEAD_MAX, SEEN_AHEAD_MAX};
use quail_protocol::v1::Reason;
use support::{ADA, BOB, Core, NOW_MS, ORIGIN, delivered, device, feed, id, refused, text};

const EVE: AccountId = AccountId([3; 16]);

fn core() -> Core {
    let mut core = Core::new();
    [ADA, BOB, EVE].into_iter().for_each(|account| core.introduce(account));
    core
}

fn accepted(effects: &[Effect]) -> Stamp {
    let accepted = |effect: &Effect| match effect {
        Effect::Accepted { accepted, .. } => Some(accepted.stamp),
        _ => None,
    };
    effects.iter().find_map(accepted).unwrap_or_else(|| panic!("expected to be accepted, got {effects:?}"))
}

/// What Ada was told to be delivered, as (reader, after, upto).
fn receipts(core: &mut Core) -> Vec<(AccountId, u64, u64)> {
    let number = 1_000 + core.state.last_position().0;
    let effects = core.attach(ADA, number, 0);
    let receipt = |effect: &Effect| match effect {
        Effect::Deliver { event, .. } => match event.note {
            Note::Receipt { account, after, upto } => Some((account, after.0, upto.0)),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(receipt).collect()
}

#[test]
fn ids_of_the_last_60_days_and_the_next_day_are_taken_and_others_not() {
    let mut core = core();
    let (age, ahead) = (ID_AGE_MAX.as_millis() as u64, ID_AHEAD_MAX.as_millis() as u64);
    let cases = [
        (NOW_MS - age - 1, false),
        (NOW_MS - age, true),
        (NOW_MS + ahead, true),
        (NOW_MS + ahead + 1, false),
    ];
    for (number, (minted, is_taken)) in (1..).zip(cases) {
        let before = core.state.last_position();
        let effects = core.say(number, ValidSend { id: id(minted, number), ..text(BOB) });
        if is_taken {
            accepted(&effects);
        } else {
            assert_eq!(refused(&effects), Reason::IdTime);
            assert_eq!(core.state.last_position(), before, "no effect");
        }
    }
    assert_eq!(core.state.unresolved(), 2);
}

#[test]
fn a_number_is_not_used_for_two_messages_nor_an_id_for_two_contents() {
    let mut core = core();
    let first = ValidSend { id: id(NOW_MS, 1), ..text(BOB) };
    accepted(&core.say(5, first.clone()));
    let other = ValidSend { content: Content::text("another"), ..first };
    let to_another = ValidSend { recipient: EVE, ..first };
    let another = ValidSend { id: id(NOW_MS, 2), ..text(BOB) };
    for (number, send, reason) in [
        (5, other.clone(), Reason::IdReused),
        (6, other, Reason::IdReused),
        (6, to_another, Reason::IdReused),
        (5, another.clone(), Reason::NumberReused),
        (4, another, Reason::NumberPassed),
    ] {
        assert_eq!(refused(&core.say(number, send)), reason);
    }
    assert_eq!((core.state.unresolved(), core.state.last_position()), (1, Position(1)));
}

#[test]
fn a_stamp_that_was_seen_is_merged_up_to_11_s_ahead_and_refused_beyond() {
    let mut core = core();
    let ahead = SEEN_AHEAD_MAX.as_millis() as u64;
    let beyond = Stamp::from_ms(NOW_MS + ahead + 1);
    let mut send = ValidSend { id: id(NOW_MS, 1), seen: beyond, ..text(BOB) };
    assert_eq!(refused(&core.say(1, send.clone())), Reason::Clock);
    send.seen = Stamp::from_ms(NOW_MS + ahead);
    let first = accepted(&core.say(1, send.clone()));
    assert!(first > send.seen, "it sorts behind what its sender had seen");
    // Who has seen nothing sorts behind it all the same: it was stored later.
    send = ValidSend { id: id(NOW_MS, 2), seen: Stamp(0), ..send };
    assert!(accepted(&core.say(2, send)) > first);
}

#[test]
fn acknowledging_what_was_never_sent_ends_the_feed_and_moves_nothing() {
    let mut core = core();
    core.send(1);
    assert_eq!(delivered(&core.attach(BOB, 1, 0)), [1]);
    let effects = core.ack(BOB, 1, 2);
    let [Effect::Ended { error, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(error.reason(), Reason::AckInvalid);
    assert_eq!(core.state.unresolved(), 1);
    assert_eq!(delivered(&core.attach(BOB, 2, 0)), [1], "it comes again");
    assert_eq!(receipts(&mut core), []);
}

#[test]
fn acknowledging_what_was_for_others_is_no_receipt_and_moves_nobody_else() {
    let mut core = core();
    (1..=3).for_each(|number| drop(core.send(number)));
    core.attach(EVE, 1, 0);
    core.ack(EVE, 1, 3);
    assert_eq!(core.state.unresolved(), 3, "all of it still waits for Bob");
    assert_eq!(receipts(&mut core), []);
    assert_eq!(delivered(&core.attach(BOB, 1, 0)), [1, 2, 3]);
    // What Bob has acknowledged is told, and no more.
    core.ack(BOB, 1, 2);
    assert_eq!(receipts(&mut core), [(BOB, 0, 2)]);
}

#[test]
fn a_cursor_of_another_device_counts_for_the_device_that_names_it_alone() {
    let mut core = core();
    (1..=3).for_each(|number| drop(core.send(number)));
    assert_eq!(delivered(&core.attach(BOB, 1, 0)), [1, 2, 3]);
    // Eve names Bob's cursor. Nothing is between it and hers.
    let effects = core.attach(EVE, 1, 3);
    assert_eq!(effects, [Effect::CaughtUp { feed: feed(1) }]);
    assert_eq!(core.state.unresolved(), 3);
    assert_eq!(receipts(&mut core), []);
    // A feed and a device of Bob's say nothing in Eve's mouth: the session says who she is.
    let forged = Command::Ack {
        feed: feed(1),
        account: EVE,
        device: device(BOB),
        upto: vec![(ORIGIN, Position(3))],
        set_aside: vec![],
    };
    assert_eq!(core.turn(forged), []);
    assert_eq!(core.state.unresolved(), 3);
}

#[test]
fn nobody_reads_the_feed_of_another_account() {
    let mut core = core();
    core.send(1);
    let cursors = vec![(ORIGIN, Position::ZERO)];
    let forged =
        Command::Attach { feed: feed(1), account: BOB, device: device(EVE), cursors, set_aside: vec![] };
    let effects = core.turn(forged);
    let [Effect::Ended { error, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(error.reason(), Reason::Unauthenticated);
    assert_eq!(delivered(&core.attach(EVE, 1, 0)), [0; 0]);
}

#[test]
fn a_cursor_from_the_future_is_a_gap_over_what_was_acknowledged_and_no_error() {
    let mut core = core();
    (1..=3).for_each(|number| drop(core.send(number)));
    core.attach(BOB, 1, 0);
    core.ack(BOB, 1, 2);
    let effects = core.attach(BOB, 2, 1_000);
    let gap = Effect::Gap { feed: feed(2), from: Position(1), upto: Position(2) };
    assert!(effects.contains(&gap), "{effects:?}");
    assert_eq!(delivered(&effects), [3], "what waits is delivered");
    assert_eq!(core.twin.reopen().1.devices.len(), 3);
}
