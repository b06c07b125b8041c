//! What an application can ask for, one file per part of the protocol.
//!
//! Each file adds its calls to [`Client`](crate::Client), and to [`Guest`](crate::Guest) where no session is needed.
//! Requests go straight from the caller's task to a stream of their own; the driver is not involved.
//!
//! Invariants: a request is bounded by the request timeout, and at most as many are under way as the server allows.

pub(crate) mod accounts;
pub(crate) mod changes;
pub(crate) mod chat;
pub(crate) mod devices;
pub(crate) mod feed;
pub(crate) mod history;
pub(crate) mod offline;
pub(crate) mod ping;
pub(crate) mod privacy;
pub(crate) mod queue;
pub(crate) mod sessions;

use std::sync::Arc;
use std::time::Duration;

use quail_protocol::v1::{self, open, request, response};

use crate::Error;
use crate::error::Refusal;
use crate::frames;
use crate::link::Link;
use crate::shared::{Live, Shared};

/// Asks one thing on one connection and returns the answer that is no error.
pub(crate) async fn ask(link: &Link, command: request::Command) -> Result<response::Result, Error> {
    let request = open::Stream::Request(v1::Request { command: Some(command) });
    let mut reader = frames::open_and_finish(link, request).await?;
    let response: v1::Response = reader.only().await?;
    match response.result {
        Some(response::Result::Error(error)) => Err(Error::refused(Refusal::from_wire(error))),
        Some(result) => Ok(result),
        None => Err(Error::protocol("an answer of an unknown kind")),
    }
}

/// Bounds a request in time.
pub(crate) async fn in_time<T>(
    what: &'static str,
    waited: Duration,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(waited, asking).await.unwrap_or(Err(Error::TimedOut { what, waited }))
}

/// The answer is of another kind than the question asks for.
pub(crate) fn wrong_answer(what: &str) -> Error {
    Error::protocol(format!("the answer to {what} is of another kind"))
}

/// Whether a request may be asked again after its connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads.
    Yes,
    /// It may have taken effect.
    No,
}

impl Shared {
    /// Asks on the present connection, or on the next one if there is none.
    pub(crate) async fn ask(
        &self,
        what: &'static str,
        command: request::Command,
        repeat: Repeat,
    ) -> Result<response::Result, Error> {
        let asking = async {
            let _permit = self.requests.acquire().await.map_err(|_| Error::Closed)?;
            loop {
                let live = self.online().await?;
                match ask(&live.link, command.clone()).await {
                    // The driver notices as well; `online` must not return the same connection again.
                    Err(Error::ConnectionLost { .. }) if repeat == Repeat::Yes => self.gone(&live).await?,
                    answer => return answer,
                }
            }
        };
        in_time(what, self.options.request_timeout, asking).await
    }

    /// Waits for a connection on which the hello was answered.
    pub(crate) async fn online(&self) -> Result<Arc<Live>, Error> {
        let mut lives = self.live.subscribe();
        tokio::select! {
            // Fails only if the sender is gone, and that lives as long as `self`.
            live = lives.wait_for(Option::is_some) => {
                live.ok().and_then(|live| live.clone()).ok_or(Error::Closed)
            }
            reason = self.wait_for_end() => Err(reason),
        }
    }

    async fn gone(&self, lost: &Arc<Live>) -> Result<(), Error> {
        let is_other = |live: &Option<Arc<Live>>| live.as_ref().is_none_or(|live| !Arc::ptr_eq(live, lost));
        let mut lives = self.live.subscribe();
        tokio::select! {
            _ = lives.wait_for(is_other) => Ok(()),
            reason = self.wait_for_end() => Err(reason),
        }
    }
}
