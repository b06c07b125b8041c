//! What a connection may do before its handshake is complete.
//!
//! A client that was here before may say something in its very first packets (early data, 0-RTT). Whoever records those can send
//! them again, as often as they like, and it takes the rest of the handshake to tell the difference. So until then only that is
//! acted upon which changes nothing when it comes again: a hello that resumes a session, and sends, which have numbers. Every
//! other stream is kept until the handshake is complete: an attach would replace the feed of the living device, a request may
//! do anything.
//!
//! Invariants: a session that came in early data is not bound before the handshake is complete, so nobody is seen online by a replay and
//! no limit is raised for one; what is kept is bounded by the streams a client may open before it has a session.

use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1::Reason;
use quail_protocol::v1::open::Stream;

use super::{Connection, End, ending};
use crate::gateway::Gateway;
use crate::net::handshake::Handshake;
use crate::net::streams::Opened;
use crate::ops::metrics::Held;

/// A handshake under way, and what waits for its end.
pub(super) struct Early {
    handshake: Handshake,
    /// Streams that are looked at when the handshake is complete.
    kept: Vec<Opened>,
}

impl Early {
    pub(super) fn new(handshake: Handshake) -> Self {
        Self { handshake, kept: Vec::new() }
    }

    pub(super) fn into_handshake(self) -> Handshake {
        self.handshake
    }
}

/// Waits for the end of a handshake that is under way, and returns whether it is complete; for ever if none is. Cancel safe.
pub(super) async fn complete(
    early: &mut Option<Box<Early>>,
    quic: &quinn::Connection,
    gateway: &Gateway,
) -> bool {
    match early {
        Some(early) => early.handshake.done(quic, gateway).await,
        None => std::future::pending().await,
    }
}

/// Closes a connection and says why. A reason that is said before the handshake is complete does not arrive as one (RFC 9000, section
/// 10.2.3), so that is waited for.
pub(super) async fn end(
    handshake: Option<Handshake>,
    quic: &quinn::Connection,
    gateway: &Gateway,
    reason: Reason,
) {
    if let Some(mut handshake) = handshake {
        handshake.done(quic, gateway).await;
    }
    ending::end(quic, reason);
}

impl Connection {
    /// Begins with the session of the hello, if it brought one.
    pub(super) async fn begin(&mut self, session: Option<SessionFacts>) {
        self.session = session;
        if self.early.is_none() {
            self.begin_session().await;
        }
    }

    async fn begin_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.gateway.bind(self.id, &session).await;
            self.opened_session(session);
        }
    }

    /// Keeps a stream that has to wait for the end of the handshake; returns any other one.
    pub(super) fn unless_early(&mut self, opened: Opened) -> Option<Opened> {
        match &mut self.early {
            Some(early) if !matches!(opened.stream, Stream::Publish(_)) => {
                early.kept.push(opened);
                None
            }
            _ => Some(opened),
        }
    }

    /// The handshake is complete: whoever is there is there now, and everything that came is theirs.
    pub(super) async fn confirmed(&mut self) -> Result<(), End> {
        let Some(early) = self.early.take() else { return Ok(()) };
        self.counted = Some(Held::new(&self.gateway.metrics().connections));
        self.begin_session().await;
        for opened in early.kept {
            self.opened(opened).await?;
        }
        Ok(())
    }
}
