//! What a send says: a message, or what becomes of one that was said before.
//!
//! Invariants: what every server would refuse is refused here, while a person still sees it; what a send has besides kind and body travels
//! and is kept as the fields of the wire, so that a message without any of it is written and kept as it always was.

use bytes::Bytes;
use prost::Message as _;
use quail_protocol::id::{AccountId, MessageId, MessageRef, Origin, Position, Stamp};
use quail_protocol::limits::REACTION_BYTES_MAX;
use quail_protocol::v1::{self, changed, send};

use crate::publish::queue::Outgoing;
use crate::{Body, Error};

/// What a send says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// A message.
    Message {
        /// What it says.
        body: Body,
        /// The message that it answers: one of the same conversation.
        reply_to: Option<MessageRef>,
    },
    /// A change of a message.
    Change(Change),
}

/// What becomes of a message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It has another body. Only who sent the message can say so.
    Edit {
        /// The message, of whoever says so.
        id: MessageId,
        /// What it says from now on.
        body: Body,
    },
    /// It is gone for everybody. Only who sent the message can say so, and not for ever: see
    /// [`Client::delete_for_all`](crate::Client::delete_for_all).
    DeleteForAll {
        /// The message, of whoever says so.
        id: MessageId,
    },
    /// It is gone for the account that says so, on all of its devices, and for nobody else.
    DeleteForMe {
        /// The message.
        message: MessageRef,
    },
    /// The account that says so reacts to it.
    React {
        /// The message.
        message: MessageRef,
        /// With what: at most 32 bytes without NUL. Empty takes the reaction back.
        text: String,
    },
}

impl Change {
    /// Returns the message that is changed, if `by` says so.
    pub fn message(&self, by: AccountId) -> MessageRef {
        match self {
            Self::Edit { id, .. } | Self::DeleteForAll { id } => MessageRef { sender: by, id: *id },
            Self::DeleteForMe { message } | Self::React { message, .. } => *message,
        }
    }
}

impl From<Body> for Content {
    fn from(body: Body) -> Self {
        Self::Message { body, reply_to: None }
    }
}

impl From<Change> for Content {
    fn from(change: Change) -> Self {
        Self::Change(change)
    }
}

impl Content {
    /// Returns the text of a message, or `None` if it is a change or its body is of another kind.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Message { body, .. } => body.as_text(),
            Self::Change(_) => None,
        }
    }

    /// Checks what every server would refuse, and gives what is sent.
    pub(crate) fn into_outgoing(self, id: MessageId, recipient: AccountId) -> Result<Outgoing, Error> {
        let (kind, body, rest) = match self {
            Self::Message { body, reply_to } => {
                let (kind, body) = body.into_wire()?;
                let reply_to = reply_to.map(v1::MessageRef::from);
                (kind, body, v1::Send { reply_to, ..v1::Send::default() })
            }
            Self::Change(change) => {
                let change = Some(change.into_wire()?);
                (0, Bytes::new(), v1::Send { change, ..v1::Send::default() })
            }
        };
        Ok(Outgoing { id, recipient, kind, body, extra: rest.encode_to_vec().into() })
    }

    /// Reads what was put into the queue.
    pub(crate) fn of(kind: i32, body: &[u8], extra: &Bytes) -> Self {
        // Nobody writes what cannot be read; if it is so, the server says what is wrong.
        let rest = v1::Send::decode(extra.clone()).unwrap_or_default();
        match rest.change.and_then(Change::from_sent) {
            Some(change) => Self::Change(change),
            None => {
                let reply_to = rest.reply_to.as_ref().and_then(|named| MessageRef::try_from(named).ok());
                Self::Message { body: Body::from_wire(kind, body), reply_to }
            }
        }
    }
}

/// Returns whether what has this beside its body is a change.
pub(crate) fn is_change(extra: &Bytes) -> bool {
    !extra.is_empty() && v1::Send::decode(extra.clone()).is_ok_and(|rest| rest.change.is_some())
}

