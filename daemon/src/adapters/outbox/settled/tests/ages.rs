//! What is older than a stamp.

use super::*;
use crate::adapters::outbox::read::stand_in;
use crate::adapters::outbox::tests::stamped;
use crate::adapters::outbox::types::Settled;

/// Spills events into the outbox of an account; each has its position as its stamp.
fn put(store: &mut SettledStore, n: u64, positions: impl IntoIterator<Item = u64>) {
    let events = positions.into_iter().map(|position| stamped(position, Stamp(position))).collect();
    spill(store, n, AccountSpill { events, ..AccountSpill::default() });
}

fn spill(store: &mut SettledStore, n: u64, changed: AccountSpill) {
    let generation = store.mark().generation + 1;
    let accounts = vec![(account(n), changed)];
    store.spill(&Spill { mark: mark(generation, 10_000), accounts, ..Spill::default() }).unwrap();
}

fn older_than(store: &SettledStore, stamp: u64) -> Vec<(AccountId, u64)> {
    let mut older: Vec<_> = Settled::older_than(store, Stamp(stamp))
        .into_iter()
        .map(|(account, upto)| (account, upto.0))
        .collect();
    older.sort_unstable();
    older
}

fn sorted<const N: usize>(mut expected: [(AccountId, u64); N]) -> Vec<(AccountId, u64)> {
    expected.sort_unstable();
    expected.to_vec()
}

#[test]
fn each_account_is_told_up_to_its_last_event_that_is_older() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    assert_eq!(older_than(&store, 1_000), []);
    put(&mut store, 1, [10, 20, 30]);
    put(&mut store, 2, [15]);
    put(&mut store, 3, [40]);
    put(&mut store, 1, [50, 60]);
    for (stamp, expected) in [
        (10, vec![]),
        (11, sorted([(account(1), 10)])),
        (30, sorted([(account(1), 20), (account(2), 15)])),
        (51, sorted([(account(1), 50), (account(2), 15), (account(3), 40)])),
        (1_000, sorted([(account(1), 60), (account(2), 15), (account(3), 40)])),
    ] {
        assert_eq!(older_than(&store, stamp), expected, "older than {stamp}");
    }
    drop(store);
    let (store, _) = open(directory.path());
    assert_eq!(older_than(&store, 51), sorted([(account(1), 50), (account(2), 15), (account(3), 40)]));
}

#[test]
fn a_long_backlog_is_walked_to_its_first_event_that_is_not_older() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    // More than a step of the walk, in several chunks, with holes.
    for hundred in 0..15 {
        put(&mut store, 1, (1..=100).map(|n| 2 * (100 * hundred + n)));
    }
    for (stamp, upto) in [(3, 2), (4, 2), (5, 4), (513, 512), (515, 514), (2_001, 2_000), (9_999, 3_000)] {
        assert_eq!(older_than(&store, stamp), [(account(1), upto)], "older than {stamp}");
    }
}

#[test]
fn what_is_acknowledged_or_withdrawn_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    put(&mut store, 1, 1..=200);
    put(&mut store, 2, 1..=5);
    spill(&mut store, 1, AccountSpill { resolved: Position(150), ..AccountSpill::default() });
    spill(&mut store, 2, AccountSpill { withdrawn: vec![Position(5)], ..AccountSpill::default() });
    assert_eq!(older_than(&store, 150), sorted([(account(2), 4)]));
    assert_eq!(older_than(&store, 152), sorted([(account(1), 151), (account(2), 4)]));
    spill(&mut store, 2, AccountSpill { resolved: Position(4), ..AccountSpill::default() });
    assert_eq!(older_than(&store, 152), sorted([(account(1), 151)]));
}

#[test]
fn what_stands_for_something_lost_is_as_old_as_what_follows_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let lost = |from, upto| {
        let what = "by the test".to_owned();
        Arc::new(stand_in(&Lost {
            account: Some(account(1)),
            from: Position(from),
            upto: Position(upto),
            what,
        }))
    };
    let own = |position| stamped(position, Stamp(position));
    let events = vec![lost(1, 5), own(10), lost(11, 15), own(20), lost(21, 25)];
    spill(&mut store, 1, AccountSpill { events, ..AccountSpill::default() });
    for (stamp, expected) in [(10, vec![]), (11, vec![(account(1), 10)]), (21, vec![(account(1), 20)])] {
        assert_eq!(older_than(&store, stamp), expected, "older than {stamp}");
    }
}
