//! What is too old to be held: told by the outbox, made a gap by the core.

use std::sync::mpsc;
use std::time::Duration;

use quail_core::{Command, Outcome, State};
use quail_protocol::id::{AccountId, Origin};

use super::*;
use crate::ops::clock::unix_ms;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

const DAY: Duration = Duration::from_secs(24 * 3600);

fn days_ago(days: u32) -> Stamp {
    Stamp::from_ms(unix_ms() - (DAY * days).as_millis() as u64)
}

#[test]
fn what_is_thirty_days_old_is_told_and_becomes_a_gap() {
    let directory = TempDir::new().unwrap();
    let options = OutboxOptions { expire_every: Duration::ZERO, ..OutboxOptions::default() };
    let Opened { mut engine, .. } = open_with(directory.path(), &options, &Arc::default());
    let (tell, told) = mpsc::sync_channel(64);
    engine.expiry().tell(Box::new(move |account, upto| {
        // Walks go on after the test has seen what it wants, and it must not be waited for.
        let _ = tell.try_send((account, upto));
    }));
    for (position, n, age) in [(1, 1, 40), (2, 2, 31), (3, 1, 31), (4, 3, 29), (5, 1, 29), (6, 2, 0)] {
        let event = Entry::Event { event: stamped(position, days_ago(age)), accounts: vec![account(n)] };
        let last_position = Position(position);
        engine.commit(Batch { entries: &[event], last_position, last_stamp: days_ago(age) }).unwrap();
    }
    engine.settle().unwrap();
    // One walk tells each account once.
    let mut expired: Vec<(AccountId, Position)> =
        (0..2).map(|_| told.recv_timeout(PATIENCE).expect("a walk over what is too old")).collect();
    expired.sort_unstable();
    assert_eq!(expired, [(account(1), Position(3)), (account(2), Position(2))]);
    drop(engine);

    // Told now, the core forgets the events and remembers that there is a gap.
    let Opened { mut engine, recovered, .. } = open(directory.path());
    assert_eq!(recovered.slots.len(), 6);
    let (mut state, mut outcome) = (State::new(Origin(1), recovered), Outcome::default());
    for (account, upto) in expired {
        state.decide(Command::Expire { account, upto }, unix_ms(), &mut outcome);
    }
    engine.commit(state.batch(&outcome.entries)).unwrap();
    engine.settle().unwrap();
    let upto = Position(6);
    let stretch = Stretch { after: Position::ZERO, upto, events_max: 10, bytes_max: usize::MAX };
    for (n, left) in [(1, vec![5]), (2, vec![6]), (3, vec![4])] {
        let events = engine.reader().read(account(n), stretch).unwrap();
        let positions: Vec<_> = events.iter().map(|event| event.position.0).collect();
        assert_eq!(positions, left, "of account {n}");
    }
    drop(engine);
    let mut recovered = open(directory.path()).recovered;
    recovered.collapsed.retain(|(_, upto)| *upto > Position::ZERO);
    recovered.collapsed.sort_unstable();
    assert_eq!(recovered.collapsed, [(account(1), Position(3)), (account(2), Position(2))]);
    assert_eq!(recovered.slots.len(), 3);
}
