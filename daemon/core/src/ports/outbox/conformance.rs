//! What every outbox must do, as checks that the twin and each adapter pass.
//!
//! Each check starts from an empty store and states one promise; a store that breaks it panics with the promise's name.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A conformance suite is test code that lives in the library.

use bytes::Bytes;
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use std::sync::Arc;

use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::{
    BacklogReader, Batch, DeviceRecord, Entry, Note, Outbox, RecentSend, Recovered, Slot, StoredEvent,
    Stretch,
};

/// How a check opens the store under test.
pub trait Fixture {
    /// The store.
    type Store: Outbox;

    /// Opens the fixture's store: empty the first time, with what was committed after that. The store opened before has
    /// been dropped.
    fn open(&mut self) -> (Self::Store, Recovered);
}

/// Runs every check; `make` returns a fixture with an empty store.
pub fn check<F: Fixture>(make: impl Fn() -> F) {
    empty_store_recovers_nothing(make());
    committed_events_are_read_in_order_after_reopen(make());
    reads_stop_at_their_limits_but_return_one(make());
    resolved_events_are_gone(make());
    device_records_are_replaced_and_dropped(make());
    send_windows_keep_the_newest(make());
    collapse_is_remembered(make());
    one_event_for_many_accounts_is_one_each(make());
    large_frames_come_back_whole(make());
    a_reader_sees_what_is_committed_later(make());
    reads_end_where_they_are_told_to(make());
    one_event_is_withdrawn_and_its_neighbours_stay(make());
    a_sync_covers_every_batch_before_it(make());
}

/// Returns an account of a test.
pub fn account(n: u8) -> AccountId {
    AccountId([n; 16])
}

/// Returns a device of a test.
pub fn device(n: u8) -> DeviceId {
    DeviceId([n; 16])
}

/// Returns an event of a test at `position` with a frame of `len` bytes.
pub fn event(position: u64, len: usize) -> Arc<StoredEvent> {
    let note = match position % 2 {
        0 => Note::Message { sender: account(1), device: device(1), recipient: account(2) },
        _ => Note::Receipt { account: account(3), after: Position(1), upto: Position(position) },
    };
    Arc::new(StoredEvent {
        position: Position(position),
        note,
        frame: Bytes::from(vec![position as u8; len]),
    })
}

fn commit(store: &mut impl Outbox, last_position: u64, entries: &[Entry]) {
    let last_stamp = Stamp(last_position * 10);
    store.commit(Batch { entries, last_position: Position(last_position), last_stamp }).unwrap();
}

fn put(n: u8, position: u64) -> Entry {
    Entry::Event { event: event(position, 10), accounts: vec![account(n)].into() }
}

fn sent(n: u8, number: u64) -> Entry {
    let send = RecentSend {
        number,
        id: MessageId([number as u8; 16]),
        digest: [7; 16],
        position: Position(number),
        stamp: Stamp(number),
    };
    Entry::Sent { device: device(n), send }
}

/// Returns the stretch of everything above a position, within limits.
pub fn above(after: u64, events_max: usize, bytes_max: usize) -> Stretch {
    Stretch { after: Position(after), upto: Position(u64::MAX), events_max, bytes_max }
}

fn positions(reader: &dyn BacklogReader, n: u8, after: u64) -> Vec<u64> {
    let events = reader.read(account(n), above(after, 1000, usize::MAX)).unwrap();
    events.iter().map(|event| event.position.0).collect()
}

fn empty_store_recovers_nothing(mut fixture: impl Fixture) {
    let (store, recovered) = fixture.open();
    assert_eq!(recovered, Recovered::default());
    assert!(positions(&*store.reader(), 1, 0).is_empty());
}

fn committed_events_are_read_in_order_after_reopen(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(&mut store, 3, &[put(1, 1), put(2, 2), put(1, 3)]);
    commit(&mut store, 300, &[put(1, 300)]);
    drop(store);
    let (store, recovered) = fixture.open();
    assert_eq!(recovered.last_position, Position(300));
    assert_eq!(recovered.last_stamp, Stamp(3000));
    let slot = |position| Slot { position: Position(position), bytes: 10 };
    let mut slots = recovered.slots;
    slots.sort_by_key(|(account, slot)| (*account, slot.position));
    assert_eq!(
        slots,
        [(account(1), slot(1)), (account(1), slot(3)), (account(1), slot(300)), (account(2), slot(2))]
    );
    assert_eq!(positions(&*store.reader(), 1, 0), [1, 3, 300]);
    assert_eq!(positions(&*store.reader(), 1, 1), [3, 300]);
    assert_eq!(event(3, 10), store.reader().read(account(1), above(1, 1, 1000)).unwrap()[0]);
}

fn reads_stop_at_their_limits_but_return_one(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(&mut store, 3, &[put(1, 1), put(1, 2), put(1, 3)]);
    let reader = store.reader();
    let read = |events, bytes| reader.read(account(1), above(0, events, bytes)).unwrap().len();
    assert_eq!(read(2, 1000), 2);
    assert_eq!(read(10, 20), 2);
    assert_eq!(read(10, 29), 2);
    assert_eq!(read(10, 1), 1);
}

