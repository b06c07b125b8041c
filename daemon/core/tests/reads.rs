//! What a mark of what was read comes to: whom it is told, what of it is true, and what is told of it again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::BTreeMap;

use prost::Message as _;
use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Outbox, TwinOutbox};
use quail_core::{
    Command, ConnectionId, Content, Effect, FeedId, Outcome, ReadCommand, SendCommand, State, ValidRead,
    ValidSend,
};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_protocol::v1::{self, Reason, ReceiptKind, event::Body, feed_down::Frame};

const NOW_MS: u64 = 1_700_000_000_000;
const ORIGIN: Origin = Origin(1);
const ADA: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);
const EVE: AccountId = AccountId([3; 16]);
const LAPTOP: DeviceId = DeviceId([10; 16]);
const PHONE: DeviceId = DeviceId([20; 16]);
const TABLET: DeviceId = DeviceId([21; 16]);
const SPY: DeviceId = DeviceId([30; 16]);

/// A receipt that a device was shown: to which device, of what kind, above which position, up to which.
type Shown = (DeviceId, ReceiptKind, u64, u64);

struct World {
    state: State,
    twin: TwinOutbox,
    number: u64,
    attaches: u64,
    version: u64,
    shown: Vec<Shown>,
    feeds: BTreeMap<DeviceId, FeedId>,
}

impl World {
    /// Ada with a laptop, Bob with phone and tablet, Eve; all are attached.
    fn new() -> Self {
        let twin = TwinOutbox::new();
        let state = State::new(ORIGIN, twin.reopen().1);
        let (shown, feeds) = (Vec::new(), BTreeMap::new());
        let mut world = Self { state, twin, number: 0, attaches: 0, version: 0, shown, feeds };
        world.introduce(true);
        for device in [LAPTOP, PHONE, TABLET, SPY] {
            world.attach(device);
        }
        world
    }

    fn introduce(&mut self, read_receipts: bool) {
        self.version += 1;
        for (account, devices) in [(ADA, vec![LAPTOP]), (BOB, vec![PHONE, TABLET]), (EVE, vec![SPY])] {
            let (handle, version) = ("someone".to_owned(), self.version);
            let facts = AccountFacts { account, handle, version, read_receipts, devices };
            self.turn(Command::Facts { facts, ticket: None });
        }
    }

    /// Decides a command, makes it durable, and returns the effects, with those that follow from reads of backlogs.
    fn turn(&mut self, command: Command) -> Vec<Effect> {
        let mut outcome = Outcome::default();
        self.state.decide(command, NOW_MS, &mut outcome);
        self.twin.commit(self.state.batch(&outcome.entries)).unwrap();
        let mut effects = Vec::new();
        for effect in outcome.after {
            match effect {
                Effect::Read { feed, account, device, stretch } => {
                    let events = self.twin.reader().read(account, stretch).unwrap();
                    effects.extend(self.turn(Command::Backlog { feed, account, device, events }));
                }
                Effect::Deliver { feed, ref event } => {
                    let down = v1::FeedDown::decode_length_delimited(event.frame.clone()).unwrap();
                    if let Some(Frame::Event(v1::Event { body: Some(Body::Receipt(receipt)), .. })) =
                        down.frame
                    {
                        let device = DeviceId([feed.connection.0 as u8; 16]);
                        self.shown.push((device, receipt.kind(), receipt.after, receipt.upto));
                    }
                    effects.push(effect);
                }
                other => effects.push(other),
            }
        }
        effects
    }

    fn attach(&mut self, device: DeviceId) {
        self.attaches += 1;
        let feed = FeedId { connection: ConnectionId(u64::from(device.0[0])), number: self.attaches };
        self.feeds.insert(device, feed);
        let cursors = vec![(ORIGIN, Position::ZERO)];
        self.turn(Command::Attach { feed, account: account(device), device, cursors, set_aside: vec![] });
    }

    fn detach(&mut self, device: DeviceId) {
        let connection = ConnectionId(u64::from(device.0[0]));
        self.turn(Command::Disconnected { connection, account: account(device), device });
    }

    fn send(&mut self) -> u64 {
        self.number += 1;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&NOW_MS.to_be_bytes()[2..]);
        (id[6], id[8]) = (0x70, 0x80);
        id[9..].copy_from_slice(&self.number.to_be_bytes()[1..]);
        let (id, content) = (MessageId(id), Content::text("hi"));
        let send = Ok(ValidSend { id, recipient: BOB, content, seen: Stamp(0) });
        let (connection, account, device, number) = (ConnectionId(10), ADA, LAPTOP, self.number);
        let effects = self.turn(Command::Send(SendCommand { connection, account, device, number, send }));
        let accepted = effects.iter().find_map(|effect| match effect {
            Effect::Accepted { accepted, .. } => Some(accepted.position.0),
            _ => None,
        });
        accepted.expect("it is accepted")
    }

    fn ack(&mut self, device: DeviceId, upto: u64) {
        let (feed, account) = (self.feeds[&device], account(device));
        self.turn(Command::Ack {
            feed,
            account,
            device,
            upto: vec![(ORIGIN, Position(upto))],
            set_aside: vec![],
        });
    }

    /// Says on a device that messages of Ada were read, and returns the answer.
    fn read(&mut self, device: DeviceId, after: u64, upto: u64) -> Option<Reason> {
        let feed = self.feeds[&device];
        let stretches = vec![(ORIGIN, Position(after), Position(upto))];
        let read = Ok(ValidRead { sender: ADA, stretches });
        let command = ReadCommand { feed, account: account(device), device, read };
        let effects = self.turn(Command::Read(command));
        let answers = effects.into_iter().filter_map(|effect| match effect {
            Effect::ReadAnswered { error, .. } => Some(error.map(|error| error.reason())),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1, "every mark has one answer");
        answers[0]
    }

    /// Returns the read receipts that were shown since it was asked last.
    fn told(&mut self) -> Vec<(DeviceId, u64, u64)> {
        let shown = std::mem::take(&mut self.shown).into_iter();
        let read = shown.filter(|(_, kind, ..)| *kind == ReceiptKind::Read);
        read.map(|(device, _, after, upto)| (device, after, upto)).collect()
    }

    fn restart(&mut self) {
        self.state = State::new(ORIGIN, self.twin.reopen().1);
        self.introduce(true);
    }
}

