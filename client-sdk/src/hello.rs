//! The hello: the first exchange on every connection.
//!
//! The hello is written without waiting for anything and answered while lanes and requests are already on their way, so
//! a reconnect costs one round trip. That is why it is two calls.

use std::time::{Duration, SystemTime};

use quail_protocol::id::AccountId;
use quail_protocol::limits::{NAME_BYTES_MAX, SENDS_UNANSWERED_MAX};
use quail_protocol::v1::{self, hello_reply, open};
use quail_protocol::{VERSION_MAX, VERSION_MIN, text};

use crate::error::Refusal;
use crate::frames::{self, FrameReader};
use crate::link::Link;
use crate::{Error, SessionToken};

/// What the server says at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) version: u32,
    pub(crate) server_name: String,
    /// Nobody without a session.
    pub(crate) account: Option<AccountId>,
    pub(crate) sends_unanswered_max: usize,
}

/// A hello that was written.
#[derive(Debug)]
pub(crate) struct Hello(FrameReader);

/// Writes the hello. Must be the first stream of the connection.
pub(crate) async fn write(
    link: &Link,
    client_name: &str,
    token: Option<&SessionToken>,
) -> Result<Hello, Error> {
    let hello = v1::Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        client_name: text::cut(client_name, NAME_BYTES_MAX).to_owned(),
        session_token: token.map(|token| token.as_bytes().to_vec().into()).unwrap_or_default(),
    };
    Ok(Hello(frames::open_and_finish(link, open::Stream::Hello(hello)).await?))
}

impl Hello {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Result<Welcome, Error> {
        let reply: v1::HelloReply = self.0.only().await?;
        match reply.result {
            Some(hello_reply::Result::Welcome(welcome)) => Welcome::from_wire(welcome),
            Some(hello_reply::Result::Error(error)) => Err(Error::refused(Refusal::from_wire(error))),
            None => Err(Error::protocol("an empty answer to the hello")),
        }
    }
}

impl Welcome {
    fn from_wire(welcome: v1::Welcome) -> Result<Self, Error> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            return Err(Error::Version { detail: format!("the server chose version {}", welcome.version) });
        }
        let account = match welcome.account.as_ref() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|error| Error::protocol(format!("hello: {error}")))?),
        };
        // Absent limits are those of the protocol.
        let sends = welcome.limits.map_or(0, |limits| limits.sends_unanswered_max as usize);
        let sends_unanswered_max = if sends == 0 { SENDS_UNANSWERED_MAX } else { sends };
        Ok(Self { version: welcome.version, server_name: welcome.server_name, account, sends_unanswered_max })
    }
}

/// Reads a time of the wire.
pub(crate) fn time(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}
