//! The values of the vectors of reading history.

use bytes::Bytes;
use quail_protocol::v1;

use super::{
    Vector, ada, ada_stamp, ada_wrote, bob, bob_stamp, bob_wrote, both_ways, open, receipt_stamp, response,
};

fn place(stamp: u64) -> Option<v1::Place> {
    Some(v1::Place { stamp, origin: 1 })
}

fn accepted() -> Option<v1::Cursor> {
    Some(v1::Cursor { origin: 1, position: 4712 })
}

fn archived(behind: bool) -> Option<v1::Archived> {
    Some(v1::Archived { origin: 1, position: 4712, behind })
}

pub(super) fn requests() -> Vec<Vector> {
    use v1::request::Command as C;
    let request = |command| open(v1::open::Stream::Request(v1::Request { command: Some(command) }));
    let key = v1::ConversationKey { place: place(ada_stamp()), peer: bob() };
    let next = v1::ListConversations { after: Some(key), accepted: accepted() };
    let newest = v1::BrowseHistory { peer: bob(), ..Default::default() };
    let newer = v1::BrowseHistory {
        direction: v1::Direction::Newer.into(),
        place: place(bob_stamp()),
        limit: 10,
        accepted: accepted(),
        ..newest.clone()
    };
    let peers = [bob(), ada()].concat().into();
    let sync = v1::SyncHistory { peers, seqs: vec![7, 300], limit: 100, accepted: accepted() };
    let search = v1::SearchHistory { text: "hel* from:ada".to_owned(), ..Default::default() };
    let search_in = v1::SearchHistory {
        text: "\"are you there\"".to_owned(),
        peer: bob(),
        before: place(ada_stamp()),
        limit: 20,
        accepted: accepted(),
    };
    let (on, off) = (v1::Switch::On.into(), v1::Switch::Off.into());
    let set = v1::SetConversation { peer: bob(), muted: on, pinned: off, put_away: on, accepted: accepted() };
    vec![
        both_ways("open_request_set_conversation", request(C::SetConversation(set))),
        both_ways("open_request_conversations", request(C::Conversations(Default::default()))),
        both_ways("open_request_conversations_next", request(C::Conversations(next))),
        both_ways("open_request_history", request(C::History(newest))),
        both_ways("open_request_history_newer", request(C::History(newer))),
        both_ways("open_request_sync", request(C::Sync(sync))),
        both_ways("open_request_search", request(C::Search(search))),
        both_ways("open_request_search_in", request(C::Search(search_in))),
    ]
}

fn from_ada() -> v1::ArchivedMessage {
    v1::ArchivedMessage {
        id: ada_wrote(),
        sender: ada(),
        recipient: bob(),
        origin: 1,
        position: 4712,
        stamp: ada_stamp(),
        seq: 8,
        state: v1::ArchivedState::BodyThere.into(),
        kind: v1::BodyKind::PlainText.into(),
        body: Bytes::from_static(b"hello, bob"),
        ..Default::default()
    }
}

fn from_bob(state: v1::ArchivedState) -> v1::ArchivedMessage {
    v1::ArchivedMessage {
        id: bob_wrote(),
        sender: bob(),
        recipient: ada(),
        origin: 1,
        position: 4710,
        stamp: bob_stamp(),
        seq: 9,
        state: state.into(),
        ..Default::default()
    }
}

pub(super) fn responses() -> Vec<Vector> {
    use v1::response::Result as R;
    let marker = |account, kind: v1::ReceiptKind, position| v1::Marker {
        account,
        kind: kind.into(),
        origin: 1,
        position,
    };
    let last = v1::ArchivedMessage {
        kind: v1::BodyKind::PlainText.into(),
        body: Bytes::from_static(b"are you there?"),
        cut: true,
        ..from_bob(v1::ArchivedState::BodyThere)
    };
    let conversation = v1::Conversation {
        peer: bob(),
        seq: 9,
        last: Some(last),
        unread: 2,
        markers: vec![
            marker(ada(), v1::ReceiptKind::Delivered, 4710),
            marker(bob(), v1::ReceiptKind::Read, 4712),
        ],
        ..Default::default()
    };
    let flags = v1::Conversation {
        peer: bob(),
        seq: 9,
        muted: true,
        pinned: true,
        put_away: true,
        ..Default::default()
    };
    let flags = v1::Conversations { conversations: vec![flags], next: None, archived: archived(false) };
    let conversations = v1::Conversations {
        conversations: vec![conversation],
        next: Some(v1::ConversationKey { place: place(bob_stamp()), peer: bob() }),
        archived: archived(false),
    };
    let changed = v1::ArchivedMessage {
        edited: receipt_stamp(),
        reply_sender: bob(),
        reply_id: bob_wrote(),
        reactions: vec![v1::ArchivedReaction { account: bob(), reaction: "\u{1f44d}".to_owned() }],
        ..from_ada()
    };
    let history = v1::History {
        messages: vec![changed, from_bob(v1::ArchivedState::BodyDeleted)],
        more: true,
        archived: archived(true),
    };
    let synced = |peer, state: v1::SyncState, seq| v1::SyncedConversation {
        peer,
        state: state.into(),
        seq,
        ..Default::default()
    };
    let with_bob = v1::SyncedConversation {
        more: true,
        messages: vec![from_bob(v1::ArchivedState::BodyDeletedForMe)],
        ..synced(bob(), v1::SyncState::SyncChanged, 9)
    };
    let others =
        [synced(ada(), v1::SyncState::SyncReload, 300), synced(ada(), v1::SyncState::SyncUnknown, 0)];
    let synced =
        v1::Synced { conversations: [vec![with_bob], others.to_vec()].concat(), archived: archived(false) };
    let found = v1::FoundMessage { message: Some(from_ada()), highlights: vec![0, 5, 7, 10] };
    let found = v1::SearchResults { found: vec![found], more: true, archived: archived(false) };
    vec![
        both_ways("response_conversations", response(R::Conversations(conversations))),
        both_ways("response_conversations_flags", response(R::Conversations(flags))),
        both_ways("response_history", response(R::History(history))),
        both_ways("response_synced", response(R::Synced(synced))),
        both_ways("response_found", response(R::Found(found))),
    ]
}
