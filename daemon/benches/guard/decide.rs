//! What the core does for one message, from the send to the acknowledged receipt.

use bytes::Bytes;
use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::Recovered;
use quail_core::{Command, ConnectionId, Content, FeedId, Outcome, SendCommand, State, ValidSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Stamp};

const NOW_MS: u64 = 1_700_000_000_000;
const ORIGIN: Origin = Origin(1);
const ADA: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);

/// So short that its digest, in which valgrind shows no processor to be good, does not hide the rest.
static BODY: [u8; 16] = [b'x'; 16];

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
}

fn device(account: AccountId) -> DeviceId {
    DeviceId(account.0)
}

fn feed(account: AccountId) -> FeedId {
    FeedId { connection: ConnectionId(u64::from(account.0[0])), number: 1 }
}

pub(crate) fn cycle() -> Box<dyn FnMut()> {
    let mut pair = Pair::new();
    Box::new(move || {
        pair.send();
        pair.ack(BOB);
        pair.ack(ADA);
        assert_eq!(pair.state.unresolved(), 0, "a benchmark of refusals would be fast, and worth nothing");
        pair.outcome.entries.clear();
        pair.outcome.after.clear();
    })
}
