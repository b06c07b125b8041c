//! The archive reads along.

use std::thread;
use std::time::{Duration, Instant};

use super::lying::LyingDisk;
use super::*;
use crate::adapters::outbox::journal::{JournalTail, RealDisk, Tailed, TailedEvent};

/// Longer than any test may take; where nothing is to come, no time at all is waited.
const LONG: Duration = Duration::from_secs(60);

fn positions(tailed: &Tailed) -> Vec<u64> {
    tailed.events.iter().map(|tailed| tailed.event.position.0).collect()
}

/// Reads all there is.
fn read(tail: &mut JournalTail) -> (Vec<u64>, u64) {
    let mut all = Vec::new();
    loop {
        let tailed = tail.next(usize::MAX, Duration::ZERO).unwrap();
        if tailed.events.is_empty() {
            return (all, tailed.upto.0);
        }
        all.extend(positions(&tailed));
    }
}

#[test]
fn only_what_is_synced_is_read() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    let mut tail = journal.keeper().tail(Position(0));
    assert_eq!(read(&mut tail), (vec![], 0));
    journal.append(1, &batch(&[event(1, 10)], 1)).unwrap();
    assert_eq!(read(&mut tail), (vec![], 0));
    journal.syncer().sync().unwrap();
    journal.append(1, &batch(&[event(2, 10)], 2)).unwrap();
    assert_eq!(read(&mut tail), (vec![1], 1));
    assert_eq!(read(&mut tail), (vec![], 1));
    // A sync that fails has written it.
    disk.fail_sync_after(0);
    journal.syncer().sync().unwrap_err();
    assert_eq!(read(&mut tail), (vec![], 1));
    assert_eq!(read(&mut journal.keeper().tail(Position(0))), (vec![1], 1));
}

#[test]
fn events_come_in_order_over_segments_and_as_many_as_asked_for() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    for n in 1..=20 {
        let pair = [event(2 * n - 1, 150), event(2 * n, 150), others(n)[3].clone()];
        commit(&mut journal, 1, &pair, 2 * n);
    }
    // Positions without an event.
    commit(&mut journal, 1, &[], 50);
    assert!(journal.keeper().segments() > 4);
    let mut tail = journal.keeper().tail(Position(0));
    let mut seen = Vec::new();
    loop {
        let tailed = tail.next(400, Duration::ZERO).unwrap();
        assert!(tailed.events.len() <= 2);
        seen.extend(positions(&tailed));
        if tailed.events.is_empty() {
            assert_eq!(tailed.upto, Position(50));
            break;
        }
        let last = *seen.last().unwrap();
        assert!([last, 50].contains(&tailed.upto.0), "{tailed:?}");
        let Entry::Event { event, accounts } = event(last, 150) else { unreachable!() };
        let tailed = tailed.events.last().unwrap();
        assert_eq!((&tailed.event, &tailed.accounts), (&event, &accounts));
    }
    assert_eq!(seen, (1..=40).collect::<Vec<_>>());
    for after in [0, 1, 17, 39] {
        let mut tail = journal.keeper().tail(Position(after));
        assert_eq!(read(&mut tail), ((after + 1..=40).collect(), 50));
        // One larger than asked for comes alone.
        let mut tail = journal.keeper().tail(Position(after));
        assert_eq!(positions(&tail.next(1, Duration::ZERO).unwrap()), [after + 1]);
    }
}

/// Opens a journal that keeps what an archive has not.
fn open_archived(disk: &LyingDisk) -> Journal {
    let options = JournalOptions { archived: Some(Position(0)), ..options() };
    open_as(disk.shared(), &options, Mark::default(), 1, &mut |_| {}).unwrap().0
}

