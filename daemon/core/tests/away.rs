//! What a device costs that stays away: nobody but itself anything, for its backlog becomes a gap, and it goes when it is
//! unlinked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Outbox, Stretch, TwinOutbox};
use quail_core::{
    Command, ConnectionId, Content, Effect, FeedId, OUTBOX_AGE_MAX, OUTBOX_EVENTS_MAX, Outcome, SendCommand,
    State, ValidSend,
};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_protocol::v1;

const NOW_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
const ORIGIN: Origin = Origin(1);
const ADA: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);
const LAPTOP: DeviceId = DeviceId([10; 16]);
/// Bob's devices: one that takes everything at once, and one that is off.
const PHONE: DeviceId = DeviceId([20; 16]);
const TABLET: DeviceId = DeviceId([21; 16]);

struct World {
    state: State,
    twin: TwinOutbox,
    now_ms: u64,
    number: u64,
    /// Position and time of each message.
    sent: Vec<(u64, u64)>,
    phone_took: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let twin = TwinOutbox::new();
        let state = State::new(ORIGIN, twin.reopen().1);
        let (sent, phone_took) = (Vec::new(), Vec::new());
        let mut world = Self { state, twin, now_ms: NOW_MS, number: 0, sent, phone_took };
        world.tell(ADA, 1, vec![LAPTOP]);
        world.tell(BOB, 1, vec![PHONE, TABLET]);
        world.attach(ADA, LAPTOP, 1);
        world.attach(BOB, PHONE, 1);
        world
    }

    /// Decides a command, makes it durable, and returns the effects, with those that follow from reads. Ada's laptop and
    /// Bob's phone acknowledge whatever they get.
    fn turn(&mut self, command: Command) -> Vec<Effect> {
        let mut outcome = Outcome::default();
        self.state.decide(command, self.now_ms, &mut outcome);
        self.twin.commit(self.state.batch(&outcome.entries)).unwrap();
        let mut effects = Vec::new();
        for effect in outcome.after {
            match effect {
                Effect::Read { feed, account, device, stretch } => {
                    let events = self.twin.reader().read(account, stretch).unwrap();
                    effects.extend(self.turn(Command::Backlog { feed, account, device, events }));
                }
                Effect::Deliver { feed: at, ref event } if at == feed(PHONE, 1) || at == feed(LAPTOP, 1) => {
                    let (account, device) = if at == feed(PHONE, 1) { (BOB, PHONE) } else { (ADA, LAPTOP) };
                    if device == PHONE {
                        self.phone_took.push(event.position.0);
                    }
                    let upto = vec![(ORIGIN, event.position)];
                    effects.push(effect);
                    effects.extend(self.turn(Command::Ack {
                        feed: at,
                        account,
                        device,
                        upto,
                        set_aside: Vec::new(),
                    }));
                }
                other => effects.push(other),
            }
        }
        effects
    }

    fn tell(&mut self, account: AccountId, version: u64, devices: Vec<DeviceId>) -> Vec<Effect> {
        let facts =
            AccountFacts { account, handle: "someone".to_owned(), version, read_receipts: true, devices };
        self.turn(Command::Facts { facts, ticket: None })
    }

    fn attach(&mut self, account: AccountId, device: DeviceId, number: u64) -> Vec<Effect> {
        let cursors = vec![(ORIGIN, Position::ZERO)];
        self.turn(Command::Attach {
            feed: feed(device, number),
            account,
            device,
            cursors,
            set_aside: Vec::new(),
        })
    }

    fn send(&mut self) {
        self.number += 1;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&self.now_ms.to_be_bytes()[2..]);
        (id[6], id[8]) = (0x70, 0x80);
        id[9..].copy_from_slice(&self.number.to_be_bytes()[1..]);
        let (id, content) = (MessageId(id), Content::text("hi"));
        let send = ValidSend { id, recipient: BOB, content, seen: Stamp(0) };
        let (connection, account, number) = (ConnectionId(1), ADA, self.number);
        let effects = self.turn(Command::Send(SendCommand {
            connection,
            account,
            device: LAPTOP,
            number,
            send: Ok(send),
        }));
        let accepted = effects.iter().find_map(|effect| match effect {
            Effect::Accepted { accepted, .. } => Some(accepted.position.0),
            _ => None,
        });
        self.sent.push((accepted.expect("absence never refuses a sender"), self.now_ms));
    }

    /// What the daemon does every hour: whatever is too old becomes a gap.
    fn expire(&mut self) {
        let oldest_ms = self.now_ms - OUTBOX_AGE_MAX.as_millis() as u64;
        if let Some((upto, _)) = self.sent.iter().rev().find(|(_, sent_ms)| *sent_ms < oldest_ms) {
            let effects = self.turn(Command::Expire { account: BOB, upto: Position(*upto) });
            assert_eq!(effects, [], "who is not behind is told nothing");
        }
    }

    /// Positions of the events that the store holds for Bob.
    fn stored(&self) -> Vec<u64> {
        let (after, upto) = (Position::ZERO, Position(i64::MAX as u64));
        let stretch = Stretch { after, upto, events_max: usize::MAX, bytes_max: usize::MAX };
        let events = self.twin.reader().read(BOB, stretch).unwrap();
        events.iter().map(|event| event.position.0).collect()
    }
}

