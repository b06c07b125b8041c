//! What a connection waits for and seldom gets: new streams, datagrams, the end of its time or of the process.
//!
//! It stands behind a gate (`net/gated.rs`), so that the steady work on the lanes does not ask for it each time.

use std::pin::Pin;

use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Connection, End};
use crate::net::endpoint::STREAMS_WITH_SESSION;
use crate::net::gated::Gated;
use crate::net::streams;
use quail_protocol::v1::Reason;

type Waiting = Pin<Box<dyn Future<Output = Came> + Send + Sync>>;

/// What came.
enum Came {
    Stream(Result<(SendStream, RecvStream), ConnectionError>),
    Datagram(Result<Bytes, ConnectionError>),
    /// Nobody has logged in in time.
    Deadline,
    Drain,
}

/// What is waited for now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wanted {
    streams: bool,
    datagrams: bool,
    deadline: Option<Instant>,
}

/// The wait.
pub(super) struct Rare {
    waiting: Gated<Waiting>,
    /// What `waiting` is for; `None` once it is over.
    wanted: Option<Wanted>,
    drain: CancellationToken,
}

impl Rare {
    pub(super) fn new(drain: CancellationToken) -> Self {
        Self { waiting: Gated::new(Box::pin(std::future::pending())), wanted: None, drain }
    }
}

impl Connection {
    /// Sees to it that what is waited for is what may come now.
    pub(super) fn expect_rare(&mut self) {
        let wanted = Wanted {
            streams: self.requests.len() + self.opening.len() < STREAMS_WITH_SESSION as usize,
            datagrams: self.session.is_some() && self.early.is_none(),
            deadline: self.session.is_none().then_some(self.deadline),
        };
        if self.rare.wanted != Some(wanted) {
            self.rare.wanted = Some(wanted);
            let (quic, drain) = (self.quic.clone(), self.rare.drain.clone());
            self.rare.waiting.replace(Box::pin(wait(quic, drain, wanted)));
        }
    }

    /// Does what came.
    pub(super) fn take_rare(&mut self, Rarity(came): Rarity) -> Result<(), End> {
        self.rare.wanted = None;
        match came {
            Came::Stream(stream) => {
                let (send, recv) = stream.map_err(|_| End::Gone)?;
                let gateway = self.gateway.clone();
                self.opening.spawn(async move {
                    let opened = streams::open(send, recv).await;
                    // Counted here: something else may end the connection before it looks at its streams again.
                    if let Err(reason) = &opened {
                        gateway.refusals().count(*reason);
                    }
                    opened
                });
                Ok(())
            }
            Came::Datagram(datagram) => self.datagram(datagram),
            Came::Deadline => Err(End::Close(Reason::Unauthenticated)),
            Came::Drain => Err(End::Drain),
        }
    }
}

/// Something rare that came.
pub(super) struct Rarity(Came);

/// Waits for it. Cancel safe.
pub(super) async fn next(rare: &mut Rare) -> Rarity {
    Rarity((&mut rare.waiting).await)
}

async fn wait(quic: quinn::Connection, drain: CancellationToken, wanted: Wanted) -> Came {
    let deadline = async {
        match wanted.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        stream = quic.accept_bi(), if wanted.streams => Came::Stream(stream),
        datagram = quic.read_datagram(), if wanted.datagrams => Came::Datagram(datagram),
        () = deadline => Came::Deadline,
        () = drain.cancelled() => Came::Drain,
    }
}