/// Returns whether what has this beside its body goes to the sender's own devices alone.
pub(crate) fn is_private(extra: &Bytes) -> bool {
    let is_private = |rest: v1::Send| matches!(rest.change, Some(send::Change::DeleteForMe(_)));
    !extra.is_empty() && v1::Send::decode(extra.clone()).is_ok_and(is_private)
}

impl Change {
    fn into_wire(self) -> Result<send::Change, Error> {
        Ok(match self {
            Self::Edit { id, body } => {
                let (kind, body) = body.into_wire()?;
                send::Change::Edit(v1::Edit { id: id.to_bytes(), kind, body })
            }
            Self::DeleteForAll { id } => send::Change::DeleteForAll(v1::DeleteForAll { id: id.to_bytes() }),
            Self::DeleteForMe { message: MessageRef { sender, id } } => {
                send::Change::DeleteForMe(v1::DeleteForMe { sender: sender.to_bytes(), id: id.to_bytes() })
            }
            Self::React { message: MessageRef { sender, id }, text } => {
                if text.len() > REACTION_BYTES_MAX {
                    return Err(Error::ReactionTooLong { len: text.len(), max: REACTION_BYTES_MAX });
                }
                if text.contains('\0') {
                    return Err(Error::TextHasNul);
                }
                let (sender, id) = (sender.to_bytes(), id.to_bytes());
                send::Change::React(v1::React { sender, id, text: text.into() })
            }
        })
    }

    fn from_sent(change: send::Change) -> Option<Self> {
        Self::from_wire(match change {
            send::Change::Edit(edit) => changed::Change::Edit(edit),
            send::Change::DeleteForAll(delete) => changed::Change::DeleteForAll(delete),
            send::Change::DeleteForMe(delete) => changed::Change::DeleteForMe(delete),
            send::Change::React(react) => changed::Change::React(react),
        })
    }

    /// Reads a change; one whose ids or text are none is none. What is kept is copied, as of bodies.
    fn from_wire(change: changed::Change) -> Option<Self> {
        Some(match change {
            changed::Change::Edit(edit) => {
                let body = Body::from_wire(edit.kind, &edit.body);
                Self::Edit { id: edit.id.as_ref().try_into().ok()?, body }
            }
            changed::Change::DeleteForAll(delete) => {
                Self::DeleteForAll { id: delete.id.as_ref().try_into().ok()? }
            }
            changed::Change::DeleteForMe(delete) => {
                Self::DeleteForMe { message: MessageRef::of(&delete.sender, &delete.id).ok()? }
            }
            changed::Change::React(react) => {
                let text = std::str::from_utf8(&react.text).ok()?.to_owned();
                Self::React { message: MessageRef::of(&react.sender, &react.id).ok()?, text }
            }
        })
    }
}

/// A message of a conversation of this account was changed, by the other one or by another device of this one.
///
/// Changes come in the order in which one device made them, and in no order with those of others, and may come without their
/// message. What they come to is the same in any order if [`Thread`](crate::Thread) applies them, or whoever does as it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Identity of the change, together with the sender.
    pub id: MessageId,
    /// Account that says so.
    pub sender: AccountId,
    /// The other account of the conversation. A change means no message of any other conversation, whatever it names.
    pub recipient: AccountId,
    /// Origin that accepted it.
    pub origin: Origin,
    /// Its position at the origin.
    pub position: Position,
    /// Of two edits of a message, and of two reactions of one account to it, the greater (stamp, origin) holds.
    pub stamp: Stamp,
    /// What becomes of which message.
    pub change: Change,
}

