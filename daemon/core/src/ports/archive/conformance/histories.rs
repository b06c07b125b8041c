//! Random histories: an archive and its twin are given the same, in the same batches, and show the same in every call.

use std::collections::BTreeMap;

use bytes::Bytes;
use quail_protocol::id::{AccountId, MessageId, Origin, Position, Stamp};

use super::{
    Archive, ArchiveBatch, Browse, Change, ChangeKind, Content, NewMessage, account, batch, message,
};
use crate::ports::archive::{
    Advance, ArchivedMessage, ConversationPage, ConversationSummary, MessageRef, Reached, ReadArchive,
    Search, Synced, Term, TwinArchive, UNREAD_MAX, WriteArchive, direct,
};

/// People who write to each other and to themselves.
const PEOPLE: u64 = 3;

/// Different ids, which name a message of each of them. Their times lie in four months.
const IDS: u64 = 30;

/// The time of the first id: the 20th of a January.
const BEGIN_MS: u64 = 1_768_867_200_000;

const DAY_MS: u64 = 86_400_000;

/// Random numbers, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn person(&mut self) -> u8 {
        self.below(PEOPLE) as u8 + 1
    }
}

/// Returns an id of version 7; three days lie between one and the next.
fn minted(sender: u8, id: u64) -> MessageRef {
    let mut bytes = [sender; 16];
    bytes[..6].copy_from_slice(&(BEGIN_MS + id * 3 * DAY_MS).to_be_bytes()[2..]);
    (bytes[6], bytes[8]) = (0x70, 0x80);
    MessageRef { sender: account(sender), id: MessageId(bytes) }
}

fn add(batch: &mut ArchiveBatch, chance: &mut Chance) {
    let (sender, other, id) = (chance.person(), chance.person(), chance.below(IDS));
    // Positions are unique at an origin, and stamps too: they follow from who sent what.
    let number = id * 4 + u64::from(sender);
    let stamp_ms = BEGIN_MS + id * 3 * DAY_MS + chance.below(80) * DAY_MS - 40 * DAY_MS;
    let stamp = Stamp(Stamp::from_ms(stamp_ms).0 + number);
    match chance.below(8) {
        0..4 => {
            let text = format!("message {id} of many");
            let new = message(sender, other, number, &text);
            let origin = Origin(1 + chance.below(2) as u32);
            batch.messages.push(NewMessage { message: minted(sender, id), origin, stamp, ..new });
        }
        4..6 => {
            let who = account(chance.person());
            let kind = match chance.below(5) {
                0 | 1 => {
                    let body = Bytes::from(format!("edit {}", chance.below(5)));
                    ChangeKind::Edit { kind: 1, body }
                }
                2 => ChangeKind::DeleteForAll,
                3 => ChangeKind::DeleteForMe { account: who },
                _ => {
                    let reaction = (chance.below(3) > 0).then(|| "+\0".to_owned());
                    ChangeKind::React { account: who, reaction }
                }
            };
            let (message, recipient) = (minted(sender, id), account(other));
            batch.changes.push(Change { message, recipient, origin: Origin(1), stamp, kind });
        }
        _ => {
            let upto = Position(chance.below(IDS * 4));
            batch.advances.push(Advance {
                sender: account(sender),
                account: account(other),
                origin: Origin(1 + chance.below(2) as u32),
                delivered: Some(upto),
                read: Some(upto),
                read_told: (chance.below(2) == 0).then_some(upto),
            });
        }
    }
}

/// What goes in together may be numbered in any order, and conversations without a message be listed or not.
fn comparable(mut page: ConversationPage) -> Vec<ConversationSummary> {
    page.conversations.retain(|summary| summary.last.is_some());
    for summary in &mut page.conversations {
        summary.seq = 0;
        if let Some(last) = &mut summary.last {
            last.seq = 0;
        }
    }
    page.conversations
}

/// Counts what is unread by looking at everything.
async fn counted(archive: &dyn Archive, asking: AccountId, summary: &ConversationSummary) -> u32 {
    let own =
        summary.markers.iter().filter(|marker| marker.account == asking && marker.reached == Reached::Read);
    let read: BTreeMap<_, _> = own.map(|marker| (marker.origin, marker.position)).collect();
    let rows = archive.browse(asking, summary.conversation, Browse::After(None), 100).await.unwrap();
    let unread = rows.rows.iter().filter(|row| {
        row.message.sender != asking
            && matches!(row.content, Content::There { .. })
            && read.get(&row.origin).is_none_or(|read| row.position > *read)
    });
    (unread.count() as u32).min(UNREAD_MAX)
}

