//! What the server says of history, checked.

use quail_protocol::id::{AccountId, IdLengthError, MessageId, Origin, Position, Stamp};
use quail_protocol::v1;

use super::{
    Archived, Conversation, ConversationChange, ConversationFlags, Found, HistoryMessage, HistoryPlace,
    Marker, Remains, SyncState, SyncedConversation,
};
use crate::{Body, Error};

fn broken(error: IdLengthError) -> Error {
    Error::protocol(format!("history: {error}"))
}

fn account(bytes: &[u8]) -> Result<AccountId, Error> {
    bytes.try_into().map_err(broken)
}

fn message_id(bytes: &[u8]) -> Result<MessageId, Error> {
    bytes.try_into().map_err(broken)
}

pub(super) fn place(place: HistoryPlace) -> v1::Place {
    v1::Place { stamp: place.stamp.0, origin: place.origin.0 }
}

pub(super) fn change(
    peer: AccountId,
    change: ConversationChange,
    accepted: Option<v1::Cursor>,
) -> v1::SetConversation {
    let switch = |said: Option<bool>| match said {
        None => v1::Switch::Unspecified,
        Some(true) => v1::Switch::On,
        Some(false) => v1::Switch::Off,
    };
    v1::SetConversation {
        peer: peer.to_bytes(),
        muted: switch(change.muted).into(),
        pinned: switch(change.pinned).into(),
        put_away: switch(change.put_away).into(),
        accepted,
    }
}

pub(super) fn archived(archived: Option<v1::Archived>) -> Archived {
    let archived = archived.unwrap_or_default();
    let (origin, position) = (Origin(archived.origin), Position(archived.position));
    Archived { origin, position, behind: archived.behind }
}

pub(super) fn message(wire: v1::ArchivedMessage) -> Result<HistoryMessage, Error> {
    let content = match wire.state() {
        v1::ArchivedState::BodyThere => Remains::There(Body::from_wire(wire.kind, &wire.body)),
        v1::ArchivedState::BodyDeleted => Remains::Deleted,
        v1::ArchivedState::BodyDeletedForMe => Remains::DeletedForMe,
        v1::ArchivedState::Unspecified => Remains::Unknown,
    };
    let reply = match wire.reply_id.is_empty() {
        true => None,
        false => Some((account(&wire.reply_sender)?, message_id(&wire.reply_id)?)),
    };
    let reaction = |one: v1::ArchivedReaction| Ok((account(&one.account)?, one.reaction));
    Ok(HistoryMessage {
        id: message_id(&wire.id)?,
        sender: account(&wire.sender)?,
        recipient: account(&wire.recipient)?,
        origin: Origin(wire.origin),
        position: Position(wire.position),
        stamp: Stamp(wire.stamp),
        seq: wire.seq,
        content,
        is_cut: wire.cut,
        edited: (wire.edited > 0).then_some(Stamp(wire.edited)),
        reply,
        reactions: wire.reactions.into_iter().map(reaction).collect::<Result<_, Error>>()?,
    })
}

pub(super) fn conversation(wire: v1::Conversation) -> Result<Conversation, Error> {
    let marker = |marker: v1::Marker| {
        Ok(Marker {
            account: account(&marker.account)?,
            is_read: marker.kind >= v1::ReceiptKind::Read as i32,
            origin: Origin(marker.origin),
            position: Position(marker.position),
        })
    };
    Ok(Conversation {
        peer: account(&wire.peer)?,
        seq: wire.seq,
        last: wire.last.map(message).transpose()?,
        unread: wire.unread,
        markers: wire.markers.into_iter().map(marker).collect::<Result<_, Error>>()?,
        flags: ConversationFlags { muted: wire.muted, pinned: wire.pinned, put_away: wire.put_away },
    })
}

pub(super) fn synced(wire: v1::SyncedConversation) -> Result<SyncedConversation, Error> {
    let state = match wire.state() {
        v1::SyncState::SyncChanged => SyncState::Changed,
        v1::SyncState::SyncUnknown => SyncState::Unknown,
        v1::SyncState::SyncReload | v1::SyncState::Unspecified => SyncState::Reload,
    };
    let messages = wire.messages.into_iter().map(message).collect::<Result<_, Error>>()?;
    Ok(SyncedConversation { peer: account(&wire.peer)?, state, seq: wire.seq, messages })
}

pub(super) fn found(wire: v1::FoundMessage) -> Result<Found, Error> {
    let whole = wire.message.ok_or_else(|| Error::protocol("found, but no message"))?;
    let message = message(whole)?;
    let text = match &message.content {
        Remains::There(body) => body.as_text().unwrap_or_default(),
        _ => "",
    };
    let mut highlights: Vec<std::ops::Range<usize>> = Vec::new();
    for pair in wire.highlights.chunks_exact(2) {
        // Whoever shows them cuts the text there.
        let [start, end] = [pair[0] as usize, pair[1] as usize];
        let is_behind = highlights.last().is_none_or(|last| last.end <= start);
        if is_behind && start < end && text.get(start..end).is_some() {
            highlights.push(start..end);
        }
    }
    Ok(Found { message, highlights })
}
