//! The UDP sockets that connections live on.
//!
//! Invariant: a socket takes whatever address the system gives it, and has room for a burst as far as the kernel grants it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Error;
use crate::error::local_fault;

/// Asked for in both directions. The kernel takes memory only for what lies there, and grants what `net.core.rmem_max` and
/// `wmem_max` allow.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Returns an endpoint for connections to anywhere in the family of `address`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`Error::Bind`].
pub(crate) fn bind(address: SocketAddr) -> Result<quinn::Endpoint, Error> {
    let fault = |error: std::io::Error| Error::Bind { address, detail: error.to_string() };
    let runtime =
        quinn::default_runtime().ok_or_else(|| local_fault("there is no runtime of tokio".into()))?;
    let socket = udp_socket(address).map_err(fault)?;
    quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime).map_err(fault)
}

/// Returns a bound UDP socket that takes a whole window of a fast server, or those of many clients that share it, while the
/// process is busy. With the kernel's default of some 200 KiB, what comes in a burst is dropped and has to be sent again.
pub(crate) fn udp_socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel may grant less; that costs bursts, not correctness.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Returns the address that means every one of a family.
pub(crate) fn wildcard(ipv6: bool) -> SocketAddr {
    match ipv6 {
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
    }
}
