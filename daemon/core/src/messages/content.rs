//! What a send says: a message, or what becomes of one; whether it may be said, and as what it reaches devices.
//!
//! Whose message an edit or a deletion for all is of is nowhere in it: it is the sender's, so nobody can change what somebody else
//! said, and nothing has to be looked up to know. The core does not keep messages; whether the one that is named was ever sent
//! is for those to see who keep them.
//!
//! Invariant: a plain message has the digest that it had before there was anything else, for windows lie on disk.

use quail_protocol::event_frame::MessageEvent;
use quail_protocol::id::{AccountId, MessageId, MessageRef, Origin, Position, Stamp};
use quail_protocol::v1::{self, Reason};
use quail_protocol::{frame, limits};
use sha2::{Digest, Sha256};

use crate::command::{Content, ValidSend};

/// Where an event stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) origin: Origin,
    pub(super) position: Position,
    pub(super) stamp: Stamp,
}

impl Content {
    /// Returns how many bytes it has that somebody wrote.
    pub fn len(&self) -> usize {
        match self {
            Self::Message { body, .. } | Self::Edit { body, .. } | Self::React { text: body, .. } => {
                body.len()
            }
            Self::DeleteForAll { .. } | Self::DeleteForMe { .. } => 0,
        }
    }

    /// Returns whether nobody wrote a byte of it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether it is for the sender's own devices alone.
    pub(super) fn is_private(&self) -> bool {
        matches!(self, Self::DeleteForMe { .. })
    }

    /// Returns the message that it names by sender and id.
    fn names(&self) -> Option<MessageRef> {
        match self {
            Self::Message { reply_to, .. } => *reply_to,
            Self::DeleteForMe { message } | Self::React { message, .. } => Some(*message),
            Self::Edit { .. } | Self::DeleteForAll { .. } => None,
        }
    }
}

