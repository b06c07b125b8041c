//! Whatever happens in whatever order, with crashes in between: what was accepted reaches every device once, in order, and
//! receipts say only what is true.
//!
//! A small world of devices drives the core through random operations over the in-memory outbox. A crash drops the effects
//! of a turn after its commit, or the whole turn before it. Devices keep what a real device keeps on disk: their counters,
//! their cursor, what they have taken.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use prost::Message as _;
use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Outbox, TwinOutbox};
use quail_core::{
    Accepted, Command, ConnectionId, Content, Effect, FeedId, Outcome, ReadCommand, SendCommand, State,
    ValidRead, ValidSend,
};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_protocol::v1::{self, ReceiptKind, event::Body, feed_down::Frame};

const NOW_MS: u64 = 1_700_000_000_000;
const ORIGIN: Origin = Origin(7);

/// Device `d` belongs to account `OWNERS[d]`.
const OWNERS: [usize; 4] = [0, 0, 1, 2];

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A device sends to an account.
    Send(usize, usize),
    /// A device sends its newest message again.
    Again(usize),
    Attach(usize),
    Detach(usize),
    /// A device takes so many events and acknowledges.
    Take(usize, usize),
    /// The same, but the acknowledgement is lost.
    TakeUnheard(usize, usize),
    /// A device acknowledges again all that it has taken, whether or not this feed brought it.
    AckAgain(usize),
    /// A device says that it has read the latest so many messages of an account, after it has acknowledged them.
    Mark(usize, usize, usize),
    /// Reads of backlogs come back.
    Read,
    /// The process dies after the commit of a send; its answer is never heard.
    DieAfterCommit(usize, usize),
    /// The process dies before the commit of a send.
    DieBeforeCommit(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (device, account, count) = (0..OWNERS.len(), 0..3_usize, 1..6_usize);
    prop_oneof![
        6 => (device.clone(), account.clone()).prop_map(|(d, a)| Op::Send(d, a)),
        2 => device.clone().prop_map(Op::Again),
        3 => device.clone().prop_map(Op::Attach),
        1 => device.clone().prop_map(Op::Detach),
        4 => (device.clone(), count.clone()).prop_map(|(d, n)| Op::Take(d, n)),
        1 => (device.clone(), count.clone()).prop_map(|(d, n)| Op::TakeUnheard(d, n)),
        4 => (device.clone(), account.clone(), count).prop_map(|(d, a, n)| Op::Mark(d, a, n)),
        2 => device.clone().prop_map(Op::AckAgain),
        4 => Just(Op::Read),
        1 => (device.clone(), account.clone()).prop_map(|(d, a)| Op::DieAfterCommit(d, a)),
        1 => (device, account).prop_map(|(d, a)| Op::DieBeforeCommit(d, a)),
    ]
}

fn account(n: usize) -> AccountId {
    AccountId([n as u8 + 1; 16])
}

fn device(n: usize) -> DeviceId {
    DeviceId([n as u8 + 100; 16])
}

fn message_id(device: usize, number: u64) -> MessageId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&NOW_MS.to_be_bytes()[2..]);
    (id[6], id[7], id[8]) = (0x70, device as u8, 0x80);
    id[12..].copy_from_slice(&(number as u32).to_be_bytes());
    MessageId(id)
}

/// What a device keeps and sees.
#[derive(Default)]
struct Device {
    next_number: u64,
    sent: BTreeMap<u64, usize>,
    accepted: BTreeMap<u64, Accepted>,
    attach_number: u64,
    feed: Option<FeedId>,
    cursor: u64,
    /// Written to the feed that is open, not yet taken.
    arrived: Vec<v1::Event>,
    arrived_upto: u64,
    taken: Vec<v1::Event>,
    /// Positions of the messages that it said were read, by sender.
    marked: BTreeSet<(usize, u64)>,
}

struct World {
    twin: TwinOutbox,
    state: State,
    devices: Vec<Device>,
    reads: Vec<Effect>,
    connections: u64,
}

impl World {
    fn new() -> Self {
        let twin = TwinOutbox::new();
        let state = State::new(ORIGIN, twin.reopen().1);
        let devices = OWNERS.iter().map(|_| Device { next_number: 1, ..Device::default() }).collect();
        let mut world = Self { twin, state, devices, reads: Vec::new(), connections: 0 };
        world.introduce();
        world
    }

    /// Tells the core the directory's facts, as the gateway does after a start.
    fn introduce(&mut self) {
        for a in 0..3 {
            let devices = (0..OWNERS.len()).filter(|d| OWNERS[*d] == a).map(device).collect();
            let facts = AccountFacts {
                account: account(a),
                handle: format!("account{a}"),
                version: 1,
                read_receipts: true,
                devices,
            };
            self.turn(Command::Facts { facts, ticket: None });
        }
    }

