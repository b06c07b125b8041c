//! What goes into the core and what comes out: commands, entries to make durable, effects to release after that.

use std::sync::Arc;

use bytes::Bytes;
use quail_protocol::id::{AccountId, DeviceId, MessageId, MessageRef, Origin, Position, Stamp};
use quail_protocol::v1;

use crate::ports::directory::AccountFacts;
use crate::ports::outbox::{Entry, StoredEvent, Stretch};
use crate::signals::{SignalCommand, SignalOut, UnreadCommand};

/// One connection of this process. It has one publish lane at the most, so it names that too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One feed lane: a connection may attach again, and what belongs to the older attach must not be taken for the newer one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeedId {
    /// The connection.
    pub connection: ConnectionId,
    /// The device's attach number.
    pub number: u64,
}

/// Names somebody who waits for a command to have been applied and made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A send whose fields have been checked for form; whether it is allowed is for the core to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidSend {
    /// The id of the message or the change; known to be a UUID version 7.
    pub id: MessageId,
    /// Whom it is for; of a change, the other account of the conversation.
    pub recipient: AccountId,
    /// What it says.
    pub content: Content,
    /// The largest stamp the sending device had seen.
    pub seen: Stamp,
}

/// What a send says. Ids of messages that are named are known to be UUIDs version 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A message.
    Message {
        /// What the body is.
        kind: v1::BodyKind,
        /// The body.
        body: Bytes,
        /// What it answers.
        reply_to: Option<MessageRef>,
    },
    /// A message of the sender's has another body.
    Edit {
        /// Which.
        id: MessageId,
        /// What the body is.
        kind: v1::BodyKind,
        /// The body.
        body: Bytes,
    },
    /// A message of the sender's is gone for everybody.
    DeleteForAll {
        /// Which.
        id: MessageId,
    },
    /// A message is gone for the sender.
    DeleteForMe {
        /// Which.
        message: MessageRef,
    },
    /// The sender reacts to a message.
    React {
        /// Which.
        message: MessageRef,
        /// With what; empty where a reaction is taken back.
        text: Bytes,
    },
}

impl Content {
    /// Returns a message of plain text that answers nothing.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::Message { kind: v1::BodyKind::PlainText, body: body.into(), reply_to: None }
    }
}

/// A send as it came up a publish lane.
#[derive(Clone, Debug, PartialEq)]
pub struct SendCommand {
    /// Where the answer goes.
    pub connection: ConnectionId,
    /// Who sends.
    pub account: AccountId,
    /// From which device.
    pub device: DeviceId,
    /// The device's number for it.
    pub number: u64,
    /// What it says, or the refusal that was already clear; it takes this way too so that answers keep their order.
    pub send: Result<ValidSend, v1::Error>,
}

/// A mark whose fields have been checked for form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidRead {
    /// Who sent the messages that were read.
    pub sender: AccountId,
    /// Which: at these origins those above the first position, up to and including the second.
    pub stretches: Vec<(Origin, Position, Position)>,
}

/// A mark of what was read, as it came up a feed lane.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadCommand {
    /// The feed lane, where the answer goes.
    pub feed: FeedId,
    /// Who read.
    pub account: AccountId,
    /// On which device.
    pub device: DeviceId,
    /// The mark, or the refusal that was already clear; it takes this way too so that answers keep their order.
    pub read: Result<ValidRead, v1::Error>,
}

