//! Changes and replies at the core: who may say them, to whom they go, and that they keep every promise of a message.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

mod support;

use std::time::Duration;

use bytes::Bytes;
use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::Room;
use quail_core::{Accepted, Command, ConnectionId, Content, Effect, SendCommand, State, ValidSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, MessageRef, Position, Stamp};
use quail_protocol::v1::{self, BodyKind, Reason, changed::Change, event::Body, feed_down::Frame};
use support::{ADA, BOB, Core, LANE, NOW_MS, ORIGIN, device, feed, id, refused, text};

const EVE: AccountId = AccountId([5; 16]);
const PHONE: DeviceId = DeviceId([77; 16]);

/// Ada has two devices, Bob and Eve have one.
fn core() -> Core {
    let mut core = Core::new();
    let devices = vec![device(ADA), PHONE];
    let handle = "ada".to_owned();
    let facts = AccountFacts { account: ADA, handle, version: 1, read_receipts: true, devices };
    core.turn(Command::Facts { facts, ticket: None });
    core.introduce(BOB);
    core.introduce(EVE);
    core
}

fn attach_phone(core: &mut Core, number: u64) -> Vec<Effect> {
    let (feed, cursors, set_aside) = (feed(100 + number), Vec::new(), Vec::new());
    core.turn(Command::Attach { feed, account: ADA, device: PHONE, cursors, set_aside })
}

fn change(number: u64, content: Content) -> ValidSend {
    ValidSend { id: id(NOW_MS, number), content, ..text(BOB) }
}

fn edit(of: u64, text: &'static str) -> Content {
    let body = Bytes::from_static(text.as_bytes());
    Content::Edit { id: id(NOW_MS, of), kind: BodyKind::PlainText, body }
}

fn named(sender: AccountId, number: u64) -> MessageRef {
    MessageRef { sender, id: id(NOW_MS, number) }
}

fn accepted(effects: &[Effect]) -> Accepted {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Accepted { accepted, .. } => Some(*accepted),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing was accepted: {effects:?}"))
}

/// What was delivered: to which feed, at which position, what.
fn events(effects: &[Effect]) -> Vec<(u64, u64, Body)> {
    let event = |effect: &Effect| {
        let Effect::Deliver { feed, event } = effect else { return None };
        let down: v1::FeedDown = prost::Message::decode_length_delimited(event.frame.clone()).unwrap();
        let Some(Frame::Event(event)) = down.frame else { panic!("no event in the frame") };
        assert_eq!(event.origin, ORIGIN.0);
        Some((feed.number, event.position, event.body.unwrap()))
    };
    effects.iter().filter_map(event).collect()
}

fn changed(body: &Body) -> &v1::Changed {
    match body {
        Body::Changed(changed) => changed,
        other => panic!("expected a change, got {other:?}"),
    }
}

#[test]
fn a_change_goes_to_the_recipient_and_the_own_other_devices_under_the_senders_name() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    core.attach(ADA, 2, 0);
    attach_phone(&mut core, 1);
    let react = Content::React { message: named(BOB, 9), text: Bytes::from_static(b"+") };
    let all = [edit(1, "another"), Content::DeleteForAll { id: id(NOW_MS, 1) }, react];
    for (number, content) in (1..).zip(all) {
        let events = events(&core.say(number, change(100 + number, content.clone())));
        let mut feeds: Vec<_> = events.iter().map(|(feed, ..)| *feed).collect();
        feeds.sort_unstable();
        assert_eq!(feeds, [1, 101], "the device that said so has its answer");
        for (_, _, body) in &events {
            let changed = changed(body);
            // Nothing in an edit or a deletion names its sender, so nobody can name another one.
            assert_eq!((&changed.sender[..], &changed.recipient[..]), (&ADA.0[..], &BOB.0[..]));
            assert_eq!(changed.id, id(NOW_MS, 100 + number).to_bytes());
            match (&content, changed.change.as_ref().unwrap()) {
                (Content::Edit { id, body, .. }, Change::Edit(edit)) => {
                    assert_eq!((&edit.id, &edit.body), (&id.to_bytes(), body));
                }
                (Content::DeleteForAll { id }, Change::DeleteForAll(delete)) => {
                    assert_eq!(delete.id, id.to_bytes());
                }
                (Content::React { message, text }, Change::React(react)) => {
                    let expected = (message.sender.to_bytes(), message.id.to_bytes(), text.clone());
                    assert_eq!((react.sender.clone(), react.id.clone(), react.text.clone()), expected);
                }
                (sent, came) => panic!("{sent:?} came as {came:?}"),
            }
        }
    }
}