    fn turn(&mut self, command: Command) {
        let mut outcome = Outcome::default();
        self.state.decide(command, NOW_MS, &mut outcome);
        self.commit(&outcome);
        outcome.after.into_iter().for_each(|effect| self.release(effect));
    }

    fn commit(&mut self, outcome: &Outcome) {
        self.twin.commit(self.state.batch(&outcome.entries)).unwrap();
    }

    fn die(&mut self, command: Command, commit: bool) {
        let mut outcome = Outcome::default();
        self.state.decide(command, NOW_MS, &mut outcome);
        if commit {
            self.commit(&outcome);
        }
        self.state = State::new(ORIGIN, self.twin.reopen().1);
        self.reads.clear();
        self.devices.iter_mut().for_each(|device| device.feed = None);
        self.introduce();
    }

    fn on(&mut self, feed: FeedId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.feed == Some(feed))
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted { connection, accepted } => {
                // A publish lane is named by the number of its device here.
                let device = &mut self.devices[connection.0 as usize];
                let first = device.accepted.entry(accepted.number).or_insert(accepted);
                assert_eq!(*first, accepted, "the same send got another answer");
            }
            Effect::Deliver { feed, event } => {
                let down = v1::FeedDown::decode_length_delimited(event.frame.clone()).unwrap();
                let Some(Frame::Event(decoded)) = down.frame else { panic!("no event in the frame") };
                assert_eq!(decoded.position, event.position.0);
                let Some(device) = self.on(feed) else { return };
                assert!(
                    decoded.position > device.arrived_upto,
                    "not in order, or delivered twice on one feed"
                );
                device.arrived_upto = decoded.position;
                device.arrived.push(decoded);
            }
            Effect::Read { .. } => self.reads.push(effect),
            Effect::ReadAnswered { error, .. } => assert_eq!(error, None, "an honest mark was refused"),
            Effect::CaughtUp { .. } | Effect::Stalled { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    fn read(&mut self) {
        for read in std::mem::take(&mut self.reads) {
            let Effect::Read { feed, account, device, stretch } = read else {
                continue;
            };
            let events = self.twin.reader().read(account, stretch).unwrap();
            self.turn(Command::Backlog { feed, account, device, events });
        }
    }

    fn send(&mut self, d: usize, number: u64) -> Command {
        let recipient = account(self.devices[d].sent[&number]);
        let content = Content::text(format!("{d} {number}"));
        let send = ValidSend { id: message_id(d, number), recipient, content, seen: Stamp(0) };
        let (connection, device) = (ConnectionId(d as u64), device(d));
        Command::Send(SendCommand { connection, account: account(OWNERS[d]), device, number, send: Ok(send) })
    }

    fn send_new(&mut self, d: usize, to: usize) -> Command {
        let number = self.devices[d].next_number;
        self.devices[d].next_number += 1;
        self.devices[d].sent.insert(number, to);
        self.send(d, number)
    }

    /// Sends again, in order, all that was never answered.
    fn resend(&mut self, d: usize) {
        let device = &self.devices[d];
        let open: Vec<u64> =
            device.sent.keys().filter(|n| !device.accepted.contains_key(n)).copied().collect();
        for number in open {
            let command = self.send(d, number);
            self.turn(command);
        }
    }

    fn attach(&mut self, d: usize) {
        self.detach(d);
        self.connections += 1;
        let connection = ConnectionId(1000 + self.connections);
        let device = &mut self.devices[d];
        device.attach_number += 1;
        let feed = FeedId { connection, number: device.attach_number };
        device.feed = Some(feed);
        device.arrived.clear();
        device.arrived_upto = device.cursor;
        let cursors = vec![(ORIGIN, Position(device.cursor))];
        let (account, device) = (account(OWNERS[d]), crate::device(d));
        self.turn(Command::Attach { feed, account, device, cursors, set_aside: vec![] });
    }

    fn detach(&mut self, d: usize) {
        if let Some(FeedId { connection, .. }) = self.devices[d].feed.take() {
            self.turn(Command::Disconnected { connection, account: account(OWNERS[d]), device: device(d) });
        }
    }

    fn take(&mut self, d: usize, count: usize, heard: bool) {
        let device = &mut self.devices[d];
        let count = count.min(device.arrived.len());
        if device.feed.is_none() || count == 0 {
            return;
        }
        device.taken.extend(device.arrived.drain(..count));
        device.cursor = device.taken.last().map_or(0, |event| event.position);
        self.check_receipts();
        if heard {
            self.ack(d);
        }
    }

    fn ack(&mut self, d: usize) {
        let Some(feed) = self.devices[d].feed else { return };
        let upto = vec![(ORIGIN, Position(self.devices[d].cursor))];
        self.turn(Command::Ack {
            feed,
            account: account(OWNERS[d]),
            device: device(d),
            upto,
            set_aside: vec![],
        });
    }

    fn mark(&mut self, d: usize, sender: usize, count: usize) {
        if self.devices[d].feed.is_none() {
            self.attach(d);
        }
        self.ack(d);
        let positions: Vec<u64> = self.positions_taken(d, sender).collect();
        let first = positions.len().saturating_sub(count);
        let (Some(feed), Some(upto)) = (self.devices[d].feed, positions.last()) else { return };
        let before = first.checked_sub(1).map_or(positions[first] - 1, |before| positions[before]);
        let stretches = vec![(ORIGIN, Position(before), Position(*upto))];
        let read = Ok(ValidRead { sender: account(sender), stretches });
        self.devices[d].marked.extend(positions[first..].iter().map(|position| (sender, *position)));
        let (account, device) = (account(OWNERS[d]), device(d));
        self.turn(Command::Read(ReadCommand { feed, account, device, read }));
        self.check_receipts();
    }

    /// Positions of the messages of an account that a device has taken, rising.
    fn positions_taken(&self, d: usize, sender: usize) -> impl Iterator<Item = u64> {
        let wanted = move |event: &&v1::Event| match &event.body {
            Some(Body::Message(m)) => {
                m.sender == account(sender).to_bytes() && m.recipient == account(OWNERS[d]).to_bytes()
            }
            _ => false,
        };
        self.devices[d].taken.iter().filter(wanted).map(|event| event.position)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Send(d, to) => {
                // What was sent before and lost is sent again first: a device keeps its order.
                self.resend(d);
                let command = self.send_new(d, to);
                self.turn(command);
            }
            Op::Again(d) => {
                let newest = self.devices[d].next_number - 1;
                if newest > 0 {
                    self.resend(d);
                    let command = self.send(d, newest);
                    self.turn(command);
                }
            }
            Op::Attach(d) => self.attach(d),
            Op::Detach(d) => self.detach(d),
            Op::Take(d, count) => self.take(d, count, true),
            Op::TakeUnheard(d, count) => self.take(d, count, false),
            Op::AckAgain(d) => self.ack(d),
            Op::Mark(d, sender, count) => self.mark(d, sender, count),
            Op::Read => self.read(),
            Op::DieAfterCommit(d, to) => {
                self.resend(d);
                let command = self.send_new(d, to);
                self.die(command, true);
            }
            Op::DieBeforeCommit(d, to) => {
                self.resend(d);
                let command = self.send_new(d, to);
                self.die(command, false);
            }
        }
    }

