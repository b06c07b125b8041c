//! Conversations: what the account that asks talks about, and how much of it is new.

use quail_core::ports::archive::{ConversationKey, ConversationSummary, direct};
use quail_core::ports::directory::{ConversationFlags, SessionFacts};
use quail_protocol::v1;

use super::{History, QueryError, in_time, peer, wire};

/// Most markers of one conversation in a list: those of the newest origins. Without a bound a page would not fit into a frame.
const MARKERS_MAX: usize = 16;

impl History {
    /// Lists conversations of the account of a session.
    ///
    /// # Errors
    /// `MALFORMED` for a key that is none, `UNAUTHENTICATED`, `ARCHIVE_UNAVAILABLE`, `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn conversations(
        &self,
        session: &SessionFacts,
        asked: v1::ListConversations,
    ) -> Result<v1::Conversations, QueryError> {
        let account = session.account;
        let after = asked.after.map(|key| {
            let place = key.place.map(wire::to_place);
            let place = place.ok_or_else(|| QueryError::Malformed("a key needs a place".to_owned()))?;
            Ok::<_, QueryError>(ConversationKey { place, conversation: direct(account, peer(&key.peer)?) })
        });
        let after = after.transpose()?;
        let archived = self.begin(session, asked.accepted).await?;
        let page = in_time(self.archive.conversations(account, after)).await?;
        let last_peer = page.conversations.last().map(|last| last.peer);
        let next = page.next.zip(last_peer).map(|(next, peer)| v1::ConversationKey {
            place: Some(wire::from_place(next.place)),
            peer: peer.to_bytes(),
        });
        let peers = page.conversations.iter().map(|one| one.peer).collect();
        let flags = self.directory.conversation_flags(account, peers).await?;
        let flags_of = |one: &ConversationSummary| flags.get(&one.peer).copied().unwrap_or_default();
        let conversations =
            page.conversations.into_iter().map(|one| conversation(flags_of(&one), one)).collect();
        Ok(v1::Conversations { conversations, next, archived: Some(archived) })
    }
}

fn conversation(flags: ConversationFlags, summary: ConversationSummary) -> v1::Conversation {
    let mut markers = summary.markers;
    markers.sort_by_key(|marker| std::cmp::Reverse(marker.origin));
    v1::Conversation {
        peer: summary.peer.to_bytes(),
        seq: summary.seq,
        last: summary.last.map(wire::preview),
        unread: summary.unread,
        markers: markers.into_iter().take(MARKERS_MAX).map(wire::marker).collect(),
        muted: flags.muted,
        pinned: flags.pinned,
        put_away: flags.put_away,
    }
}