#[test]
fn what_is_deleted_for_me_never_goes_to_the_other_one() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    attach_phone(&mut core, 1);
    core.send(1);
    let hide = Content::DeleteForMe { message: named(BOB, 9) };
    let effects = core.say(2, change(2, hide.clone()));
    assert_eq!(accepted(&effects).position, Position(2));
    let to: Vec<_> = events(&effects).into_iter().map(|(feed, ..)| feed).collect();
    assert_eq!(to, [101], "the phone alone");
    // A device of Bob's that attaches anew finds nothing of it either.
    let again: Vec<_> =
        events(&core.attach(BOB, 2, 0)).into_iter().map(|(_, position, _)| position).collect();
    assert_eq!(again, [1]);
    // Bob's one device says so too: nobody is told, and it is accepted all the same.
    let send = Ok(ValidSend { id: id(NOW_MS, 3), recipient: ADA, content: hide, seen: Stamp(0) });
    let (connection, device, number) = (ConnectionId(7), device(BOB), 1);
    let effects = core.turn(Command::Send(SendCommand { connection, account: BOB, device, number, send }));
    assert_eq!(accepted(&effects).position, Position(3));
    assert!(events(&effects).is_empty());
}

#[test]
fn no_receipt_tells_of_what_was_deleted_for_me_and_one_tells_of_a_change() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    attach_phone(&mut core, 1);
    core.send(1);
    core.say(2, change(2, Content::DeleteForMe { message: named(ADA, 1) }));
    let receipts = |effects: &[Effect]| {
        let bodies = events(effects).into_iter().filter(|(feed, ..)| *feed == 101).map(|(.., body)| body);
        let receipt = |body| match body {
            Body::Receipt(receipt) => Some((receipt.after, receipt.upto)),
            _ => None,
        };
        bodies.filter_map(receipt).collect::<Vec<_>>()
    };
    assert_eq!(
        receipts(&core.ack(BOB, 1, 2)),
        [(0, 1)],
        "up to the message, and not up to what Bob never got"
    );
    // Position 3 is that receipt's own.
    let at = accepted(&core.say(3, change(3, edit(1, "another")))).position.0;
    assert_eq!(at, 4);
    let told = receipts(&core.ack(BOB, 1, at));
    assert!(told.len() == 1 && told[0].0 < at && told[0].1 == at, "{told:?}: the edit was delivered");
}

/// A receipt covers nothing that was given up, and a change behind it does not hide that.
#[test]
fn a_change_behind_a_message_that_was_given_up_does_not_make_it_delivered() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    attach_phone(&mut core, 1);
    core.send(1);
    core.say(2, change(2, edit(1, "another")));
    let effects = core.ack_aside(BOB, 1, &[2], &[1]);
    let receipt = events(&effects).into_iter().find_map(|(.., body)| match body {
        Body::Receipt(receipt) => Some((receipt.after, receipt.upto)),
        _ => None,
    });
    assert_eq!(receipt, Some((1, 2)));
}

#[test]
fn only_messages_of_the_conversation_can_be_named() {
    let mut core = core();
    let kind = BodyKind::PlainText;
    let react = |sender| Content::React { message: named(sender, 9), text: Bytes::from_static(b"+") };
    let hide = |sender| Content::DeleteForMe { message: named(sender, 9) };
    let reply = |sender| Content::Message { kind, body: "hi".into(), reply_to: Some(named(sender, 9)) };
    let mut number = 0;
    for make in [&react as &dyn Fn(AccountId) -> Content, &hide, &reply] {
        for sender in [ADA, BOB] {
            number += 1;
            accepted(&core.say(number, change(number, make(sender))));
        }
        assert_eq!(refused(&core.say(number + 1, change(100, make(EVE)))), Reason::TargetInvalid);
    }
    assert_eq!(core.state.last_position(), Position(number), "a refusal leaves nothing");
}

