//! UDP sockets and QUIC connections: from an address to a connection that is up.
//!
//! A host may have several addresses, and often one of them does not answer (an IPv6 address of a server that listens on
//! IPv4 only). They are tried like in RFC 8305: the next one starts a moment after the one before, whoever completes the
//! handshake first wins.
//!
//! A client that was connected before may have a ticket. Then its next connection is handed out before the handshake is complete,
//! so that what is written on it leaves in the first packets (early data). That is tried at the address which answered last, and once:
//! if it fails, the next try is an ordinary one.
//!
//! Invariants: every try is bounded by the connect timeout; a connection has bounded windows, and the server may open no
//! streams.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quail_protocol::address::Address;
use quail_protocol::limits::IDLE_TIMEOUT;
use quinn::{ConnectError, ConnectionError, MtuDiscoveryConfig, TransportConfig, VarInt, ZeroRttAccepted};
use tokio::task::JoinSet;

use crate::error::{certificate, local_fault};
use crate::frames::connection_error;
use crate::link::Link;
use crate::socket::{bind, wildcard};
use crate::tls::Tls;
use crate::{Error, Options};

/// Most addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// How much later than the one before the next address of a host is tried (RFC 8305, section 5).
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);

/// How long the handshake of a connection with early data is given, before an ordinary try is made: a packet that is lost is
/// sent again after one second.
const EARLY_PATIENCE: Duration = Duration::from_secs(3);

/// Most bytes of one stream that may arrive unread: four times the longest frame, so that a window update is on its way
/// while a frame is read.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Most bytes of all streams together that may arrive unread.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Most bytes of all streams together that are written and not acknowledged.
const SEND_WINDOW: u64 = 1024 * 1024;

/// TLS alerts that are about certificates (RFC 8446, section 6.2): bad, unsupported, revoked, expired, unknown, unknown
/// CA, and a signature that is not by the certificate's key.
const CERTIFICATE_ALERTS: &[u64] = &[42, 43, 44, 45, 46, 48, 51];

/// TLS alert for "no protocol in common" (RFC 7301).
const NO_APPLICATION_PROTOCOL: u64 = 120;

/// QUIC transport errors (RFC 9000, section 20.1).
const CONNECTION_REFUSED: u64 = 0x2;
const CRYPTO_ERROR: u64 = 0x100;

/// One UDP socket for many clients of one process.
///
/// Every client has a socket of its own unless it is given one by [`Options::socket`]. With hundreds of clients in one
/// process their buffers add up to gigabytes; one socket serves them all.
#[derive(Clone, Debug)]
pub struct SharedSocket {
    endpoint: quinn::Endpoint,
}

impl SharedSocket {
    /// Binds a socket. Must be called inside a tokio runtime, on which the socket then lives. A wildcard IPv6 address
    /// also reaches IPv4 servers.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        Ok(Self { endpoint: bind(address)? })
    }
}

/// A connection that can be written on.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) link: Link,
    /// There while the handshake is under way and what is written is early data.
    pub(crate) early: Option<Early>,
}

/// A handshake under way.
struct Begun {
    connecting: quinn::Connecting,
    endpoint: quinn::Endpoint,
    began: Instant,
}

/// The handshake behind early data.
pub(crate) struct Early {
    accepted: ZeroRttAccepted,
    deadline: Instant,
}

impl std::fmt::Debug for Early {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Early(..)")
    }
}

/// Connects to one address.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    address: Address,
    tls: Tls,
    config: quinn::ClientConfig,
    transport: Arc<TransportConfig>,
    /// Where tries start from. Without one each has a new socket: a fresh port gets around what a router on the way may
    /// still believe about the old one.
    endpoint: Option<quinn::Endpoint>,
    shared: bool,
    timeout: Duration,
    early_data: bool,
    /// The address at which the last handshake was completed.
    answered: Arc<Mutex<Option<SocketAddr>>>,
}

