//! The archive in memory: the reference for what every archive must do.
//!
//! It keeps what arrived, and works out what is to be seen when it is asked: slow, and plain enough to be believed.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quail_protocol::id::{AccountId, ConversationId, Origin, Position};

use super::{
    Advance, Applied, ArchiveBatch, ArchiveError, Change, ChangeKind, DeadLetter, Loser, MessageRef,
    NewMessage, Place, WriteArchive, direct,
};
use crate::ports::directory::PortFuture;

/// An archive in memory. Clones share what it holds.
#[derive(Clone, Default)]
pub struct TwinArchive {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Clone, Default)]
struct Tables {
    rows: BTreeMap<MessageRef, Row>,
    conversations: BTreeMap<ConversationId, Conversation>,
    markers: BTreeMap<(ConversationId, AccountId, Kind, Origin), Position>,
    archived: BTreeMap<Origin, Position>,
    dead: BTreeMap<u64, DeadLetter>,
    last_dead: u64,
}

#[derive(Clone, Default)]
struct Row {
    /// `None` until the message itself comes.
    message: Option<NewMessage>,
    /// For whom it is, by what was said first of it while it was not there.
    awaited_for: Option<AccountId>,
    seq: u64,
    edit: Option<(Place, i32, Bytes)>,
    is_deleted: bool,
    hidden: BTreeSet<AccountId>,
    reactions: BTreeMap<AccountId, (Place, Option<String>)>,
}

#[derive(Clone, Default)]
struct Conversation {
    /// Who is in it, once there is a message.
    accounts: Option<(AccountId, AccountId)>,
    seq: u64,
    floor: u64,
}

/// What a marker marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Delivered,
    Read,
    ReadTold,
}

impl TwinArchive {
    /// Returns an empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Tables are replaced as a whole, so they are whole whatever panicked.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteArchive for TwinArchive {
    fn apply<'a>(&'a self, batch: &'a ArchiveBatch) -> PortFuture<'a, Result<Applied, ArchiveError>> {
        Box::pin(async move {
            let mut tables = self.lock();
            let mut next = tables.clone();
            if let Some(origin) = batch.origin {
                if next.archived.get(&origin).is_some_and(|archived| *archived >= batch.upto) {
                    return Ok(Applied::default());
                }
                next.archived.insert(origin, batch.upto);
            }
            let applied = next.apply(batch)?;
            *tables = next;
            Ok(applied)
        })
    }

    fn archived(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        Box::pin(async move { Ok(self.lock().archived.get(&origin).copied()) })
    }

    fn dead(&self, after: u64, limit: u32) -> PortFuture<'_, Result<Vec<DeadLetter>, ArchiveError>> {
        Box::pin(async move {
            let tables = self.lock();
            let above = tables.dead.range(after.saturating_add(1)..);
            Ok(above.take(limit as usize).map(|(_, letter)| letter.clone()).collect())
        })
    }

    fn revive<'a>(
        &'a self,
        number: u64,
        batch: &'a ArchiveBatch,
    ) -> PortFuture<'a, Result<Option<Applied>, ArchiveError>> {
        Box::pin(async move {
            let mut tables = self.lock();
            let mut next = tables.clone();
            if next.dead.remove(&number).is_none() {
                return Ok(None);
            }
            let applied = next.apply(batch)?;
            *tables = next;
            Ok(Some(applied))
        })
    }

    fn drop_dead(&self, number: u64) -> PortFuture<'_, Result<bool, ArchiveError>> {
        Box::pin(async move { Ok(self.lock().dead.remove(&number).is_some()) })
    }
}

impl Tables {
    fn apply(&mut self, batch: &ArchiveBatch) -> Result<Applied, ArchiveError> {
        let mut applied = Applied::default();
        for message in &batch.messages {
            if message.position == Position::ZERO {
                return Err(ArchiveError::Refused { reason: "no event has the position 0".to_owned() });
            }
            self.message(message, &mut applied);
        }
        for change in &batch.changes {
            self.change(change);
        }
        for advance in &batch.advances {
            self.advance(advance);
        }
        for letter in &batch.dead {
            self.last_dead += 1;
            self.dead.insert(self.last_dead, DeadLetter { number: self.last_dead, ..letter.clone() });
        }
        Ok(applied)
    }

