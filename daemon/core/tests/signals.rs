//! Whom a signal goes to, and what it leaves behind: nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Recovered, TwinOutbox};
use quail_core::{Command, ConnectionId, FeedId, Outcome, SignalCommand, State, UnreadCommand};
use quail_protocol::id::{AccountId, DeviceId, Origin};
use quail_protocol::v1::{self, signal::Body};

const ADA: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);
const LAPTOP: DeviceId = DeviceId([10; 16]);
const PHONE: DeviceId = DeviceId([20; 16]);
const TABLET: DeviceId = DeviceId([21; 16]);

fn decide(state: &mut State, command: Command) -> Outcome {
    let mut outcome = Outcome::default();
    state.decide(command, 1_700_000_000_000, &mut outcome);
    outcome
}

/// Ada with a laptop, Bob with a phone that is attached and a tablet that is not.
fn world() -> State {
    let recovered: Recovered = TwinOutbox::new().reopen().1;
    let mut state = State::new(Origin(1), recovered);
    tell(&mut state, 1, vec![LAPTOP]);
    let facts = AccountFacts {
        account: BOB,
        handle: "bob".to_owned(),
        version: 1,
        read_receipts: true,
        devices: vec![PHONE, TABLET],
    };
    decide(&mut state, Command::Facts { facts, ticket: None });
    for (account, device) in [(ADA, LAPTOP), (BOB, PHONE)] {
        let feed = feed(device);
        decide(&mut state, Command::Attach { feed, account, device, cursors: vec![], set_aside: vec![] });
    }
    state
}

fn tell(state: &mut State, version: u64, devices: Vec<DeviceId>) {
    let handle = "ada".to_owned();
    let facts = AccountFacts { account: ADA, handle, version, read_receipts: true, devices };
    decide(state, Command::Facts { facts, ticket: None });
}

fn feed(device: DeviceId) -> FeedId {
    FeedId { connection: ConnectionId(u64::from(device.0[0])), number: 1 }
}

/// Says that Ada is typing to an account and returns the feeds it goes to.
fn signal(state: &mut State, to: AccountId) -> Vec<FeedId> {
    let body = Body::Typing(v1::Typing { state: v1::TypingState::Started as i32 });
    let command = SignalCommand { account: ADA, device: LAPTOP, to, counter: 7, body };
    let last_position = state.last_position();
    let outcome = decide(state, Command::Signal(command));
    assert!(
        outcome.entries.is_empty() && outcome.after.is_empty(),
        "it is stored nowhere and waits for nothing"
    );
    assert_eq!(state.last_position(), last_position, "it has no position");
    for out in &outcome.signals {
        assert_eq!((&out.signal.account, out.from), (&ADA.to_bytes(), LAPTOP));
        assert_eq!((&out.signal.device, out.signal.counter), (&LAPTOP.to_bytes(), 7));
    }
    outcome.signals.into_iter().map(|out| out.feed).collect()
}

#[test]
fn a_signal_goes_to_the_devices_that_are_attached_now() {
    let mut state = world();
    assert_eq!(signal(&mut state, BOB), [feed(PHONE)]);
    let attach = Command::Attach {
        feed: feed(TABLET),
        account: BOB,
        device: TABLET,
        cursors: vec![],
        set_aside: vec![],
    };
    decide(&mut state, attach);
    assert_eq!(signal(&mut state, BOB), [feed(PHONE), feed(TABLET)]);
    for device in [PHONE, TABLET] {
        let connection = feed(device).connection;
        decide(&mut state, Command::Disconnected { connection, account: BOB, device });
    }
    assert_eq!(signal(&mut state, BOB), []);
}

#[test]
fn nobody_and_oneself_are_told_nothing() {
    let mut state = world();
    assert_eq!(signal(&mut state, AccountId([9; 16])), []);
    assert_eq!(signal(&mut state, ADA), []);
}

#[test]
fn a_device_that_was_removed_says_nothing_more() {
    let mut state = world();
    tell(&mut state, 2, vec![]);
    assert_eq!(signal(&mut state, BOB), []);
}

#[test]
fn what_is_unread_goes_to_the_accounts_own_devices_and_leaves_nothing_behind() {
    let mut state = world();
    let last_position = state.last_position();
    let unread = |account| UnreadCommand { account, peer: ADA, counter: 9, count: 3 };
    let outcome = decide(&mut state, Command::Unread(unread(BOB)));
    assert!(outcome.entries.is_empty() && outcome.after.is_empty());
    assert_eq!(state.last_position(), last_position);
    let [out] = &outcome.signals[..] else { panic!("one feed is attached: {:?}", outcome.signals) };
    assert_eq!((out.feed, out.from), (feed(PHONE), DeviceId(ADA.0)));
    assert_eq!((&out.signal.account, out.signal.device.len()), (&ADA.to_bytes(), 0));
    assert_eq!(out.signal.body, Some(Body::Unread(v1::Unread { count: 3 })));
    let nobody = decide(&mut state, Command::Unread(unread(AccountId([9; 16]))));
    assert!(nobody.signals.is_empty());
}
