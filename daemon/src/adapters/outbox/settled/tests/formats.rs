//! The bytes of version 1. A change here is a change of the format: add a version instead.

use super::super::chunk;
use super::super::format::{self, AccountRow, Row, Settled, Sum, Sums};
use super::*;

/// Appends the checksum a row ends with.
fn sealed(tree: u8, key: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&[&[tree], key, &body].concat());
    body.extend(crc.to_le_bytes());
    body
}

#[test]
fn rows_of_version_1_stay_as_they_are() {
    let key = format::chunk_key(AccountId([7; 16]), Position(258));
    assert_eq!(key[..16], [7; 16]);
    assert_eq!(key[16..], [0, 0, 0, 0, 0, 0, 1, 2]);
    let row = Row { number: 3, pieces: 2, events: vec![(Position(258), 10), (Position(260), 300)] };
    let expected = sealed(b'i', &key, vec![1, 3, 2, 2, 0, 10, 2, 251, 44, 1]);
    assert_eq!(format::row(&key, Position(258), &row), expected);
    assert_eq!(format::parse_row(&key, &expected), Ok((AccountId([7; 16]), Position(258), row)));

    let key = format::device_key(AccountId([7; 16]), DeviceId([8; 16]));
    let record = DeviceRecord { cursor: Position(5), acked: Position(4), attach_number: 2 };
    let expected = sealed(b'd', &key, vec![1, 5, 4, 2]);
    assert_eq!(format::device(&key, &record), expected);
    assert_eq!(format::parse_device(&key, &expected), Ok(record));

    let key = format::send_key(DeviceId([8; 16]), 9);
    let mut expected = vec![1, 1, 6];
    expected.extend([6; 32]);
    expected.extend([6, 6]);
    let expected = sealed(b's', &key, expected);
    assert_eq!(format::sends(&key, &[send(6)]), expected);
    assert_eq!(format::parse_sends(&key, &expected), Ok(vec![send(6)]));

    let row = AccountRow { resolved: Position(2), collapsed: Some(Position(1)) };
    let expected = sealed(b'a', &[7; 16], vec![1, 2, 1, 1]);
    assert_eq!(format::account(&[7; 16], &row), expected);
    assert_eq!(format::parse_account(&[7; 16], &expected), Ok((AccountId([7; 16]), row)));

    let sum = |n| Sum { count: n, sum: n };
    let sums = Sums { index: sum(1), devices: sum(2), sends: sum(3), accounts: sum(4) };
    let settled = Settled { mark: mark(6, 8), next_number: 5, log_end: 9, sums };
    let expected = sealed(b'm', b"mark", vec![1, 6, 8, 8, 5, 9, 1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!(format::settled(&settled), expected);
    assert_eq!(format::parse_settled(&expected), Ok(settled));

    assert_eq!(format::spilling(7), sealed(b'm', b"spilling", vec![1, 7]));
    let lost = Lost { account: None, from: Position(1), upto: Position(9), what: "x".to_owned() };
    let expected = sealed(b'm', b"lost", vec![1, 4, 1, 0, 1, 9, 1, b'x']);
    assert_eq!(format::lost(4, std::slice::from_ref(&lost)), expected);
    assert_eq!(format::parse_lost(&expected), Ok((4, vec![lost])));
}

#[test]
fn chunks_of_version_1_stay_as_they_are() {
    let note = Note::Message {
        sender: AccountId([1; 16]),
        device: DeviceId([2; 16]),
        recipient: AccountId([3; 16]),
    };
    let message = StoredEvent { position: Position(258), note, frame: Bytes::from_static(b"ab") };
    let note = Note::Receipt { account: AccountId([4; 16]), after: Position(5), upto: Position(300) };
    let receipt = StoredEvent { position: Position(259), note, frame: Bytes::from_static(b"c") };
    let mut expected = vec![1];
    expected.extend([7; 16]);
    expected.extend([251, 2, 1, 2, 0, 2, 1, 1]);
    let crc = crc32fast::hash(&expected);
    expected.extend(crc.to_le_bytes());
    let mut put = |position: u64, note: Vec<u8>, frame: &[u8]| {
        let body = [&note, frame].concat();
        let covered = [&[7; 16][..], &position.to_be_bytes(), &body].concat();
        expected.extend(crc32fast::hash(&covered).to_le_bytes());
        expected.extend(body);
    };
    put(258, [[1].as_slice(), &[1; 16], &[2; 16], &[3; 16]].concat(), b"ab");
    let numbers = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 1, 44];
    put(259, [[2].as_slice(), &[4; 16], &numbers, &[0; 16]].concat(), b"c");
    let events = [Arc::new(message), Arc::new(receipt)];
    let encoded = chunk::encode(AccountId([7; 16]), &events);
    assert_eq!(encoded, expected);
    let row = Row { number: 1, pieces: 1, events: vec![(Position(258), 2), (Position(259), 1)] };
    let taken = chunk::take(AccountId([7; 16]), &row, &encoded, |_| true);
    assert_eq!(taken, [(Position(258), Ok(events[0].clone())), (Position(259), Ok(events[1].clone()))]);
    let piece: Vec<_> = chunk::pieces(b"ab").collect();
    assert_eq!(piece, [[1, 0, 0, b'a', b'b']]);
}

/// Whatever happens to a chunk below sled's own checksums, an event comes back as it was or not at all, and a flipped bit
/// costs one event.
#[test]
fn a_flipped_bit_in_a_chunk_costs_one_event() {
    let events: Vec<_> = (1..=20).map(|at| event(at * 3, 40)).collect();
    let owner = account(1);
    let chunk = chunk::encode(owner, &events);
    let row = Row { number: 1, pieces: 1, events: events.iter().map(|event| (event.position, 40)).collect() };
    for bit in 0..chunk.len() * 8 {
        let mut flipped = chunk.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let taken = chunk::take(owner, &row, &flipped, |_| true);
        let lost = taken.iter().filter(|(_, event)| event.is_err()).count();
        assert!(lost <= 1, "bit {bit} costs {lost} events");
        for ((at, taken), event) in taken.iter().zip(&events) {
            assert_eq!(*at, event.position);
            assert!(taken.as_ref().is_ok_and(|taken| taken == event) || taken.is_err());
        }
    }
}

#[test]
fn other_versions_and_short_values_are_named() {
    let newer = format::parse_settled(&[2, 0, 0, 0, 0, 0]).unwrap_err();
    assert_eq!(newer.to_string(), "mark of version 2, which a newer quaild may know");
    assert!(format::parse_settled(&[]).unwrap_err().is_damage());
    assert!(format::parse_chunk_key(&[0; 7]).unwrap_err().is_damage());
    let row = format::spilling(7);
    assert!(format::parse_spilling(&row[..row.len() - 1]).unwrap_err().is_damage());
    assert!(chunk::parse_piece(&[]).unwrap_err().is_damage());
}

#[test]
fn chunks_are_cut_at_their_limits() {
    let cut = |lens: &[usize]| {
        let events: Vec<_> = lens.iter().zip(1..).map(|(len, at)| event(at, *len)).collect();
        let cuts = chunk::cut(&events);
        for range in &cuts {
            let chunk = chunk::encode(account(1), &events[range.clone()]);
            let pieces = chunk::piece_count(account(1), &events[range.clone()]);
            assert_eq!(chunk::pieces(&chunk).count(), usize::from(pieces));
            assert_eq!(chunk::parse_head(&chunk).unwrap().pieces(), usize::from(pieces));
        }
        cuts
    };
    assert!(cut(&[]).is_empty());
    assert_eq!(cut(&[1; 129]), [0..128, 128..129]);
    assert_eq!(cut(&[10, 65_000, 10]), [0..1, 1..2, 2..3]);
    assert_eq!(cut(&[8_000, 8_000]), [0..1, 1..2]);
}
