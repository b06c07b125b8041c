//! A socket that speaks and does not listen: whoever uses it leaves every handshake half-open.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime, UdpPoller};

#[derive(Debug)]
struct Deaf {
    socket: Arc<dyn AsyncUdpSocket>,
    sent: Arc<AtomicUsize>,
}

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.socket.try_send(transmit);
        if sent.is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Returns an endpoint that never hears an answer, and how many datagrams it has sent.
pub fn endpoint() -> (Endpoint, Arc<AtomicUsize>) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket).expect("a socket of the runtime");
    let sent = Arc::new(AtomicUsize::new(0));
    let socket = Arc::new(Deaf { socket, sent: sent.clone() });
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime);
    (endpoint.expect("an endpoint"), sent)
}
