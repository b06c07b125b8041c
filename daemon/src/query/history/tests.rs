//! Questions of history over the twin of the archive.

use std::sync::Arc;

use bytes::Bytes;
use quail_core::ports::archive::{
    ArchiveBatch, Change, ChangeKind, MessageRef, NewMessage, TwinArchive, WriteArchive,
};
use quail_core::ports::directory::{NewAccount, NewDevice, TwinDirectory};
use quail_protocol::frame;
use quail_protocol::id::{DeviceId, MessageId, Stamp};
use quail_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use quail_protocol::v1::{Direction, Reason, SyncState};

use super::*;

const HERE: Origin = Origin(1);

/// An archive with accounts 1, 2 and 3, each with the device of its number.
struct Room {
    history: History,
    archive: Arc<TwinArchive>,
    told: watch::Sender<Position>,
}

fn account(seed: u8) -> AccountId {
    AccountId([seed; 16])
}

fn session(account: u8, device: u8) -> SessionFacts {
    SessionFacts { account: self::account(account), device: DeviceId([device; 16]), handle: String::new() }
}

async fn room() -> Room {
    let directory = TwinDirectory::new();
    for (seed, handle) in [(1, "ada"), (2, "bob"), (3, "eve")] {
        let device = NewDevice {
            device: DeviceId([seed; 16]),
            name: String::new(),
            platform: String::new(),
            token_hash: [seed; 32],
        };
        let (handle, password_hash) = (handle.to_owned(), "hash".to_owned());
        let new = NewAccount { account: account(seed), handle, password_hash, invite_hash: None, device };
        directory.create_account(new, 10).await.unwrap();
    }
    let (archive, (told, archived)) = (Arc::new(TwinArchive::default()), watch::channel(Position::ZERO));
    let history = History {
        archive: archive.clone(),
        directory: Arc::new(directory),
        origin: HERE,
        archived,
        metrics: Arc::default(),
    };
    Room { history, archive, told }
}

impl Room {
    /// Archives a message.
    async fn has(&self, position: u64, from: u8, to: u8, body: impl Into<Bytes>) {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&position.to_be_bytes());
        let message = NewMessage {
            message: MessageRef { sender: account(from), id: MessageId(id) },
            device: DeviceId([from; 16]),
            recipient: account(to),
            origin: HERE,
            position: Position(position),
            stamp: Stamp::from_ms(position),
            kind: v1::BodyKind::PlainText as i32,
            body: body.into(),
            reply: None,
        };
        let batch = ArchiveBatch {
            origin: Some(HERE),
            upto: Position(position),
            messages: vec![message],
            ..ArchiveBatch::default()
        };
        self.archive.apply(&batch).await.unwrap();
        self.told.send_replace(Position(position));
    }

    async fn browse(&self, who: u8, asked: v1::BrowseHistory) -> v1::History {
        let page = self.history.browse(&session(who, who), asked).await.unwrap();
        let result = Some(v1::response::Result::History(page.clone()));
        assert!(frame::to_bytes(&v1::Response { result }).len() <= FRAME_BYTES_MAX, "it fits into a frame");
        page
    }
}

fn of(peer: u8) -> v1::BrowseHistory {
    v1::BrowseHistory { peer: account(peer).to_bytes(), ..Default::default() }
}

fn positions(page: &v1::History) -> Vec<u64> {
    page.messages.iter().map(|message| message.position).collect()
}

#[tokio::test]
async fn pages_go_both_ways_without_doubles_or_holes_and_a_million_is_a_hundred() {
    let room = room().await;
    for position in 1..=250 {
        room.has(position, 1 + (position % 2) as u8, 2 - (position % 2) as u8, "x").await;
    }
    for (direction, mut expected) in
        [(Direction::Older, (1..=250).rev().collect::<Vec<_>>()), (Direction::Newer, (1..=250).collect())]
    {
        let mut asked = v1::BrowseHistory { direction: direction.into(), limit: 1_000_000, ..of(2) };
        loop {
            let page = room.browse(1, asked.clone()).await;
            assert!(page.messages.len() <= HISTORY_PAGE_MAX);
            let rest = expected.split_off(page.messages.len());
            assert_eq!(positions(&page), expected);
            expected = rest;
            let Some(last) = page.messages.last() else { break };
            asked.place = Some(v1::Place { stamp: last.stamp, origin: last.origin });
        }
        assert!(expected.is_empty(), "{expected:?}");
    }
    assert_eq!(room.browse(1, of(2)).await.messages.len(), HISTORY_PAGE, "without a limit");
    let strange = v1::BrowseHistory { direction: 9, ..of(2) };
    let refused = room.history.browse(&session(1, 1), strange).await.unwrap_err().to_error();
    assert_eq!(refused.reason(), Reason::Malformed);
}

