//! The form of a send: what is wrong with it whoever sends it, found before the core is asked.
//!
//! Invariant: what passes has ids of the right length and version, and texts that every client can show.

use bytes::Bytes;
use quail_core::{Content, ValidSend};
use quail_protocol::id::{AccountId, IdLengthError, MessageId, MessageRef, Stamp};
use quail_protocol::limits::{BODY_BYTES_MAX, REACTION_BYTES_MAX};
use quail_protocol::v1::{self, BodyKind, Reason};

/// Checks the form of a send.
pub(super) fn valid_send(send: v1::Send) -> Result<ValidSend, v1::Error> {
    let id = MessageId::try_from(&*send.id).map_err(malformed)?;
    let recipient = AccountId::try_from(&*send.recipient).map_err(malformed)?;
    version_7(id)?;
    let content = match send.change {
        None => {
            let kind = valid_body(send.kind, &send.body)?;
            let reply_to = send.reply_to.map(|message| named(&message.sender, &message.id)).transpose()?;
            Content::Message { kind, body: send.body, reply_to }
        }
        Some(_) if send.kind != 0 || !send.body.is_empty() || send.reply_to.is_some() => {
            return Err(Reason::Malformed.with_text("a change has no kind, body or reply of its own"));
        }
        Some(change) => valid_change(change)?,
    };
    Ok(ValidSend { id, recipient, content, seen: Stamp(send.seen) })
}

fn valid_change(change: v1::send::Change) -> Result<Content, v1::Error> {
    use v1::send::Change;
    Ok(match change {
        Change::Edit(v1::Edit { id, kind, body }) => {
            let id = own(&id)?;
            Content::Edit { id, kind: valid_body(kind, &body)?, body }
        }
        Change::DeleteForAll(v1::DeleteForAll { id }) => Content::DeleteForAll { id: own(&id)? },
        Change::DeleteForMe(v1::DeleteForMe { sender, id }) => {
            Content::DeleteForMe { message: named(&sender, &id)? }
        }
        Change::React(v1::React { sender, id, text }) => {
            if text.len() > REACTION_BYTES_MAX {
                let limit = format!("a reaction has {REACTION_BYTES_MAX} bytes at most");
                return Err(Reason::BodyInvalid.with_text(limit));
            }
            valid_text(&text)?;
            Content::React { message: named(&sender, &id)?, text }
        }
    })
}

/// The id of a message of whoever sends the change.
fn own(id: &Bytes) -> Result<MessageId, v1::Error> {
    version_7(MessageId::try_from(&**id).map_err(malformed)?)
}

fn named(sender: &Bytes, id: &Bytes) -> Result<MessageRef, v1::Error> {
    let message = MessageRef::of(sender, id).map_err(malformed)?;
    version_7(message.id)?;
    Ok(message)
}

fn malformed(error: IdLengthError) -> v1::Error {
    Reason::Malformed.with_text(error.to_string())
}

fn version_7(id: MessageId) -> Result<MessageId, v1::Error> {
    id.unix_ms().map(|_| id).ok_or_else(|| Reason::IdInvalid.error())
}

fn valid_body(kind: i32, body: &Bytes) -> Result<BodyKind, v1::Error> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Reason::BodyTooLarge.error());
    }
    match BodyKind::try_from(kind) {
        Ok(BodyKind::PlainText) => valid_text(body).map(|()| BodyKind::PlainText),
        Ok(BodyKind::Unspecified) | Err(_) => {
            Err(Reason::BodyInvalid.with_text(format!("unknown body kind {kind}")))
        }
    }
}