/// Everything the core can be asked to decide.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The directory's word on an account. Older versions than the one known are passed over.
    Facts {
        /// The facts.
        facts: AccountFacts,
        /// Who waits for them to be applied.
        ticket: Option<Ticket>,
    },
    /// Asks for nothing but to be answered, in its turn.
    Probe {
        /// Who waits.
        ticket: Ticket,
    },
    /// A connection carries the session of a device from here on. If the device has been removed meanwhile, it is closed:
    /// whoever read the session may have done so just before.
    Bound {
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
    },
    /// A message to be accepted.
    Send(SendCommand),
    /// Ends the refusals that follow a temporary one.
    Restart {
        /// The publish lane.
        connection: ConnectionId,
    },
    /// Opens the feed of a device.
    Attach {
        /// The feed lane.
        feed: FeedId,
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// What the device says it has taken.
        cursors: Vec<(Origin, Position)>,
        /// What of that it gave up.
        set_aside: Vec<(Origin, Position)>,
    },
    /// Acknowledges what was written to a feed.
    Ack {
        /// The feed lane.
        feed: FeedId,
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// Up to where, per origin.
        upto: Vec<(Origin, Position)>,
        /// Single events that the device gave up.
        set_aside: Vec<(Origin, Position)>,
    },
    /// Says what was read.
    Read(ReadCommand),
    /// Passes on what is true for a moment.
    Signal(SignalCommand),
    /// How much is unread changed: its devices may be told. Nothing is answered.
    Unread(UnreadCommand),
    /// A connection with its lanes is gone.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// The session it had.
        account: AccountId,
        /// The device of the session.
        device: DeviceId,
    },
    /// Events of an account are too old to be held any longer: they become a gap.
    Expire {
        /// The account.
        account: AccountId,
        /// Last position of the gap.
        upto: Position,
    },
    /// What [`Effect::Read`] asked for.
    Backlog {
        /// The feed lane the read was for.
        feed: FeedId,
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// Events in the order of their positions.
        events: Vec<Arc<StoredEvent>>,
    },
}

/// Where and when a message was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The send number that is answered.
    pub number: u64,
    /// The origin that gave the position: this one or, where a send of before a restore is answered again, an ancestor.
    pub origin: Origin,
    /// Position of the message at that origin.
    pub position: Position,
    /// Stamp of the message.
    pub stamp: Stamp,
}

/// What may happen only after the entries of the same outcome are durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answers a send.
    Accepted {
        /// The publish lane.
        connection: ConnectionId,
        /// The answer.
        accepted: Accepted,
    },
    /// Answers a send that was not taken.
    Refused {
        /// The publish lane.
        connection: ConnectionId,
        /// The send number that is answered.
        number: u64,
        /// Why.
        error: v1::Error,
    },
    /// Writes an event to a feed.
    Deliver {
        /// The feed lane.
        feed: FeedId,
        /// The event.
        event: Arc<StoredEvent>,
    },
    /// Tells a feed of a stretch that is no longer held.
    Gap {
        /// The feed lane.
        feed: FeedId,
        /// First position of the stretch.
        from: Position,
        /// Last position of the stretch.
        upto: Position,
    },
    /// Tells a feed that an ancestor of this origin has ended: what it had from a position on is not here.
    OriginGone {
        /// The feed lane.
        feed: FeedId,
        /// The ancestor.
        origin: Origin,
        /// First position that is missing.
        from: Position,
    },
    /// Tells a feed that everything that waited has been written.
    CaughtUp {
        /// The feed lane.
        feed: FeedId,
    },
    /// Tells whether a feed can go on: `stalled` when events wait and its window has no room for them, and again with every
    /// acknowledgement that makes room without making enough; not `stalled` once it goes on.
    Stalled {
        /// The feed lane.
        feed: FeedId,
        /// Whether only an acknowledgement can move the feed on.
        stalled: bool,
    },
    /// Answers a mark of what was read.
    ReadAnswered {
        /// The feed lane.
        feed: FeedId,
        /// Why it was not taken, if it was not.
        error: Option<v1::Error>,
    },
    /// Ends a feed.
    Ended {
        /// The feed lane.
        feed: FeedId,
        /// Why.
        error: v1::Error,
    },
    /// Closes every connection of a device whose session ended.
    CloseDevice {
        /// The device.
        device: DeviceId,
    },
    /// Reads events of an account from the outbox and hands them back as [`Command::Backlog`].
    Read {
        /// The feed lane it is for.
        feed: FeedId,
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// Which events. All of them are durable by the time this is released.
        stretch: Stretch,
    },
    /// Tells who waits that the command was applied.
    Applied {
        /// Who waits.
        ticket: Ticket,
    },
}

/// What a turn of decisions comes to. Entries of one outcome become durable together, before any effect is released.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What must become durable.
    pub entries: Vec<Entry>,
    /// What may happen after that.
    pub after: Vec<Effect>,
    /// What may leave at once, because it says nothing of what is durable.
    pub signals: Vec<SignalOut>,
    /// How many events the entries put into outboxes; one that goes into two counts twice.
    pub put: usize,
    /// How many events the entries take out of outboxes.
    pub resolved: usize,
}