impl Transport {
    /// Prepares connecting. Reads trust roots from disk if the address has no pin.
    pub(crate) async fn new(address: &Address, options: &Options) -> Result<Self, Error> {
        let pin = address.pin;
        let tls = tokio::task::spawn_blocking(move || Tls::new(pin));
        let tls = tls.await.map_err(|error| local_fault(error.to_string()))??;
        let mut config = quinn::ClientConfig::new(tls.config());
        let transport = Arc::new(transport_config(options));
        config.transport_config(transport.clone());
        let endpoint = match (&options.socket, options.bind_address) {
            (Some(socket), _) => Some(socket.endpoint.clone()),
            // Once for all tries: the port stays taken for a moment after a connection is gone.
            (None, Some(address)) => Some(bind(address)?),
            (None, None) => None,
        };
        Ok(Self {
            address: address.clone(),
            tls,
            config,
            transport,
            endpoint,
            shared: options.socket.is_some(),
            timeout: options.connect_timeout,
            early_data: options.early_data,
            answered: Arc::default(),
        })
    }

    /// Connects, with early data if that is possible.
    pub(crate) async fn connect(&self) -> Result<Connected, Error> {
        match self.early() {
            Some(Ok(connected)) => return Ok(connected),
            // The ticket shortens the handshake, and the server wants no early data.
            Some(Err(begun)) => self.in_time(self.complete(begun)).await,
            None => self.handshake().await,
        }
        .map(|link| Connected { link, early: None })
    }

