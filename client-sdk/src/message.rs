//! Messages and events as an application sees them.

use bytes::Bytes;
use quail_protocol::id::{AccountId, MessageId, MessageRef, Origin, Position, Stamp};
use quail_protocol::limits::BODY_BYTES_MAX;
use quail_protocol::v1::{self, BodyKind};

use crate::{Changed, Error, Mark, Typing, Unread};

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Plain text: UTF-8 without NUL, at most 61,440 bytes; may be empty.
    Text(String),
    /// Bytes of a kind this version of the crate does not read. A server refuses kinds that it does not know either.
    Other {
        /// The kind's number in the protocol.
        kind: i32,
        /// The bytes, at most 61,440.
        bytes: Bytes,
    },
}

impl Body {
    /// Returns the text, or `None` if the body is of another kind.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other { .. } => None,
        }
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Other { bytes, .. } => bytes.len(),
        }
    }

    /// Returns whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks what every server would refuse, so that the caller learns it at once, and gives kind and bytes to send.
    pub(crate) fn into_wire(self) -> Result<(i32, Bytes), Error> {
        if self.len() > BODY_BYTES_MAX {
            return Err(Error::BodyTooLarge { len: self.len(), max: BODY_BYTES_MAX });
        }
        match self {
            Self::Text(text) if text.contains('\0') => Err(Error::TextHasNul),
            Self::Text(text) => Ok((BodyKind::PlainText as i32, text.into())),
            Self::Other { kind, bytes } => Ok((kind, bytes)),
        }
    }

    /// Takes a body over from a received frame. The bytes are copied: a body the application keeps must not keep the
    /// whole receive buffer alive.
    pub(crate) fn from_wire(kind: i32, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if kind == BodyKind::PlainText as i32 => Self::Text(text.to_owned()),
            _ => Self::Other { kind, bytes: Bytes::copy_from_slice(bytes) },
        }
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A message to or from this account; also those that its other devices sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Identity of the message, together with the sender.
    pub id: MessageId,
    /// Account that sent it.
    pub sender: AccountId,
    /// Account it is for.
    pub recipient: AccountId,
    /// Origin that accepted it.
    pub origin: Origin,
    /// Its position at the origin.
    pub position: Position,
    /// The message of the same sender before this one that this client handed out; or the position right before this one, if
    /// there was none or something was missed between. See [`Message::mark`].
    pub after: Position,
    /// Sorts a conversation: by (stamp, origin).
    pub stamp: Stamp,
    /// What it says.
    pub body: Body,
    /// The message that it answers: one of the same conversation, which this device may not have.
    pub reply_to: Option<MessageRef>,
}

impl Message {
    pub(crate) fn from_wire(event: &v1::Event, message: &v1::Message) -> Result<Self, Error> {
        let broken = |error: quail_protocol::id::IdLengthError| Error::protocol(format!("event: {error}"));
        Ok(Self {
            id: message.id.as_ref().try_into().map_err(broken)?,
            sender: message.sender.as_ref().try_into().map_err(broken)?,
            recipient: message.recipient.as_ref().try_into().map_err(broken)?,
            origin: Origin(event.origin),
            position: Position(event.position),
            after: Position(event.position.saturating_sub(1)),
            stamp: Stamp(event.stamp),
            body: Body::from_wire(message.kind, &message.body),
            // One that cannot be read is none: it takes nothing from what is said.
            reply_to: message.reply_to.as_ref().and_then(|named| MessageRef::try_from(named).ok()),
        })
    }

    /// Returns what names the message where it is answered or changed.
    pub fn reference(&self) -> MessageRef {
        MessageRef { sender: self.sender, id: self.id }
    }

    /// Returns the mark that says that this message was read, for [`Client::read`](crate::Client::read).
    ///
    /// The marks of messages that came one after the other become one by themselves. To mark many at once, widen that of the
    /// last one down to the [`after`](Message::after) of the first, if no [`Event::Gap`] came between.
    pub fn mark(&self) -> Mark {
        let Self { sender, origin, after, position, .. } = *self;
        Mark { sender, origin, after, upto: position }
    }
}

/// Messages between two accounts that were read, one of which is this client's: those that lie at `origin` above `after`, up
/// to and including `upto`. A message that was read stays so, whatever comes later, and was delivered too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadReceipt {
    /// Who sent the messages.
    pub sender: AccountId,
    /// Who has read them: another account, or this one on another of its devices.
    pub reader: AccountId,
    /// The origin of the messages.
    pub origin: Origin,
    /// Lower end, exclusive.
    pub after: Position,
    /// Upper end, inclusive.
    pub upto: Position,
}

impl ReadReceipt {
    /// Returns whether it covers a message from its sender to its reader that lies there.
    pub fn covers(&self, origin: Origin, position: Position) -> bool {
        self.origin == origin && self.after < position && position <= self.upto
    }
}

/// Something the feed brings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Message),
    /// A message was changed: edited, deleted, reacted to. To be acknowledged like a message, and shown once like one.
    Changed(Changed),
    /// The origin no longer holds the events of this stretch for this device: some messages may be missing.
    Gap {
        /// The origin.
        origin: Origin,
        /// First position of the stretch.
        from: Position,
        /// Last position of the stretch.
        upto: Position,
    },
    /// An event was given up, because three processes of this device ended within a minute after it was given to them, without
    /// an acknowledgement. The body is not given: it may
    /// be what they died of. Acknowledging lets what is behind it flow on, and tells the server, for which the message then
    /// is not delivered by this device.
    SetAside {
        /// The origin.
        origin: Origin,
        /// Its position at the origin.
        position: Position,
        /// Sender and id, if it is a message or a change.
        message: Option<(AccountId, MessageId)>,
    },
    /// Somebody has read messages of this account, or another device of this account has read somebody's. To be acknowledged
    /// like a message. Does not come to clients that only [watch receipts](crate::Client::watch_receipts).
    Read(ReadReceipt),
    /// Somebody is typing, or has stopped. Comes while it is true and not again; there is nothing to acknowledge.
    Typing(Typing),
    /// How much is unread in a conversation has changed. Comes after the client has asked for its list of conversations, until the
    /// connection is lost; there is nothing to acknowledge.
    Unread(Unread),
    /// Everything that waited when the feed was attached has been handed out. Comes once per attach, so again after
    /// every reconnect.
    CaughtUp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_server_refuses_is_refused_here() {
        assert_eq!(Body::from("a\0b").into_wire(), Err(Error::TextHasNul));
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        let error = Error::BodyTooLarge { len: BODY_BYTES_MAX + 1, max: BODY_BYTES_MAX };
        assert_eq!(Body::from(long).into_wire(), Err(error));
        assert!(Body::from("x".repeat(BODY_BYTES_MAX)).into_wire().is_ok());
        assert!(Body::from("").into_wire().is_ok());
    }

    #[test]
    fn text_that_is_no_utf_8_is_kept_as_bytes() {
        let body = Body::from_wire(BodyKind::PlainText as i32, &[0xff]);
        assert_eq!(body, Body::Other { kind: 1, bytes: Bytes::from_static(&[0xff]) });
    }
}
