//! What the archive holds, as it travels.
//!
//! Invariant: a message as it travels is smaller than a frame by more than what surrounds it.

use quail_core::ports::archive::{ArchivedMessage, Content, Marker, Place, Reached};
use quail_protocol::id::{Origin, Stamp};
use quail_protocol::limits::PREVIEW_BYTES_MAX;
use quail_protocol::{text, v1};

/// Most reactions of one message that are shown.
const REACTIONS_MAX: usize = 32;

/// Most bytes of one reaction that are shown.
const REACTION_BYTES_MAX: usize = 64;

/// Returns a message as it travels.
pub(super) fn message(archived: ArchivedMessage) -> v1::ArchivedMessage {
    let (state, kind, body) = match archived.content {
        Content::There { kind, body } => (v1::ArchivedState::BodyThere, kind, body),
        Content::Deleted => (v1::ArchivedState::BodyDeleted, 0, bytes::Bytes::new()),
        Content::DeletedForMe => (v1::ArchivedState::BodyDeletedForMe, 0, bytes::Bytes::new()),
    };
    let reactions = archived.reactions.into_iter().take(REACTIONS_MAX);
    let reaction = |(account, reaction): (quail_protocol::id::AccountId, String)| v1::ArchivedReaction {
        account: account.to_bytes(),
        reaction: text::cut(&reaction, REACTION_BYTES_MAX).to_owned(),
    };
    v1::ArchivedMessage {
        id: archived.message.id.to_bytes(),
        sender: archived.message.sender.to_bytes(),
        recipient: archived.recipient.to_bytes(),
        origin: archived.origin.0,
        position: archived.position.0,
        stamp: archived.stamp.0,
        seq: archived.seq,
        state: state.into(),
        kind,
        body,
        cut: false,
        edited: archived.edited.map_or(0, |stamp| stamp.0),
        reply_sender: archived.reply.map(|reply| reply.sender.to_bytes()).unwrap_or_default(),
        reply_id: archived.reply.map(|reply| reply.id.to_bytes()).unwrap_or_default(),
        reactions: reactions.map(reaction).collect(),
    }
}

/// Returns as much of a message as a list shows.
pub(super) fn preview(archived: ArchivedMessage) -> v1::ArchivedMessage {
    let whole = message(archived);
    let end = match std::str::from_utf8(&whole.body) {
        Ok(body) => text::cut(body, PREVIEW_BYTES_MAX).len(),
        Err(_) => whole.body.len().min(PREVIEW_BYTES_MAX),
    };
    let cut = end < whole.body.len();
    v1::ArchivedMessage { body: whole.body.slice(..end), cut, reactions: Vec::new(), ..whole }
}

/// Returns a marker as it travels.
pub(super) fn marker(marker: Marker) -> v1::Marker {
    let kind = match marker.reached {
        Reached::Delivered => v1::ReceiptKind::Delivered,
        Reached::Read => v1::ReceiptKind::Read,
    };
    v1::Marker {
        account: marker.account.to_bytes(),
        kind: kind.into(),
        origin: marker.origin.0,
        position: marker.position.0,
    }
}

/// Returns a place as the archive knows it. No stamp is above the largest signed number, and SQL has no other ones.
pub(super) fn to_place(place: v1::Place) -> Place {
    let stamp = Stamp(place.stamp.min(i64::MAX.unsigned_abs()));
    Place { stamp, origin: Origin(place.origin) }
}

/// Returns a place as it travels.
pub(super) fn from_place(place: Place) -> v1::Place {
    v1::Place { stamp: place.stamp.0, origin: place.origin.0 }
}
