//! What can go wrong, by who is to blame and whether another try helps.
//!
//! There are two enums because they reach different people: [`Error`] is about a connection, a request or the client as
//! a whole; [`SendError`] is about one message. What the server said stands in a [`Refusal`] in both.
//!
//! Invariants: every error is `Clone` and `PartialEq`, because one cause is told to many waiters and compared in tests;
//! no error carries a password, a token or a message body.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use quail_protocol::address::Pin;
use quail_protocol::id::AccountId;
use quail_protocol::v1::{self, Reason};

use crate::store::StoreError;

/// What the server said when it refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to decide on.
    pub reason: Reason,
    /// For people and logs; may change with every version of the server.
    pub text: String,
    /// The server's advice on when to try again, counted from its arrival.
    pub retry_after: Option<Duration>,
    /// Whether the same thing may succeed later, unchanged.
    pub temporary: bool,
}

impl Refusal {
    /// Reads a refusal as it came; a reason this crate does not know reads as `INTERNAL`, as the protocol asks.
    pub(crate) fn from_wire(error: v1::Error) -> Self {
        let reason = match error.reason() {
            Reason::Unspecified => Reason::Internal,
            known => known,
        };
        let retry_after = (error.retry_after_ms > 0).then(|| Duration::from_millis(error.retry_after_ms));
        Self { reason, text: error.text, retry_after, temporary: error.temporary }
    }

    /// Makes a refusal of a reason that came as a QUIC close code, with whatever text came along.
    pub(crate) fn from_close(reason: Reason, text: &[u8]) -> Self {
        let meta = reason.meta();
        let text = match text {
            // The name is shown anyway; the table says more.
            text if text.is_empty() || text == meta.name.as_bytes() => meta.text.into(),
            text => String::from_utf8_lossy(text).into_owned(),
        };
        Self { reason, text, retry_after: None, temporary: meta.temporary }.of_connection()
    }

    /// Reads the refusal of a whole connection or lane. Some reasons that are final for a command are temporary here: a
    /// frame that took too long or a limit that was passed is about this one connection, and the next begins anew.
    pub(crate) fn of_connection(self) -> Self {
        let temporary = self.temporary || matches!(self.reason, Reason::FrameTimeout | Reason::Limit);
        Self { temporary, ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.reason.meta().name)
    }
}

