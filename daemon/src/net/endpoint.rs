//! The UDP socket and the QUIC settings of the server side.
//!
//! quinn's defaults are generous: 100 streams, 1.25 MB per stream, an unlimited connection window. A server that strangers
//! can reach states its own, so that the worst a connection can cost is known: before it has a session 4 streams and
//! 64 KiB, after that 1 MiB of received and 1 MiB of unacknowledged sent bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use quail_protocol::limits::{IDLE_TIMEOUT, REQUESTS_MAX};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio_util::sync::CancellationToken;

use super::runtime::WatchedRuntime;
use super::tickets::Tickets;
use crate::ops::metrics::Metrics;

/// Streams a client may have open before it has a session: hello, both lanes and one request.
pub(super) const STREAMS_BEFORE_SESSION: u32 = 4;

/// Streams a client may have open with a session: both lanes and its requests.
pub(super) const STREAMS_WITH_SESSION: u32 = 2 + REQUESTS_MAX as u32;

/// Bytes of one stream that may be received and not yet read. quinn has no setter for open connections.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of a connection that may be received and not yet read, before it has a session.
pub(super) const WINDOW_BEFORE_SESSION: u32 = 64 * 1024;

/// The same with a session.
pub(super) const WINDOW_WITH_SESSION: u32 = 1024 * 1024;

/// Bytes of a connection that may be sent and not yet acknowledged by its peer.
const SEND_WINDOW: u64 = 1024 * 1024;

/// Bytes of datagrams of a connection that were received and not read, and that wait to be sent. Then the oldest is dropped.
const DATAGRAM_BUFFER_BYTES: usize = 16 * 1024;
/// What TLS is told of the length of early data. QUIC knows this value only (RFC 9001, section 4.6.1); its own windows, those of a
/// connection without a session, are the limit.
const EARLY_DATA_ANY: u32 = u32::MAX;

/// What a search for larger packets may leave undone. With more than half of what there is to find, 252 bytes, the largest packet is
/// tried at once: one packet and its acknowledgement where a search by halves takes five, and where it does not pass, one more.
const MTU_STEP: u16 = 127;

/// Most connections that have sent a first packet and not been looked at. They are looked at right away, so this is for a
/// burst.
const INCOMING_MAX: usize = 4_096;

/// Bytes that one of them may send meanwhile, and all of them together.
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

/// Receive and send buffers of the socket: room for a burst while the one endpoint task is elsewhere.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Why the socket could not be had. The operator must change the address or stop who holds it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot listen on udp {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS settings do not fit QUIC.
    #[error("cannot use the TLS settings for QUIC: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Binds the socket and returns the endpoint. With the `reset_key` of its last life it ends the connections it has forgotten
/// (RFC 9000, section 10.3) and knows the address tokens that it gave out. `failed` is cancelled should the endpoint's own
/// task panic. Must be called inside a tokio runtime.
///
/// # Errors
/// [`BindError`].
pub fn bind(
    address: SocketAddr,
    tls: rustls::ServerConfig,
    reset_key: &[u8; 32],
    early_data: bool,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
) -> Result<Endpoint, BindError> {
    let cannot = |source| BindError::Bind { address, source };
    let config = server_config(tls, reset_key, early_data, &metrics)?;
    let socket = socket(address).map_err(cannot)?;
    let runtime = Arc::new(WatchedRuntime::new(metrics, failed));
    Endpoint::new(endpoint_config(reset_key), Some(config), socket, runtime).map_err(cannot)
}

/// Returns the settings for connections to come, under these TLS settings. `early_data` says whether clients that were here
/// before may speak in their first packets; tickets are good for these settings only.
///
/// # Errors
/// [`BindError::Tls`].
pub fn server_config(
    mut tls: rustls::ServerConfig,
    reset_key: &[u8; 32],
    early_data: bool,
    metrics: &Arc<Metrics>,
) -> Result<ServerConfig, BindError> {
    if early_data {
        tls.session_storage = Arc::new(Tickets::new(metrics.clone()));
        tls.max_early_data_size = EARLY_DATA_ANY;
    } else {
        tls.send_tls13_tickets = 0;
    }
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"address tokens").extract(reset_key);
    let mut config = ServerConfig::new(Arc::new(QuicServerConfig::try_from(tls)?), Arc::new(token_key));
    config
        .transport_config(Arc::new(transport()))
        // A device keeps its connection when its address changes.
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok(config)
}

/// A reset is sent only for a connection id that this daemon may have given out, so the ids must stay recognisable too.
fn endpoint_config(reset_key: &[u8; 32]) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
    let mut id_key = [0; 8];
    id_key.copy_from_slice(&hmac::sign(&key, b"connection ids").as_ref()[..8]);
    let id_key = u64::from_be_bytes(id_key);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BEFORE_SESSION))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW_BEFORE_SESSION))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    transport
}

fn socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` means every address of the machine, IPv4 included.
        socket.set_only_v6(false)?;
    }
    // The kernel may grant less; that costs bursts, not correctness.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
