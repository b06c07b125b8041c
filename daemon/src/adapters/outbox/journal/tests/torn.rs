//! Torn ends and real damage, told apart; and what a stretch that is gone costs whom.

use super::lying::LyingDisk;
use super::*;
use crate::adapters::outbox::journal::entries::{Stub, put_batch};
use crate::adapters::outbox::journal::format::Link;
use crate::adapters::outbox::journal::survey::{FoundRecord, survey};
use crate::adapters::outbox::types::Lost;

/// A journal of `count` synced batches of two events each, positions 1 and 2, 3 and 4, ...
fn journal(count: u64) -> (LyingDisk, Journal) {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    for n in 1..=count {
        commit(&mut journal, 1, &pair(n), 2 * n);
    }
    (disk, journal)
}

fn pair(n: u64) -> [Entry; 2] {
    [event(2 * n - 1, 100), event(2 * n, 100)]
}

/// Where a batch lies.
fn record(disk: &LyingDisk, number: u64) -> (String, FoundRecord) {
    let survey = survey(disk).unwrap();
    let record = *survey.records.iter().find(|record| record.link.number == number).unwrap();
    (survey.files[record.file].name.clone(), record)
}

/// Overwrites bytes of a batch with others.
fn spoil(disk: &LyingDisk, number: u64, from: usize, len: usize) {
    let (name, record) = record(disk, number);
    let mut bytes = disk.bytes(&name);
    for byte in &mut bytes[record.offset + from..record.offset + from + len] {
        *byte = byte.wrapping_mul(31).wrapping_add(5) ^ 0x5a;
    }
    disk.set_bytes(&name, bytes);
}

/// Account, first and last position.
type Losses = Vec<(Option<AccountId>, u64, u64)>;

/// The losses among what is replayed, and the numbers of the batches that are whole.
fn found(batches: &[ReplayedBatch]) -> (Losses, Vec<u64>) {
    let mut lost = Vec::new();
    for entry in batches.iter().flat_map(|batch| &batch.entries) {
        if let Replayed::Lost(Lost { account, from, upto, .. }) = entry {
            lost.push((*account, from.0, upto.0));
        }
    }
    let whole = batches.iter().filter(|found| {
        let entries: Vec<_> = pair(found.number).into_iter().map(Replayed::Entry).collect();
        found.entries == entries
    });
    (lost, whole.map(|batch| batch.number).collect())
}

#[test]
fn a_write_torn_after_any_byte_is_cut_off_whole_batches_at_a_time() {
    let (disk, mut journal) = journal(2);
    let (name, before) = record(&disk, 2);
    let start = before.offset + before.length as usize;
    let old = disk.bytes(&name);
    // Three batches in one write, small enough for the same segment.
    let small = |n: u64| [Entry::Resolved { account: account(n as u8), upto: Position(n) }];
    for n in 3..=5 {
        journal.append(1, &batch(&small(n), 4)).unwrap();
    }
    journal.syncer().sync().unwrap();
    let (_, last) = record(&disk, 5);
    let end = last.offset + last.length as usize;
    assert_eq!(record(&disk, 3).1.offset, start);
    let new = disk.bytes(&name);
    for kept in start..=end {
        let mut bytes = old.clone();
        bytes[start..kept].copy_from_slice(&new[start..kept]);
        disk.set_bytes(&name, bytes);
        let (_, opened, batches) = open(&disk.copy().shared(), Mark::default(), 2).unwrap();
        assert_eq!(found(&batches[..2]), (vec![], vec![1, 2]));
        // What differs by one bit is whole again, so a batch may be there a byte early. It is there as it was.
        let whole = (kept - start) / 176;
        assert!((whole..=whole + 1).contains(&(batches.len() - 2)), "{} after {kept}", batches.len());
        for (n, found) in (3..).zip(&batches[2..]) {
            super::whole(n, 1, &small(n), 4, found);
        }
        assert!(opened.damage.iter().all(|damage| damage.is_mended), "{:?}", opened.damage);
        assert!(opened.damage.is_empty() || batches.len() - 2 > whole);
    }
    // Any of the three is missing: it goes, and what is behind it.
    for n in 3..=5 {
        disk.set_bytes(&name, new.clone());
        spoil(&disk, n, 0, 176);
        let (_, opened, batches) = open(&disk.copy().shared(), Mark::default(), 2).unwrap();
        assert_eq!((opened.damage, batches.len() as u64), (vec![], n - 1));
        assert_eq!(opened.last_number, n - 1);
    }
    // It is damage when a later write proves that it was durable.
    disk.set_bytes(&name, new);
    commit(&mut journal, 1, &pair(6), 12);
    spoil(&disk, 4, 0, 176);
    let (_, opened, batches) = open(&disk.shared(), Mark::default(), 2).unwrap();
    assert_eq!((opened.damage.len(), opened.last_number), (1, 6));
    // It gave no positions, so nothing is missing in an outbox.
    assert_eq!(found(&batches), (vec![], vec![1, 2, 6]));
}