    /// Lets everything that can still happen happen.
    fn settle(&mut self) {
        for d in 0..OWNERS.len() {
            self.resend(d);
            self.attach(d);
        }
        for _ in 0..1000 {
            self.read();
            for d in 0..OWNERS.len() {
                self.take(d, usize::MAX, true);
            }
            if self.reads.is_empty() && self.devices.iter().all(|device| device.arrived.is_empty()) {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Positions of messages between two accounts that some device of the recipient has taken.
    fn taken_by(&self, sender: usize, recipient: usize) -> BTreeSet<u64> {
        let devices = (0..OWNERS.len()).filter(|d| OWNERS[*d] == recipient);
        devices.flat_map(|d| self.positions_taken(d, sender)).collect()
    }

    /// Positions of messages between two accounts that some device of the recipient said were read.
    fn marked_by(&self, sender: usize, recipient: usize) -> BTreeSet<u64> {
        let devices = self.devices.iter().zip(OWNERS).filter(|(_, owner)| *owner == recipient);
        let marked = devices.flat_map(|(device, _)| &device.marked);
        marked.filter(|(of, _)| *of == sender).map(|(_, position)| *position).collect()
    }

    fn sent_between(&self, sender: usize, recipient: usize) -> BTreeSet<u64> {
        let devices = self.devices.iter().zip(OWNERS).filter(|(_, owner)| *owner == sender);
        let sends = devices.flat_map(|(device, _)| device.sent.iter().map(move |(n, to)| (device, n, *to)));
        sends
            .filter(|(_, _, to)| *to == recipient)
            .filter_map(|(d, n, _)| d.accepted.get(n))
            .map(|a| a.position.0)
            .collect()
    }

    /// A receipt that anybody has seen covers only what a device of that account has taken, and said to be read.
    fn check_receipts(&self) {
        for (device, owner) in self.devices.iter().zip(OWNERS) {
            for event in device.arrived.iter().chain(&device.taken) {
                let Some(Body::Receipt(receipt)) = &event.body else {
                    continue;
                };
                let reader = (0..3).find(|a| account(*a).to_bytes() == receipt.account).unwrap();
                let sender = (0..3).find(|a| account(*a).to_bytes() == receipt.sender).unwrap_or(owner);
                assert!(sender == owner || reader == owner, "a receipt between strangers");
                let covered = self.sent_between(sender, reader).into_iter();
                let covered: BTreeSet<u64> =
                    covered.filter(|p| (receipt.after + 1..=receipt.upto).contains(p)).collect();
                assert!(
                    covered.is_subset(&self.taken_by(sender, reader)),
                    "a receipt says more than is true"
                );
                let is_true = receipt.kind() == ReceiptKind::Delivered
                    || covered.is_subset(&self.marked_by(sender, reader));
                assert!(is_true, "read, though nobody said so");
            }
        }
    }

    fn check(&self) {
        for (d, owner) in OWNERS.into_iter().enumerate() {
            self.check_device(d, owner);
        }
        self.check_receipts();
        for (sender, recipient) in (0..3).flat_map(|s| (0..3).map(move |r| (s, r))) {
            let told = self.told_to(sender, recipient, ReceiptKind::Delivered);
            let sent = self.sent_between(sender, recipient);
            assert_eq!(told, sent, "delivered receipts of {sender} to {recipient}");
            let told = self.told_to(sender, recipient, ReceiptKind::Read);
            assert_eq!(told, self.marked_by(sender, recipient), "read receipts of {sender} to {recipient}");
        }
        for (d, owner) in OWNERS.into_iter().enumerate() {
            for sender in 0..3 {
                let of = |(from, position): &(usize, u64)| (*from == sender).then_some(*position);
                let mut knows: BTreeSet<u64> = self.devices[d].marked.iter().filter_map(of).collect();
                knows.extend(self.told_on(d, sender, owner, ReceiptKind::Read));
                assert_eq!(
                    knows,
                    self.marked_by(sender, owner),
                    "device {d} knows what was read of {sender}"
                );
            }
        }
        assert_eq!(self.state.unresolved(), 0, "everything was acknowledged, so nothing may be left");
    }

    fn check_device(&self, d: usize, owner: usize) {
        let device = &self.devices[d];
        let positions: Vec<u64> = device.taken.iter().map(|event| event.position).collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "shown twice or out of order: {positions:?}");
        let mut expected = BTreeMap::new();
        for (from, sender) in OWNERS.into_iter().enumerate() {
            for (number, to) in &self.devices[from].sent {
                let accepted = self.devices[from].accepted[number];
                let to_me = *to == owner;
                let from_my_other = sender == owner && from != d;
                if to_me || from_my_other {
                    expected.insert(accepted.position.0, message_id(from, *number));
                }
            }
        }
        let messages = device.taken.iter().filter_map(|event| match &event.body {
            Some(Body::Message(message)) => {
                Some((event.position, MessageId::try_from(&*message.id).unwrap()))
            }
            _ => None,
        });
        assert_eq!(messages.collect::<BTreeMap<_, _>>(), expected, "messages of device {d}");
        // One device's messages keep their order, in positions and in stamps.
        let accepted: Vec<_> = device.accepted.values().collect();
        assert!(accepted.is_sorted_by(|a, b| a.position < b.position && a.stamp < b.stamp));
    }

    /// What receipts of a kind that devices of the sender have taken cover.
    fn told_to(&self, sender: usize, recipient: usize, kind: ReceiptKind) -> BTreeSet<u64> {
        let devices = (0..OWNERS.len()).filter(|d| OWNERS[*d] == sender);
        devices.flat_map(|d| self.told_on(d, sender, recipient, kind)).collect()
    }

    /// What receipts of a kind that one device has taken cover, of messages between two accounts.
    fn told_on(&self, d: usize, sender: usize, recipient: usize, kind: ReceiptKind) -> BTreeSet<u64> {
        let is_of = |receipt: &&v1::Receipt| {
            let from = (0..3).find(|a| account(*a).to_bytes() == receipt.sender).unwrap_or(OWNERS[d]);
            receipt.kind() == kind && receipt.account == account(recipient).to_bytes() && from == sender
        };
        let receipts = self.devices[d].taken.iter().filter_map(|event| match &event.body {
            Some(Body::Receipt(receipt)) => Some(receipt).filter(is_of),
            _ => None,
        });
        let receipts: Vec<_> = receipts.collect();
        let is_told = |p: &u64| receipts.iter().any(|receipt| (receipt.after + 1..=receipt.upto).contains(p));
        self.sent_between(sender, recipient).into_iter().filter(is_told).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepted_reaches_every_device_once_in_order_and_receipts_are_true(ops in prop::collection::vec(op(), 0..80)) {
        let mut world = World::new();
        ops.into_iter().for_each(|op| world.apply(op));
        world.settle();
        world.check();
    }
}