fn feed(device: DeviceId, number: u64) -> FeedId {
    FeedId { connection: ConnectionId(u64::from(device.0[0])), number }
}

fn gaps(effects: &[Effect]) -> Vec<(u64, u64)> {
    let gap = |effect: &Effect| match effect {
        Effect::Gap { from, upto, .. } => Some((from.0, upto.0)),
        _ => None,
    };
    effects.iter().filter_map(gap).collect()
}

fn delivered(effects: &[Effect], to: FeedId) -> Vec<u64> {
    let position = |effect: &Effect| match effect {
        Effect::Deliver { feed, event } if *feed == to => Some(event.position.0),
        _ => None,
    };
    effects.iter().filter_map(position).collect()
}

#[test]
fn a_device_that_is_off_for_59_days_costs_nobody_else_anything() {
    const PER_DAY: usize = 8;
    let mut world = World::new();
    for day in 0..59 {
        (0..PER_DAY).for_each(|_| world.send());
        world.now_ms += DAY_MS;
        world.expire();
        // What waits is what is young enough, and the tablet's alone: every receipt was taken.
        let waits = world.sent.len().min(PER_DAY * 30);
        assert_eq!(world.state.unresolved(), waits, "day {day}");
        assert_eq!(world.stored().len(), waits, "day {day}");
    }
    let sent: Vec<_> = world.sent.iter().map(|(position, _)| *position).collect();
    assert_eq!(world.phone_took, sent, "the other device got everything, once and in order");

    // The tablet is told what it missed, and gets the last 30 days.
    let effects = world.attach(BOB, TABLET, 7);
    let young = &sent[sent.len() - PER_DAY * 30..];
    assert_eq!(gaps(&effects), [(1, sent[sent.len() - PER_DAY * 30 - 1])]);
    assert_eq!(delivered(&effects, feed(TABLET, 7)), young);
    let upto = vec![(ORIGIN, Position(*young.last().unwrap()))];
    world.turn(Command::Ack {
        feed: feed(TABLET, 7),
        account: BOB,
        device: TABLET,
        upto,
        set_aside: Vec::new(),
    });
    assert_eq!((world.state.unresolved(), world.stored()), (0, vec![]));
}

#[test]
fn a_device_that_is_off_holds_no_more_than_an_outbox() {
    let mut world = World::new();
    for _ in 0..OUTBOX_EVENTS_MAX + OUTBOX_EVENTS_MAX / 4 {
        world.send();
        assert!(world.state.unresolved() <= OUTBOX_EVENTS_MAX);
    }
    assert_eq!(world.stored().len(), world.state.unresolved(), "the store holds what the core knows of");
    assert_eq!(world.phone_took.len(), world.sent.len());
    assert_eq!(gaps(&world.attach(BOB, TABLET, 7)).len(), 1, "however often it was full");
}

#[test]
fn what_waited_for_an_unlinked_device_alone_is_gone_before_it_is_told() {
    let mut world = World::new();
    (0..50).for_each(|_| world.send());
    world.attach(BOB, TABLET, 7);
    assert_eq!(world.state.unresolved(), 50);

    let effects = world.tell(BOB, 2, vec![PHONE]);
    let told = |effect: &Effect| match effect {
        Effect::Ended { feed: at, error } => {
            assert_eq!((*at, error.reason()), (feed(TABLET, 7), v1::Reason::Unauthenticated));
            true
        }
        Effect::CloseDevice { device } => *device == TABLET,
        other => panic!("unexpected {other:?}"),
    };
    assert_eq!(effects.iter().filter(|effect| told(effect)).count(), 2, "{effects:?}");
    assert_eq!((world.state.unresolved(), world.stored()), (0, vec![]));

    // Its record is gone too: after a restart nothing waits for it, and what it sends is refused.
    world.state = State::new(ORIGIN, world.twin.reopen().1);
    world.tell(ADA, 1, vec![LAPTOP]);
    world.tell(BOB, 2, vec![PHONE]);
    world.attach(ADA, LAPTOP, 2);
    world.attach(BOB, PHONE, 2);
    world.send();
    let took = vec![(ORIGIN, Position(world.sent[50].0))];
    world.turn(Command::Ack {
        feed: feed(PHONE, 2),
        account: BOB,
        device: PHONE,
        upto: took,
        set_aside: Vec::new(),
    });
    assert_eq!(world.stored(), []);
    let late = world.turn(Command::Bound { account: BOB, device: TABLET });
    assert_eq!(late, [Effect::CloseDevice { device: TABLET }]);
}
