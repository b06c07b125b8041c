//! A stop at any step of an open leaves what was there.

use super::lying::LyingDisk;
use super::*;

#[test]
fn an_open_cut_at_any_step_loses_nothing() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    let entries = |n: u64| [event(n, 300), Entry::Resolved { account: account(1), upto: Position(n) }];
    for n in 1..=24 {
        commit(&mut journal, 1 + n / 8, &entries(n), n);
        if n == 16 {
            journal.keeper().release(1, None).unwrap();
        }
    }
    // Batches of generation 2 and later are wanted: those from 8 on.
    let start = disk.calls();
    let (_, _, expected) = open(&disk.copy().shared(), settled(1), 2).unwrap();
    assert_eq!(expected.iter().map(|batch| batch.number).collect::<Vec<_>>(), (8..=24).collect::<Vec<_>>());
    let mut steps = 0;
    loop {
        let cut = disk.copy();
        cut.cut_at(start + steps);
        let opened = open(&cut.shared(), settled(1), 2);
        let is_cut = opened.is_err();
        drop(opened);
        for seed in 0..12 {
            let after = match seed {
                0 => cut.after_kill(),
                _ => cut.after_power_cut(&mut random::Random::new(seed)),
            };
            // Once more cut, a little later, then left alone.
            after.cut_at(after.calls() + seed);
            let _ = open(&after.shared(), settled(1), 3 + seed).map(|_| ());
            let after = after.after_power_cut(&mut random::Random::new(seed));
            let (_, opened, found) = open(&after.shared(), settled(1), 30).unwrap();
            assert_eq!(found, expected, "cut after {steps} steps, seed {seed}");
            assert_eq!(opened.damage, []);
        }
        if !is_cut {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps");
}

#[test]
fn an_open_leaves_no_file_behind_and_removes_what_was_half_made() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    for n in 1..=40 {
        commit(&mut journal, 1, &[event(n, 300)], n);
    }
    disk.create("00000099.segment.new").unwrap();
    disk.create("notes").unwrap();
    for epoch in 2..20 {
        let (journal, _, found) = open(&disk.shared(), Mark::default(), epoch).unwrap();
        assert_eq!(found.len(), 40);
        let keeper = journal.keeper();
        assert!(keeper.spares() <= 2, "{} spares", keeper.spares());
        let names = disk.list().unwrap();
        assert_eq!(names.len(), keeper.segments() + keeper.spares() + 2, "{names:?}");
        assert!(names.iter().all(|name| !name.ends_with(".new")), "{names:?}");
    }
    // What is no part of a journal is not ours to remove.
    assert!(disk.list().unwrap().contains(&"notes".to_owned()));
}

#[test]
fn segments_of_another_size_are_read_and_replaced() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    for n in 1..=20 {
        commit(&mut journal, 1, &[event(n, 700)], n);
    }
    for (epoch, bytes) in [(2, 8192), (3, 1024), (4, 1024)] {
        let options = JournalOptions { segment_bytes: bytes, ..options() };
        let mut found = 0;
        let (journal, _) =
            open_as(disk.shared(), &options, Mark::default(), epoch, &mut |_| found += 1).unwrap();
        assert_eq!(found, 20);
        let keeper = journal.keeper();
        assert_eq!(keeper.disk_bytes(), (keeper.segments() + keeper.spares()) as u64 * bytes as u64);
        assert!(disk.segments().iter().all(|name| disk.bytes(name).len() == bytes));
    }
}