#[test]
fn damage_in_the_middle_costs_what_it_hits_and_is_told_until_settled() {
    let table = 128;
    let heads = table + 2 * 16;
    let (first_head, second_head) = (heads, heads + 57 + 16 * 3 + 100);
    // Which bytes of batch 4 are spoilt, and who loses what. Its positions are 7, for accounts 0 and 1, and 8.
    let cases = [
        (0, 128, vec![(None, 7, 8)]),
        (table, 32, vec![(None, 7, 8)]),
        (first_head, 20, vec![(None, 7, 7)]),
        (heads + 57 + 16 * 2 + 40, 20, vec![(Some(account(0)), 7, 7), (Some(account(1)), 7, 7)]),
        (second_head, 20, vec![(None, 8, 8)]),
    ];
    for (from, len, lost) in cases {
        let (disk, _) = journal(8);
        spoil(&disk, 4, from, len);
        let expected = (lost, vec![1, 2, 3, 5, 6, 7, 8]);
        let (_, opened, batches) = open(&disk.shared(), Mark::default(), 2).unwrap();
        assert_eq!(found(&batches), expected, "bytes {from}");
        assert!(opened.damage.iter().all(|damage| damage.number == Some(4)), "{:?}", opened.damage);
        assert_eq!((opened.last_number, opened.last_position), (8, Position(16)));
        let (mut journal, opened, batches) = open(&disk.shared(), Mark::default(), 3).unwrap();
        assert_eq!((found(&batches), opened.damage), (expected, vec![]), "bytes {from}, once more");
        commit(&mut journal, 2, &pair(9), 18);
        let (_, _, batches) = open(&disk.shared(), settled(1), 4).unwrap();
        assert_eq!(found(&batches), (vec![], vec![9]));
    }
}

#[test]
fn losing_what_collapsed_an_outbox_is_told_to_everybody() {
    let (disk, mut journal) = journal(2);
    let collapsed = Entry::Collapsed { account: account(2), upto: Position(3) };
    let resolved = Entry::Resolved { account: account(2), upto: Position(3) };
    commit(&mut journal, 1, &[collapsed, resolved.clone()], 4);
    commit(&mut journal, 1, &pair(4), 8);
    spoil(&disk, 3, 128 + 2 * 16, 20);
    let (_, _, batches) = open(&disk.copy().shared(), Mark::default(), 2).unwrap();
    assert_eq!(found(&batches), (vec![(None, 1, 4)], vec![1, 2, 4]));
    assert_eq!(batches[2].entries[1], Replayed::Entry(resolved));
    // What only takes away is told again by whoever told it.
    spoil(&disk, 3, 128 + 2 * 16, 20 + 24);
    let (_, opened, batches) = open(&disk.shared(), Mark::default(), 2).unwrap();
    assert_eq!(found(&batches), (vec![(None, 1, 4)], vec![1, 2, 4]));
    assert_eq!((batches[2].entries.len(), opened.damage.len()), (1, 2));
}

#[test]
fn segments_that_are_gone_are_damage() {
    let (disk, _) = journal(20);
    let names = disk.segments();
    let numbers: Vec<Vec<u64>> = names
        .iter()
        .map(|name| (1..=20).filter(|number| record(&disk, *number).0 == *name).collect())
        .collect();
    assert!(numbers.len() >= 4);
    for (name, gone) in names.iter().zip(&numbers) {
        let (first, last) = (gone[0], gone[gone.len() - 1]);
        let disk = disk.copy();
        disk.lose(name);
        let (_, opened, batches) = open(&disk.shared(), Mark::default(), 2).unwrap();
        let whole: Vec<u64> = (1..=20).filter(|number| !gone.contains(number)).collect();
        if last == 20 {
            // Nothing that is left proves that the last segment was ever there. It was durable when its first batch was,
            // but a write that fills two segments looks the same.
            assert_eq!(found(&batches).1, whole);
            continue;
        }
        assert_eq!(found(&batches), (vec![(None, 2 * first - 1, 2 * last)], whole));
        assert_eq!(opened.last_number, 20);
        // Settled, it is no loss.
        let (_, opened, batches) = open(&disk.shared(), settled(1), 3).unwrap();
        assert_eq!((opened.damage, batches), (vec![], vec![]));
        assert_eq!(opened.last_number, 20);
    }
}

