//! `quaild --health-check`: whether the daemon on this machine serves, asked the way a client asks.
//!
//! The check goes through the same door as every client: QUIC, the daemon's key, a hello. A daemon whose sockets are open
//! but which has stopped answering fails it. It needs nothing but the daemon's own binary, its configuration and its
//! certificate, so a container can run it.
//!
//! Invariants: only the key of the configured certificate is talked to; the answer is there within [`TIMEOUT`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quail_protocol::address::Pin;
use quail_protocol::frame::{self, FrameError};
use quail_protocol::limits::OPEN_BYTES_MAX;
use quail_protocol::v1::{self, hello_reply, open};
use quail_protocol::{VERSION_MAX, VERSION_MIN, error::close};
use quinn::crypto::rustls::QuicClientConfig;

use crate::net::identity::{self, IdentityError};

/// How long the whole check may take: a little less than the 5 seconds that containers commonly give it, so that the
/// reason is told and not just the end of patience.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The daemon does not serve, or it could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum HealthCheckError {
    /// Its certificate cannot be read, so it would not be known.
    #[error("find out the key of the daemon")]
    Certificate(#[source] IdentityError),
    /// The port is chosen by the system as the daemon starts.
    #[error("the daemon is configured to listen on a free port, which only it knows")]
    AnyPort,
    /// This side could not be set up.
    #[error("set up the health check: {reason}")]
    SetUp {
        /// What failed.
        reason: String,
    },
    /// Nobody answered.
    #[error("no answer from {address} within {} ms", waited.as_millis())]
    Silence {
        /// Who was asked.
        address: SocketAddr,
        /// How long the answer was waited for.
        waited: Duration,
    },
    /// The connection failed.
    #[error("talk to {address}: {reason}")]
    Connection {
        /// Who was asked.
        address: SocketAddr,
        /// What failed.
        reason: String,
    },
    /// The daemon answered that it does not serve.
    #[error("{address} answered {reason}: {text}")]
    Refused {
        /// Who was asked.
        address: SocketAddr,
        /// The reason, as the error table names it.
        reason: &'static str,
        /// Its text.
        text: String,
    },
}

impl HealthCheckError {
    /// Returns the operator's next step.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Certificate(_) => {
                Some("run the check with the daemon's settings and as its user; it has to have started once")
            }
            Self::AnyPort => Some("give the daemon and the check the same port with --listen"),
            Self::Silence { .. } => Some("see that quaild runs and listens there; its log says where"),
            Self::SetUp { .. } | Self::Connection { .. } | Self::Refused { .. } => None,
        }
    }
}

/// Says hello to the daemon that listens on `listen` with the key of `certificate`.
///
/// # Errors
/// See [`HealthCheckError`].
pub async fn health_check(listen: SocketAddr, certificate: &Path) -> Result<(), HealthCheckError> {
    let address = target(listen).ok_or(HealthCheckError::AnyPort)?;
    let pin = identity::certificate_pin(certificate).map_err(HealthCheckError::Certificate)?;
    ask_within(TIMEOUT, &endpoint(address, pin)?, address).await
}

async fn ask_within(
    timeout: Duration,
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
) -> Result<(), HealthCheckError> {
    let asked = tokio::time::timeout(timeout, ask(endpoint, address)).await;
    asked.unwrap_or(Err(HealthCheckError::Silence { address, waited: timeout }))
}

/// Returns the address on this machine under which the daemon is reached.
fn target(listen: SocketAddr) -> Option<SocketAddr> {
    let ip = match listen.ip() {
        // All addresses include those of IPv4, and of the two loopbacks that one is there on every machine.
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    (listen.port() != 0).then(|| SocketAddr::new(ip, listen.port()))
}

fn endpoint(address: SocketAddr, pin: Pin) -> Result<quinn::Endpoint, HealthCheckError> {
    let set_up = |reason: String| HealthCheckError::SetUp { reason };
    let tls = identity::client_config(pin).map_err(|error| set_up(error.to_string()))?;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| set_up(error.to_string()))?;
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut endpoint =
        quinn::Endpoint::client(SocketAddr::new(any, 0)).map_err(|error| set_up(error.to_string()))?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    Ok(endpoint)
}

async fn ask(endpoint: &quinn::Endpoint, address: SocketAddr) -> Result<(), HealthCheckError> {
    // The name is not looked at: the pin says who is right.
    let connecting = endpoint.connect(address, "localhost").map_err(|error| failed(address, &error))?;
    let connection = connecting.await.map_err(|error| failed(address, &error))?;
    let (mut send, receive) = connection.open_bi().await.map_err(|error| failed(address, &error))?;
    let hello = v1::Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        client_name: concat!("quaild health check ", env!("CARGO_PKG_VERSION")).to_owned(),
        session_token: bytes::Bytes::new(),
    };
    let open = v1::Open { stream: Some(open::Stream::Hello(hello)) };
    send.write_chunk(frame::to_bytes(&open)).await.map_err(|error| failed(address, &error))?;
    // A stream that the peer has no need of any more cannot be finished; the reply says whether all is well.
    let _ = send.finish();
    let reply = read_reply(receive, address).await?;
    connection.close(close::DONE.into(), b"");
    // Until the daemon knows that the connection is over: it need not wait for more.
    endpoint.wait_idle().await;
    match reply.result {
        Some(hello_reply::Result::Welcome(_)) => Ok(()),
        Some(hello_reply::Result::Error(error)) => {
            let reason = error.reason().meta().name;
            Err(HealthCheckError::Refused { address, reason, text: error.text })
        }
        None => Err(failed(address, &"the answer to the hello is empty")),
    }
}

async fn read_reply(
    mut receive: quinn::RecvStream,
    address: SocketAddr,
) -> Result<v1::HelloReply, HealthCheckError> {
    let mut buffer = BytesMut::new();
    loop {
        let decoded = frame::decode(&mut buffer, OPEN_BYTES_MAX);
        if let Some(reply) = decoded.map_err(|error: FrameError| failed(address, &error))? {
            return Ok(reply);
        }
        let chunk =
            receive.read_chunk(OPEN_BYTES_MAX, true).await.map_err(|error| failed(address, &error))?;
        let chunk =
            chunk.ok_or_else(|| failed(address, &"the stream ended before the answer to the hello"))?;
        buffer.extend_from_slice(&chunk.bytes);
    }
}

fn failed(address: SocketAddr, reason: &impl ToString) -> HealthCheckError {
    HealthCheckError::Connection { address, reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
