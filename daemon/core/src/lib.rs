//! Decides: the deterministic state machine of the Quail daemon.
//!
//! [`State::decide`] takes a command and the time and says what must become durable ([`Entry`](ports::outbox::Entry)) and what may happen only
//! after it is ([`Effect`]). It does no IO, reads no clock and draws no random number, so a test needs no socket, no
//! runtime and no sleep, and a simulation can replay any history. The [`ports`] are the narrow traits through which the
//! daemon serves it; each has an in-memory twin here and one conformance suite that twin and adapters pass.
//!
//! Invariants: an effect that tells somebody "done" stands in the same [`Outcome`] as the entries that make it true;
//! state changes only in `decide`; positions rise by one per event and are never reused after they were released.

pub mod clock;
mod command;
mod id_map;
mod messages;
mod outbox;
pub mod ports;
mod receipts;
mod signals;
mod state;

pub use command::{
    Accepted, Command, ConnectionId, Content, Effect, FeedId, Outcome, ReadCommand, SendCommand, Ticket,
    ValidRead, ValidSend,
};
pub use id_map::{IdHasher, IdMap};
pub use outbox::{ANCESTORS_MAX, Ancestor, OUTBOX_AGE_MAX, OUTBOX_BYTES_MAX, OUTBOX_EVENTS_MAX};
pub use signals::{SignalCommand, SignalOut, UnreadCommand};
pub use state::{DELETE_FOR_ALL, State};
