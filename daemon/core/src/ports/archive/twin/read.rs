//! What the twin shows.

use quail_protocol::id::{AccountId, ConversationId, Origin, Position};
use quail_protocol::v1::BodyKind;

use super::super::{
    ArchiveError, ArchivedMessage, Browse, CONVERSATIONS_PAGE, Content, ConversationKey, ConversationPage,
    ConversationSummary, Found, MESSAGES_PAGE_MAX, Marker, Page, PageRoom, Place, Reached, ReadArchive,
    Search, SyncPage, Synced, UNREAD_MAX, hits, words,
};
use super::{Conversation, Kind, Row, Tables, TwinArchive};
use crate::ports::directory::PortFuture;

impl ReadArchive for TwinArchive {
    fn conversations(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
    ) -> PortFuture<'_, Result<ConversationPage, ArchiveError>> {
        Box::pin(async move { Ok(self.lock().page(account, after)) })
    }

    fn unread(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> PortFuture<'_, Result<u32, ArchiveError>> {
        Box::pin(async move {
            let tables = self.lock();
            tables.own(account, conversation).ok_or(ArchiveError::UnknownConversation)?;
            Ok(tables.unread(account, conversation))
        })
    }

    fn browse(
        &self,
        account: AccountId,
        conversation: ConversationId,
        which: Browse,
        limit: usize,
    ) -> PortFuture<'_, Result<Page<ArchivedMessage>, ArchiveError>> {
        Box::pin(async move {
            let tables = self.lock();
            tables.own(account, conversation).ok_or(ArchiveError::UnknownConversation)?;
            let mut rows = tables.shown(account, conversation);
            match which {
                Browse::Before(place) => {
                    rows.reverse();
                    rows.retain(|row| place.is_none_or(|place| row.place() < place));
                }
                Browse::After(place) => rows.retain(|row| place.is_none_or(|place| row.place() > place)),
            }
            let more = cut(&mut rows, limit, &mut PageRoom::default(), |row| row);
            Ok(Page { rows, more })
        })
    }

    fn sync(
        &self,
        account: AccountId,
        behind: Vec<(ConversationId, u64)>,
        limit: usize,
    ) -> PortFuture<'_, Result<Vec<SyncPage>, ArchiveError>> {
        Box::pin(async move {
            let tables = self.lock();
            let (mut room, mut pages) = (PageRoom::default(), Vec::new());
            for (conversation, seq) in behind {
                let synced = tables.synced(account, conversation, seq, limit, &mut room);
                if !pages.is_empty() && synced.is_cut_off() {
                    break;
                }
                pages.push(SyncPage { conversation, synced });
            }
            Ok(pages)
        })
    }

    fn search(
        &self,
        account: AccountId,
        search: Search,
    ) -> PortFuture<'_, Result<Page<Found>, ArchiveError>> {
        Box::pin(async move {
            let tables = self.lock();
            let mut among: Vec<_> = tables.conversations.keys().copied().collect();
            if let Some(one) = search.conversation {
                tables.own(account, one).ok_or(ArchiveError::UnknownConversation)?;
                among = vec![one];
            }
            among.retain(|conversation| tables.own(account, *conversation).is_some());
            let rows = among.into_iter().flat_map(|conversation| tables.shown(account, conversation));
            let mut found: Vec<_> = rows.filter_map(|row| matches(row, &search)).collect();
            found.sort_by_key(|found| std::cmp::Reverse(found.message.place()));
            let more = cut(&mut found, search.limit, &mut PageRoom::default(), |found| &found.message);
            Ok(Page { rows: found, more })
        })
    }

    fn archived_of(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        Box::pin(async move { Ok(self.lock().archived.get(&origin).copied()) })
    }
}

impl Tables {
    /// Returns a conversation of an account, and with whom it is.
    fn own(&self, account: AccountId, conversation: ConversationId) -> Option<(&Conversation, AccountId)> {
        let conversation = self.conversations.get(&conversation)?;
        let (one, other) = conversation.accounts?;
        if account == one {
            Some((conversation, other))
        } else {
            (account == other).then_some((conversation, one))
        }
    }

    fn page(&self, account: AccountId, after: Option<ConversationKey>) -> ConversationPage {
        let mut all: Vec<_> = self.conversations.keys().filter_map(|id| self.summary(account, *id)).collect();
        all.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        all.retain(|(key, _)| after.is_none_or(|after| *key < after));
        let is_more = all.len() > CONVERSATIONS_PAGE;
        all.truncate(CONVERSATIONS_PAGE);
        let next = all.last().map(|(key, _)| *key).filter(|_| is_more);
        ConversationPage { conversations: all.into_iter().map(|(_, summary)| summary).collect(), next }
    }

