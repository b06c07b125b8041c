//! Copying into a fresh store: what a crash in between leaves, and who reads meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn filled(path: &Path, seed: u64) -> (SettledStore, Model, Maker) {
    let (mut store, _) = open(path);
    let (mut model, mut maker) = (Model::default(), Maker::new(seed));
    for _ in 0..8 {
        let spill = maker.spill(&model);
        store.spill(&spill).unwrap();
        model.apply(&spill);
    }
    (store, model, maker)
}

fn stores(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_holds_the_same_and_the_old_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, mut model, mut maker) = filled(directory.path(), 1);
    assert_eq!(store.rotate_if_grown(), Ok(false));
    store.rotate().unwrap();
    assert_eq!(stores(directory.path()), ["current", "store-2"]);
    model.check_reads(&store.reader());
    let spill = maker.spill(&model);
    store.spill(&spill).unwrap();
    model.apply(&spill);
    model.check_reads(&store.reader());
    let live = store.size().unwrap().live_bytes;
    drop(store);
    let (store, found) = open(directory.path());
    assert_eq!(found.repaired, Vec::<String>::new());
    model.check_recovered(&found);
    model.check_reads(&store.reader());
    assert_eq!(store.size().unwrap().live_bytes, live);
}

#[test]
fn a_crash_anywhere_in_a_copy_leaves_one_store_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (store, model, _) = filled(directory.path(), 2);
    let crash = |step: &str| {
        let copy = tempfile::tempdir().unwrap();
        copy_all(directory.path(), copy.path());
        let (store, found) = open(copy.path());
        assert_eq!(found.repaired, Vec::<String>::new(), "{step}");
        model.check_recovered(&found);
        model.check_reads(&store.reader());
        assert_eq!(stores(copy.path()).len(), 2, "{step}");
    };
    let fresh = rotate::fresh(directory.path(), 2, &store.options).unwrap();
    crash("fresh");
    let mut copied = rotate::copy(&store.database, &fresh, store.held.settled.mark).unwrap();
    crash("copied");
    rotate::finish(&fresh, &mut copied.held).unwrap();
    crash("finished");
    fs::write(directory.path().join("current.new"), "settl").unwrap();
    crash("half a pointer");
    open::point_to(directory.path(), 2).unwrap();
    crash("switched");
    fs::remove_file(directory.path().join("store-1/conf")).unwrap();
    crash("half removed");
}

#[test]
fn a_first_opening_that_was_cut_short_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::remove_file(directory.path().join("current")).unwrap();
    fs::write(directory.path().join("store-1/db"), "half").unwrap();
    let (_, found) = open(directory.path());
    assert!(found.is_new);
}

#[test]
fn a_lost_pointer_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, model, _) = filled(directory.path(), 3);
    store.rotate().unwrap();
    drop(store);
    for damage in [None, Some(""), Some("settled 1 store-7 00000000\n"), Some("\u{fffd}")] {
        match damage {
            None => fs::remove_file(directory.path().join("current")).unwrap(),
            Some(text) => fs::write(directory.path().join("current"), text).unwrap(),
        }
        let (_, found) = open(directory.path());
        assert_eq!((found.is_new, found.repaired.len()), (false, 1), "{damage:?}");
        model.check_recovered(&found);
    }
}

/// Readers on other threads while spills and copies go on: at or below the mark of the last spill that returned, an event
/// that nobody resolved is never missing.
#[test]
fn readers_miss_nothing_while_the_store_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let (mut model, mut maker) = (Model::default(), Maker::new(4));
    maker.events = 60;
    let shared = Arc::new(RwLock::new((model.clone(), model.clone())));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for n in 0..3 {
            let (reader, shared, is_done) = (store.reader(), shared.clone(), &is_done);
            readers.push(scope.spawn(move || {
                let (mut dice, mut reads) = (Dice(n), 0);
                while !is_done.load(Ordering::Acquire) {
                    let account = account(dice.below(12));
                    let before = shared.read().unwrap().0.clone();
                    let stretch = Stretch { upto: before.mark.last_position, ..all() };
                    let read = reader.read(account, stretch).unwrap();
                    let after = shared.read().unwrap().1.clone();
                    assert_eq!(read.lost, []);
                    assert!(read.events.is_sorted_by_key(|event| event.position));
                    for event in before.of(account) {
                        // What the next spill takes away may be gone already.
                        let is_left = after.events.contains_key(&(account, event.position));
                        assert!(!is_left || read.events.contains(&event), "{} is missing", event.position);
                    }
                    reads += 1;
                }
                reads
            }));
        }
        for round in 0..60 {
            let spill = maker.spill(&model);
            let mut next = model.clone();
            next.apply(&spill);
            // First what is about to go, then the spill, then what is there now.
            shared.write().unwrap().1 = next.clone();
            store.spill(&spill).unwrap();
            model = next;
            shared.write().unwrap().0 = model.clone();
            if round % 7 == 6 {
                store.rotate().unwrap();
            }
        }
        is_done.store(true, Ordering::Release);
        assert!(readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u32>() > 0);
    });
    model.check_reads(&store.reader());
    assert_eq!(stores(directory.path()), ["current", "store-9"]);
}

#[test]
fn a_store_that_has_grown_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let mut last = 0;
    let mut largest = 0;
    let mut rotated = 0;
    for generation in 1..=14 {
        // Eight megabytes each time, and all of the time before resolved.
        let events: Vec<_> = (last + 1..=last + 128).map(|position| event(position, 60_000)).collect();
        let changed = AccountSpill { events, resolved: Position(last), ..AccountSpill::default() };
        last += 128;
        let accounts = vec![(account(1), changed)];
        store.spill(&Spill { mark: mark(generation, last), accounts, ..Spill::default() }).unwrap();
        rotated += u32::from(store.rotate_if_grown().unwrap());
        largest = largest.max(store.size().unwrap().disk_bytes);
    }
    let Sizes { disk_bytes, live_bytes } = store.size().unwrap();
    assert!(largest <= ROTATE_FACTOR * live_bytes + ROTATE_SLACK_BYTES, "{largest} for {live_bytes}");
    assert!(disk_bytes < largest || rotated == 0);
}
