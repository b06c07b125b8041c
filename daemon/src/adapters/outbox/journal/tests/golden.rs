//! The bytes of version 1. A change here is a change of the format: add a version instead.

use super::*;
use crate::adapters::outbox::journal::entries::{Loss, Record, Stub, put_batch};
use crate::adapters::outbox::journal::format::{BATCH_HEADER, Found, Link, Pointer, ROW, SegmentHeader};

fn hex(bytes: &[u8]) -> String {
    let lines =
        bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

fn link(n: u64) -> Link {
    let (position, stamp) = (Position(n + 2), Stamp(n + 3));
    Link { number: n, generation: n + 1, position, stamp, checksum: n as u32 + 4 }
}

#[test]
fn headers_of_version_1_stay_as_they_are() {
    let header = SegmentHeader {
        epoch: 0x0102_0304_0506_0708,
        sequence: 9,
        first_number: 300,
        previous_checksum: 0xaabb_ccdd,
    };
    let bytes = header.encode();
    assert_eq!(hex(&bytes), SEGMENT);
    assert_eq!(SegmentHeader::decode(&bytes), Found::Whole(header));
    let pointer = Pointer { epoch: 0x0102_0304_0506_0708, link: link(0x10) };
    let bytes = pointer.encode();
    assert_eq!(hex(&bytes), POINTER);
    assert_eq!(Pointer::decode(&bytes), Found::Whole(pointer));
}

#[test]
fn batches_of_version_1_stay_as_they_are() {
    let stub =
        Stub { epoch: 0x0102_0304_0506_0708, link: link(0x10), previous: link(0x0f), durable: link(3) };
    let mut bytes = Vec::new();
    put_batch(&mut bytes, &stub, &[Entry::Resolved { account: account(0xac), upto: Position(0x11) }]);
    assert_eq!(hex(&bytes), BATCH);
}

#[test]
fn entries_of_version_1_stay_as_they_are() {
    let stub = Stub { epoch: 1, link: link(2), previous: link(1), durable: link(1) };
    // Kind, head and frame of the only entry of a batch.
    let encoded = |bytes: &[u8]| {
        let (row, rest) = bytes[BATCH_HEADER..].split_at(ROW);
        let head = u32::from_le_bytes([row[0], row[1], row[2], 0]) as usize;
        let frame = u32::from_le_bytes([row[4], row[5], row[6], row[7]]) as usize;
        format!("{}\n{}\n{}", row[3], hex(&rest[..head]), hex(&rest[head..head + frame]))
    };
    let event = |note| {
        let event = StoredEvent { position: Position(0x11), note, frame: Bytes::from_static(b"xyz") };
        Entry::Event { event: Arc::new(event), accounts: vec![account(0xaa), account(0xbb)].into() }
    };
    let message = Note::Message { sender: account(1), device: device(2), recipient: account(3) };
    let receipt = Note::Receipt { account: account(4), after: Position(5), upto: Position(6) };
    let entries = [event(message), event(receipt)].into_iter().chain(others(0x11));
    let mut all: Vec<String> = entries
        .map(|entry| {
            let mut bytes = Vec::new();
            put_batch(&mut bytes, &stub, &[entry]);
            encoded(&bytes)
        })
        .collect();
    let mut bytes = Vec::new();
    let mut record = Record::begin(&mut bytes, 1);
    record.loss(&Loss { accounts: vec![account(0xaa)].into(), from: Position(7), upto: Position(8) });
    record.end(&stub);
    all.push(encoded(&bytes));
    for (found, expected) in all.iter().zip(ENTRIES) {
        assert_eq!(found.trim_end(), expected.trim_end());
    }
    assert_eq!(all.len(), ENTRIES.len());
}

#[test]
fn a_newer_version_is_named_and_refused() {
    let disk = lying::LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    commit(&mut journal, 1, &others(1), 1);
    let name = disk.segments().remove(0);
    for name in [&name, "epoch"] {
        let disk = disk.copy();
        let mut bytes = disk.bytes(name);
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        disk.set_bytes(name, bytes);
        let error = open(&disk.shared(), Mark::default(), 2).map(|_| ()).unwrap_err();
        assert_eq!(error, JournalError::Newer { name: name.to_owned(), version: 2, known: 1 });
        assert!(error.to_string().contains("a newer one wrote it"), "{error}");
    }
}

/// Magic, version, checksum before; epoch, sequence; first number; checksum.
const SEGMENT: &str = "\
515541494c53454701000000ddccbbaa\n\
08070605040302010900000000000000\n\
2c010000000000000000000000000000\n\
0000000000000000000000009f727f8c";

/// Magic, version, checksum of the batch; epoch, number; generation, position; stamp, checksum.
const POINTER: &str = "\
515541494c5054520100000014000000\n\
08070605040302011000000000000000\n\
11000000000000001200000000000000\n\
130000000000000000000000b85e9c4f";

/// Magic, length, epoch; the batch; the batch before; the durable one; checksum before, count, of the rows, of the header;
/// the row; the entry; zeros and the checksum again.
const BATCH: &str = "\
51424154b00000000807060504030201\n\
10000000000000001100000000000000\n\
12000000000000001300000000000000\n\
0f000000000000001000000000000000\n\
11000000000000001200000000000000\n\
03000000000000000400000000000000\n\
05000000000000000600000000000000\n\
1300000001000000e4dc0c3371c16199\n\
1800000500000000bbc1300700000000\n\
acacacacacacacacacacacacacacacac\n\
11000000000000000000000071c16199";

/// Kind, head, frame.
const ENTRIES: [&str; 9] = [
    "\
1\n\
11000000000000000101010101010101\n\
01010101010101010102020202020202\n\
02020202020202020203030303030303\n\
030303030303030303aaaaaaaaaaaaaa\n\
aaaaaaaaaaaaaaaaaabbbbbbbbbbbbbb\n\
bbbbbbbbbbbbbbbbbb\n\
78797a",
    "\
1\n\
11000000000000000204040404040404\n\
04040404040404040405000000000000\n\
00060000000000000000000000000000\n\
000000000000000000aaaaaaaaaaaaaa\n\
aaaaaaaaaaaaaaaaaabbbbbbbbbbbbbb\n\
bbbbbbbbbbbbbbbbbb\n\
78797a",
    "\
2\n\
05050505050505050505050505050505\n\
06000000000000000707070707070707\n\
07070707070707070808080808080808\n\
08080808080808081100000000000000\n\
0000110000000000",
    "\
3\n\
04040404040404040404040404040404\n\
05050505050505050505050505050505\n\
11000000000000000900000000000000\n\
0a00000000000000",
    "\
4\n\
04040404040404040404040404040404\n\
05050505050505050505050505050505",
    "\
5\n\
04040404040404040404040404040404\n\
1100000000000000",
    "\
6\n\
04040404040404040404040404040404\n\
1100000000000000",
    "\
7\n\
04040404040404040404040404040404\n\
1100000000000000",
    "\
8\n\
07000000000000000800000000000000\n\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];
