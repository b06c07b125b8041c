//! What an event of the journal means to the archive.
//!
//! A message is a row, and a change is what becomes of one (`change.rs`). A receipt raises markers: whose device acknowledged or read, whose messages, up to where. That something was
//! read is told to its sender only if the reader wants it; the event says so by the accounts it is for, or, where it is for none, by
//! its note.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quail_core::ports::archive::{Advance, ArchiveBatch, Change, DeadLetter, MessageRef, NewMessage};
use quail_core::ports::outbox::{Accounts, Note, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, Origin, Position, Stamp};
use quail_protocol::v1::{self, ReceiptKind};

use super::change::change;
use super::{JournalEvent, Lineage};

/// An event, understood.
#[derive(Clone, Debug)]
pub(super) struct Item {
    event: JournalEvent,
    origin: Option<Origin>,
    stamp: Option<Stamp>,
    what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// Nothing that is archived.
    Nothing,
    Message(NewMessage),
    Change(Change),
    Advance(Advance),
    /// It cannot be archived.
    Dead(String),
}

impl Item {
    /// Understands an event. One that cannot be understood is dead.
    pub(super) fn of(event: JournalEvent) -> Self {
        if let Note::Lost { .. } = event.event.note {
            return Self { event, origin: None, stamp: None, what: What::Nothing };
        }
        match v1::FeedDown::decode_length_delimited(event.event.frame.clone()) {
            Ok(v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(decoded)) }) => {
                let (origin, stamp) = (Origin(decoded.origin), Stamp(decoded.stamp));
                let what = understand(&event, decoded).unwrap_or_else(What::Dead);
                Self { event, origin: Some(origin), stamp: Some(stamp), what }
            }
            Ok(_) => Self::dead(event, "it is no event".to_owned()),
            Err(error) => Self::dead(event, format!("it cannot be decoded: {error}")),
        }
    }

    fn dead(event: JournalEvent, error: String) -> Self {
        Self { event, origin: None, stamp: None, what: What::Dead(error) }
    }

    /// Returns the same event as a dead letter.
    pub(super) fn buried(&self, reason: &str) -> Self {
        Self { what: What::Dead(reason.to_owned()), ..self.clone() }
    }

    pub(super) fn position(&self) -> Position {
        self.event.event.position
    }

    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// Returns why it cannot be archived, if it cannot.
    pub(super) fn error(&self) -> Option<&str> {
        match &self.what {
            What::Dead(error) => Some(error),
            _ => None,
        }
    }
}

/// Returns the batch of items. Markers of one account in one conversation become one.
pub(super) fn batch(lineage: &Lineage, items: &[Item], upto: Position) -> ArchiveBatch {
    let mut batch = ArchiveBatch { origin: Some(lineage.origin), upto, ..ArchiveBatch::default() };
    let mut advances = BTreeMap::new();
    for item in items {
        match &item.what {
            What::Nothing => {}
            What::Message(message) => batch.messages.push(message.clone()),
            What::Change(change) => batch.changes.push(change.clone()),
            What::Advance(advance) => {
                raise(&mut advances, *advance);
                for ancestor in inherited(lineage, advance) {
                    raise(&mut advances, ancestor);
                }
            }
            What::Dead(error) => batch.dead.push(letter(lineage, item, error)),
        }
    }
    batch.advances = advances.into_values().collect();
    batch
}

fn raise(advances: &mut BTreeMap<(AccountId, AccountId, Origin), Advance>, advance: Advance) {
    let key = (advance.sender, advance.account, advance.origin);
    let highest = advances.entry(key).or_insert(advance);
    highest.delivered = highest.delivered.max(advance.delivered);
    highest.read = highest.read.max(advance.read);
    highest.read_told = highest.read_told.max(advance.read_told);
}

/// Returns what an advance means for the origins that this one carries on: devices know what was taken over by its number, and the
/// archive has it under theirs.
fn inherited(lineage: &Lineage, advance: &Advance) -> Vec<Advance> {
    if advance.origin != lineage.origin {
        return Vec::new();
    }
    let of_ancestor = |(origin, last): &(Origin, Position)| {
        let capped = |position: Option<Position>| position.map(|position| position.min(*last));
        Advance {
            origin: *origin,
            delivered: capped(advance.delivered),
            read: capped(advance.read),
            read_told: capped(advance.read_told),
            ..*advance
        }
    };
    lineage.ancestors.iter().filter(|(_, last)| *last > Position::ZERO).map(of_ancestor).collect()
}

