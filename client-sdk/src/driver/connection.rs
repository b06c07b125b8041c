//! One connection, from the hello to its end.
//!
//! Hello and lanes are opened together and nothing waits for the hello's answer, so what is queued reaches the server in
//! the first flight. The client is online once the answer is here.
//!
//! Invariants: the hello is the first stream; the first part that fails ends the connection; if the hello was refused,
//! that refusal is the reason, whatever failed first.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quail_protocol::v1::Reason;

use super::{Ended, Opening, feed, publish, signals, silence};
use crate::error::Refusal;
use crate::hello::{self, Welcome};
use crate::shared::{Live, Shared};
use crate::state::{ConnectionState, Counters};
use crate::transport::Link;
use crate::{Error, api, frames};

/// How long a better reason is waited for when a lane has failed: the answer to the hello, or the close of the connection.
const BLAME_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a connection until it fails or the client is to end.
pub(super) async fn run(shared: &Arc<Shared>, link: Link, opening: &mut Opening) -> Ended {
    let link = Arc::new(link);
    let mut was_online = false;
    let result = tokio::select! {
        result = drive(shared, &link, opening, &mut was_online) => result,
        () = shared.over.cancelled() => Ok(()),
    };
    shared.live.send_replace(None);
    Ended { was_online, result }.close(&link).await
}

async fn drive(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    opening: &mut Opening,
    was_online: &mut bool,
) -> Result<(), Error> {
    let connection = &link.connection;
    let Shared { options, credentials, .. } = &**shared;
    let hello = hello::write(connection, &options.client_name, Some(&credentials.token)).await?;
    let mut answer = pin!(api::in_time("hello", options.connect_timeout, hello.answer()));
    let mut lanes = pin!(async {
        let (publish, feed) = (publish::run(shared, connection), feed::run(shared, connection));
        tokio::try_join!(publish, feed, signals::run(shared, connection)).map(|_| ())
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
        else => return Ok(()),
    };
    check_account(shared, &welcome)?;
    shared.publish.limit_window(welcome.sends_unanswered_max);
    tracing::debug!(server = welcome.server_name, handshake = ?link.handshake, "online");
    Counters::add(&shared.counters.connections, 1);
    shared.live.send_replace(Some(Arc::new(Live { link: link.clone(), welcome })));
    shared.set_state(ConnectionState::Online);
    *was_online = true;
    opening.succeeded();
    let ended = tokio::select! {
        ended = lanes => ended,
        reason = connection.closed() => return Err(frames::connection_error(&reason)),
        silent = silence::run(shared, connection) => return Err(silent),
    };
    match ended {
        // A server that ends its lanes is about to say why it ends the connection.
        Err(error @ Error::ConnectionLost { .. }) => {
            let closed = tokio::time::timeout(BLAME_TIMEOUT, connection.closed()).await;
            Err(closed.map_or(error, |reason| frames::connection_error(&reason)))
        }
        ended => ended,
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