    /// Begins a connection that can be written on at once; or not, if the ticket is not for that.
    fn early(&self) -> Option<Result<Connected, Begun>> {
        // Taken out: a failure must not be met by the same again.
        let address = self.answered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (address, tls) = (address?, self.tls.early_config().filter(|_| self.early_data)?);
        let mut config = quinn::ClientConfig::new(tls);
        config.transport_config(self.transport.clone());
        let Begun { connecting, endpoint, began } = self.begin(config, address).ok()?;
        Some(match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                let link = Link::new((connection, endpoint), self.shared, began, true);
                let deadline = began + EARLY_PATIENCE.min(self.timeout);
                Ok(Connected { link, early: Some(Early { accepted, deadline }) })
            }
            Err(connecting) => Err(Begun { connecting, endpoint, began }),
        })
    }

    /// Waits for the end of the handshake behind early data, and returns whether the server took that. If not, it never saw a
    /// thing of it. Must not be asked again after that. Cancel safe.
    pub(crate) async fn early_accepted(&self, link: &Link, early: &mut Early) -> Result<bool, Error> {
        let ended = tokio::time::timeout_at(early.deadline.into(), &mut early.accepted).await;
        let accepted = ended.map_err(|_| {
            let waited = early.deadline.saturating_duration_since(link.began);
            Error::Unreachable { server: self.server(), waited }
        })?;
        if let Some(error) = link.connection.close_reason() {
            return Err(self.handshake_error(&error));
        }
        self.established(link, accepted);
        Ok(accepted)
    }

    fn established(&self, link: &Link, taken: bool) {
        link.established(taken);
        let address = link.connection.remote_address();
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Resolves the host and completes a handshake with one of its addresses.
    pub(crate) async fn handshake(&self) -> Result<Link, Error> {
        self.in_time(self.race()).await
    }

    async fn in_time(&self, connecting: impl Future<Output = Result<Link, Error>>) -> Result<Link, Error> {
        let unreachable = || Error::Unreachable { server: self.server(), waited: self.timeout };
        tokio::time::timeout(self.timeout, connecting).await.unwrap_or_else(|_| Err(unreachable()))
    }

    async fn race(&self) -> Result<Link, Error> {
        let mut addresses = self.resolve().await?.into_iter();
        // Dropping the set ends the tries that lost.
        let mut tries = JoinSet::new();
        let mut failure = None;
        loop {
            if let Some(address) = addresses.next() {
                let this = self.clone();
                tries.spawn(async move { this.handshake_with(address).await });
            }
            let stagger = if addresses.len() > 0 { ADDRESS_STAGGER } else { Duration::MAX };
            match tokio::time::timeout(stagger, tries.join_next()).await {
                Err(_) => {}
                Ok(Some(Ok(Ok(link)))) => return Ok(link),
                // A server that answered and is not the right one: no use asking at its other addresses.
                Ok(Some(Ok(Err(error)))) if error.is_final() => return Err(error),
                Ok(Some(Ok(Err(error)))) => failure = Some(error),
                Ok(Some(Err(error))) => failure = Some(local_fault(error.to_string())),
                Ok(None) if addresses.len() == 0 => {
                    let nothing = || Error::UnknownHost {
                        host: self.address.host.clone(),
                        detail: "no address".into(),
                    };
                    return Err(failure.unwrap_or_else(nothing));
                }
                Ok(None) => {}
            }
        }
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let unknown = |error: std::io::Error| Error::UnknownHost {
            host: self.address.host.clone(),
            detail: error.to_string(),
        };
        let found = tokio::net::lookup_host((self.address.host.as_str(), self.address.port)).await;
        let mut addresses: Vec<_> = found.map_err(unknown)?.take(ADDRESSES_MAX).collect();
        if let Some(local) = self.endpoint.as_ref().and_then(|endpoint| endpoint.local_addr().ok()) {
            let both = local.ip() == Ipv6Addr::UNSPECIFIED;
            addresses.retain(|address| both || address.is_ipv4() == local.is_ipv4());
        }
        Ok(addresses)
    }

    async fn handshake_with(&self, address: SocketAddr) -> Result<Link, Error> {
        self.complete(self.begin(self.config.clone(), address)?).await
    }

    fn begin(&self, config: quinn::ClientConfig, address: SocketAddr) -> Result<Begun, Error> {
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => bind(wildcard(address.is_ipv6()))?,
        };
        let began = Instant::now();
        let connecting = endpoint
            .connect_with(config, address, &self.address.host)
            .map_err(|error| self.connect_error(error))?;
        Ok(Begun { connecting, endpoint, began })
    }

    async fn complete(&self, begun: Begun) -> Result<Link, Error> {
        let Begun { connecting, endpoint, began } = begun;
        let connection = connecting.await.map_err(|error| self.handshake_error(&error))?;
        let link = Link::new((connection, endpoint), self.shared, began, false);
        self.established(&link, true);
        Ok(link)
    }

    fn connect_error(&self, error: ConnectError) -> Error {
        match error {
            ConnectError::InvalidServerName(name) => {
                Error::UnknownHost { host: name, detail: "not a host name".into() }
            }
            other => Error::lost(other.to_string()),
        }
    }

    fn handshake_error(&self, error: &ConnectionError) -> Error {
        match error {
            ConnectionError::TimedOut => Error::Unreachable { server: self.server(), waited: IDLE_TIMEOUT },
            ConnectionError::VersionMismatch => {
                Error::Version { detail: "the server does not speak QUIC version 1".into() }
            }
            ConnectionError::TransportError(error) => {
                let alert = u64::from(error.code).checked_sub(CRYPTO_ERROR);
                match (self.tls.take_wrong_pin(), alert) {
                    (Some(wrong_pin), _) => wrong_pin,
                    (None, Some(NO_APPLICATION_PROTOCOL)) => Error::NotQuail,
                    (None, Some(alert)) if CERTIFICATE_ALERTS.contains(&alert) => {
                        certificate(error.reason.clone())
                    }
                    _ => Error::lost(error.to_string()),
                }
            }
            ConnectionError::ConnectionClosed(closed) => match u64::from(closed.error_code) {
                CONNECTION_REFUSED => Error::ConnectionRefused { server: self.server() },
                code if code == CRYPTO_ERROR + NO_APPLICATION_PROTOCOL => Error::NotQuail,
                _ => connection_error(error),
            },
            other => connection_error(other),
        }
    }

    fn server(&self) -> String {
        format!("{}:{}", self.address.host, self.address.port)
    }
}

/// Bytes of datagrams that were received and not read, and that wait to be sent. Then the oldest is dropped.
const DATAGRAM_BUFFER_BYTES: usize = 16 * 1024;

/// What a search for larger packets may leave undone. With more than half of what there is to find, 252 bytes, the largest packet is
/// tried at once: one packet and its acknowledgement where a search by halves takes five, and where it does not pass, one more.
const MTU_STEP: u16 = 127;

fn transport_config(options: &Options) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(options.datagrams.then_some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(Some(options.keep_alive).filter(|interval| !interval.is_zero()));
    // Cannot fail: 45 s fit the encoding by far. If it did, quinn's own default of 30 s would stand.
    if let Ok(idle) = IDLE_TIMEOUT.try_into() {
        config.max_idle_timeout(Some(idle));
    }
    config
}
