//! Spills, recoveries and reads.

use std::fs;

use super::*;

fn events(positions: impl IntoIterator<Item = u64>) -> Vec<Arc<StoredEvent>> {
    positions.into_iter().map(|position| event(position, 100)).collect()
}

fn bring(generation: u64, n: u64, positions: std::ops::RangeInclusive<u64>) -> Spill {
    let last = *positions.end();
    let changed = AccountSpill { events: events(positions), ..AccountSpill::default() };
    Spill { mark: mark(generation, last), accounts: vec![(account(n), changed)], ..Spill::default() }
}

fn positions(read: &SettledRead) -> Vec<u64> {
    assert_eq!(read.lost, []);
    read.events.iter().map(|event| event.position.0).collect()
}

#[test]
fn what_was_spilled_is_recovered_and_read() {
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, found) = open(directory.path());
        assert!(found.is_new);
        let mut model = Model::default();
        let mut maker = Maker::new(seed);
        for round in 0..30 {
            let spill = maker.spill(&model);
            store.spill(&spill).unwrap();
            model.apply(&spill);
            model.check_reads(&store.reader());
            if round % 4 == 3 {
                drop(store);
                let (again, found) = open(directory.path());
                assert_eq!((found.is_new, &found.repaired), (false, &Vec::new()));
                model.check_recovered(&found);
                model.check_reads(&again.reader());
                store = again;
            }
            store.health().unwrap();
        }
    }
}

#[test]
fn reads_honour_their_stretch() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    store.spill(&bring(1, 1, 1..=300)).unwrap();
    store.spill(&bring(2, 1, 401..=700)).unwrap();
    let reader = store.reader();
    let read = |after, upto, events_max, bytes_max| {
        let stretch = Stretch { after: Position(after), upto: Position(upto), events_max, bytes_max };
        positions(&reader.read(account(1), stretch).unwrap())
    };
    assert_eq!(read(130, 133, 10, 10_000), [131, 132, 133]);
    assert_eq!(read(298, 402, 10, 10_000), [299, 300, 401, 402]);
    assert_eq!(read(0, 1000, 3, 10_000), [1, 2, 3]);
    assert_eq!(read(0, 1000, 10, 250), [1, 2]);
    assert_eq!(read(0, 1000, 10, 1), [1]);
    assert!(read(127, 128, 0, 1).is_empty());
    assert!(read(700, 1000, 10, 10_000).is_empty());
    assert!(read(5, 5, 10, 10_000).is_empty());
    assert_eq!(reader.read(account(2), all()).unwrap(), SettledRead::default());
}

/// Writes all of a spill but what makes it count, and returns the directory as a crash would leave it.
fn cut_short(store: &mut SettledStore, spill: &Spill) -> tempfile::TempDir {
    let before = store.held.settled;
    let copy = tempfile::tempdir().unwrap();
    spill::write(&store.database, &mut store.held, &store.file, spill).unwrap();
    // The mark goes back to what it was: as if the process had died before it was written.
    store.database.trees.meta.insert(format::MARK, format::settled(&before)).unwrap();
    store.database.sync().unwrap();
    copy_all(&store.path, copy.path());
    let file = marks::MarkFile::open(&copy.path().join("store-1")).unwrap().0;
    fs::write(copy.path().join("store-1/mark"), [0; 1024]).unwrap();
    file.write(&before).unwrap();
    copy
}