impl Changed {
    /// Reads a change; `None` if it is of a kind that this version does not know, or nobody could have said it.
    pub(crate) fn from_wire(event: &v1::Event, changed: &v1::Changed) -> Option<Self> {
        let sender = changed.sender.as_ref().try_into().ok()?;
        let recipient = changed.recipient.as_ref().try_into().ok()?;
        let change = Change::from_wire(changed.change.clone()?)?;
        let of = change.message(sender).sender;
        (of == sender || of == recipient).then_some(Self {
            id: changed.id.as_ref().try_into().ok()?,
            sender,
            recipient,
            origin: Origin(event.origin),
            position: Position(event.position),
            stamp: Stamp(event.stamp),
            change,
        })
    }

    /// Returns whether an account may be told of it: what somebody deletes for himself is nobody else's.
    pub(crate) fn is_for(&self, account: AccountId) -> bool {
        !matches!(self.change, Change::DeleteForMe { .. }) || self.sender == account
    }

    /// Returns the message that is changed.
    pub fn message(&self) -> MessageRef {
        self.change.message(self.sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: AccountId = AccountId([1; 16]);
    const BOB: AccountId = AccountId([2; 16]);
    const ID: MessageId = MessageId([7; 16]);

    fn sent(content: impl Into<Content>) -> Result<Outgoing, Error> {
        content.into().into_outgoing(MessageId([9; 16]), BOB)
    }

    #[test]
    fn what_is_queued_is_what_was_said() {
        let message = MessageRef { sender: BOB, id: ID };
        let contents = [
            Body::from("plain").into(),
            Content::Message { body: "reply".into(), reply_to: Some(message) },
            Change::Edit { id: ID, body: "edit".into() }.into(),
            Change::DeleteForAll { id: ID }.into(),
            Change::DeleteForMe { message }.into(),
            Change::React { message, text: "+".to_owned() }.into(),
            Change::React { message, text: String::new() }.into(),
        ];
        for content in contents {
            let Outgoing { kind, body, extra, .. } = sent(content.clone()).unwrap();
            assert_eq!(Content::of(kind, &body, &extra), content);
            assert_eq!(is_change(&extra), matches!(content, Content::Change(_)));
            assert_eq!(is_private(&extra), matches!(content, Content::Change(Change::DeleteForMe { .. })));
        }
        assert!(sent(Body::from("plain")).unwrap().extra.is_empty());
    }

    #[test]
    fn what_every_server_refuses_is_refused_here() {
        let message = MessageRef { sender: BOB, id: ID };
        let react = |text: &str| sent(Change::React { message, text: text.to_owned() }).map(drop);
        assert_eq!(react(&"x".repeat(REACTION_BYTES_MAX)), Ok(()));
        let error = Error::ReactionTooLong { len: REACTION_BYTES_MAX + 1, max: REACTION_BYTES_MAX };
        assert_eq!(react(&"x".repeat(REACTION_BYTES_MAX + 1)), Err(error));
        assert_eq!(react("a\0"), Err(Error::TextHasNul));
        assert_eq!(sent(Change::Edit { id: ID, body: "a\0".into() }).map(drop), Err(Error::TextHasNul));
    }

    #[test]
    fn what_nobody_could_say_is_not_read() {
        let event = v1::Event { origin: 1, position: 2, stamp: 3, body: None };
        let read = |sender: AccountId, change: Option<changed::Change>| {
            let (id, recipient) = (ID.to_bytes(), BOB.to_bytes());
            Changed::from_wire(&event, &v1::Changed { id, sender: sender.to_bytes(), recipient, change })
        };
        let react = |of: AccountId, text: &'static [u8]| {
            let (sender, id) = (of.to_bytes(), ID.to_bytes());
            Some(changed::Change::React(v1::React { sender, id, text: Bytes::from_static(text) }))
        };
        assert_eq!(read(ADA, react(BOB, b"+")).unwrap().message(), MessageRef { sender: BOB, id: ID });
        assert_eq!(read(ADA, react(AccountId([9; 16]), b"+")), None, "of another conversation");
        assert_eq!(read(ADA, react(BOB, b"\xff")), None);
        assert_eq!(read(ADA, None), None, "a kind of a later version");
    }
}
