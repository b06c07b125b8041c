//! Sync: what changed in conversations since a device looked last.
//!
//! All of them are one question to the archive, which ends early where an answer could not carry more anyway.

use quail_core::ports::archive::{Synced, direct};
use quail_core::ports::directory::SessionFacts;
use quail_protocol::id::AccountId;
use quail_protocol::limits::SYNC_CONVERSATIONS_MAX;
use quail_protocol::v1::{self, SyncState};

use super::page::Room;
use super::{History, QueryError, in_time, page_limit, peer, wire};

/// What a conversation takes of a frame beside its messages.
const CONVERSATION_BYTES: usize = 48;

/// Bytes of an account's id.
const PEER_BYTES: usize = 16;

impl History {
    /// Says what changed in conversations.
    ///
    /// # Errors
    /// `MALFORMED` for a list that is none or too long, `UNAUTHENTICATED`, `ARCHIVE_UNAVAILABLE`, `DIRECTORY_UNAVAILABLE`,
    /// `INTERNAL`.
    pub async fn sync(
        &self,
        session: &SessionFacts,
        asked: v1::SyncHistory,
    ) -> Result<v1::Synced, QueryError> {
        let behind = behind(&asked)?;
        let limit = page_limit(asked.limit);
        let archived = self.begin(session, asked.accepted).await?;
        let named = behind.iter().map(|(peer, seq)| (direct(session.account, *peer), *seq)).collect();
        let pages = in_time(self.archive.sync(session.account, named, limit)).await?;
        let (mut room, mut conversations) = (Room::new(), Vec::new());
        for ((peer, seq), found) in behind.into_iter().zip(pages) {
            if !room.take_bytes(CONVERSATION_BYTES) {
                break;
            }
            let (page, is_cut) = page(peer, seq, found.synced, &mut room);
            if is_cut && page.messages.is_empty() {
                // Its first message is for the next answer.
                break;
            }
            conversations.push(page);
            if is_cut {
                break;
            }
        }
        Ok(v1::Synced { conversations, archived: Some(archived) })
    }
}

/// Reads which conversations are asked for.
fn behind(asked: &v1::SyncHistory) -> Result<Vec<(AccountId, u64)>, QueryError> {
    let peers = asked.peers.chunks(PEER_BYTES);
    if peers.len() != asked.seqs.len() {
        return Err(QueryError::Malformed("a sync needs a seq for each peer".to_owned()));
    }
    if peers.len() > SYNC_CONVERSATIONS_MAX {
        return Err(QueryError::Malformed(format!("at most {SYNC_CONVERSATIONS_MAX} conversations")));
    }
    // What is above has the sign of a number that no archive gives.
    let seqs = asked.seqs.iter().map(|seq| (*seq).min(i64::MAX.unsigned_abs()));
    peers.zip(seqs).map(|(bytes, seq)| Ok((peer(bytes)?, seq))).collect()
}

/// Returns as much of a conversation's answer as there is room for, and whether something is left out.
fn page(peer: AccountId, behind: u64, synced: Synced, room: &mut Room) -> (v1::SyncedConversation, bool) {
    let without = |state: SyncState, seq| v1::SyncedConversation {
        peer: peer.to_bytes(),
        state: state.into(),
        seq,
        more: false,
        messages: Vec::new(),
    };
    match synced {
        Synced::Unknown => (without(SyncState::SyncUnknown, 0), false),
        Synced::Reload { seq } => (without(SyncState::SyncReload, seq), false),
        Synced::Changed { rows, seq, more } => {
            let (messages, is_cut) = room.fill(rows.into_iter().map(wire::message));
            let seq = if is_cut { messages.last().map_or(behind, |last| last.seq) } else { seq };
            let page = without(SyncState::SyncChanged, seq);
            (v1::SyncedConversation { more: more || is_cut, messages, ..page }, is_cut)
        }
    }
}
