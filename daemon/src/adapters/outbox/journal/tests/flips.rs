//! One flipped bit, anywhere: it is found, costs one frame at most, and never yields wrong bytes.

use std::ops::Range;

use super::lying::LyingDisk;
use super::*;
use crate::adapters::outbox::journal::check::{JournalReport, check};
use crate::adapters::outbox::journal::entries::{Stub, put_batch};
use crate::adapters::outbox::journal::format::{BATCH_HEADER, BatchHeader, Link};
use crate::adapters::outbox::journal::survey::survey;

type Appended = Vec<(u64, Vec<Entry>, u64)>;

/// A journal of two segments with records of all kinds, behind which older records of the same epoch lie.
fn journal() -> (LyingDisk, Appended, u64) {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 7).unwrap();
    let keeper = journal.keeper();
    // Three segments full of what is settled, to be recycled.
    let mut last = 0;
    while keeper.segments() < 4 {
        last += 1;
        commit(&mut journal, 1, &[event(last, 100)], last);
    }
    keeper.release(1, None).unwrap();
    let first = last + 1;
    let mut appended: Appended = Vec::new();
    let mut append = |journal: &mut Journal, entries: &dyn Fn(u64) -> Vec<Entry>| {
        let entries = entries(last + 1);
        last += 4;
        journal.append(2, &batch(&entries, last)).unwrap();
        appended.push((2, entries, last));
    };
    for _ in 0..3 {
        append(&mut journal, &|at| vec![event(at, 90), event(at + 1, 0), event(at + 2, 33)]);
        journal.syncer().sync().unwrap();
    }
    append(&mut journal, &others);
    append(&mut journal, &|_| Vec::new());
    journal.syncer().sync().unwrap();
    let resolved = Entry::Resolved { account: account(9), upto: Position(3) };
    append(&mut journal, &|at| vec![event(at, 60), resolved.clone()]);
    append(&mut journal, &|at| vec![event(at, 20)]);
    journal.syncer().sync().unwrap();
    (disk, appended, first)
}

fn look(disk: &LyingDisk) -> (JournalReport, Vec<ReplayedBatch>) {
    let mut found = Vec::new();
    let report = check(disk, settled(1), &mut |batch| found.push(batch)).unwrap();
    (report, found)
}

/// Where the batches that count and the headers of their segments lie.
fn counted(disk: &LyingDisk, first: u64) -> Vec<(String, Range<usize>)> {
    let survey = survey(disk).unwrap();
    let records = survey.records.iter().filter(|record| record.link.number >= first);
    let mut counted: Vec<_> = records
        .map(|record| {
            let name = survey.files[record.file].name.clone();
            (name, record.offset..record.offset + record.length as usize)
        })
        .collect();
    let names: std::collections::BTreeSet<_> = counted.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), 2);
    counted.extend(names.into_iter().map(|name| (name, 0..64)));
    counted
}

/// Returns how many events are lost; everything else must be there as it was.
fn lost(appended: &Appended, first: u64, found: &[ReplayedBatch]) -> usize {
    assert_eq!(found.len(), appended.len());
    let mut lost = 0;
    for (number, ((generation, entries, last), found)) in (first..).zip(appended.iter().zip(found)) {
        assert_eq!((found.number, found.generation), (number, *generation));
        assert_eq!((found.last_position, found.last_stamp), (Position(*last), Stamp(last * 10)));
        let mut rest = &*found.entries;
        for entry in entries {
            let Entry::Event { event, accounts } = entry else {
                let (next, behind) = rest.split_first().unwrap();
                assert_eq!(next, &Replayed::Entry(entry.clone()));
                rest = behind;
                continue;
            };
            if rest[0] == Replayed::Entry(entry.clone()) {
                rest = &rest[1..];
                continue;
            }
            lost += 1;
            for (account, found) in accounts.iter().zip(rest) {
                let Replayed::Lost(found) = found else { panic!("{found:?} for {entry:?}") };
                assert_eq!(
                    (found.account, found.from, found.upto),
                    (Some(*account), event.position, event.position)
                );
            }
            rest = &rest[accounts.len()..];
        }
        assert_eq!(rest, []);
    }
    lost
}

