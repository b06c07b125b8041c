//! What the core does when the wall clock steps: an hour back, and years ahead and back again. Stamps rise all the same, over
//! restarts too, and what a wrong clock makes impossible is refused with the reason that names it.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_core::ports::directory::AccountFacts;
use quail_core::ports::outbox::{Outbox, TwinOutbox};
use quail_core::{Command, ConnectionId, Content, Effect, Outcome, SendCommand, State, ValidSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Stamp};
use quail_protocol::v1::Reason;

const TODAY_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;
const ADA: AccountId = AccountId([1; 16]);

/// One account that writes to itself, and a clock that is set by hand.
struct Core {
    state: State,
    twin: TwinOutbox,
    now_ms: u64,
    sends: u64,
}

impl Core {
    fn new() -> Self {
        let twin = TwinOutbox::new();
        let mut core =
            Self { state: State::new(Origin(1), twin.reopen().1), twin, now_ms: TODAY_MS, sends: 0 };
        core.introduce();
        core
    }

    fn restart(&mut self) {
        self.state = State::new(Origin(1), self.twin.reopen().1);
        self.introduce();
    }

    fn introduce(&mut self) {
        let facts = AccountFacts {
            account: ADA,
            handle: "ada".to_owned(),
            version: 1,
            read_receipts: true,
            devices: vec![DeviceId(ADA.0)],
        };
        self.turn(Command::Facts { facts, ticket: None });
    }

    fn turn(&mut self, command: Command) -> Vec<Effect> {
        let mut outcome = Outcome::default();
        self.state.decide(command, self.now_ms, &mut outcome);
        self.twin.commit(self.state.batch(&outcome.entries)).unwrap();
        outcome.after
    }

    /// Sends a message that a device minted by its own clock, having seen a stamp, on a lane of its own.
    fn send(&mut self, minted_ms: u64, seen: Stamp) -> Result<Stamp, Reason> {
        self.sends += 1;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&minted_ms.to_be_bytes()[2..]);
        (id[6], id[8]) = (0x70, 0x80);
        id[9..].copy_from_slice(&self.sends.to_be_bytes()[1..]);
        let (id, content) = (MessageId(id), Content::text("hi"));
        let send = ValidSend { id, recipient: ADA, content, seen };
        let (connection, device) = (ConnectionId(self.sends), DeviceId(ADA.0));
        let command = SendCommand { connection, account: ADA, device, number: self.sends, send: Ok(send) };
        let answers = self.turn(Command::Send(command)).into_iter().filter_map(|effect| match effect {
            Effect::Accepted { accepted, .. } => Some(Ok(accepted.stamp)),
            Effect::Refused { error, .. } => Some(Err(error.reason())),
            _ => None,
        });
        answers.last().unwrap()
    }
}

#[test]
fn a_clock_that_goes_back_an_hour_stops_no_message_and_no_stamp() {
    let mut core = Core::new();
    let before = core.send(TODAY_MS, Stamp(0)).unwrap();
    core.now_ms -= HOUR_MS;
    // The devices' clocks are right, and they have seen what was stamped before.
    let after = core.send(TODAY_MS + 1, before).unwrap();
    assert!(after > before);
    core.restart();
    let restarted = core.send(TODAY_MS + 2, after).unwrap();
    assert!(restarted > after);
    core.now_ms = TODAY_MS + HOUR_MS;
    let right_again = core.send(TODAY_MS + HOUR_MS, restarted).unwrap();
    assert_eq!(right_again, Stamp::from_ms(TODAY_MS + HOUR_MS));
}

#[test]
fn a_clock_that_stands_years_ahead_refuses_by_name_and_is_lived_down() {
    let mut core = Core::new();
    let before = core.send(TODAY_MS, Stamp(0)).unwrap();
    core.now_ms = TODAY_MS + 5 * YEAR_MS;
    // To this clock every device is years late.
    assert_eq!(core.send(TODAY_MS, before), Err(Reason::IdTime));
    let ahead = core.send(core.now_ms, before).unwrap();
    assert_eq!(ahead, Stamp::from_ms(core.now_ms));
    // Corrected: what was stamped meanwhile stays, and all that follows comes after it.
    core.now_ms = TODAY_MS + HOUR_MS;
    core.restart();
    assert_eq!(core.send(TODAY_MS + 5 * YEAR_MS, ahead), Err(Reason::IdTime));
    let corrected = core.send(TODAY_MS + HOUR_MS, ahead).unwrap();
    assert!(corrected > ahead);
    assert!(core.send(TODAY_MS + HOUR_MS, Stamp(0)).unwrap() > corrected);
}

#[test]
fn a_device_that_has_seen_the_future_is_refused_and_changes_nothing() {
    let mut core = Core::new();
    let before = core.send(TODAY_MS, Stamp(0)).unwrap();
    let future = Stamp::from_ms(TODAY_MS + YEAR_MS);
    assert_eq!(core.send(TODAY_MS, future), Err(Reason::Clock));
    let after = core.send(TODAY_MS, Stamp(0)).unwrap();
    assert!(after > before && after < Stamp::from_ms(TODAY_MS + 1));
}