/// The first half of a SHA-256 over recipient and content: enough to tell whether two sends are the same.
pub(super) fn digest(send: &ValidSend) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(send.recipient.as_bytes());
    // Where the kind of a message stands, which is never negative, the others have a number of their own.
    let mut begin = |tag: i32| hash.update(tag.to_be_bytes());
    match &send.content {
        Content::Message { kind, body, reply_to: None } => {
            begin(*kind as i32);
            hash.update(body);
        }
        Content::Message { kind, body, reply_to: Some(message) } => {
            begin(-1);
            hash_reference(&mut hash, message);
            hash.update((*kind as i32).to_be_bytes());
            hash.update(body);
        }
        Content::Edit { id, kind, body } => {
            begin(-2);
            hash.update(id.as_bytes());
            hash.update((*kind as i32).to_be_bytes());
            hash.update(body);
        }
        Content::DeleteForAll { id } => {
            begin(-3);
            hash.update(id.as_bytes());
        }
        Content::DeleteForMe { message } => {
            begin(-4);
            hash_reference(&mut hash, message);
        }
        Content::React { message, text } => {
            begin(-5);
            hash_reference(&mut hash, message);
            hash.update(text);
        }
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

fn hash_reference(hash: &mut Sha256, message: &MessageRef) {
    hash.update(message.sender.as_bytes());
    hash.update(message.id.as_bytes());
}

/// Checks the time in the id, and whether this may be said of the message that is named.
pub(super) fn check(
    account: AccountId,
    send: &ValidSend,
    delete_for_all_ms: u64,
    now_ms: u64,
) -> Result<(), v1::Error> {
    check_id_time(send.id, now_ms)?;
    if let Content::DeleteForAll { id } = &send.content {
        let minted_ms = id.unix_ms().ok_or_else(|| Reason::IdInvalid.error())?;
        if minted_ms.saturating_add(delete_for_all_ms) < now_ms {
            return Err(Reason::TooLate.error());
        }
    }
    match send.content.names() {
        Some(message) if message.sender != account && message.sender != send.recipient => {
            Err(Reason::TargetInvalid.error())
        }
        _ => Ok(()),
    }
}

fn check_id_time(id: MessageId, now_ms: u64) -> Result<(), v1::Error> {
    let minted_ms = id.unix_ms().ok_or_else(|| Reason::IdInvalid.error())?;
    let oldest_ms = now_ms.saturating_sub(limits::ID_AGE_MAX.as_millis() as u64);
    let newest_ms = now_ms + limits::ID_AHEAD_MAX.as_millis() as u64;
    if (oldest_ms..=newest_ms).contains(&minted_ms) { Ok(()) } else { Err(Reason::IdTime.error()) }
}

/// Returns the frame as which it reaches devices.
pub(super) fn frame(account: AccountId, send: &ValidSend, at: At) -> bytes::Bytes {
    use v1::changed::Change;
    let At { origin, position, stamp } = at;
    let change = match &send.content {
        Content::Message { kind, body, reply_to } => {
            let (id, sender, recipient) = (send.id, account, send.recipient);
            let (kind, reply_to) = (*kind, *reply_to);
            let event = MessageEvent { origin, position, stamp, id, sender, recipient, kind, body, reply_to };
            return event.to_frame();
        }
        Content::Edit { id, kind, body } => {
            Change::Edit(v1::Edit { id: id.to_bytes(), kind: (*kind).into(), body: body.clone() })
        }
        Content::DeleteForAll { id } => Change::DeleteForAll(v1::DeleteForAll { id: id.to_bytes() }),
        Content::DeleteForMe { message: MessageRef { sender, id } } => {
            Change::DeleteForMe(v1::DeleteForMe { sender: sender.to_bytes(), id: id.to_bytes() })
        }
        Content::React { message: MessageRef { sender, id }, text } => {
            Change::React(v1::React { sender: sender.to_bytes(), id: id.to_bytes(), text: text.clone() })
        }
    };
    let (id, sender, recipient) = (send.id.to_bytes(), account.to_bytes(), send.recipient.to_bytes());
    let body = v1::event::Body::Changed(v1::Changed { id, sender, recipient, change: Some(change) });
    let event = v1::Event { origin: origin.0, position: position.0, stamp: stamp.0, body: Some(body) };
    frame::to_bytes(&v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(event)) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn send(content: Content) -> ValidSend {
        ValidSend { id: MessageId([1; 16]), recipient: AccountId([2; 16]), content, seen: Stamp(0) }
    }

    #[test]
    fn a_plain_message_has_the_digest_that_lies_on_disks() {
        let mut hash = Sha256::new();
        hash.update([2; 16]);
        hash.update(1_i32.to_be_bytes());
        hash.update(b"hi");
        assert_eq!(digest(&send(Content::text("hi")))[..], hash.finalize()[..16]);
    }

    #[test]
    fn contents_that_differ_in_anything_have_other_digests() {
        let kind = v1::BodyKind::PlainText;
        let (id, other) = (MessageId([7; 16]), MessageId([8; 16]));
        let message = |sender: u8, id| MessageRef { sender: AccountId([sender; 16]), id };
        let body = |text: &'static str| Bytes::from_static(text.as_bytes());
        let reply = |text, to| Content::Message { kind, body: body(text), reply_to: Some(to) };
        let contents = [
            Content::text("a"),
            Content::text(""),
            reply("a", message(1, id)),
            reply("a", message(2, id)),
            reply("a", message(1, other)),
            reply("b", message(1, id)),
            Content::Edit { id, kind, body: body("a") },
            Content::Edit { id, kind, body: body("b") },
            Content::Edit { id: other, kind, body: body("a") },
            Content::DeleteForAll { id },
            Content::DeleteForAll { id: other },
            Content::DeleteForMe { message: message(1, id) },
            Content::DeleteForMe { message: message(2, id) },
            Content::React { message: message(1, id), text: body("a") },
            Content::React { message: message(1, id), text: body("") },
            Content::React { message: message(2, id), text: body("a") },
        ];
        let mut digests: Vec<_> = contents.iter().map(|content| digest(&send(content.clone()))).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), contents.len());
    }
}
