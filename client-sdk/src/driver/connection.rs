//! One connection, from the hello to its end.
//!
//! Hello and lanes are opened together and nothing waits for the hello's answer, so what is queued reaches the server in
//! the first flight; with early data even before the handshake is complete. The client is online once the answer is here.
//!
//! Invariants: the hello is the first stream; the first part that fails ends the connection; if the hello was refused,
//! that refusal is the reason, whatever failed first.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quail_protocol::v1::Reason;

use super::part::Part;
use super::{Ended, Opening, feed, publish, signals, silence};
use crate::error::Refusal;
use crate::hello::{self, Welcome};
use crate::link::Link;
use crate::shared::{Live, Shared};
use crate::state::{ConnectionState, Counters};
use crate::transport::{Connected, Early, Transport};
use crate::{Error, api, frames};

/// How long a better reason is waited for when a lane has failed: the answer to the hello, or the close of the connection.
const BLAME_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection makes way for.
enum Next {
    /// The client is to end.
    Nothing,
    /// Another connection, which was answered while this one was silent.
    Other(Box<Link>),
}

/// Runs a connection until it fails, another one takes its place or the client is to end.
pub(super) async fn run(
    shared: &Arc<Shared>,
    transport: &Transport,
    connected: Connected,
    opening: &mut Opening,
) -> Ended {
    let Connected { link, early } = connected;
    let link = Arc::new(link);
    let mut was_online = false;
    let result = tokio::select! {
        result = drive(shared, transport, &link, early, opening, &mut was_online) => result,
        () = Part::new(shared.over.cancelled()) => Ok(Next::Nothing),
    };
    shared.live.send_replace(None);
    let (result, other) = match result {
        Ok(Next::Nothing) => (Ok(()), None),
        Ok(Next::Other(link)) => (Ok(()), Some(*link)),
        Err(error) => (Err(error), None),
    };
    Ended { was_online, result, other }.close(&link).await
}

/// Talks, in early data first if that is possible. If the server did not take that, it has seen nothing of it and everything is said
/// again.
async fn drive(
    shared: &Arc<Shared>,
    transport: &Transport,
    link: &Arc<Link>,
    early: Option<Early>,
    opening: &mut Opening,
    was_online: &mut bool,
) -> Result<Next, Error> {
    if let Some(mut early) = early {
        let mut talking = Box::pin(talk(shared, transport, link, opening, was_online));
        let mut accepted = pin!(transport.early_accepted(link, &mut early));
        let (is_accepted, ended) = tokio::select! {
            biased;
            is_accepted = &mut accepted => (is_accepted?, None),
            // A stream may learn of the rejection first.
            ended = &mut talking => (accepted.await?, Some(ended)),
        };
        tracing::debug!(is_accepted, "early data");
        if is_accepted {
            Counters::add(&shared.counters.early, 1);
            return match ended {
                Some(ended) => ended,
                None => talking.await,
            };
        }
    }
    Box::pin(talk(shared, transport, link, opening, was_online)).await
}

async fn talk(
    shared: &Arc<Shared>,
    transport: &Transport,
    link: &Arc<Link>,
    opening: &mut Opening,
    was_online: &mut bool,
) -> Result<Next, Error> {
    let connection = &link.connection;
    let Shared { options, credentials, .. } = &**shared;
    let hello = hello::write(link, &options.client_name, Some(&credentials.token)).await?;
    let mut answer = pin!(api::in_time("hello", options.connect_timeout, hello.answer()));
    let mut lanes = pin!(async {
        let (publish, feed) = (publish::run(shared, link), feed::run(shared, link));
        let signals = Part::new(signals::run(shared, connection));
        tokio::try_join!(publish, feed, signals).map(|_| ())
    });
    let welcome = tokio::select! {
        biased;
        welcome = &mut answer => welcome?,
        Err(error) = &mut lanes => {
            return match tokio::time::timeout(BLAME_TIMEOUT, answer).await {
                Ok(Err(refused)) => Err(refused),
                _ => Err(error),
            };
        }
        else => return Ok(Next::Nothing),
    };
    check_account(shared, &welcome)?;
    shared.publish.limit_window(welcome.sends_unanswered_max);
    tracing::debug!(server = welcome.server_name, "online");
    Counters::add(&shared.counters.connections, 1);
    shared.live.send_replace(Some(Arc::new(Live { link: link.clone(), welcome })));
    shared.set_state(ConnectionState::Online);
    *was_online = true;
    opening.succeeded();
    let ended = tokio::select! {
        ended = lanes => ended,
        reason = Part::new(connection.closed()) => return Err(frames::connection_error(&reason)),
        silent = Part::new(silence::run(shared, transport, link)) => {
            return silent.map(|other| Next::Other(Box::new(other)));
        }
    };
    match ended {
        // A server that ends its lanes is about to say why it ends the connection.
        Err(error @ Error::ConnectionLost { .. }) => {
            let closed = tokio::time::timeout(BLAME_TIMEOUT, connection.closed()).await;
            Err(closed.map_or(error, |reason| frames::connection_error(&reason)))
        }
        ended => ended.map(|()| Next::Nothing),
    }
}

/// A token of another device would mix up two devices' counters.
fn check_account(shared: &Shared, welcome: &Welcome) -> Result<(), Error> {
    let expected = shared.credentials.account;
    match welcome.account {
        Some(account) if account == expected => Ok(()),
        Some(got) => Err(Error::OtherAccount { expected, got }),
        None => Err(Error::Refused(Refusal::from_close(Reason::Unauthenticated, &[]))),
    }
}