/// Reads a conversation in small pages.
async fn paged(
    archive: &dyn Archive,
    asking: AccountId,
    peer: AccountId,
    is_down: bool,
) -> Vec<ArchivedMessage> {
    let (mut all, mut place) = (Vec::new(), None);
    loop {
        let which = if is_down { Browse::Before(place) } else { Browse::After(place) };
        let Ok(page) = archive.browse(asking, direct(asking, peer), which, 3).await else { return all };
        let Some(last) = page.rows.last() else { break };
        place = Some(last.place());
        all.extend(page.rows);
        if !page.more {
            break;
        }
    }
    all.iter_mut().for_each(|row| row.seq = 0);
    if is_down {
        all.reverse();
    }
    all
}

/// Reads a conversation by syncs of small pages, as a client does that has nothing; what comes again replaces what was there.
async fn synced(archive: &dyn Archive, asking: AccountId, peer: AccountId) -> Vec<ArchivedMessage> {
    let (mut rows, mut seq) = (BTreeMap::new(), 0);
    loop {
        let page = archive.sync(asking, vec![(direct(asking, peer), seq)], 3).await.unwrap();
        match &page[0].synced {
            Synced::Unknown => return Vec::new(),
            Synced::Reload { seq: now } => seq = *now,
            Synced::Changed { rows: some, seq: now, more } => {
                assert!(some.windows(2).all(|pair| pair[0].seq < pair[1].seq) && *now >= seq);
                rows.extend(some.iter().map(|row| (row.message, row.clone())));
                seq = *now;
                if !more {
                    break;
                }
            }
        }
    }
    rows.into_values().collect()
}

/// A history of up to 80 events in up to six batches ends as in the twin, for whoever asks.
pub async fn a_random_history_ends_as_in_the_twin(archive: &dyn Archive, seed: u64) {
    let (twin, mut chance) = (TwinArchive::new(), Chance(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9)));
    for upto in 1..=chance.below(6) + 1 {
        let mut batch = batch(upto, Vec::new());
        for _ in 0..chance.below(20) {
            add(&mut batch, &mut chance);
        }
        let (one, other) = (archive.apply(&batch).await.unwrap(), twin.apply(&batch).await.unwrap());
        assert_eq!((one.inserted, one.losers.len()), (other.inserted, other.losers.len()), "seed {seed}");
    }
    for asking in (1..=PEOPLE as u8).map(account) {
        let page = archive.conversations(asking, None).await.unwrap();
        for summary in &page.conversations {
            assert_eq!(counted(archive, asking, summary).await, summary.unread, "seed {seed}");
        }
        let of_twin = twin.conversations(asking, None).await.unwrap();
        assert_eq!(comparable(page), comparable(of_twin), "seed {seed}");
        for peer in (1..=PEOPLE as u8).map(account) {
            let expected = paged(&twin, asking, peer, false).await;
            for is_down in [false, true] {
                assert_eq!(paged(archive, asking, peer, is_down).await, expected, "seed {seed}");
            }
            let there = synced(archive, asking, peer).await;
            let hides = |row: &&ArchivedMessage| row.content != Content::DeletedForMe;
            let mut there: Vec<_> = there.iter().filter(hides).cloned().collect();
            there.sort_by_key(ArchivedMessage::place);
            there.iter_mut().for_each(|row| row.seq = 0);
            // What has left is told by a reload, after which only what comes then is told.
            let is_whole = there.len() == expected.len();
            assert!(!is_whole || there == expected, "seed {seed}");
        }
        for term in [Term::Phrase("message".to_owned()), Term::Prefix("ed".to_owned())] {
            let search = Search { terms: vec![term], limit: 100, ..Search::default() };
            let mut found = archive.search(asking, search.clone()).await.unwrap();
            let mut expected = twin.search(asking, search.clone()).await.unwrap();
            found.rows.iter_mut().chain(&mut expected.rows).for_each(|found| found.message.seq = 0);
            assert_eq!(found, expected, "seed {seed}");
            let mut first = archive.search(asking, Search { limit: 2, ..search }).await.unwrap();
            first.rows.iter_mut().for_each(|found| found.message.seq = 0);
            let expected = &expected.rows;
            assert_eq!(first.rows, expected[..expected.len().min(2)], "seed {seed}");
            assert_eq!(first.more, expected.len() > 2, "seed {seed}");
        }
    }
}