/// Why connecting, a request or the whole client failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host of the address has no IP address now. The name or the network's name service is to blame.
    #[error("resolve {host}: {detail}")]
    UnknownHost {
        /// The name that was looked up.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// No UDP socket could be bound. This machine or [`Options::bind_address`](crate::Options::bind_address) is to blame.
    /// Temporary, because addresses come and go with networks and ports become free.
    #[error("bind a UDP socket to {address}: {detail}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        detail: String,
    },
    /// Nothing answered. The server is down, or a network in between drops UDP.
    #[error("no answer from {server} within {waited:?}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// How long the handshake was given.
        waited: Duration,
    },
    /// The server answered that it takes no connection now.
    #[error("{server} takes no connections now")]
    ConnectionRefused {
        /// Host and port.
        server: String,
    },
    /// The server holds another key than the address names. The address is outdated, or somebody stands in between.
    #[error("the server's key is {got}, the address expects {expected}")]
    WrongPin {
        /// The pin of the address.
        expected: Pin,
        /// The pin of the certificate that was presented.
        got: Pin,
    },
    /// The server's certificate is not valid for the host, and the address has no pin.
    #[error("the server's certificate is not trusted: {detail}")]
    Certificate {
        /// What is wrong with it.
        detail: String,
    },
    /// The other side speaks QUIC but not this protocol.
    #[error("the server does not speak quail/1")]
    NotQuail,
    /// Client and server have no protocol version in common.
    #[error("no protocol version in common: {detail}")]
    Version {
        /// What the server said.
        detail: String,
    },
    /// The server refused. Whether another try helps is in the refusal.
    #[error("{0}")]
    Refused(Refusal),
    /// The session belongs to another account than the credentials say. Whoever stored the credentials is to blame.
    #[error("the session belongs to account {got}, the credentials name {expected}")]
    OtherAccount {
        /// The account of the credentials.
        expected: AccountId,
        /// The account of the session.
        got: AccountId,
    },
    /// The connection ended. What was asked may or may not have taken effect.
    #[error("connection lost: {detail}")]
    ConnectionLost {
        /// What ended it.
        detail: String,
    },
    /// No answer in time. What was asked may or may not have taken effect.
    #[error("no answer to {what} within {waited:?}")]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long the answer was given.
        waited: Duration,
    },
    /// The server sent what the protocol does not allow: a fault of the server or of this crate.
    #[error("the server broke the protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// Something failed on this side that nobody asked for: a fault of this crate or of the machine.
    #[error("local fault: {detail}")]
    Local {
        /// What failed.
        detail: String,
    },
    /// What a device must remember could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The message body is longer than a message may be. The caller is to blame.
    #[error("a message body has at most {max} bytes, not {len}")]
    BodyTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The reaction is longer than the protocol allows. The caller is to blame.
    #[error("the reaction has {len} bytes, at most {max} are allowed")]
    ReactionTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The text contains a NUL character, which no text body and no reaction may. The caller is to blame.
    #[error("a message text must not contain NUL")]
    TextHasNul,
    /// A message id is no UUID version 7. The caller is to blame.
    #[error("{0} is no UUID version 7")]
    IdInvalid(quail_protocol::id::MessageId),
    /// Another message was sent under this id. The caller is to blame.
    #[error("another message was sent as {0}")]
    IdTaken(quail_protocol::id::MessageId),
    /// The request is longer than a request may be. The caller is to blame.
    #[error("a request has at most {max} bytes, not {len}")]
    RequestTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// [`Client::events`](crate::Client::events) was called before; there is one reader of events per client.
    #[error("the events of this client were taken before")]
    EventsTaken,
    /// Another client of this device attached its feed later; this one gets no more events.
    #[error("a newer client of this device took over")]
    Replaced,
    /// The client was closed by the application.
    #[error("the client is closed")]
    Closed,
    /// The device was logged out by the application.
    #[error("the device is logged out")]
    LoggedOut,
    /// The client was closed while sends had no answer. They stay in the store, and the next client of the device sends
    /// them; a [`MemoryStore`](crate::MemoryStore) ends with its process.
    #[error("closed with {count} sends unanswered")]
    Unanswered {
        /// How many.
        count: usize,
    },
}

impl Error {
    /// Returns whether the same call may succeed later with nothing changed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::UnknownHost { .. }
            | Self::Bind { .. }
            | Self::Unreachable { .. }
            | Self::ConnectionRefused { .. }
            | Self::ConnectionLost { .. }
            | Self::TimedOut { .. }
            // A later try may meet a repaired server; back-off keeps the tries rare.
            | Self::Protocol { .. } => true,
            Self::Refused(refusal) => refusal.temporary,
            _ => false,
        }
    }

    /// Returns whether trying again is useless until somebody changes something.
    pub fn is_final(&self) -> bool {
        !self.is_temporary()
    }

    /// Returns the reason the server gave, if it was the server that refused.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    /// Returns whether the session of the device is over, so that its person must log in again: the server knows its token no
    /// more. Nothing else makes the token worthless.
    pub fn needs_log_in(&self) -> bool {
        self.reason() == Some(Reason::Unauthenticated) || *self == Self::LoggedOut
    }

    /// Returns the server's advice on when to try again, if it gave one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    pub(crate) fn protocol(detail: impl Into<String>) -> Self {
        Self::Protocol { detail: detail.into() }
    }

    pub(crate) fn lost(detail: impl Into<String>) -> Self {
        Self::ConnectionLost { detail: detail.into() }
    }

    /// Turns a refusal into the error it means: a version refusal has a variant of its own.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        match refusal.reason {
            Reason::Version => Self::Version { detail: refusal.text },
            _ => Self::Refused(refusal),
        }
    }
}