#[test]
fn a_flipped_bit_is_found_and_costs_only_the_frame_it_hits() {
    let (disk, appended, first) = journal();
    let (report, found) = look(&disk);
    assert_eq!((report.damage, report.torn), (vec![], None));
    assert_eq!(lost(&appended, first, &found), 0);
    let frames: Vec<Bytes> =
        appended.iter().flat_map(|(_, entries, _)| entries).filter_map(frame_of).collect();
    let (mut flips, mut in_frames) = (0, 0);
    for (name, range) in counted(&disk, first) {
        let bytes = disk.bytes(&name);
        let hits: Vec<Range<usize>> = frames
            .iter()
            .filter_map(|frame| {
                bytes.windows(frame.len()).position(|at| at == frame).map(|at| at..at + frame.len())
            })
            .collect();
        for at in range {
            let is_frame = hits.iter().any(|hit| hit.contains(&at));
            for bit in 0..8 {
                disk.flip(&name, at, bit);
                let (report, found) = look(&disk);
                assert!(!report.damage.is_empty(), "bit {bit} of byte {at} of {name} was not found");
                assert_eq!(report.torn, None, "bit {bit} of byte {at} of {name}");
                assert_eq!(lost(&appended, first, &found), usize::from(is_frame), "byte {at} of {name}");
                assert_eq!(report.damage.iter().all(|damage| damage.is_mended), !is_frame);
                disk.flip(&name, at, bit);
                flips += 1;
                in_frames += usize::from(is_frame);
            }
        }
    }
    assert!(flips > 15_000 && in_frames > 2_000, "{flips} flips, {in_frames} in frames");
}

fn frame_of(entry: &Entry) -> Option<Bytes> {
    match entry {
        Entry::Event { event, .. } if !event.frame.is_empty() => Some(event.frame.clone()),
        _ => None,
    }
}

#[test]
fn what_an_open_makes_of_a_flipped_bit_stays() {
    let (disk, appended, first) = journal();
    let mut random = random::Random::new(1);
    for (name, range) in counted(&disk, first) {
        for at in range {
            if !random.percent(10) {
                continue;
            }
            let disk = disk.copy();
            disk.flip(&name, at, random.below(8) as u8);
            let (_, seen) = look(&disk);
            let (_, opened, found) = open(&disk.shared(), settled(1), 8).unwrap();
            assert_eq!(found, seen);
            assert!(lost(&appended, first, &found) <= 1);
            assert!(!opened.damage.is_empty());
            // The copy has no damage any more, and what is lost is still told.
            let (_, opened, again) = open(&disk.shared(), settled(1), 9).unwrap();
            assert_eq!(opened.damage, []);
            let bytes = |batches: &[ReplayedBatch]| {
                let mut batches = batches.to_vec();
                batches.iter_mut().for_each(|batch| batch.bytes = 0);
                batches
            };
            assert_eq!(bytes(&again), bytes(&found));
        }
    }
}

#[test]
fn a_flipped_bit_where_nothing_counts_changes_nothing() {
    let (disk, _, first) = journal();
    let (clean, whole) = look(&disk);
    let counted = counted(&disk, first);
    let mut random = random::Random::new(2);
    for name in disk.segments() {
        for at in 0..SEGMENT {
            let counts = counted.iter().any(|(file, range)| *file == name && range.contains(&at));
            if counts || !random.percent(20) {
                continue;
            }
            let bit = random.below(8) as u8;
            disk.flip(&name, at, bit);
            let (report, found) = look(&disk);
            assert_eq!(found, whole, "byte {at} of {name}");
            assert_eq!((report.damage, report.torn), (clean.damage.clone(), None), "byte {at} of {name}");
            disk.flip(&name, at, bit);
        }
    }
}

#[test]
fn a_record_of_another_epoch_is_not_put_right_into_this_one() {
    let link = Link { number: 3, generation: 1, ..Link::default() };
    let stub = Stub { epoch: 5, link, previous: Link::default(), durable: Link::default() };
    let mut bytes = Vec::new();
    put_batch(&mut bytes, &stub, &others(1));
    for (at, bit) in (0..BATCH_HEADER).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << bit;
        let flipped = bytes.clone();
        for epoch in [4, 5 ^ 1, 7] {
            assert_eq!(BatchHeader::decode_mended(&mut bytes, epoch), None);
            assert_eq!(bytes, flipped, "and it is left as it is");
        }
        assert!(BatchHeader::decode_mended(&mut bytes, 5).is_some());
    }
}

#[test]
fn a_flipped_bit_in_the_pointer_is_put_right() {
    let (disk, appended, first) = journal();
    for (at, bit) in (0..64).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        disk.flip("epoch", at, bit);
        let (report, found) = look(&disk);
        assert_eq!(lost(&appended, first, &found), 0);
        assert_eq!(report.damage.len(), 1, "bit {bit} of byte {at}");
        disk.flip("epoch", at, bit);
    }
    disk.flip("epoch", 20, 0);
    disk.flip("epoch", 40, 0);
    let error = check(&disk, settled(1), &mut |_| {}).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    disk.lose("epoch");
    let error = open(&disk.shared(), settled(1), 8).map(|_| ()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}