fn understand(journalled: &JournalEvent, event: v1::Event) -> Result<What, String> {
    let (position, origin) = (journalled.event.position, Origin(event.origin));
    match event.body {
        Some(v1::event::Body::Message(message)) => {
            let Note::Message { device, .. } = journalled.event.note else {
                return Err("a message without a note of its sender".to_owned());
            };
            let reply = message.reply_to.as_ref().map(|reply| named(&reply.sender, &reply.id)).transpose()?;
            Ok(What::Message(NewMessage {
                message: named(&message.sender, &message.id)?,
                device,
                recipient: account(&message.recipient)?,
                origin,
                position,
                stamp: Stamp(event.stamp),
                kind: message.kind,
                body: message.body,
                reply,
            }))
        }
        Some(v1::event::Body::Changed(changed)) => change(origin, Stamp(event.stamp), changed),
        Some(v1::event::Body::Receipt(receipt)) => advance(journalled, &receipt),
        None => Ok(What::Nothing),
    }
}

fn advance(journalled: &JournalEvent, receipt: &v1::Receipt) -> Result<What, String> {
    let reader = account(&receipt.account)?;
    // What says that messages were delivered names no sender where it goes to them.
    let sender = match (&receipt.sender[..], &journalled.accounts[..]) {
        ([], [to]) => *to,
        (sender, _) => account(sender)?,
    };
    let upto = Some(Position(receipt.upto));
    let (origin, account) = (Origin(receipt.origin), reader);
    let nothing = Advance { sender, account, origin, delivered: None, read: None, read_told: None };
    Ok(What::Advance(match receipt.kind() {
        ReceiptKind::Delivered => Advance { delivered: upto, ..nothing },
        ReceiptKind::Read => {
            let is_told = match &journalled.accounts[..] {
                [] => matches!(journalled.event.note, Note::Receipt { .. }),
                accounts => accounts.contains(&sender),
            };
            Advance { delivered: upto, read: upto, read_told: upto.filter(|_| is_told), ..nothing }
        }
        ReceiptKind::Unspecified => return Ok(What::Nothing),
    }))
}

pub(super) fn named(sender: &[u8], id: &[u8]) -> Result<MessageRef, String> {
    MessageRef::of(sender, id).map_err(|error| error.to_string())
}

pub(super) fn account(bytes: &[u8]) -> Result<AccountId, String> {
    AccountId::try_from(bytes).map_err(|error| error.to_string())
}

fn letter(lineage: &Lineage, item: &Item, error: &str) -> DeadLetter {
    DeadLetter {
        number: 0,
        origin: item.origin.unwrap_or(lineage.origin),
        position: item.position(),
        error: error.to_owned(),
        frame: item.event.event.frame.clone(),
        context: context(&item.event),
    }
}

/// Writes down what of an event is not in its frame: a version, the kind of its note, three ids of it, and its accounts.
fn context(journalled: &JournalEvent) -> Bytes {
    const ZEROS: [u8; 16] = [0; 16];
    let (kind, ids) = match &journalled.event.note {
        Note::Message { sender, device, recipient } => (1, [sender.0, device.0, recipient.0]),
        Note::Receipt { account, .. } => (2, [account.0, ZEROS, ZEROS]),
        Note::Lost { .. } => (3, [ZEROS; 3]),
    };
    let mut bytes = vec![1, kind];
    bytes.extend_from_slice(ids.as_flattened());
    for account in &journalled.accounts {
        bytes.extend_from_slice(account.as_bytes());
    }
    bytes.into()
}

/// Returns the event of a dead letter; `None` if its context is none that this daemon writes.
pub(super) fn of_letter(letter: &DeadLetter) -> Option<JournalEvent> {
    let (head, rest) = letter.context.split_at_checked(2)?;
    let ids: Vec<[u8; 16]> = rest.chunks(16).map(|id| id.try_into().ok()).collect::<Option<_>>()?;
    let [first, second, third, accounts @ ..] = &ids[..] else { return None };
    let note = match head {
        [1, 1] => Note::Message {
            sender: AccountId(*first),
            device: DeviceId(*second),
            recipient: AccountId(*third),
        },
        [1, 2] => Note::Receipt { account: AccountId(*first), after: Position::ZERO, upto: Position::ZERO },
        _ => return None,
    };
    let event = StoredEvent { position: letter.position, note, frame: letter.frame.clone() };
    let accounts: Accounts = accounts.iter().map(|id| AccountId(*id)).collect();
    Some(JournalEvent { event: Arc::new(event), accounts })
}
