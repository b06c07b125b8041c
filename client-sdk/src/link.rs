//! A connection that is up or about to be, and what its streams need to know of early data.
//!
//! While the handshake behind early data is under way, streams are opened for the first flight. If the server does not take it, QUIC
//! begins to count streams anew: the next one that is opened is stream 0 again. It may be one of the first talk, which has not heard
//! yet, and stream 0 must be a hello. So a stream that was opened in that moment is set aside until the verdict is known.
//!
//! Invariant: before the verdict only streams of early data are handed out; after a rejection those that were set aside are handed
//! out first, in their order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use quail_protocol::error::close;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::watch;

use crate::Error;
use crate::error::local_fault;
use crate::socket::{udp_socket, wildcard};
use crate::tls::Negotiated;

/// A connection, and how it came up.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: quinn::Connection,
    endpoint: quinn::Endpoint,
    shared: bool,
    pub(crate) began: Instant,
    /// Length of the handshake, once it is complete.
    handshake: OnceLock<Duration>,
    /// Whether what was said early counts, once that is known. Without early data everything counts.
    verdict: watch::Sender<Option<bool>>,
    /// Streams that were opened before the verdict was known and are not of early data; as many as the server allows at most.
    aside: Mutex<VecDeque<(SendStream, RecvStream)>>,
}

impl Link {
    /// Makes a link that began then. With early data the verdict is still to come.
    pub(crate) fn new(
        (connection, endpoint): (quinn::Connection, quinn::Endpoint),
        shared: bool,
        began: Instant,
        is_early: bool,
    ) -> Self {
        let verdict = watch::Sender::new(if is_early { None } else { Some(true) });
        let (handshake, aside) = (OnceLock::new(), Mutex::default());
        Self { connection, endpoint, shared, began, handshake, verdict, aside }
    }

    /// The handshake is complete. Tells whether early data was taken.
    pub(crate) fn established(&self, taken: bool) {
        // Told once; the first length stands.
        let _ = self.handshake.set(self.began.elapsed());
        self.verdict.send_replace(Some(taken));
    }

    /// Opens a stream.
    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let is_decided = self.verdict.borrow().is_some();
        let aside = if is_decided { self.aside().pop_front() } else { None };
        if let Some(aside) = aside {
            return Ok(aside);
        }
        let opened = self.connection.open_bi().await?;
        if is_decided || opened.1.is_0rtt() {
            return Ok(opened);
        }
        self.aside().push_back(opened);
        let taken =
            self.verdict.subscribe().wait_for(Option::is_some).await.is_ok_and(|taken| *taken == Some(true));
        let aside = if taken { self.aside().pop_front() } else { None };
        match aside {
            Some(aside) => Ok(aside),
            // The talk that this stream was for is over, and begins again.
            None => std::future::pending().await,
        }
    }

    fn aside(&self) -> MutexGuard<'_, VecDeque<(SendStream, RecvStream)>> {
        // The list is whole between two operations, so a panic elsewhere does not spoil it.
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the length of the handshake; zero while that is under way.
    pub(crate) fn handshake(&self) -> Duration {
        self.handshake.get().copied().unwrap_or_default()
    }

    /// Returns the TLS name of the key exchange.
    pub(crate) fn key_exchange(&self) -> String {
        let data = self.connection.handshake_data().and_then(|data| data.downcast::<Negotiated>().ok());
        match data.and_then(|negotiated| negotiated.key_exchange) {
            Some(group) => format!("{group:?}"),
            None => "unknown".to_owned(),
        }
    }

    /// Ends the connection and lets the packet that says so leave; without it the server would keep the connection for
    /// the length of the idle timeout.
    pub(crate) async fn close(&self) {
        const LINGER: Duration = Duration::from_millis(100);
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        // Closing again would hide the server's reason from requests that are just learning it.
        if self.connection.close_reason().is_some() {
            return;
        }
        let sent = || self.connection.stats().udp_tx.datagrams;
        let sent_before = sent();
        self.connection.close(VarInt::from_u32(close::DONE), b"");
        // The library does not tell when it is out, but nothing else is sent after a close.
        let leaving = async {
            while sent() == sent_before {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // A socket that takes nothing for so long takes nothing at all.
        let _ = tokio::time::timeout(LINGER, leaving).await;
    }

    /// Moves the connection to a new UDP socket.
    pub(crate) fn rebind(&self) -> Result<(), Error> {
        let address = self.endpoint.local_addr().map_err(|error| local_fault(error.to_string()))?;
        let address = wildcard(address.is_ipv6());
        let fault = |error: std::io::Error| Error::Bind { address, detail: error.to_string() };
        self.rebind_to(udp_socket(address).map_err(fault)?)
    }

    /// Moves the connection to this UDP socket. QUIC asks the server for a sign of life at once.
    pub(crate) fn rebind_to(&self, socket: std::net::UdpSocket) -> Result<(), Error> {
        let address = socket.local_addr().unwrap_or_else(|_| wildcard(false));
        if self.shared {
            return Err(Error::Bind { address, detail: "the socket is shared with other clients".into() });
        }
        let fault = |error: std::io::Error| Error::Bind { address, detail: error.to_string() };
        self.endpoint.rebind(socket).map_err(fault)
    }
}