#[tokio::test]
async fn the_largest_messages_come_one_a_page() {
    let room = room().await;
    for position in 1..=3 {
        room.has(position, 1, 2, vec![b'a'; BODY_BYTES_MAX]).await;
    }
    let page = room.browse(2, of(1)).await;
    assert_eq!((positions(&page), page.more), (vec![3], true));
    let last = &page.messages[0];
    let place = Some(v1::Place { stamp: last.stamp, origin: last.origin });
    let page = room.browse(2, v1::BrowseHistory { place, ..of(1) }).await;
    assert_eq!((positions(&page), page.more), (vec![2], true));
    let listed = room.history.conversations(&session(2, 2), Default::default()).await.unwrap();
    let last = listed.conversations[0].last.clone().unwrap();
    assert!(last.cut && last.body.len() == 256 && listed.conversations[0].unread == 3);
}

#[tokio::test]
async fn what_is_not_mine_and_what_is_not_there_are_one_answer() {
    let room = room().await;
    room.has(1, 1, 2, "between us").await;
    for peer in [1, 2, 3, 9] {
        let browsed = room.history.browse(&session(3, 3), of(peer)).await;
        assert_eq!(browsed, Err(QueryError::UnknownConversation));
        let own = room.history.check_own(&session(3, 3), account(peer).as_bytes(), None).await;
        assert_eq!(own, Err(QueryError::UnknownConversation));
        let asked =
            v1::SearchHistory { text: "x".to_owned(), peer: account(peer).to_bytes(), ..Default::default() };
        let found = room.history.search(&session(3, 3), asked).await;
        assert_eq!(found, Err(QueryError::UnknownConversation));
    }
    // Where the archive may only be behind, that is not said.
    let accepted = Some(v1::Cursor { origin: HERE.0, position: 9 });
    let page = room.browse(3, v1::BrowseHistory { accepted, ..of(1) }).await;
    assert!(page.messages.is_empty() && !page.more && page.archived.unwrap().behind);
    let own = room.history.check_own(&session(3, 3), account(1).as_bytes(), accepted).await;
    assert!(matches!(own, Err(QueryError::ArchiveUnavailable { .. })));
    let listed = room.history.conversations(&session(3, 3), Default::default()).await.unwrap();
    assert!(listed.conversations.is_empty());
    for from in ["", "from:ada ", "from:nobody "] {
        let asked = v1::SearchHistory { text: format!("{from}between"), ..Default::default() };
        assert!(room.history.search(&session(3, 3), asked).await.unwrap().found.is_empty());
    }
    let peers = [account(1).to_bytes(), account(9).to_bytes()].concat().into();
    let asked = v1::SyncHistory { peers, seqs: vec![0, 0], ..Default::default() };
    let synced = room.history.sync(&session(3, 3), asked).await.unwrap().conversations;
    assert!(synced.iter().all(|one| one.state() == SyncState::SyncUnknown && one.messages.is_empty()));
    // Its own account, but no device of it any more.
    let gone = room.history.browse(&session(1, 9), of(2)).await;
    assert_eq!(gone.unwrap_err(), QueryError::Unauthenticated);
}