fn valid_text(text: &[u8]) -> Result<(), v1::Error> {
    match std::str::from_utf8(text) {
        Ok(text) if text.contains('\0') => Err(Reason::BodyInvalid.with_text("a text must not contain NUL")),
        Ok(_) => Ok(()),
        Err(error) => Err(Reason::BodyInvalid.with_text(format!("a text must be UTF-8: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use v1::send::Change;

    use super::*;

    fn v7() -> Bytes {
        let mut id = vec![0; 16];
        (id[6], id[8]) = (0x70, 0x80);
        id.into()
    }

    fn send() -> v1::Send {
        let (kind, body) = (BodyKind::PlainText as i32, "hi".into());
        v1::Send { number: 1, id: v7(), recipient: vec![2; 16].into(), kind, body, ..v1::Send::default() }
    }

    fn change(change: Change) -> v1::Send {
        v1::Send { kind: 0, body: Bytes::new(), change: Some(change), ..send() }
    }

    fn reason(send: v1::Send) -> Reason {
        valid_send(send).map_err(|error| error.reason()).unwrap_err()
    }

    #[test]
    fn each_bad_field_has_its_own_reason() {
        assert_eq!(reason(v1::Send { id: vec![1; 15].into(), ..send() }), Reason::Malformed);
        assert_eq!(reason(v1::Send { id: vec![1; 16].into(), ..send() }), Reason::IdInvalid);
        assert_eq!(reason(v1::Send { recipient: Default::default(), ..send() }), Reason::Malformed);
        assert_eq!(reason(v1::Send { kind: 9, ..send() }), Reason::BodyInvalid);
        assert_eq!(reason(v1::Send { body: vec![0xff].into(), ..send() }), Reason::BodyInvalid);
        assert_eq!(reason(v1::Send { body: "a\0".into(), ..send() }), Reason::BodyInvalid);
        let body = vec![b'a'; BODY_BYTES_MAX + 1].into();
        assert_eq!(reason(v1::Send { body, ..send() }), Reason::BodyTooLarge);
        let reply_to = Some(v1::MessageRef { sender: vec![2; 16].into(), id: vec![1; 16].into() });
        assert_eq!(reason(v1::Send { reply_to, ..send() }), Reason::IdInvalid);
        let reply_to = Some(v1::MessageRef { sender: Bytes::new(), id: v7() });
        assert_eq!(reason(v1::Send { reply_to, ..send() }), Reason::Malformed);
    }

    #[test]
    fn an_empty_and_a_longest_body_pass() {
        for len in [0, BODY_BYTES_MAX] {
            assert!(valid_send(v1::Send { body: vec![b'a'; len].into(), ..send() }).is_ok());
        }
    }

    #[test]
    fn what_an_edit_says_is_checked_as_a_body_is() {
        let edit = |id: Bytes, kind, body: Bytes| change(Change::Edit(v1::Edit { id, kind, body }));
        let text = BodyKind::PlainText as i32;
        assert_eq!(reason(edit(Bytes::new(), text, "a".into())), Reason::Malformed);
        assert_eq!(reason(edit(vec![1; 16].into(), text, "a".into())), Reason::IdInvalid);
        assert_eq!(reason(edit(v7(), 9, "a".into())), Reason::BodyInvalid);
        assert_eq!(reason(edit(v7(), text, "a\0".into())), Reason::BodyInvalid);
        assert_eq!(reason(edit(v7(), text, vec![0xff].into())), Reason::BodyInvalid);
        assert_eq!(reason(edit(v7(), text, vec![b'a'; BODY_BYTES_MAX + 1].into())), Reason::BodyTooLarge);
        assert!(valid_send(edit(v7(), text, "ä".into())).is_ok());
        let both = v1::Send { body: "hi".into(), ..edit(v7(), text, "a".into()) };
        assert_eq!(reason(both), Reason::Malformed);
        let reply_to = Some(v1::MessageRef { sender: vec![2; 16].into(), id: v7() });
        assert_eq!(reason(v1::Send { reply_to, ..edit(v7(), text, "a".into()) }), Reason::Malformed);
    }

    #[test]
    fn a_reaction_is_a_short_text() {
        let react =
            |text: Bytes| change(Change::React(v1::React { sender: vec![2; 16].into(), id: v7(), text }));
        for good in ["", "+", "\u{1f44d}\u{1f3fd}", &"x".repeat(REACTION_BYTES_MAX)] {
            assert!(valid_send(react(Bytes::copy_from_slice(good.as_bytes()))).is_ok(), "{good}");
        }
        for bad in [&b"a\0"[..], b"\xff", &[b'x'; REACTION_BYTES_MAX + 1]] {
            assert_eq!(reason(react(Bytes::copy_from_slice(bad))), Reason::BodyInvalid);
        }
    }

    /// A kind of change of a later version is nothing here, and so is the message around it.
    #[test]
    fn an_unknown_change_is_a_typed_error() {
        assert_eq!(reason(v1::Send { kind: 0, body: Bytes::new(), ..send() }), Reason::BodyInvalid);
    }
}
