//! Ping: how long the way through the server program is, and what protects it.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use quail_protocol::v1::{self, request, response};

use super::{Repeat, in_time, wrong_answer};
use crate::hello::{Welcome, time};
use crate::link::Link;
use crate::{Client, Error, Guest};

/// What a ping found out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PingReport {
    /// From the first packet to the end of the QUIC and TLS handshake, without name resolution.
    pub handshake: Duration,
    /// From asking to the answer, through the server program and back.
    pub round_trip: Duration,
    /// The key exchange of the handshake by its TLS name, as in `X25519MLKEM768`.
    pub key_exchange: String,
    /// The protocol version both sides use.
    pub protocol_version: u32,
    /// Name and version of the server program.
    pub server_name: String,
    /// The address that answered.
    pub server_address: SocketAddr,
    /// The server's clock when it answered.
    pub server_time: SystemTime,
}

impl PingReport {
    fn new(link: &Link, welcome: &Welcome, round_trip: Duration, pong: &v1::Pong) -> Self {
        Self {
            handshake: link.handshake(),
            round_trip,
            key_exchange: link.key_exchange(),
            protocol_version: welcome.version,
            server_name: welcome.server_name.clone(),
            server_address: link.connection.remote_address(),
            server_time: time(pong.server_time_ms),
        }
    }
}

fn command() -> request::Command {
    request::Command::Ping(v1::Ping {})
}

impl Guest {
    /// Asks the server for an answer and reports what that and the handshake showed.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::ConnectionLost`], or temporarily [`Error::Refused`] with `RATE_LIMITED`.
    pub async fn ping(&self) -> Result<PingReport, Error> {
        let asked = Instant::now();
        let asking = super::ask(self.link(), command());
        match in_time("ping", self.options().request_timeout, asking).await? {
            response::Result::Pong(pong) => {
                Ok(PingReport::new(self.link(), self.welcome(), asked.elapsed(), &pong))
            }
            _ => Err(wrong_answer("ping")),
        }
    }
}

impl Client {
    /// Asks the server for an answer and reports what that and the handshake of the present connection showed. While
    /// the client is not online, the round trip contains the wait for a connection.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or temporarily [`Error::Refused`] with `RATE_LIMITED`.
    pub async fn ping(&self) -> Result<PingReport, Error> {
        let asked = Instant::now();
        let response::Result::Pong(pong) = self.shared().ask("ping", command(), Repeat::Yes).await? else {
            return Err(wrong_answer("ping"));
        };
        let round_trip = asked.elapsed();
        let live = self.shared().online().await?;
        Ok(PingReport::new(&live.link, &live.welcome, round_trip, &pong))
    }
}