#[test]
fn a_spill_without_its_mark_is_superseded() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let mut model = Model::default();
    let mut maker = Maker::new(7);
    for _ in 0..6 {
        let spill = maker.spill(&model);
        store.spill(&spill).unwrap();
        model.apply(&spill);
    }
    let spill = maker.spill(&model);
    let copy = cut_short(&mut store, &spill);
    let (mut store, found) = open(copy.path());
    assert_eq!((found.mark, &found.lost), (model.mark, &Vec::new()));
    // Nothing above the mark is left, and nothing at or below it is gone that the spill did not take away.
    let mut after = model.clone();
    after.apply(&spill);
    for (account, slot) in &found.recovered.slots {
        assert!(model.events.contains_key(&(*account, slot.position)));
    }
    let slots: std::collections::BTreeSet<_> =
        found.recovered.slots.iter().map(|(account, slot)| (*account, slot.position)).collect();
    for key in after.events.keys().filter(|(_, position)| *position <= model.mark.last_position) {
        assert!(slots.contains(key));
    }
    // The journal brings the same spill again.
    store.spill(&spill).unwrap();
    after.check_reads(&store.reader());
    drop(store);
    let (store, found) = open(copy.path());
    after.check_recovered(&found);
    after.check_reads(&store.reader());
}

#[test]
fn a_spill_that_lacks_only_its_last_sync_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    store.spill(&bring(1, 1, 1..=10)).unwrap();
    let before = store.held.settled;
    store.spill(&bring(2, 1, 11..=20)).unwrap();
    drop(store);
    fs::write(directory.path().join("store-1/mark"), [0; 1024]).unwrap();
    marks::MarkFile::open(&directory.path().join("store-1")).unwrap().0.write(&before).unwrap();
    let (store, found) = open(directory.path());
    assert_eq!(found.mark, mark(2, 20));
    assert_eq!(positions(&store.reader().read(account(1), all()).unwrap()), (1..=20).collect::<Vec<_>>());
    drop(store);
    assert_eq!(marks::peek(&directory.path().join("store-1")).unwrap().unwrap().mark, mark(2, 20));
}

#[test]
fn a_chunk_goes_when_its_last_event_is_resolved() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    store.spill(&bring(1, 1, 1..=100)).unwrap();
    let resolve = |store: &mut SettledStore, generation, upto| {
        let changed = AccountSpill { resolved: Position(upto), ..AccountSpill::default() };
        let accounts = vec![(account(1), changed), (account(2), AccountSpill::default())];
        store.spill(&Spill { mark: mark(generation, 100), accounts, ..Spill::default() }).unwrap()
    };
    assert_eq!(resolve(&mut store, 2, 60).deleted, 0);
    assert_eq!(positions(&store.reader().read(account(1), all()).unwrap()), (61..=100).collect::<Vec<_>>());
    drop(store);
    let (mut store, found) = open(directory.path());
    let slots: Vec<_> = found.recovered.slots.iter().map(|(_, slot)| slot.position.0).collect();
    assert_eq!(slots, (61..=100).collect::<Vec<_>>());
    assert_eq!(resolve(&mut store, 3, 100).deleted, 1);
    assert_eq!(store.reader().read(account(1), all()).unwrap(), SettledRead::default());
    // Nothing at all is left of the account.
    assert!(store.held.accounts.is_empty());
    assert_eq!(store.database.trees.accounts.len() + store.database.trees.chunks.len(), 0);
    assert_eq!(store.size().unwrap().live_bytes, 0);
}

#[test]
fn a_withdrawn_event_leaves_its_chunk() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    store.spill(&bring(1, 1, 1..=5)).unwrap();
    for (generation, gone, left) in
        [(2, vec![3], vec![1, 2, 4, 5]), (3, vec![1, 9], vec![2, 4, 5]), (4, vec![2, 4, 5], vec![])]
    {
        let withdrawn = gone.into_iter().map(Position).collect();
        let changed = AccountSpill { withdrawn, ..AccountSpill::default() };
        let accounts = vec![(account(1), changed)];
        store.spill(&Spill { mark: mark(generation, 5), accounts, ..Spill::default() }).unwrap();
        assert_eq!(positions(&store.reader().read(account(1), all()).unwrap()), left);
        drop(store);
        let (again, found) = open(directory.path());
        let slots: Vec<_> = found.recovered.slots.iter().map(|(_, slot)| slot.position.0).collect();
        assert_eq!(slots, left);
        store = again;
    }
    assert_eq!(store.database.trees.chunks.len(), 0);
}

