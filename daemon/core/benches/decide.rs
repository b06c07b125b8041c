//! What deciding costs, without disk and network: messages between two attached devices, from the send to the receipt.
//!
//! The state goes on from round to round as a daemon's does; a round leaves the outboxes empty.
#![allow(missing_docs)] // The macros of criterion make public items.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::Recovered;
use quail_core::{Command, ConnectionId, Content, Effect, FeedId, Outcome, SendCommand, State, ValidSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

const NOW_MS: u64 = 1_700_000_000_000;
const ORIGIN: Origin = Origin(1);
const ADA: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);

/// How many sends a turn has when the daemon is busy.
const BATCH: u64 = 64;

/// A short text message; most are.
static BODY: [u8; 256] = [b'x'; 256];

/// Two accounts with an attached device each.
struct Pair {
    state: State,
    number: u64,
    outcome: Outcome,
}

impl Pair {
    fn new() -> Self {
        let state = State::new(ORIGIN, Recovered::default());
        let mut pair = Self { state, number: 0, outcome: Outcome::default() };
        for account in [ADA, BOB] {
            let devices = vec![device(account)];
            let facts = AccountFacts {
                account,
                handle: "someone".to_owned(),
                version: 1,
                read_receipts: true,
                devices,
            };
            pair.decide(Command::Facts { facts, ticket: None });
        }
        for account in [ADA, BOB] {
            let (feed, device) = (feed(account), device(account));
            pair.decide(Command::Attach {
                feed,
                account,
                device,
                cursors: Vec::new(),
                set_aside: Vec::new(),
            });
        }
        // An attach reads the backlog; there is none.
        for account in [ADA, BOB] {
            let (feed, device) = (feed(account), device(account));
            pair.decide(Command::Backlog { feed, account, device, events: Vec::new() });
        }
        pair.outcome = Outcome::default();
        pair
    }

    fn decide(&mut self, command: Command) {
        self.state.decide(command, NOW_MS, &mut self.outcome);
    }

    fn send(&mut self) {
        self.number += 1;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&NOW_MS.to_be_bytes()[2..]);
        (id[6], id[8]) = (0x70, 0x80);
        id[9..].copy_from_slice(&self.number.to_be_bytes()[1..]);
        let send = ValidSend {
            id: MessageId(id),
            recipient: BOB,
            content: Content::text(Bytes::from_static(&BODY)),
            seen: Stamp(0),
        };
        let (connection, account, device) = (feed(ADA).connection, ADA, device(ADA));
        let send = SendCommand { connection, account, device, number: self.number, send: Ok(send) };
        self.decide(Command::Send(send));
    }

    fn ack(&mut self, account: AccountId) {
        let (feed, device) = (feed(account), device(account));
        let upto = vec![(ORIGIN, self.state.last_position())];
        self.decide(Command::Ack { feed, account, device, upto, set_aside: Vec::new() });
    }

    /// So many messages to the other one, who acknowledges them together; the sender acknowledges the receipt.
    fn round(&mut self, sends: u64) -> Outcome {
        (0..sends).for_each(|_| self.send());
        self.ack(BOB);
        self.ack(ADA);
        std::mem::take(&mut self.outcome)
    }
}

fn device(account: AccountId) -> DeviceId {
    DeviceId(account.0)
}

fn feed(account: AccountId) -> FeedId {
    FeedId { connection: ConnectionId(u64::from(account.0[0])), number: 1 }
}

/// A benchmark of refusals would be fast, and worth nothing.
fn check(pair: &mut Pair) {
    let outcome = pair.round(BATCH);
    let delivered = outcome.after.iter().filter(|effect| matches!(effect, Effect::Deliver { .. })).count();
    let last = pair.state.last_position();
    assert_eq!(delivered as u64, BATCH + 1, "every message, and one receipt");
    assert_eq!((last, pair.state.unresolved()), (Position(BATCH + 1), 0));
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for (name, sends) in [("one send with its ack", 1), ("64 sends with one ack", BATCH)] {
        let mut pair = Pair::new();
        check(&mut pair);
        group.throughput(Throughput::Elements(sends));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(pair.round(sends))));
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
