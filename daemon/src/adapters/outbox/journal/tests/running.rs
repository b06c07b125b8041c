//! A journal at work: what a sync costs, what its failure means, and that it does not grow.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lying::LyingDisk;
use super::*;
use crate::adapters::outbox::journal::{RealDisk, check};

#[test]
fn a_failed_sync_is_final_until_the_restart() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    commit(&mut journal, 1, &[event(1, 50)], 1);
    let mut syncer = journal.syncer();
    journal.append(1, &batch(&[event(2, 50)], 2)).unwrap();
    disk.fail_sync_after(0);
    let error = syncer.sync().unwrap_err();
    assert!(matches!(&error, JournalError::Io { action: "sync", .. }), "{error}");
    // The disk says that all is well again. It is not.
    let calls = disk.calls();
    assert_eq!(syncer.sync(), Err(error.clone()));
    assert_eq!(journal.syncer().sync(), Err(error.clone()));
    assert_eq!(journal.append(1, &batch(&[event(3, 50)], 3)), Err(error));
    assert_eq!(disk.calls(), calls, "nothing is written any more");
    // The process ends. The page cache has the batch, so it counts, and from then on it is durable.
    let killed = disk.after_kill();
    let (_, _, found) = open(&killed.shared(), Mark::default(), 2).unwrap();
    assert_eq!(found.len(), 2);
    let cut = killed.after_power_cut(&mut random::Random::new(1));
    let (_, _, again) = open(&cut.shared(), Mark::default(), 3).unwrap();
    assert_eq!(again, found);
    // The power goes first. Nobody was answered on the batch.
    let cut = disk.after_power_cut(&mut random::Random::new(1));
    let (_, opened, found) = open(&cut.shared(), Mark::default(), 2).unwrap();
    assert_eq!((found.len(), opened.damage), (1, vec![]));
}

#[test]
fn a_sync_is_one_fdatasync_and_one_more_where_a_segment_ends() {
    let disk = LyingDisk::default();
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = syncs.clone();
    let on_sync = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let options = JournalOptions { on_sync, ..options() };
    let (mut journal, _) = open_as(disk.shared(), &options, Mark::default(), 1, &mut |_| {}).unwrap();
    let keeper = journal.keeper();
    keeper.prepare_spare().unwrap();
    keeper.prepare_spare().unwrap();
    assert_eq!((keeper.spares(), keeper.segments()), (1, 0));
    let cost = |journal: &mut Journal, batches: u64| {
        for _ in 0..batches {
            journal.append(1, &batch(&[event(3, 700)], 3)).unwrap();
        }
        let (before, timed) = (disk.calls(), syncs.load(Ordering::Relaxed));
        journal.syncer().sync().unwrap();
        (disk.calls() - before, syncs.load(Ordering::Relaxed) - timed)
    };
    // A write and a sync; two batches fit into a segment.
    assert_eq!(cost(&mut journal, 1), (2, 1), "into the spare");
    assert_eq!(cost(&mut journal, 0), (0, 0));
    keeper.prepare_spare().unwrap();
    assert_eq!(cost(&mut journal, 2), (4, 2), "over the end, into the spare");
    assert_eq!(cost(&mut journal, 1), (2, 1));
    keeper.prepare_spare().unwrap();
    assert_eq!(cost(&mut journal, 1), (2, 1), "at the end, into the spare");
    assert_eq!(
        cost(&mut journal, 5),
        (2 * 3 + 2 * 5, 3),
        "without spares, which are made in five steps each"
    );
    let (_, _, found) = open(&disk.shared(), Mark::default(), 2).unwrap();
    assert_eq!(found.len(), 10);
}

#[test]
fn the_journal_stays_as_small_as_what_is_not_settled() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    let keeper = journal.keeper();
    let (mut last, mut disk_bytes_max) = (0, 0);
    for generation in 1..=200 {
        for _ in 0..10 {
            last += 1;
            commit(&mut journal, generation, &[event(last, 150)], last);
        }
        keeper.release(generation - 1, None).unwrap();
        keeper.prepare_spare().unwrap();
        disk_bytes_max = disk_bytes_max.max(keeper.disk_bytes());
        let files = disk.segments().len() as u64;
        assert_eq!(files * SEGMENT as u64, keeper.disk_bytes());
        assert!(keeper.spares() <= 2);
        // Ten batches, all of this generation.
        assert!((10 * 371..10 * 420).contains(&keeper.unsettled_bytes()), "{}", keeper.unsettled_bytes());
        assert_eq!(keeper.unarchived_bytes(), 0);
    }
    assert!(disk_bytes_max <= 8 * SEGMENT as u64, "{disk_bytes_max}");
    keeper.release(200, None).unwrap();
    assert_eq!((keeper.unsettled_bytes(), keeper.segments()), (0, 1));
}

#[test]
fn numbers_and_positions_go_on_over_restarts_that_leave_nothing() {
    let disk = LyingDisk::default();
    let mut mark = Mark::default();
    for epoch in 1..20 {
        let (mut journal, opened, found) = open(&disk.shared(), mark, epoch).unwrap();
        assert_eq!((opened.last_number, opened.batches, found.len()), (2 * (epoch - 1), 0, 0));
        assert_eq!(opened.last_position, mark.last_position);
        for last in 2 * epoch - 1..=2 * epoch {
            commit(&mut journal, epoch, &others(last), last);
            mark = Mark { generation: epoch, last_position: Position(last), last_stamp: Stamp(last * 10) };
        }
        journal.keeper().release(epoch, None).unwrap();
    }
}

#[test]
fn a_journal_on_a_real_disk_comes_back() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("a").join("journal");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&path).unwrap());
    let (mut journal, opened) =
        super::super::open(disk.clone(), &options(), Mark::default(), &mut |_| {}).unwrap();
    assert_eq!(opened, Opened::default());
    let all: Vec<_> = (1..=30).map(|n| [event(n, 200)]).collect();
    for (n, entries) in (1..).zip(&all) {
        journal.append(1, &batch(entries, n)).unwrap();
        if n % 4 == 0 {
            journal.syncer().sync().unwrap();
        }
        journal.keeper().prepare_spare().unwrap();
    }
    journal.syncer().sync().unwrap();
    drop(journal);
    let listing = || {
        let names = disk.list().unwrap().into_iter();
        let mut files: Vec<_> = names.map(|name| (std::fs::read(path.join(&name)).unwrap(), name)).collect();
        files.sort();
        files
    };
    let before = listing();
    let read_only = RealDisk::read_only(&path);
    assert!(read_only.create("x").is_err());
    let report = check(&read_only, Mark::default(), &mut |_| {}).unwrap();
    assert_eq!((report.batches, report.entries, report.last_number), (30, 30, 30));
    assert_eq!((report.damage, report.torn, report.others), (vec![], None, vec![]));
    assert_eq!(report.segments.iter().map(|segment| segment.batches).sum::<u64>(), 30);
    assert_eq!(listing(), before, "a check writes nothing");
    for _ in 0..2 {
        let mut found = Vec::new();
        super::super::open(disk.clone(), &options(), Mark::default(), &mut |batch| found.push(batch))
            .unwrap();
        assert_eq!(found.len(), 30);
        for (n, (entries, found)) in (1..).zip(all.iter().zip(&found)) {
            whole(n, 1, entries, n, found);
        }
    }
}