#[test]
fn send_windows_keep_the_newest_in_few_rows() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let mut number = 0;
    for generation in 1..=400 {
        let many = if generation % 50 == 0 { 256 } else { 1 + generation % 3 };
        let sends: Vec<_> = (number..number + many).map(send).collect();
        number += many;
        let sends = vec![(device(1), sends), (device(2), vec![send(generation)])];
        store.spill(&Spill { mark: mark(generation, number), sends, ..Spill::default() }).unwrap();
        assert!(store.database.trees.sends.len() <= 2 * 34);
        if generation % 37 == 0 || generation > 395 {
            drop(store);
            let (again, found) = open(directory.path());
            let of = |n| {
                let sends = found.recovered.sends.iter().filter(|(owner, _)| *owner == device(n));
                sends.map(|(_, send)| send.number).collect::<Vec<_>>()
            };
            assert_eq!(of(1), (number.saturating_sub(256)..number).collect::<Vec<_>>());
            assert_eq!(of(2), (generation.saturating_sub(256) + 1..=generation).collect::<Vec<_>>());
            store = again;
        }
    }
}

#[test]
fn merged_sends_outlive_a_spill_that_is_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    for generation in 1..=16 {
        let sends = vec![(device(1), vec![send(generation)])];
        store.spill(&Spill { mark: mark(generation, generation), sends, ..Spill::default() }).unwrap();
    }
    // The seventeenth merges the rows of those before it.
    let sends = vec![(device(1), vec![send(17)])];
    let copy = cut_short(&mut store, &Spill { mark: mark(17, 17), sends, ..Spill::default() });
    let (_, found) = open(copy.path());
    let numbers: Vec<_> = found.recovered.sends.iter().map(|(_, send)| send.number).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
}

#[test]
fn a_device_goes_with_its_sends() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let record = DeviceRecord { cursor: Position(5), acked: Position(4), attach_number: 2 };
    let spill = |generation, record| Spill {
        mark: mark(generation, 5),
        devices: vec![
            (account(1), device(1), record),
            (account(1), device(2), Some(DeviceRecord::default())),
        ],
        sends: vec![(device(1), vec![send(generation)])],
        ..Spill::default()
    };
    store.spill(&spill(1, Some(record))).unwrap();
    store.spill(&spill(2, Some(record))).unwrap();
    // What it sent in the generation in which it went goes with it too.
    store.spill(&spill(3, None)).unwrap();
    drop(store);
    let (_, found) = open(directory.path());
    assert_eq!(found.recovered.devices, [(account(1), device(2), DeviceRecord::default())]);
    assert_eq!(found.recovered.sends, []);
}

#[test]
fn what_is_no_settled_store_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("letter.txt"), "dear").unwrap();
    let error = SettledStore::open(directory.path(), SettledOptions::default()).err().unwrap();
    let path = directory.path().display();
    let expected = format!("{path} is not a settled store: it holds letter.txt and no file named current");
    assert_eq!(error.to_string(), expected);
    let file = directory.path().join("letter.txt");
    let error = SettledStore::open(&file, SettledOptions::default()).err().unwrap();
    assert!(matches!(error, OpenSettledError::Unusable { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "dear");
}

#[test]
fn a_newer_layout_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let line = "settled 2 store-1";
    let line = format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()));
    fs::write(directory.path().join("current"), &line).unwrap();
    let error = SettledStore::open(directory.path(), SettledOptions::default()).err().unwrap();
    assert!(matches!(error, OpenSettledError::Newer { .. }), "{error}");
    assert_eq!(fs::read_to_string(directory.path().join("current")).unwrap(), line);
}

#[test]
fn an_open_store_is_not_opened_twice() {
    let directory = tempfile::tempdir().unwrap();
    let _held = open(directory.path());
    let error = SettledStore::open(directory.path(), SettledOptions::default()).err().unwrap();
    assert!(matches!(error, OpenSettledError::InUse { .. }), "{error}");
}
