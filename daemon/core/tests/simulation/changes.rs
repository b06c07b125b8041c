//! Changes as traffic: edits, deletions, reactions and replies among the messages, with every promise that messages have.
//!
//! What a send is, follows from its id, so that chance is drawn for nothing else and old seeds make the worlds they made.

use bytes::Bytes;
use prost::Message as _;
use quail_checker::fingerprint;
use quail_core::Content;
use quail_protocol::id::{AccountId, MessageId, MessageRef};
use quail_protocol::v1::{self, changed::Change, event::Body};

use crate::random::Random;

/// How many of a thousand sends are something other than a plain message.
const CHANGES: u64 = 300;

/// Returns what a send says that would have said `body`. `earlier` is a message of the sender's.
pub(crate) fn content(
    id: MessageId,
    (own, peer): (AccountId, AccountId),
    earlier: Option<MessageId>,
    body: Bytes,
) -> Content {
    let [.., a, b, c, d] = id.0;
    let mut random = Random::new(u64::from(u32::from_be_bytes([a, b, c, d])));
    let Some(earlier) = earlier.filter(|_| random.per_mille(CHANGES)) else {
        return Content::text(body);
    };
    let sender = if random.per_mille(500) { own } else { peer };
    let message = MessageRef { sender, id: earlier };
    let kind = v1::BodyKind::PlainText;
    match random.below(5) {
        0 => Content::Message { kind, body, reply_to: Some(message) },
        1 => Content::Edit { id: earlier, kind, body },
        2 => Content::DeleteForAll { id: earlier },
        3 => Content::DeleteForMe { message },
        _ => Content::React { message, text: Bytes::from_static(b"+") },
    }
}

/// Whether it is for the other devices of its sender alone.
pub(crate) fn is_private(content: &Content, (own, recipient): (usize, usize)) -> bool {
    matches!(content, Content::DeleteForMe { .. }) && own != recipient
}

/// An event that is a message or a change, as the checker wants to know it.
pub(crate) struct Said {
    pub(crate) id: MessageId,
    pub(crate) sender: AccountId,
    /// Whom it is for; nobody, if it is for the sender alone.
    pub(crate) recipient: Option<AccountId>,
    /// Of what it says, reply and change included.
    pub(crate) print: u64,
}

impl Said {
    pub(crate) fn of(body: &Body) -> Option<Self> {
        let (id, sender, recipient, print) = match body {
            Body::Message(message) => {
                let print = print_of(message.reply_to.as_ref(), None, &message.body);
                (&message.id, &message.sender, Some(&message.recipient), print)
            }
            Body::Changed(changed) => {
                let is_private = matches!(changed.change, Some(Change::DeleteForMe(_)));
                let is_hidden = is_private && changed.sender != changed.recipient;
                let recipient = Some(&changed.recipient).filter(|_| !is_hidden);
                let print = print_of(None, changed.change.clone(), b"");
                (&changed.id, &changed.sender, recipient, print)
            }
            Body::Receipt(_) => return None,
        };
        let account = |bytes: &Bytes| AccountId::try_from(&**bytes).unwrap();
        let id = MessageId::try_from(&**id).unwrap();
        Some(Self { id, sender: account(sender), recipient: recipient.map(account), print })
    }
}

/// The same of what is sent.
pub(crate) fn print(content: &Content) -> u64 {
    let change = match content {
        Content::Message { body, reply_to, .. } => {
            return print_of(reply_to.map(v1::MessageRef::from).as_ref(), None, body);
        }
        Content::Edit { id, kind, body } => {
            Change::Edit(v1::Edit { id: id.to_bytes(), kind: (*kind).into(), body: body.clone() })
        }
        Content::DeleteForAll { id } => Change::DeleteForAll(v1::DeleteForAll { id: id.to_bytes() }),
        Content::DeleteForMe { message } => Change::DeleteForMe(v1::DeleteForMe {
            sender: message.sender.to_bytes(),
            id: message.id.to_bytes(),
        }),
        Content::React { message, text } => Change::React(v1::React {
            sender: message.sender.to_bytes(),
            id: message.id.to_bytes(),
            text: text.clone(),
        }),
    };
    print_of(None, Some(change), b"")
}

fn print_of(reply_to: Option<&v1::MessageRef>, change: Option<Change>, body: &[u8]) -> u64 {
    let mut bytes = v1::Changed { change, ..v1::Changed::default() }.encode_to_vec();
    bytes.extend(reply_to.map(v1::MessageRef::encode_to_vec).unwrap_or_default());
    bytes.extend(body);
    fingerprint(&bytes)
}