    fn summary(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> Option<(ConversationKey, ConversationSummary)> {
        let (found, peer) = self.own(account, conversation)?;
        // Sorted by what is there for everybody, so that both see the same order.
        let arrived = self.rows.values().filter_map(|row| row.message.as_ref());
        let mine = arrived.filter(|message| message.conversation() == conversation);
        let place = mine.map(|message| Place { stamp: message.stamp, origin: message.origin }).max()?;
        let summary = ConversationSummary {
            conversation,
            peer,
            seq: found.seq,
            last: self.shown(account, conversation).pop(),
            unread: self.unread(account, conversation),
            markers: self.markers_for(account, conversation),
        };
        Some((ConversationKey { place, conversation }, summary))
    }

    fn unread(&self, account: AccountId, conversation: ConversationId) -> u32 {
        let is_unread = |row: &ArchivedMessage| {
            let key = (conversation, account, Kind::Read, row.origin);
            let read = self.markers.get(&key).copied().unwrap_or(Position::ZERO);
            row.message.sender != account
                && row.position > read
                && matches!(row.content, Content::There { .. })
        };
        let unread = self.shown(account, conversation).iter().filter(|row| is_unread(row)).count();
        u32::try_from(unread).unwrap_or(u32::MAX).min(UNREAD_MAX)
    }

    fn markers_for(&self, asking: AccountId, conversation: ConversationId) -> Vec<Marker> {
        let mut markers: Vec<_> = self
            .markers
            .iter()
            .filter(|((of, ..), _)| *of == conversation)
            .filter_map(|((_, account, kind, origin), position)| {
                let reached = match kind {
                    Kind::Delivered => Reached::Delivered,
                    Kind::Read if *account == asking => Reached::Read,
                    Kind::ReadTold if *account != asking => Reached::Read,
                    Kind::Read | Kind::ReadTold => return None,
                };
                Some(Marker { account: *account, reached, origin: *origin, position: *position })
            })
            .collect();
        markers.sort_unstable();
        markers
    }

    /// Returns what an account sees of a conversation, the oldest first.
    fn shown(&self, account: AccountId, conversation: ConversationId) -> Vec<ArchivedMessage> {
        let rows = self.rows.values().filter(|row| !row.hidden.contains(&account));
        let rows = rows.filter_map(|row| archived(row, account));
        let mut rows: Vec<_> = rows.filter(|row| row.conversation == conversation).collect();
        rows.sort_by_key(ArchivedMessage::place);
        rows
    }

    fn synced(
        &self,
        account: AccountId,
        conversation: ConversationId,
        behind: u64,
        limit: usize,
        room: &mut PageRoom,
    ) -> Synced {
        let Some((found, _)) = self.own(account, conversation) else { return Synced::Unknown };
        if behind < found.floor || behind > found.seq {
            return Synced::Reload { seq: found.seq };
        }
        let rows = self.rows.values().filter_map(|row| archived(row, account));
        let mut rows: Vec<_> =
            rows.filter(|row| row.conversation == conversation && row.seq > behind).collect();
        rows.sort_by_key(|row| row.seq);
        let more = cut(&mut rows, limit, room, |row| row);
        let seq = match rows.last() {
            _ if !more => found.seq,
            Some(last) => last.seq,
            None => behind,
        };
        Synced::Changed { rows, seq, more }
    }
}

/// Cuts a page to its limit and its room; returns whether anything is left out.
fn cut<T>(rows: &mut Vec<T>, limit: usize, room: &mut PageRoom, of: impl Fn(&T) -> &ArchivedMessage) -> bool {
    let body = |row: &T| match &of(row).content {
        Content::There { body, .. } => body.len(),
        Content::Deleted | Content::DeletedForMe => 0,
    };
    let fitting =
        rows.iter().take(limit.min(MESSAGES_PAGE_MAX)).take_while(|row| room.take(body(row))).count();
    let more = rows.len() > fitting;
    rows.truncate(fitting);
    more
}

/// Returns a row as an account sees it; `None` while the message is not there.
fn archived(row: &Row, account: AccountId) -> Option<ArchivedMessage> {
    let new = row.message.as_ref()?;
    let (kind, body) = match &row.edit {
        Some((_, kind, body)) => (*kind, body.clone()),
        None => (new.kind, new.body.clone()),
    };
    let content = if row.hidden.contains(&account) {
        Content::DeletedForMe
    } else if row.is_deleted {
        Content::Deleted
    } else {
        Content::There { kind, body }
    };
    let is_there = matches!(content, Content::There { .. });
    let reactions = row.reactions.iter();
    let reactions = reactions.filter_map(|(who, (_, what))| Some((*who, what.clone()?)));
    Some(ArchivedMessage {
        message: new.message,
        conversation: new.conversation(),
        seq: row.seq,
        device: new.device,
        recipient: new.recipient,
        origin: new.origin,
        position: new.position,
        stamp: new.stamp,
        content,
        edited: row.edit.as_ref().map(|(place, ..)| place.stamp).filter(|_| is_there),
        reply: new.reply,
        reactions: reactions.filter(|_| is_there).collect(),
    })
}

fn matches(message: ArchivedMessage, search: &Search) -> Option<Found> {
    let Content::There { kind, body } = &message.content else { return None };
    if *kind != BodyKind::PlainText as i32 || search.terms.is_empty() {
        return None;
    }
    let (stamp, place) = (message.stamp, message.place());
    let is_meant = search.from.is_none_or(|from| from == message.message.sender)
        && search.since.is_none_or(|since| stamp >= since)
        && search.until.is_none_or(|until| stamp < until)
        && search.before.is_none_or(|before| place < before);
    if !is_meant {
        return None;
    }
    let words = words(std::str::from_utf8(body).ok()?);
    let mut highlights = Vec::new();
    for term in &search.terms {
        let hits = hits(&words, term);
        if hits.is_empty() {
            return None;
        }
        highlights.extend(hits);
    }
    highlights.sort_by_key(|range| (range.start, range.end));
    highlights.dedup();
    Some(Found { message, highlights })
}