#[test]
fn what_is_too_old_is_not_deleted_for_all_and_what_was_accepted_stays_so() {
    let limit = 48 * 3_600_000;
    let delete = |number, minted| change(number, Content::DeleteForAll { id: id(minted, 1) });
    let mut core = core();
    let first = accepted(&core.say(1, delete(1, NOW_MS - limit)));
    assert_eq!(refused(&core.say(2, delete(2, NOW_MS - limit - 1))), Reason::TooLate);
    // Anything else may be said of it for ever.
    let old = id(NOW_MS - limit - 1, 1);
    let kind = BodyKind::PlainText;
    accepted(&core.say(2, change(3, Content::Edit { id: old, kind, body: "late".into() })));
    let message = MessageRef { sender: ADA, id: old };
    accepted(&core.say(3, change(4, Content::DeleteForMe { message })));
    // The same deletion comes again when it would be too late for a new one: it was decided, in whatever time.
    let state = std::mem::replace(&mut core.state, State::new(ORIGIN, core.twin.reopen().1));
    drop(state);
    let state = std::mem::replace(&mut core.state, State::new(ORIGIN, core.twin.reopen().1));
    core.state = state.with_delete_for_all(Duration::ZERO);
    for account in [ADA, BOB] {
        core.introduce(account);
    }
    let again = accepted(&core.say(1, delete(1, NOW_MS - limit)));
    assert_eq!((again.position, again.stamp), (first.position, first.stamp));
    assert_eq!(refused(&core.say(4, delete(5, NOW_MS - 1))), Reason::TooLate, "the operator's word holds");
    accepted(&core.say(5, delete(6, NOW_MS)));
}

#[test]
fn changes_and_messages_of_a_device_keep_their_order() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    let mut came = Vec::new();
    for number in 1..=10 {
        let effects = match number % 2 {
            0 => core.say(number, change(number, edit(number - 1, "another"))),
            _ => core.send(number),
        };
        came.extend(events(&effects).into_iter().filter(|(feed, ..)| *feed == 1));
    }
    let is_change = |body: &Body| matches!(body, Body::Changed(_));
    let order: Vec<_> = came.iter().map(|(_, position, body)| (*position, is_change(body))).collect();
    assert_eq!(order, (1..=10).map(|number| (number, number % 2 == 0)).collect::<Vec<_>>());
}

#[test]
fn a_change_that_is_sent_again_after_a_crash_is_the_same_change() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    core.send(1);
    let sent = change(2, edit(1, "another"));
    let first = accepted(&core.say(2, sent.clone()));
    core.state = State::new(ORIGIN, core.twin.reopen().1);
    for account in [ADA, BOB, EVE] {
        core.introduce(account);
    }
    let again = core.say(2, sent.clone());
    assert_eq!(accepted(&again), first);
    let renumbered = accepted(&core.say(7, sent.clone()));
    assert_eq!((renumbered.position, renumbered.stamp), (first.position, first.stamp));
    let positions: Vec<_> = events(&core.attach(BOB, 2, 0)).iter().map(|(_, at, _)| *at).collect();
    assert_eq!(positions, [1, 2], "once");
    // The same id with anything else is another change, or none.
    let id = sent.id;
    let others =
        [edit(1, "a third"), edit(3, "another"), Content::DeleteForAll { id }, Content::text("another")];
    for content in others {
        assert_eq!(refused(&core.say(8, ValidSend { content, ..sent.clone() })), Reason::IdReused);
    }
}

#[test]
fn a_reply_says_what_it_answers() {
    let mut core = core();
    core.attach(BOB, 1, 0);
    let reply_to = Some(named(BOB, 9));
    let kind = BodyKind::PlainText;
    let effects = core.say(1, change(1, Content::Message { kind, body: "yes".into(), reply_to }));
    let [(_, _, Body::Message(message))] = &events(&effects)[..] else { panic!("{effects:?}") };
    let named = message.reply_to.as_ref().unwrap();
    assert_eq!(MessageRef::try_from(named).unwrap(), MessageRef { sender: BOB, id: id(NOW_MS, 9) });
    assert_eq!(&message.body[..], b"yes");
}

#[test]
fn changes_are_refused_like_messages_where_there_is_no_room() {
    let mut core = core();
    core.state.set_room(Room::Full { retry_after: Duration::from_secs(1) });
    assert_eq!(refused(&core.say(1, change(1, edit(1, "another")))), Reason::Overloaded);
    // What is behind a temporary refusal waits for the restart, whatever it is.
    assert_eq!(refused(&core.send(2)), Reason::AfterRefused);
    core.state.set_room(Room::Open);
    core.turn(Command::Restart { connection: LANE });
    accepted(&core.say(1, change(1, edit(1, "another"))));
    let bad = ValidSend { id: MessageId([0; 16]), ..change(2, edit(1, "another")) };
    assert_eq!(refused(&core.say(2, bad)), Reason::IdInvalid);
}