#[test]
fn a_reader_that_is_close_does_not_read_back_what_was_just_written() {
    let disk = LyingDisk::default();
    let mut journal = open_archived(&disk);
    let mut tail = journal.keeper().tail(Position(0));
    commit(&mut journal, 1, &[event(1, 10)], 1);
    assert_eq!(read(&mut tail), (vec![1], 1));
    let reads = disk.reads();
    for n in 2..=40 {
        journal.append(1, &batch(&[event(n, 150), others(n)[3].clone()], n)).unwrap();
        assert_eq!(read(&mut tail), (vec![], n - 1), "it is not durable");
        journal.syncer().sync().unwrap();
        let tailed = tail.next(usize::MAX, Duration::ZERO).unwrap();
        let Entry::Event { event, accounts } = event(n, 150) else { unreachable!() };
        assert_eq!(tailed.events, [TailedEvent { event, accounts }]);
    }
    assert!(journal.keeper().segments() > 4);
    assert_eq!(disk.reads(), reads);
    // What is written to a disk that fails to sync is in memory, and not durable.
    disk.fail_sync_after(0);
    journal.append(1, &batch(&[event(41, 10)], 41)).unwrap();
    journal.syncer().sync().unwrap_err();
    assert_eq!(read(&mut tail), (vec![], 40));
}

#[test]
fn a_reader_that_is_far_behind_reads_the_segments_and_catches_up() {
    let disk = LyingDisk::default();
    let options = JournalOptions { archived: Some(Position(0)), segment_bytes: 1 << 20, ..options() };
    let (mut journal, _) = open_as(disk.shared(), &options, Mark::default(), 1, &mut |_| {}).unwrap();
    let mut tail = journal.keeper().tail(Position(0));
    commit(&mut journal, 1, &[event(1, 10)], 1);
    assert_eq!(read(&mut tail), (vec![1], 1));
    // More than is held in memory.
    let last = 40;
    for n in 2..=last {
        commit(&mut journal, 1, &[event(n, 500_000)], n);
    }
    let reads = disk.reads();
    let mut seen = Vec::new();
    while seen.len() < last as usize - 1 {
        seen.extend(positions(&tail.next(1, Duration::ZERO).unwrap()));
    }
    assert_eq!(seen, (2..=last).collect::<Vec<_>>());
    let read = disk.reads() - reads;
    assert!((10..30).contains(&read), "{read} reads: the last 16 of 39 are in memory");
    let reads = disk.reads();
    commit(&mut journal, 1, &[event(last + 1, 10)], last + 1);
    assert_eq!(positions(&tail.next(1, Duration::ZERO).unwrap()), [last + 1]);
    assert_eq!(disk.reads(), reads);
}

#[test]
fn what_is_not_archived_stays_over_releases_and_restarts() {
    let disk = LyingDisk::default();
    let mut archived = 0;
    let mut last = 0;
    for epoch in 1..=6 {
        let options = JournalOptions { archived: Some(Position(archived)), ..options() };
        let mark = settled(epoch - 1);
        let (mut journal, opened) =
            open_as(disk.shared(), &options, mark, epoch, &mut |_| panic!("all of it is settled")).unwrap();
        assert_eq!((opened.last_position, opened.damage), (Position(last), vec![]));
        let keeper = journal.keeper();
        assert_eq!(keeper.unsettled_bytes(), 0);
        assert_eq!(keeper.unarchived_bytes() > 0, last > archived);
        for _ in 0..10 {
            last += 1;
            commit(&mut journal, epoch, &[event(last, 300)], last);
            keeper.release(epoch, Some(Position(archived))).unwrap();
        }
        let mut tail = keeper.tail(Position(archived));
        assert_eq!(read(&mut tail).0, (archived + 1..=last).collect::<Vec<_>>());
        archived += 7;
        let before = keeper.segments();
        keeper.release(epoch, Some(Position(archived))).unwrap();
        assert!(keeper.segments() < before);
        assert_eq!(read(&mut keeper.tail(Position(archived))).0, (archived + 1..=last).collect::<Vec<_>>());
        let error = keeper.tail(Position(0)).next(1, Duration::ZERO).unwrap_err();
        assert_eq!(error, JournalError::Released { after: Position(0) });
    }
}