fn account(device: DeviceId) -> AccountId {
    match device {
        LAPTOP => ADA,
        SPY => EVE,
        _ => BOB,
    }
}

#[test]
fn the_sender_and_the_readers_other_devices_are_told_once() {
    let mut world = World::new();
    let position = world.send();
    world.ack(PHONE, position);
    assert_eq!(world.told(), [], "to acknowledge is not to read");
    assert_eq!(world.read(PHONE, position - 1, position), None);
    let stretch = |device| (device, position - 1, position);
    assert_eq!(world.told(), [stretch(LAPTOP), stretch(TABLET)]);
    assert_eq!(world.read(PHONE, position - 1, position), None, "said again");
    assert_eq!(world.read(TABLET, position - 1, position), None, "said by another device");
    assert_eq!(world.told(), []);
}

#[test]
fn what_no_device_has_acknowledged_is_not_read() {
    let mut world = World::new();
    let (first, second) = (world.send(), world.send());
    assert_eq!(world.read(PHONE, first - 1, first), Some(Reason::ReadInvalid), "not acknowledged");
    world.ack(PHONE, first);
    assert_eq!(world.read(PHONE, first - 1, second), None, "the rest is left out");
    assert_eq!(world.told(), [(LAPTOP, first - 1, first), (TABLET, first - 1, first)]);
    assert_eq!(world.read(PHONE, first, second), Some(Reason::ReadInvalid));
    let future = world.state.last_position().0 + 1;
    assert_eq!(world.read(PHONE, 0, future), Some(Reason::ReadInvalid), "never sent");
    assert_eq!(world.read(SPY, first - 1, first), Some(Reason::ReadInvalid), "nobody wrote to her");
    assert_eq!(world.told(), []);
}

#[test]
fn a_gap_is_not_read_whatever_is_said() {
    let mut world = World::new();
    let first = world.send();
    world.ack(PHONE, first);
    world.detach(PHONE);
    world.detach(TABLET);
    let lost = world.send();
    world.turn(Command::Expire { account: BOB, upto: Position(lost) });
    let last = world.send();
    world.attach(PHONE);
    world.ack(PHONE, last);
    world.told();
    assert_eq!(world.read(PHONE, 0, last), None);
    let told: Vec<_> = world.told().into_iter().filter(|(device, ..)| *device == LAPTOP).collect();
    let covers = |position| told.iter().any(|(_, after, upto)| (after + 1..=*upto).contains(&position));
    assert!(covers(first) && covers(last), "{told:?}");
    assert!(!covers(lost), "{told:?} covers {lost}");
}

#[test]
fn unseen_receipts_become_one_and_a_seen_one_is_not_changed() {
    let mut world = World::new();
    let positions: Vec<u64> = (0..4).map(|_| world.send()).collect();
    world.ack(PHONE, positions[3]);
    world.detach(LAPTOP);
    for pair in positions.windows(2) {
        assert_eq!(world.read(PHONE, pair[0] - 1, pair[1]), None);
    }
    world.told();
    world.attach(LAPTOP);
    assert_eq!(world.told(), [(LAPTOP, positions[0] - 1, positions[3])]);
    let next = world.send();
    world.ack(PHONE, next);
    world.told();
    assert_eq!(world.read(PHONE, positions[0] - 1, next), None);
    assert_eq!(world.told()[0], (LAPTOP, positions[3], next), "only what is new");
}

#[test]
fn who_does_not_want_it_tells_nobody_else_and_still_the_own_devices() {
    let mut world = World::new();
    let (first, second) = (world.send(), world.send());
    world.ack(PHONE, second);
    world.introduce(false);
    assert_eq!(world.read(PHONE, first - 1, first), None);
    assert_eq!(world.told(), [(TABLET, first - 1, first)]);
    world.introduce(true);
    assert_eq!(world.read(PHONE, first - 1, second), None);
    let expected = [(LAPTOP, first, second), (TABLET, first, second)];
    assert_eq!(world.told(), expected, "what was read in secret stays so");
}

#[test]
fn what_was_acknowledged_before_a_restart_can_be_read_after_it() {
    let mut world = World::new();
    let (first, second) = (world.send(), world.send());
    world.ack(PHONE, first);
    world.restart();
    world.attach(LAPTOP);
    world.attach(PHONE);
    assert_eq!(world.read(PHONE, first - 1, second), None);
    let told = world.told();
    assert!(told.contains(&(LAPTOP, first - 1, first)), "{told:?}");
    assert!(told.iter().all(|(_, _, upto)| *upto < second), "{told:?}: not acknowledged");
}