#[test]
fn what_was_copied_is_known_to_have_been_there() {
    let (disk, _) = journal(3);
    let mark = Mark { generation: 0, last_position: Position(2), last_stamp: Stamp(20) };
    let (_, opened, _) = open(&disk.shared(), mark, 2).unwrap();
    assert_eq!(opened.batches, 3);
    for name in disk.segments() {
        disk.lose(&name);
    }
    let (mut journal, opened, batches) = open(&disk.shared(), mark, 3).unwrap();
    assert_eq!(found(&batches), (vec![(None, 3, 6)], vec![]));
    assert_eq!((opened.last_number, opened.last_position, opened.damage.len()), (3, Position(6), 1));
    assert_eq!(journal.append(2, &batch(&pair(4), 8)).unwrap().number, 4);
    journal.syncer().sync().unwrap();
    let (_, _, batches) = open(&disk.shared(), mark, 4).unwrap();
    assert_eq!(found(&batches), (vec![(None, 3, 6)], vec![4]));
}

#[test]
fn numbers_go_on_behind_what_was_settled_and_is_gone() {
    let (disk, mut journal) = journal(9);
    let old = disk.segments();
    // One write, of which the first batch is torn: nothing is left but that it was there.
    for n in 10..=13 {
        journal.append(2, &batch(&pair(n), 2 * n)).unwrap();
    }
    journal.syncer().sync().unwrap();
    spoil(&disk, 10, 0, 128);
    for name in &old {
        let is_needed = (11..=13).any(|number| record(&disk, number).0 == *name);
        if !is_needed {
            disk.lose(name);
        }
    }
    let mark = Mark { generation: 1, last_position: Position(18), last_stamp: Stamp(180) };
    let (mut journal, opened, batches) = open(&disk.shared(), mark, 2).unwrap();
    assert_eq!((opened.last_number, opened.last_position, batches.len()), (9, Position(18), 0));
    assert_eq!(opened.torn.map(|torn| (torn.number, torn.records)), Some((10, 3)));
    assert_eq!(journal.append(2, &batch(&pair(10), 20)).unwrap().number, 10);
}

#[test]
fn a_journal_that_is_gone_goes_on_behind_the_mark() {
    let mark = Mark { generation: 3, last_position: Position(50), last_stamp: Stamp(60) };
    let (_, opened, batches) = open(&LyingDisk::default().shared(), mark, 1).unwrap();
    assert_eq!((opened.last_position, opened.last_stamp, opened.generation), (Position(50), Stamp(60), 3));
    assert_eq!((batches, opened.damage), (vec![], vec![]));
}

#[test]
fn old_records_of_a_recycled_segment_are_not_taken_for_new_ones() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    let keeper = journal.keeper();
    let mut appended = 0;
    for generation in 1..30 {
        for _ in 0..5 {
            appended += 1;
            // All of one length, so that an old record begins where a new one would.
            journal.append(generation, &batch(&[event(3 * appended, 100)], 3 * appended)).unwrap();
            journal.syncer().sync().unwrap();
        }
        keeper.release(generation - 1, None).unwrap();
        let disk = disk.copy();
        let (_, opened, batches) = open(&disk.shared(), settled(generation - 1), 2).unwrap();
        let numbers: Vec<u64> = batches.iter().map(|batch| batch.number).collect();
        assert_eq!(numbers, (appended - 4..=appended).collect::<Vec<_>>());
        assert_eq!((opened.damage, opened.torn), (vec![], None));
    }
    assert!(keeper.segments() <= 3 && keeper.spares() > 0, "recycled all the time");
}

#[test]
fn a_record_inside_of_a_message_is_nothing_to_who_does_not_know_the_epoch() {
    const EPOCH: u64 = 0xface;
    // Returns what is replayed when the search for records runs over a frame with a record of an epoch in it.
    let replayed = |epoch: u64| {
        let disk = LyingDisk::default();
        let (mut journal, ..) = open(&disk.shared(), Mark::default(), EPOCH).unwrap();
        commit(&mut journal, 1, &pair(1), 2);
        commit(&mut journal, 1, &pair(2), 4);
        let previous = Link { number: 2, generation: 1, position: Position(4), ..Link::default() };
        let stub = Stub { epoch, link: Link { number: 3, ..previous }, previous, durable: previous };
        // The frame begins 217 bytes behind its record, and a record is looked for at every eighth.
        let mut frame = vec![0; 7];
        put_batch(&mut frame, &stub, &[Entry::Resolved { account: account(1), upto: Position(99) }]);
        let note = Note::Receipt { account: account(1), after: Position(0), upto: Position(1) };
        let event = Arc::new(StoredEvent { position: Position(5), note, frame: frame.into() });
        commit(&mut journal, 1, &[Entry::Event { event, accounts: vec![account(1)].into() }], 5);
        // Its own header is spoilt, or it would not be searched.
        spoil(&disk, 3, 0, 128);
        open(&disk.shared(), Mark::default(), 2).unwrap()
    };
    for epoch in [0, 1, 2, EPOCH + 1] {
        let (_, opened, batches) = replayed(epoch);
        assert_eq!((found(&batches).1, opened.last_number), (vec![1, 2], 2));
    }
    let (_, opened, _) = replayed(EPOCH);
    assert_eq!(opened.last_number, 3, "who knows the epoch may forge; it is never told to anybody");
}
