//! Whatever is appended comes back as it was.

use proptest::collection::vec;
use proptest::prelude::*;

use super::lying::LyingDisk;
use super::*;

fn id() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>()
}

fn note() -> impl Strategy<Value = Note> {
    prop_oneof![
        (id(), id(), id()).prop_map(|(sender, device, recipient)| Note::Message {
            sender: AccountId(sender),
            device: DeviceId(device),
            recipient: AccountId(recipient),
        }),
        (id(), any::<u64>(), any::<u64>()).prop_map(|(account, after, upto)| Note::Receipt {
            account: AccountId(account),
            after: Position(after),
            upto: Position(upto),
        }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let event = (any::<u64>(), note(), vec(any::<u8>(), 0..200), vec(id(), 0..5)).prop_map(
        |(position, note, frame, accounts)| Entry::Event {
            event: Arc::new(StoredEvent { position: Position(position), note, frame: frame.into() }),
            accounts: accounts.into_iter().map(AccountId).collect(),
        },
    );
    let sent = (id(), any::<u64>(), id(), id(), any::<(u64, u64)>()).prop_map(
        |(device, number, message, digest, (position, stamp))| Entry::Sent {
            device: DeviceId(device),
            send: RecentSend {
                number,
                id: MessageId(message),
                digest,
                position: Position(position),
                stamp: Stamp(stamp),
            },
        },
    );
    let device = (id(), id(), any::<(u64, u64, u64)>()).prop_map(
        |(account, device, (cursor, acked, attach_number))| {
            let record = DeviceRecord { cursor: Position(cursor), acked: Position(acked), attach_number };
            Entry::Device { account: AccountId(account), device: DeviceId(device), record }
        },
    );
    let rest = (id(), id(), any::<u64>(), 0..4).prop_map(|(account, device, position, kind)| {
        let (account, position) = (AccountId(account), Position(position));
        match kind {
            0 => Entry::DeviceGone { account, device: DeviceId(device) },
            1 => Entry::Resolved { account, upto: position },
            2 => Entry::Withdrawn { account, position },
            _ => Entry::Collapsed { account, upto: position },
        }
    });
    prop_oneof![3 => event, 1 => sent, 1 => device, 2 => rest]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_appended_comes_back(batches in vec((vec(entry(), 0..6), 1..3_u64), 1..12)) {
        let disk = LyingDisk::default();
        let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
        let (mut generation, mut appended, mut last) = (1, Vec::new(), 0);
        for (entries, step) in batches {
            (generation, last) = (generation + step - 1, last + step);
            match journal.append(generation, &batch(&entries, last)) {
                Ok(done) => {
                    prop_assert_eq!(done.number, appended.len() as u64 + 1);
                    appended.push((generation, entries, last));
                }
                Err(error) => prop_assert!(matches!(error, JournalError::TooLarge { .. }), "{}", error),
            }
        }
        journal.syncer().sync().unwrap();
        // As it was written, and as it was copied.
        for epoch in [2, 3] {
            let (_, opened, found) = open(&disk.shared(), Mark::default(), epoch).unwrap();
            prop_assert_eq!(opened.damage, []);
            prop_assert_eq!(found.len(), appended.len());
            for (number, ((generation, entries, last), found)) in (1..).zip(appended.iter().zip(&found)) {
                whole(number, *generation, entries, *last, found);
            }
        }
    }
}

#[test]
fn an_append_larger_than_a_segment_is_refused_and_the_next_goes_on() {
    let disk = LyingDisk::default();
    let (mut journal, ..) = open(&disk.shared(), Mark::default(), 1).unwrap();
    let fits = [event(3, SEGMENT - 64 - 128 - 16 - 57 - 16 - 4)];
    let large = [event(3, SEGMENT - 64 - 128 - 16 - 57 - 16 - 3)];
    let error = journal.append(1, &batch(&large, 3)).unwrap_err();
    assert_eq!(error, JournalError::TooLarge { bytes: SEGMENT - 56, max: SEGMENT - 64 });
    let appended = journal.append(1, &batch(&fits, 3)).unwrap();
    assert_eq!((appended.number, appended.bytes), (1, SEGMENT as u64 - 64));
    journal.syncer().sync().unwrap();
    let (_, _, found) = open(&disk.shared(), Mark::default(), 2).unwrap();
    whole(1, 1, &fits, 3, &found[0]);
}