#[tokio::test]
async fn a_sync_that_does_not_fit_goes_on_where_it_ended() {
    let room = room().await;
    for position in 1..=40 {
        room.has(position, 2 + (position % 2) as u8, 1, vec![b'a'; 10_000]).await;
    }
    let mut known = [(account(2), 0), (account(3), 0), (account(9), 0)];
    let mut got = Vec::new();
    for _ in 0..40 {
        let peers = known.iter().map(|(peer, _)| peer.to_bytes()).collect::<Vec<_>>().concat();
        let seqs = known.iter().map(|(_, seq)| *seq).collect();
        let asked = v1::SyncHistory { peers: peers.into(), seqs, ..Default::default() };
        let synced = room.history.sync(&session(1, 1), asked).await.unwrap();
        let result = Some(v1::response::Result::Synced(synced.clone()));
        assert!(frame::to_bytes(&v1::Response { result }).len() <= FRAME_BYTES_MAX, "it fits into a frame");
        assert!(!synced.conversations.is_empty(), "it gets on");
        let is_done = synced.conversations.len() == 3 && synced.conversations.iter().all(|one| !one.more);
        for (one, known) in synced.conversations.iter().zip(&mut known) {
            assert_eq!(one.peer, known.0.to_bytes());
            got.extend(one.messages.iter().map(|message| message.position));
            known.1 = one.seq;
        }
        if is_done {
            break;
        }
    }
    got.sort_unstable();
    assert_eq!(got, (1..=40).collect::<Vec<_>>(), "each once");
    let asked = v1::SyncHistory { peers: account(2).to_bytes(), seqs: vec![u64::MAX], ..Default::default() };
    let synced = room.history.sync(&session(1, 1), asked).await.unwrap();
    assert_eq!(synced.conversations[0].state(), SyncState::SyncReload, "a seq that was never given");
    for (peers, seqs) in [(vec![1; 17], vec![1, 2]), (vec![1; 16], vec![]), (vec![1; 16 * 257], vec![1; 257])]
    {
        let asked = v1::SyncHistory { peers: peers.into(), seqs, ..Default::default() };
        let refused = room.history.sync(&session(1, 1), asked).await.unwrap_err();
        assert!(matches!(refused, QueryError::Malformed(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_sync_brings_tombstones_and_below_the_floor_it_says_to_reload() {
    let room = room().await;
    for position in 1..=3 {
        room.has(position, 1, 2, "x").await;
    }
    let sync = async |seq| {
        let asked = v1::SyncHistory { peers: account(1).to_bytes(), seqs: vec![seq], ..Default::default() };
        room.history.sync(&session(2, 2), asked).await.unwrap().conversations.remove(0)
    };
    assert_eq!(sync(3).await.messages, []);
    let reference = |position: u64| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&position.to_be_bytes());
        MessageRef { sender: account(1), id: MessageId(id) }
    };
    let change = |position, kind| Change {
        message: reference(position),
        recipient: account(2),
        origin: HERE,
        stamp: Stamp::from_ms(50),
        kind,
    };
    let hidden = ChangeKind::DeleteForMe { account: account(2) };
    let changes = vec![change(2, ChangeKind::DeleteForAll), change(3, hidden)];
    let batch = ArchiveBatch { changes, ..ArchiveBatch::default() };
    room.archive.apply(&batch).await.unwrap();
    let synced = sync(3).await;
    let states: Vec<_> =
        synced.messages.iter().map(|row| (row.position, row.state(), row.body.len())).collect();
    let (deleted, for_me) = (v1::ArchivedState::BodyDeleted, v1::ArchivedState::BodyDeletedForMe);
    assert_eq!((synced.state(), synced.seq), (SyncState::SyncChanged, 5));
    assert_eq!(states, [(2, deleted, 0), (3, for_me, 0)]);
    // An older copy under the same id, to somebody else, takes the message out of this conversation.
    let moved = NewMessage {
        message: reference(1),
        device: DeviceId([1; 16]),
        recipient: account(3),
        origin: Origin(2),
        position: Position(1),
        stamp: Stamp(0),
        kind: v1::BodyKind::PlainText as i32,
        body: "other".into(),
        reply: None,
    };
    let batch = ArchiveBatch { messages: vec![moved], ..ArchiveBatch::default() };
    room.archive.apply(&batch).await.unwrap();
    let synced = sync(5).await;
    assert_eq!((synced.state(), synced.seq, synced.messages.len()), (SyncState::SyncReload, 6, 0));
}

#[tokio::test]
async fn an_answer_waits_for_the_archive_and_says_when_it_waited_in_vain() {
    let room = room().await;
    room.has(7, 1, 2, "x").await;
    let asked = |position| {
        let accepted = Some(v1::Cursor { origin: HERE.0, position });
        room.browse(1, v1::BrowseHistory { accepted, ..of(2) })
    };
    let state = |position, behind| Some(v1::Archived { origin: HERE.0, position, behind });
    assert_eq!(asked(7).await.archived, state(7, false));
    let began = tokio::time::Instant::now();
    assert_eq!(asked(8).await.archived, state(7, true));
    assert!(began.elapsed() >= ARCHIVE_WAIT);
    let writing = async {
        // It is asked before: futures are polled in their order.
        room.has(8, 2, 1, "y").await;
    };
    let (page, ()) = tokio::join!(asked(8), writing);
    assert_eq!((page.archived, positions(&page)), (state(8, false), vec![8, 7]));
    let elsewhere = Some(v1::Cursor { origin: 5, position: 1 });
    let page = room.browse(1, v1::BrowseHistory { accepted: elsewhere, ..of(2) }).await;
    assert_eq!(page.archived, state(8, true), "of an origin that is not archived");
}

#[tokio::test]
async fn searches_of_every_operator_are_answered() {
    let room = room().await;
    room.has(1, 1, 2, "See you at eight").await;
    room.has(2, 2, 1, "eighty maps").await;
    room.has(3, 1, 3, "eight eve").await;
    let search = async |text: &str, peer: Bytes| {
        let asked = v1::SearchHistory { text: text.to_owned(), peer, ..Default::default() };
        let found = room.history.search(&session(1, 1), asked).await.unwrap().found;
        let position = |found: &v1::FoundMessage| found.message.as_ref().unwrap().position;
        (found.iter().map(position).collect::<Vec<_>>(), found)
    };
    assert_eq!(search("eight", Bytes::new()).await.0, [3, 1]);
    assert_eq!(search("eight*", account(2).to_bytes()).await.0, [2, 1]);
    assert_eq!(search("eight* from:@bob", Bytes::new()).await.0, [2]);
    assert_eq!(search("\"you at\" after:1970-01-01 before:1970-01-02", Bytes::new()).await.0, [1]);
    let (_, found) = search("eight", account(2).to_bytes()).await;
    assert_eq!(found[0].highlights, [11, 16]);
    let long = "a ".repeat(3_000);
    for text in ["", "*", "\"", "from:", "NEAR(a b)", "a AND (b OR", "body:x", "-", "from:nobody x", &long] {
        assert_eq!(search(text, Bytes::new()).await.0, [0; 0], "{text}");
    }
}