/// Makes the error of a certificate that is not trusted.
pub(crate) fn certificate(detail: String) -> Error {
    Error::Certificate { detail }
}

/// Makes the error of a fault on this side that no user caused.
pub(crate) fn local_fault(detail: String) -> Error {
    Error::Local { detail }
}

/// Why one message was not accepted, or why it is not known whether it was delivered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The server refused the message for good; it is nowhere. Temporary refusals never get here: they are sent again.
    #[error("{0}")]
    Refused(Refusal),
    /// The application cancelled the message; it was sent nowhere.
    #[error("the message was cancelled")]
    Cancelled,
    /// The client ended before the answer came: the message may or may not have been accepted. It stays in the store, and
    /// the next client of the device sends it; sending it again under the same id is safe.
    #[error("the client ended before the answer: {0}")]
    Stopped(Error),
    /// Receipts can no longer arrive, because the feed of this client ended. The message itself was accepted.
    #[error("receipts no longer arrive: {0}")]
    FeedEnded(Error),
    /// So many later messages wait for their receipts that this one is no longer watched
    /// ([`TRACKED_MESSAGES_MAX`](crate::sending::TRACKED_MESSAGES_MAX)). The message itself was accepted.
    #[error("too many messages wait for receipts; this one is no longer watched")]
    Unwatched,
}

impl SendError {
    /// Returns whether sending the same message again, under the same id, may succeed with nothing changed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Stopped(error) => error.is_temporary(),
            _ => false,
        }
    }

    /// Returns whether sending the same message again is useless.
    pub fn is_final(&self) -> bool {
        !self.is_temporary()
    }

    /// Returns the reason the server gave, if it was the server that refused.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_reason_reads_as_internal_and_keeps_its_flag() {
        let refusal = Refusal::from_wire(v1::Error { reason: 9_999, temporary: false, ..Default::default() });
        assert_eq!(refusal.reason, Reason::Internal);
        assert!(Error::Refused(refusal).is_final());
    }

    #[test]
    fn advice_of_zero_is_no_advice() {
        assert_eq!(Refusal::from_wire(Reason::Busy.error()).retry_after, None);
        let refusal = Refusal::from_wire(Reason::Busy.retry_after(Duration::from_millis(7)));
        assert_eq!(Error::Refused(refusal).retry_after(), Some(Duration::from_millis(7)));
    }

    #[test]
    fn limits_of_a_connection_are_temporary_for_the_client_and_final_for_a_command() {
        let limit = Refusal::from_wire(Reason::Limit.error());
        assert!(Error::refused(limit.clone()).is_final());
        assert!(Error::refused(limit.of_connection()).is_temporary());
        assert!(Error::refused(Refusal::from_close(Reason::FrameTimeout, b"")).is_temporary());
        assert!(Error::refused(Refusal::from_close(Reason::Malformed, b"")).is_final());
    }

    #[test]
    fn a_close_without_words_says_what_the_table_says() {
        let said = |text: &[u8]| Refusal::from_close(Reason::Draining, text).to_string();
        assert_eq!(said(b""), "the server is stopping (DRAINING)");
        assert_eq!(said(b"DRAINING"), said(b""));
        assert_eq!(said(b"moving house"), "moving house (DRAINING)");
    }

    #[test]
    fn what_the_network_did_is_temporary_and_what_people_did_is_final() {
        assert!(Error::lost("x").is_temporary());
        assert!(Error::Unreachable { server: "x:1".into(), waited: Duration::ZERO }.is_temporary());
        assert!(Error::WrongPin { expected: Pin([0; 32]), got: Pin([1; 32]) }.is_final());
        assert!(Error::refused(Refusal::from_wire(Reason::Version.error())).is_final());
        assert!(Error::refused(Refusal::from_wire(Reason::Draining.error())).is_temporary());
    }
}