fn resolved_events_are_gone(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(&mut store, 3, &[put(1, 1), put(1, 2), put(1, 3)]);
    commit(&mut store, 3, &[Entry::Resolved { account: account(1), upto: Position(2) }]);
    assert_eq!(positions(&*store.reader(), 1, 0), [3]);
    // Put and withdrawn in one batch: never seen again.
    commit(&mut store, 4, &[put(1, 4), Entry::Withdrawn { account: account(1), position: Position(4) }]);
    drop(store);
    let (store, recovered) = fixture.open();
    assert_eq!(positions(&*store.reader(), 1, 0), [3]);
    assert_eq!(recovered.slots.len(), 1);
    assert_eq!(recovered.last_position, Position(4));
}

fn device_records_are_replaced_and_dropped(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    let record = |n| DeviceRecord { cursor: Position(n), acked: Position(n / 2), attach_number: n };
    let write = |d, n| Entry::Device { account: account(1), device: device(d), record: record(n) };
    commit(&mut store, 1, &[write(1, 4), write(2, 5), sent(2, 1)]);
    commit(&mut store, 1, &[write(1, 8), Entry::DeviceGone { account: account(1), device: device(2) }]);
    drop(store);
    let (_, recovered) = fixture.open();
    assert_eq!(recovered.devices, [(account(1), device(1), record(8))]);
    assert_eq!(recovered.sends, []);
}

fn send_windows_keep_the_newest(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    let over = 5;
    let last = (SENDS_UNANSWERED_MAX + over) as u64;
    let all: Vec<_> = (1..=(SENDS_UNANSWERED_MAX + over) as u64).map(|number| sent(1, number)).collect();
    commit(&mut store, last, &all[..100]);
    commit(&mut store, last, &all[100..]);
    commit(&mut store, last, &[sent(2, 1)]);
    drop(store);
    let (_, recovered) = fixture.open();
    let numbers = |n| {
        let of_device = recovered.sends.iter().filter(|(owner, _)| *owner == device(n));
        of_device.map(|(_, send)| send.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(1), (over as u64 + 1..=(SENDS_UNANSWERED_MAX + over) as u64).collect::<Vec<_>>());
    assert_eq!(numbers(2), [1]);
    let Entry::Sent { send, .. } = sent(2, 1) else { unreachable!() };
    assert!(recovered.sends.contains(&(device(2), send)));
}

fn collapse_is_remembered(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(&mut store, 9, &[Entry::Collapsed { account: account(1), upto: Position(5) }]);
    commit(&mut store, 9, &[Entry::Collapsed { account: account(1), upto: Position(9) }]);
    drop(store);
    assert_eq!(fixture.open().1.collapsed, [(account(1), Position(9))]);
}

fn one_event_for_many_accounts_is_one_each(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(
        &mut store,
        1,
        &[Entry::Event { event: event(1, 10), accounts: vec![account(1), account(2)].into() }],
    );
    commit(&mut store, 1, &[Entry::Resolved { account: account(1), upto: Position(1) }]);
    assert_eq!(positions(&*store.reader(), 1, 0), []);
    assert_eq!(positions(&*store.reader(), 2, 0), [1]);
}

fn large_frames_come_back_whole(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    let large = event(2, quail_protocol::limits::FRAME_BYTES_MAX);
    commit(&mut store, 2, &[Entry::Event { event: large.clone(), accounts: vec![account(1)].into() }]);
    drop(store);
    let (store, _) = fixture.open();
    assert_eq!(store.reader().read(account(1), above(0, 1, 1)).unwrap(), [large]);
}

fn a_reader_sees_what_is_committed_later(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    let reader = store.reader();
    commit(&mut store, 1, &[put(1, 1)]);
    assert_eq!(positions(&*reader, 1, 0), [1]);
}

fn reads_end_where_they_are_told_to(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(&mut store, 3, &[put(1, 1), put(1, 2), put(1, 3)]);
    let upto = |after, upto| Stretch { upto: Position(upto), ..above(after, 10, 1000) };
    let read = |stretch| store.reader().read(account(1), stretch).unwrap().len();
    assert_eq!(read(upto(0, 2)), 2);
    assert_eq!(read(upto(2, 2)), 0);
    assert_eq!(read(upto(3, 2)), 0);
}

fn one_event_is_withdrawn_and_its_neighbours_stay(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    commit(&mut store, 3, &[put(1, 1), put(1, 2), put(1, 3)]);
    let withdrawn = |position| Entry::Withdrawn { account: account(1), position: Position(position) };
    commit(&mut store, 3, &[withdrawn(2), withdrawn(99)]);
    assert_eq!(positions(&*store.reader(), 1, 0), [1, 3]);
    drop(store);
    let (store, recovered) = fixture.open();
    assert_eq!(positions(&*store.reader(), 1, 0), [1, 3]);
    assert_eq!(recovered.slots.len(), 2);
}

fn a_sync_covers_every_batch_before_it(mut fixture: impl Fixture) {
    let (mut store, _) = fixture.open();
    let mut syncer = store.syncer();
    for position in 1..=3 {
        let entries = [put(1, position), sent(1, position)];
        let (last_position, last_stamp) = (Position(position), Stamp(position));
        store.append(Batch { entries: &entries, last_position, last_stamp }).unwrap();
    }
    syncer.sync().unwrap();
    // With nothing new there is nothing to do.
    syncer.sync().unwrap();
    assert_eq!(positions(&*store.reader(), 1, 0), [1, 2, 3]);
    drop((store, syncer));
    let (store, recovered) = fixture.open();
    assert_eq!(positions(&*store.reader(), 1, 0), [1, 2, 3]);
    assert_eq!((recovered.last_position, recovered.last_stamp), (Position(3), Stamp(3)));
    assert_eq!(recovered.sends.len(), 3);
}