    fn message(&mut self, new: &NewMessage, applied: &mut Applied) {
        let row = self.rows.entry(new.message).or_default();
        let Some(old) = &row.message else {
            if row.awaited_for.is_some_and(|recipient| recipient != new.recipient) {
                *row = Row::default();
            }
            row.message = Some(new.clone());
            applied.inserted += 1;
            return self.touch(new.message, new.conversation(), new);
        };
        let is_same = old.hash() == new.hash();
        let is_smaller = (new.stamp, new.origin) < (old.stamp, old.origin);
        let is_replay = (new.stamp, new.origin, new.position) == (old.stamp, old.origin, old.position);
        if is_replay {
            return;
        }
        let (before, lost) = (old.conversation(), if is_smaller { old } else { new });
        if !is_same {
            let loser = Loser { message: new.message, origin: lost.origin, position: lost.position };
            applied.losers.push(loser);
        }
        if is_smaller {
            row.message = Some(new.clone());
            if before != new.conversation()
                && let Some(left) = self.conversations.get_mut(&before)
            {
                left.seq += 1;
                left.floor = left.seq;
            }
            self.touch(new.message, new.conversation(), new);
        }
    }

    fn touch(&mut self, message: MessageRef, conversation: ConversationId, new: &NewMessage) {
        let conversation = self.conversations.entry(conversation).or_default();
        conversation.accounts = Some((new.message.sender, new.recipient));
        conversation.seq += 1;
        if let Some(row) = self.rows.get_mut(&message) {
            row.seq = conversation.seq;
        }
    }

    fn change(&mut self, change: &Change) {
        if !change.is_from_inside() {
            return;
        }
        let place = Place { stamp: change.stamp, origin: change.origin };
        let row = self.rows.entry(change.message).or_default();
        let awaited_for = *row.awaited_for.get_or_insert(change.recipient);
        if row.message.as_ref().map_or(awaited_for, |message| message.recipient) != change.recipient {
            return;
        }
        let is_news = match &change.kind {
            ChangeKind::Edit { kind, body } => {
                let is_later = !row.is_deleted && row.edit.as_ref().is_none_or(|(at, ..)| *at < place);
                if is_later {
                    row.edit = Some((place, *kind, body.clone()));
                }
                is_later
            }
            ChangeKind::DeleteForAll => !std::mem::replace(&mut row.is_deleted, true),
            ChangeKind::DeleteForMe { account } => row.hidden.insert(*account),
            ChangeKind::React { account, reaction } => {
                let is_later = row.reactions.get(account).is_none_or(|(at, _)| *at < place);
                if is_later {
                    row.reactions.insert(*account, (place, reaction.clone()));
                }
                is_later
            }
        };
        if is_news {
            let named = direct(change.message.sender, change.recipient);
            let conversation = row.message.as_ref().map_or(named, NewMessage::conversation);
            let conversation = self.conversations.entry(conversation).or_default();
            conversation.seq += 1;
            row.seq = conversation.seq;
        }
    }

    fn advance(&mut self, advance: &Advance) {
        let conversation = direct(advance.sender, advance.account);
        let said = [
            (Kind::Delivered, advance.delivered),
            (Kind::Read, advance.read),
            (Kind::ReadTold, advance.read_told),
        ];
        for (kind, position) in said {
            if let Some(position) = position {
                let key = (conversation, advance.account, kind, advance.origin);
                let marker = self.markers.entry(key).or_default();
                *marker = position.max(*marker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::ports::archive::conformance::archive_conformance;

    #[test]
    fn the_twin_conforms() {
        let mut suite = pin!(archive_conformance(async || Box::new(TwinArchive::new()) as _));
        // Nothing in memory is waited for.
        let polled = suite.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(())));
    }
}
