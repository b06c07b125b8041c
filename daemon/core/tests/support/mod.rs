//! A core over its in-memory store, for tests that look at one decision.
#![allow(dead_code)] // Each test file uses its share.

use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Outbox, TwinOutbox};
use quail_core::{Command, ConnectionId, Content, Effect, FeedId, Outcome, SendCommand, State, ValidSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_protocol::v1::Reason;

pub(crate) const NOW_MS: u64 = 1_700_000_000_000;
pub(crate) const ORIGIN: Origin = Origin(1);
pub(crate) const ADA: AccountId = AccountId([1; 16]);
pub(crate) const BOB: AccountId = AccountId([2; 16]);
pub(crate) const LANE: ConnectionId = ConnectionId(1);

pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) twin: TwinOutbox,
}

impl Core {
    pub(crate) fn new() -> Self {
        let twin = TwinOutbox::new();
        Self { state: State::new(ORIGIN, twin.reopen().1), twin }
    }

    /// Decides a command, makes it durable, and returns the effects, with those that follow from reads.
    pub(crate) fn turn(&mut self, command: Command) -> Vec<Effect> {
        let mut outcome = Outcome::default();
        self.state.decide(command, NOW_MS, &mut outcome);
        self.twin.commit(self.state.batch(&outcome.entries)).unwrap();
        // What a read brings comes in a later turn.
        let (reads, mut effects): (Vec<_>, Vec<_>) =
            outcome.after.into_iter().partition(|effect| matches!(effect, Effect::Read { .. }));
        for read in reads {
            let Effect::Read { feed, account, device, stretch } = read else { continue };
            let events = self.twin.reader().read(account, stretch).unwrap();
            effects.extend(self.turn(Command::Backlog { feed, account, device, events }));
        }
        effects
    }

    pub(crate) fn introduce(&mut self, account: AccountId) {
        let devices = vec![device(account)];
        let facts =
            AccountFacts { account, handle: "someone".to_owned(), version: 1, read_receipts: true, devices };
        self.turn(Command::Facts { facts, ticket: None });
    }

    /// Ada writes to Bob.
    pub(crate) fn send(&mut self, number: u64) -> Vec<Effect> {
        self.say(number, ValidSend { id: id(NOW_MS, number), ..text(BOB) })
    }

    /// Ada's device sends.
    pub(crate) fn say(&mut self, number: u64, send: ValidSend) -> Vec<Effect> {
        let (connection, account, device) = (LANE, ADA, device(ADA));
        self.turn(Command::Send(SendCommand { connection, account, device, number, send: Ok(send) }))
    }

    pub(crate) fn attach(&mut self, account: AccountId, number: u64, cursor: u64) -> Vec<Effect> {
        self.attach_aside(account, number, cursor, &[])
    }

    pub(crate) fn attach_aside(
        &mut self,
        account: AccountId,
        number: u64,
        cursor: u64,
        aside: &[u64],
    ) -> Vec<Effect> {
        let (feed, cursors) = (feed(number), vec![(ORIGIN, Position(cursor))]);
        let set_aside = positions(aside);
        self.turn(Command::Attach { feed, account, device: device(account), cursors, set_aside })
    }

    pub(crate) fn ack(&mut self, account: AccountId, number: u64, upto: u64) -> Vec<Effect> {
        self.ack_aside(account, number, &[upto], &[])
    }

    pub(crate) fn ack_aside(
        &mut self,
        account: AccountId,
        number: u64,
        upto: &[u64],
        aside: &[u64],
    ) -> Vec<Effect> {
        let (feed, upto, set_aside) = (feed(number), positions(upto), positions(aside));
        self.turn(Command::Ack { feed, account, device: device(account), upto, set_aside })
    }
}

fn positions(positions: &[u64]) -> Vec<(Origin, Position)> {
    positions.iter().map(|position| (ORIGIN, Position(*position))).collect()
}

pub(crate) fn device(account: AccountId) -> DeviceId {
    DeviceId(account.0)
}

pub(crate) fn feed(number: u64) -> FeedId {
    FeedId { connection: ConnectionId(100 + number), number }
}

pub(crate) fn refused(effects: &[Effect]) -> Reason {
    match effects {
        [Effect::Refused { error, .. }] => error.reason(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(crate) fn delivered(effects: &[Effect]) -> Vec<u64> {
    let position = |effect: &Effect| match effect {
        Effect::Deliver { event, .. } => Some(event.position.0),
        _ => None,
    };
    effects.iter().filter_map(position).collect()
}

/// A message id of version 7 that was minted at a time.
pub(crate) fn id(unix_ms: u64, number: u64) -> MessageId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    (id[6], id[8]) = (0x70, 0x80);
    id[9..].copy_from_slice(&number.to_be_bytes()[1..]);
    MessageId(id)
}

/// A message.
pub(crate) fn text(recipient: AccountId) -> ValidSend {
    ValidSend { id: id(NOW_MS, 0), recipient, content: Content::text("hi"), seen: Stamp(0) }
}