#[test]
fn a_reader_that_is_left_behind_is_told() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    let mut tail = journal.keeper().tail(Position(0));
    commit(&mut journal, 1, &[event(1, 300)], 1);
    assert_eq!(read(&mut tail), (vec![1], 1));
    for n in 2..=40 {
        commit(&mut journal, 1, &[event(n, 300)], n);
        journal.keeper().release(1, None).unwrap();
    }
    let error = tail.next(usize::MAX, Duration::ZERO).unwrap_err();
    assert_eq!(error, JournalError::Released { after: Position(1) });
}

#[test]
fn a_damaged_batch_is_named_and_not_passed_over() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    commit(&mut journal, 1, &[event(1, 50)], 1);
    commit(&mut journal, 1, &[event(2, 50)], 2);
    let name = disk.segments().remove(0);
    let frame = frame(2, 50);
    let at = disk.bytes(&name).windows(50).position(|bytes| bytes == frame).unwrap();
    disk.flip(&name, at, 3);
    let mut tail = journal.keeper().tail(Position(0));
    assert_eq!(positions(&tail.next(usize::MAX, Duration::ZERO).unwrap()), [1]);
    for _ in 0..2 {
        let error = tail.next(usize::MAX, Duration::ZERO).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    }
    disk.flip(&name, at, 3);
    assert_eq!(read(&mut tail), (vec![2], 2));
}

#[test]
fn a_reader_waits_for_the_sync_and_not_longer_than_asked() {
    let directory = tempfile::TempDir::new().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(directory.path()).unwrap());
    let (mut journal, ..) = open(&disk, Mark::default(), 1).unwrap();
    let mut tail = journal.keeper().tail(Position(0));
    let began = Instant::now();
    assert_eq!(tail.next(1, Duration::from_millis(20)).unwrap(), Tailed::default());
    assert!(began.elapsed() >= Duration::from_millis(20));
    let reader = thread::spawn(move || tail.next(1, LONG).unwrap());
    commit(&mut journal, 1, &[event(1, 10)], 1);
    assert_eq!(positions(&reader.join().unwrap()), [1]);
}

#[test]
fn a_reader_keeps_up_with_appends_syncs_and_releases_on_other_threads() {
    const LAST: u64 = 3000;
    let directory = tempfile::TempDir::new().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(directory.path()).unwrap());
    let (mut journal, ..) = open(&disk, Mark::default(), 1).unwrap();
    let keeper = journal.keeper();
    let mut syncer = journal.syncer();
    let mut tail = keeper.tail(Position(0));
    let appender = thread::spawn(move || {
        for n in 1..=LAST {
            journal.append(1 + n / 50, &batch(&[event(n, 100)], n)).unwrap();
            // The others get their turn.
            if n % 16 == 0 {
                thread::yield_now();
            }
        }
        journal
    });
    let archived = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let upto = archived.clone();
    let is_done = move || upto.load(std::sync::atomic::Ordering::Acquire) == LAST;
    let syncing = thread::spawn(move || {
        while !is_done() {
            syncer.sync().unwrap();
        }
    });
    let mut next = 1;
    while next <= LAST {
        let tailed = tail.next(3000, LONG).unwrap();
        for tailed in &tailed.events {
            let Entry::Event { event, accounts } = event(next, 100) else { unreachable!() };
            assert_eq!((&tailed.event, &tailed.accounts), (&event, &accounts));
            next += 1;
        }
        assert_eq!(tailed.upto, Position(next - 1));
        keeper.release((next - 1) / 50, Some(Position(next - 1))).unwrap();
        keeper.prepare_spare().unwrap();
        archived.store(next - 1, std::sync::atomic::Ordering::Release);
    }
    appender.join().unwrap();
    syncing.join().unwrap();
    assert_eq!(keeper.segments(), 1, "all but the last were recycled");
}
